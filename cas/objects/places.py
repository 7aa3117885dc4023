"""Where young objects lie: a table in memory of the packs that no index covers.

Floor 3. Invariant: an object that several packs have is found in the newest of them, and the
others are remembered, so that forgetting one pack hides no copy in another. Its owner locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SLOT_BITS: Final = 32
SLOT_MASK: Final = (1 << SLOT_BITS) - 1

Place = int
"""Number of the pack, and behind it in `SLOT_BITS` that of the slot: a pair would be work for the
collector of garbage.
"""


class Places:
    """Places by id."""

    def __init__(self) -> None:
        self.first: dict[bytes, Place] = {}
        """The newest place of each; others read it, nobody else changes it."""
        # The older copies of what two writers put at the same time.
        self._more: dict[bytes, tuple[Place, ...]] = {}

    def all(self, id: bytes) -> Sequence[tuple[int, int]]:
        """Pack and slot of every place of an object, the newest first."""
        place = self.first.get(id)
        if place is None:
            return ()
        every = place, *self._more.get(id, ())
        return [(place >> SLOT_BITS, place & SLOT_MASK) for place in every]

    def remember(self, number: int, ids: Sequence[bytes]) -> None:
        """Take in the slots of a pack."""
        first, start = self.first, number << SLOT_BITS
        if not first.keys().isdisjoint(ids):
            for id in first.keys() & ids:
                self._more[id] = (first[id], *self._more.get(id, ()))
        first.update(zip(ids, range(start, start + len(ids)), strict=True))

    def forget(self, number: int, ids: Sequence[bytes]) -> None:
        """Drop the slots of a pack."""
        first = self.first
        if not self._more:
            low, high = number << SLOT_BITS, number + 1 << SLOT_BITS
            found = zip(ids, map(first.get, ids), strict=True)
            for id in [id for id, at in found if at is not None and low <= at < high]:
                del first[id]
            return
        for id in ids:
            self._forget(number, id)

    def _forget(self, number: int, id: bytes) -> None:
        more = self._more.pop(id, ())
        if not more:
            if _is_of(number, self.first.get(id)):
                del self.first[id]
            return
        left = [place for place in (self.first[id], *more) if not _is_of(number, place)]
        self.first[id] = left[0]
        if len(left) > 1:
            self._more[id] = tuple(left[1:])


def _is_of(number: int, place: Place | None) -> bool:
    return place is not None and place >> SLOT_BITS == number
