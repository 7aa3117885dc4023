"""The look-up index over sealed pack files: sorted runs of 16 bytes an entry, memory-mapped.

Floor 2. Invariant: the index is a cache. It maps the first 8 bytes of an id to candidates
(pack, slot); whoever asks compares the full id in the footer, so a stale or damaged run can
cost time but never give a wrong object, and a miss that matters is confirmed in the footers.

A run covers a set of packs. Runs are merged eight at a time, so that there are O(log n) of
them and each entry is rewritten O(log n) times.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cas.storage.pack import Footer

MERGE_FACTOR: Final = 8
_MAGIC: Final = b"casIDX1" + (b"<" if sys.byteorder == "little" else b">")
_HEAD = struct.Struct("<8s16sQQ")
_SUFFIX: Final = ".run"


class Run:
    """Sorted prefixes of ids, and where each may lie. Read-only; any thread."""

    __slots__ = ("_map", "_places", "_prefixes", "count", "packs", "path")

    def __init__(
        self,
        packs: Sequence[int],
        prefixes: Sequence[int],
        places: Sequence[int],
        path: str | None = None,
        mapped: mmap.mmap | None = None,
    ) -> None:
        self.packs = tuple(packs)
        self.count = len(prefixes)
        self._prefixes = prefixes
        self._places = places
        self._map = mapped
        self.path = path

    def find(self, prefix: int) -> Sequence[tuple[int, int]]:
        """(pack, slot) of every entry with this prefix; nearly always none or one."""
        prefixes = self._prefixes
        at = bisect_left(prefixes, prefix)
        if at == self.count or prefixes[at] != prefix:
            return ()
        found = []
        while at < self.count and prefixes[at] == prefix:
            place = self._places[at]
            found.append((self.packs[place >> 32], place & 0xFFFFFFFF))
            at += 1
        return found

    def find_range(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """(pack, slot) of every entry with a prefix from `low` to `high`, both included."""
        at = bisect_left(self._prefixes, low)
        while at < self.count and self._prefixes[at] <= high:
            place = self._places[at]
            yield self.packs[place >> 32], place & 0xFFFFFFFF
            at += 1

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """(prefix, pack, slot), ascending by prefix."""
        packs = self.packs
        for prefix, place in zip(self._prefixes, self._places, strict=True):
            yield prefix, packs[place >> 32], place & 0xFFFFFFFF


def prefix_of(id: bytes) -> int:
    """What a run is sorted by."""
    return int.from_bytes(id[:8], "big")


def run_of(number: int, footer: Footer) -> Run:
    """The run of one pack; its footer is sorted already."""
    prefixes = array("Q")
    prefixes.frombytes(b"".join([id[:8] for id in footer.ids()]))
    if sys.byteorder == "little":
        prefixes.byteswap()
    return Run([number], prefixes, array("Q", range(footer.count)))


def merge_runs(runs: Sequence[Run], live: Iterable[int]) -> Run:
    """One run of the entries whose pack is in `live`."""
    alive = set(live)
    packs = sorted({n for run in runs for n in run.packs if n in alive})
    position = {number: i << 32 for i, number in enumerate(packs)}
    # Concatenated sorted runs: Python's sort finds them and merges in linear time.
    rows = [
        (prefix, position[pack] | slot)
        for run in runs
        for prefix, pack, slot in run.entries()
        if pack in alive
    ]
    rows.sort()
    return Run(packs, array("Q", [r[0] for r in rows]), array("Q", [r[1] for r in rows]))


def save_run(run: Run, folder: str, name: str, lineage_id: bytes) -> Run:
    """Write a run to the cache folder and map it; the run itself when that is impossible."""
    path = os.path.join(folder, name + _SUFFIX)
    temporary = path + ".tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(_HEAD.pack(_MAGIC, lineage_id, len(run.packs), run.count))
            file.write(array("Q", run.packs).tobytes())
            file.write(memoryview(run._prefixes))  # type: ignore[arg-type]
            file.write(memoryview(run._places))  # type: ignore[arg-type]
        os.rename(temporary, path)
        return load_run(path, lineage_id) or run
    except OSError:
        # A cache that cannot be written (read-only folder, full disk) is done without.
        return run


def load_run(path: str, lineage_id: bytes) -> Run | None:
    """Map a run; None when it is not one of this lineage, or is damaged."""
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    if len(mapped) < _HEAD.size:
        return None
    magic, lineage, pack_count, count = _HEAD.unpack_from(mapped)
    if magic != _MAGIC or lineage != lineage_id:
        return None
    start = _HEAD.size
    middle = start + 8 * pack_count
    if len(mapped) != middle + 16 * count:
        return None
    view = memoryview(mapped)
    packs = view[start:middle].cast("Q").tolist()
    return Run(
        packs,
        view[middle : middle + 8 * count].cast("Q"),
        view[middle + 8 * count :].cast("Q"),
        path,
        mapped,
    )


def load_runs(folder: str, lineage_id: bytes) -> list[Run]:
    """Every usable run of a cache folder, largest first."""
    try:
        names = [name for name in os.listdir(folder) if name.endswith(_SUFFIX)]
    except OSError:
        return []
    runs = [load_run(os.path.join(folder, name), lineage_id) for name in names]
    return sorted((r for r in runs if r is not None), key=lambda r: -r.count)


def due_merge(runs: Sequence[Run]) -> list[Run]:
    """The runs to merge next: eight or more of one size class, or none."""
    classes: dict[int, list[Run]] = {}
    for run in runs:
        classes.setdefault(max(run.count, 1).bit_length() // 3, []).append(run)
    for level in sorted(classes):
        if len(classes[level]) >= MERGE_FACTOR:
            return classes[level]
    return []
