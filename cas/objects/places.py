"""Where young objects lie: a table in memory of the packs that no index covers.

Floor 3. Invariant: an object that several packs have is found in the newest of them, and the
others are remembered, so that forgetting one pack hides no copy in another. Its owner locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, repeat

Place = tuple[int, int]
"""Number of the pack, number of the slot."""


class Places:
    """Places by id."""

    def __init__(self) -> None:
        self.first: dict[bytes, Place] = {}
        """The newest place of each; others read it, nobody else changes it."""
        # The older copies of what two writers put at the same time.
        self._more: dict[bytes, tuple[Place, ...]] = {}

    def all(self, id: bytes) -> Sequence[Place]:
        """Every place of an object, the newest first."""
        place = self.first.get(id)
        return () if place is None else (place, *self._more.get(id, ()))

    def remember(self, number: int, ids: Sequence[bytes]) -> None:
        """Take in the slots of a pack."""
        first = self.first
        if not first.keys().isdisjoint(ids):
            for id in first.keys() & ids:
                self._more[id] = (first[id], *self._more.get(id, ()))
        first.update(zip(ids, zip(repeat(number), count(), strict=False), strict=False))

    def forget(self, number: int, ids: Sequence[bytes]) -> None:
        """Drop the slots of a pack."""
        first, get = self.first, self.first.get
        if not self._more:
            for id in ids:
                place = get(id)
                if place is not None and place[0] == number:
                    del first[id]
            return
        for id in ids:
            self._forget(number, id)

    def _forget(self, number: int, id: bytes) -> None:
        more = self._more.pop(id, ())
        if not more:
            if self.first.get(id, (0, 0))[0] == number:
                del self.first[id]
            return
        left = [place for place in (self.first[id], *more) if place[0] != number]
        self.first[id] = left[0]
        if len(left) > 1:
            self._more[id] = tuple(left[1:])
