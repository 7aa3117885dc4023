"""The header of a pack: who wrote it, for which store.

Floor 2; implements docs/format.md section 6.1. Invariant: what a reader does not know is newer,
not damaged: version and suite are judged before the bytes that are zero in version 1.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from cas.errors import CorruptPack, NewerFormat
from cas.model.objects import check_time
from cas.model.values import frozen

FORMAT_VERSION: Final = 1
SUITE_PLAIN: Final = 0
HEADER_MAGIC: Final = b"casPACK\n"

_HEADER = struct.Struct("<8sHHI16s16s16sQI")
_HEADER_CRC = struct.Struct("<I")
_BIRTH = struct.Struct("<QI")

PACK_HEADER_BYTES: Final = _HEADER.size + _HEADER_CRC.size

assert PACK_HEADER_BYTES == 80


@frozen
class PackHeader:
    """Who wrote a pack, for which store. `birth_us` is the newest put of its content."""

    store_id: bytes
    lineage_id: bytes
    session_id: bytes
    birth_us: int

    def encode(self) -> bytes:
        """80 bytes. Raises `Invalid`."""
        check_time(self.birth_us)
        fields = _HEADER.pack(
            HEADER_MAGIC,
            FORMAT_VERSION,
            SUITE_PLAIN,
            0,
            self.store_id,
            self.lineage_id,
            self.session_id,
            self.birth_us,
            0,
        )
        return fields + _HEADER_CRC.pack(zlib.crc32(fields))


class Letterhead:
    """Headers of the packs of one writer, which differ in their time alone: a commit makes one."""

    __slots__ = ("_crc", "_start")

    def __init__(self, store_id: bytes, lineage_id: bytes, session_id: bytes) -> None:
        fields = PackHeader(store_id, lineage_id, session_id, 0).encode()
        self._start = fields[: -_BIRTH.size - _HEADER_CRC.size]
        self._crc = zlib.crc32(self._start)

    def encode(self, birth_us: int) -> bytes:
        """What `PackHeader.encode` gives. Raises `Invalid`."""
        fields = _BIRTH.pack(check_time(birth_us), 0)
        return self._start + fields + _HEADER_CRC.pack(zlib.crc32(fields, self._crc))


def decode_header(data: bytes, pack: str) -> PackHeader:
    """The header of a pack. Raises `CorruptPack`, `NewerFormat`."""
    fields = data[: _HEADER.size]
    tail = data[_HEADER.size : PACK_HEADER_BYTES]
    if len(tail) != _HEADER_CRC.size or _HEADER_CRC.unpack(tail)[0] != zlib.crc32(fields):
        raise CorruptPack(f"The header of {pack} is damaged.", pack=pack, offset=0)
    magic, version, suite, zero, store, lineage, session, birth, zero2 = _HEADER.unpack(fields)
    if magic != HEADER_MAGIC:
        raise CorruptPack(f"{pack} is not a pack.", pack=pack, offset=0)
    # Before the zeros: a newer version may have put something there.
    if version != FORMAT_VERSION or suite != SUITE_PLAIN:
        raise NewerFormat(
            f"{pack} has format {version}, suite {suite}; this version reads format "
            f"{FORMAT_VERSION}, suite {SUITE_PLAIN}. Install a newer version.",
            needs=version,
            known=FORMAT_VERSION,
        )
    if zero or zero2:
        raise CorruptPack(f"The header of {pack} is damaged.", pack=pack, offset=0)
    return PackHeader(store, lineage, session, birth)
