"""How long packs have been seen: ages that no clock can make longer than they are.

Floor 5. Invariant: a pack that is met for the first time has no age, and one run adds a day at
the most, however far the clock has jumped; so a loose object outlives as many runs as the grace
has days. What is kept here is a cache: without it everything is new again, and stays longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from cas.history.upkeep import KeptRow
from cas.limits import GC_CREDIT_US
from cas.maintenance.gc.counts import mark_of
from cas.maintenance.remembered import Remembered
from cas.objects.packs import PackInfo

_FILE: Final = "gc-ages.json"


_MARK_DIGITS: Final = 16

_Saved = tuple[dict[int, int], dict[int, str], int, list[Any], tuple[KeptRow, ...]]
_NOTHING: Final[_Saved] = ({}, {}, 0, [], ())


def _saved(found: Any, lineage: bytes) -> _Saved:
    """What was saved for this lineage; nothing of another's."""
    if found["lineage"] != lineage.hex():
        return _NOTHING
    ages = {int(number): int(age) for number, age in found["ages"].items()}
    marks = {int(number): str(mark) for number, mark in found.get("marks", {}).items()}
    kept = tuple(KeptRow(str(r), int(n), int(b)) for r, n, b in found["kept"])
    return ages, marks, int(found["seen_us"]), list(found["quiet"]), kept


class Ages:
    """Ages of the packs of one store, in µs. `folder` None: they live as long as this."""

    def __init__(self, folder: str | None) -> None:
        self._file = Remembered(folder, _FILE)
        self._lineage = ""
        self._seen_us = 0
        self._ages: dict[int, int] = {}
        # A catalog that was put back gives numbers anew.
        self._marks: dict[int, str] = {}
        # What the last run left: the horizon it knew, the version, and packs with what waits.
        self._quiet: list[Any] = []
        self.kept: tuple[KeptRow, ...] = ()
        """What the last run that marked has found to keep what stayed."""

    def load(self, lineage: bytes) -> None:
        """Read what was saved for this lineage; nothing where that is damaged or another's."""
        if self._file.lasts or self._lineage != lineage.hex():
            saved = self._file.load(lambda found: _saved(found, lineage), _NOTHING)
            self._ages, self._marks, self._seen_us, self._quiet, self.kept = saved
        self._lineage = lineage.hex()

    def recognise(self, packs: Iterable[PackInfo]) -> None:
        """Forget the ages of packs that are other ones than those that runs have seen."""
        for pack in packs:
            mark = mark_of(pack).hex()[:_MARK_DIGITS]
            if self._marks.setdefault(pack.number, mark) != mark:
                self._marks[pack.number] = mark
                self._ages.pop(pack.number, None)

    def of(self, number: int, now_us: int) -> int | None:
        """Age of a pack now; None when no run has seen it."""
        age = self._ages.get(number)
        return None if age is None else age + self._credit(now_us)

    def _credit(self, now_us: int) -> int:
        return min(max(0, now_us - self._seen_us), GC_CREDIT_US) if self._seen_us else 0

    def advance(self, numbers: Iterable[int], now_us: int) -> None:
        """A run has seen these packs; others are forgotten. Saved where there is a folder."""
        credit = self._credit(now_us)
        ages = self._ages
        self._ages = {n: ages[n] + credit if n in ages else 0 for n in numbers}
        self._marks = {n: mark for n, mark in self._marks.items() if n in self._ages}
        self._seen_us = now_us
        self._file.save(
            {
                "lineage": self._lineage,
                "seen_us": now_us,
                "ages": self._ages,
                "marks": self._marks,
                "quiet": self._quiet,
                "kept": [(row.reason, row.copy_count, row.stored_bytes) for row in self.kept],
            }
        )

    def note(
        self,
        horizon: str,
        version: int,
        left: tuple[int, int],
        packs: list[int],
        kept: tuple[KeptRow, ...],
    ) -> None:
        """A run has left nothing but loose objects that wait (how many, bytes), in these packs, as
        of a version; `kept` says what keeps the rest.
        """
        self._quiet = [horizon, version, *left, *packs]
        self.kept = kept

    @property
    def left(self) -> tuple[int, int]:
        """How many objects waited when a run went by last, and their bytes."""
        return (self._quiet[2], self._quiet[3]) if len(self._quiet) > 3 else (0, 0)

    def is_quiet(self, horizon: str, numbers: Sequence[int], now_us: int, grace_us: int) -> bool:
        """Whether nothing can have become garbage that a run would take.

        While the horizon stands, what was led to stays led to; so only what waits, and packs that
        came since, can hold any, and these are all younger than the grace.
        """
        if len(self._quiet) < 4 or self._quiet[0] != horizon:
            return False
        version, waiting = self._quiet[1], set(self._quiet[4:])
        return all(
            (self.of(number, now_us) or 0) < grace_us
            for number in numbers
            if number in waiting or number > version
        )
