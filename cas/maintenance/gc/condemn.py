"""The condemn transaction: what nothing leads to any more stops existing.

Floor 5; implements docs/design/001, rules E0-E3. Invariant: what may go is judged anew inside the
transaction that takes it: its lineage is that of the mark, entries and packs that came since are
taken in, and their objects are kept with all that they lead to. It is one transaction for all
ids, so that no parent outlives its child, and nothing the base that it is decoded with.

What came since is looked at outside the gate first, as often as it takes, so that little is left
to look at inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cas.catalog.catalog import CatalogReader, CatalogWriter, Head
from cas.errors import Unavailable
from cas.limits import GC_LATE_SLOTS_MAX
from cas.maintenance.gc.colors import DROPPED, FREE, GONE, KEEPING, KEPT, REPLACED
from cas.maintenance.gc.reach import Marks
from cas.maintenance.gc.roots import Roots, entries
from cas.maintenance.gc.told import named_in
from cas.model.values import frozen
from cas.objects.packs import PackInfo, pack_name
from cas.objects.store import ObjectStore
from cas.trees.node import REFS

ROUNDS_MAX: Final = 1000
"""Looks outside the gate; each is behind less than the one before."""

_ENTRIES_MAX: Final = 200
_ALL: Final = 1 << 62

_GOING: Final = frozenset((FREE, GONE, DROPPED, REPLACED))
_BITS = bytes(0x31 if color in _GOING else 0x30 for color in range(256))


@frozen
class Condemned:
    """What one transaction took: packs whose rows went, and how many of these were files."""

    pack_count: int
    file_count: int
    file_bytes: int


class Condemnation:
    """One run from its mark to its transaction. One thread."""

    def __init__(self, objects: ObjectStore, roots: Roots, marks: Marks) -> None:
        self._objects = objects
        self._roots = roots
        self._marks = marks
        self._seq = roots.seq

    def run(self, kept: Sequence[bytes] = ()) -> Condemned | None:
        """Condemn; None when there is nothing to take. Raises `Corrupt`, `Unavailable`.

        `kept` are roots that the mark did not know.
        """
        catalog = self._objects.catalog
        for _ in range(ROUNDS_MAX):
            with catalog.read() as reader:
                self._follow(reader, _ALL)
                archived = [row.segment for row in reader.archived()]
            self._marks.keep(kept, "the checkpoint at the horizon")
            # Segments are kept by their kind; these once more, whatever becomes of that rule.
            self._marks.keep(archived, "the archive of the journal")
            if not self._doomed():
                return None
            with catalog.write() as writer:
                if self._follow(writer, GC_LATE_SLOTS_MAX) and not self._marks.restore():
                    return self._condemn(writer)
        raise Unavailable("The store is written to faster than gc can follow; try again later.")

    def _follow(self, reader: CatalogReader, slots_max: int) -> bool:
        """Take in what came since; False when that would be too much for the gate."""
        if reader.lineage() != self._roots.lineage:
            raise Unavailable(
                "The catalog was put together anew while gc ran; nothing was collected. Open the "
                "store again."
            )
        head = reader.head()
        if slots_max < _ALL and head.seq - self._seq > _ENTRIES_MAX:
            return False
        fresh = self._marks.catch_up(reader, slots_max)
        if fresh is None:
            return False
        self._marks.keep_packs(fresh)
        for entry in entries(reader, self._seq):
            blobs, targets = named_in(entry)
            self._marks.keep([*blobs, *targets], f"entry {entry.seq}")
        for stored in reader.checkpoints(self._seq):
            if stored.root != REFS.empty:
                self._marks.keep([stored.root], f"the checkpoint at entry {stored.seq}")
        self._seq = head.seq
        return True

    def _doomed(self) -> list[int]:
        """Numbers of packs in which something goes."""
        return [
            number
            for number, colors in self._marks.colors.items()
            if FREE in colors or DROPPED in colors or REPLACED in colors or _is_empty(colors)
        ]

    def _condemn(self, writer: CatalogWriter) -> Condemned:
        head = writer.head()
        version = head.version + 1
        empty: list[PackInfo] = []
        doomed = self._doomed()
        for number in doomed:
            colors = self._marks.colors[number]
            if _is_empty(colors):
                empty.append(self._marks.packs[number])
            else:
                writer.set_vector(number, version, bits_of(colors))
        self._unname(writer, head, empty, version)
        writer.drop_checkpoints(self._roots.horizon)
        for number in doomed:
            colors = self._marks.colors[number]
            colors[:] = colors.translate(_STRUCK)
        files = [pack for pack in empty if pack.file is not None]
        return Condemned(len(empty), len(files), sum(pack.body_bytes for pack in files))

    def _unname(
        self, writer: CatalogWriter, head: Head, packs: list[PackInfo], version: int
    ) -> None:
        """Take out packs without a live slot; always notes the removal itself."""
        files = [pack_name(pack.file) for pack in packs if pack.file is not None]
        writer.add_unlinked(files, head.seq)
        writer.remove_packs([pack.number for pack in packs], version, head.condemn_seq + 1)


_STRUCK = bytes(GONE if color in _GOING else color for color in range(256))


def _is_empty(colors: bytearray) -> bool:
    return KEPT not in colors and KEEPING not in colors


def bits_of(colors: bytearray) -> bytes:
    """The deletion vector of a pack: bit *i* set where slot *i* does not exist from now on."""
    digits = colors.translate(_BITS)[::-1]
    return int(digits, 2).to_bytes((len(colors) + 7) // 8, "little")
