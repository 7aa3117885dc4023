"""Few stored bytes that ask for very many: a typed error, in bounded memory."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import cas
from cas.errors import Corrupt, CorruptObject, CorruptPack, LimitExceeded
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.limits import MIB, PATH_DEPTH_MAX, RECIPE_SPANS_MAX, STRUCTURED_BYTES_MAX
from cas.maintenance.fsck.check import fsck
from cas.model.ids import BlobId, CommitId, Kind, TreeId
from cas.model.objects import Recipe
from cas.objects import content
from cas.storage import pack as pack_module
from cas.storage.header import PackHeader
from cas.storage.pack import (
    decode_footer,
    encode_footer,
    encode_slot,
    footer_length,
)
from cas.trees import paths
from cas.trees.node import DIRECTORY, encode_node, id_of
from cas.worktree import checkout, plan
from tests.unit.maintenance.plant import blob, install


@contextmanager
def bounded(most_bytes: int) -> Iterator[None]:
    """What the block allocates at once stays below so many bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


# -- content -----------------------------------------------------------------------------------


def tower(store: Store, levels: int, chunk: bytes, stated: int | None = None) -> BlobId:
    """A blob by recipes of 1,024 times the same recipe; `stated` is the size that its copy says."""
    with store.objects.batch() as batch:
        below, size = batch.put(Kind.BLOB, chunk), len(chunk)
        for level in range(levels):
            spans = RECIPE_SPANS_MAX
            recipe = Recipe(level, below * spans, (size,) * spans).encode()
            below, size = batch.put(Kind.RECIPE, recipe), size * spans
        id = os.urandom(32)
        batch.add_recipe_copy(id, below, size if stated is None else stated)
    return BlobId(id)


def test_a_blob_of_terabytes_is_not_put_together(store: Store) -> None:
    """Three recipes and a chunk state 64 TiB: `get` names the limit and how to read it instead."""
    id = tower(store, 3, bytes(64 << 10))
    assert store.size(id) == 64 << 40
    with bounded(16 * MIB):
        reads: list[Callable[[BlobId], object]] = [
            store.get,
            lambda id: list(store.get_many([id])),
            lambda id: store.open(id).read(),
        ]
        for read in reads:
            with pytest.raises(LimitExceeded) as caught:
                read(id)
            assert caught.value.limit == "WHOLE_READ_BYTES_MAX"
        with store.open(id) as stream:
            stream.seek(-10, os.SEEK_END)
            assert stream.read(10) == bytes(10)


@pytest.mark.parametrize("stated", [1, 64 << 10, (64 << 20) - 1, (64 << 20) + 1])
def test_a_recipe_that_gives_more_than_it_states(store: Store, stated: int) -> None:
    """Reading stops at the first chunk beyond the size of the copy, before that is loaded."""
    id = tower(store, 1, bytes(64 << 10), stated)
    with bounded(stated + 8 * MIB):
        with pytest.raises(Corrupt):
            store.get(id)
        with store.open(id) as stream:
            given = 0
            with suppress(CorruptObject):
                while part := stream.read(MIB):
                    given += len(part)
            assert given <= stated


def test_the_limit_is_for_what_is_left_to_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content at the limit is read whole; behind a seek only what follows counts."""
    data = os.urandom(9 << 20)
    id = store.put(data)
    monkeypatch.setattr(content, "WHOLE_READ_BYTES_MAX", len(data))
    assert store.get(id) == data
    monkeypatch.setattr(content, "WHOLE_READ_BYTES_MAX", len(data) - 1)
    with store.open(id) as stream:
        with pytest.raises(LimitExceeded):
            stream.read()
        assert stream.read(1) == data[:1]
        assert stream.read() == data[1:]


# -- trees -------------------------------------------------------------------------------------


def thicket(store: Store, levels: int, width: int, leaf: bytes = b"x") -> Snapshot:
    """Directories of `width` directories: as many trees as levels, and width^levels files."""
    names = [b"%02d" % number for number in range(width)]
    with store.objects.batch() as batch:
        below = batch.put(Kind.BLOB, leaf)
        for level in range(levels):
            kind = 4 if level else 1
            node = encode_node(0, names, bytes([kind]) * width, below * width, [0] * width)
            below = id_of(DIRECTORY, node)
            batch.add(below, Kind.TREE, node.data)
    return Snapshot(store.objects, TreeId(below), None, CommitId(bytes(32)))


def test_a_directory_of_endless_paths_is_walked_to_a_limit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32^40 paths in 40 nodes: walks and comparisons are lazy, and end at their limit."""
    monkeypatch.setattr(paths, "WALK_ENTRIES_MAX", 20_000)
    bomb, other = thicket(store, 40, 32), thicket(store, 40, 32, b"y")
    assert next(bomb.walk())[0] == "/".join(["00"] * 40)
    walks: list[Callable[[], Iterator[object]]] = [
        lambda: bomb.walk(),
        lambda: bomb.walk("00", directories=True),
        lambda: iter(bomb),
        lambda: bomb.diff(other),
        lambda: bomb.diff(thicket(store, 1, 1)),
    ]
    with bounded(8 * MIB):
        for walk in walks:
            with pytest.raises(LimitExceeded) as caught:
                for _ in walk():
                    pass
            assert caught.value.limit == "WALK_ENTRIES_MAX"


def test_a_walk_at_the_limit_is_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts entries, directories included: one that reaches it is walked to its end."""
    tree = thicket(store, 2, 10)
    monkeypatch.setattr(paths, "WALK_ENTRIES_MAX", 110)
    assert sum(1 for _ in tree.walk(directories=True)) == 110
    monkeypatch.setattr(paths, "WALK_ENTRIES_MAX", 109)
    with pytest.raises(LimitExceeded):
        list(tree.walk())


def test_files_are_counted_without_being_walked(store: Store) -> None:
    """`len` reads each tree once: 32^12 files in 12 nodes."""
    assert len(thicket(store, 12, 32)) == 32**12
    assert len(thicket(store, 1, 5)) == 5
    with store.begin() as tx:
        edit = tx.branch("main")
        for at in range(300):
            edit[f"{at % 7}/{at % 3}/{at}"] = b"1"
        tx.commit()
    snapshot = store.snapshot("main")
    assert len(snapshot) == len(list(snapshot)) == 300
    everything = list(snapshot.walk(directories=True))
    nodes = store.objects.tree_nodes(DIRECTORY)
    assert paths.total(snapshot.tree, nodes, directories=True) == len(everything)


def test_a_directory_deeper_than_any_path(store: Store) -> None:
    """Trees below trees beyond 256 names: refused, with no recursion, wherever they are walked."""
    assert len(thicket(store, PATH_DEPTH_MAX, 1)) == 1
    deep = thicket(store, PATH_DEPTH_MAX + 2, 1)
    other = thicket(store, 1, 2)
    for walk in (lambda: len(deep), lambda: list(deep), lambda: list(deep.diff(other))):
        with pytest.raises(LimitExceeded) as caught:
            walk()
        assert caught.value.limit == "PATH_DEPTH_MAX"


def test_a_restore_counts_before_it_reads_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be written is counted tree by tree before it fills the memory."""
    monkeypatch.setattr(plan, "RESTORE_ENTRIES_UNCOUNTED", 5_000)
    with bounded(16 * MIB), pytest.raises(LimitExceeded) as caught:
        checkout.restore(store, thicket(store, 30, 32), "", tmp_path / "out")
    assert caught.value.limit == "RESTORE_ENTRIES_MAX"
    assert caught.value.value > 32**29
    assert not (tmp_path / "out").exists()
    small = thicket(store, 3, 20)
    report = checkout.restore(store, small, "", tmp_path / "small")
    assert report.file_count == 20**3


# -- packs -------------------------------------------------------------------------------------


def test_records_that_overlap_are_refused(store: Store) -> None:
    """A thousand slots of one record: the pack is damaged, and nothing is copied out of it."""
    meta = store.objects.meta
    big = os.urandom(100_000)
    number = install(store, [blob(big)])
    head = PackHeader(meta.store_id, meta.lineage_id, bytes(16), 1).encode()
    with store.objects.catalog.read() as reader:
        body = reader.body(number)
    assert body is not None
    ids = sorted(os.urandom(32) for _ in range(1_000))
    slots = [(id, 80, len(big), len(big), 1, 0, 0, 0, 0) for id in ids]
    footer = encode_footer(head, [encode_slot(*slot) for slot in slots], [], len(body))
    with pytest.raises(CorruptPack, match="overlap"):
        pack_module.decode_inline(body, footer, "it")
    with store.objects.catalog.write() as writer:
        writer.add_pack(writer.head().version + 1, None, len(body), footer, body)
    store.put(b"another")
    with cas.open(store.location) as again:
        with bounded(32 * MIB):
            again.spill()
        assert again.get(BlobId(again.put(big))) == big
        report = fsck(again)
    assert [finding.code for finding in report.findings] == ["pack-footer"]


def test_a_footer_that_states_more_than_it_may_is_not_read() -> None:
    """Length, slots and edges of a footer have a maximum that is checked before memory is."""
    trailer = struct.pack("<32sI4s", bytes(32), 0xFFFF_FFF0, pack_module.END_MAGIC)
    with pytest.raises(CorruptPack):
        footer_length(trailer, "it")
    head = PackHeader(bytes(16), bytes(16), bytes(16), 1).encode()
    slot = (bytes(32), 80, 1, 1, 1, 0, 0, 0, 0)
    edges = [pack_module.Edge(0, 1, bytes([n]) * 32) for n in range(4)]
    with pytest.raises(CorruptPack):
        decode_footer(head, encode_footer(head, [encode_slot(*slot)], edges, 200), "it")


def test_a_record_that_states_a_terabyte_is_refused(store: Store) -> None:
    """A frame of a few bytes whose record claims 1 TB: told, and nothing is reserved for it."""
    number = install(store, [blob(bytes(100), raw_bytes=1 << 40, codec=1)])
    assert number
    with cas.open(store.location) as again, bounded(8 * MIB):
        with pytest.raises(Corrupt):
            again.get(BlobId(blob(bytes(100)).id))
        assert not fsck(again).ok
    assert STRUCTURED_BYTES_MAX < 1 << 40
