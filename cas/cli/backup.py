"""`cas backup`, `cas prove` and `cas restore-store`: a second place, its proof, the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from cas.cli.form import count, named, plain, size
from cas.cli.front import Front, pass_front
from cas.cli.options import FOLDER, CasCommand
from cas.cli.output import Output
from cas.cli.progress import Bar
from cas.commands.backup import backup, proof_fields, prove, restore_store
from cas.errors import Corrupt
from cas.history.revision import parse_when, when
from cas.model.names import printable

if TYPE_CHECKING:
    from cas.maintenance.backups.carry import Damage
    from cas.maintenance.backups.make import BackupReport
    from cas.maintenance.backups.prove import ProofReport

_SHOWN: Final = 20

_AT = click.option(
    "--at", metavar="WHEN", help="The number of a journal entry, or a time; else the newest."
)
_ACCEPT = click.option(
    "--accept-damage", is_flag=True, help="Take what is whole where objects or packs are damaged."
)
_SCRATCH = click.option(
    "--scratch", metavar="FOLDER", type=FOLDER, help="Where the catalog is rebuilt for the proof."
)


@click.command("backup", cls=CasCommand)
@click.argument("place", metavar="DEST", type=FOLDER)
@click.option("--prove", "proved", is_flag=True, help="Prove the backup afterwards.")
@_SCRATCH
@_ACCEPT
@pass_front
def backup_command(
    front: Front, place: str, proved: bool, scratch: str | None, accept_damage: bool
) -> None:
    """Back the store up into another folder.

    DEST is made where there is none. What is new since the last backup there is copied and
    verified on its way; others may go on writing. A backup that was stopped is gone on with.
    Earlier positions stay: `cas restore-store` makes a store as of any journal entry of it, and
    `cas expire` gives old ones up. What was purged since goes from all of them.
    The exit code is 5 when objects of the store, or with --prove bytes of the backup, are damaged.
    """
    proof: tuple[ProofReport, str] | None = None
    with front.store() as store, Bar(front.settings) as bar:
        report = backup(store, place, accept_damage=accept_damage, progress=bar.check)
        if proved:
            proof = prove(place, source=store, scratch=scratch, progress=bar.check)
    sound = not report.damaged and not report.damage and (proof is None or proof[0].ok)
    front.exit_code = 0 if sound else Corrupt.exit_code
    if front.out.json:
        more = {} if proof is None else {"proof": _proof_fields(*proof)}
        front.out.document("backup", **_fields(report), **more)
        return
    front.out.line(f"{printable(report.place)} {report.increment} @{report.seq}")
    if report.written:
        new = f"{count(report.new_packs, 'pack')}, {count(report.new_entries, 'entry', 'entries')}"
        front.out.note(f"new: {new}, {size(report.new_bytes)}")
    else:
        front.out.note("nothing has changed since the last backup")
    if report.purged:
        front.out.note(f"purged: {count(len(report.purged), 'object')} taken out of the backup")
    if report.purge_left:
        left = count(len(report.purge_left), "purged object")
        front.out.warn(
            f"{left} stay in the backup while the store has them; end the purge with `cas purge`, "
            "and back up again"
        )
    _tell_damage(front.out, report.damage)
    if report.damaged:
        front.out.warn(
            f"{count(len(report.damaged), 'object')} of the store cannot be read; run `cas fsck`"
        )
    if proof is not None:
        _tell_proof(front.out, *proof)


def _fields(report: BackupReport) -> dict[str, Any]:
    return {
        **named("backup", report.place),
        "increment": report.increment,
        "seq": report.seq,
        "written": report.written,
        "packs": report.pack_count,
        "new_packs": report.new_packs,
        "new_entries": report.new_entries,
        "new_bytes": report.new_bytes,
        "damage": _damage_fields(report.damage),
        "damaged": [id.hex() for id in report.damaged],
        "purged": [id.hex() for id in report.purged],
        "purge_left": [id.hex() for id in report.purge_left],
    }


def _damage_fields(damage: tuple[Damage, ...]) -> list[dict[str, Any]]:
    return [
        {"pack": d.pack, "ids": [id.hex() for id in d.ids], "reason": printable(d.reason)}
        for d in damage
    ]


def _tell_damage(out: Output, damage: tuple[Damage, ...]) -> None:
    lines: list[str] = []
    for each in damage:
        lines.append(f"{each.pack} is damaged: {each.reason}")
        lines += [f"{each.pack} has lost {id.hex()}" for id in each.ids[:_SHOWN]]
    out.warn_each(lines)


@click.command("prove", cls=CasCommand)
@click.argument("place", metavar="DEST", type=FOLDER)
@_AT
@_SCRATCH
@pass_front
def prove_command(front: Front, place: str, at: str | None, scratch: str | None) -> None:
    """Prove a backup: rebuild it and read every byte.

    A catalog is rebuilt from the increments in a scratch folder, root and hash of the journal are
    compared, every object is read and hashed, and every pack of older positions compared with its
    digest. Nothing of the backup is changed; the report stays in its folder `proofs`. The exit
    code is 5 when something is damaged. No store is needed.
    """
    moment = None if at is None else parse_when(at)
    with Bar(front.settings) as bar:
        report, file = prove(
            place,
            seq=None if moment is None else moment.seq,
            time_us=None if moment is None else moment.time_us,
            scratch=scratch,
            progress=bar.check,
        )
    front.exit_code = 0 if report.ok else Corrupt.exit_code
    if front.out.json:
        front.out.document("prove", **_proof_fields(report, file))
        return
    _tell_proof(front.out, report, file)


def _proof_fields(report: ProofReport, file: str) -> dict[str, Any]:
    fields = proof_fields(report)
    del fields["time_us"]
    return {
        **{key: plain(value) for key, value in fields.items()},
        "time": when(report.wall_us, exact=True),
        **named("file", file),
    }


def _tell_proof(out: Output, report: ProofReport, file: str) -> None:
    out.lines(f"{printable(f.subject)}: {printable(f.message)}" for f in report.faults)
    state = (
        f"entry {report.seq}, {count(report.object_count, 'object')}, "
        f"{size(report.content_bytes)} in {count(report.pack_count, 'pack')}, "
        f"{count(report.increment_count, 'increment')}"
    )
    found = "proved" if report.ok else count(len(report.faults), "fault")
    out.note(f"{state}: {found}")
    out.note(f"report: {file}")


@click.command("restore-store", cls=CasCommand)
@click.argument("place", metavar="DEST", type=FOLDER)
@click.argument("target", metavar="TARGET", type=FOLDER)
@_AT
@_ACCEPT
@click.option("--bucket", metavar="URL", help="Where the packs of the store lie, as in init.")
@pass_front
def restore_store_command(
    front: Front, place: str, target: str, at: str | None, accept_damage: bool, bucket: str | None
) -> None:
    """Make a store of a backup.

    TARGET is missing or empty, and becomes the store as it was at the newest backup, or with --at
    after any journal entry of it or at a time: ids, refs and journal are those of the original.
    It begins a lineage of its own, so that it and the original never go on as one. TARGET appears
    whole or not at all.
    """
    moment = None if at is None else parse_when(at)
    with Bar(front.settings) as bar:
        report = restore_store(
            place,
            target,
            seq=None if moment is None else moment.seq,
            time_us=None if moment is None else moment.time_us,
            accept_damage=accept_damage,
            bucket=bucket,
            progress=bar.check,
        )
    front.exit_code = Corrupt.exit_code if report.damage else 0
    if front.out.json:
        front.out.document(
            "restore-store",
            **named("backup", report.place),
            **named("path", report.target),
            increment=report.increment,
            seq=report.seq,
            packs=report.pack_count,
            size=report.stored_bytes,
            damage=_damage_fields(report.damage),
            purged=[id.hex() for id in report.purged],
        )
        return
    front.out.line(printable(report.target))
    front.out.note(
        f"entry {report.seq}, {count(report.pack_count, 'pack')}, {size(report.stored_bytes)}"
    )
    if report.purged:
        front.out.note(f"left out: {count(len(report.purged), 'object')} purged since")
    _tell_damage(front.out, report.damage)


COMMANDS: Final = {
    "backup": backup_command,
    "prove": prove_command,
    "restore-store": restore_store_command,
}
