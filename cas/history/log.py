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
from cas.history.lasting import lasting
from cas.history.trails import Trails, mark_of
from cas.model.ids import CommitId
from cas.model.objects import Commit, EntryKind
from cas.trees.cursor import get
from cas.trees.node import DIRECTORY, Value


class _Queue:
    """Commits that were met and not given yet; each is met once."""

    def __init__(
        self,
        time_us: Callable[[CommitId], int],
        starts: Iterable[CommitId],
        within: Collection[CommitId] | None,
    ) -> None:
        self._time_us = time_us
        self._within = within
        self.met: set[CommitId] = set()
        # The number keeps the order in which commits of one time were met.
        self._ready: list[tuple[int, int, CommitId]] = []
        self.meet(starts)

    def __bool__(self) -> bool:
        return bool(self._ready)

    def meet(self, ids: Iterable[CommitId]) -> None:
        """Add commits that were not met before."""
        for id in ids:
            if id not in self.met and (self._within is None or id in self._within):
                self.met.add(id)
                heappush(self._ready, (-self._time_us(id), len(self.met), id))

    def take(self) -> CommitId:
        """The newest, then the first met."""
        return heappop(self._ready)[2]


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
        id = queue.take()
        commit = commits.get(id)
        yield id, commit
        given += 1
        if given == limit:
            return
        queue.meet(commit.parents)


class PathFinder:
    """What lies at one path in many directories that share most of what is in them."""

    def __init__(self, core: Core, parts: tuple[bytes, ...]) -> None:
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


def path_log(
    core: Core,
    starts: Iterable[CommitId],
    parts: tuple[bytes, ...],
    *,
    within: Collection[CommitId] | None = None,
    limit: int | None = None,
) -> Iterator[tuple[CommitId, Commit]]:
    """Commits that changed what lies at a path, in the order of `newest_first`.

    A commit changed it when it has another entry there than each of its parents; one without
    parents when it has any. Commits that were thinned are passed over. Raises what reading
    commits and directories does.
    """
    commits = lasting(core)
    finder, trails = PathFinder(core, parts), Trails(core, commits)
    mark = mark_of(parts)
    queue = _Queue(trails.time_us, starts, within)
    given = 0
    try:
        while queue and (limit is None or given < limit):
            id = queue.take()
            if not queue:
                # One line of work, as most histories are: no order has to be kept.
                changed = trails.skip(id, mark, queue.met, within)
                if changed is None:
                    continue
                id = changed
            elif not trails.differs(id, mark):
                queue.meet((trails.first_parent(id),))
                continue
            commit = commits.get(id)
            if trails.changed(id, mark):
                yield id, commit
                given += 1
                queue.meet(commit.parents)
                continue
            own = finder.find(commit.tree)
            same = next(
                (p for p in commit.parents if finder.find(commits.get(p).tree) == own), None
            )
            if same is not None:
                queue.meet((same,))
                continue
            if own is not None or commit.parents:
                yield id, commit
                given += 1
            queue.meet(commit.parents)
    finally:
        trails.save()
