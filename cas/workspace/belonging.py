"""What in the branches of a store is the workspace's own, and what was written past it.

Floor 6. Invariant: this is told by what lies in a tree, records and what is kept beside them, so
that it holds for types and contexts that this program does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from cas.errors import InvalidRecord, NotFound
from cas.history.core import Core
from cas.history.snapshot import Snapshot
from cas.history.view import View
from cas.model.ids import CommitId, Kind
from cas.model.names import HEADS, Path, printable
from cas.workspace.artifacts import Artifact
from cas.workspace.codec import decode_record
from cas.workspace.contexts import HOME
from cas.workspace.layout import FILES, context_branch, context_of, record_path, snapshot_of
from cas.workspace.memories import Memory
from cas.workspace.planning import Sprint
from cas.workspace.registry import type_of
from cas.worktree.update import Step
from cas.worktree.values import Problem

_DELIVERED: Final = frozenset(
    (HOME, *(type_of(each).context for each in (Artifact, Memory, Sprint)))
)
"""The contexts of the types that come with the package."""


@frozen
class Found:
    """What lies at the top of a tree: whether there are records, and a name that is none of the
    workspace's, or None.
    """

    records: bool
    stranger: str | None


def look_through(snapshot: Snapshot) -> Found:
    """What lies at the top of a tree; of each directory there the first file is read."""
    records = False
    for name, entry in snapshot.entries():
        if entry.is_tree and (name == FILES or name.startswith(".")):
            continue
        if not entry.is_tree or not _has_records(snapshot, name):
            return Found(records, name)
        records = True
    return Found(records, None)


def _has_records(snapshot: Snapshot, folder: str) -> bool:
    """Whether the first file there is a record. One that cannot be read is an error: nobody is to
    write past a workspace because its records are damaged.
    """
    for _path, entry in snapshot.walk(folder):
        try:
            decode_record(snapshot.objects.get(entry.id, Kind.BLOB))
        except NotFound:
            continue  # it was purged, and the next one tells
        except InvalidRecord:
            return False
        return True
    return True


def context_that_has(core: Core, view: View, ref: str) -> str | None:
    """The context that a branch belongs to, by its full name; None for a branch like any other.

    One that is not there yet belongs to the context that has the main branch beside it. Where that
    is empty or not there either, the context of a delivered type owns its name in a store in which
    another of them has records.
    """
    where = context_of(ref)
    if where is None:
        return None
    for name in (ref, HEADS + context_branch(where[0])):
        top = _top(core, view, name)
        if top is not None and (top.records or top.stranger is not None):
            return where[0] if top.stranger is None else None
    if where[0] not in _DELIVERED:
        return None
    every = (_top(core, view, HEADS + context_branch(name)) for name in sorted(_DELIVERED))
    own = any(top is not None and top.records and top.stranger is None for top in every)
    return where[0] if own else None


def _top(core: Core, view: View, ref: str) -> Found | None:
    found = view.ref(ref)
    return None if found is None else look_through(snapshot_of(core, CommitId(found.target)))


def unexplained(snapshot: Snapshot, steps: Sequence[Step]) -> dict[Path, Problem]:
    """Removals from a working folder that no removal of an artifact explains, by path.

    Whoever removes an artifact removes its record and its file. Where the record is still there,
    or something else altogether stands in the branch, somebody has written past the workspace.
    """
    gone = [step for step in steps if step.new is None]
    if not gone:
        return {}
    stranger = look_through(snapshot).stranger
    found = {}
    for step in gone:
        if stranger is not None:
            why = f"something else was written over its branch ({printable(stranger)})"
        elif snapshot.entry(record_path(type_of(Artifact), step.text)) is not None:
            why = "its branch has its record, and no content"
        else:
            continue
        message = (
            f"{printable(step.text)}: it stays here, for {why}; `cas undo` takes back what was "
            "written past the workspace"
        )
        found[step.path] = Problem(step.text, "unexplained", message)
    return found
