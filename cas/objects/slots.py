"""Slots of pack files: one by one, or from a table once a pack is asked often.

Floor 3. Invariant: a slot that is given here was not checked against its footer's digest, and
whoever reads by it checks what it reads. Tables of slots are bounded by `FOOTER_CACHE_BYTES`
and are never taken and dropped in turn: what does not fit is read slot by slot. Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from cas.errors import CorruptPack
from cas.limits import FOOTER_CACHE_BYTES
from cas.objects.packs import PackInfo
from cas.storage.bucket import Bucket
from cas.storage.pack import FOOTER_HEAD_BYTES, SLOT_BYTES, Footer, Slot, decode_footer, decode_slot

_TABLE_FROM: Final = 16
"""Slots read one by one before all of them are read at once."""


class SlotTables:
    """Slots of the pack files of one store."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self.tables: dict[int, Footer] = {}
        """By number of the pack; only read by others."""
        self._lent: set[int] = set()
        self._asked: dict[int, int] = {}
        self.refused: set[int] = set()
        """Packs that are asked often and whose slots stay where they are."""
        # Bytes of the tables that are kept here.
        self._own: dict[int, int] = {}

    def slot(self, pack: PackInfo, number: int) -> Slot | None:
        """One slot; None where the pack has no such number. Raises `Corrupt`, `MissingPack`."""
        table = self._table(pack, 1)
        if table is None:
            return decode_slot(self._alone(pack, number))
        return table.slot(number) if number < table.count else None

    def row(self, pack: PackInfo, number: int) -> bytes:
        """The bytes of one slot, empty where the pack has no such number. Raises as `slot`."""
        table = self._table(pack, 1)
        if table is None:
            return self._alone(pack, number)
        return table.table[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]

    def rows(self, pack: PackInfo, numbers: Sequence[int]) -> list[bytes]:
        """`row` of each of these numbers. Raises as `slot`, also where one is none of the pack."""
        table = self._table(pack, len(numbers))
        if table is not None:
            return [table.table[n * SLOT_BYTES : (n + 1) * SLOT_BYTES] for n in numbers]
        assert pack.file is not None
        starts = [_start(pack, number) for number in numbers]
        if self._bucket.far:
            self._bucket.prefetch([(pack.file, start, SLOT_BYTES) for start in starts])
        return self._bucket.read_all(pack.file, starts, [SLOT_BYTES] * len(starts))

    def _table(self, pack: PackInfo, count: int) -> Footer | None:
        """The table of a pack of which `count` slots are asked for, if it is in memory or, as it is
        asked often by now, can be.
        """
        number = pack.number
        table = self.tables.get(number)
        if table is None and number not in self.refused:
            before = self._asked.get(number, 0)
            self._asked[number] = before + count
            if before < _TABLE_FROM <= before + count:
                table = self._take(pack)
                if table is None:
                    self.refused.add(number)
        return table

    def _alone(self, pack: PackInfo, number: int) -> bytes:
        assert pack.file is not None
        return self._bucket.read(pack.file, _start(pack, number), SLOT_BYTES)

    def _take(self, pack: PackInfo) -> Footer | None:
        """The whole table of a pack, if there is room for it."""
        assert pack.file is not None
        size_bytes = self._bucket.size(pack.file) - pack.body_bytes
        if sum(self._own.values()) + size_bytes > FOOTER_CACHE_BYTES:
            return None
        try:
            data = self._bucket.read(pack.file, pack.body_bytes, size_bytes)
            table = decode_footer(b"", data, pack.file, verified=True)
        except CorruptPack:
            # A footer that is damaged somewhere else does not hide a slot that is not.
            return None
        with self._lock:
            self._own[pack.number] = size_bytes
            return self.tables.setdefault(pack.number, table)

    def lend(self, number: int, footer: Footer) -> None:
        """Use a footer that is kept elsewhere, until `take_back`."""
        with self._lock:
            if number not in self.tables:
                self.tables[number] = footer
                self._lent.add(number)

    def take_back(self, number: int) -> None:
        """Use a footer that was lent no longer."""
        if number in self._lent:
            self.forget(number)

    def forget(self, number: int) -> None:
        """Drop what is kept of a pack that is gone."""
        with self._lock:
            self.tables.pop(number, None)
            self._own.pop(number, None)
            self._lent.discard(number)
            self._asked.pop(number, None)
            self.refused.discard(number)


def _start(pack: PackInfo, number: int) -> int:
    """Where a slot begins in the file of its pack."""
    return pack.body_bytes + FOOTER_HEAD_BYTES + number * SLOT_BYTES
