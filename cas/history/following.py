"""Renames that a merge follows: what one side did to a file that the other gave another name.

Floor 4. Invariant: only paths that would clash are looked at, so that what merges without this
merges as it did; which of them are followed, and to where, does not depend on which side is which;
content decides what was renamed (`renames`), and each rename that was followed is told.

A file that one side changed and the other renamed is merged at its new name, one that both renamed
alike against what it was. Directories are not followed: what a side puts into a directory that the
other renamed stays where it was put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen

from cas.history.renames import Read, origins
from cas.model.names import Path, join_path
from cas.trees.merge import Reason, TreeConflict, is_file
from cas.trees.node import NodeStore, Value
from cas.trees.paths import value_at

Settle = Callable[[TreeConflict], Value | None]
"""What becomes of a file that both sides changed; None where that cannot be decided."""


@frozen
class Followed:
    """A file that was renamed on one side of a merge at least, and merged at its new path."""

    origin: str
    path: str


@frozen
class Following:
    """What following renames adds to a merge: more edits, and the conflicts that are left."""

    edits: Mapping[Path, Value | None]
    clashes: tuple[TreeConflict, ...]
    followed: tuple[Followed, ...]


@frozen
class Sides:
    """The three directories of a merge, and the one that it has made so far."""

    base: bytes
    ours: bytes
    theirs: bytes
    merged: bytes


def follow(
    sides: Sides, clashes: Sequence[TreeConflict], nodes: NodeStore, read: Read, settle: Settle
) -> Following:
    """Merge at its new path what was renamed, of the conflicts that a merge has found."""
    search = _Search(sides, clashes, nodes, read)
    edits: dict[Path, Value | None] = {}
    left: list[TreeConflict] = []
    followed: list[Followed] = []
    for clash in clashes:
        at = search.find(clash)
        if at is None:
            left.append(clash)
            continue
        origin, moved = at
        if clash.ours is not None and origin == clash.path:
            edits[origin] = None
        value = settle(moved)
        if value is None:
            left.append(moved)
        edits[moved.path] = moved.ours if value is None else value
        followed.append(Followed(join_path(origin), join_path(moved.path)))
    left.sort(key=lambda clash: clash.path)
    return Following(edits, tuple(left), tuple(followed))


def _is_lost(clash: TreeConflict) -> bool:
    """One side changed a file, the other has none there."""
    kept = clash.theirs if clash.ours is None else clash.ours
    return clash.reason == Reason.CHANGED_DELETED and is_file(clash.base) and is_file(kept)


def _is_new(clash: TreeConflict) -> bool:
    """Both sides have a file where there was nothing."""
    both = is_file(clash.ours) and is_file(clash.theirs)
    return clash.reason == Reason.BOTH_ADDED and clash.base is None and both


class _Search:
    """Where the files of the base went on either side; looked for once a side, when needed."""

    def __init__(
        self, sides: Sides, clashes: Iterable[TreeConflict], nodes: NodeStore, read: Read
    ) -> None:
        self._sides = sides
        self._taken = {clash.path for clash in clashes}
        self._nodes = nodes
        self._read = read
        # By side: new path -> old path, and the way back.
        self._moves: dict[bytes, tuple[Mapping[Path, Path], Mapping[Path, Path]]] = {}

    def find(self, clash: TreeConflict) -> tuple[Path, TreeConflict] | None:
        """The old path of a file that was renamed, and the conflict at its new one; else None."""
        if _is_new(clash):
            return self._alike(clash)
        return self._moved(clash) if _is_lost(clash) else None

    def _moved(self, clash: TreeConflict) -> tuple[Path, TreeConflict] | None:
        """Of a file that one side renamed; None where something of the other side is in the way."""
        sides = self._sides
        by_ours = clash.ours is None
        there, other = (sides.ours, sides.theirs) if by_ours else (sides.theirs, sides.ours)
        path = self._of(there)[1].get(clash.path)
        if path is None or any(path[:end] in self._taken for end in range(1, len(path) + 1)):
            return None
        value = value_at(there, path, self._nodes)
        if value_at(other, path, self._nodes) or value_at(sides.merged, path, self._nodes) != value:
            return None
        ours, theirs = (value, clash.theirs) if by_ours else (clash.ours, value)
        return clash.path, TreeConflict(path, clash.base, ours, theirs, Reason.BOTH_CHANGED)

    def _alike(self, clash: TreeConflict) -> tuple[Path, TreeConflict] | None:
        """Of a file that both sides renamed to one path, with what it was."""
        sides = self._sides
        origin = self._of(sides.ours)[0].get(clash.path)
        if origin is None or self._of(sides.theirs)[0].get(clash.path) != origin:
            return None
        base = value_at(sides.base, origin, self._nodes)
        at = TreeConflict(clash.path, base, clash.ours, clash.theirs, Reason.BOTH_CHANGED)
        return origin, at

    def _of(self, side: bytes) -> tuple[Mapping[Path, Path], Mapping[Path, Path]]:
        found = self._moves.get(side)
        if found is None:
            back = origins(self._sides.base, side, self._nodes, self._read)
            found = self._moves[side] = back, {old: new for new, old in back.items()}
        return found
