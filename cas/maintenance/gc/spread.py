"""Coloring many ids at once, with all that objects at hand lead to, where a table has them all.

Floor 5; part of docs/design/001, rule E3. Invariant: slots get the colors that they would get if
each id were looked up, and each directory and commit traced, by itself; what has no copy is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

from cas.maintenance.gc.colors import DROPPING, GONE, KEEPING
from cas.maintenance.gc.counting import Tally
from cas.maintenance.gc.names import Names
from cas.maintenance.gc.whereabouts import Spot, Whereabouts

_COLORS: Final = 8
_SHARE: Final = 8
"""From one id in so many on it is faster to look at all slots than to look each up."""


class Spread:
    """Shared by one mark: `colors` and `waiting` are its own, and `names` has what was read ahead,
    each of which has a copy. One thread.
    """

    def __init__(
        self,
        where: Whereabouts,
        names: Names,
        colors: dict[int, bytearray],
        waiting: set[int],
    ) -> None:
        self._where = where
        self._names = names
        self._colors = colors
        self._waiting = waiting
        # Ids all of whose copies were colored, by color.
        self._seen: dict[int, set[bytes]] = {KEEPING: set(), DROPPING: set()}
        self.closed: dict[int, set[bytes]] = {KEEPING: set(), DROPPING: set()}
        """By color, objects all that is named by which was colored with them, and counted."""

    def color(
        self, ids: set[bytes], color: int, wanted: frozenset[int], tally: Tally | None
    ) -> list[bytes]:
        """Color every copy of these, and of what they lead to, whose color is `wanted`; the ids
        that have no copy. `tally` counts what they name on the way.
        """
        # What was kept is not looked at again, and what was kept or dropped is not dropped.
        seen = self._seen[color]
        fresh = ids - seen
        if color == DROPPING:
            fresh -= self._seen[KEEPING]
        if not fresh:
            return []
        fresh |= self._below(fresh, color, tally)
        seen |= fresh
        table = self._where.table
        assert table is not None
        if _SHARE * len(fresh) > len(table):
            return self._at_once(fresh, table, color, wanted)
        return [id for id in fresh if not self._one(table.get(id, ()), color, wanted)]

    def _below(self, ids: set[bytes], color: int, tally: Tally | None) -> set[bytes]:
        """What objects at hand lead to, but for what was seen."""
        closed, strict = self.closed[color], color == KEEPING
        # Taken off by what is new, which is little at each step of a long history.
        passed = [self._seen[color], ids] if strict else [*self._seen.values(), ids]
        found: set[bytes] = set()
        new = ids
        while named := self._names.at_hand(new - closed, strict=strict):
            closed.update(named)
            if tally is not None:
                tally.named(named, self._where.places)
            new = set(chain.from_iterable(named.values()))
            new = new.difference(*passed) - found
            found |= new
        return found

    def _at_once(
        self, ids: set[bytes], table: Mapping[bytes, object], color: int, wanted: frozenset[int]
    ) -> list[bytes]:
        """`color`, slot by slot."""
        after = [color if now in wanted else now for now in range(_COLORS)]
        then = bytes((*range(_COLORS), *after)).ljust(256)
        lacking = [id for id in ids if id not in table]
        for number, colors in self._colors.items():
            here = self._where.ids[number]
            hits = int.from_bytes(bytes(map(ids.__contains__, here)), "little")
            mixed = int.from_bytes(colors, "little") + hits * _COLORS
            if GONE in colors:
                gone = (id for id, now in zip(here, colors, strict=True) if now == GONE)
                lacking += [id for id in ids.intersection(gone) if not self._exists(id)]
            colors[:] = mixed.to_bytes(len(colors), "little").translate(then)
            if color in colors:
                self._waiting.add(number)
        return lacking

    def _exists(self, id: bytes) -> bool:
        places = self._where.places(id)
        return any(n in self._colors and self._colors[n][slot] != GONE for n, slot in places)

    def _one(self, places: Sequence[Spot], color: int, wanted: frozenset[int]) -> bool:
        found = False
        for number, slot in places:
            colors = self._colors.get(number)
            if colors is None or colors[slot] == GONE:
                continue
            found = True
            if colors[slot] in wanted:
                colors[slot] = color
                self._waiting.add(number)
        return found
