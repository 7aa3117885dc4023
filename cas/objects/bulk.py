"""Reading many objects: located by whole footers, read in long runs, decoded in one call a group.

Floor 3. Invariant: every content that is given hashed to its id. What cannot be had in bulk (a
recipe copy, a copy that is damaged, a pack that went away meanwhile) is given as None, and the
caller asks `ObjectStore` for it alone, which tries every copy there is. Memory is bounded by a
group of about a MiB, or by one object, and by the tables of ids. Used by one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, Queue
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from cas.errors import CasError, Corrupt, NotFound
from cas.limits import ID_BYTES, KIB, MIB
from cas.model.ids import digests_of
from cas.objects.chains import Link, Place, link_of, resolve
from cas.objects.dictionaries import Dictionaries
from cas.objects.lookup import Lookup
from cas.objects.packs import Copy, PackInfo, bit_is_set
from cas.storage.codec import DELTA, DICTIONARY, RAW, RECIPE, ZSTD, decode_frames
from cas.storage.dictionary import Dictionary
from cas.storage.pack import EDGE_BASE, Footer
from cas.storage.record import RECORD_HEADER_BYTES

_T = TypeVar("_T")

Content = Any
"""A buffer of bytes: `bytes`, `memoryview`, or what the decompressor gives."""

GROUP_BYTES: Final = 1 * MIB
GROUP_COUNT: Final = 512
_GAP_BYTES_MAX: Final = 32 * KIB
"""Bytes between two records that are cheaper read than left out."""

_TABLE_FROM: Final = 32
"""Objects that a pack has given before all its ids are taken into a table."""
_TABLE_SLOTS_MAX: Final = 1 << 17
"""Ids in all tables of one reader: about 26 MiB."""


class Found(NamedTuple):
    """One object of a group; `content` None: ask for it alone, its kind may be unknown."""

    id: bytes
    kind: int
    content: Content | None


class Source(Protocol):
    """What objects are read from: `ObjectStore`, or the parts of one."""

    @property
    def lookup(self) -> Lookup:
        """Where objects lie."""

    def find(self, id: bytes) -> Copy | None:
        """A copy of `id`."""

    def stored(self, pack: PackInfo, start: int, length: int) -> bytes:
        """Bytes of a pack, not verified."""

    @property
    def dictionaries(self) -> Dictionaries:
        """What payloads of codec 4 stand beside."""


_NOWHERE: Final = Place(PackInfo(-1, None, 0, None), 0, 0, 0, 0, -1, 0, 0)
_READABLE: Final = frozenset((RAW, ZSTD, DELTA, DICTIONARY))


class _Table:
    """All ids of one pack."""

    def __init__(self, pack: PackInfo, footer: Footer) -> None:
        self.pack = pack
        self.footer = footer
        ids = footer.ids()
        self.numbers = dict(zip(ids, range(len(ids)), strict=True))
        # What its deltas are made of, by the number of their slot.
        self.bases = {number: id for number, role, id in footer.edge_rows() if role == EDGE_BASE}


class BulkReader:
    """Reads runs of objects of one store."""

    def __init__(self, objects: Source) -> None:
        self._objects = objects
        self._tables: list[_Table] = []
        self._table_slots = 0
        self._hits: dict[int, int] = {}

    def read(self, ids: Iterable[bytes]) -> Iterator[list[Found]]:
        """The objects in the order given, group by group. Never raises for one of them."""
        group: list[bytes] = []
        places: list[Place | None] = []
        size_bytes = 0
        for id in ids:
            place = self.find(id)
            group.append(id)
            places.append(place)
            if place is not None and place.codec != RECIPE:
                size_bytes += place.raw_bytes
            if size_bytes >= GROUP_BYTES or len(group) == GROUP_COUNT:
                yield self.load(group, places)
                group, places, size_bytes = [], [], 0
        if group:
            yield self.load(group, places)

    # -- where things lie --------------------------------------------------------------------

    def find(self, id: bytes) -> Place | None:
        """Where a copy of an object lies, in the snapshot at hand; None: ask for it alone."""
        vectors = self._objects.lookup.state.vectors
        for table in self._tables:
            number = table.numbers.get(id)
            if number is not None and not bit_is_set(vectors.get(table.pack.number), number):
                return place_of(Copy(table.pack, table.footer.slot(number)))
        try:
            copy = self._objects.find(id)
            if copy is None:
                return None
            self._note(copy.pack)
        except (Corrupt, NotFound):
            return None
        return place_of(copy)

    def base_of(self, id: bytes, place: Place) -> bytes:
        """What a delta that lies there names as its base. Raises `CasError`."""
        for table in self._tables:
            if table.pack is place.pack and (base := table.bases.get(table.numbers.get(id, -1))):
                return base
        return self._objects.stored(place.pack, place.offset + RECORD_HEADER_BYTES, ID_BYTES)

    def _note(self, pack: PackInfo) -> None:
        """Count what a pack gives; one that gives much is taken into a table."""
        if pack.file is None:
            return
        hits = self._hits[pack.number] = self._hits.get(pack.number, 0) + 1
        if hits != _TABLE_FROM:
            return
        footer = self._objects.lookup.footer(pack)
        if self._table_slots + footer.count <= _TABLE_SLOTS_MAX:
            self._table_slots += footer.count
            self._tables.append(_Table(pack, footer))

    # -- reading -----------------------------------------------------------------------------

    def load(self, ids: Sequence[bytes], found: Sequence[Place | None]) -> list[Found]:
        """The objects that lie in these places, verified; the caller bounds the group."""
        places = [place or _NOWHERE for place in found]
        contents = self.fetch(places)
        deltas = [at for at, place in enumerate(places) if place.codec == DELTA]
        if deltas:
            self._resolve(ids, places, contents, deltas)
        there = [at for at, content in enumerate(contents) if content is not None]
        read: list[Any] = [contents[at] for at in there]
        digests = digests_of([places[at].kind for at in there], read)
        for at, digest in zip(there, digests, strict=True):
            if digest != ids[at]:
                contents[at] = None
        return [
            Found(id, place.kind, content)
            for id, place, content in zip(ids, places, contents, strict=True)
        ]

    def fetch(self, places: Sequence[Place]) -> list[Content | None]:
        """Contents of whole copies, payloads of deltas; None for what could not be had."""
        contents: list[Content | None] = [None] * len(places)
        framed: dict[Dictionary | None, list[int]] = {}
        for run in _runs(places):
            self._read_run(places, run, contents, framed)
        for dictionary, which in framed.items():
            frames: list[Any] = [contents[at] for at in which]
            sizes = [places[at].raw_bytes for at in which]
            if dictionary is None:
                decoded = decode_frames(frames, sizes)
            else:
                decoded = dictionary.decode_many(frames, sizes)
            for number, at in enumerate(which):
                contents[at] = None if decoded is None else decoded[number]
        return contents

    def _resolve(
        self,
        ids: Sequence[bytes],
        places: Sequence[Place],
        contents: list[Content | None],
        deltas: Sequence[int],
    ) -> None:
        """Put contents of deltas where their payloads stood; None for what needs more care."""
        wanted: dict[bytes, Link] = {}
        for at in deltas:
            link = link_of(places[at], contents[at]) if contents[at] is not None else None
            if link is not None:
                wanted[ids[at]] = link
        made = resolve(wanted, {}, self.find, self.fetch)
        for at in deltas:
            contents[at] = made.get(ids[at])

    def _read_run(
        self,
        places: Sequence[Place],
        run: list[int],
        contents: list[Content | None],
        framed: dict[Dictionary | None, list[int]],
    ) -> None:
        """Payloads of records that lie near each other, in one read."""
        first, last = places[run[0]], places[run[-1]]
        start = first.offset + RECORD_HEADER_BYTES
        stop = last.offset + RECORD_HEADER_BYTES + last.stored_bytes
        try:
            buffer = memoryview(self._objects.stored(first.pack, start, stop - start))
        except CasError:
            return
        start -= RECORD_HEADER_BYTES
        for at in run:
            pack, offset, stored, raw, _kind, codec, _depth, group = places[at]
            if codec == RAW and raw != stored:
                continue
            payload: Content = buffer[offset - start : offset - start + stored]
            if codec == ZSTD:
                framed.setdefault(None, []).append(at)
            elif codec == DICTIONARY:
                payload = bytes(payload)
                try:
                    dictionary = self._objects.dictionaries.of(pack, payload, group)
                except (Corrupt, NotFound):
                    continue
                framed.setdefault(dictionary, []).append(at)
            contents[at] = payload


def place_of(copy: Copy) -> Place:
    """Where a copy lies."""
    _id, offset, stored, raw, kind, codec, depth, _flags, group = copy.slot
    return Place(copy.pack, offset, stored, raw, kind, codec, depth, group)


def _runs(places: Sequence[Place]) -> Iterator[list[int]]:
    """Positions of places, in groups that one read can take, in the order in which they lie."""
    order = [at for at, place in enumerate(places) if place.codec in _READABLE]
    order.sort(key=lambda at: (places[at].pack.number, places[at].offset))
    run: list[int] = []
    end, pack = 0, -1
    for at in order:
        place = places[at]
        if run and (place.pack.number != pack or not 0 <= place.offset - end <= _GAP_BYTES_MAX):
            yield run
            run = []
        run.append(at)
        pack = place.pack.number
        end = place.offset + RECORD_HEADER_BYTES + place.stored_bytes
    if run:
        yield run


class _End(NamedTuple):
    """The last thing in a queue: how the items ended."""

    error: BaseException | None


class Ahead(Generic[_T]):
    """Items made on a thread of their own, up to `depth` before they are asked for.

    An error comes out where its item would have. `close` ends the thread; it must be called.
    """

    def __init__(self, items: Iterator[_T], depth: int) -> None:
        self._items = items
        self._queue: Queue[_T | _End] = Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cas-read-ahead", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                self._queue.put(item)
                if self._stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        self._queue.put(_End(error))

    def __iter__(self) -> Iterator[_T]:
        while True:
            item = self._queue.get()
            if not isinstance(item, _End):
                yield item
                continue
            if item.error is not None:
                raise item.error
            return

    def close(self) -> None:
        """End the thread; what was made and not asked for is dropped."""
        self._stopped.set()
        while self._thread.is_alive():
            with suppress(Empty):
                self._queue.get(timeout=0.01)
        self._thread.join()
