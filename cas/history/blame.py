"""Which commit a line of a text, or an entry of a directory, comes from.

Floor 4. Invariant: every line and every entry gets exactly one commit: one that has it and none
of whose parents, as far as it was followed, does. Cost follows the changes: a directory that a
commit has in common with its parent is passed on without being read.

Lines and entries are handed from a commit to its parents, newest commit first; a parent takes
over what it has too, and what no parent takes is the commit's own. A file that a parent does not
have is looked for there under the name from which it was renamed. Commits that were thinned are
passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

from attrs import frozen

from cas.errors import Invalid, PathNotFound, Purged, WrongKind
from cas.history.core import Core
from cas.history.lasting import Commits, lasting
from cas.history.log import PathFinder, renamed_from
from cas.history.text import common, lines_of
from cas.model.ids import CommitId, Kind
from cas.model.names import Path, join_path, to_text
from cas.model.objects import Commit, TreeEntry
from cas.trees import paths
from cas.trees.cursor import scan
from cas.trees.diff import diff
from cas.trees.merge import is_file
from cas.trees.node import DIRECTORY, Value

_T = TypeVar("_T")


@frozen
class BlamedLine:
    """Line `number` (from 1) of a text, its end included, and the commit that brought it.

    `path` is that of the file in this commit: another one where it was renamed since.
    """

    number: int
    content: bytes
    id: CommitId
    commit: Commit
    path: str


@frozen
class BlamedEntry:
    """An entry of a directory, and the commit that made it what it is."""

    name: str
    entry: TreeEntry
    id: CommitId
    commit: Commit


class _Pending(Generic[_T]):
    """What waits at a path of which commit; the newest commit is next."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._waiting: dict[tuple[CommitId, Path], _T] = {}
        self._heap: list[tuple[int, tuple[CommitId, Path]]] = []

    def add(self, id: CommitId, path: Path, load: _T, join: Callable[[_T, _T], _T]) -> None:
        """Leave something at a commit, beside what waits there."""
        place = id, path
        if place in self._waiting:
            self._waiting[place] = join(self._waiting[place], load)
        else:
            self._waiting[place] = load
            heappush(self._heap, (-self._commits.get(id).time_us, place))

    def __iter__(self) -> Iterator[tuple[CommitId, Path, _T]]:
        while self._heap:
            place = heappop(self._heap)[1]
            yield *place, self._waiting.pop(place)


def blame_lines(core: Core, start: CommitId, parts: Path) -> list[BlamedLine]:
    """The lines of the file at a path of a commit, each with where it comes from, in order.

    Raises `PathNotFound`, `WrongKind` for a directory or link, `Invalid` for what is no text of
    at most TEXT_MERGE_BYTES_MAX, and what reading commits raises.
    """
    commits, texts = lasting(core), _Texts(core)
    files = _Files(core, commits)
    value = files.at(start, parts)
    if value is None:
        raise _missing(parts)
    if not is_file(value):
        raise WrongKind(
            f"{join_path(parts)!r} is no file; blame the directory it is in, or that it is.",
            id=value[1],
            expected="file",
            actual=paths.to_entry(value).kind.name.lower(),
        )
    lines = texts.get(value)
    if lines is None:
        raise Invalid(
            f"{join_path(parts)!r} is no text, or too long to compare line by line; "
            "`cas log --path` tells which commits changed it."
        )
    origin: dict[int, tuple[CommitId, Path]] = {}
    pending: _Pending[list[tuple[int, int]]] = _Pending(commits)
    pending.add(start, parts, [(at, at) for at in range(len(lines))], list.__add__)
    for id, path, rest in pending:
        own = files.at(id, path)
        assert own is not None
        for parent, before, other in files.sources(id, path, own):
            if other[1] == own[1]:
                # A parent that has the same file takes all.
                pending.add(parent, before, rest, list.__add__)
                rest = []
                break
            known = texts.same(other, own)
            taken = [(final, known[at]) for final, at in rest if at in known]
            if taken:
                pending.add(parent, before, taken, list.__add__)
            rest = [pair for pair in rest if pair[1] not in known]
            if not rest:
                break
        for final, _at in rest:
            origin[final] = id, path
    return [
        BlamedLine(at + 1, line, id, commits.get(id), join_path(path))
        for at, line in enumerate(lines)
        for id, path in (origin[at],)
    ]


class _Files:
    """What lies at paths of commits, and where it lay in the commits before."""

    def __init__(self, core: Core, commits: Commits) -> None:
        self._core = core
        self._commits = commits
        self._finders: dict[Path, PathFinder] = {}

    def at(self, id: CommitId, path: Path) -> Value | None:
        """The entry at a path of a commit."""
        finder = self._finders.get(path)
        if finder is None:
            finder = self._finders[path] = PathFinder(self._core, path)
        return finder.find(self._commits.get(id).tree)

    def sources(
        self, id: CommitId, path: Path, own: Value
    ) -> Iterator[tuple[CommitId, Path, Value]]:
        """The file at a path of a commit as its parents have it: (parent, path there, entry).

        The same content comes first; names from which it was renamed come last, and are looked
        for when they are asked for.
        """
        tree, parents = self._commits.get(id).tree, self._commits.get(id).parents
        values = [(parent, self.at(parent, path)) for parent in parents]
        found = [(parent, path, value) for parent, value in values if value and is_file(value)]
        yield from sorted(found, key=lambda each: each[2][1] != own[1])
        for parent in (parent for parent, value in values if value is None):
            origin = renamed_from(self._core, self._commits.get(parent).tree, tree, path)
            value = None if origin is None else self.at(parent, origin)
            if origin is not None and value is not None:
                yield parent, origin, value


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
            f"{join_path(parts)!r} is no directory.",
            id=entry.id,
            expected="tree",
            actual=entry.kind.name.lower(),
        )
    whole = bytes(entry.id)
    origin: dict[bytes, CommitId] = {}
    pending: _Pending[set[bytes]] = _Pending(commits)
    pending.add(start, parts, {name for name, _value in scan(DIRECTORY, whole, nodes)}, set.__or__)
    for id, _path, rest in pending:
        own = root_at(id)
        parents = sorted(commits.get(id).parents, key=lambda parent: root_at(parent) != own)
        for parent in parents:
            changed = {name for name, _o, _n in diff(DIRECTORY, root_at(parent), own, nodes)}
            kept = {name for name in changed if name in rest}
            rest -= kept
            if rest:
                pending.add(parent, parts, rest, set.__or__)
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
    path = join_path(parts)
    return PathNotFound(f"There is no {path!r} in this revision.", path=path)
