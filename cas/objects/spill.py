"""Spill: gather young inline packs, and small pack files, into one pack file.

Floor 3; implements docs/format.md section 6 and rule E4. Invariant: every object that exists
before exists after, in every state a crash can leave: the new copies are durable before the
transaction that installs them, a slot whose source no longer exists in that transaction is
installed with its bit set, and old packs are removed only where the new copies stand.

A short-lived process has no background, so the commit that crosses a threshold begins a spill
after it was acknowledged, and it and those that follow each carry a slice of it; closing the
store carries the rest. No commit waits for more than a slice.

A spill mirrors the journal too (`mirror`): once it is installed, all that existed when it began
lies in files, and so may the entries up to there.

One handle at a time should spill. It is elected for each slice anew and leaves a note that its
work goes on, so that a process that began and then has nothing to commit stops nobody: who finds
the same note often enough begins a spill of its own, and the first gives its up when it wakes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cas.catalog.catalog import CatalogReader, Turn
from cas.errors import Corrupt
from cas.limits import Thresholds
from cas.model.ids import Kind, digest_of
from cas.objects.batch import Batch
from cas.objects.mirror import MIRRORED, stage_segments
from cas.objects.packs import PackInfo, State, bit_is_set, pack_name
from cas.objects.pipeline import Submitted
from cas.objects.store import ObjectStore
from cas.objects.unlink import remove_unlinked
from cas.storage.pack import FOOTER_HEAD_BYTES, Footer, decode_inline
from cas.storage.record import RECORD_HEADER_BYTES

GATHER_SLICE: Final = 64
"""Packs gathered after one commit: a few milliseconds."""

REMOVE_SLICE: Final = 2048
"""Rows removed in one write transaction: well under 50 ms at the gate."""

REMOVE_AFTER: Final = 512
"""Rows removed after one commit: a few milliseconds."""

PATIENCE: Final = 64
"""Commits after which a spill of another handle that made no step is taken for forgotten."""

Output = tuple[int, Footer, bytes]
"""A new pack: number, footer, and the bits it was installed with."""


class _Run:
    """One spill under way: what it gathers, and how far it has come."""

    def __init__(
        self, objects: ObjectStore, state: State, seq: int, sources: list[PackInfo]
    ) -> None:
        self.name = objects.clock.random(16)
        self.steps = 0
        self.state = state
        self.seq = seq
        """The newest entry in `state`."""
        self.missed = False
        """Whether an inline pack stays where it is, and with it what only it holds."""
        self.mirrored = 0
        self.batch = objects.new_batch()
        self.gathered: list[PackInfo] = []
        self.seen: set[bytes] = set()
        self.depths: dict[bytes, int] = {}
        self.inline = {pack.number: pack for pack in sources if pack.file is None}
        self.files = [pack for pack in sources if pack.file is not None]
        self.after = 0
        self.staged = self.sealed = False
        # What is installed, and how many of the gathered packs are removed since.
        self.outputs: list[Output] | None = None
        self.removed = 0


class Spill:
    """The spill of one store handle. The handle calls it under a lock of its own."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._run: _Run | None = None
        # The note of another handle, and how often it was found.
        self._met = (b"", 0)
        self._thresholds = objects.thresholds
        self._wait_count = objects.thresholds.spill_packs
        self._wait_bytes = objects.thresholds.spill_bytes

    @property
    def due(self) -> bool:
        """Whether there is something to do after a commit."""
        lookup = self._objects.lookup
        return (
            self._run is not None
            or lookup.inline_count >= self._wait_count
            or lookup.inline_bytes >= self._wait_bytes
        )

    def step(self) -> None:
        """Carry one slice of a spill, beginning one when it is due and nobody else is at it."""
        with self._objects.catalog.elect("spill") as turn:
            if turn is None or not self._is_mine(turn.note):
                return
            if self._run is not None or self._begin():
                self._guarded(GATHER_SLICE, turn)

    def finish(self) -> int:
        """Carry a spill to its end, beginning one if there is none; packs gathered.

        One that another handle has begun and is not at work on is begun anew.
        """
        with self._objects.catalog.elect("spill") as turn:
            if turn is None:
                return 0
            if self._run is not None and self._is_lost(turn.note):
                self.abandon()
            if self._run is None and not self._begin():
                return 0
            run = self._run
            assert run is not None
            while self._run is not None:
                self._guarded(REMOVE_SLICE, turn)
            return len(run.gathered)

    def _is_lost(self, note: bytes) -> bool:
        """Whether another handle has begun, or even ended, since the last slice of this one."""
        run = self._run
        return run is not None and run.steps > 0 and not note.startswith(run.name)

    def _is_mine(self, note: bytes) -> bool:
        """Whether it is for this handle to go on, or to begin; gives up what is lost."""
        if self._is_lost(note):
            self.abandon()
            return False
        if self._run is not None or not note:
            return True
        known, times = self._met
        self._met = (note, times + 1 if known == note else 1)
        return self._met[1] > PATIENCE

    @property
    def inherited(self) -> bool:
        """Whether a spill under way is that of a parent process, to whom it is left."""
        return self._run is not None and self._run.batch.inherited

    def mirror(self) -> int:
        """Put what exists into files, and the journal so far into segments beside it; the seq
        that segments reach then. It is less than that of the newest entry only where damage
        stands in the way, which fsck tells of.

        Nothing may be unlinked that was unnamed behind that entry. Whoever else is at a spill
        is not waited for: two copies are harmless.
        """
        objects = self._objects
        with objects.catalog.elect("spill") as turn:
            if self._run is not None and (turn is None or self._is_lost(turn.note)):
                self.abandon()
            while self._run is not None:
                self._guarded(REMOVE_SLICE, turn)
            with objects.catalog.read() as reader:
                reached, seq = reader.cursor(MIRRORED) or 0, reader.head().seq
            if reached < seq and self._begin(mirror=True):
                while self._run is not None:
                    self._guarded(REMOVE_SLICE, turn)
                with objects.catalog.read() as reader:
                    reached = reader.cursor(MIRRORED) or 0
            return reached

    def close(self) -> None:
        """Carry a spill that was begun to its end, unless another handle has begun its own."""
        if self._run is None:
            return
        with self._objects.catalog.elect("spill") as turn:
            if turn is None or self._is_lost(turn.note):
                self.abandon()
                return
            while self._run is not None:
                self._guarded(REMOVE_SLICE, turn)

    def abandon(self, error: BaseException | None = None) -> None:
        """Forget a spill that was begun: nothing of it counts yet."""
        run, self._run = self._run, None
        if run is not None and run.outputs is None:
            run.batch.abandon(error)

    def _begin(self, *, mirror: bool = False) -> bool:
        """Begin a spill if there is something to gather; with `mirror` in any case."""
        objects = self._objects
        with objects.catalog.read() as reader:
            seq = reader.head().seq
            state = objects.lookup.refresh(reader)
        objects.catalog.harden(reading=True)
        sources = [pack for pack in list(state.packs.values()) if _is_young(pack, self._thresholds)]
        if len(sources) < 2:
            if not mirror:
                return False
            # One small file alone is where it should be.
            sources = [pack for pack in sources if pack.file is None]
        self._run = _Run(objects, state, seq, sources)
        return True

    def _guarded(self, slice_packs: int, turn: Turn | None) -> None:
        run = self._run
        assert run is not None
        try:
            if self._gather(run, slice_packs) or self._settle(run, slice_packs):
                run.steps += 1
                if turn is not None:
                    turn.leave(run.name + run.steps.to_bytes(8, "big"))
                return
            self._run = None
        except BaseException as error:
            self._run = run
            # Not again with the next commit: a full disk is not emptied by trying.
            lookup = self._objects.lookup
            self._wait_bytes = lookup.inline_bytes + self._thresholds.spill_bytes
            self._wait_count = lookup.inline_count + self._thresholds.spill_packs
            self.abandon(error)
            if turn is not None:
                turn.leave(b"")
            raise
        if turn is not None:
            turn.leave(b"")
        self._wait_count = self._thresholds.spill_packs
        self._wait_bytes = self._thresholds.spill_bytes

    def _settle(self, run: _Run, slice_packs: int) -> bool:
        """What comes when all is gathered, a step a call: mirror the journal, seal, install,
        remove. False at last.
        """
        if not run.staged:
            run.staged = True
            if not run.missed:
                run.mirrored = stage_segments(self._objects.catalog, run.batch, run.seq)
            if run.batch.is_empty:
                run.batch.abandon()
                return False
            return True
        if not run.sealed:
            run.batch.seal()
            run.sealed = True
            return True
        if run.outputs is None:
            run.outputs = self._install(run)
            return True
        limit = REMOVE_SLICE if slice_packs >= REMOVE_SLICE else REMOVE_AFTER
        wanted = run.gathered[run.removed : run.removed + limit]
        run.removed += len(wanted)
        stands = self._remove(wanted, run.outputs)
        self._objects.lookup.refresh()
        return stands and run.removed < len(run.gathered)

    def _gather(self, run: _Run, limit: int) -> bool:
        """Stage new copies of the live objects of the next packs; False when there are none.

        A pack moves as one piece when all of it is wanted, else record by record. Nothing is
        hashed again: a damaged payload is as damaged in its new place, and every read and fsck
        still says so. A pack whose footer or file cannot be read stays as it is, and so does one
        with another copy of an object of which a damaged one was taken before, or one that is a
        delta of more depth: something may hang on the lower one.
        """
        found = False
        seen = run.seen
        for pack, footer, body in self._next(run, limit):
            found = True
            ids = footer.ids()
            twice = seen.intersection(ids)
            if twice and not (_are_low(run, footer, twice) and self._are_good(run.batch, twice)):
                run.missed = run.missed or pack.file is None
                continue
            run.gathered.append(pack)
            if footer.edge_count:
                run.depths.update((slot.id, slot.depth) for slot in footer.slots() if slot.depth)
            bits = run.state.vectors.get(pack.number)
            if bits is None and not twice:
                run.batch.copy_pack(body, footer)
                seen.update(ids)
            else:
                wanted = list(_wanted(footer, body, bits, seen))
                run.batch.rewrite(wanted)
                seen.update(item.id for item in wanted)
        return found

    def _are_good(self, batch: Batch, ids: set[bytes]) -> bool:
        """Whether the copies of these objects that were taken already are what they should be."""
        try:
            return all(digest_of(*self._objects.staged(batch, id)) == id for id in ids)
        except Corrupt:
            return False

    def _next(self, run: _Run, limit: int) -> Iterator[tuple[PackInfo, Footer, bytes]]:
        objects = self._objects
        if run.inline:
            with objects.catalog.read() as reader:
                rows = reader.bodies(run.after, limit)
            for number, footer_bytes, body in rows:
                run.after = number
                pack = run.inline.pop(number, None)
                if pack is None:
                    continue
                try:
                    footer = _footer_of(pack, footer_bytes or b"", body)
                except Corrupt:
                    run.missed = True
                    continue
                yield pack, footer, body
            if len(rows) < limit:
                run.inline.clear()
                if run.missed:
                    # Then nothing is mirrored, and no file may go.
                    run.files.clear()
            return
        while run.files:
            pack = run.files.pop()
            assert pack.file is not None
            try:
                footer = objects.lookup.footer(pack)
                yield pack, footer, objects.bucket.read(pack.file, 0, footer.body_bytes)
            except Corrupt:
                continue
            return

    def _install(self, run: _Run) -> list[Output]:
        """Name the new packs; a slot none of whose sources exists any more is born gone (E4)."""
        run.batch.seal()
        with self._objects.catalog.write() as writer:
            head = writer.head()
            rows = run.batch.install(writer, head)
            exists = None
            if head.removal_version > run.state.version:
                exists = still_existing(writer, run.gathered, self._objects)
            outputs = []
            for row, footer in rows:
                bits = bytearray((footer.count + 7) // 8)
                if exists is not None:
                    for number, (id, _, _, _, kind, *_) in enumerate(footer.rows()):
                        if id not in exists and kind != Kind.SEGMENT:
                            bits[number >> 3] |= 1 << (number & 7)
                if any(bits):
                    writer.set_vector(row.number, row.number, bytes(bits))
                outputs.append((row.number, footer, bytes(bits)))
            if run.mirrored > (writer.cursor(MIRRORED) or 0):
                writer.set_cursor(MIRRORED, run.mirrored)
        run.batch.resolved()
        return outputs

    def _remove(self, wanted: list[PackInfo], outputs: list[Output]) -> bool:
        """Take gathered packs out, if what replaces them still stands; whether it does."""
        with self._objects.catalog.write() as writer:
            if not stand(writer, outputs):
                return False
            alive = set(writer.pack_numbers())
            present = [pack for pack in wanted if pack.number in alive]
            if present:
                head = writer.head()
                files = [pack_name(pack.file) for pack in present if pack.file is not None]
                writer.add_unlinked(files, head.seq)
                writer.remove_packs(
                    [pack.number for pack in present], head.version + 1, head.condemn_seq
                )
        remove_unlinked(self._objects.catalog, self._objects.bucket)
        return True


def _footer_of(pack: PackInfo, footer_bytes: bytes, body: bytes) -> Footer:
    """The footer of an inline pack as it was read back. Raises `CorruptPack`.

    One slot that is wrong would make the footer of the new pack wrong, and hide everything in
    it: so it is the one that this handle made, byte by byte, or it is checked in full.
    """
    known = pack.footer
    if pack.own and known is not None and len(body) == known.body_bytes:
        start = FOOTER_HEAD_BYTES
        if footer_bytes[start : start + len(known.table)] == known.table and not known.edge_count:
            return known
    return decode_inline(body, footer_bytes, pack.label)


def _is_young(pack: PackInfo, thresholds: Thresholds) -> bool:
    return pack.file is None or pack.body_bytes < thresholds.spill_small_pack_bytes


def _are_low(run: _Run, footer: Footer, ids: set[bytes]) -> bool:
    """Whether none of these objects has less depth in this pack than where it was taken from."""
    deep = ids & run.depths.keys()
    return all(footer.slot(footer.find(id)).depth >= run.depths[id] for id in deep)


def _wanted(
    footer: Footer, body: bytes, bits: bytes | None, seen: set[bytes]
) -> Iterator[Submitted]:
    """The live records of a pack that no other gathered pack had."""
    for number, row in enumerate(footer.rows()):
        id, offset, stored, raw_bytes, kind, codec, depth, _flags, group = row
        if id not in seen and not bit_is_set(bits, number):
            start = offset + RECORD_HEADER_BYTES
            payload = body[start : start + stored]
            yield Submitted(id, kind, payload, codec, raw_bytes, depth, group)


def still_existing(
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


def stand(reader: CatalogReader, outputs: Sequence[Output]) -> bool:
    """Whether every new copy still exists: nobody has taken it for the redundant one."""
    alive = set(reader.pack_numbers())
    vectors = {number: bits for number, _version, bits in reader.vectors()}
    return all(
        number in alive and vectors.get(number, bytes(len(bits))) == bits
        for number, _footer, bits in outputs
    )
