"""The graph of commits: common ancestors, and what one revision has that another has not.

Floor 4. Invariant: an answer depends on the parents that commits name and on nothing else; the
times that commits carry only choose the order of reading, so a wrong clock costs time and never
a wrong base (a range may then show commits that it should leave out). Work is bounded by the
commits that are not below a common ancestor, and a few more.

The painting is the one of git's merge-base: each side's colour flows to the parents; a commit
that has both is a candidate, and what lies below one is stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Final

from cas.history.core import CommitCache
from cas.model.ids import CommitId

_LEFT: Final = 1
_RIGHT: Final = 2
_BOTH: Final = _LEFT | _RIGHT
_STALE: Final = 4


def merge_bases(
    commits: CommitCache, left: Iterable[CommitId], right: Iterable[CommitId]
) -> tuple[CommitId, ...]:
    """The best common ancestors of any of `left` and any of `right`, newest first.

    Best: not an ancestor of another one. A commit counts as its own ancestor. Empty for
    histories that have nothing in common; several where branches were merged crosswise. Raises
    what reading a commit raises.
    """
    marks = _paint(commits, left, right)
    found = [id for id, mark in marks.items() if mark & (_BOTH | _STALE) == _BOTH]
    if len(found) > 1:
        # A candidate may have been met before its descendant when times are wrong.
        found = [
            id
            for id in found
            if not _paint(commits, [id], [other for other in found if other != id])[id] & _RIGHT
        ]
    return tuple(sorted(found, key=lambda id: (-commits.get(id).time_us, id)))


def is_ancestor(commits: CommitCache, old: CommitId, new: CommitId) -> bool:
    """Whether `old` is `new` or can be reached from it by parents."""
    return old == new or bool(_paint(commits, [old], [new])[old] & _RIGHT)


def _paint(
    commits: CommitCache,
    left: Iterable[CommitId],
    right: Iterable[CommitId],
    *,
    drain: bool = False,
) -> dict[CommitId, int]:
    """Colours of all commits that had to be looked at; it ends when only stale ones wait.

    With `drain` those are followed too, as far back in time as a commit of one colour lies.
    """
    marks: dict[CommitId, int] = {}
    heap: list[tuple[int, CommitId]] = []
    waiting: set[CommitId] = set()
    fresh = 0

    def paint(id: CommitId, mark: int) -> None:
        nonlocal fresh
        before = marks.get(id, 0)
        if before & mark == mark:
            return
        marks[id] = after = before | mark
        if id not in waiting:
            waiting.add(id)
            heappush(heap, (-commits.get(id).time_us, id))
            fresh += not after & _STALE
        elif after & _STALE and not before & _STALE:
            fresh -= 1

    for id in left:
        paint(id, _LEFT)
    for id in right:
        paint(id, _RIGHT)
    floor: int | None = None
    while heap:
        if not fresh:
            if floor is None:
                times = (commits.get(id).time_us for id, m in marks.items() if m == _LEFT)
                floor = min(times, default=0) if drain else 0
            if not floor or -heap[0][0] < floor:
                break
        _time, id = heappop(heap)
        waiting.remove(id)
        mark = marks[id]
        fresh -= not mark & _STALE
        if mark & _BOTH == _BOTH:
            mark |= _STALE
        for parent in commits.get(id).parents:
            paint(parent, mark)
    return marks


def only_in(
    commits: CommitCache, wanted: Iterable[CommitId], without: Iterable[CommitId]
) -> set[CommitId]:
    """Commits that can be reached from `wanted` and not from `without`."""
    wanted = list(wanted)
    marks = _paint(commits, wanted, without, drain=True)
    # What is reached from both sides has both colours, or lies below what has.
    found: set[CommitId] = set()
    stack = [id for id in wanted if not marks[id] & _RIGHT]
    while stack:
        id = stack.pop()
        if id not in found:
            found.add(id)
            stack += [p for p in commits.get(id).parents if not marks.get(p, 0) & _RIGHT]
    return found
