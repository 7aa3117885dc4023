"""`cas restore`: a revision becomes files of a folder."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import count, named, size
from cas.cli.front import Front, pass_front
from cas.cli.options import FOLDER, TARGET, CasCommand
from cas.cli.progress import Bar
from cas.commands.restore import plan_folder, restore_folder
from cas.model.names import printable
from cas.worktree.checkout import RestorePlan, RestoreReport


@click.command("restore", cls=CasCommand)
@click.argument("target", metavar="REV[:PATH]", type=TARGET)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("-f", "--force", is_flag=True, help="Write over unsaved work, too.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be written, write nothing.")
@pass_front
def restore(front: Front, target: str, folder: str, force: bool, dry_run: bool) -> None:
    """Write the files of a revision into a folder.

    DIR is made when it is missing. What stands there and is equal is left alone; what differs is
    written over when the store holds its content, so that it can be had again. Anything else is
    unsaved work: then nothing is written, unless --force is given. Files that the revision does
    not have stay. What an interrupt leaves is whole files, and the same command writes the rest.
    """
    with front.store() as store, Bar(front.settings) as bar:
        if dry_run:
            plan = plan_folder(store, target, folder)
            _tell_plan(front, plan)
            return
        front.interrupted = (
            "files that were written stay, each of them whole; the same command writes the rest."
        )
        report = restore_folder(store, target, folder, force=force, progress=bar.files)
    if front.out.json:
        front.out.document(
            "restore",
            **_restore_fields(report),
            written=report.written_count,
            written_bytes=report.written_bytes,
            replaced=[named("path", path) for path in report.replaced],
        )
        return
    _warn(front, report)
    files = count(report.file_count + report.link_count, "file")
    front.out.note(
        f"{report.folder}: {files}, {size(report.content_bytes)}; "
        f"{report.written_count:,} written{_over(len(report.replaced))}"
    )


def _tell_plan(front: Front, plan: RestorePlan) -> None:
    if front.out.json:
        front.out.document(
            "restore-plan",
            **_restore_fields(plan),
            write=plan.write_count,
            replaced=[named("path", path) for path in plan.replaced],
            unsaved=[named("path", path) for path in plan.unsaved],
        )
        return
    front.out.lines(f"replace {printable(path)}" for path in plan.replaced)
    front.out.lines(f"unsaved {printable(path)}" for path in plan.unsaved)
    _warn(front, plan)
    front.out.note(
        f"{plan.folder}: {plan.write_count:,} would be written{_over(len(plan.replaced))}; "
        f"{count(len(plan.unsaved), 'unsaved file')} would need --force"
    )


def _over(replaced_count: int) -> str:
    return f", {replaced_count:,} of them over older ones" if replaced_count else ""


def _warn(front: Front, found: RestoreReport | RestorePlan) -> None:
    texts = [f"{link}: leads out of the folder" for link in found.outside_links]
    front.out.note_each(texts, "links are written and never followed")
    texts = [f"{path}: left by a restore that was killed" for path in found.leftovers]
    front.out.note_each(texts, "may be removed, unless another restore is at work here")


def _restore_fields(report: RestoreReport | RestorePlan) -> dict[str, Any]:
    return {
        **named("folder", report.folder),
        "files": report.file_count,
        "links": report.link_count,
        "directories": report.directory_count,
        "size": report.content_bytes,
        "outside_links": [named("path", path) for path in report.outside_links],
        "leftovers": [named("path", path) for path in report.leftovers],
    }


COMMANDS: Final = {"restore": restore}
