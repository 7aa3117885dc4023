"""The look-up index over sealed pack files: sorted runs of 16 bytes an entry, memory-mapped.

Floor 2. Invariant: the index is a cache. It maps the first 8 bytes of an id to candidates
(pack, slot); whoever asks compares the full id in the footer, so a stale or damaged run can
cost time but never give a wrong object. A miss is believed only from runs whose digest was
checked (`Run.is_whole`) and whose packs are named as the catalog names them.

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

from cas.model.ids import digest_blob
from cas.storage.pack import Footer

MERGE_FACTOR: Final = 8
_MAGIC: Final = b"casIDX1" + (b"<" if sys.byteorder == "little" else b">")
_HEAD = struct.Struct("<8s16sQQ32s")
_NAME_BYTES: Final = 16
_SUFFIX: Final = ".run"


class Run:
    """Sorted prefixes of ids, and where each may lie. Read-only; any thread.

    `packs` are numbers of packs, `names` the names (16 bytes) of their files.
    """

    __slots__ = ("_map", "_places", "_prefixes", "_whole", "count", "names", "packs", "path")

    def __init__(
        self,
        packs: Sequence[int],
        names: Sequence[bytes],
        prefixes: Sequence[int],
        places: Sequence[int],
        path: str | None = None,
        mapped: mmap.mmap | None = None,
    ) -> None:
        self.packs = tuple(packs)
        self.names = tuple(names)
        self.count = len(prefixes)
        self._prefixes = prefixes
        self._places = places
        self._map = mapped
        self._whole = mapped is None
        self.path = path

    def is_whole(self) -> bool:
        """Whether the run is what was written: its digest is checked once, 16 bytes an entry."""
        if not self._whole and self._map is not None:
            digest = _HEAD.unpack_from(self._map)[4]
            with memoryview(self._map) as view:
                self._whole = digest_blob(view[_HEAD.size :]) == digest
        return self._whole

    def find(self, prefix: int) -> Sequence[tuple[int, int]]:
        """(pack, slot) of every entry with this prefix; nearly always none or one."""
        prefixes = self._prefixes
        at = bisect_left(prefixes, prefix)
        if at == self.count or prefixes[at] != prefix:
            return ()
        found = []
        while at < self.count and prefixes[at] == prefix:
            place = self._places[at]
            # A damaged run may name a pack that it does not cover.
            if place >> 32 < len(self.packs):
                found.append((self.packs[place >> 32], place & 0xFFFFFFFF))
            at += 1
        return found

    def find_range(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """(pack, slot) of every entry with a prefix from `low` to `high`, both included."""
        at = bisect_left(self._prefixes, low)
        while at < self.count and self._prefixes[at] <= high:
            place = self._places[at]
            if place >> 32 < len(self.packs):
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


def run_of(number: int, name: bytes, footer: Footer) -> Run:
    """The run of one pack; its footer is sorted already."""
    prefixes = array("Q")
    prefixes.frombytes(b"".join([id[:8] for id in footer.ids()]))
    if sys.byteorder == "little":
        prefixes.byteswap()
    return Run([number], [name], prefixes, array("Q", range(footer.count)))


def merge_runs(runs: Sequence[Run], live: Iterable[int]) -> Run:
    """One run of the entries whose pack is in `live`."""
    alive = set(live)
    named = {
        number: name
        for run in runs
        for number, name in zip(run.packs, run.names, strict=True)
        if number in alive
    }
    packs = sorted(named)
    position = {number: i << 32 for i, number in enumerate(packs)}
    # Concatenated sorted runs: Python's sort finds them and merges in linear time.
    rows = [
        (prefix, position[pack] | slot)
        for run in runs
        for prefix, pack, slot in run.entries()
        if pack in alive
    ]
    rows.sort()
    return Run(
        packs,
        [named[number] for number in packs],
        array("Q", [row[0] for row in rows]),
        array("Q", [row[1] for row in rows]),
    )


def save_run(run: Run, folder: str, name: str, lineage_id: bytes) -> Run:
    """Write a run to the cache folder and map it; the run itself when that is impossible."""
    path = os.path.join(folder, name + _SUFFIX)
    temporary = path + ".tmp"
    body = b"".join(
        (
            array("Q", run.packs).tobytes(),
            *run.names,
            bytes(memoryview(run._prefixes).cast("B")),  # type: ignore[arg-type]
            bytes(memoryview(run._places).cast("B")),  # type: ignore[arg-type]
        )
    )
    head = _HEAD.pack(_MAGIC, lineage_id, len(run.packs), run.count, digest_blob(body))
    try:
        with open(temporary, "xb") as file:
            file.write(head)
            file.write(body)
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
    magic, lineage, pack_count, count, _digest = _HEAD.unpack_from(mapped)
    if magic != _MAGIC or lineage != lineage_id:
        return None
    names_at = _HEAD.size + 8 * pack_count
    prefixes_at = names_at + _NAME_BYTES * pack_count
    places_at = prefixes_at + 8 * count
    if len(mapped) != places_at + 8 * count:
        return None
    view = memoryview(mapped)
    return Run(
        view[_HEAD.size : names_at].cast("Q").tolist(),
        [bytes(view[at : at + _NAME_BYTES]) for at in range(names_at, prefixes_at, _NAME_BYTES)],
        view[prefixes_at:places_at].cast("Q"),
        view[places_at:].cast("Q"),
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
    """The runs to merge next: eight or more of one size class, or none.

    A damaged run is never one of them: what is merged gets a digest of its own, and would be
    believed when it says no.
    """
    classes: dict[int, list[Run]] = {}
    for run in runs:
        classes.setdefault(max(run.count, 1).bit_length() // 3, []).append(run)
    for level in sorted(classes):
        if len(classes[level]) >= MERGE_FACTOR:
            whole = [run for run in classes[level] if run.is_whole()]
            if len(whole) >= MERGE_FACTOR:
                return whole
    return []
