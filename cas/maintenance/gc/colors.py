"""Colors of slots: what a mark has found of a copy.

Floor 5; part of docs/design/001, rules E3 and E5.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

FREE: Final = 0
"""Nothing that is kept, and nothing that was given up, leads here."""
KEPT: Final = 1
KEEPING: Final = 2
"""Kept, and what it names is still to be marked."""
GONE: Final = 3
"""Does not exist: its bit is set."""
DROPPED: Final = 4
"""Only states before the horizon led here."""
DROPPING: Final = 5
REPLACED: Final = 6
"""A copy that another stands for: it goes, and its object stays."""


_DENSE: Final = 8
"""From one slot in so many on it is faster to look at each than to search for the next."""


class Lost(NamedTuple):
    """A delta that is kept and whose base is not."""

    number: int
    slot: int
    id: bytes
    base: bytes
    kind: int
    group: int
    offset: int
    stored_bytes: int
    raw_bytes: int


def positions(colors: bytes | bytearray, color: int, first: int, count: int) -> list[int]:
    """Where a color stands, from the first place on, `count` of them at the most."""
    if first < 0:
        return []
    if colors.count(color) > len(colors) // _DENSE:
        found = [at for at, now in enumerate(colors) if now == color]
        return found[bisect_left(found, first) :][:count]
    found = [first]
    find = colors.find
    while len(found) < count and (first := find(color, first + 1)) >= 0:
        found.append(first)
    return found
