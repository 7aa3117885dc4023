"""`cas repair` and `cas salvage`: make a damaged store good, or save what can be read of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import click

from cas.cli.form import count
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand
from cas.cli.progress import Bar
from cas.errors import Corrupt
from cas.maintenance.repair.plan import RepairPlan
from cas.maintenance.repair.salvage import SalvageReport
from cas.model.names import printable

_SHOWN: Final = 20


@click.command("repair", cls=CasCommand)
@click.option(
    "--from",
    "sources",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True),
    help="A store, backup or folder that may have what is missing; may be given again.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be done and do nothing.")
@click.option("--rebuild", is_flag=True, help="Make the catalog from the packs in any case.")
@click.option("--tip", metavar="HASH", default="", help="The journal to take where packs disagree.")
@click.option("--to", "upto", metavar="SEQ", type=int, help="End the journal at this entry.")
@click.option("--keep-loose", is_flag=True, help="Keep objects that no entry leads to.")
@click.option("--drop-loose", is_flag=True, help="Leave out objects that no entry leads to.")
@click.option("--accept-loss", is_flag=True, help="Go on without what is lost for good.")
@pass_front
def repair_command(
    front: Front,
    sources: tuple[str, ...],
    dry_run: bool,
    rebuild: bool,
    tip: str,
    upto: int | None,
    keep_loose: bool,
    drop_loose: bool,
    accept_loss: bool,
) -> None:
    """Make a damaged store good.

    Where the catalog is missing, damaged or an old one, it is made from the packs, and from what
    can be read of it. Else every byte is checked as by fsck: damaged packs and objects are
    written anew from other copies, and from the stores and folders that --from names. What was
    readable stays readable; what is replaced is kept beside the store. It may be run again. The
    exit code is 5 while something is lost, or a decision is needed, else 0.
    """
    from cas.assembly import plan_repair

    if keep_loose and drop_loose:
        raise click.UsageError("`--keep-loose` and `--drop-loose` cannot both hold.")
    with Bar(front.settings) as bar:
        plan = plan_repair(
            front.location(),
            sources=sources,
            prefer=tip,
            upto=upto,
            keep_loose=keep_loose if keep_loose or drop_loose else None,
            accept_loss=accept_loss,
            rebuild=rebuild,
            progress=bar.check,
        )
    with plan:
        applied = not dry_run and bool(plan.is_needed or plan.blocked)
        if applied:
            plan.apply()
        left = plan.lost_count and not accept_loss
        undone = plan.is_needed and not applied
        bad = plan.blocked or plan.unmended or left or undone
        front.exit_code = Corrupt.exit_code if bad else 0
        if front.out.json:
            front.out.document("repair", applied=applied, **_fields(plan))
            return
        front.out.lines(_lines(plan, applied))
        for sentence in plan.blocked:
            front.out.warn(sentence)
        front.out.note(_summary(plan, applied))


def _lines(plan: RepairPlan, applied: bool) -> Iterator[str]:
    verb = "done" if applied else "to do"
    for action in plan.actions[:_SHOWN]:
        yield f"{verb} {action.kind}: {printable(action.message)}"
    if len(plan.actions) > _SHOWN:
        yield f"{verb}: {count(len(plan.actions) - _SHOWN, 'more action')}"
    for note in plan.notes:
        yield f"note: {printable(note)}"
    for id in plan.lost[:_SHOWN]:
        yield f"lost {id}"
    if plan.lost_count > _SHOWN:
        yield f"lost: {count(plan.lost_count - _SHOWN, 'more object')}"


def _summary(plan: RepairPlan, applied: bool) -> str:
    if plan.blocked:
        return "nothing was done"
    if not plan.is_needed:
        sound = not (plan.lost_count or plan.unmended)
        return "nothing to repair" if sound else "nothing that could be repaired"
    seen = f"{count(plan.object_count, 'object')}, journal up to entry {plan.entry_count}"
    return f"repaired: {seen}; run `cas fsck`" if applied else f"not done yet: {seen}"


def _fields(plan: RepairPlan) -> dict[str, Any]:
    return {
        "needed": plan.is_needed,
        "blocked": [printable(sentence) for sentence in plan.blocked],
        "actions": [
            {
                "kind": action.kind,
                "subject": printable(action.subject),
                "message": printable(action.message),
            }
            for action in plan.actions
        ],
        "notes": [printable(note) for note in plan.notes],
        "tips": [{"seq": tip.seq, "hash": tip.hash.hex()} for tip in plan.tips],
        "entries": plan.entry_count,
        "objects": plan.object_count,
        "lost": [str(id) for id in plan.lost],
        "loose": [str(id) for id in plan.loose],
    }


@click.command("salvage", cls=CasCommand)
@click.argument("target", metavar="TARGET", type=click.Path(file_okay=False))
@click.option("--tip", metavar="HASH", default="", help="The journal to take where packs disagree.")
@pass_front
def salvage_command(front: Front, target: str, tip: str) -> None:
    """Copy everything that can be read into a new store.

    TARGET is a folder that is missing or empty. Branches and tags whose objects are whole stand
    there as they were; of any other branch the files that can be read become one commit of the
    branch salvaged/NAME. What could not be copied is told, and the exit code is 5 then. The
    journal begins anew, and the store itself is not changed.
    """
    from cas.assembly import salvage

    report = salvage(front.location(), target, prefer=tip)
    front.exit_code = 0 if report.ok else Corrupt.exit_code
    if front.out.json:
        front.out.document("salvage", path=os.path.abspath(target), **_told(report))
        return
    front.out.lines(_report_lines(report))
    front.out.note(f"copied {count(report.object_count, 'object')} to {printable(target)}")


def _report_lines(report: SalvageReport) -> Iterator[str]:
    for ref in report.refs:
        yield f"whole {printable(ref)}"
    for ref in report.partial:
        yield f"in part {printable(ref)}"
    for ref in report.lost_refs:
        yield f"lost {printable(ref)}"
    for path in report.lost_paths[:_SHOWN]:
        yield f"lost {printable(path)}"
    if report.lost_count:
        yield f"lost: {count(report.lost_count, 'object')}"


def _told(report: SalvageReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "objects": report.object_count,
        "whole": [printable(ref) for ref in report.refs],
        "partial": [printable(ref) for ref in report.partial],
        "lost_refs": [printable(ref) for ref in report.lost_refs],
        "lost": [str(id) for id in report.lost],
        "lost_paths": [printable(path) for path in report.lost_paths],
    }


COMMANDS: Final = {"repair": repair_command, "salvage": salvage_command}
