"""Conflicts that were committed: how a commit keeps them, and when they are settled.

Floor 4; implements docs/format.md section 5.2.1. Invariant: a commit's conflicts name every
object they need, so that both sides can be read for as long as the commit exists, whatever
becomes of the branches; a conflict goes only when its path is written or settled on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from cas.errors import Invalid, LimitExceeded, NotCanonical
from cas.history.core import Core
from cas.limits import STRUCTURED_BYTES_MAX
from cas.model.encoding import decode, encode, is_extras, shape
from cas.model.ids import Kind, TreeId
from cas.model.names import Path, join_path, split_path, to_bytes, to_text
from cas.model.objects import FILE, Commit, TreeEntry
from cas.objects.batch import Batch
from cas.trees import paths
from cas.trees.merge import Reason
from cas.trees.node import DIRECTORY, EMPTY_DATA, Value

CONFLICTS: Final = "conflicts"
"""The key of a commit's extras."""

SIDES: Final = ("base", "ours", "theirs")
_INDEX: Final = b"index"
_VERSION: Final = 1


@frozen
class MergeConflict:
    """A path that two sides of a merge changed, each in its way.

    `base`, `ours` and `theirs` are what stands there (None: nothing); `ours` is the branch that
    was merged into, and what its files show until the conflict is settled.
    """

    path: str
    reason: Reason
    base: TreeEntry | None
    ours: TreeEntry | None
    theirs: TreeEntry | None

    def side(self, name: str) -> TreeEntry | None:
        """One of `base`, `ours`, `theirs` by name. Raises `Invalid` for another one."""
        if name not in SIDES:
            raise Invalid(f"A side is one of {', '.join(SIDES)}, not {name!r}.")
        entry: TreeEntry | None = getattr(self, name)
        return entry

    @property
    def parts(self) -> Path:
        """The entry names of the path."""
        return split_path(self.path)


def to_value(entry: TreeEntry | None) -> Value | None:
    """An entry as trees hold it."""
    return None if entry is None else (int(entry.kind), bytes(entry.id), entry.size)


def to_conflict(
    path: Path,
    reason: Reason,
    base: Value | None,
    ours: Value | None,
    theirs: Value | None,
) -> MergeConflict:
    """The public value of a conflict that a merge of trees found."""
    sides = (None if value is None else paths.to_entry(value) for value in (base, ours, theirs))
    return MergeConflict(join_path(path), reason, *sides)


# -- stored ------------------------------------------------------------------------------------


def save_conflicts(core: Core, batch: Batch, conflicts: Iterable[MergeConflict]) -> TreeId:
    """Stage the directory that holds these conflicts; gives its root. Raises `LimitExceeded`."""
    ordered = sorted(conflicts, key=lambda conflict: to_bytes(conflict.path))
    index = encode([_VERSION, [[to_bytes(each.path), each.reason.value] for each in ordered], {}])
    if len(index) > STRUCTURED_BYTES_MAX:
        raise LimitExceeded(
            f"{len(ordered):,} conflicts are too many for one commit; merge in smaller steps, or "
            "settle them with on_conflict='ours' or 'theirs'.",
            limit="STRUCTURED_BYTES_MAX",
            value=len(index),
            maximum=STRUCTURED_BYTES_MAX,
        )
    id, size_bytes = core.put_content(batch, index)
    edits: dict[Path, Value | None] = {(_INDEX,): (FILE, id, size_bytes)}
    for number, conflict in enumerate(ordered):
        for side in SIDES:
            value = to_value(conflict.side(side))
            if value is not None:
                edits[(side.encode(), b"%08x" % number)] = value
                if value[1] == DIRECTORY.empty:
                    batch.put(Kind.TREE, EMPTY_DATA)
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    return TreeId(paths.edit_paths(DIRECTORY.empty, edits, nodes).root)


def read_conflicts(
    core: Core, commit: Commit, batch: Batch | None = None
) -> tuple[MergeConflict, ...]:
    """The conflicts that a commit holds, ascending by path. Raises `NotCanonical`, `Corrupt`."""
    root = commit.conflicts
    if root is None:
        return ()
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    entry = paths.lookup(root, (_INDEX,), nodes)
    if entry is None or entry.is_tree:
        reason = "a commit's conflicts have no index"
        raise NotCanonical(f"Not a valid commit: {reason}.", reason=reason)
    found = []
    for number, (path, reason_text) in enumerate(
        _decode_index(core.objects.staged(batch, entry.id)[1])
    ):
        sides = (paths.lookup(root, (side.encode(), b"%08x" % number), nodes) for side in SIDES)
        found.append(MergeConflict(to_text(path), Reason(reason_text), *sides))
    return tuple(found)


def _decode_index(content: bytes) -> list[list[Any]]:
    fields = decode(content)
    shape(type(fields) is list and len(fields) == 3, "an index of conflicts is an array of 3")
    version, rows, extras = fields
    shape(version == _VERSION, "an index of conflicts has version 1")
    shape(is_extras(extras), "the extras of an index are a map")
    shape(type(rows) is list, "an index of conflicts is a list")
    reasons = {reason.value for reason in Reason}
    before = b""
    for row in rows:
        shape(type(row) is list and len(row) == 2, "a conflict in an index is an array of 2")
        path, reason = row
        shape(type(path) is bytes and path > before, "conflicts ascend by path")
        shape(type(reason) is str and reason in reasons, "a conflict has a known reason")
        try:
            split_path(path)
        except Invalid as error:
            raise NotCanonical(f"Not a valid commit: {error}", reason=str(error)) from error
        before = path
    return list(rows)


# -- carried on ---------------------------------------------------------------------------------


def carried(
    core: Core,
    batch: Batch,
    parent: Commit,
    root: bytes,
    touched: Callable[[Path], bool],
) -> dict[str, Any]:
    """Extras of a commit of the tree `root` on top of `parent`: conflicts that still stand.

    One stands while what lies at its path is what the parent has there and `touched` says no.
    """
    if parent.conflicts is None:
        return {}
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    every = read_conflicts(core, parent, batch)
    open_ones = [
        conflict
        for conflict in every
        if not touched(conflict.parts)
        and paths.lookup(root, conflict.parts, nodes)
        == paths.lookup(parent.tree, conflict.parts, nodes)
    ]
    if not open_ones:
        return {}
    if len(open_ones) == len(every):
        return {CONFLICTS: bytes(parent.conflicts)}
    return {CONFLICTS: bytes(save_conflicts(core, batch, open_ones))}


def merged(
    base: Mapping[str, MergeConflict],
    ours: Mapping[str, MergeConflict],
    theirs: Mapping[str, MergeConflict],
) -> dict[str, MergeConflict]:
    """Open conflicts after a merge: what one side settled is settled, what it met is met."""
    found: dict[str, MergeConflict] = {}
    for path in sorted(ours.keys() | theirs.keys()):
        old, mine, other = base.get(path), ours.get(path), theirs.get(path)
        kept = other if mine == old else mine if other == old else mine or other
        if kept is not None:
            found[path] = kept
    return found
