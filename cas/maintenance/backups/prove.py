"""Prove a backup: make the store of it anew, and read every byte of every file that it has.

Floor 5. Invariant: a proof that says yes has rebuilt a catalog from the increments, compared root
and hash of its journal with what the backup says, decoded and hashed every object of the state, and
compared every pack file that any increment names with the digest that the increment has of it. It
writes into a scratch folder only, and ends with a report whatever is damaged.

Packs are read where they lie: the scratch store has a catalog of its own over the packs of the
vault, so that a proof needs room for a catalog and not for a second store.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from attrs import frozen

from cas.clock import Clock
from cas.errors import BackupNotFound, CasError, Corrupt, MissingPack
from cas.history.store import Store
from cas.maintenance.backups.carry import check_file
from cas.maintenance.backups.increment import Index
from cas.maintenance.backups.refill import VaultImage, rebuilt, recheckpoint
from cas.maintenance.backups.restore import choose, number_of, settle
from cas.maintenance.backups.vault import Vault, increment_file
from cas.maintenance.findings import OnProgress, Progress, Severity
from cas.maintenance.fsck.check import fsck
from cas.objects.packs import file_name
from cas.objects.store import ObjectStore

FAULTS_MAX: Final = 1000
_AGAIN: Final = "back up again while the store has it, which copies it anew."


@frozen
class Fault:
    """One thing in a backup that is not as it should be: the file, or what in it, and why."""

    subject: str
    message: str


@frozen
class ProofReport:
    """What a proof saw. Counts are of the state that was rebuilt; `compared_packs` counts the
    packs of the living store that were compared as well. `known` are objects that were damaged in
    the store already when it was backed up.
    """

    ok: bool
    place: str
    wall_us: int
    increment: int
    seq: int
    root: bytes
    journal_hash: bytes
    object_count: int
    content_bytes: int
    pack_count: int
    entry_count: int
    increment_count: int
    compared_packs: int
    known: tuple[bytes, ...]
    faults: tuple[Fault, ...]


def prove(
    vault: Vault,
    scratch: str,
    clock: Clock,
    *,
    seq: int | None = None,
    time_us: int | None = None,
    source: Store | None = None,
    progress: OnProgress = None,
) -> ProofReport:
    """Rebuild a position of a backup in the empty folder `scratch` and compare everything.

    `source` is the living store, whose packs are compared too. Raises `BackupNotFound`,
    `EntryNotFound`, `Gone`, and nothing for damage: that stands in the report.
    """
    return _Proof(vault, scratch, clock, source, progress).run(seq, time_us)


class _Proof:
    def __init__(
        self,
        vault: Vault,
        scratch: str,
        clock: Clock,
        source: Store | None,
        progress: OnProgress,
    ) -> None:
        self._vault = vault
        self._scratch = scratch
        self._clock = clock
        self._source = source
        self._progress = progress
        self._faults: list[Fault] = []
        self._compared = 0

    def run(self, seq: int | None, time_us: int | None) -> ProofReport:
        increments = self._check_increments()
        try:
            image = choose(self._vault, seq=seq, time_us=time_us)
        except BackupNotFound:
            raise
        except Corrupt as error:
            self._fault(str(error.fields.get("path") or self._vault.place), str(error))
            return self._report(None, increments, (0, 0, 0))
        counts = (0, 0, 0)
        try:
            counts = self._rebuild(image)
        except Corrupt as error:
            self._fault(str(error.fields.get("path") or self._vault.place), str(error))
        self._check_packs(image)
        if self._source is not None:
            self._compare(self._source, image)
        return self._report(image, increments, counts)

    def _fault(self, subject: str, message: str) -> None:
        fault = Fault(subject, message)
        if len(self._faults) < FAULTS_MAX and fault not in self._faults:
            self._faults.append(fault)

    def _say(self, phase: str, count: int) -> None:
        if self._progress is not None:
            self._progress(Progress(phase, count, 0, 0))

    def _report(
        self, image: VaultImage | None, increments: int, counts: tuple[int, int, int]
    ) -> ProofReport:
        objects, size_bytes, entries = counts
        state = None if image is None else image.state
        return ProofReport(
            not self._faults,
            self._vault.place,
            self._clock.wall_us(),
            0 if image is None else number_of(image),
            0 if image is None else image.seq,
            self._root if image is not None else b"",
            self._hash if image is not None else b"",
            objects,
            size_bytes,
            0 if state is None else len(state.packs),
            entries,
            increments,
            self._compared,
            () if image is None else self._index_of(image).damaged,
            tuple(self._faults),
        )

    _root = _hash = b""

    @staticmethod
    def _index_of(image: VaultImage) -> Index:
        return next(index for index in image.chain if index.state is image.state)

    # -- increments --------------------------------------------------------------------------

    def _check_increments(self) -> int:
        """Read every object of every increment."""
        numbers = self._vault.numbers()
        first, last = min(numbers, default=1), max(numbers, default=0)
        with suppress(CasError):
            if (newest := self._vault.newest()) is not None:
                first, last = newest[1].base, newest[1].number
        for number in range(first, last + 1):
            try:
                self._say("increments", self._vault.reader(number).check())
            except CasError as error:
                self._fault(increment_file(number), str(error))
        return len([number for number in numbers if first <= number <= last])

    # -- the state ---------------------------------------------------------------------------

    def _rebuild(self, image: VaultImage) -> tuple[int, int, int]:
        """Make the store anew and check it; objects, content bytes, entries."""
        with rebuilt(image, self._scratch, self._clock) as objects:
            return self._check(image, objects)

    def _check(self, image: VaultImage, objects: ObjectStore) -> tuple[int, int, int]:
        recheckpoint(objects, image)
        store = Store(objects, self._scratch)
        settle(store, image)
        report = fsck(store, progress=self._progress)
        for finding in report.findings:
            if finding.severity in (Severity.LOSS, Severity.DAMAGE):
                self._fault(finding.subject, f"{finding.code}: {finding.message}")
        with objects.catalog.read() as reader:
            moment = store.core.timeline.at(reader, image.seq)
        self._root, self._hash = moment.root, moment.hash
        if image.hash is not None and (moment.hash, moment.root) != (
            image.state.hash,
            image.state.root,
        ):
            self._fault(
                increment_file(number_of(image)),
                f"The journal rebuilt to entry {image.seq} has another hash or root than the "
                "backup says.",
            )
        return report.object_count, report.content_bytes, report.entry_count

    # -- pack files --------------------------------------------------------------------------

    def _check_packs(self, image: VaultImage) -> None:
        """Compare every pack file that an increment names with what it says of it."""
        lines = {
            line.name: line
            for index in image.chain
            for line in (() if index.state is None else index.state.packs)
            if line.name is not None
        }
        for count, (name, line) in enumerate(lines.items()):
            self._say("packs", count)
            file = file_name(name)
            try:
                if check_file(self._vault.packs, file) != line.check:
                    self._fault(
                        file,
                        f"{file} holds other bytes than were backed up. Remove it from the folder "
                        f"`packs` of the backup, and {_AGAIN}",
                    )
            except MissingPack:
                self._fault(file, f"{file} is missing; {_AGAIN}")
            except CasError as error:
                self._fault(file, str(error))

    # -- the living store --------------------------------------------------------------------

    def _compare(self, source: Store, image: VaultImage) -> None:
        """Compare the packs that the store still has with those of the backup, all bytes."""
        bucket = source.objects.bucket
        for line in image.state.packs:
            if line.name is None:
                continue
            file = file_name(line.name)
            try:
                check = check_file(bucket, file)
            except MissingPack:
                continue  # replaced meanwhile
            except CasError as error:
                self._fault(file, f"In the store itself: {error}")
                continue
            self._compared += 1
            if check != line.check:
                self._fault(file, f"{file} has other bytes in the store than in the backup.")
