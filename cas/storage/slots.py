"""Tables of slots as bytes: what is done to all of them at once, none of them decoded.

Floor 2; implements docs/format.md section 6.3 (slots). Invariant: a table that is moved says of
every record what it said before, but for where it lies.
"""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import compress
from operator import add, ne
from typing import Final

from cas.errors import LimitExceeded
from cas.limits import ID_BYTES, PACK_BYTES_MAX

SLOT: Final = struct.Struct("<32sIIQBBBBI")
_OFFSET_BYTES: Final = 4
_KIND_AT: Final = 48
_CODEC_AT: Final = 49
_DEPTH_AT: Final = 50
_FLAGS_AT: Final = 51
_OFFSET_WORD: Final = 8
_STORED_WORD: Final = 9
_RAW_WORD: Final = 10
_OFFSET_TOP_AT: Final = 35
_OFFSET_END: Final = 1 << 32


_FLAGS_OF: Final = bytes(kind != 1 for kind in range(256))
"""What the flags of a kind are: all but blobs are structured."""


def _words(table: bytes) -> array[int]:
    words = array("I", table)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def stored_lengths(table: bytes) -> array[int]:
    """The stored length that each slot states."""
    return _words(table)[_STORED_WORD :: SLOT.size // 4]


def are_plain(table: bytes, first: int, room_end: int, *, kind_max: int, bytes_max: int) -> bool:
    """Whether every slot is of a copy that is whole by itself (codec 0 or 1), and states nothing
    that a writer could not: kinds up to `kind_max`, no more than `bytes_max`, a place between
    offset `first` and `room_end` for its payload.

    False says that one of them has to be looked at alone, and not that it is wrong.
    """
    if not table:
        return True
    kinds, codecs = table[_KIND_AT :: SLOT.size], table[_CODEC_AT :: SLOT.size]
    if max(codecs) > 1 or max(kinds) > kind_max or not min(kinds):
        return False
    if any(table[_DEPTH_AT :: SLOT.size]):
        return False
    if table[_FLAGS_AT :: SLOT.size] != kinds.translate(_FLAGS_OF):
        return False
    words, step = _words(table), SLOT.size // 4
    offsets, stored = words[_OFFSET_WORD::step], words[_STORED_WORD::step]
    raw = words[_RAW_WORD::step]
    if any(words[_RAW_WORD + 1 :: step]) or max(raw) > bytes_max or max(stored) > bytes_max:
        return False
    # What is stored as it is has one length.
    if not all(compress(codecs, map(ne, stored, raw))):
        return False
    return min(offsets) >= first and max(map(add, offsets, stored)) <= room_end


def shifted(table: bytes, by: int) -> list[bytes]:
    """Each slot, its offset `by` bytes further on. Raises `LimitExceeded` where that is too far.

    The table is one long number, and what is added to it another: moving a thousand slots takes
    as long as unpacking three of them.
    """
    if not table:
        return []
    after = bytes(SLOT.size - ID_BYTES - _OFFSET_BYTES)
    # A sum that does not fit its four bytes would run over into the length behind them. The
    # uppermost byte of each offset says enough: a pack is far from that long.
    bound = max(table[_OFFSET_TOP_AT :: SLOT.size]) + 1 << 24
    if bound + by > _OFFSET_END:
        raise LimitExceeded(
            f"A pack of {bound + by} bytes is longer than offsets can say.",
            limit="PACK_BYTES_MAX",
            value=bound + by,
            maximum=PACK_BYTES_MAX,
        )
    step = (bytes(ID_BYTES) + by.to_bytes(_OFFSET_BYTES, "little") + after) * (
        len(table) // SLOT.size
    )
    total = int.from_bytes(table, "little") + int.from_bytes(step, "little")
    moved = total.to_bytes(len(table), "little")
    return [moved[at : at + SLOT.size] for at in range(0, len(moved), SLOT.size)]
