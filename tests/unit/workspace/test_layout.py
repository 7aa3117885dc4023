"""From a difference of trees to the aggregates that changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

import cas
from cas.history import core
from cas.history.store import Store
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


EDITS: tuple[dict[str, bytes | None], ...] = (
    {"memories/a": b"1", "memories/b": b"1", "files/a": b"1", "artifacts/x/y": b"1"},
    {"memories/a": b"2", "memories/b": b"1", "memories/c": b"1", ".conflicts/memories/a/0": b"1"},
    {"memories/a": None, "artifacts/x/z": b"2"},
    # A directory goes, and one stands where a record was.
    {"artifacts/x": None, "memories/d": b"1"},
    {"memories/b": None, "memories/b/below": b"2"},
    {"memories/b/below": b"3", "strange/e": b"3"},
    # A record stands where a directory was; a collection is a file.
    {"memories/b": b"4"},
    {"strange": None},
    {"strange": b"5"},
    {"memories": None, "memories/f": b"6"},
)


def test_known_edits_say_what_the_trees_say(tmp_path: Path) -> None:
    """The handle that made commits knows their edits, another one compares trees: what they tell
    of each entry is the same.
    """
    with cas.open(tmp_path / "s", create=True) as store, cas.open(tmp_path / "s") as other:
        for edits in EDITS:
            entry = write(store, "memory/main", edits)
            told = list(entry_changes(store.core, entry))
            assert told == list(entry_changes(other.core, entry))
        # Of a commit whose parent is not the one that is compared with, the edits say nothing.
        first = store.entry(1).changes[0].new
        change = evolve(entry.changes[0], old=first)
        told = list(entry_changes(store.core, evolve(entry, changes=(change,))))
        assert told == list(entry_changes(other.core, evolve(entry, changes=(change,))))
        assert {each.id for each in told} >= {"a", "b", "f"}


def test_edits_are_known_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some edits are kept, the newest; of a merge or what replaced a tree there are none."""
    monkeypatch.setattr(core, "_EDITS_KEPT", 4)
    with cas.open(tmp_path / "s", create=True) as store:
        known = store.core.commits.edits_of
        commits = [_commit(store, {f"memories/{n}": b"x" for n in range(2)})]
        commits += [_commit(store, {f"memories/{n}": b"y"}) for n in range(3)]
        assert [known(id) is not None for id in commits] == [False, False, False, True]
        assert list(known(commits[-1]) or ()) == [(b"memories", b"2")]
        many = _commit(store, {f"memories/{n}": b"z" for n in range(5)})
        assert known(many) is None
        with store.begin() as tx:
            edit = tx.branch("memory/main")
            edit.put_tree(store.snapshot("memory/main~1").tree)
            target = tx.commit().changes[0].new
        assert target is not None
        assert known(target) is None


def _commit(store: Store, edits: dict[str, bytes]) -> bytes:
    target = write(store, "memory/main", edits).changes[0].new
    assert target is not None
    return target
