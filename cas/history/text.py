"""Lines of text: what two have in common, and a merge of three.

Floor 4; pure. Invariant: the parts of a merge, read one after the other, give each of the three
texts back, so that no line is lost or made up; a merge is clean only where the two changes do
not touch. Work is bounded: what the budget does not reach counts as changed.

Common lines are found by patience (lines that are unique on both sides are anchors; the longest
ascending run of them is kept), which keeps functions and paragraphs together; between anchors,
Myers' greedy O(ND) search (An O(ND) Difference Algorithm, 1986) up to a bound on D. The merge is
the classic diff3 (Khanna, Kunal, Pierce: A Formal Investigation of Diff3, 2007), except that
changes which touch without overlapping are a conflict, as in git.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from attrs import frozen

from cas.limits import (
    TEXT_DIFFERENCES_MAX,
    TEXT_MERGE_BYTES_MAX,
    TEXT_WORK_FACTOR,
    TEXT_WORK_MIN,
)

_NUL_WITHIN: Final = 8000


class Block(NamedTuple):
    """`size` lines are the same from line `old` of one text and line `new` of the other."""

    old: int
    new: int
    size: int


class Part(NamedTuple):
    """One stretch of a merge of three texts; each field holds that side's lines."""

    base: list[bytes]
    ours: list[bytes]
    theirs: list[bytes]

    @property
    def clean(self) -> list[bytes] | None:
        """What it becomes; None where both sides changed it, each in its way."""
        if self.ours == self.theirs or self.base == self.theirs:
            return self.ours
        return self.theirs if self.base == self.ours else None


def lines_of(content: bytes, bytes_max: int = TEXT_MERGE_BYTES_MAX) -> list[bytes] | None:
    """Lines with their ends; None when this is no text, or too long (unless said, to merge).

    Text is UTF-8 of at most `bytes_max` without a NUL byte in its first 8,000. Only a newline ends
    a line.
    """
    if len(content) > bytes_max or b"\0" in content[:_NUL_WITHIN]:
        return None
    try:
        content.decode()
    except UnicodeDecodeError:
        return None
    pieces = content.split(b"\n")
    last = pieces.pop()
    lines = [piece + b"\n" for piece in pieces]
    return [*lines, last] if last else lines


# -- two texts ---------------------------------------------------------------------------------


def common(old: Sequence[bytes], new: Sequence[bytes]) -> list[Block]:
    """Blocks of equal lines, ascending in both; they neither overlap nor touch each other."""
    numbers: dict[bytes, int] = {}
    left = [numbers.setdefault(line, len(numbers)) for line in old]
    right = [numbers.setdefault(line, len(numbers)) for line in new]
    pairs = _Matcher(left, right).run()
    blocks: list[Block] = []
    for start, other, size in sorted(pairs):
        if blocks:
            before = blocks[-1]
            if before.old + before.size == start and before.new + before.size == other:
                blocks[-1] = Block(before.old, before.new, before.size + size)
                continue
        blocks.append(Block(start, other, size))
    return blocks


@frozen
class _Range:
    """Lines `a`:`b` of the old text against lines `c`:`d` of the new."""

    a: int
    b: int
    c: int
    d: int


class _Matcher:
    """One search for common lines; texts are numbers, one a different line."""

    def __init__(self, left: list[int], right: list[int]) -> None:
        self.left = left
        self.right = right
        self.found: list[tuple[int, int, int]] = []
        self.budget = TEXT_WORK_MIN + TEXT_WORK_FACTOR * (len(left) + len(right))

    def run(self) -> list[tuple[int, int, int]]:
        stack = [_Range(0, len(self.left), 0, len(self.right))]
        while stack:
            rest = self._trim(stack.pop())
            if rest.a == rest.b or rest.c == rest.d or self.budget <= 0:
                continue
            anchors = self._anchors(rest)
            if not anchors:
                self._search(rest)
                continue
            a, c = rest.a, rest.c
            for i, j, size in anchors:
                if a < i and c < j:
                    stack.append(_Range(a, i, c, j))
                self.found.append((i, j, size))
                a, c = i + size, j + size
            if a < rest.b and c < rest.d:
                stack.append(_Range(a, rest.b, c, rest.d))
        return self.found

    def _trim(self, lines: _Range) -> _Range:
        """Take equal lines off both ends."""
        left, right = self.left, self.right
        a, b, c, d = lines.a, lines.b, lines.c, lines.d
        while a < b and c < d and left[a] == right[c]:
            a, c = a + 1, c + 1
        if a > lines.a:
            self.found.append((lines.a, lines.c, a - lines.a))
        end = b
        while a < b and c < d and left[b - 1] == right[d - 1]:
            b, d = b - 1, d - 1
        if b < end:
            self.found.append((b, d, end - b))
        self.budget -= (a - lines.a) + (end - b)
        return _Range(a, b, c, d)

    def _anchors(self, lines: _Range) -> list[tuple[int, int, int]]:
        """The longest ascending run of lines that are unique on both sides, as blocks."""
        old, new = self.left[lines.a : lines.b], self.right[lines.c : lines.d]
        self.budget -= len(old) + len(new)
        counts, others = Counter(old), Counter(new)
        where = {line: lines.c + at for at, line in enumerate(new) if others[line] == 1}
        pairs = [
            (lines.a + at, where[line])
            for at, line in enumerate(old)
            if counts[line] == 1 and line in where
        ]
        # Patience: `ends[n]` is the smallest end of an ascending run of n + 1.
        ends: list[int] = []
        last: list[int] = []
        before: list[int] = []
        for at, (_i, j) in enumerate(pairs):
            pile = bisect_left(ends, j)
            before.append(last[pile - 1] if pile else -1)
            if pile == len(ends):
                ends.append(j)
                last.append(at)
            else:
                ends[pile], last[pile] = j, at
        run: list[tuple[int, int, int]] = []
        at = last[-1] if last else -1
        while at >= 0:
            i, j = pairs[at]
            if run and run[-1][0] == i + 1 and run[-1][1] == j + 1:
                run[-1] = (i, j, run[-1][2] + 1)
            else:
                run.append((i, j, 1))
            at = before[at]
        return run[::-1]

    def _search(self, lines: _Range) -> None:
        """Myers' greedy search where no line is unique; gives up beyond the bounds."""
        left, right = self.left, self.right
        old, new = lines.b - lines.a, lines.d - lines.c
        reach = {1: 0}
        trail: list[dict[int, int]] = []
        for depth in range(min(old + new, TEXT_DIFFERENCES_MAX) + 1):
            trail.append(dict(reach))
            for k in range(-depth, depth + 1, 2):
                down = k == -depth or (k != depth and reach[k - 1] < reach[k + 1])
                x = reach[k + 1] if down else reach[k - 1] + 1
                start = x
                y = x - k
                while x < old and y < new and left[lines.a + x] == right[lines.c + y]:
                    x, y = x + 1, y + 1
                self.budget -= 1 + x - start
                reach[k] = x
                if x >= old and y >= new:
                    self._walk_back(lines, trail, old, new)
                    return
            if self.budget <= 0:
                return

    def _walk_back(self, lines: _Range, trail: list[dict[int, int]], x: int, y: int) -> None:
        """The diagonals of the path that the search took."""
        for depth in range(len(trail) - 1, -1, -1):
            reach = trail[depth]
            k = x - y
            down = k == -depth or (k != depth and reach[k - 1] < reach[k + 1])
            below = k + 1 if down else k - 1
            old_x = reach[below] if depth else 0
            old_y = old_x - below if depth else 0
            start = (old_x if down else old_x + 1) if depth else 0
            if x > start:
                self.found.append((lines.a + start, lines.c + start - k, x - start))
            x, y = old_x, old_y


# -- three texts -------------------------------------------------------------------------------


class _Hunk(NamedTuple):
    """Base lines `start`:`end` became lines `first`:`last` of a side."""

    start: int
    end: int
    first: int
    last: int


def _hunks(base: Sequence[bytes], side: Sequence[bytes]) -> list[_Hunk]:
    hunks = []
    at = other = 0
    for block in [*common(base, side), Block(len(base), len(side), 0)]:
        if block.old > at or block.new > other:
            hunks.append(_Hunk(at, block.old, other, block.new))
        at, other = block.old + block.size, block.new + block.size
    return hunks


def merge_lines(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> list[Part]:
    """Three texts in step, part by part: changed parts, and what is equal between them."""
    mine, other = _hunks(base, ours), _hunks(base, theirs)
    parts: list[Part] = []
    at = i = j = 0
    left = right = 0  # how far ours and theirs have moved against the base
    while i < len(mine) or j < len(other):
        start = min(
            mine[i].start if i < len(mine) else len(base),
            other[j].start if j < len(other) else len(base),
        )
        if start > at:
            parts.append(Part(*(base[at:start] for _ in range(3))))
        end, first, second = start, start + left, start + right
        while True:
            if i < len(mine) and mine[i].start <= end:
                end = max(end, mine[i].end)
                left = mine[i].last - mine[i].end
                i += 1
            elif j < len(other) and other[j].start <= end:
                end = max(end, other[j].end)
                right = other[j].last - other[j].end
                j += 1
            else:
                break
        parts.append(Part(base[start:end], ours[first : end + left], theirs[second : end + right]))
        at = end
    if at < len(base):
        parts.append(Part(*(base[at:] for _ in range(3))))
    return parts


def merge_text(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """The merge of three contents; None when it is not clean, or one of them is no text."""
    parts = merge_contents(base, ours, theirs)
    if parts is None:
        return None
    merged: list[bytes] = []
    for part in parts:
        clean = part.clean
        if clean is None:
            return None
        merged += clean
    return b"".join(merged)


def merge_contents(base: bytes, ours: bytes, theirs: bytes) -> list[Part] | None:
    """The parts of a merge of three contents; None when one of them is no text."""
    old, mine, other = lines_of(base), lines_of(ours), lines_of(theirs)
    if old is None or mine is None or other is None:
        return None
    return merge_lines(old, mine, other)


def with_markers(parts: Iterable[Part], ours: str, theirs: str, base: str = "base") -> bytes:
    """A merge as one text, conflicts between lines of `<`, `|`, `=` and `>` as git shows them."""
    out: list[bytes] = []
    for part in parts:
        clean = part.clean
        if clean is not None:
            out += clean
            continue
        for mark, label, lines in (
            (b"<<<<<<<", ours, part.ours),
            (b"|||||||", base, part.base),
            (b"=======", "", part.theirs),
        ):
            out.append(mark + (b" " + label.encode() if label else b"") + b"\n")
            out += lines
            if lines and not lines[-1].endswith(b"\n"):
                out.append(b"\n")
        out.append(b">>>>>>> " + theirs.encode() + b"\n")
    return b"".join(out)
