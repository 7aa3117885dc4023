"""Where copies of objects may lie, for a mark: from a table of ids, or from the look-up index.

Floor 5. Invariant: every copy in the packs taken in is among the places that are given. From the
index, ids that begin with the same 40 bits or more are given together, which is too much and
never too little; a small store is looked up by whole ids, six times as fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Final

from cas.objects.lookup import Lookup
from cas.objects.packs import PackInfo, State, pack_name
from cas.storage.index import Run, prefix_of, run_of
from cas.storage.pack import Footer

TABLE_SLOTS_MAX: Final = 1 << 18
"""So many slots are worth a table: 300 bytes each."""

_SMALL_SLOTS: Final = 4096
"""A pack of fewer slots that came later is put into the table, and makes no run of its own."""

Spot = tuple[int, int]
"""Number of a pack, and of its slot."""


def newest(lookup: Lookup) -> tuple[State, Sequence[Run], dict[int, int]]:
    """The newest state, its index, and how many slots the packs have that this covers. Raises
    `Corrupt` where a pack hides what it holds.
    """
    # Runs are checked against their digests: a damaged one would hide what is kept.
    lookup.is_certain(lookup.stamp(), again=True)
    state, runs = lookup.view()
    hidden = lookup.hidden_by()
    if hidden is not None:
        raise hidden
    slots = {n: count for run in runs for n, count in zip(run.packs, run.slots, strict=True)}
    return state, runs, slots


class Whereabouts:
    """Places of ids in the packs that were taken in. One thread."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._table: dict[bytes, tuple[Spot, ...]] = {}
        self.ids: dict[int, list[bytes]] = {}
        """Of packs in the table, by number: the ids of their slots."""

    @property
    def table(self) -> Mapping[bytes, tuple[Spot, ...]] | None:
        """All there is, where it is in the table; None where runs have to be asked too."""
        return None if self._runs else self._table

    def use(self, runs: Iterable[Run]) -> None:
        """Take in all packs of some runs."""
        self._runs += runs

    def note(self, number: int, footer: Footer) -> None:
        """Take in a pack, into the table."""
        table, ids = self._table, footer.ids()
        self.ids[number] = ids
        spots = zip(zip(repeat(number), range(footer.count), strict=False), strict=True)
        fresh: dict[bytes, tuple[Spot, ...]] = dict(zip(ids, spots, strict=True))
        for id in table.keys() & fresh.keys() if table else ():
            fresh[id] = (*table[id], *fresh[id])
        table.update(fresh)

    def add(self, pack: PackInfo, footer: Footer) -> None:
        """Take in a pack, wherever it costs least."""
        if pack.file is None or footer.count <= _SMALL_SLOTS:
            self.note(pack.number, footer)
        else:
            self._runs.append(run_of(pack.number, pack_name(pack.file), footer))

    def places(self, id: bytes) -> Sequence[Spot]:
        """Where copies of an object may lie."""
        here = self._table.get(id, ())
        if not self._runs:
            return here
        found = list(here)
        prefix = prefix_of(id)
        for run in self._runs:
            found += run.find(prefix)
        return found
