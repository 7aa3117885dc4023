"""Tables of slots as bytes: what is done to all of them at once, none of them decoded.

Floor 2; implements docs/format.md section 6.3 (slots). Invariant: a table that is moved says of
every record what it said before, but for where it lies.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Final

from cas.errors import LimitExceeded
from cas.limits import ID_BYTES, PACK_BYTES_MAX

SLOT: Final = struct.Struct("<32sIIQBBBBI")
_OFFSET_BYTES: Final = 4
_STORED_WORD: Final = 9
_OFFSET_TOP_AT: Final = 35
_OFFSET_END: Final = 1 << 32


def stored_lengths(table: bytes) -> array[int]:
    """The stored length that each slot states."""
    words = array("I", table)
    if sys.byteorder == "big":
        words.byteswap()
    return words[_STORED_WORD :: SLOT.size // 4]


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
