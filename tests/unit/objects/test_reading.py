"""Reading objects: in order, in bulk, by abbreviation, from many threads, beside writers."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import pytest

import cas
from cas.errors import AmbiguousRevision, CasError, Closed, ObjectNotFound, WrongKind
from cas.history.store import Store
from cas.model.ids import BlobId, Kind, digest_blob
from cas.objects import quick
from cas.objects import store as module
from tests.unit.kit import commits, reopened, write


def test_many_are_given_in_the_order_asked(store: Store) -> None:
    """Whatever order they lie in, and however often one is asked for, answers follow the list."""
    contents = [os.urandom(at % 50) + b"%d" % at for at in range(300)]
    ids = store.put_many(contents[:150]) + [store.put(c) for c in contents[150:]]
    store.spill()
    ids += [store.put(b"inline %d" % at) for at in range(20)]
    contents += [b"inline %d" % at for at in range(20)]
    order = [*range(319, -1, -1), 5, 5, 319, 5]
    assert list(store.get_many([ids[at] for at in order])) == [contents[at] for at in order]
    assert list(store.get_many(iter([]))) == []


@pytest.mark.parametrize("limit", ["GROUP_COUNT", "_GROUP_BYTES"])
def test_groups_of_many_are_bounded(
    store: Store, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a group of contents is held, and no more ids than the largest group has."""
    if limit == "GROUP_COUNT":
        monkeypatch.setattr(module, limit, 10)
    else:
        monkeypatch.setattr(quick, limit, 1000)
    contents = [b"%100d" % at for at in range(95)]
    ids = [store.put(content) for content in contents]
    asked: list[BlobId] = []
    groups: list[int] = []
    load = store.objects.quick._load

    def counted(ids: Sequence[bytes], lots: Any) -> quick.Loaded:
        groups.append(len(ids))
        return load(ids, lots)

    monkeypatch.setattr(store.objects.quick, "_load", counted)

    def ask() -> object:
        for id in ids:
            asked.append(id)
            yield id

    for at, content in enumerate(store.get_many(ask())):  # type: ignore[arg-type]
        assert content == contents[at]
        assert sum(groups) <= at + 10
        assert len(asked) <= at + module.GROUP_COUNT
    assert len(asked) == sum(groups) == 95


def test_many_stop_at_what_is_missing(memory: Store) -> None:
    """Contents before an absent id are given, then the error comes."""
    ids = [memory.put(b"1"), memory.put(b"2"), BlobId(bytes(32)), memory.put(b"3")]
    given: list[bytes] = []
    with pytest.raises(ObjectNotFound):
        given.extend(memory.get_many(ids))
    found = memory.get_many(ids)
    assert [next(found), next(found)] == [b"1", b"2"]


def test_kinds_are_not_mixed_up(memory: Store) -> None:
    """Asking for a blob by the id of a commit or a directory is a WrongKind."""
    write(memory)
    commit = memory.resolve("main")
    tree = memory.commit("main").tree
    for id in (commit, tree):
        for ask in (memory.get, memory.open, lambda id: list(memory.get_many([id]))):
            with pytest.raises(WrongKind):
                ask(id)
    blob = memory.put(b"x")
    with memory.batch() as batch, pytest.raises(WrongKind):
        batch.get(commit)
    with pytest.raises(WrongKind):
        memory.resolve(blob)
    assert memory.objects.get(tree, Kind.TREE)


def test_abbreviations(store: Store) -> None:
    """Eight digits or more name an object, inline or in a file, in either case."""
    ids = [store.put(b"%d" % at) for at in range(40)]
    store.spill()
    ids += [store.put(b"young %d" % at) for at in range(40)]
    for id in ids:
        for length in (8, 9, 15, 16, 17, 31, 33, 63, 64):
            assert store.find(str(id)[:length]) == id
            assert store.find(str(id)[:length].upper()) == id
        assert store.get(str(id)[:10]) == store.get(id)
    with pytest.raises(ObjectNotFound):
        store.find("0123456789abcdef")


def test_an_ambiguous_abbreviation_lists_what_it_could_be(store: Store) -> None:
    """Two objects that begin alike are told apart by more digits."""
    one, two = bytes.fromhex("aabbccdd" + "00" * 28), bytes.fromhex("aabbccdd" + "01" * 28)
    with store.objects.batch() as batch:
        for id in (one, two):
            batch.add(id, Kind.BLOB, b"content that does not matter")
    with pytest.raises(AmbiguousRevision) as caught:
        store.find("aabbccdd")
    assert caught.value.candidates == [one.hex(), two.hex()]
    assert store.find("aabbccdd01") == two
    assert store.find("AABBCCDD00") == one
    with pytest.raises(AmbiguousRevision):
        store.find("aabbccdd0")


def test_abbreviations_beside_commits(store: Store) -> None:
    """Looking up abbreviations while other threads put objects never fails."""
    ids = [store.put(b"%d" % at) for at in range(50)]
    odd: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                for id in ids:
                    assert store.find(str(id)[:12]) == id
        except BaseException as error:
            odd.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for at in range(400):
        store.put(b"more %d" % at)
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == []


def test_misses_beside_commits(store: Store) -> None:
    """Asking for what is not there while other threads commit says so, and nothing else."""
    odd: list[object] = []
    stop = threading.Event()

    def look() -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                if store.has(BlobId(digest_blob(b"absent %d" % number))):
                    odd.append(number)
        except BaseException as error:
            odd.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    commits(store, 200)
    stop.set()
    for thread in threads:
        thread.join()
    assert odd == []


def test_readers_beside_writers_and_spills(store: Store) -> None:
    """Threads and a second handle read everything there ever was while packs come and go."""
    contents = [os.urandom(200) for _ in range(60)]
    ids = [store.put(content) for content in contents]
    big = os.urandom(9 << 20)
    big_id = store.put(big)
    odd: list[object] = []
    stop = threading.Event()

    with reopened(store) as other, reopened(store, read_only=True) as reader:

        def read(handle: Store) -> None:
            turn = 0
            try:
                while not stop.is_set():
                    turn += 1
                    at = turn * 7 % 60
                    if handle.get(ids[at]) != contents[at]:
                        odd.append(at)
                    if turn % 10 == 0 and list(handle.get_many(ids)) != contents:
                        odd.append("many")
                    if turn % 50 == 0:
                        with handle.open(big_id) as stream:
                            stream.seek(5_000_000)
                            if stream.read(100) != big[5_000_000:5_000_100]:
                                odd.append("stream")
            except BaseException as error:
                odd.append(error)

        threads = [threading.Thread(target=read, args=(h,)) for h in (store, other, reader)]
        for thread in threads:
            thread.start()
        for at in range(40):
            writer = (store, other)[at % 2]
            for n in range(5):
                writer.put(b"%d %d" % (at, n))
            write(writer, f"b{at % 3}", {"n": b"%d" % at})
            (other, store)[at % 2].spill()
        stop.set()
        for thread in threads:
            thread.join()
    assert odd == []


def test_a_closed_store_gives_no_bytes(store: Store) -> None:
    """Inline or in a file, read before or not: after close a read is refused."""
    small, large = store.put(b"small"), store.put(os.urandom(3 << 20))
    never = store.put(b"never read before")
    store.get(small)
    store.get(large)
    stream = store.open(store.put(os.urandom(9 << 20)))
    stream.read(10)
    store.close()
    for id in (small, large, never):
        for ask in (store.get, store.open, lambda id: list(store.get_many([id]))):
            with pytest.raises(Closed):
                ask(id)
    stream.seek(8 << 20)
    with pytest.raises(Closed):
        stream.read(10)


def test_a_missing_pack_file_is_damage_and_not_absence(store: Store) -> None:
    """An object whose pack file is gone is told apart from one that never was."""
    lost = store.put(os.urandom(3 << 20))
    kept = store.put(b"kept")
    store.close()
    packs = os.path.join(store.location, "packs")
    cache = os.path.join(store.location, "cache")
    for folder in (packs, cache):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
    with cas.open(store.location) as again:
        assert again.get(kept) == b"kept"
        with pytest.raises(cas.Corrupt):
            again.get(lost)
        with pytest.raises(cas.Corrupt):
            again.open(lost)
        again.put(b"and it can still be written to")


def test_a_lost_cache_costs_nothing_but_time(store: Store) -> None:
    """The cache folder may be emptied, filled with rubbish, or be missing."""
    ids = [store.put(os.urandom(100_000)) for _ in range(10)]
    store.close()
    cache = os.path.join(store.location, "cache")
    for prepare in ("empty", "rubbish", "missing"):
        for name in os.listdir(cache):
            os.unlink(os.path.join(cache, name))
        if prepare == "rubbish":
            for at in range(5):
                with open(os.path.join(cache, f"{at:032x}.run"), "wb") as file:
                    file.write(os.urandom(at * 100))
        elif prepare == "missing":
            os.rmdir(cache)
        with cas.open(store.location) as again:
            assert all(again.has(id) for id in ids)
            assert sum(map(len, again.get_many(ids))) == 1_000_000
            with pytest.raises(CasError):
                again.get(BlobId(bytes(32)))


def test_a_snapshot_never_moves_back(store: Store) -> None:
    """A reader that began before a put shows an older state, which is not taken for the newest."""
    lookup = store.objects.lookup
    store.put(b"before")
    with store.objects.catalog.read() as reader:
        reader.head()
        id = store.put(b"meanwhile")
        newest = lookup.refresh()
        assert lookup.refresh(reader) is newest
    assert lookup.refresh().version == newest.version
    assert len(list(lookup.copies(id))) == 1
    assert lookup.inline_count == 2
    store.spill()
    assert store.get(id) == b"meanwhile"


def test_a_miss_inside_a_transaction_in_memory_waits_for_nobody(memory: Store) -> None:
    """A catalog in memory is locked for every other connection meanwhile."""
    id = memory.put(b"there")
    with memory.objects.catalog.write():
        assert memory.objects.has(id)
        assert not memory.objects.has(bytes(32))
        with pytest.raises(ObjectNotFound):
            memory.get(BlobId(bytes(32)))
