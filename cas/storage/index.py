"""The look-up index over sealed pack files: sorted runs of 8 bytes an entry, memory-mapped.

Floor 2. Invariant: the index is a cache. It maps the first bits of an id to candidates
(pack, slot); whoever asks compares the full id in the footer, so a stale or damaged run can
cost time but never give a wrong object. A miss is believed only from runs whose digest was
checked (`Run.is_whole`) and whose packs are named as the catalog names them.

A run covers a set of packs, whose slots are numbered through. An entry is one number of 64 bits:
in front as many bits of the id as there is room for, behind them the number of the slot. Entries
stand ascending, and fences say where each stretch of them begins, so that a look-up touches one
stretch however long the run is.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from cas.model.ids import blob_hasher, body_hasher
from cas.storage.pack import Footer
from cas.storage.slots import beginnings

_MAGIC: Final = b"casIDX2" + (b"<" if sys.byteorder == "little" else b">")
_HEAD = struct.Struct("<8s16sQQB")
_BODY_AT: Final = _HEAD.size + 32
_PACK = struct.Struct("=QQ16s")
_SUFFIX: Final = ".run"

TOP: Final = (1 << 64) - 1
_PLACE_BITS_MAX: Final = 36
"""More slots than this says are in no run that a writer made."""

_STRETCH_BITS: Final = 3
"""Entries between two fences, as a power of two: 8, half a byte of fences for each entry."""


_THREADED_BYTES: Final = 8 << 20
"""A shorter run is hashed by one thread: to start more takes longer."""

_COPIED_MAX: Final = 1 << 18
"""Entries of a run that are searched in memory, 2 MiB: an array is quicker than what is mapped."""


class Search(NamedTuple):
    """How a run is searched, for those who do it in their own loop.

    `keys` end with one that is above all others, or with none where the run is long. `clear` takes
    the bits of an entry away that number its slot, `mask` is the greatest number they say, and
    `shift` leaves the bits of an id that choose a stretch. Slots of pack n begin at `bounds[n]`.
    """

    keys: Sequence[int]
    fences: Sequence[int]
    shift: int
    clear: int
    mask: int
    bounds: Sequence[int]


class Run:
    """Sorted beginnings of ids, and where each may lie. Read-only; any thread.

    `packs` are numbers of packs, `names` the names (16 bytes) of their files, `slots` how many
    slots each has; `keys` the entries, of whose bits the last `bits` number the slot.
    """

    __slots__ = (
        "_bounds",
        "_fences",
        "_map",
        "_shift",
        "_whole",
        "bits",
        "count",
        "keys",
        "names",
        "packs",
        "path",
        "slots",
    )

    def __init__(
        self,
        packs: Sequence[int],
        names: Sequence[bytes],
        slots: Sequence[int],
        keys: Sequence[int],
        bits: int,
        fences: Sequence[int] | None = None,
        path: str | None = None,
        mapped: mmap.mmap | None = None,
    ) -> None:
        self.packs = tuple(packs)
        self.names = tuple(names)
        self.slots = tuple(slots)
        self.count = len(keys)
        self.keys = keys
        # Number of the first slot of each pack, and of the one behind the last.
        self._bounds = [0, *accumulate(slots)]
        self.bits = bits
        self._fences = fences_of(keys) if fences is None else fences
        self._shift = 64 - fence_bits(self.count)
        self._map = mapped
        self._whole = mapped is None
        self.path = path

    def is_whole(self) -> bool:
        """Whether the run is what was written: its digest is checked once, 8 bytes an entry."""
        if not self._whole and self._map is not None:
            with memoryview(self._map) as view:
                hasher = blob_hasher() if len(view) > _THREADED_BYTES else body_hasher()
                hasher.update(view[_BODY_AT:])
                hasher.update(view[: _HEAD.size])
                self._whole = hasher.digest() == bytes(view[_HEAD.size : _BODY_AT])
        return self._whole

    def search(self) -> Search:
        """What `find` works with."""
        keys, fences = self.keys, self._fences
        if self.count <= _COPIED_MAX:
            keys = copied("Q", keys)
            keys.append(TOP)
            fences = copied("I", fences)
        mask = (1 << self.bits) - 1
        return Search(keys, fences, self._shift, TOP ^ mask, mask, self._bounds)

    def find(self, prefix: int) -> Sequence[tuple[int, int]]:
        """(pack, slot) of every entry with this prefix; nearly always none or one."""
        keys, bits, fences = self.keys, self.bits, self._fences
        stretch = prefix >> self._shift
        sought = prefix >> bits << bits
        try:
            at = bisect_left(keys, sought, fences[stretch], fences[stretch + 1])
            number = keys[at] - sought
            if number >> bits:
                return ()
            if at + 1 < self.count and not keys[at + 1] - sought >> bits:
                return self._places(at, sought, 0)
        except (IndexError, ValueError):
            # Behind the last entry; or the fences are damaged, and this is no answer to believe.
            return ()
        bounds = self._bounds
        pack = bisect_right(bounds, number) - 1
        if pack == len(self.packs):
            return ()
        return ((self.packs[pack], number - bounds[pack]),)

    def among(self, prefixes: Iterable[int]) -> set[int]:
        """Those of `prefixes` of which `find` may give a place, in one go."""
        keys, shift, fences, find = self.keys, self._shift, self._fences, bisect_left
        mask = (1 << self.bits) - 1
        clear = TOP ^ mask
        try:
            return {
                p
                for p in prefixes
                if keys[find(keys, (q := p & clear), fences[(at := p >> shift)], fences[at + 1])]
                <= q | mask
            }
        except (IndexError, ValueError):
            # One is behind the last entry, or fences are damaged: each has its own answer.
            return {prefix for prefix in prefixes if self.find(prefix)}

    def find_range(self, low: int, high: int) -> Iterable[tuple[int, int]]:
        """(pack, slot) of every entry with a prefix from `low` to `high`, both included, and
        perhaps of some that begin like these: an entry holds no whole prefix.
        """
        sought = low >> self.bits << self.bits
        return self._places(bisect_left(self.keys, sought), sought, high - sought)

    def _places(self, at: int, sought: int, width: int) -> list[tuple[int, int]]:
        """Places of the entries from `at` on that lie within `width` of `sought`."""
        keys, bits = self.keys, self.bits
        width >>= bits
        found = []
        while at < self.count and 0 <= keys[at] - sought >> bits <= width:
            found += self._places_at(at)
            at += 1
        return found

    def _places_at(self, at: int) -> list[tuple[int, int]]:
        """The place of one entry; none if a damaged run numbers a slot that it does not cover."""
        bounds = self._bounds
        number = self.keys[at] & (1 << self.bits) - 1
        if number >= bounds[-1]:
            return []
        pack = bisect_right(bounds, number) - 1
        return [(self.packs[pack], number - bounds[pack])]

    def parts(self) -> Iterable[Sequence[int]]:
        """The entries, in parts as `Merge.parts` gives them."""
        return (self.keys,)

    @property
    def memory_bytes(self) -> int:
        """Bytes of entries and fences, in memory or in a file."""
        return 8 * self.count + 4 * len(self._fences)

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """(first bits of the prefix, pack, slot), ascending."""
        for at in range(self.count):
            prefix = self.keys[at] >> self.bits << self.bits
            for pack, slot in self._places_at(at):
                yield prefix, pack, slot


def copied(code: str, numbers: Sequence[int]) -> array[int]:
    """Numbers of an array, or of a mapped one, in another array."""
    found = array(code)
    found.frombytes(memoryview(numbers).cast("B"))  # type: ignore[arg-type]
    return found


def prefix_of(id: bytes) -> int:
    """What a run is sorted by."""
    return int.from_bytes(id[:8], "big")


def prefixes_of(ids: Sequence[bytes]) -> tuple[int, ...]:
    """`prefix_of` each."""
    return struct.unpack(f">{len(ids)}Q", b"".join([id[:8] for id in ids]))


def place_bits(slots: Iterable[int]) -> int:
    """Bits of an entry that number a slot."""
    return max(1, sum(slots).bit_length())


def fence_bits(count: int) -> int:
    """Bits of an id that choose a stretch."""
    return max(0, (count >> _STRETCH_BITS).bit_length() - 1)


def fences_of(keys: Sequence[int]) -> array[int]:
    """Where each stretch begins, and where the last one ends."""
    count, bits = len(keys), fence_bits(len(keys))
    fences = array("I", bytes(4 * ((1 << bits) + 1)))
    at, shift = 0, 64 - bits
    for stretch in range(1, 1 << bits):
        # Ids are spread evenly, so that the next fence is near; damaged keys are as they are.
        sought = stretch << shift
        near = min(count, at + (8 << _STRETCH_BITS))
        if near < count and keys[near] < sought:
            near = count
        fences[stretch] = at = bisect_left(keys, sought, at, near)
    fences[1 << bits] = count
    return fences


def keys_of(prefixes: Sequence[int], bits: int) -> array[int]:
    """The entries of one pack, from the first 8 bytes of its ids in the order of its slots: all of
    them as one long number, without a step of Python for each.
    """
    count, order = len(prefixes), sys.byteorder
    whole = int.from_bytes(array("Q", prefixes).tobytes(), order)
    whole &= int.from_bytes((TOP >> bits << bits).to_bytes(8, order) * count, order)
    whole |= int.from_bytes(array("Q", range(count)).tobytes(), order)
    keys = array("Q")
    keys.frombytes(whole.to_bytes(8 * count, order))
    return keys


def run_of(number: int, name: bytes, footer: Footer) -> Run:
    """The run of one pack; its footer is sorted already."""
    bits = place_bits([footer.count])
    keys = keys_of(beginnings(footer.table), bits)
    return Run([number], [name], [footer.count], keys, bits)


# -- files -----------------------------------------------------------------------------------


class Parts(Protocol):
    """What makes a run: packs and entries."""

    @property
    def packs(self) -> Sequence[int]:
        """Numbers of the packs."""

    @property
    def names(self) -> Sequence[bytes]:
        """Names of their files."""

    @property
    def slots(self) -> Sequence[int]:
        """How many slots each has."""

    @property
    def bits(self) -> int:
        """Bits of an entry that number the slot."""

    def parts(self) -> Iterable[Sequence[int]]:
        """The entries, ascending."""


def save_run(run: Run, folder: str, name: str, lineage_id: bytes) -> Run:
    """Write a run to the cache folder and map it; the run itself when that is impossible."""
    return write_run(run, folder, name, lineage_id) or run


def write_run(run: Parts, folder: str, name: str, lineage_id: bytes) -> Run | None:
    """`save_run`, of entries that come in parts; None where nothing can be written."""
    path = os.path.join(folder, name + _SUFFIX)
    temporary = path + ".tmp"
    hasher, count = blob_hasher(), 0
    packs = zip(run.packs, run.slots, run.names, strict=True)
    table = b"".join([_PACK.pack(*pack) for pack in packs])
    try:
        with open(temporary, "x+b") as file:
            file.write(bytes(_BODY_AT))
            file.write(table)
            hasher.update(table)
            for part in run.parts():
                data = memoryview(part).cast("B")  # type: ignore[arg-type]
                file.write(data)
                hasher.update(data)
                count += len(part)
            file.flush()
            fences = _fences_in(file.fileno(), _BODY_AT + len(table), count)
            file.write(fences)
            hasher.update(fences)
            head = _HEAD.pack(_MAGIC, lineage_id, len(run.packs), count, run.bits)
            hasher.update(head)
            file.seek(0)
            file.write(head + hasher.digest())
        os.rename(temporary, path)
        return load_run(path, lineage_id)
    except OSError:
        # A cache that cannot be written (read-only folder, full disk) is done without.
        return None


def _fences_in(fd: int, start: int, count: int) -> bytes:
    """Fences of entries that were written to a file."""
    if not count:
        return fences_of(()).tobytes()
    with (
        mmap.mmap(fd, start + 8 * count, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped)[start:] as view,
        view.cast("Q") as keys,
    ):
        return fences_of(keys).tobytes()


def load_run(path: str, lineage_id: bytes) -> Run | None:
    """Map a run; None when it is not one of this lineage, or is cut."""
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    if len(mapped) < _BODY_AT:
        return None
    magic, lineage, pack_count, count, bits = _HEAD.unpack_from(mapped)
    if magic != _MAGIC or lineage != lineage_id:
        return None
    keys_at = _BODY_AT + _PACK.size * pack_count
    fences_at = keys_at + 8 * count
    if len(mapped) != fences_at + 4 * ((1 << fence_bits(count)) + 1):
        return None
    view = memoryview(mapped)
    packs = list(_PACK.iter_unpack(view[_BODY_AT:keys_at]))
    if bits > _PLACE_BITS_MAX or sum(pack[1] for pack in packs) >> bits:
        return None
    return Run(
        [pack[0] for pack in packs],
        [pack[2] for pack in packs],
        [pack[1] for pack in packs],
        view[keys_at:fences_at].cast("Q"),
        bits,
        view[fences_at:].cast("I"),
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
