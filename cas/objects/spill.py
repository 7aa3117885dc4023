"""Spill: gather young inline packs, and small pack files, into one pack file.

Floor 3; implements docs/format.md section 6 and rule E4. Invariant: every object that exists
before exists after, in every state a crash can leave: the new copies are durable and installed
before the old ones are removed, a slot whose source no longer exists at that moment is
installed with its bit set, and old packs are removed only while the new copies still stand.

Runs after a commit was acknowledged, in the caller's thread: a short-lived process has no
background. The gate is held only to install and, in slices, to remove.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cas.catalog.catalog import CatalogReader
from cas.errors import Corrupt
from cas.limits import SPILL_BYTES, SPILL_PACKS, SPILL_SMALL_PACK_BYTES
from cas.objects.batch import Batch
from cas.objects.lookup import PackInfo, State, bit_is_set
from cas.objects.store import ObjectStore
from cas.storage.pack import Footer
from cas.storage.record import RECORD_HEADER_BYTES

SLICE_PACKS: Final = 256
"""Rows removed in one write transaction: well under 50 ms at the gate."""

BODIES_AT_ONCE: Final = 256
"""Inline packs read in one statement."""

Output = tuple[int, Footer, bytes]
"""A new pack: number, footer, and the bits it was installed with."""


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
            gathered = self._gather(state, sources, batch)
            if not gathered:
                batch.abandon()
                return 0
            outputs = self._install(batch, state, gathered)
        except BaseException:
            batch.abandon()
            raise
        self._remove([pack.number for pack in gathered], outputs)
        objects.lookup.refresh()
        return len(gathered)

    def _gather(self, state: State, sources: list[PackInfo], batch: Batch) -> list[PackInfo]:
        """Stage a new copy of every live object of these packs; the packs that were read.

        Payloads move as they lie, raw ones are compressed on the way. Nothing is hashed again:
        a damaged payload is as damaged in its new place, and every read and fsck still says so.
        A pack whose footer or file cannot be read stays as it is.
        """
        gathered = []
        for pack, footer, body in self._bodies(sources):
            bits = state.vectors.get(pack.number)
            for number, row in enumerate(footer.rows()):
                id, offset, stored, raw_bytes, kind, codec, _depth, _flags, _group = row
                if not bit_is_set(bits, number):
                    start = offset + RECORD_HEADER_BYTES
                    batch.rewrite(id, kind, codec, body[start : start + stored], raw_bytes)
            gathered.append(pack)
        return gathered

    def _bodies(self, sources: list[PackInfo]) -> Iterator[tuple[PackInfo, Footer, bytes]]:
        objects = self._objects
        inline = {pack.number: pack for pack in sources if pack.footer is not None}
        after = 0
        while inline:
            with objects.catalog.read() as reader:
                rows = reader.bodies(after, BODIES_AT_ONCE)
            for number, body in rows:
                pack = inline.get(number)
                if pack is not None and pack.footer is not None:
                    yield pack, pack.footer, body
            if len(rows) < BODIES_AT_ONCE:
                break
            after = rows[-1][0]
        for pack in sources:
            if pack.file is None:
                continue
            try:
                footer = objects.lookup.footer(pack)
                yield pack, footer, objects.bucket.read(pack.file, 0, footer.body_bytes)
            except Corrupt:
                continue

    def _install(self, batch: Batch, state: State, gathered: list[PackInfo]) -> list[Output]:
        """Name the new packs; a slot none of whose sources exists any more is born gone (E4)."""
        batch.seal()
        with self._objects.catalog.write() as writer:
            head = writer.head()
            rows = batch.install(writer, head)
            exists = None
            if head.removal_version > state.version:
                exists = _still_existing(writer, gathered, self._objects)
            outputs = []
            for row, footer in rows:
                bits = bytearray((footer.count + 7) // 8)
                if exists is not None:
                    for number, id in enumerate(footer.ids()):
                        if id not in exists:
                            bits[number >> 3] |= 1 << (number & 7)
                if any(bits):
                    writer.set_vector(row.number, row.number, bytes(bits))
                outputs.append((row.number, footer, bytes(bits)))
        batch.resolved()
        return outputs

    def _remove(self, numbers: list[int], outputs: list[Output]) -> None:
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


def _still_existing(
    reader: CatalogReader, gathered: list[PackInfo], objects: ObjectStore
) -> set[bytes]:
    """Ids of which a gathered copy exists in this state of the catalog."""
    alive = set(reader.pack_numbers())
    vectors = {number: bits for number, _version, bits in reader.vectors()}
    return {
        id
        for pack in gathered
        if pack.number in alive
        for number, id in enumerate(objects.lookup.footer(pack).ids())
        if not bit_is_set(vectors.get(pack.number), number)
    }


def _stand(reader: CatalogReader, outputs: list[Output]) -> bool:
    """Whether every new copy still exists: nobody has taken it for the redundant one."""
    alive = set(reader.pack_numbers())
    vectors = {number: bits for number, _version, bits in reader.vectors()}
    return all(
        number in alive and vectors.get(number, bytes(len(bits))) == bits
        for number, _footer, bits in outputs
    )
