"""What keeps what a collection leaves: a sum for each reason, so that a run can say why.

Floor 5. Invariant: every copy is counted once, under the first reason that led to it, in the order
of `REASONS`; so what stands under a later one goes when that alone is given up. Marking in this
order keeps neither more nor less than marking in any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import Final

from cas.errors import CasError
from cas.history.core import Core
from cas.history.upkeep import KEPT_REASONS, KeptRow
from cas.maintenance.gc.colors import KEPT
from cas.maintenance.gc.reach import Marks
from cas.model.ids import CommitId, Kind
from cas.model.names import HOLDS, PINS

_NEW: Final = bytes(int(color == KEPT) for color in range(256))
Ref = tuple[str, int, bytes]
"""Name, kind and target."""


class Shares:
    """What each reason adds to a mark. One thread, like the marks."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._before: dict[int, bytes] = {}
        self._sums: dict[str, tuple[int, int]] = {}

    def keep(self, reason: str, ids: Iterable[bytes]) -> None:
        """Keep these and what they lead to, for this reason."""
        ids = list(ids)
        if ids:
            self._marks.keep(ids, "a ref or an event")
        self.note(reason)

    def keep_journal(self) -> None:
        """Keep every segment of the journal."""
        self._marks.keep_kind(Kind.SEGMENT)
        self.note("journal")

    def note(self, reason: str) -> None:
        """Whatever was kept since the last note was kept for this reason."""
        count, size_bytes = self._sums.get(reason, (0, 0))
        for number, colors in list(self._marks.colors.items()):
            now = bytes(colors.translate(_NEW))
            before = self._before.get(number)
            if now == before or 1 not in now:
                continue
            self._before[number] = now
            fresh = now if before is None else _without(now, before)
            count += fresh.count(1)
            size_bytes += sum(compress(self._marks.lengths(number), fresh))
        self._sums[reason] = count, size_bytes

    @property
    def rows(self) -> tuple[KeptRow, ...]:
        """One row for each reason that kept anything."""
        found = self._sums
        rows = (KeptRow(name, *found[name]) for name in KEPT_REASONS if name in found)
        return tuple(row for row in rows if row.copy_count)


def _without(now: bytes, before: bytes) -> bytes:
    """The ones of `now` that are none in `before`."""
    left = int.from_bytes(now, "big") & ~int.from_bytes(before, "big")
    return left.to_bytes(len(now), "big")


def keep_refs(core: Core, shares: Shares, refs: Iterable[Ref], others: Iterable[bytes]) -> None:
    """Keep what refs point at now, then `others`, what states of before and events led to.

    What the newest commits show comes first, without what led to it.
    """
    refs = list(refs)
    trees = []
    for name, kind, target in refs:
        if kind == Kind.COMMIT and not name.startswith((HOLDS, PINS)):
            try:
                trees.append(bytes(core.commits.get(CommitId(target)).tree))
            except CasError:
                continue  # the marking of the ref itself says what is wrong
    shares.keep("newest", trees)
    for reason, prefix in (("hold", HOLDS), ("pin", PINS)):
        shares.keep(reason, [target for name, _k, target in refs if name.startswith(prefix)])
    shares.keep("history", [target for _name, _kind, target in refs])
    shares.keep("horizon", others)
    shares.keep_journal()
