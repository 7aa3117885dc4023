"""Records: one stored copy of an object, with enough in front of it to be found by a scan.

Floor 2; implements docs/format.md section 6.2. Invariant: the 28 bytes before a payload say
what the footer's slot says; fsck compares them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import add
from typing import Final, NamedTuple

from cas.errors import CorruptPack
from cas.limits import DELTA_BYTES_MAX, DELTA_DEPTH_MAX, ID_BYTES, STRUCTURED_BYTES_MAX
from cas.model.ids import Kind
from cas.storage.codec import DELTA, DICTIONARY, RAW, RECIPE

MAGIC: Final = b"\xcaSR1"
STRUCTURED: Final = 1
"""Flag: the payload names other objects."""

_FIELDS = struct.Struct("<4sBBBBIIQ")
_CRC = struct.Struct("<I")
put_fields: Final = _FIELDS.pack
put_crc: Final = _CRC.pack
"""A record's header in two steps, for who makes few of them: `encode_record_header` in place."""
RECORD_HEADER_BYTES: Final = _FIELDS.size + _CRC.size
TAG_BYTES: Final = 4
"""How much of the id of its dictionary a payload of codec 4 begins with."""
RECIPE_PAYLOAD_BYTES: Final = 2 * ID_BYTES

DELTA_KINDS: Final = frozenset((int(Kind.BLOB), int(Kind.TREE), int(Kind.REFS)))
"""What may be a delta: contents of which there are versions."""

NO_GROUP: Final = 0
COMMON_GROUP: Final = 1
"""Compression groups: none, and that of a store that keeps no secrets from itself."""

assert RECORD_HEADER_BYTES == 28


class RecordHeader(NamedTuple):
    """What stands in front of a payload. Lengths are bytes."""

    kind: int
    codec: int
    depth: int
    flags: int
    group: int
    stored_bytes: int
    raw_bytes: int


def encode_record_header(
    kind: int, codec: int, depth: int, group: int, stored_bytes: int, raw_bytes: int
) -> bytes:
    """The 28 bytes before a payload."""
    flags = 0 if kind == 1 else STRUCTURED  # Kind.BLOB; its name costs as much as the rest
    fields = _FIELDS.pack(MAGIC, kind, codec, depth, flags, group, stored_bytes, raw_bytes)
    return fields + _CRC.pack(zlib.crc32(fields))


def encode_record_headers(
    kinds: Sequence[int],
    codecs: Sequence[int],
    depths: Sequence[int],
    groups: Iterable[int],
    stored_bytes: Sequence[int],
    raw_bytes: Sequence[int],
) -> Iterable[bytes]:
    """`encode_record_header` of many, without a step of Python for each."""
    flags = [kind != 1 for kind in kinds]
    fields = list(
        map(
            _FIELDS.pack,
            repeat(MAGIC),
            kinds,
            codecs,
            depths,
            flags,
            groups,
            stored_bytes,
            raw_bytes,
        )
    )
    return map(add, fields, map(_CRC.pack, map(zlib.crc32, fields)))


def decode_record_header(data: bytes, offset: int, pack: str) -> RecordHeader:
    """The header at `offset` of `data`. Raises `CorruptPack`."""
    fields = data[offset : offset + _FIELDS.size]
    tail = data[offset + _FIELDS.size : offset + RECORD_HEADER_BYTES]
    if len(tail) != _CRC.size or _CRC.unpack(tail)[0] != zlib.crc32(fields):
        raise CorruptPack(f"A record header of {pack} is damaged.", pack=pack, offset=offset)
    magic, kind, codec, depth, flags, group, stored, raw = _FIELDS.unpack(fields)
    header = RecordHeader(kind, codec, depth, flags, group, stored, raw)
    if magic != MAGIC:
        raise CorruptPack(f"A record of {pack} has no magic.", pack=pack, offset=offset)
    check_record(header, pack, offset)
    return header


def check_record(header: RecordHeader, pack: str, offset: int) -> None:
    """Refuse what no writer makes. Raises `CorruptPack`."""
    kind, codec, depth, flags, group, stored, raw = header
    fault = None
    if not Kind.BLOB <= kind <= Kind.SEGMENT:
        fault = f"the unknown kind {kind}"
    elif codec > DICTIONARY:
        fault = f"the unknown codec {codec}"
    elif depth > DELTA_DEPTH_MAX or (depth > 0) != (codec == DELTA):
        fault = f"depth {depth} with codec {codec}"
    elif flags != (0 if kind == Kind.BLOB else STRUCTURED):
        fault = f"flags {flags} with kind {kind}"
    elif codec == DELTA and (kind not in DELTA_KINDS or group == NO_GROUP):
        fault = f"a delta of kind {kind} in group {group}"
    elif codec == DELTA and (stored <= ID_BYTES or not 0 < raw <= DELTA_BYTES_MAX):
        fault = f"a delta of {raw} bytes in {stored}"
    elif codec == RECIPE and (kind != Kind.BLOB or stored != RECIPE_PAYLOAD_BYTES):
        fault = "a recipe payload that is none"
    elif codec == DICTIONARY and (group == NO_GROUP or stored <= TAG_BYTES or raw == 0):
        fault = f"{raw} bytes in {stored} beside a dictionary, in group {group}"
    elif codec != RECIPE and max(raw, stored) > STRUCTURED_BYTES_MAX:
        fault = f"{max(raw, stored)} bytes in one record"
    elif codec == RAW and raw != stored:
        fault = "two lengths for raw content"
    if fault:
        raise CorruptPack(f"A record of {pack} has {fault}.", pack=pack, offset=offset)
