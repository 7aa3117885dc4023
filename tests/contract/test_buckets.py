"""The bucket contract, run by every bucket of the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cas.clock import SystemClock
from cas.errors import ReadOnly
from cas.storage.bucket import Bucket
from cas.storage.local import LocalBucket
from cas.storage.memory import MemoryBucket
from cas.storage.ranges import CachedBucket
from cas.storage.s3 import S3Bucket
from cas.testing.bucket_contract import BucketContract, pack_name, put
from tools.services import S3Server


class TestMemoryBucket(BucketContract):
    reopens = False

    def open_bucket(self, folder: Path) -> Bucket:
        return MemoryBucket()


class TestLocalBucket(BucketContract):
    def open_bucket(self, folder: Path) -> Bucket:
        return LocalBucket(str(folder), SystemClock())

    def test_no_temporary_file_is_left(self, bucket: Bucket, tmp_path: Path) -> None:
        """Sealed or aborted, an upload leaves no file but the sealed one; others are not listed."""
        put(bucket, pack_name(1), b"x" * 2_000_000)
        upload = bucket.create()
        upload.write(b"y" * 2_000_000)
        upload.abort()
        assert os.listdir(tmp_path) == [pack_name(1)]
        (tmp_path / "stranger.tmp").write_bytes(b"x")
        (tmp_path / "notes.txt").write_bytes(b"x")
        assert [file.name for file in bucket.list()] == [pack_name(1)]

    def test_a_deleted_file_can_be_read_to_its_end(self, bucket: Bucket, tmp_path: Path) -> None:
        """A reader that has begun another handle's victim still reads it."""
        put(bucket, pack_name(1), b"abcdef")
        assert bucket.read(pack_name(1), 0, 3) == b"abc"
        other = self.open_bucket(tmp_path)
        other.delete(pack_name(1))
        assert bucket.read(pack_name(1), 3, 3) == b"def"

    def test_descriptors_are_bounded(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many files are read, the number of open descriptors stays small: the maximum, or
        a share of what the process may have.
        """
        assert isinstance(bucket, LocalBucket)
        assert bucket._descriptors_max <= min(512, os.sysconf("SC_OPEN_MAX") // 4)
        monkeypatch.setattr(bucket, "_descriptors_max", 100)
        for at in range(300):
            put(bucket, pack_name(at), b"x")
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
        if before is None:
            pytest.skip("this host does not list descriptors in /proc")
        for at in range(300):
            bucket.read(pack_name(at), 0, 1)
        assert len(os.listdir("/proc/self/fd")) - before <= 130
        bucket.close()
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        """Where no file can be made the error says read-only and names the place."""
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        tmp_path.chmod(0o500)
        with pytest.raises(ReadOnly):
            LocalBucket(str(tmp_path), SystemClock()).create()


class TestObjectStoreInMemory(BucketContract):
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        self.obstore: Any = pytest.importorskip("obstore")
        self.stores: dict[Path, Any] = {}

    def open_bucket(self, folder: Path) -> Bucket:
        store = self.stores.setdefault(folder, self.obstore.store.MemoryStore())
        return S3Bucket(self.obstore, store, SystemClock(), "memory:")


class TestCachedBucket(TestObjectStoreInMemory):
    def open_bucket(self, folder: Path) -> Bucket:
        store = self.stores.setdefault(folder, self.obstore.store.MemoryStore())
        inner = S3Bucket(self.obstore, store, SystemClock(), "memory:")
        return CachedBucket(inner, str(folder / "ranges"))


class TestS3Bucket(BucketContract):
    @pytest.fixture(autouse=True)
    def _server(self, s3_server: S3Server) -> None:
        self.obstore: Any = pytest.importorskip("obstore")
        self.server = s3_server

    def open_bucket(self, folder: Path) -> Bucket:
        server = self.server
        store = self.obstore.store.S3Store(
            server.bucket,
            prefix=str(folder).strip("/"),
            endpoint=server.endpoint,
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        return S3Bucket(self.obstore, store, SystemClock(), "s3://test")
