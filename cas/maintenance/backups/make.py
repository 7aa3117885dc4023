"""Make a backup: copy what a vault lacks, then write the increment that makes it count.

Floor 5. Invariant: an increment is written when all that its state names lies durable in the vault,
and verified on its way there; a backup that ends before leaves the vault as it was, but for packs
that the next one finds there. Readers, writers and the collector go on beside it: it takes no turn
at the gate, opens no session and holds nothing (docs/design/014 says why none is needed).

What it costs follows what is new: pack files are copied once, whole; of the catalog the entries
behind the last backup, the bodies of new inline packs, and one line a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from cas.catalog.catalog import EntryRow, PackRow
from cas.errors import BackupMismatch, Busy, CasError, Corrupt, CorruptPack, MissingPack, NotFound
from cas.history.tombstones import Tombstone
from cas.history.upkeep import BackupReport as BackupReport
from cas.later import Later
from cas.limits import PACK_BYTES_TARGET
from cas.maintenance.backups.capture import Captured, capture, is_same_lineage
from cas.maintenance.backups.carry import Damage, carry_packs, check_file, damaged_inline
from cas.maintenance.backups.following import SEGMENT_ENTRIES, broken, follow, next_group
from cas.maintenance.backups.increment import (
    Held,
    Index,
    PackLine,
    SegmentLine,
    State,
    VectorLine,
)
from cas.maintenance.backups.rewrite import is_swept, sweep
from cas.maintenance.backups.stones import STONES, digest_of_stones, stone_rows
from cas.maintenance.backups.vault import (
    IncrementWriter,
    Vault,
    check_of,
    open_vault,
    origin_of,
    refuse_nested,
)
from cas.maintenance.findings import OnProgress, Progress
from cas.maintenance.fsck.packs import is_out_of_reach
from cas.model.entry import genesis_hash
from cas.model.ids import Kind
from cas.objects.mirror import segment_of
from cas.objects.packs import file_name
from cas.objects.store import ObjectStore
from cas.storage.files import OS_FILES, Files
from cas.storage.place import folder_of

if TYPE_CHECKING:
    from cas.maintenance.backups import cleanse as cleansing
else:
    # Few backups meet what was purged.
    cleansing = Later("cas.maintenance.backups.cleanse")

ROUNDS_MAX: Final = 8
"""How often the store is looked at anew because packs were replaced while they were copied."""

_DAMAGED_MAX: Final = 1000
"""Damaged objects that an increment names."""


def backup(
    objects: ObjectStore,
    location: str,
    place: str,
    *,
    stones: Callable[[], Sequence[Tombstone]] = list,
    accept_damage: bool = False,
    progress: OnProgress = None,
    files: Files = OS_FILES,
) -> BackupReport:
    """Back the store at `location` up into a folder; what `stones` says was purged goes there too.

    Raises `BackupMismatch`, `Corrupt` for what is damaged in the store (nothing is recorded then,
    unless the damage is accepted, which the increment tells), `Busy` when packs are replaced
    faster than they can be copied, and what either side refuses.
    """
    folder = folder_of(place, "A backup")
    refuse_nested(location, folder)
    with open_vault(folder, objects.clock, write=True, files=files) as vault:
        if not is_swept(vault):
            sweep(vault)
        purged = _purged(stones, accept_damage)
        report = _Backup(objects, vault, purged, accept_damage, progress).run()
        newest = vault.newest()
        if not purged or newest is None or newest[1].purged == digest_of_stones(purged):
            return report
        done = cleansing.cleanse(vault, objects.clock, purged)
        found = vault.newest()
        assert found is not None
        return evolve(report, increment=found[1].number, purged=done.ids, purge_left=done.left)


def _purged(stones: Callable[[], Sequence[Tombstone]], accept_damage: bool) -> Sequence[Tombstone]:
    """What was purged; nothing where that is damaged itself, and damage is accepted."""
    try:
        return stones()
    except Corrupt:
        if not accept_damage:
            raise
        return ()


class _Backup:
    def __init__(
        self,
        objects: ObjectStore,
        vault: Vault,
        stones: Sequence[Tombstone],
        accept_damage: bool,
        progress: OnProgress,
    ) -> None:
        self._objects = objects
        self._vault = vault
        self._stones = stones
        self._accept = accept_damage
        self._progress = progress
        self._damage: list[Damage] = []
        self._checks: dict[bytes, bytes] = {}
        self._new_packs = self._new_bytes = self._bytes_total = self._entries = 0
        found = vault.newest()
        self._newest_id: bytes | None = None if found is None else found[0]
        self._newest: Index | None = None if found is None else found[1]
        if self._newest is not None:
            # On top of a gap an increment would be as lost as what is behind the gap already.
            chain = [number for number in vault.numbers() if number >= self._newest.base]
            for due, number in enumerate(chain, self._newest.base):
                if due != number:
                    vault.reader(due)
        # The newest increment may only carry a part of a journal: the state is that before it.
        self._known = self._newest
        if self._known is not None and self._known.state is None:
            self._known = self._last_state()

    def _last_state(self) -> Index | None:
        newest = self._newest
        assert newest is not None
        for number in range(newest.number, newest.base - 1, -1):
            index = self._vault.reader(number).index()[1]
            if index.state is not None:
                # What the chain holds of the journal is more than this state's.
                return evolve(
                    index, journal_seq=newest.journal_seq, journal_hash=newest.journal_hash
                )
        return newest

    def run(self) -> BackupReport:
        for _ in range(ROUNDS_MAX):
            self._damage.clear()
            self._report("catalog")
            try:
                captured = capture(self._objects, self._known)
            except BackupMismatch as error:
                raise BackupMismatch(
                    error.message.replace("This backup", f"The backup at {self._vault.place}"),
                    path=self._vault.place,
                    reason=error.reason,
                ) from None
            if self._is_unchanged(captured):
                assert self._newest is not None
                return self._answer(self._newest.number, captured, written=False)
            if self._carry(captured) and self._check_inline(captured):
                self._refuse_damage()
                self._vault.packs.sync()
                return self._answer(self._write(captured), captured, written=True)
        raise Busy(
            "Packs were replaced faster than they could be copied; nothing was recorded, and what "
            "was copied is there for the next try.",
            waited_ms=0,
        )

    def _report(self, phase: str) -> None:
        if self._progress is not None:
            count = self._new_packs + self._entries
            self._progress(Progress(phase, count, self._new_bytes, self._bytes_total))

    def _answer(self, number: int, captured: Captured, *, written: bool) -> BackupReport:
        return BackupReport(
            self._vault.place,
            number,
            captured.head.seq,
            written,
            len(captured.rows),
            self._new_packs,
            self._entries,
            self._new_bytes,
            tuple(self._damage),
            self._damaged(),
        )

    def _is_unchanged(self, captured: Captured) -> bool:
        newest, head = self._newest, captured.head
        if newest is None or newest.state is None:
            return False
        state = newest.state
        return (
            origin_of(self._objects.meta) == newest.origin
            and (head.seq, head.version, head.removal_version, head.condemn_seq)
            == (state.seq, state.version, state.removal_version, state.condemn_seq)
            and not self._lacking(captured)
        )

    # -- packs -------------------------------------------------------------------------------

    def _lacking(self, captured: Captured) -> list[tuple[PackRow, bytes | None]]:
        """Pack files that the vault has not, or not to their end, which is told by their length."""
        there = {file.name: file.size_bytes for file in self._vault.packs.list()}
        return [
            (row, captured.bits(row.number))
            for row in captured.rows
            if row.name is not None and there.get(file_name(row.name), 0) <= row.body_bytes
        ]

    def _carry(self, captured: Captured) -> bool:
        """Copy what is lacking; False when a pack was replaced meanwhile."""
        lacking = self._lacking(captured)
        self._bytes_total += sum([row.body_bytes for row, _bits in lacking])
        try:
            for done in carry_packs(
                self._objects, lacking, self._vault.packs, accept_damage=self._accept
            ):
                assert done.row.name is not None
                self._checks[done.row.name] = done.check
                self._new_packs += done.stored_bytes > 0
                self._new_bytes += done.stored_bytes
                if done.damage is not None:
                    self._damage.append(done.damage)
                self._report("packs")
        except MissingPack as error:
            if self._is_named(captured, error):
                raise
            return False
        return True

    def _is_named(self, captured: Captured, error: MissingPack) -> bool:
        """Whether the catalog still names the pack that is not there."""
        with self._objects.catalog.read() as reader:
            alive = set(reader.pack_numbers())
        return any(
            row.number in alive and row.name is not None and file_name(row.name) == error.pack
            for row in captured.rows
        )

    def _check_inline(self, captured: Captured) -> bool:
        """Look for damage in inline packs; False when one was replaced meanwhile."""
        for number, (footer, body) in captured.inline.items():
            try:
                damage = damaged_inline(self._objects, number, body, footer, captured.bits(number))
            except MissingPack:
                return False
            if damage is not None:
                self._damage.append(damage)
        return True

    def _refuse_damage(self) -> None:
        if self._damage and not self._accept:
            first = self._damage[0]
            ids = [id.hex() for damage in self._damage for id in damage.ids]
            what = f"objects: {len(ids)}, first {ids[0]}" if ids else first.reason
            raise CorruptPack(
                f"Damaged packs of the store: {len(self._damage)}, first {first.pack} ({what}); "
                "nothing was recorded. Run `cas fsck`, repair the store, or accept the damage, "
                "which the backup then tells.",
                pack=first.pack,
                offset=-1,
            )

    # -- the increment -----------------------------------------------------------------------

    def _write(self, captured: Captured) -> int:
        """Write the increment, and before it as many as a long journal needs; its number."""
        number = 1 if self._newest is None else self._newest.number + 1
        seq, hash = 0, genesis_hash(self._objects.meta.store_id)
        if self._newest is not None:
            seq, hash = self._newest.journal_seq, self._newest.journal_hash
        previous = self._newest_id
        clock = self._objects.clock
        entries = self._new_entries(seq, captured.head.seq)
        while True:
            writer = IncrementWriter(self._vault.increments, self._objects.meta, clock.wall_us())
            try:
                segments: list[SegmentLine] = []
                while writer.size_bytes < PACK_BYTES_TARGET and seq < captured.head.seq:
                    group = next_group(entries)
                    hash = follow(group, seq, hash)
                    last = group[-1].seq
                    id = writer.add(Kind.SEGMENT, segment_of(self._objects.meta, group))
                    segments.append(SegmentLine(seq + 1, last, id))
                    seq = last
                    self._entries += len(group)
                    self._report("journal")
                ended = seq == captured.head.seq
                if ended and hash != captured.head.hash:
                    raise broken(seq)
                index = Index(
                    number,
                    previous,
                    clock.wall_us(),
                    origin_of(self._objects.meta),
                    seq,
                    hash,
                    tuple(segments),
                    tuple(captured.checkpoints) if ended else (),
                    self._state(writer, number, captured) if ended else None,
                    self._damaged() if ended else (),
                    self._extras(captured if ended else None),
                )
                self._new_bytes += writer.seal(index)
            finally:
                writer.abort()
            if ended:
                return number
            previous = self._vault.reader(number).index()[0]
            number += 1

    def _extras(self, captured: Captured | None) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if self._newest is not None and self._newest.base > 1:
            extras["base"] = self._newest.base
        if captured is None:
            return extras
        if captured.mirrored:
            extras["mirrored"] = captured.mirrored
        if self._stones:
            extras[STONES] = stone_rows(self._stones)
            digest = digest_of_stones(self._stones)
            known = self._newest is not None and self._newest.purged == digest
            if known or self._has_none(captured):
                extras["purged"] = digest
        return extras

    def _has_none(self, captured: Captured) -> bool:
        """Whether nothing that was purged is in the vault, or in what comes now."""
        ids = {bytes(stone.id) for stone in self._stones}
        inline = [footer for footer, _body in captured.inline.values()]
        chain = [] if self._newest is None else self._vault.chain()
        return cleansing.is_clean(self._vault, chain, inline, ids)

    def _damaged(self) -> tuple[bytes, ...]:
        """Objects that are damaged now: those of this backup, and of the last one still."""
        ids = dict.fromkeys(id for damage in self._damage for id in damage.ids)
        known = self._known
        ids.update(dict.fromkeys(() if known is None else known.damaged))
        return tuple([id for id in ids if not self._is_readable(id)][:_DAMAGED_MAX])

    def _is_readable(self, id: bytes) -> bool:
        try:
            self._objects.read(id)
        except NotFound:
            return True  # it was given up, or purged, meanwhile
        except CasError as error:
            if is_out_of_reach(error):
                raise  # nothing is known of it
            return False
        return True

    def _new_entries(self, after: int, last: int) -> Iterator[EntryRow]:
        """Journal entries behind `after`, each group read in a look of its own."""
        while after < last:
            with self._objects.catalog.read() as reader:
                rows = reader.entries(after, min(SEGMENT_ENTRIES, last - after))
            if not rows:
                raise broken(after + 1)
            yield from rows
            after = rows[-1].seq

    def _state(self, writer: IncrementWriter, number: int, captured: Captured) -> State:
        old: dict[int, PackLine] = {}
        known = self._known
        if known is not None and known.state is not None and is_same_lineage(self._objects, known):
            old = {line.number: line for line in known.state.packs}
        lines = []
        for row in captured.rows:
            before = old.get(row.number)
            lines.append(
                PackLine(
                    row.number,
                    row.name,
                    row.body_bytes,
                    self._check(row, before),
                    self._body(writer, number, row, before, captured),
                    self._vector(writer, number, row, before, captured),
                )
            )
        head = captured.head
        return State(
            head.seq,
            head.hash,
            captured.root,
            head.version,
            head.removal_version,
            head.condemn_seq,
            tuple(lines),
        )

    def _check(self, row: PackRow, before: PackLine | None) -> bytes:
        if row.footer is not None:
            return check_of(row.footer)
        assert row.name is not None
        if before is not None:
            return before.check
        check = self._checks.get(row.name)
        if check is None:
            # It was there: a backup that was killed has copied it.
            check = check_file(self._vault.packs, file_name(row.name))
        return check

    @staticmethod
    def _body(
        writer: IncrementWriter,
        number: int,
        row: PackRow,
        before: PackLine | None,
        captured: Captured,
    ) -> Held | None:
        if row.name is not None:
            return None
        if before is not None:
            return before.body
        footer, body = captured.inline[row.number]
        return Held(number, writer.add(Kind.BLOB, body + footer))

    @staticmethod
    def _vector(
        writer: IncrementWriter,
        number: int,
        row: PackRow,
        before: PackLine | None,
        captured: Captured,
    ) -> VectorLine | None:
        found = captured.vectors.get(row.number)
        if found is None:
            return None
        version, bits = found
        if before is not None and before.vector is not None and before.vector.version == version:
            return before.vector
        return VectorLine(version, Held(number, writer.add(Kind.BLOB, bits)))
