"""Three-way merge of two trees of directories, by walking only what differs.

Floor 2; reads the trees of docs/format.md section 5.1. Invariant: `edits`, applied to `ours`,
give a tree that holds every change of both sides but those named in `conflicts`, where `ours`
stands as it was; which names conflict does not depend on which side is which. Cost follows the
changes: a directory that one side left alone is taken whole and never entered.

The two sides are the two differences from the base, read side by side in order of name. A name
that is in one of them only needs no thought; one that is in both is decided by `_decide`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from attrs import frozen

from cas.errors import LimitExceeded
from cas.limits import PATH_DEPTH_MAX
from cas.model.names import Path, quoted
from cas.model.objects import EXECUTABLE, FILE, TREE
from cas.trees.diff import Difference, diff
from cas.trees.node import DIRECTORY, NodeStore, Value

_FILES: Final = frozenset((FILE, EXECUTABLE))
_EMPTY: Final = DIRECTORY.empty


class Reason(Enum):
    """Why two changes of one path do not go together."""

    BOTH_CHANGED = "both-changed"
    BOTH_ADDED = "both-added"
    CHANGED_DELETED = "changed-deleted"
    FILE_FOLDER = "file-folder"
    MODE = "mode"

    def __str__(self) -> str:
        return self.value


@frozen
class TreeConflict:
    """A path that both sides changed, each in its way. None where a side has nothing."""

    path: Path
    base: Value | None
    ours: Value | None
    theirs: Value | None
    reason: Reason


@frozen
class TreeMerge:
    """What to do to `ours` (None deletes), and what could not be decided; both by path."""

    edits: dict[Path, Value | None]
    conflicts: tuple[TreeConflict, ...]


_Triple = tuple[bytes, Value | None, Value | None, Value | None]
"""(name, base, ours, theirs) of a name that both sides changed, or theirs alone."""


def merge_trees(base: bytes, ours: bytes, theirs: bytes, nodes: NodeStore) -> TreeMerge:
    """Merge two directories, given by their roots, that came from `base`; all below included.

    Raises `LimitExceeded` below 256 names, and what `nodes.load` raises.
    """
    merge = _Merge(nodes)
    merge.run(base, ours, theirs)
    conflicts = sorted(merge.conflicts, key=_path_of)
    return TreeMerge(merge.edits, tuple(conflicts))


def merged_tag(base: Value, ours: Value, theirs: Value) -> int:
    """File or executable, after a merge of three entries that are one or the other."""
    return theirs[0] if ours[0] == base[0] else ours[0]


def merged_value(base: Value, ours: Value, theirs: Value) -> Value | None:
    """One entry of three of a kind, where no more than one side changed the content; else None."""
    if ours[1:] == theirs[1:] or base[1:] == theirs[1:]:
        content = ours[1:]
    elif base[1:] == ours[1:]:
        content = theirs[1:]
    else:
        return None
    return (merged_tag(base, ours, theirs), *content)


def is_file(value: Value | None) -> bool:
    """Whether this is a file, executable or not."""
    return value is not None and value[0] in _FILES


class _Merge:
    """One run of `merge_trees`: what was found, and the directories that are being read."""

    def __init__(self, nodes: NodeStore) -> None:
        self.nodes = nodes
        self.edits: dict[Path, Value | None] = {}
        self.conflicts: list[TreeConflict] = []
        self.stack: list[tuple[Path, Iterator[_Triple], int]] = []

    def run(self, base: bytes, ours: bytes, theirs: bytes) -> None:
        self._enter((), base, ours, theirs)
        while self.stack:
            above, names, found_before = self.stack[-1]
            for name, old, mine, other in names:
                if self._decide((*above, name), old, mine, other):
                    break
            else:
                self.stack.pop()
                if found_before == self._found():
                    # Ours had emptied it, and theirs put nothing in. The other way round the
                    # edits empty it, and then it goes too.
                    self.edits[above] = None

    def _found(self) -> int:
        return len(self.edits) + len(self.conflicts)

    def _enter(
        self, path: Path, base: bytes, ours: bytes, theirs: bytes, *, absent: bool = False
    ) -> None:
        if len(path) >= PATH_DEPTH_MAX:
            raise LimitExceeded(
                f"Directories below {quoted(b'/'.join(path[:4]))}… are nested deeper than "
                f"{PATH_DEPTH_MAX} names.",
                limit="PATH_DEPTH_MAX",
                value=len(path) + 1,
                maximum=PATH_DEPTH_MAX,
            )
        emptied = ours == _EMPTY and not absent and bool(path)
        names = _side_by_side(base, ours, theirs, self.nodes)
        self.stack.append((path, names, self._found() if emptied else -1))

    def _decide(
        self, path: Path, base: Value | None, ours: Value | None, theirs: Value | None
    ) -> bool:
        """Settle one name; True when a directory has to be read first."""
        if ours == theirs or base == theirs:
            return False
        if base == ours:
            self.edits[path] = theirs
            return False
        if _is_tree(ours) or _is_tree(theirs):
            return self._decide_tree(path, base, ours, theirs)
        if base is None or base[0] == TREE:
            # A directory that both took away counts for nothing: what came is new.
            if ours is None:
                self.edits[path] = theirs
            elif theirs is not None:
                same = ours[1:] == theirs[1:]
                reason = Reason.MODE if same else Reason.BOTH_ADDED
                self._clash(path, base, ours, theirs, reason)
            return False
        if ours is None or theirs is None:
            self._clash(path, base, ours, theirs, Reason.CHANGED_DELETED)
        else:
            self._decide_leaf(path, base, ours, theirs)
        return False

    def _decide_tree(
        self, path: Path, base: Value | None, ours: Value | None, theirs: Value | None
    ) -> bool:
        """A name that is a directory on one side at least, and differs on all three."""
        kept = ours if _is_tree(ours) else theirs
        other = theirs if kept is ours else ours
        assert kept is not None
        if other is not None and other[0] != TREE:
            self._clash(path, base, ours, theirs, Reason.FILE_FOLDER)
            return False
        if other is None and not _is_tree(base):
            # One side took a file away, the other made a directory of it.
            if ours is None:
                self.edits[path] = theirs
            return False
        if other is None and kept[1] == _EMPTY:
            # All that was in it went on both sides: the directory itself is not missed.
            if ours is not None:
                self.edits[path] = None
            return False
        self._enter(path, _root(base), _root(ours), _root(theirs), absent=ours is None)
        return True

    def _decide_leaf(self, path: Path, base: Value, ours: Value, theirs: Value) -> None:
        """Files and links that are there on all three sides, and differ."""
        tags = {base[0], ours[0], theirs[0]}
        if len(tags) > 1 and not tags <= _FILES:
            self._clash(path, base, ours, theirs, Reason.MODE)
            return
        value = merged_value(base, ours, theirs)
        if value is None:
            self._clash(path, base, ours, theirs, Reason.BOTH_CHANGED)
        elif value != ours:
            self.edits[path] = value

    def _clash(
        self,
        path: Path,
        base: Value | None,
        ours: Value | None,
        theirs: Value | None,
        reason: Reason,
    ) -> None:
        self.conflicts.append(TreeConflict(path, base, ours, theirs, reason))


def _side_by_side(base: bytes, ours: bytes, theirs: bytes, nodes: NodeStore) -> Iterator[_Triple]:
    """Names of one directory that theirs changed; with ours where that changed them too."""
    left = diff(DIRECTORY, base, ours, nodes)
    mine: Difference | None = next(left, None)
    for name, old, other in diff(DIRECTORY, base, theirs, nodes):
        while mine is not None and mine[0] < name:
            mine = next(left, None)
        if mine is not None and mine[0] == name:
            yield name, old, mine[2], other
        else:
            yield name, old, old, other


def _is_tree(value: Value | None) -> bool:
    return value is not None and value[0] == TREE


def _root(value: Value | None) -> bytes:
    """Root of a directory; what is none is empty."""
    return value[1] if value is not None and value[0] == TREE else _EMPTY


def _path_of(conflict: TreeConflict) -> Path:
    return conflict.path
