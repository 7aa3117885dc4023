"""The index and the tables of slots, laid out for the shortest way from an id to a record.

Floor 3. Invariant: a plan speaks of one snapshot (packs, deletion vectors and index of one moment)
and is made anew when any of them changes in another way than by packs that are added. What it
finds, `Lookup.find` finds too; what it does not find is asked there. Any thread.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from cas.errors import Corrupt, NotFound
from cas.model.ids import Kind
from cas.objects.packs import PackInfo, State, bit_is_set
from cas.objects.places import Place
from cas.objects.slots import SlotTables
from cas.storage.dictionary import Dictionary
from cas.storage.index import Run
from cas.storage.pack import SLOT_BYTES, Footer
from cas.storage.slots import KIND_AT

KINDS: Final = frozenset(map(int, Kind))

ODD: Final = (IndexError, ValueError, struct.error, Corrupt, NotFound)
"""What a damaged index or pack leads to; the long way finds out which."""

_from_bytes = int.from_bytes


class Shelf(NamedTuple):
    """A pack; `file` is empty for an inline one, and `table` where its slots are not in memory.
    `beside` are the dictionaries of its copies of the common group, by tag, as far as they were
    asked for.
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

    __slots__ = ("_bare", "_slots", "_state", "views", "young")

    def __init__(
        self,
        state: State,
        runs: Sequence[Run],
        slots: SlotTables,
        young: Mapping[bytes, Place],
    ) -> None:
        self._state = state
        self._slots = slots
        self.young = young
        # Packs whose slots are read one by one, by number.
        self._bare: dict[int, Shelf] = {}
        self.views: list[View] = [(*run.search(), [None] * len(run.packs), run) for run in runs]

    def shelf(self, run: Run, shelves: list[Shelf | None], which: int) -> Shelf | None:
        """The shelf of a pack of a run, which stays in `shelves` once its table is there or is not
        going to be; None where there is no such pack file.
        """
        number = run.packs[which]
        pack, table = self._state.packs.get(number), self._slots.tables.get(number)
        if pack is None or pack.file is None:
            return None
        # A footer of another kind reads its slots from the file: it is none to hold on to.
        if type(table) is Footer:
            found = Shelf(pack.file, table.table, self._state.vectors.get(number), {}, pack)
            shelves[which] = found
            return found
        bare = self._bare.get(number)
        if bare is None:
            bare = Shelf(pack.file, b"", self._state.vectors.get(number), {}, pack)
            self._bare[number] = bare
        if number in self._slots.refused:
            shelves[which] = bare
        return bare

    def tells(self, id: bytes) -> bool | None:
        """Whether there is a copy of an object that is not young; None: to be asked elsewhere.

        The way to the slot is that of `QuickReader.get`, inline as there.
        """
        prefix = _from_bytes(id[:8], "big")
        try:
            for keys, fences, shift, clear, mask, bounds, shelves, run in self.views:
                sought, at = prefix & clear, prefix >> shift
                number = keys[bisect_left(keys, sought, fences[at], fences[at + 1])] - sought
                if number > mask:
                    continue
                at = bisect_right(bounds, number) - 1
                number -= bounds[at]
                shelf = shelves[at] or self.shelf(run, shelves, at)
                if shelf is None:
                    return None
                _file, table, vector, _beside, pack = shelf
                if table:
                    row = table[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]
                else:
                    row = self._slots.row(pack, number)
                there = row.startswith(id) and row[KIND_AT] in KINDS
                return True if there and not (vector and bit_is_set(vector, number)) else None
        except ODD:
            return None
        return False
