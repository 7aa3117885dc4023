"""Find records where a pack has no footer to tell: by their magic and checksum.

Floor 5; implements the last paragraph of docs/format.md section 6.2. Invariant: what lies
between the records that are given is no record, whatever is damaged before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from cas.errors import Corrupt
from cas.limits import ID_BYTES
from cas.model.ids import digest_of
from cas.objects.dictionaries import Dictionaries
from cas.storage.codec import DICTIONARY, RECIPE, decode_payload
from cas.storage.header import PACK_HEADER_BYTES
from cas.storage.record import MAGIC, RECORD_HEADER_BYTES, RecordHeader, decode_record_header

_WINDOW_BYTES: Final = 1 << 20

Read = Callable[[int, int], bytes]
"""Bytes of a pack: (start, length) -> exactly so many."""


def scan_records(read: Read, end: int, pack: str) -> Iterator[tuple[int, RecordHeader]]:
    """(offset, header) of every record of a pack up to byte `end`, ascending.

    Raises what `read` raises.
    """
    at = PACK_HEADER_BYTES
    while at + RECORD_HEADER_BYTES <= end:
        try:
            header = decode_record_header(read(at, RECORD_HEADER_BYTES), 0, pack)
            fits = at + RECORD_HEADER_BYTES + header.stored_bytes <= end
        except Corrupt:
            fits = False
        if fits:
            yield at, header
            at += RECORD_HEADER_BYTES + header.stored_bytes
        else:
            at = _next_magic(read, at + 1, end)


def _next_magic(read: Read, start: int, end: int) -> int:
    """Where the next magic begins, or `end`."""
    while start < end:
        window = read(start, min(_WINDOW_BYTES, end - start))
        found = window.find(MAGIC)
        if found >= 0:
            return start + found
        # A magic may lie across two windows.
        start += max(len(window) - len(MAGIC) + 1, 1)
    return end


def id_of_record(
    header: RecordHeader, payload: bytes, dictionaries: Dictionaries | None = None
) -> bytes | None:
    """Id of the object that a record holds; None when it does not decode on its own, or beside a
    dictionary that is at hand. Of several that begin alike the first that gives content counts.
    """
    if header.codec == RECIPE:
        return payload[:ID_BYTES]
    try:
        if header.codec == DICTIONARY:
            like = [] if dictionaries is None else dictionaries.like(payload, header.group)
            for dictionary in like:
                with suppress(Corrupt):
                    return digest_of(header.kind, dictionary.decode(payload, header.raw_bytes))
            return None
        return digest_of(header.kind, decode_payload(header.codec, payload, header.raw_bytes))
    except Corrupt:
        return None
