"""Chains of deltas as the footers of a mark tell them, without a look-up for each copy.

Floor 5. Invariant: nothing is read but footers that the mark has read, and the ids of bases that
these state; a chain of lies ends after a few steps.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from cas.maintenance.gc.colors import GONE
from cas.maintenance.gc.reach import Marks
from cas.storage.codec import DELTA
from cas.storage.pack import EDGE_BASE
from cas.storage.slots import CODEC_AT, column, stored_lengths

_STEPS_MAX: Final = 8


class _Columns(NamedTuple):
    """Of one pack: codecs and stored lengths by slot, ids of bases by the slots of deltas."""

    codecs: bytes
    lengths: array[int]
    bases: dict[int, bytes]


_NONE: Final = _Columns(b"", array("I"), {})


class Chains:
    """The copies that the packs of one mark hold. One thread."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._columns: dict[int, _Columns] = {}

    def down(self, id: bytes) -> Iterator[tuple[bytes, int, bool]]:
        """Id, stored bytes, and whether it is whole, of each copy that leads down from `id`."""
        for _ in range(_STEPS_MAX):
            found = self._copy(id)
            if found is None:
                return
            stored_bytes, base = found
            yield id, stored_bytes, base is None
            if base is None:
                return
            id = base

    def end_of(self, id: bytes) -> bytes:
        """The object at the end of the chain that begins with `id`."""
        ids = [step[0] for step in self.down(id)]
        return ids[-1] if ids else id

    def _copy(self, id: bytes) -> tuple[int, bytes | None] | None:
        """Stored bytes and base of a copy; None when there is none, or it cannot be told."""
        all_colors = self._marks.colors
        for number, slot in self._marks.places(id):
            colors = all_colors.get(number)
            if colors is None or colors[slot] == GONE:
                continue
            codecs, lengths, bases = self._columns.get(number) or self._read(number)
            if slot >= len(codecs):
                continue
            if codecs[slot] != DELTA:
                return lengths[slot], None
            if slot in bases:
                return lengths[slot], bases[slot]
        return None

    def _read(self, number: int) -> _Columns:
        footer = self._marks.footer(number)
        if footer is None:
            return _NONE
        bases = {slot: id for slot, role, id in footer.edge_rows() if role == EDGE_BASE}
        found = _Columns(column(footer.table, CODEC_AT), stored_lengths(footer.table), bases)
        self._columns[number] = found
        return found
