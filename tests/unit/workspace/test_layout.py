"""From a difference of trees to the aggregates that changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import cas
from cas.model.ids import BlobId
from cas.objects.nodes import TreeNodes
from cas.trees.node import DIRECTORY, Node
from cas.workspace.codec import to_record
from cas.workspace.layout import RecordChange, entry_changes, place_of, record_path
from cas.workspace.memories import Memory
from cas.workspace.registry import type_of
from tests.unit.kit import write

MEMORY = type_of(Memory)


def test_a_path_says_what_lies_there() -> None:
    """Records, files, conflicts, events and the rest are told apart by path alone."""
    assert place_of("memories/m1").kind == "record"
    assert place_of("artifacts/a/b.md").id == "a/b.md"
    assert place_of("files/a/b.md").kind == "file"
    assert place_of(".conflicts/memories/m1/c1").id == "m1"
    assert (place_of(".streams/accounts/a/0").kind, place_of(".streams/accounts/a/0").id) == (
        "event",
        "a",
    )
    assert place_of(".other/x").kind == place_of("loose").kind == "other"


def test_an_entry_says_which_aggregates_it_changed(tmp_path: Path) -> None:
    """The changes of an entry are those of records, with the blobs before and after."""
    one, two = (to_record(Memory(id="m1", agent="a", text=text)) for text in ("one", "two"))
    with cas.open(tmp_path / "s", create=True) as store:
        path = record_path(MEMORY, "m1")
        first = write(store, "memory/main", {path: one, "files/x": b"x", "strange/y": b"y"})
        second = write(store, "memory/main", {path: two})
        third = write(store, "memory/main", {path: None})
        plain = write(store, "main", {"memories/m1": one})
        a, b = (BlobId(store.put(record)) for record in (one, two))
        where = ("memory", "main", "memories", "m1")
        found = list(entry_changes(store.core, first))
        assert found[0] == RecordChange(*where, None, a, MEMORY)
        assert (found[1].collection, found[1].type) == ("strange", None)
        assert len(found) == 2
        assert list(entry_changes(store.core, second)) == [RecordChange(*where, a, b, MEMORY)]
        assert list(entry_changes(store.core, third)) == [RecordChange(*where, b, None, MEMORY)]
        assert list(entry_changes(store.core, plain)) == []


def test_what_is_no_record_is_not_read(tmp_path: Path) -> None:
    """An entry that changed many files and one memory loads the nodes of the memory's collection,
    those of the files never.
    """
    with cas.open(tmp_path / "s", create=True) as store:
        files = {f"files/{n:04}.md": b"%d" % n for n in range(2_000)}
        memory = to_record(Memory(id="m1", agent="a", text="one"))
        entry = write(store, "memory/main", {**files, record_path(MEMORY, "m1"): memory})
    with cas.open(tmp_path / "s") as store:
        loaded: list[bytes] = []
        nodes = store.objects.tree_nodes(DIRECTORY)
        kept = type(nodes).load

        def load(self: TreeNodes, id: bytes) -> Node:
            loaded.append(id)
            return kept(self, id)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TreeNodes, "load", load)
            found = list(entry_changes(store.core, entry))
        assert [change.id for change in found] == ["m1"]
        # The root, and the one node of the collection.
        assert len(loaded) == 2
