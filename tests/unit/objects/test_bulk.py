"""Reading in bulk gives what reading one by one gives, or says that it could not."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import cas
from cas.history.store import Store
from cas.model.ids import Kind, digest_blob
from cas.objects import bulk
from cas.objects.bulk import Ahead, BulkReader, Found


def read(store: Store, ids: list[bytes]) -> list[Found]:
    """All of them, in order."""
    return [found for group in BulkReader(store.objects).read(ids) for found in group]


@pytest.fixture
def contents(rng: random.Random) -> list[bytes]:
    """Compressible, incompressible, tiny, equal and empty contents."""
    drawn = [b"", b"x", b"same", b"same"]
    for _ in range(600):
        size = rng.choice((5, 60, 400, 3000, 20_000))
        drawn.append(rng.randbytes(size) if rng.random() < 0.3 else b"%d " % size * (size // 4))
    return drawn


@pytest.mark.parametrize("table_from", [1, 32, 1 << 30])
def test_contents_come_in_the_order_asked_for(
    store: Store,
    contents: list[bytes],
    rng: random.Random,
    table_from: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From pack files and inline packs, some asked for twice, with tables of ids and without."""
    monkeypatch.setattr(bulk, "_TABLE_FROM", table_from)
    half = len(contents) // 2
    store.put_many(contents[:half])
    for content in contents[half:]:
        store.put(content)
    wanted = [digest_blob(content) for content in contents]
    rng.shuffle(wanted)
    wanted += wanted[:50]
    found = read(store, wanted)
    assert [item.id for item in found] == wanted
    by_id = {digest_blob(content): content for content in contents}
    assert all(bytes(item.content) == by_id[item.id] for item in found)
    assert {item.kind for item in found} == {Kind.BLOB}


def test_groups_are_bounded(store: Store) -> None:
    """No group holds more than about a MiB, or one object."""
    contents = [os.urandom(300_000) for _ in range(8)] + [os.urandom(3 << 20)]
    store.put_many(contents)
    groups = list(BulkReader(store.objects).read(map(digest_blob, contents)))
    sizes = [sum(len(bytes(item.content)) for item in group) for group in groups]
    assert all(size <= (1 << 20) + 300_000 for size in sizes[:-1])
    assert len(groups[-1]) == 1 or sizes[-1] <= (4 << 20)


def test_what_needs_another_way_is_left_to_it(store: Store) -> None:
    """A recipe copy, and an id that does not exist, are given without content."""
    long = store.put(bytes(9 << 20))
    found = read(store, [digest_blob(b"none"), long, store.put(b"x")])
    assert [item.content is None for item in found] == [True, True, False]


def test_a_damaged_copy_is_never_given(tmp_path: Path, contents: list[bytes]) -> None:
    """Whatever byte of a pack is wrong: content is right, or None."""
    with cas.open(tmp_path / "s", create=True) as store:
        store.put_many([*contents, os.urandom(1 << 20)])
    (pack,) = (tmp_path / "s" / "packs").glob("*.pack")
    whole = pack.read_bytes()
    pack.chmod(0o644)
    by_id = {digest_blob(content): content for content in contents}
    rng = random.Random(7)
    missing = 0
    for _ in range(30):
        at = rng.randrange(80, len(whole) - 60_000)
        pack.write_bytes(
            whole[:at] + bytes((whole[at] ^ (1 << rng.randrange(8)),)) + whole[at + 1 :]
        )
        with cas.open(tmp_path / "s") as store:
            for item in read(store, list(by_id)):
                missing += item.content is None
                assert item.content is None or bytes(item.content) == by_id[item.id]
    assert missing > 0


def test_a_pack_that_went_away_is_nothing_to_fail_on(tmp_path: Path) -> None:
    """Each object is given as None, and the caller hears why when it asks for one."""
    with cas.open(tmp_path / "s", create=True) as store:
        noise = [os.urandom(200_000) for _ in range(8)]
        store.put_many(noise)
    (pack,) = (tmp_path / "s" / "packs").glob("*.pack")
    pack.unlink()
    with cas.open(tmp_path / "s") as store:
        assert all(item.content is None for item in read(store, list(map(digest_blob, noise))))


# -- ahead -----------------------------------------------------------------------------------


def alive() -> bool:
    """Whether a thread reads ahead."""
    return any(thread.name == "cas-read-ahead" for thread in threading.enumerate())


def test_items_come_in_order_and_the_thread_ends() -> None:
    """Everything arrives, once."""
    with closing(Ahead(iter(range(1000)), 3)) as items:
        assert list(items) == list(range(1000))
    assert not alive()


def test_an_error_comes_out_where_its_item_would_have() -> None:
    """Items before it are given, and the thread ends."""

    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("here")

    with closing(Ahead(failing(), 3)) as ahead:
        items = iter(ahead)
        assert next(items) == 1
        with pytest.raises(KeyError, match="here"):
            next(items)
    assert not alive()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_no_more_is_made_than_was_asked_for(taken: int) -> None:
    """At most the depth and one in hand stand ready; closing early ends the thread."""
    made = []

    def counting() -> Iterator[int]:
        for number in range(1_000_000):
            made.append(number)
            yield number

    ahead = Ahead(counting(), 3)
    with closing(ahead):
        items = iter(ahead)
        for _ in range(taken):
            next(items)
    assert len(made) <= taken + 3 + 3
    assert not alive()
