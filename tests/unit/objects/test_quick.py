"""The short way of a read: the same contents as on the long way, and never another one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import CasError, ObjectNotFound, WrongKind
from cas.history.store import Store
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.model.ids import BlobId, Kind, digest_blob
from cas.objects import slots
from cas.testing.memories import memories_of
from cas.trees.node import DIRECTORY
from tests.unit.kit import write
from tests.unit.objects.test_dictionaries import condemn


def _contents(rng: random.Random) -> list[bytes]:
    """Blobs of every codec: raw, framed, beside a dictionary, recipes; in all lengths of a head."""
    sizes = [0, 1, 65, 255, 256, 257, 4_000, 65_791, 65_792, 1 << 20, (1 << 20) + 1]
    framed = [(b"%d " % rng.randrange(1 << 30) * size)[:size] for size in sizes]
    whole = [rng.randbytes(size) for size in (5, 300, 70_000, WHOLE_BLOB_BYTES_MAX + 1)]
    return framed + whole + memories_of(rng, 1_500)


@contextmanager
def _filled(folder: Path, contents: list[bytes]) -> Iterator[Store]:
    """A store with these in pack files, closed and opened again."""
    with cas.open(folder, create=True) as store:
        for start in range(0, len(contents), 300):
            store.put_many(contents[start : start + 300])
        store.spill()
        store.put_many(contents[-300:])
    with cas.open(folder) as store:
        yield store


def test_both_ways_give_the_same(tmp_path: Path, rng: random.Random) -> None:
    """Every blob comes back, one by one, together, and twice; most of them on the short way."""
    contents = _contents(rng)
    ids = [BlobId(digest_blob(content)) for content in contents]
    with _filled(tmp_path / "s", contents) as store:
        for _ in range(2):
            assert list(store.get_many(ids)) == contents
            assert [store.get(id) for id in ids] == contents
        assert all(map(store.has, ids))
        assert not store.has(BlobId(rng.randbytes(32)))
        short = [store.objects.quick.get(id) for id in ids]
        assert all(found in (None, content) for found, content in zip(short, contents, strict=True))
        assert short.count(None) < len(ids) // 10
        many = [found for _, found in store.objects.quick.get_many(ids[:1024])]
        assert [c for part in many for c in part].count(None) < 20


def test_what_is_no_blob_or_not_there_is_said_in_its_place(
    tmp_path: Path, rng: random.Random
) -> None:
    """Contents before an id that names nothing, or no blob, are given; then comes the error."""
    contents = memories_of(rng, 40)
    with cas.open(tmp_path / "s", create=True) as store:
        ids = store.put_many(contents)
        write(store)
        store.spill()
        for odd, error in (
            (BlobId(rng.randbytes(32)), ObjectNotFound),
            (BlobId(store.resolve("main")), WrongKind),
        ):
            asked = store.get_many([*ids[:20], odd, *ids[20:]])
            assert [next(asked) for _ in range(20)] == contents[:20]
            with pytest.raises(error):
                next(asked)
            with pytest.raises(error):
                store.get(odd)
        found = list(store.objects.get_many([*ids, store.resolve("main")]))
        assert [kind for _id, kind, _content in found] == [Kind.BLOB] * 40 + [Kind.COMMIT]


def test_nodes_are_read_as_the_long_way_reads_them(tmp_path: Path, rng: random.Random) -> None:
    """A node in a pack file is given, whole or a delta, alone and with others, whether what it is
    made of is in memory or not; and nothing of another kind than was asked for.
    """
    with cas.open(tmp_path / "s", create=True) as store:
        for count in (400, *[15] * 8):
            with store.begin(message="some") as tx:
                for number in rng.sample(range(400), count):
                    tx.branch("main")[f"item-{number:04d}"] = rng.randbytes(20)
                tx.commit()
        store.spill()
        ids = list(_nodes_of(store))
    with cas.open(tmp_path / "s") as store:
        objects = store.objects
        for again in range(2):
            many = [content for _, found in objects.quick.get_many(ids) for content in found]
            for id, content in zip(ids, many, strict=True):
                assert content == objects.quick.get(id, Kind.TREE) == objects.read(id)[1]
                assert objects.quick.get(id) is None
                if not again:
                    objects.tree_nodes(DIRECTORY).load(id)
        deltas = [copy for id in ids for copy in objects.lookup.copies(id) if copy.slot.depth]
        assert len(deltas) > 10
        assert all(
            objects.quick.get(c.slot.id, Kind.TREE, c.slot.depth - 1) is None for c in deltas
        )


def _nodes_of(store: Store) -> Iterator[bytes]:
    """Every tree node in a pack file."""
    lookup = store.objects.lookup
    for pack in lookup.refresh().packs.values():
        if pack.file is not None:
            yield from (slot.id for slot in lookup.footer(pack).slots() if slot.kind == Kind.TREE)


@pytest.mark.parametrize("room", [0, 1 << 20], ids=["no room for slots", "room"])
def test_what_was_condemned_is_not_given(
    tmp_path: Path, rng: random.Random, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob whose copies were removed is gone at once, though its pack has others; a copy that
    is put later is found.
    """
    monkeypatch.setattr(slots, "FOOTER_CACHE_BYTES", room)
    contents = memories_of(rng, 300)
    with _filled(tmp_path / "s", contents) as store:
        ids = [BlobId(digest_blob(content)) for content in contents]
        assert [store.get(id) for id in ids] == contents
        condemn(store, list(ids[:10]))
        assert [store.has(id) for id in ids] == [False] * 10 + [True] * 290
        for id in ids[:10]:
            assert store.objects.quick.get(id) is None
            with pytest.raises(ObjectNotFound):
                store.get(id)
        with pytest.raises(ObjectNotFound):
            list(store.get_many(ids[5:]))
        assert list(store.get_many(ids[10:])) == contents[10:]
        store.put_many(contents[:10])
        assert list(store.get_many(ids)) == contents


@pytest.mark.parametrize("room", [0, 1 << 20], ids=["no room for slots", "room"])
def test_a_batch_that_asks_often_is_told_the_same(
    tmp_path: Path, rng: random.Random, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there in files and in the catalog, what is not, and what was condemned while the
    batch was asking.
    """
    monkeypatch.setattr(slots, "FOOTER_CACHE_BYTES", room)
    contents = memories_of(rng, 900)
    ids = [digest_blob(content) for content in contents]
    missing = [rng.randbytes(32) for _ in range(100)]
    # Some begin like others: only the whole id tells them apart.
    missing += [id[:8] + rng.randbytes(24) for id in ids[::9]]
    with _filled(tmp_path / "s", contents) as store:
        lookup = store.objects.lookup
        with store.objects.batch() as batch:
            for turn in range(3):
                assert (lookup.plan is not None) == (turn > 0)
                assert all(map(batch.finder.has, ids))
                assert not any(map(batch.finder.has, missing))
        with store.objects.batch() as batch:
            assert all(map(batch.finder.has, ids))
            condemn(store, [BlobId(id) for id in ids[:10]])
            assert [batch.finder.has(id) for id in ids] == [False] * 10 + [True] * 890
            assert all(batch.put(Kind.BLOB, content) for content in contents)
            assert batch.written_count == 10


def test_packs_that_come_and_go_are_seen(tmp_path: Path, rng: random.Random) -> None:
    """A reader finds what another handle puts, spills and gathers between its reads."""
    with cas.open(tmp_path / "s", create=True) as reader, cas.open(tmp_path / "s") as writer:
        known: list[tuple[BlobId, bytes]] = []
        for turn in range(12):
            more = memories_of(rng, 60)
            known += zip(writer.put_many(more), more, strict=True)
            if turn % 3 == 2:
                writer.spill()
            ids = [id for id, _content in known]
            assert list(reader.get_many(ids)) == [content for _id, content in known]
            assert all(reader.get(id) == content for id, content in known[-70:])
            assert all(map(reader.has, ids))


def test_a_changed_byte_never_gives_another_content(tmp_path: Path, rng: random.Random) -> None:
    """With any byte of a pack changed, each read gives what was put or an error."""
    contents = memories_of(rng, 400)
    with _filled(tmp_path / "s", contents) as store:
        ids = [BlobId(digest_blob(content)) for content in contents]
        packs = sorted((tmp_path / "s" / "packs").glob("*.pack"))
        assert [store.get(id) for id in ids] == contents
    for _ in range(40):
        pack = rng.choice(packs)
        data = pack.read_bytes()
        at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        pack.chmod(0o644)
        pack.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        with cas.open(tmp_path / "s") as store:
            for id, content in zip(ids, contents, strict=True):
                try:
                    assert store.get(id) == content
                except CasError:
                    continue
            with suppress(CasError):
                assert list(store.get_many(ids)) == contents
        pack.write_bytes(data)


def test_nodes_of_a_diff_are_read_together(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diff of large folders reads its nodes in groups, and one by one only what is left over."""
    with cas.open(tmp_path / "s", create=True) as store:
        for turn in range(2):
            with store.begin(author="t") as tx:
                for number in rng.sample(range(9_000), 4_000):
                    tx.branch("main")[f"d/{number}"] = b"%d %d" % (turn, number)
                tx.commit()
        store.spill()
    with cas.open(tmp_path / "s") as store:
        alone = 0
        staged = store.objects.staged

        def counted(batch: Any, id: bytes) -> tuple[int, bytes]:
            nonlocal alone
            alone += 1
            return staged(batch, id)

        monkeypatch.setattr(store.objects, "staged", counted)
        old, new = (store.at(seq).snapshot("main") for seq in (1, 2))
        assert len(list(old.diff(new))) == 4_000
        assert alone < 30
        nodes = store.objects.tree_nodes(DIRECTORY)
        nodes.warm([rng.randbytes(32) for _ in range(9)])
        with pytest.raises(ObjectNotFound):
            nodes.load(rng.randbytes(32))
