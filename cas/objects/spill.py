"""Spill: gather young inline packs, and small pack files, into one pack file.

Floor 3; implements docs/format.md section 6 and rule E4. Invariant: every object that exists
before exists after, in every state a crash can leave: the new copies are durable and installed
before the old ones are removed, a slot whose source no longer exists at that moment is
installed with its bit set, and old packs are removed only while the new copies still stand.

Runs after a commit was acknowledged, in the caller's thread: a short-lived process has no
background. The gate is held only to install and, in slices, to remove.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from cas.catalog.catalog import CatalogReader, CatalogWriter, Head
from cas.errors import Corrupt
from cas.limits import SPILL_BYTES, SPILL_PACKS, SPILL_SMALL_PACK_BYTES
from cas.objects.batch import Batch
from cas.objects.lookup import Copy, PackInfo, bit_is_set
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.pack import Footer

SLICE_PACKS: Final = 256
"""Rows removed in one write transaction: well under 50 ms at the gate."""

_Places = defaultdict[bytes, list[tuple[int, int]]]
"""Where each gathered object was found: (pack, slot) of every copy."""


class Spill:
    """The spill of one store handle. Any thread; one runs at a time."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._running = False

    @property
    def due(self) -> bool:
        """Whether the inline packs this handle knows of have crossed a threshold."""
        lookup = self._objects.lookup
        return lookup.inline_count >= SPILL_PACKS or lookup.inline_bytes >= SPILL_BYTES

    def run(self) -> int:
        """Gather what is there; how many packs were gathered. Other processes may do the same
        at the same time: what both gather is stored twice until compaction.
        """
        if self._running:
            return 0
        self._running = True
        try:
            with self._objects.catalog.elect("spill") as elected:
                return self._run() if elected else 0
        finally:
            self._running = False

    def _run(self) -> int:
        objects = self._objects
        state = objects.lookup.refresh()
        sources = [pack for pack in state.packs.values() if _is_young(pack)]
        if len(sources) < 2:
            return 0
        batch = objects.new_batch()
        try:
            places: _Places = defaultdict(list)
            gathered = [pack.number for pack in sources if self._gather(pack, batch, places)]
            if not gathered:
                batch.abandon()
                return 0
            outputs = self._install(batch, places, state.version)
        except BaseException:
            batch.abandon()
            raise
        self._remove(gathered, outputs)
        objects.lookup.refresh()
        return len(gathered)

    def _gather(self, pack: PackInfo, batch: Batch, places: _Places) -> bool:
        """Stage a new copy of every object of a pack; False leaves the pack as it is.

        A pack with a damaged object stays whole where it is, for fsck and repair to see.
        """
        objects = self._objects
        try:
            footer = objects.lookup.footer(pack)
            copies = [
                Copy(pack, slot)
                for number, slot in enumerate(footer.slots())
                if not objects.lookup.is_gone(pack.number, number)
            ]
            loaded = [(copy, objects.verified(copy)) for copy in copies]
        except Corrupt:
            return False
        for copy, (kind, content) in loaded:
            slot = copy.slot
            if slot.id not in places:
                if slot.codec == RECIPE:
                    batch.rewrite_recipe_copy(slot.id, objects.payload(copy), slot.raw_bytes)
                else:
                    batch.rewrite(slot.id, kind, content)
            places[slot.id].append((pack.number, footer.find(slot.id)))
        return True

    def _install(
        self, batch: Batch, places: _Places, seen_version: int
    ) -> list[tuple[int, Footer, bytes]]:
        """Name the new packs; (number, footer, bits) of each."""
        batch.seal()
        with self._objects.catalog.write() as writer:
            head = writer.head()
            rows = batch.install(writer, head)
            outputs = []
            gone = _vanished(writer, places, head, seen_version)
            for row, footer in rows:
                bits = bytearray((footer.count + 7) // 8)
                for number, id in enumerate(footer.ids()):
                    if id in gone:
                        bits[number >> 3] |= 1 << (number & 7)
                if any(bits):
                    writer.set_vector(row.number, row.number, bytes(bits))
                outputs.append((row.number, footer, bytes(bits)))
        batch.resolved()
        return outputs

    def _remove(self, numbers: list[int], outputs: list[tuple[int, Footer, bytes]]) -> None:
        """Take the gathered packs out in slices, while what replaces them still stands."""
        catalog = self._objects.catalog
        files: list[str] = []
        for start in range(0, len(numbers), SLICE_PACKS):
            wanted = numbers[start : start + SLICE_PACKS]
            with catalog.write() as writer:
                if not _stand(writer, outputs):
                    return
                alive = set(writer.pack_numbers())
                present = [number for number in wanted if number in alive]
                if present:
                    head = writer.head()
                    writer.remove_packs(present, head.version + 1, head.condemn_seq)
            for number in present:
                pack = self._objects.lookup.state.packs.get(number)
                if pack is not None and pack.file is not None:
                    files.append(pack.file)
        for file in files:
            self._objects.bucket.delete(file)


def _is_young(pack: PackInfo) -> bool:
    return pack.file is None or pack.body_bytes < SPILL_SMALL_PACK_BYTES


def _vanished(writer: CatalogWriter, places: _Places, head: Head, seen_version: int) -> set[bytes]:
    """Gathered ids none of whose source copies exists any more (E4)."""
    if head.removal_version <= seen_version:
        return set()
    alive = set(writer.pack_numbers())
    vectors = {number: bits for number, _version, bits in writer.vectors()}
    return {
        id
        for id, found in places.items()
        if not any(
            number in alive and not bit_is_set(vectors.get(number), slot) for number, slot in found
        )
    }


def _stand(reader: CatalogReader, outputs: list[tuple[int, Footer, bytes]]) -> bool:
    """Whether every new copy still exists: nobody has taken it for the redundant one."""
    alive = set(reader.pack_numbers())
    vectors = {number: bits for number, _version, bits in reader.vectors()}
    return all(
        number in alive and vectors.get(number, bytes(len(bits))) == bits
        for number, _footer, bits in outputs
    )
