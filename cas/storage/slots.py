"""Tables of slots as bytes: what is done to all of them at once, none of them decoded.

Floor 2; implements docs/format.md section 6.3 (slots). Invariant: a table that is moved says of
every record what it said before, but for where it lies.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from itertools import compress
from operator import add, ne
from typing import Final

from cas.errors import LimitExceeded
from cas.limits import DELTA_BYTES_MAX, DELTA_DEPTH_MAX, ID_BYTES, PACK_BYTES_MAX
from cas.storage.codec import DELTA, DICTIONARY, RAW, ZSTD
from cas.storage.record import DELTA_KINDS, NO_GROUP, TAG_BYTES

SLOT: Final = struct.Struct("<32sIIQBBBBI")
_OFFSET_BYTES: Final = 4
KIND_AT: Final = 48
CODEC_AT: Final = 49
DEPTH_AT: Final = 50
_FLAGS_AT: Final = 51
_OFFSET_WORD: Final = 8
_STORED_WORD: Final = 9
_RAW_WORD: Final = 10
_GROUP_WORD: Final = 13
_OFFSET_TOP_AT: Final = 35
_OFFSET_END: Final = 1 << 32


_PLAIN: Final = bytes((RAW, ZSTD, DICTIONARY))
_DELTA: Final = bytes((DELTA,))
_DELTA_KINDS: Final = bytes(sorted(DELTA_KINDS))
_FLAGS_OF: Final = bytes(kind != 1 for kind in range(256))
"""What the flags of a kind are: all but blobs are structured."""


def _words(table: bytes) -> array[int]:
    words = array("I", table)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def beginnings(table: bytes) -> array[int]:
    """The first 8 bytes of each id, as the number that ids are sorted by."""
    words = array("Q", table)[:: SLOT.size // 8]
    if sys.byteorder == "little":
        words.byteswap()
    return words


def stored_lengths(table: bytes) -> array[int]:
    """The stored length that each slot states."""
    return _words(table)[_STORED_WORD :: SLOT.size // 4]


def column(table: bytes, at: int) -> bytes:
    """One byte of each slot: `KIND_AT`, `CODEC_AT` or `DEPTH_AT`."""
    return table[at :: SLOT.size]


def offsets_of(table: bytes) -> array[int]:
    """Where each slot says that its record lies."""
    return _words(table)[_OFFSET_WORD :: SLOT.size // 4]


def picked(table: bytes, numbers: Iterable[int]) -> bytes:
    """The slots of these numbers alone, in the order given."""
    size = SLOT.size
    return b"".join([table[at : at + size] for at in map(size.__mul__, numbers)])


def placed(table: bytes, offsets: Iterable[int]) -> bytes:
    """The table with another offset for each slot."""
    words = _words(table)
    words[_OFFSET_WORD :: SLOT.size // 4] = array("I", offsets)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def are_plain(table: bytes, first: int, room_end: int, *, kind_max: int, bytes_max: int) -> bool:
    """Whether every slot is of a copy that is no delta and no recipe (codec 0, 1 or 4), and states
    nothing that a writer could not: kinds up to `kind_max`, no more than `bytes_max`, a place
    between offset `first` and `room_end` for its payload.

    False says that one of them has to be looked at alone, and not that it is wrong.
    """
    if not table:
        return True
    kinds, codecs = table[KIND_AT :: SLOT.size], table[CODEC_AT :: SLOT.size]
    if codecs.translate(None, _PLAIN) or max(kinds) > kind_max or not min(kinds):
        return False
    if any(table[DEPTH_AT :: SLOT.size]):
        return False
    if table[_FLAGS_AT :: SLOT.size] != kinds.translate(_FLAGS_OF):
        return False
    words, step = _words(table), SLOT.size // 4
    offsets, stored = words[_OFFSET_WORD::step], words[_STORED_WORD::step]
    raw = words[_RAW_WORD::step]
    if any(words[_RAW_WORD + 1 :: step]) or max(raw) > bytes_max or max(stored) > bytes_max:
        return False
    if DICTIONARY in codecs and not (
        min(raw) and min(stored) > TAG_BYTES and min(words[_GROUP_WORD::step]) > NO_GROUP
    ):
        return False
    # What is stored as it is has one length.
    if not all(compress(codecs, map(ne, stored, raw))):
        return False
    return min(offsets) >= first and max(map(add, offsets, stored)) <= room_end


def are_deltas(table: bytes, first: int, room_end: int, *, bytes_max: int) -> bool:
    """Whether every slot is of a delta, and states nothing that a writer could not.

    False says that one of them has to be looked at alone, and not that it is wrong.
    """
    if not table:
        return True
    kinds, depths = table[KIND_AT :: SLOT.size], table[DEPTH_AT :: SLOT.size]
    if table[CODEC_AT :: SLOT.size].translate(None, _DELTA) or kinds.translate(None, _DELTA_KINDS):
        return False
    if not min(depths) or max(depths) > DELTA_DEPTH_MAX:
        return False
    if table[_FLAGS_AT :: SLOT.size] != kinds.translate(_FLAGS_OF):
        return False
    words, step = _words(table), SLOT.size // 4
    offsets, stored = words[_OFFSET_WORD::step], words[_STORED_WORD::step]
    raw = words[_RAW_WORD::step]
    if any(words[_RAW_WORD + 1 :: step]) or not all(raw) or max(raw) > DELTA_BYTES_MAX:
        return False
    if not all(words[_GROUP_WORD::step]) or min(stored) <= ID_BYTES or max(stored) > bytes_max:
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
