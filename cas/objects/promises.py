"""What a put promises of content that was there already: it stays for a while, from now on.

Floor 3; implements docs/design/001, "loose put". Invariant: an acknowledged put is newer than
every mark that began before it, or lies in a pack so young that no run takes it: where the only
copies that were found are older, or a run of gc is at work, another copy is written. A blob that
is stored by recipe is copied as its recipe, which keeps its chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from cas.catalog.catalog import Catalog
from cas.clock import Clock
from cas.errors import Corrupt
from cas.limits import GC_GRACE_US
from cas.objects.lookup import Lookup
from cas.objects.packs import Copy, PackInfo
from cas.storage.codec import DELTA, DICTIONARY, encode_payload
from cas.storage.header import PACK_HEADER_BYTES, decode_header
from cas.storage.pack import (
    Record,
)

MARKING: Final = "marking"
"""Cursor: what the run of gc holds that is at work, 0 where none is."""

_YOUNG_US: Final = GC_GRACE_US // 2


class Source(Protocol):
    """What is needed of an `ObjectStore`."""

    catalog: Catalog
    clock: Clock
    lookup: Lookup

    def stored(self, pack: PackInfo, start: int, length: int) -> bytes:
        """Bytes of a pack, not verified."""

    def payload(self, copy: Copy) -> bytes:
        """Stored bytes of one copy, not verified."""

    def read(self, id: bytes) -> tuple[int, bytes]:
        """Kind and content, verified."""


def stale_copies(objects: Source, ids: Iterable[bytes]) -> Iterator[Record]:
    """A further copy of each object that has none young enough to keep a promise made now."""
    ids = list(ids)
    if not ids:
        return
    running = _gc_runs(objects.catalog)
    now_us = objects.clock.wall_us()
    births: dict[int, int] = {}
    for id in ids:
        copies = list(objects.lookup.copies(id))
        if not running and any(_is_young(objects, copy.pack, births, now_us) for copy in copies):
            continue
        yield _record(objects, id, copies)


def _gc_runs(catalog: Catalog) -> bool:
    with catalog.read() as reader:
        number = reader.cursor(MARKING) or 0
    return bool(number) and catalog.is_held(number) is not False


def _is_young(objects: Source, pack: PackInfo, births: dict[int, int], now_us: int) -> bool:
    birth_us = births.get(pack.number)
    if birth_us is None:
        try:
            header = decode_header(objects.stored(pack, 0, PACK_HEADER_BYTES), pack.label)
        except Corrupt:
            return False
        birth_us = births[pack.number] = header.birth_us
    return 0 <= now_us - birth_us < _YOUNG_US


def _record(objects: Source, id: bytes, copies: list[Copy]) -> Record:
    """The object as a copy that needs no base and no dictionary: the pack that it goes to names
    none.
    """
    for copy in copies:
        slot = copy.slot
        if slot.codec not in (DELTA, DICTIONARY):
            try:
                return id, slot.kind, slot.codec, objects.payload(copy), slot.raw_bytes
            except Corrupt:
                continue
    kind, content = objects.read(id)
    codec, payload = encode_payload(content)
    return id, kind, codec, payload, len(content)
