"""Branches of contexts are not changed past the workspace."""

from __future__ import annotations

import pytest

import cas
from cas.commands.raw import check_branches
from cas.errors import Corrupt, NotAllowed
from cas.history.store import Store
from cas.workspace.layout import context_branch, record_path
from cas.workspace.memories import Memory
from cas.workspace.registry import type_of
from tests.unit.kit import reopened, write
from tests.unit.maintenance.test_backup import flip_object

BRANCH = context_branch(type_of(Memory).context)


def remember(store: Store, *texts: str) -> list[str]:
    """Memories of an agent, each of a unit of its own; their ids."""
    space = cas.Workspace(store)
    ids = []
    for text in texts:
        with space.unit_of_work("ada") as uow:
            ids.append(uow.memories.note(text, agent="ada").id)
            uow.commit()
    return ids


def record_of(store: Store, id: str) -> cas.TreeEntry:
    """The entry of a memory's record."""
    entry = store.snapshot(BRANCH).entry(record_path(type_of(Memory), id))
    assert entry is not None
    return entry


def test_a_branch_of_a_context_is_refused(store: Store) -> None:
    """A branch in which records lie is refused, one that has files of its own is not."""
    remember(store, "one")
    write(store, "other/main", {"a/b": b"no record"})
    check_branches(store, ["main", "other/main"])
    with pytest.raises(NotAllowed):
        check_branches(store, [BRANCH])


def test_damaged_records_open_no_way_past_the_workspace(store: Store) -> None:
    """Where the first record cannot be read that is told, and the branch is not taken for one like
    any other.
    """
    ids = remember(store, "one", "two")
    store.spill()
    flip_object(store, record_of(store, min(ids)).id)
    with reopened(store) as other, pytest.raises(Corrupt):
        check_branches(other, [BRANCH])


def test_a_purged_record_opens_no_way_past_the_workspace(store: Store) -> None:
    """The next record tells what lies there."""
    ids = remember(store, "one", "two")
    cas.purge(store, record_of(store, min(ids)).id, reason="leaked")
    with pytest.raises(NotAllowed):
        check_branches(store, [BRANCH])
