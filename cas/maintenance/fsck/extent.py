"""How much of a store a check reads, and when each pack was read last.

Floor 5. Invariant: what a check left out is never said to be good; what is remembered of earlier
checks lies in the cache, so that losing it makes the next check read more and none read less.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Final

from cas.clock import Clock
from cas.errors import Invalid
from cas.maintenance.fsck.packs import Pack
from cas.maintenance.remembered import Remembered
from cas.model.values import frozen

_FILE: Final = "checked"


class FsckLevel(Enum):
    """What is read of a pack: its ends; its structured objects too; or every byte."""

    STRUCTURE = "structure"
    CLOSURE = "closure"
    BYTES = "bytes"


@frozen
class FsckExtent:
    """How far a check goes. The catalog, the journal and the ends of all packs are always read.

    `level` bytes can be narrowed: `sample` is the part of the stored bytes that is read, chosen
    by chance; `budget_ms` ends the reading after that time; `oldest_first` begins with the packs
    that were read longest ago.
    """

    level: FsckLevel = FsckLevel.BYTES
    sample: float | None = None
    budget_ms: float | None = None
    oldest_first: bool = False

    @property
    def is_narrowed(self) -> bool:
        """Whether packs may be left out."""
        return self.sample is not None or self.budget_ms is not None

    def check(self) -> None:
        """Raise `Invalid` where it asks for what cannot be."""
        if self.sample is not None and not 0 < self.sample <= 1:
            raise Invalid(
                f"A sample is a part of the whole, above 0 and at most 1, not {self.sample}."
            )
        if self.budget_ms is not None and self.budget_ms < 0:
            raise Invalid("A check cannot take less than no time.")
        if self.is_narrowed and self.level is not FsckLevel.BYTES:
            raise Invalid("A sample and a time budget are for checks of every byte.")


WHOLE: Final = FsckExtent()


class Ledger:
    """When each pack file was read in full and found good. One thread."""

    def __init__(self, cache: str | None) -> None:
        self._file = Remembered(cache, _FILE)
        self.times: dict[str, int] = self._file.load(
            lambda found: {str(k): v for k, v in found.items() if type(v) is int}, {}
        )

    def oldest_us(self, files: Iterable[str]) -> int | None:
        """When the last of these files was read; None where one never was, or there is none."""
        times = [self.times.get(file) for file in files]
        known = [time for time in times if time is not None]
        return min(known) if known and len(known) == len(times) else None

    def save(self, read: Mapping[str, int], bad: Iterable[str], files: Iterable[str]) -> None:
        """Note what was read just now, and forget what is damaged or gone. Never raises."""
        self.times.update(read)
        kept = set(files) - set(bad)
        self.times = {file: time for file, time in self.times.items() if file in kept}
        self._file.save(self.times)


class Selection:
    """Which packs a check reads, in which order; it stops when the time is over. One thread."""

    def __init__(self, extent: FsckExtent, ledger: Ledger, clock: Clock) -> None:
        self._extent = extent
        self._ledger = ledger
        self._clock = clock
        self._seed = clock.random(8)
        budget = extent.budget_ms
        self._end_ms = None if budget is None else clock.monotonic_ms() + budget
        self.read: dict[str, int] = {}
        """Files that were read to their end, and when."""
        self.left_count = 0

    def chosen(self, packs: Iterable[Pack]) -> Iterator[Pack]:
        """Inline packs first, all of them: they are few and young."""
        packs = list(packs)
        yield from (pack for pack in packs if pack.file is None)
        files = self._order([pack for pack in packs if pack.file is not None])
        total = sum(pack.body_bytes for pack in files)
        wanted = total if self._extent.sample is None else self._extent.sample * total
        done = 0
        for at, pack in enumerate(files):
            late = self._end_ms is not None and self._clock.monotonic_ms() >= self._end_ms
            if late or done >= wanted:
                self.left_count += len(files) - at
                return
            yield pack
            done += pack.body_bytes
            self.read[pack.label] = self._clock.wall_us()

    def _order(self, files: list[Pack]) -> list[Pack]:
        if self._extent.oldest_first:
            return sorted(files, key=lambda pack: self._ledger.times.get(pack.label, 0))
        if self._extent.sample is not None:
            return sorted(files, key=lambda pack: zlib.crc32(self._seed + pack.label.encode()))
        return files
