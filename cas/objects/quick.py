"""Blobs and tree nodes on the short way: index, slot, one read, one frame, one hash, few calls.

Floor 3. Invariant: what is given here was hashed and has the id that was asked for, and lay in a
copy that exists in the snapshot at hand. Everything else, from a damaged frame to a recipe, is
None: the caller asks the long way, which tries every copy, and which says what is wrong. Any
thread.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import add, sub
from typing import Final, NamedTuple

from cas.limits import DELTA_DEPTH_MAX, ID_BYTES
from cas.model.ids import blob_digests, digest_blob, digest_of, digests_of
from cas.objects.dictionaries import Dictionaries
from cas.objects.lookup import Lookup
from cas.objects.packs import PackInfo, bit_is_set
from cas.objects.plan import KINDS, ODD, Shelf
from cas.storage.bucket import Bucket, Part
from cas.storage.codec import (
    DELTA,
    DICTIONARY,
    RAW,
    SIZED_FROM,
    SIZED_HEADS,
    ZSTD,
    decode_sized,
    decode_sized_many,
    sized_head,
)
from cas.storage.delta import decode_delta
from cas.storage.dictionary import Dictionary
from cas.storage.index import prefixes_of
from cas.storage.pack import SLOT_BYTES
from cas.storage.record import COMMON_GROUP, RECORD_HEADER_BYTES, TAG_BYTES
from cas.storage.slots import SLOT

GROUP_COUNT: Final = 1024
_GROUP_BYTES: Final = 16 << 20
"""Contents of one call are not more than this, but for one that is longer."""

_THREADS: Final = 2
_THREADED_FROM: Final = 256
"""Frames that are worth a second thread: the library starts it anew in each call."""

_EVEN: Final = 1 | DICTIONARY << 8
"""Kind, codec, depth and flags of a blob beside a dictionary, as a place has them."""

_EVEN_FROM: Final = 8
"""Records of one pack that are worth being read as columns."""

_ONLY: Final = b""
"""In place of a tag: the dictionary of a pack that names no other."""

_PLACE: Final = struct.Struct("<32sIIQII")
assert _PLACE.size == SLOT_BYTES

_Place = tuple[int, int, int, int, int, int]
"""Offset of a record, whose it is in the group, stored and raw bytes, kind, codec and depth in a
number, and group.
"""

_Lot = tuple[Shelf, list[_Place]]
"""What is wanted of one pack."""

Loaded = tuple[list[int], list[bytes | None]]
"""Kinds and contents."""

_from_bytes = int.from_bytes
_slot_at = SLOT.unpack_from


class QuickReader:
    """Reads objects of one store."""

    def __init__(
        self,
        lookup: Lookup,
        bucket: Bucket,
        dictionaries: Dictionaries,
        stored: Callable[[PackInfo, int, int], bytes],
        at_hand: Callable[[bytes], bytes | None],
    ) -> None:
        self._lookup = lookup
        self._bucket = bucket
        self._dictionaries = dictionaries
        self._stored = stored
        # Contents by id that are in memory: bases of deltas.
        self._at_hand = at_hand

    def get(self, id: bytes, wanted: int = 1, depth_max: int = DELTA_DEPTH_MAX) -> bytes | None:
        """Content of a blob, or of an object of another kind that is `wanted`, from a copy of no
        more than this depth; or None.
        """
        plan, heads = self._lookup.plan or self._lookup.make_plan(), SIZED_HEADS
        if id in plan.young:
            return None
        prefix = _from_bytes(id[:8], "big")
        try:
            for keys, fences, shift, clear, mask, bounds, shelves, run in plan.views:
                sought, at = prefix & clear, prefix >> shift
                number = keys[bisect_left(keys, sought, fences[at], fences[at + 1])] - sought
                if number > mask:
                    continue
                at = bisect_right(bounds, number) - 1
                shelf = shelves[at] or plan.shelf(run, shelves, at)
                start = number = number - bounds[at]
                if shelf is None:
                    return None
                file, table, vector, beside, pack = shelf
                if not table:
                    table, start = self._lookup.slots.row(pack, number), 0
                found, offset, stored, raw, kind, codec, depth, _flags, group = _slot_at(
                    table, start * SLOT_BYTES
                )
                # This one, of the kind that is wanted, and not deleted.
                if found != id or kind != wanted or (vector and bit_is_set(vector, number)):
                    return None
                offset += RECORD_HEADER_BYTES
                if codec == DICTIONARY and group == COMMON_GROUP:
                    only = beside.get(_ONLY)
                    if only is None:
                        content = self._decoded(shelf, offset, stored, raw)
                    else:
                        # Neither tag nor the head that is replaced has to be read: a wrong
                        # dictionary shows in the hash.
                        data = self._bucket.read(file, offset + SIZED_FROM, stored - SIZED_FROM)
                        content = only.decode_frame((heads.get(raw) or sized_head(raw)) + data)
                else:
                    payload = self._bucket.read(file, offset, stored)
                    if codec == ZSTD:
                        content = decode_sized(payload, raw)
                    elif codec == RAW:
                        content = payload
                    elif codec == DELTA and 0 < depth <= depth_max:
                        base = self._base(payload, kind, depth)
                        if base is None:
                            return None
                        content = decode_delta(payload[ID_BYTES:], base, raw)
                    else:
                        return None
                digest = digest_blob(content) if kind == 1 else digest_of(kind, content)
                return content if digest == id else None
        except ODD:
            pass
        return None

    def _decoded(self, shelf: Shelf, start: int, stored: int, raw: int) -> bytes:
        """Content of a payload of the common group that begins at `start`, by its tag; notes the
        dictionary of a pack that names no other. Raises `Corrupt`, `NotFound`.
        """
        file, _table, _vector, beside, pack = shelf
        payload = self._bucket.read(file, start, stored)
        tag = payload[:TAG_BYTES]
        dictionary = beside.get(tag)
        if dictionary is None:
            beside[tag] = dictionary = self._dictionaries.of(pack, tag, COMMON_GROUP)
            if len(self._dictionaries.named(pack)) == 1:
                beside[_ONLY] = dictionary
        return dictionary.decode_sized(payload, raw)

    def has(self, id: bytes) -> bool:
        """Whether there is a copy of an object; False where that is not to be told here."""
        plan = self._lookup.plan or self._lookup.make_plan()
        if id in plan.young:
            return self._lookup.has(id)
        return plan.tells(id) is True

    def _base(self, payload: bytes, kind: int, depth: int) -> bytes | None:
        """What a delta is made of, from memory or from a copy of less depth; or None."""
        id = payload[:ID_BYTES]
        return self._at_hand(id) or self.get(id, kind, depth - 1)

    def get_many(self, ids: Sequence[bytes]) -> Iterator[Loaded]:
        """Kinds and contents of objects, in parts and in the order given; a content is None where
        it is not to be had here. For `GROUP_COUNT` ids at the most.
        """
        lots, raw_bytes = self._find(ids)
        if raw_bytes <= _GROUP_BYTES or len(ids) == 1:
            yield self._load(ids, lots)
            return
        middle = len(ids) >> 1
        yield from self.get_many(ids[:middle])
        yield from self.get_many(ids[middle:])

    def _find(self, ids: Sequence[bytes]) -> tuple[list[_Lot], int]:
        """Where the objects lie, pack by pack, as `get` finds it; and how long they are in all."""
        plan = self._lookup.plan or self._lookup.make_plan()
        prefixes = every = prefixes_of(ids)
        waiting: Sequence[int] = range(len(ids))
        lots: list[_Lot] = []
        total_bytes = 0
        place_at = _PLACE.unpack_from
        for keys, fences, shift, clear, mask, bounds, shelves, run in plan.views:
            left: list[int] = []
            of_run: dict[int, _Lot] = {}
            bare: dict[int, list[tuple[int, int]]] = {}
            numbers = _numbers(keys, fences, shift, clear, mask, prefixes)
            for at, number in zip(waiting, numbers, strict=True):
                if number > mask:
                    left.append(at)
                    continue
                which = bisect_right(bounds, number) - 1
                try:
                    lot = of_run.get(which)
                    if lot is None:
                        shelf = shelves[which] or plan.shelf(run, shelves, which)
                        if shelf is None:
                            left.append(at)
                            continue
                        lot = of_run[which] = shelf, []
                    (_file, table, vector, _beside, _pack), places = lot
                    number -= bounds[which]
                    if not table:
                        bare.setdefault(which, []).append((at, number))
                        continue
                    id, offset, stored, raw, word, group = place_at(table, number * SLOT_BYTES)
                except ODD:
                    left.append(at)
                    continue
                if id != ids[at] or (vector and bit_is_set(vector, number)):
                    left.append(at)
                    continue
                places.append((offset, at, stored, raw, word, group))
                total_bytes += raw
            for which, wanted in bare.items():
                shelf, places = of_run[which]
                places += self._places(shelf, wanted, ids)
                total_bytes += sum([place[3] for place in places])
                if len(places) < len(wanted):
                    there = {place[1] for place in places}
                    left += [at for at, _number in wanted if at not in there]
            lots += of_run.values()
            waiting = left
            prefixes = tuple([every[at] for at in left])
        # Young objects, and whatever is odd.
        for at in waiting:
            copy = self._lookup.find(ids[at])
            if copy is not None:
                pack, (_id, offset, stored, raw, kind, codec, depth, _flags, group) = copy
                place = offset, at, stored, raw, kind | codec << 8 | depth << 16, group
                lots.append((Shelf(pack.file or "", b"", None, {}, pack), [place]))
                total_bytes += raw
        return lots, total_bytes

    def _places(
        self, shelf: Shelf, wanted: Sequence[tuple[int, int]], ids: Sequence[bytes]
    ) -> list[_Place]:
        """Places in a pack whose slots are not in memory, of (whose, number of the slot); those
        that are what was asked for.
        """
        places: list[_Place] = []
        numbers = [number for _at, number in wanted]
        try:
            rows = self._lookup.slots.rows(shelf.pack, numbers)
        except ODD:
            return places
        for (at, number), row in zip(wanted, rows, strict=True):
            id, offset, stored, raw, word, group = _PLACE.unpack(row)
            if id == ids[at] and not (shelf.vector and bit_is_set(shelf.vector, number)):
                places.append((offset, at, stored, raw, word, group))
        return places

    def _load(self, ids: Sequence[bytes], lots: Sequence[_Lot]) -> Loaded:
        """What was found, read in the order in which it lies."""
        kinds = [1] * len(ids)
        numbers: list[int] = []
        found: list[bytes] = []
        frames: dict[Dictionary | None, _Frames] = {}
        if self._bucket.far:
            self._bucket.prefetch(_parts(lots))
        for shelf, places in sorted(lots, key=_pack_of):
            places.sort()
            for _offset, at, _stored, _raw, word, _group in places:
                if word & 0xFF != 1:
                    kinds[at] = word & 0xFF
            self._read(shelf, places, numbers, found, frames)
        for beside, (whole, sizes, owners) in frames.items():
            threads = _THREADS if len(whole) >= _THREADED_FROM else 1
            if beside is None:
                decoded = decode_sized_many(whole, sizes, threads)
            else:
                decoded = beside.decode_sized_many(whole, sizes, threads)
            if decoded is not None:
                numbers += owners
                found += decoded
        if kinds.count(1) == len(kinds):
            digests = blob_digests(found)
        else:
            # No hash is known of a kind that there is not: what it is has to be said elsewhere.
            digests = digests_of([kinds[at] if kinds[at] in KINDS else 1 for at in numbers], found)
        contents: list[bytes | None] = [None] * len(ids)
        for at, content, digest in zip(numbers, found, digests, strict=True):
            if digest == ids[at] and kinds[at] in KINDS:
                contents[at] = content
        return kinds, contents

    def _read(
        self,
        shelf: Shelf,
        places: Sequence[_Place],
        numbers: list[int],
        found: list[bytes],
        frames: dict[Dictionary | None, _Frames],
    ) -> None:
        """Read records of one pack: contents that lie as they are, and frames under their heads."""
        if len(places) >= _EVEN_FROM and self._read_even(shelf, places, frames):
            return
        file, _table, _vector, _beside, pack = shelf
        read, heads = self._bucket.read, SIZED_HEADS
        last: tuple[bytes, int] | None = None
        into = _Frames([], [], [])
        for offset, at, stored, raw, word, group in places:
            try:
                if file:
                    payload = read(file, offset + RECORD_HEADER_BYTES, stored)
                else:
                    payload = self._stored(pack, offset + RECORD_HEADER_BYTES, stored)
                codec = word >> 8 & 0xFF
                if codec == DICTIONARY:
                    which = payload[:TAG_BYTES], group
                    if which != last:
                        beside = self._dictionaries.of(pack, payload, group)
                        into, last = frames.setdefault(beside, _Frames([], [], [])), which
                elif codec == ZSTD:
                    into, last = frames.setdefault(None, _Frames([], [], [])), None
                else:
                    content: bytes | None = payload if codec == RAW else None
                    depth = word >> 16 & 0xFF
                    if codec == DELTA and 0 < depth <= DELTA_DEPTH_MAX:
                        base = self._base(payload, word & 0xFF, depth)
                        if base is not None:
                            content = decode_delta(payload[ID_BYTES:], base, raw)
                    if content is not None:
                        numbers.append(at)
                        found.append(content)
                    continue
                frame = (heads.get(raw) or sized_head(raw)) + payload[SIZED_FROM:]
            except ODD:
                continue
            into[0].append(frame)
            into[1].append(raw)
            into[2].append(at)

    def _read_even(
        self, shelf: Shelf, places: Sequence[_Place], frames: dict[Dictionary | None, _Frames]
    ) -> bool:
        """`_read` of blobs that all stand beside the only dictionary that a pack file names, no
        step of Python for each; False where they are others, or one of them is odd.
        """
        offsets, ats, stored, raws, words, groups = zip(*places, strict=True)
        if words.count(_EVEN) + groups.count(COMMON_GROUP) < 2 * len(places):
            return False
        file, _table, _vector, known, pack = shelf
        try:
            beside = known.get(_ONLY)
            if beside is None:
                (id,) = self._dictionaries.named(pack)
                known[_ONLY] = beside = self._dictionaries.get(id, COMMON_GROUP)
            # Neither tag nor the head that is replaced has to be read: what is wrong shows.
            payloads = self._bucket.read_all(
                file,
                [offset + RECORD_HEADER_BYTES + SIZED_FROM for offset in offsets],
                [size_bytes - SIZED_FROM for size_bytes in stored],
            )
            heads = [SIZED_HEADS.get(raw) or sized_head(raw) for raw in raws]
        except ODD:
            return False
        into = frames.setdefault(beside, _Frames([], [], []))
        into[0].extend(map(add, heads, payloads))
        into[1].extend(raws)
        into[2].extend(ats)
        return True


def _pack_of(lot: _Lot) -> int:
    return lot[0].pack.number


def _parts(lots: Sequence[_Lot]) -> list[Part]:
    """What will be read of files."""
    return [
        (shelf[0], offset + RECORD_HEADER_BYTES, stored)
        for shelf, places in lots
        if shelf[0]
        for offset, _at, stored, _raw, _word, _group in places
    ]


def _numbers(
    keys: Sequence[int],
    fences: Sequence[int],
    shift: int,
    clear: int,
    mask: int,
    prefixes: Sequence[int],
) -> Sequence[int]:
    """What is left of the entry at or behind each id when the id's part is taken away: the number
    of a slot where it is not greater than `mask`. No step of Python for each.
    """
    sought = [prefix & clear for prefix in prefixes]
    stretches = [prefix >> shift for prefix in prefixes]
    first = map(fences.__getitem__, stretches)
    behind = map(fences.__getitem__, [stretch + 1 for stretch in stretches])
    try:
        places = map(bisect_left, repeat(keys), sought, first, behind)
        return list(map(sub, map(keys.__getitem__, places), sought))
    except (IndexError, ValueError):
        # Behind the last entry of a long run, or damaged: each is asked for alone.
        return [mask + 1] * len(prefixes)


class _Frames(NamedTuple):
    """What is decoded in one call: frames, bytes of the contents, and whose they are."""

    frames: list[bytes]
    sizes: list[int]
    owners: list[int]
