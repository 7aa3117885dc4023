"""Renames that a merge follows: what one side did to a file that the other gave another name.

Floor 4. Invariant: only paths that would clash are looked at, so that what merges without this
merges as it did; which of them are followed, and to where, does not depend on which side is which;
content decides what was renamed (`renames`), and each rename that was followed is told.

A file that one side changed and the other renamed is merged at its new name, one that both renamed
alike against what it was. Directories are not followed: what a side puts into a directory that the
other renamed stays where it was put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import field, frozen

from cas.history.renames import Read, origins
from cas.model.names import to_text
from cas.trees.merge import Path, Reason, TreeConflict, is_file
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

    edits: dict[Path, Value | None] = field(factory=dict)
    clashes: list[TreeConflict] = field(factory=list)
    followed: list[Followed] = field(factory=list)


@frozen
class Sides:
    """The three directories of a merge, and the one that it has made so far."""

    base: bytes
    ours: bytes
    theirs: bytes
    merged: bytes


def follow(
    sides: Sides, clashes: Iterable[TreeConflict], nodes: NodeStore, read: Read, settle: Settle
) -> Following:
    """Merge at its new path what was renamed, of the conflicts that a merge has found."""
    found = Following(clashes=list(clashes))
    wanted = [clash for clash in found.clashes if _is_lost(clash) or _is_new(clash)]
    if not wanted:
        return found
    search = _Search(sides, nodes, read)
    taken = {clash.path for clash in found.clashes}
    for clash in wanted:
        at = search.alike(clash) if _is_new(clash) else search.moved(clash, taken)
        if at is None:
            continue
        origin, moved = at
        found.clashes.remove(clash)
        if clash.ours is not None and origin == clash.path:
            found.edits[origin] = None
        value = settle(moved)
        if value is None:
            found.clashes.append(moved)
        found.edits[moved.path] = moved.ours if value is None else value
        found.followed.append(Followed(_text(origin), _text(moved.path)))
    found.clashes.sort(key=lambda clash: clash.path)
    return found


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

    def __init__(self, sides: Sides, nodes: NodeStore, read: Read) -> None:
        self._sides = sides
        self._nodes = nodes
        self._read = read
        self._moves: dict[bytes, Mapping[Path, Path]] = {}

    def moved(self, clash: TreeConflict, taken: set[Path]) -> tuple[Path, TreeConflict] | None:
        """The conflict of a file that one side renamed, at its new path; None: it did not, or
        something of the other side is in the way there.
        """
        sides = self._sides
        by_ours = clash.ours is None
        there, other = (sides.ours, sides.theirs) if by_ours else (sides.theirs, sides.ours)
        path = self._of(there).get(clash.path)
        if path is None or any(path[:end] in taken for end in range(1, len(path) + 1)):
            return None
        value = value_at(there, path, self._nodes)
        if value_at(other, path, self._nodes) or value_at(sides.merged, path, self._nodes) != value:
            return None
        ours, theirs = (value, clash.theirs) if by_ours else (clash.ours, value)
        return clash.path, TreeConflict(path, clash.base, ours, theirs, Reason.BOTH_CHANGED)

    def alike(self, clash: TreeConflict) -> tuple[Path, TreeConflict] | None:
        """The conflict of a file that both sides renamed to one path, with what it was."""
        ours, theirs = (
            next((old for old, new in self._of(side).items() if new == clash.path), None)
            for side in (self._sides.ours, self._sides.theirs)
        )
        if ours is None or ours != theirs:
            return None
        base = value_at(self._sides.base, ours, self._nodes)
        at = TreeConflict(clash.path, base, clash.ours, clash.theirs, Reason.BOTH_CHANGED)
        return ours, at

    def _of(self, side: bytes) -> Mapping[Path, Path]:
        """Files that the side renamed: old path to new path."""
        found = self._moves.get(side)
        if found is None:
            back = origins(self._sides.base, side, self._nodes, self._read)
            found = self._moves[side] = {old: new for new, old in back.items()}
        return found


def _text(path: Path) -> str:
    return to_text(b"/".join(path))
