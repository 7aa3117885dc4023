"""Which commit a line of a text, or an entry of a directory, comes from.

Floor 4. Invariant: every line and every entry gets exactly one commit: one that has it and none
of whose parents, as far as it was followed, does. Cost follows the changes: a directory that a
commit has in common with its parent is passed on without being read.

Lines and entries are handed from a commit to its parents, newest commit first; a parent takes
over what it has too, and what no parent takes is the commit's own. Commits that were thinned
are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

from attrs import frozen

from cas.errors import Invalid, PathNotFound, Purged, WrongKind
from cas.history.core import Core
from cas.history.lasting import Commits, lasting
from cas.history.log import PathFinder
from cas.history.text import common, lines_of
from cas.model.ids import CommitId, Kind
from cas.model.names import to_text
from cas.model.objects import Commit, TreeEntry
from cas.trees import paths
from cas.trees.cursor import scan
from cas.trees.diff import diff
from cas.trees.merge import is_file
from cas.trees.node import DIRECTORY, Value

Path = tuple[bytes, ...]
_T = TypeVar("_T")


@frozen
class BlamedLine:
    """Line `number` (from 1) of a text, its end included, and the commit that brought it."""

    number: int
    content: bytes
    id: CommitId
    commit: Commit


@frozen
class BlamedEntry:
    """An entry of a directory, and the commit that made it what it is."""

    name: str
    entry: TreeEntry
    id: CommitId
    commit: Commit


class _Pending(Generic[_T]):
    """What waits at which commit; the newest commit is next."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._waiting: dict[CommitId, _T] = {}
        self._heap: list[tuple[int, CommitId]] = []

    def add(self, id: CommitId, load: _T, join: Callable[[_T, _T], _T]) -> None:
        """Leave something at a commit, beside what waits there."""
        if id in self._waiting:
            self._waiting[id] = join(self._waiting[id], load)
        else:
            self._waiting[id] = load
            heappush(self._heap, (-self._commits.get(id).time_us, id))

    def __iter__(self) -> Iterator[tuple[CommitId, _T]]:
        while self._heap:
            id = heappop(self._heap)[1]
            yield id, self._waiting.pop(id)


def blame_lines(core: Core, start: CommitId, parts: Path) -> list[BlamedLine]:
    """The lines of the file at a path of a commit, each with where it comes from, in order.

    Raises `PathNotFound`, `WrongKind` for a directory or link, `Invalid` for what is no text of
    at most TEXT_MERGE_BYTES_MAX, and what reading commits raises.
    """
    commits = lasting(core)
    finder, texts = PathFinder(core, parts), _Texts(core)
    value = finder.find(commits.get(start).tree)
    if value is None:
        raise _missing(parts)
    if not is_file(value):
        raise WrongKind(
            f"{_text(parts)!r} is no file; blame the directory it is in, or that it is.",
            id=value[1],
            expected="file",
            actual=paths.to_entry(value).kind.name.lower(),
        )
    lines = texts.get(value)
    if lines is None:
        raise Invalid(
            f"{_text(parts)!r} is no text, or too long to compare line by line; `cas log --path` "
            "tells which commits changed it."
        )
    origin: dict[int, CommitId] = {}
    pending: _Pending[list[tuple[int, int]]] = _Pending(commits)
    pending.add(start, [(at, at) for at in range(len(lines))], list.__add__)
    for id, load in pending:
        commit = commits.get(id)
        own = finder.find(commit.tree)
        assert own is not None
        rest = load
        values = [(parent, finder.find(commits.get(parent).tree)) for parent in commit.parents]
        # A parent that has the same file takes all.
        values.sort(key=lambda pair: pair[1] is None or pair[1][1] != own[1])
        for parent, other in values:
            if not rest:
                break
            if other is None or not is_file(other):
                continue
            if other[1] == own[1]:
                pending.add(parent, rest, list.__add__)
                rest = []
                break
            known = texts.same(other, own)
            taken = [(final, known[at]) for final, at in rest if at in known]
            if taken:
                pending.add(parent, taken, list.__add__)
            rest = [pair for pair in rest if pair[1] not in known]
        for final, _at in rest:
            origin[final] = id
    return [
        BlamedLine(at + 1, line, origin[at], commits.get(origin[at]))
        for at, line in enumerate(lines)
    ]


class _Texts:
    """Lines of the versions of one file; the two versions compared last are kept."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._kept: dict[bytes, list[bytes] | None] = {}

    def get(self, value: Value) -> list[bytes] | None:
        """Lines of a file; None when it is no text."""
        id = value[1]
        if id not in self._kept:
            lines = lines_of(self._core.objects.get(id, Kind.BLOB))
            while len(self._kept) >= 4:
                del self._kept[next(iter(self._kept))]
            self._kept[id] = lines
        return self._kept[id]

    def same(self, old: Value, new: Value) -> dict[int, int]:
        """For each line of `new` that `old` has too, which one it is there; of what was purged
        nobody can tell.
        """
        try:
            before, after = self.get(old), self.get(new)
        except Purged:
            return {}
        if before is None or after is None:
            return {}
        return {
            block.new + at: block.old + at
            for block in common(before, after)
            for at in range(block.size)
        }


def blame_entries(core: Core, start: CommitId, parts: Path) -> Iterator[BlamedEntry]:
    """The entries of the directory at a path of a commit, each with the commit that made it so.

    The empty path is the root. Ascending by name. Raises `PathNotFound`, `WrongKind` for a
    file, and what reading commits raises.
    """
    commits = lasting(core)
    finder, nodes = PathFinder(core, parts), core.objects.tree_nodes(DIRECTORY)

    def root_at(id: CommitId) -> bytes:
        tree = commits.get(id).tree
        value = finder.find(tree) if parts else (4, tree, 0)
        return value[1] if value is not None and value[0] == 4 else DIRECTORY.empty

    entry = paths.lookup(commits.get(start).tree, parts, nodes)
    if entry is None:
        raise _missing(parts)
    if not entry.is_tree:
        raise WrongKind(
            f"{_text(parts)!r} is no directory.",
            id=entry.id,
            expected="tree",
            actual=entry.kind.name.lower(),
        )
    whole = bytes(entry.id)
    origin: dict[bytes, CommitId] = {}
    pending: _Pending[set[bytes]] = _Pending(commits)
    pending.add(start, {name for name, _value in scan(DIRECTORY, whole, nodes)}, set.__or__)
    for id, rest in pending:
        own = root_at(id)
        parents = sorted(commits.get(id).parents, key=lambda parent: root_at(parent) != own)
        for parent in parents:
            changed = {name for name, _o, _n in diff(DIRECTORY, root_at(parent), own, nodes)}
            kept = {name for name in changed if name in rest}
            rest -= kept
            if rest:
                pending.add(parent, rest, set.__or__)
            rest = kept
        _settle(origin, rest, id)
    return (
        BlamedEntry(to_text(name), paths.to_entry(value), origin[name], commits.get(origin[name]))
        for name, value in scan(DIRECTORY, whole, nodes)
    )


def _settle(origin: dict[bytes, CommitId], names: Iterable[bytes], id: CommitId) -> None:
    for name in names:
        origin[name] = id


def _missing(parts: Path) -> PathNotFound:
    return PathNotFound(f"There is no {_text(parts)!r} in this revision.", path=_text(parts))


def _text(parts: Path) -> str:
    return to_text(b"/".join(parts))
