"""The footer of a pack that was sealed and is not installed yet, read again where it is asked for.

Floor 3. Invariant: it answers as the footer in memory that it stands for, whose bytes were read
back from this file before. An import of a million files seals packs with 56 MB of slots, and
nobody asks for most of them before the end.
"""

from __future__ import annotations

from collections.abc import Callable

from cas.limits import ID_BYTES
from cas.storage.pack import FOOTER_HEAD_BYTES, SLOT_BYTES, Footer, Slot
from cas.storage.slots import SLOT


class StoredFooter(Footer):
    """Edges are held, slots are not. `read` gives bytes of the pack file: (start, length)."""

    __slots__ = ("_read",)

    def __init__(self, footer: Footer, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self.count, self.edge_count = footer.count, footer.edge_count
        self.body_bytes, self.body_digest = footer.body_bytes, footer.body_digest
        self._edges = footer._edges
        self._ids = None

    @property
    def _slots(self) -> bytes:  # type: ignore[override]
        return self._part(0, self.count * SLOT_BYTES)

    def _part(self, start: int, length: int) -> bytes:
        return self._read(self.body_bytes + FOOTER_HEAD_BYTES + start, length)

    @property
    def memory_bytes(self) -> int:
        """What this costs to keep."""
        return len(self._edges) + 200

    def slot(self, number: int) -> Slot:
        """The slot of this number."""
        return Slot._make(SLOT.unpack(self._part(number * SLOT_BYTES, SLOT_BYTES)))

    def id_at(self, number: int) -> bytes:
        """Id of the slot of this number."""
        return self._part(number * SLOT_BYTES, ID_BYTES)
