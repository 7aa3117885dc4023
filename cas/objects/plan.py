"""The index and the tables of slots, laid out for the shortest way from an id to a record.

Floor 3. Invariant: a plan speaks of one snapshot (packs, deletion vectors and index of one moment)
and is made anew when any of them changes in another way than by packs that are added. What it
finds, `Lookup.find` finds too; what it does not find is asked there. Any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cas.objects.packs import PackInfo, State
from cas.objects.places import Place
from cas.storage.dictionary import Dictionary
from cas.storage.index import Run
from cas.storage.pack import Footer


class Shelf(NamedTuple):
    """A pack whose slots are in memory; `file` is empty for an inline one. `beside` are the
    dictionaries of its copies of the common group, by tag, as far as they were asked for.
    """

    file: str
    table: bytes
    vector: bytes | None
    beside: dict[bytes, Dictionary]
    pack: PackInfo


View = tuple[Sequence[int], Sequence[int], int, int, int, Sequence[int], list[Shelf | None], Run]
"""One run of the index: how it is searched, the shelves of its packs as far as known, the run."""


class Plan:
    """All runs, largest first. `young` holds the ids that no run covers."""

    __slots__ = ("_bare", "_state", "_tables", "views", "young")

    def __init__(
        self,
        state: State,
        runs: Sequence[Run],
        tables: Mapping[int, Footer],
        young: Mapping[bytes, Place],
    ) -> None:
        self._state = state
        self._tables = tables
        self.young = young
        # Packs whose slots are read one by one, by number, as shelves without a table.
        self._bare: dict[int, Shelf] = {}
        self.views: list[View] = [(*run.search(), [None] * len(run.packs), run) for run in runs]

    def shelf(self, run: Run, shelves: list[Shelf | None], which: int) -> Shelf | None:
        """The shelf of a pack of a run; None while its slots are not in memory."""
        number = run.packs[which]
        pack, table = self._state.packs.get(number), self._tables.get(number)
        # A footer of another kind reads its slots from the file: it is none to hold on to.
        if pack is None or pack.file is None or type(table) is not Footer:
            return None
        found = Shelf(pack.file, table.table, self._state.vectors.get(number), {}, pack)
        shelves[which] = found
        return found

    def bare(self, run: Run, which: int) -> Shelf | None:
        """The shelf of a pack file without its table, for slots that are read one by one."""
        number = run.packs[which]
        found = self._bare.get(number)
        if found is None:
            pack = self._state.packs.get(number)
            if pack is None or pack.file is None:
                return None
            found = Shelf(pack.file, b"", self._state.vectors.get(number), {}, pack)
            self._bare[number] = found
        return found
