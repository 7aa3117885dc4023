"""The commits that led to one, newest first, read as they are asked for.

Floor 4. Invariant: to show n commits no more is read than these and their parents. An order in
which no commit ever comes before any of its children would need the whole ancestry first: where
clocks ran backwards, only the child through which a commit was met is sure to come before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from cas.history.core import CommitCache
from cas.model.ids import CommitId
from cas.model.objects import Commit


def newest_first(
    commits: CommitCache, start: CommitId, limit: int | None
) -> Iterator[tuple[CommitId, Commit]]:
    """Each commit once, at most `limit` of them; of those met so far the newest, then the first.

    A commit comes behind a child of it; behind all of them where none is dated before its
    parent. Raises what reading a commit does.
    """
    met = {start}
    # The number keeps the order in which commits of one time were met.
    ready = [(0, 0, start)]
    given = 0
    while ready and (limit is None or given < limit):
        _time, _number, id = heappop(ready)
        commit = commits.get(id)
        yield id, commit
        given += 1
        if given == limit:
            return
        for parent in commit.parents:
            if parent not in met:
                met.add(parent)
                heappush(ready, (-commits.get(parent).time_us, len(met), parent))
