"""Backups of a store in a folder, the way back from them, and their proof.

Floor 8. Invariant: a backup is never a store and no store is ever made under the name of another:
what is restored begins a lineage of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import evolve

from cas.catalog.catalog import Meta
from cas.catalog.postgres_place import PostgresPlace, is_postgres
from cas.catalog.sqlite import create_catalog, open_catalog
from cas.clock import Clock, SystemClock
from cas.errors import StorageFailed
from cas.history.store import Store
from cas.history.upkeep import BackupReport
from cas.later import Later
from cas.maintenance.backups.make import backup as make_backup
from cas.maintenance.backups.vault import PROOFS, open_vault, refuse_nested
from cas.maintenance.findings import OnProgress
from cas.maintenance.folder import CATALOG, LOCKS
from cas.maintenance.newstore import build, refuse_taken
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket
from cas.storage.files import OS_FILES, Files, translate
from cas.storage.place import bucket_in, folder_of

if TYPE_CHECKING:
    from cas.history.retention import KeepRule
    from cas.maintenance import hosted
    from cas.maintenance.backups import expire as expiring
    from cas.maintenance.backups import prove as proving
    from cas.maintenance.backups import refill as filling
    from cas.maintenance.backups import restore as restoring
    from cas.maintenance.backups.expire import Expired, ExpiryPlan
    from cas.maintenance.backups.prove import ProofReport
    from cas.maintenance.backups.restore import RestoreReport
else:
    # A backup is made every day, and proved or restored seldom.
    hosted = Later("cas.maintenance.hosted")
    expiring = Later("cas.maintenance.backups.expire")
    filling = Later("cas.maintenance.backups.refill")
    proving = Later("cas.maintenance.backups.prove")
    restoring = Later("cas.maintenance.backups.restore")

Place = str | os.PathLike[str]

PROOF_VERSION: Final = 1


def backup(
    store: Store,
    place: Place,
    *,
    accept_damage: bool = False,
    progress: OnProgress = None,
    files: Files = OS_FILES,
) -> BackupReport:
    """Back a store up into a folder, which is made where there is none.

    Consistent as of one moment while others write; what it costs follows what is new since the
    last backup there. A run that is stopped leaves the backup as it was, and the next one goes on
    with what was copied. Every pack is verified on its way: what is damaged in the store is told
    as `CorruptPack`, and nothing is recorded, unless `accept_damage`. What the store has purged
    goes from all positions of the backup as well, which the report says. Raises `BackupMismatch`,
    `NotABackup`, `Busy`, `Invalid` for a folder inside the store, and what a write raises.
    """
    return make_backup(
        store.objects,
        store.location,
        os.fspath(place),
        stones=store.purged,
        accept_damage=accept_damage,
        progress=progress,
        files=files,
    )


def plan_expiry(place: Place, rule: KeepRule, *, clock: Clock | None = None) -> ExpiryPlan:
    """Which positions of a backup a rule would give up, and what room that makes; writes nothing.

    Times are those at which the positions were made; the pattern of the rule does not count. The
    newest position always stays. Raises `BackupNotFound`, `CorruptBackup`.
    """
    with open_vault(folder_of(place, "A backup"), clock or SystemClock()) as vault:
        return expiring.plan_expiry(vault, rule)


def expire(plan: ExpiryPlan, *, clock: Clock | None = None, files: Files = OS_FILES) -> Expired:
    """Give up the positions of a backup that a plan names, and the packs that only they had.

    The journal stays whole; other positions can be restored as before. Stopped at any point, the
    backup is as it was or without them. Raises `Invalid` where the backup is another one since,
    `Busy` while one is written there, `CorruptBackup`, and what a write raises.
    """
    clock = clock or SystemClock()
    with open_vault(plan.place, clock, write=True, files=files) as vault:
        return expiring.expire(vault, clock, plan)


def restore_store(
    place: Place,
    target: Place,
    *,
    seq: int | None = None,
    time_us: int | None = None,
    accept_damage: bool = False,
    progress: OnProgress = None,
    bucket: str | None = None,
    clock: Clock | None = None,
    files: Files = OS_FILES,
) -> RestoreReport:
    """Make a store of a backup, in a folder that is missing or empty, or at a URL of a server
    (`postgresql://…?store=NAME`) that has no store of that name.

    It is the store as it was after entry `seq`, or at a time (µs since 1970 UTC), else the newest
    that was backed up. It has the ids, refs and journal of the original up to there, and a lineage
    of its own; with `bucket` its packs lie there, as in `cas.init`. The folder appears whole or
    not at all. Raises `BackupNotFound`, `CorruptBackup`, `EntryNotFound`, `Gone`, `NotAStore`,
    and what `init` and a write raise.
    """
    clock = clock or SystemClock()
    source = folder_of(place, "A backup")
    if is_postgres(os.fspath(target)):
        when = seq, time_us
        server = hosted.parse_hosted(os.fspath(target)), bucket
        return _restore_hosted(source, server, when, accept_damage, progress, clock)
    folder = folder_of(target, "A store")
    refuse_nested(source, folder)
    refuse_taken(folder)
    with open_vault(source, clock) as vault:
        image = restoring.choose(vault, seq=seq, time_us=time_us, accept_damage=accept_damage)
        done: list[RestoreReport] = []

        def fill(building: str) -> None:
            objects = open_new(building, filling.fork_of(image, clock.random(16)), clock, files)
            try:
                done.append(
                    restoring.fill_store(
                        image, objects, accept_damage=accept_damage, progress=progress
                    )
                )
            finally:
                objects.close()

        if not build(folder, clock, files=files, fill=fill, bucket=bucket):
            refuse_taken(folder)
    return evolve(done[0], target=folder)


def _restore_hosted(
    source: str,
    target: tuple[PostgresPlace, str | None],
    when: tuple[int | None, int | None],
    accept_damage: bool,
    progress: OnProgress,
    clock: Clock,
) -> RestoreReport:
    server, bucket = target
    with open_vault(source, clock) as vault:
        image = restoring.choose(vault, seq=when[0], time_us=when[1], accept_damage=accept_damage)
        done: list[RestoreReport] = []

        def fill(_bucket: Bucket, open_new: Callable[[Meta], ObjectStore]) -> None:
            objects = open_new(filling.fork_of(image, clock.random(16)))
            try:
                done.append(
                    restoring.fill_store(
                        image, objects, accept_damage=accept_damage, progress=progress
                    )
                )
            finally:
                objects.close()

        if not hosted.fill_hosted(server, bucket, clock, fill):
            raise hosted.taken(server)
    return evolve(done[0], target=server.shown)


def open_new(building: str, meta: Meta, clock: Clock, files: Files = OS_FILES) -> ObjectStore:
    """Make the catalog of a store that is being built, and open it."""
    path = os.path.join(building, CATALOG)
    create_catalog(path, meta)
    catalog = open_catalog(path, os.path.join(building, LOCKS))
    return ObjectStore(catalog, bucket_in(building, clock, files), clock)


def prove(
    place: Place,
    *,
    seq: int | None = None,
    time_us: int | None = None,
    source: Store | None = None,
    scratch: Place | None = None,
    progress: OnProgress = None,
    clock: Clock | None = None,
) -> tuple[ProofReport, str]:
    """Rebuild a position of a backup (the newest) and compare everything; the report, and the
    file below `proofs/` of the backup that keeps it.

    Reads every byte of every file of the backup. `scratch` is a folder for the rebuilt catalog,
    else that of the system; `source` the living store, to be compared too. Damage is no error but
    stands in the report. Raises `BackupNotFound`, `EntryNotFound`, and what a write raises.
    """
    # Loaded here: together they take as long as a small backup.
    import shutil
    import tempfile

    clock = clock or SystemClock()
    folder = folder_of(place, "A backup")
    with open_vault(folder, clock) as vault:
        below = tempfile.mkdtemp(prefix="cas-prove-", dir=scratch)
        try:
            report = proving.prove(
                vault, below, clock, seq=seq, time_us=time_us, source=source, progress=progress
            )
        finally:
            shutil.rmtree(below, ignore_errors=True)
    return report, _keep(folder, report)


def proof_fields(report: ProofReport) -> dict[str, object]:
    """A proof as plain values, as its file has it."""
    return {
        "ok": report.ok,
        "backup": report.place,
        "time_us": report.wall_us,
        "increment": report.increment,
        "seq": report.seq,
        "root": report.root.hex(),
        "journal_hash": report.journal_hash.hex(),
        "objects": report.object_count,
        "size": report.content_bytes,
        "packs": report.pack_count,
        "entries": report.entry_count,
        "increments": report.increment_count,
        "compared_packs": report.compared_packs,
        "known_damage": [id.hex() for id in report.known],
        "faults": [{"subject": f.subject, "message": f.message} for f in report.faults],
    }


def _keep(folder: str, report: ProofReport) -> str:
    """Write the report beside the backup; the path of its file."""
    below = os.path.join(folder, PROOFS)
    document = {"schema": "cas.proof", "version": PROOF_VERSION, **proof_fields(report)}
    path = os.path.join(below, f"{report.wall_us:020d}.json")
    try:
        os.makedirs(below, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    except FileExistsError as error:
        raise StorageFailed(f"{path} exists already.", path=path, errno=error.errno) from error
    except OSError as error:
        translate(error, path)
    return path
