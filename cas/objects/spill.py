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

from collections.abc import Iterator
from typing import Final

from cas.catalog.catalog import DICTIONARIES, MIRRORED, Turn
from cas.errors import Condemned, Corrupt, WasPurged
from cas.limits import Thresholds
from cas.model.ids import Kind, digest_of
from cas.objects.batch import Batch
from cas.objects.gather import (
    Output,
    Run,
    are_low,
    footer_of,
    live,
    moves_whole,
    sort_out,
    stand,
    still_existing,
    wanted,
)
from cas.objects.lessons import COPIES, Rest
from cas.objects.mirror import stage_segments
from cas.objects.packs import PackInfo, pack_name
from cas.objects.segments import homes
from cas.objects.store import ObjectStore
from cas.objects.training import Training
from cas.objects.unlink import remove_unlinked
from cas.storage.pack import Footer
from cas.storage.record import COMMON_GROUP, TAG_BYTES

GATHER_SLICE: Final = 64
"""Packs gathered after one commit: a few milliseconds."""

REMOVE_SLICE: Final = 2048
"""Rows removed in one write transaction: well under 50 ms at the gate."""

REMOVE_AFTER: Final = 512
"""Rows removed after one commit: a few milliseconds."""

PATIENCE: Final = 64
"""Commits after which a spill of another handle that made no step is taken for forgotten."""

_TRIES: Final = 4
"""Runs that are begun, one after the other, where gc or a purge overtakes each."""


class Spill:
    """The spill of one store handle. The handle calls it under a lock of its own."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._run: Run | None = None
        # The note of another handle, and how often it was found.
        self._met = (b"", 0)
        self._thresholds = objects.thresholds
        self._wait_count = objects.thresholds.spill_packs
        self._wait_bytes = objects.thresholds.spill_bytes
        self._rest = Rest()
        # Bytes of small packs that are not gathered, because the archive rests on them.
        self._staying_bytes = 0

    @property
    def due(self) -> bool:
        """Whether there is something to do after a commit."""
        lookup = self._objects.lookup
        wait_bytes = self._wait_bytes + self._staying_bytes
        return self._run is not None or lookup.outgrows(self._wait_count, wait_bytes)

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
            return len(self._carry(turn, wait=True).gathered)

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
            if self._run is not None:
                self._carry(turn)
            with objects.catalog.read() as reader:
                reached, seq = reader.cursor(MIRRORED) or 0, reader.head().seq
            if reached < seq and self._begin(mirror=True):
                self._carry(turn, mirror=True)
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
            self._carry(turn, wait=True)

    def _carry(self, turn: Turn | None, *, wait: bool = False, mirror: bool = False) -> Run:
        """Carry the spill under way to its end; one that gc has overtaken is begun anew."""
        run = self._run
        assert run is not None
        for _ in range(_TRIES):
            while self._run is not None:
                self._guarded(REMOVE_SLICE, turn, wait=wait)
            if not run.overtaken or not self._begin(mirror=mirror):
                break
            run = self._run
            assert run is not None
        self.abandon()
        return run

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
            stay = homes(reader)
        objects.catalog.harden(reading=True)
        young = [pack for pack in list(state.packs.values()) if _is_young(pack, self._thresholds)]
        sources = [pack for pack in young if pack.number not in stay]
        self._staying_bytes = sum(pack.body_bytes for pack in young if pack.number in stay)
        if len(sources) < 2:
            if not mirror:
                return False
            # One small file alone is where it should be.
            sources = [pack for pack in sources if pack.file is None]
        self._run = Run(objects, state, seq, sources)
        if DICTIONARIES in objects.meta.features:
            objects.dictionaries.look_again(COMMON_GROUP)
            least = self._thresholds.dictionary_samples_bytes
            if self._rest.is_over() and sum(pack.body_bytes for pack in sources) >= least:
                current = objects.dictionaries.current(COMMON_GROUP)
                self._run.training = Training(objects, sources, current, least)
        return True

    def _guarded(self, slice_packs: int, turn: Turn | None, *, wait: bool = False) -> None:
        run = self._run
        assert run is not None
        try:
            if (
                self._learn(run, slice_packs, wait=wait)
                or self._gather(run, slice_packs)
                or self._settle(run, slice_packs)
            ):
                run.steps += 1
                if turn is not None:
                    turn.leave(run.name + run.steps.to_bytes(8, "big"))
                return
            self._run = None
        except (Condemned, WasPurged) as error:
            # What was gathered before it was given up: of the next run it is no part.
            run.overtaken = True
            self.abandon(error)
        except BaseException as error:
            self._run = run
            # Not again with the next commit: a full disk is not emptied by trying.
            lookup = self._objects.lookup
            small_bytes = lookup.small_bytes - self._staying_bytes
            self._wait(lookup.inline_count, lookup.inline_bytes + small_bytes)
            self.abandon(error)
            if turn is not None:
                turn.leave(b"")
            raise
        if turn is not None:
            turn.leave(b"")
        if run.overtaken:
            return
        # Nor again for what could not be gathered, or is small when it was.
        left = run.sources.keys() - {pack.number for pack in run.gathered}
        made_bytes = sum([footer.body_bytes for _number, footer, _bits in run.outputs or ()])
        left_bytes = sum([run.sources[number].body_bytes for number in left])
        small = made_bytes < self._thresholds.spill_small_pack_bytes
        self._wait(len(left), left_bytes + made_bytes * small)

    def _settle(self, run: Run, slice_packs: int) -> bool:
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

    def _wait(self, left_count: int, left_bytes: int) -> None:
        """Begin the next one when as much as makes one due has come to what was left."""
        self._wait_count = left_count + self._thresholds.spill_packs
        self._wait_bytes = left_bytes + self._thresholds.spill_bytes

    def _learn(self, run: Run, limit: int, *, wait: bool) -> bool:
        """Look for a dictionary that pays for what will be gathered; whether that goes on."""
        if not run.learns:
            return False
        if run.training is not None:
            if run.training.step(limit, wait=wait):
                return True
            found, run.training = run.training.found, None
            self._rest.begin(found=found is not None)
            run.use(found)
        dictionaries, current = self._objects.dictionaries, run.batch.beside(COMMON_GROUP)
        # All that is written beside it hangs on it: a second pack has a copy too.
        if (
            run.made is None
            and current is not None
            and dictionaries.copies(current.id, COMMON_GROUP) < COPIES
        ):
            run.use(current)
        run.learns = False
        return False

    def _gather(self, run: Run, limit: int) -> bool:
        """Stage new copies of the live objects of the next packs; False when there are none.

        Records move as they lie, but for those that are to be compressed. Nothing is hashed
        again: a damaged payload is as damaged in its new place, and every read and fsck still
        says so. A pack whose footer or file cannot be read stays as it is, and so does one with
        another copy of an object of which a damaged one was taken before, or one that is a delta
        of more depth: something may hang on the lower one.
        """
        found = False
        seen = run.seen
        for pack, footer, body in self._next(run, limit):
            found = True
            ids = footer.ids()
            twice = seen.intersection(ids)
            if twice and not (are_low(run, footer, twice) and self._are_good(run.batch, twice)):
                run.missed = run.missed or pack.file is None
                continue
            run.gathered.append(pack)
            beside = run.batch.beside(COMMON_GROUP)
            bits = run.state.vectors.get(pack.number)
            if not twice and moves_whole(footer, bits, beside):
                seen.update(ids)
                run.batch.files().copy(body, footer)
                continue
            rows = live(footer, bits, twice)
            seen.update([row[0] for row in rows])
            if footer.edge_count:
                run.depths.update([(row[0], row[6]) for row in rows if row[6]])
            stay, again = sort_out(rows, body, beside)
            if len(stay) == footer.count and pack.file is not None:
                run.batch.files().copy(body, footer)
                continue
            if stay:
                records = [(body, row) for row in stay]
                run.batch.files().copy_records(records, footer.dictionaries())
            if again:
                dictionaries = self._objects.dictionaries
                tags = {id[:TAG_BYTES]: id for id in footer.dictionaries()}
                run.batch.rewrite(
                    [wanted(dictionaries, pack, tags, body, row) for row in again], proved=False
                )
        return found

    def _are_good(self, batch: Batch, ids: set[bytes]) -> bool:
        """Whether the copies of these objects that were taken already are what they should be."""
        try:
            return all(digest_of(*self._objects.staged(batch, id)) == id for id in ids)
        except Corrupt:
            return False

    def _next(self, run: Run, limit: int) -> Iterator[tuple[PackInfo, Footer, bytes]]:
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
                    footer = footer_of(pack, footer_bytes or b"", body)
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

    def _install(self, run: Run) -> list[Output]:
        """Name the new packs; a slot none of whose sources exists any more is born gone (E4)."""
        run.batch.seal()
        with self._objects.catalog.write() as writer:
            head = writer.head()
            rows = run.batch.install(writer, head)
            exists = None
            if head.removal_version > run.state.version:
                exists = still_existing(writer, run.gathered, self._objects)
            outputs = []
            own = None if run.made is None else run.made.id
            for row, footer in rows:
                bits = bytearray((footer.count + 7) // 8)
                if exists is not None:
                    for number, (id, _, _, _, kind, *_) in enumerate(footer.rows()):
                        if id not in exists and id != own and kind != Kind.SEGMENT:
                            bits[number >> 3] |= 1 << (number & 7)
                if any(bits):
                    writer.set_vector(row.number, row.number, bytes(bits))
                outputs.append((row.number, footer, bytes(bits)))
            if run.mirrored > (writer.cursor(MIRRORED) or 0):
                writer.set_cursor(MIRRORED, run.mirrored)
        run.batch.resolved(rows)
        if run.made is not None:
            self._objects.dictionaries.use(run.made, COMMON_GROUP)
        return outputs

    def _remove(self, wanted: list[PackInfo], outputs: list[Output]) -> bool:
        """Take gathered packs out, if what replaces them still stands; whether it does."""
        with self._objects.catalog.write() as writer:
            if not stand(writer, outputs):
                return False
            # What the archive has come to rest on meanwhile stays as well.
            numbers = [pack.number for pack in wanted] or [0]
            alive = set(writer.pack_numbers(min(numbers), max(numbers))) - homes(writer)
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


def _is_young(pack: PackInfo, thresholds: Thresholds) -> bool:
    return pack.file is None or pack.body_bytes < thresholds.spill_small_pack_bytes
