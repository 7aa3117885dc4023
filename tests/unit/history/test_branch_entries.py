"""Entries that are put by id alone."""

from __future__ import annotations

from cas.history.store import Store
from cas.model.ids import TreeId
from cas.model.objects import EntryKind, TreeEntry
from cas.trees.node import DIRECTORY


def test_an_empty_directory_can_be_put_where_none_was_before(store: Store) -> None:
    """The empty directory exists for everybody, whether or not the store has held one."""
    with store.begin() as tx:
        entry = TreeEntry(EntryKind.TREE, TreeId(DIRECTORY.empty), 0)
        tx.branch("main").put_entry("d/empty", entry)
        tx.commit()
    assert store.snapshot("main").entry("d/empty") == entry
    assert list(store.snapshot("main")) == []
