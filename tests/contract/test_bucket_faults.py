"""Every request to the server of a bucket goes wrong once, in every way, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import StorageFailed
from cas.maintenance.fsck.check import fsck
from cas.storage import connect as connecting
from cas.storage.address import BucketAddress, parse_address
from cas.storage.bucket import BucketFile
from cas.storage.connect import connect
from cas.storage.s3 import S3Bucket
from cas.testing.bucket_contract import pack_name, put
from cas.testing.stores import SMALL, build
from tests.databases import fresh_url
from tests.servers.proxy import FAULTS, FaultProxy, faulty
from tests.unit.kit import write
from tools.services import S3Server

pytest.importorskip("obstore")

CONTENT = bytes(range(256)) * 300


class Hasty(SystemClock):
    """A clock whose pauses are short."""

    def sleep_ms(self, duration_ms: float) -> None:
        super().sleep_ms(min(duration_ms, 5))


@pytest.fixture(scope="module")
def shared(s3_server: S3Server) -> Iterator[FaultProxy]:
    """One proxy for all tests of this module."""
    with faulty(s3_server.endpoint) as server:
        yield server


@pytest.fixture
def proxy(
    shared: FaultProxy, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """The proxy without faults, credentials where a user has them, and little patience."""
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(connecting, "BUCKET_RETRIES", 0)
    shared.reset()
    yield shared
    shared.reset()
    shared.deliver()


def address_of(proxy: FaultProxy, server: S3Server, folder: Path) -> BucketAddress:
    """A prefix that is reached through the proxy."""
    return parse_address(f"s3://{server.bucket}{folder}?endpoint={proxy.endpoint}")


@pytest.fixture
def bucket(proxy: FaultProxy, s3_server: S3Server, tmp_path: Path) -> S3Bucket:
    """A bucket behind the proxy, with one file."""
    found = connect(address_of(proxy, s3_server, tmp_path), Hasty())
    put(found, pack_name(1), CONTENT)
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_a_put_that_goes_wrong_once_is_settled(
    fault: str, bucket: S3Bucket, proxy: FaultProxy
) -> None:
    """Whatever one answer is, the put succeeds; the file is whole and is listed once, and what
    comes late changes nothing.
    """
    proxy.reset(lambda number, _request: fault if number == 0 else None)
    put(bucket, pack_name(2), CONTENT[:5000])
    proxy.reset()
    assert all(status == 412 for status in proxy.deliver())
    assert bucket.read(pack_name(2), 0, 5000) == CONTENT[:5000]
    expected = {BucketFile(pack_name(1), len(CONTENT)), BucketFile(pack_name(2), 5000)}
    assert set(bucket.list()) == expected


@pytest.mark.parametrize("fault", ["lost", "500-done", "412", "409"])
def test_the_file_of_another_is_never_taken_for_ones_own(
    fault: str, bucket: S3Bucket, proxy: FaultProxy
) -> None:
    """A name that is taken stays taken when answers are lost, equal content or not."""
    proxy.reset(lambda number, _request: fault if number == 0 else None)
    upload = bucket.create()
    upload.write(CONTENT)
    with pytest.raises(StorageFailed, match="never overwritten"):
        upload.seal(pack_name(1))


@pytest.mark.parametrize("fault", ["dropped", "500", "503", "409", "412", "lost"])
def test_a_server_that_never_answers_well_is_told(
    fault: str, bucket: S3Bucket, proxy: FaultProxy
) -> None:
    """When every request fails the same way each call ends with a typed error, and none says that
    a file is missing, damaged, or that there are none.
    """
    proxy.reset(lambda _number, request: fault)
    for call in (
        lambda: put(bucket, pack_name(3), b"x"),
        lambda: bucket.read(pack_name(1), 0, 10),
        lambda: bucket.size(pack_name(1)),
        lambda: list(bucket.list()),
        lambda: bucket.delete(pack_name(9)),
    ):
        with pytest.raises(StorageFailed):
            call()
    proxy.reset()
    assert bucket.read(pack_name(1), 0, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_are_exact_or_fail(fault: str, bucket: S3Bucket, proxy: FaultProxy) -> None:
    """A read, a size, a listing whose request goes wrong gives the truth or `StorageFailed`."""
    put(bucket, pack_name(2), b"two")
    truth = {BucketFile(pack_name(1), len(CONTENT)), BucketFile(pack_name(2), 3)}
    for at in range(3):
        for call, expected in (
            (lambda: bucket.read(pack_name(1), 10, 500), CONTENT[10:510]),
            (lambda: bucket.size(pack_name(1)), len(CONTENT)),
            (lambda: set(bucket.list()), truth),
        ):
            proxy.reset(lambda number, _request, at=at: fault if number == at else None)
            try:
                assert call() == expected
            except StorageFailed:
                continue
    proxy.reset()
    proxy.deliver()
    assert set(bucket.list()) == truth


def test_a_listing_that_was_cut_short_is_gone_on_with(bucket: S3Bucket, proxy: FaultProxy) -> None:
    """A page that leaves out its second half and says that it is all does not hide a file."""
    expected = {pack_name(1)}
    for at in range(2, 12):
        put(bucket, pack_name(at), b"x")
        expected.add(pack_name(at))
    proxy.reset(lambda number, _request: "half" if number == 0 else None)
    assert {file.name for file in bucket.list()} == expected


@pytest.mark.parametrize("catalog", ["folder", "postgres"])
def test_a_commit_survives_every_fault_at_every_request(
    catalog: str,
    proxy: FaultProxy,
    s3_server: S3Server,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    """A commit with a pack file, with each of its requests going wrong in each way: it is done, or
    fails with a typed error and nothing of it is there; the store is whole afterwards.
    """
    url = address_of(proxy, s3_server, tmp_path).url
    place = str(tmp_path / "store")
    if catalog == "postgres":
        place = fresh_url(request.getfixturevalue("postgres"))
    with cas.open(place, create=True, bucket=url, clock=Hasty()) as store:
        committed: dict[str, bytes] = {}

        def commit(path: str) -> None:
            content = rng.randbytes(100_000)
            with store.begin(author="t") as tx:
                tx.branch("main")[path] = content
                tx.commit()
            committed[path] = content

        commit("first")
        proxy.reset()
        commit("second")
        requests = len(proxy.seen)
        assert 1 <= requests <= 3
        failed = 0
        for fault in FAULTS:
            for at in range(requests):
                proxy.reset(lambda number, _r, at=at, fault=fault: fault if number == at else None)
                path = f"{fault}-{at}"
                try:
                    commit(path)
                except StorageFailed:
                    failed += 1
                proxy.reset()
                proxy.deliver()
                snapshot = store.snapshot("main")
                if path in committed:
                    assert snapshot[path] == committed[path]
                else:
                    assert path not in snapshot
        assert failed < len(FAULTS)
        assert all(store.snapshot("main")[path] == content for path, content in committed.items())
    with cas.open(place) as store:
        # Packs that failed commits have left are nobody's. A collection removes them, but for one
        # that is younger than all that the catalog knows of.
        store.gc()
        assert {finding.code for finding in fsck(store).findings} <= {"pack-unnamed"}
        assert all(store.snapshot("main")[path] == content for path, content in committed.items())


def test_a_commit_that_stands_is_no_failure_where_its_spill_fails(
    proxy: FaultProxy, s3_server: S3Server, tmp_path: Path, rng: random.Random
) -> None:
    """With the server away while a spill is due, commits of small things stand and the handle
    closes without an error; the spill is made up for when the server is back.
    """
    url, place = address_of(proxy, s3_server, tmp_path).url, str(tmp_path / "store")
    cas.init(place, bucket=url)
    proxy.reset(lambda _number, _request: "dropped")
    contents: dict[str, bytes] = {}
    for count in range(1, 8):  # a spill that has begun, or is about to be sealed, or was put off
        with build(place, clock=Hasty(), thresholds=SMALL) as store:
            for _ in range(count):
                contents[f"f{len(contents)}"] = content = rng.randbytes(300)
                write(store, files={f"f{len(contents) - 1}": content})
    assert {method for method, _path in proxy.seen} >= {"PUT"}
    proxy.reset()
    with cas.open(place) as store:
        assert store.spill() > 0
        assert all(store.snapshot("main")[path] == content for path, content in contents.items())
