"""Pack files of an object store travel while the next ones are made."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cas
from cas.assembly import assemble
from cas.catalog.sqlite import memory_catalog
from cas.clock import SystemClock
from cas.errors import StorageFailed
from cas.history.store import Store
from cas.limits import MIB, THRESHOLDS
from cas.maintenance.newstore import new_meta
from cas.objects import sending, writer
from cas.objects.store import ObjectStore
from cas.storage.ranges import CachedBucket
from cas.storage.s3 import S3Bucket

obstore: Any = pytest.importorskip("obstore")

WAIT_S = 30


class Slow(S3Bucket):
    """In memory; `hinder` is called before each put, with how many came before."""

    def __init__(self) -> None:
        super().__init__(obstore, obstore.store.MemoryStore(), SystemClock(), "memory:")
        self.hinder: Callable[[int], None] = lambda _number: None
        self.puts: list[int] = []

    def put(self, name: str, data: bytes | bytearray, mark: str) -> None:
        number = len(self.puts)
        self.puts.append(len(data))
        self.hinder(number)
        super().put(name, data, mark)


@pytest.fixture
def bucket() -> Slow:
    """An empty one."""
    return Slow()


@pytest.fixture
def store(bucket: Slow, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose packs begin with 1 MiB and end at 4."""
    monkeypatch.setattr(writer, "SENT_BYTES", MIB)
    clock = SystemClock()
    meta = new_meta(clock, deltas=False, dictionaries=False)
    thresholds = THRESHOLDS._replace(pack_bytes=4 * MIB)
    catalog = memory_catalog(meta, meta.store_id.hex())
    objects = ObjectStore(catalog, CachedBucket(bucket, None), clock, thresholds=thresholds)
    with assemble(objects, "memory") as opened:
        yield opened


def contents(rng: random.Random, count: int) -> list[bytes]:
    """So many that do not compress, of 70,000 bytes."""
    return [rng.randbytes(70_000) for _ in range(count)]


def test_the_next_pack_is_made_while_one_travels(
    store: Store, bucket: Slow, rng: random.Random
) -> None:
    """A put that takes its time holds up nobody before the end, and everybody there: until all
    packs have come nothing is named. What travels can be read all the same.
    """
    arrives, second = threading.Event(), threading.Event()

    def hinder(number: int) -> None:
        if number == 0:
            assert arrives.wait(WAIT_S)
        else:
            second.set()

    bucket.hinder = hinder
    put = contents(rng, 100)
    ids: list[cas.BlobId] = []

    def work() -> None:
        ids.extend(store.put_many(put))

    thread = threading.Thread(target=work)
    thread.start()
    assert second.wait(WAIT_S)
    assert thread.is_alive()
    assert store.objects.lookup.state.packs == {}
    arrives.set()
    thread.join()
    assert list(store.get_many(ids)) == put
    assert len(bucket.puts) > 3
    assert cas.fsck(store).findings == ()


def test_packs_grow_up_to_the_target(store: Store, bucket: Slow, rng: random.Random) -> None:
    """The first ones are short, and a long import does not have many."""
    store.put_many(contents(rng, 240))
    sizes = [size // MIB for size in bucket.puts]
    assert sizes[:6] == [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_pack_that_does_not_arrive_fails_the_batch(
    which: int, store: Store, bucket: Slow, rng: random.Random
) -> None:
    """Nothing of it exists then, nothing of it is left, and the store goes on."""

    def hinder(number: int) -> None:
        if number == which:
            raise StorageFailed("The line is cut.", path=None, errno=None)

    bucket.hinder = hinder
    put = contents(rng, 100)
    with pytest.raises(StorageFailed, match="is cut"):
        store.put_many(put)
    assert list(bucket.list()) == []
    bucket.hinder = lambda _number: None
    ids = store.put_many(put)
    assert list(store.get_many(ids)) == put
    assert cas.fsck(store).findings == ()


def test_what_arrives_late_is_removed_with_the_rest(
    store: Store, bucket: Slow, rng: random.Random
) -> None:
    """A batch that is given up waits for what travels, and takes it back."""
    begun, ended = threading.Event(), threading.Event()

    def hinder(number: int) -> None:
        begun.set()
        assert ended.wait(WAIT_S)

    bucket.hinder = hinder

    def work() -> None:
        with store.batch() as batch:
            while not begun.is_set():
                batch.put(rng.randbytes(70_000))
            threading.Timer(0.2, ended.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert list(bucket.list()) == []


def test_what_travels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more waits until there is room for it, however large it is."""
    monkeypatch.setattr(sending, "SENDING_BYTES_MAX", 100)
    packs = sending.Sending()
    order: list[str] = []
    gate = threading.Event()

    def first() -> None:
        assert gate.wait(WAIT_S)
        order.append("first")

    packs.begin(first, 60)
    packs.begin(lambda: None, 40)
    threading.Timer(0.1, gate.set).start()
    packs.begin(lambda: order.append("large"), 500)
    packs.wait()
    assert order == ["first", "large"]
