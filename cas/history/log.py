"""The commits that led to one, newest first, read as they are asked for.

Floor 4. Invariant: to show n commits no more is read than these and their parents. An order in
which no commit ever comes before any of its children would need the whole ancestry first: where
clocks ran backwards, only the child through which a commit was met is sure to come before it.

The history of a path is simplified as git's is: what a commit has in common with a parent came
from there, and only that parent is followed. What commits changed is remembered (`trails`), so
that trees are looked at only for merges, first commits, and those that changed very much, and a
directory on the way to the path once for each id.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heappop, heappush

from cas.history.core import CommitCache, Core
from cas.history.lasting import Commits, lasting
from cas.history.renames import origins
from cas.history.trails import Trails, mark_of
from cas.model.ids import CommitId, Kind
from cas.model.names import Path
from cas.model.objects import Commit, EntryKind
from cas.trees.cursor import get
from cas.trees.merge import is_file
from cas.trees.node import DIRECTORY, Value


class _Queue:
    """Commits that were met and not given yet, each with the path that is looked for in it; each
    is met once for a path.
    """

    def __init__(
        self,
        time_us: Callable[[CommitId], int],
        starts: Iterable[CommitId],
        within: Collection[CommitId] | None,
        path: Path = (),
    ) -> None:
        self._time_us = time_us
        self._within = within
        self.met: dict[Path, set[CommitId]] = {}
        # The number keeps the order in which commits of one time were met.
        self._ready: list[tuple[int, int, CommitId, Path]] = []
        self._count = 0
        self.meet(starts, path)

    def __bool__(self) -> bool:
        return bool(self._ready)

    def meet(self, ids: Iterable[CommitId], path: Path = ()) -> None:
        """Add commits that were not met before."""
        met = self.met.setdefault(path, set())
        for id in ids:
            if id not in met and (self._within is None or id in self._within):
                met.add(id)
                self._count += 1
                heappush(self._ready, (-self._time_us(id), self._count, id, path))

    def take(self) -> tuple[CommitId, Path]:
        """The newest, then the first met."""
        return heappop(self._ready)[2:]


def newest_first(
    commits: CommitCache,
    starts: Iterable[CommitId],
    limit: int | None = None,
    within: Collection[CommitId] | None = None,
) -> Iterator[tuple[CommitId, Commit]]:
    """Each commit once, at most `limit` of them, of `within` only when given.

    Of those met so far the newest comes first. A commit comes behind a child of it; behind all
    of them where none is dated before its parent. Raises what reading a commit does.
    """
    queue = _Queue(lambda id: commits.get(id).time_us, starts, within)
    given = 0
    while queue and (limit is None or given < limit):
        id, _path = queue.take()
        commit = commits.get(id)
        yield id, commit
        given += 1
        if given == limit:
            return
        queue.meet(commit.parents)


class PathFinder:
    """What lies at one path in many directories that share most of what is in them."""

    def __init__(self, core: Core, parts: Path) -> None:
        self._nodes = core.objects.tree_nodes(DIRECTORY)
        self._parts = parts
        # For each name of the path, what it is in a directory that was looked at.
        self._known: list[dict[bytes, Value | None]] = [{} for _ in parts]

    def find(self, root: bytes) -> Value | None:
        """The entry at the path below the directory `root`."""
        value: Value | None = None
        for depth, known in enumerate(self._known, 1):
            part = self._parts[depth - 1]
            try:
                value = known[root]
            except KeyError:
                value = known[root] = get(DIRECTORY, root, part, self._nodes)
            if value is None:
                return None
            if value[0] != EntryKind.TREE:
                return value if depth == len(self._parts) else None
            root = value[1]
        return value


def renamed_from(core: Core, old: bytes, new: bytes, path: Path) -> Path | None:
    """The path from which a file that is new in a directory was renamed; None where it was not."""
    nodes = core.objects.tree_nodes(DIRECTORY)
    return origins(old, new, nodes, lambda id: core.objects.get(id, Kind.BLOB)).get(path)


class _Track:
    """A path whose history is looked for: how it is found in trees, and in trails."""

    def __init__(self, core: Core, path: Path) -> None:
        self.find = PathFinder(core, path).find
        self.mark = mark_of(path)


def path_log(
    core: Core,
    starts: Iterable[CommitId],
    parts: Path,
    *,
    within: Collection[CommitId] | None = None,
    limit: int | None = None,
    follow: bool = False,
) -> Iterator[tuple[CommitId, Commit]]:
    """Commits that changed what lies at a path, in the order of `newest_first`.

    A commit changed it when it has another entry there than each of its parents; one without
    parents when it has any. With `follow` the history of a file goes on, behind a commit that
    brought it, under the name that it had before. Commits that were thinned are passed over.
    Raises what reading commits and directories does.
    """
    commits = lasting(core)
    trails = Trails(core, commits)
    tracks: dict[Path, _Track] = {}
    queue = _Queue(trails.time_us, starts, within, parts)
    given: set[CommitId] = set()
    try:
        while queue and (limit is None or len(given) < limit):
            id, path = queue.take()
            track = tracks.get(path) or tracks.setdefault(path, _Track(core, path))
            if not queue:
                # One line of work, as most histories are: no order has to be kept.
                changed = trails.skip(id, track.mark, queue.met[path], within)
                if changed is None:
                    continue
                id = changed
            elif not trails.differs(id, track.mark):
                queue.meet((trails.first_parent(id),), path)
                continue
            commit = commits.get(id)
            if not trails.changed(id, track.mark):
                own = track.find(commit.tree)
                before = ((p, track.find(commits.get(p).tree)) for p in commit.parents)
                same = next((parent for parent, value in before if value == own), None)
                if same is not None:
                    queue.meet((same,), path)
                    continue
                if own is None and not commit.parents:
                    continue
            if id not in given:
                given.add(id)
                yield id, commit
            for parent in commit.parents:
                origin = _origin(core, commits, track, commit, parent, path) if follow else None
                queue.meet((parent,), origin or path)
    finally:
        trails.save()


def _origin(
    core: Core, commits: Commits, track: _Track, commit: Commit, parent: CommitId, path: Path
) -> Path | None:
    """The path in a parent from which a commit renamed the file that is at `path`, if it did."""
    tree = commits.get(parent).tree
    if not is_file(track.find(commit.tree)) or track.find(tree) is not None:
        return None
    return renamed_from(core, tree, commit.tree, path)
