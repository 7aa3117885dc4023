"""The cache before a bucket: what it spares, that it is bounded, shared, and never believed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cas.clock import SystemClock
from cas.errors import CasError, StorageFailed
from cas.storage import ranges
from cas.storage.bucket import Part
from cas.storage.ranges import BLOCK_BYTES, CachedBucket, sweep
from cas.storage.s3 import S3Bucket
from cas.testing.bucket_contract import pack_name, put

obstore: Any = pytest.importorskip("obstore")

NAME = pack_name(1)


class Counted(S3Bucket):
    """A bucket that notes what it is asked for."""

    def __init__(self, store: Any) -> None:
        super().__init__(obstore, store, SystemClock(), "memory:")
        self.asked: list[Part] = []

    def fetch_many(self, parts: Sequence[Part]) -> list[bytes | CasError]:
        self.asked += parts
        return super().fetch_many(parts)


@pytest.fixture
def content(rng: random.Random) -> bytes:
    """What the file holds."""
    return rng.randbytes(4_000_000)


@pytest.fixture
def inner(content: bytes) -> Counted:
    """A bucket with one file."""
    bucket = Counted(obstore.store.MemoryStore())
    put(bucket, NAME, content)
    return bucket


def test_neighbours_come_in_one_request(inner: Counted, content: bytes) -> None:
    """Reads that lie near each other are one request, and reads of the same again none."""
    cached = CachedBucket(inner, None)
    parts = [(NAME, 1000 * at, 300) for at in range(1000)]
    assert cached.read_many(parts) == [content[a : a + n] for _name, a, n in parts]
    assert len(inner.asked) == 1
    assert cached.read_many(parts) == [content[a : a + n] for _name, a, n in parts]
    assert cached.read(NAME, 5, 100) == content[5:105]
    assert len(inner.asked) == 1


def test_far_reads_do_not_bring_what_lies_between(inner: Counted, content: bytes) -> None:
    """Between reads that are far apart nothing is fetched."""
    cached = CachedBucket(inner, None)
    parts = [(NAME, at * 1_000_000, 10) for at in range(4)]
    assert cached.read_many(parts) == [content[a : a + n] for _name, a, n in parts]
    assert len(inner.asked) == 4
    assert sum(length for _name, _start, length in inner.asked) == 4 * BLOCK_BYTES


def test_processes_share_what_one_has_fetched(
    inner: Counted, content: bytes, tmp_path: Path
) -> None:
    """Another handle on the same folder asks for nothing that lies there."""
    first, second = (CachedBucket(inner, str(tmp_path / "ranges")) for _ in range(2))
    assert first.read(NAME, 100_000, 50_000) == content[100_000:150_000]
    inner.asked.clear()
    assert second.read(NAME, 100_001, 49_000) == content[100_001:149_001]
    assert inner.asked == []


def damage(path: Path, how: str) -> None:
    """Spoil one file of the cache."""
    data = path.read_bytes()
    if how == "flipped":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif how == "short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "long":
        path.write_bytes(data + b"x" * BLOCK_BYTES)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flipped", "short", "long", "empty", "gone"])
def test_a_damaged_cache_is_fetched_again(
    how: str, inner: Counted, content: bytes, tmp_path: Path
) -> None:
    """Whatever becomes of the folder, a read gives the file's bytes, and mends the cache."""
    CachedBucket(inner, str(tmp_path)).read(NAME, 0, 10)
    (path,) = (each for each in tmp_path.rglob("*") if each.is_file())
    damage(path, how)
    assert CachedBucket(inner, str(tmp_path)).read(NAME, 0, 200) == content[:200]
    inner.asked.clear()
    assert CachedBucket(inner, str(tmp_path)).read(NAME, 0, 200) == content[:200]
    assert inner.asked == []


def test_the_block_of_another_place_is_none(inner: Counted, content: bytes, tmp_path: Path) -> None:
    """A whole block under the name of another is not believed: files may change places when a
    host loses its power.
    """
    cached = CachedBucket(inner, str(tmp_path))
    cached.read_many([(NAME, 0, 10), (NAME, 20 * BLOCK_BYTES, 10)])
    first, second = sorted(each for each in tmp_path.rglob("*") if each.is_file())
    shutil.copy(second, first)
    assert CachedBucket(inner, str(tmp_path)).read(NAME, 0, 200) == content[:200]


def test_a_folder_that_cannot_be_written_costs_nothing(inner: Counted, content: bytes) -> None:
    """Where no file can be made the reads go on."""
    cached = CachedBucket(inner, "/dev/null/ranges")
    assert cached.read(NAME, 0, 200) == content[:200]


def test_the_folder_is_bounded(
    inner: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not used for longest goes when there is more than the bound."""
    monkeypatch.setattr(ranges, "_SWEEP_BLOCKS", 1)
    cached = CachedBucket(inner, str(tmp_path), 20 * BLOCK_BYTES)
    for at in range(100):
        cached.read(NAME, at * BLOCK_BYTES, 1)
        assert sweep(str(tmp_path), 1 << 40) <= 21 * (BLOCK_BYTES + 4)
    names = {name.rpartition("-")[2] for _top, _dirs, found in os.walk(tmp_path) for name in found}
    assert f"{99:x}" in names
    assert f"{0:x}" not in names


def test_memory_is_bounded(inner: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle keeps no more than its share."""
    monkeypatch.setattr(ranges, "RANGE_MEMORY_BYTES", 4 * BLOCK_BYTES)
    cached = CachedBucket(inner, None)
    for at in range(50):
        cached.read(NAME, at * BLOCK_BYTES, 1)
        assert sum(map(len, cached._kept.values())) == cached._kept_bytes <= 4 * BLOCK_BYTES


def test_a_deleted_file_leaves_the_cache(inner: Counted, tmp_path: Path) -> None:
    """Deleting a file, or forgetting all, leaves none of its bytes in the folder."""
    cached = CachedBucket(inner, str(tmp_path))
    cached.read(NAME, 0, 100_000)
    cached.delete(NAME)
    assert not any(each.is_file() for each in tmp_path.rglob("*"))
    put(inner, pack_name(2), b"x" * 1000)
    cached.read(pack_name(2), 0, 1000)
    cached.forget()
    assert not any(each.is_file() for each in tmp_path.rglob("*"))


def test_large_reads_pass_by(inner: Counted, content: bytes, tmp_path: Path) -> None:
    """A whole pack on its way to somewhere else does not drive out what is hot."""
    put(inner, pack_name(2), content + content)
    cached = CachedBucket(inner, str(tmp_path))
    assert cached.read(pack_name(2), 0, 8_000_000) == content + content
    assert inner.asked == []
    assert os.listdir(tmp_path) == []


def test_an_error_is_not_kept(inner: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that failed is asked for again, and another part of the same request is served."""
    cached = CachedBucket(inner, None)
    cached.read(NAME, 0, 1)

    def fail(parts: Sequence[Part]) -> list[bytes | CasError]:
        return [StorageFailed("no", path="", errno=None) for _ in parts]

    with monkeypatch.context() as patch:
        patch.setattr(inner, "fetch_many", fail)
        good, bad = cached.read_many([(NAME, 0, 1), (NAME, 1_000_000, 1)])
        assert isinstance(good, bytes)
        assert isinstance(bad, StorageFailed)
    assert isinstance(cached.read(NAME, 1_000_000, 1), bytes)
