"""Runs of the look-up index made one: several at a time, a slice of ids after the other.

Floor 2. Invariant: a merged run says of every entry whose pack lives what its source said, and a
merge of any length holds one slice.

Each run that says no to an id costs every look-up and every put, and a long one most, because what
it is asked for lies in no cache of the processor. So there are few: each has more than twice the
entries of all that are smaller, and nearly all look-ups are answered by the first. Each entry is
rewritten O(log n) times.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterator, Sequence
from itertools import accumulate
from typing import Final

from cas.storage.index import TOP, Run, copied, place_bits, write_run

MERGE_RATIO: Final = 2
"""A run has more than so many times the entries of all that are smaller, else they become one."""

_SLICE_COUNT: Final = 1 << 16


def due_merge(runs: Sequence[Run]) -> list[Run]:
    """The runs to merge next, which are the smaller ones; or none.

    A damaged run is never one of them: what is merged gets a digest of its own, and would be
    believed when it says no.
    """
    left = sorted(runs, key=lambda run: run.count)
    while True:
        due = smaller_count = 0
        for at, run in enumerate(left):
            if at and MERGE_RATIO * smaller_count >= run.count:
                due = at + 1
            smaller_count += run.count
        damaged = [run for run in left[:due] if not run.is_whole()]
        if not damaged:
            return left[:due]
        left = [run for run in left if run not in damaged]


class Merge:
    """The entries of several runs whose pack is in `live`, as the parts of one run."""

    def __init__(self, runs: Sequence[Run], live: Container[int]) -> None:
        self._runs = runs
        covered = [
            (run, at) for run in runs for at, number in enumerate(run.packs) if number in live
        ]
        self.packs = [run.packs[at] for run, at in covered]
        self.names = [run.names[at] for run, at in covered]
        self.slots = [run.slots[at] for run, at in covered]
        # Never fewer than a source had: what it cut off its prefixes is not known any more.
        self.bits = max([place_bits(self.slots), *[run.bits for run in runs]])
        # Where the slots of each pack begin in the merged run.
        self._starts = dict(zip(self.packs, accumulate(self.slots, initial=0), strict=False))

    def parts(self) -> Iterator[array[int]]:
        """The merged entries, ascending, in slices of about `_SLICE_COUNT`."""
        total = sum(run.count for run in self._runs)
        slice_bits = (total // _SLICE_COUNT).bit_length()
        done = [0] * len(self._runs)
        for number in range(1, (1 << slice_bits) + 1):
            rows: list[int] = []
            for which, run in enumerate(self._runs):
                start, end = done[which], run.count
                if number < 1 << slice_bits:
                    end = bisect_left(run.keys, number << 64 - slice_bits, start)
                done[which] = end
                rows += self._moved(run, run.keys[start:end])
            # Sorted stretches behind each other: Python's sort finds them and only merges.
            rows.sort()
            yield array("Q", rows)

    def _moved(self, run: Run, keys: Sequence[int]) -> list[int]:
        """Entries of a run with their slots numbered as in the merged one."""
        bits, mask = self.bits, (1 << run.bits) - 1
        bounds = [0, *accumulate(run.slots)]
        starts = [self._starts.get(number, -1) for number in run.packs]
        shifts = {start - bound for start, bound in zip(starts, bounds, strict=False)}
        if -1 not in starts and len(shifts) == 1:
            (by,) = shifts
            return _shifted(keys, run.bits, bits, by)
        moved = []
        for key in keys:
            number = key & mask
            pack = bisect_right(bounds, number) - 1
            if pack < len(starts) and starts[pack] >= 0:
                moved.append((key >> bits << bits) + number - bounds[pack] + starts[pack])
        return moved

    def run(self) -> Run:
        """The merged run, in memory."""
        keys = array("Q")
        for part in self.parts():
            keys.extend(part)
        return Run(self.packs, self.names, self.slots, keys, self.bits)

    def save(self, folder: str, name: str, lineage_id: bytes) -> Run:
        """The merged run in a file; it is never whole in memory if the file can be written."""
        found = write_run(self, folder, name, lineage_id)
        return self.run() if found is None else found


def _shifted(keys: Sequence[int], old_bits: int, bits: int, by: int) -> list[int]:
    """Entries with `by` added to the number of each slot, which has `bits` now.

    All of them are one long number, so is what is added to them, and so is what is taken away of
    the ids: 40 ns an entry, where a step of Python for each takes four times as long.
    """
    count = len(keys)
    whole = int.from_bytes(copied("Q", keys).tobytes(), sys.byteorder)
    if bits > old_bits:
        kept = (TOP >> bits << bits) | ((1 << old_bits) - 1)
        whole &= int.from_bytes(kept.to_bytes(8, sys.byteorder) * count, sys.byteorder)
    whole += int.from_bytes(by.to_bytes(8, sys.byteorder) * count, sys.byteorder)
    moved = array("Q")
    moved.frombytes(whole.to_bytes(8 * count, sys.byteorder))
    return moved.tolist()


def merge_runs(runs: Sequence[Run], live: Container[int]) -> Run:
    """One run in memory of the entries whose pack is in `live`."""
    return Merge(runs, live).run()
