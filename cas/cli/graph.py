"""Drawing the graph of commits in text: one lane a line of work, one row a commit.

Floor 9; pure. Invariant: a lane stays in its column from the commit that opens it to the one
that it waits for; each parent of a commit that is shown is reached by exactly one lane.

    *     a merge
    |-.
    | *   of what came in
    * |   on the branch
    |-'
    *     what both came from
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")


class _Lanes(Generic[_T]):
    """Columns, and the commit that each of them waits for."""

    def __init__(self) -> None:
        self.waiting: list[_T | None] = []

    def column(self, id: _T) -> int:
        """The lane that waits for a commit, or a free one."""
        if id in self.waiting:
            return self.waiting.index(id)
        return self.free(id)

    def free(self, id: _T) -> int:
        """A free column, taken for a commit."""
        if None in self.waiting:
            at = self.waiting.index(None)
            self.waiting[at] = id
            return at
        self.waiting.append(id)
        return len(self.waiting) - 1

    def row(self, marks: dict[int, str], start: int = 0, end: int = -1) -> str:
        """One row; between two columns it is a line that crosses what stands there."""
        cells = []
        for at, id in enumerate(self.waiting):
            inside = start < at < end
            bar = "|" if id is not None else "-" if inside else " "
            cell = marks.get(at) or ("+" if inside and id is not None else bar)
            cells.append(cell + ("-" if start <= at < end else " "))
        return "".join(cells).rstrip()

    def tidy(self) -> None:
        """Forget free columns at the end."""
        while self.waiting and self.waiting[-1] is None:
            self.waiting.pop()


def draw(commits: Iterable[tuple[_T, Sequence[_T]]]) -> Iterator[tuple[str, list[str]]]:
    """For each commit, given as (id, parents) with children first: its row, and rows below it."""
    lanes: _Lanes[_T] = _Lanes()
    for id, parents in commits:
        own = lanes.column(id)
        row = lanes.row({own: "*"})
        below = []
        first = parents[0] if parents else None
        lanes.waiting[own] = None
        if first is not None:
            if first in lanes.waiting:
                other = lanes.waiting.index(first)
                left, right = sorted((own, other))
                lanes.waiting[left], lanes.waiting[right] = first, None
                below.append(lanes.row({left: "|", right: "'"}, left, right))
                own = left
            else:
                lanes.waiting[own] = first
        for parent in dict.fromkeys(parents[1:]):
            if parent == first:
                continue
            known = parent in lanes.waiting
            other = lanes.column(parent)
            left, right = sorted((own, other))
            below.append(lanes.row({own: "|", other: "|" if known else "."}, left, right))
        lanes.tidy()
        yield row, below
