"""`cas snapshot` and `cas restore`: folders in, folders out."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import count, named, size
from cas.cli.front import Front, pass_front
from cas.cli.options import BRANCH, FOLDER, TARGET, CasCommand, default_author
from cas.cli.progress import Bar
from cas.commands.folders import SnapshotRequest, plan_folder, restore_folder, save_folder
from cas.commands.history import MAIN
from cas.model.names import printable
from cas.worktree.checkout import RestorePlan, RestoreReport
from cas.worktree.importer import ImportReport
from cas.worktree.values import ImportOptions, Problem

_SHOWN_MAX: Final = 20
"""Paths of one sort that are named in a notice; --json names all."""


@click.command("snapshot", cls=CasCommand)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("-b", "--branch", metavar="BRANCH", default=MAIN, type=BRANCH, help="Else main.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the commit says.")
@click.option("--skip-secrets", is_flag=True, help="Leave out what looks like a secret.")
@click.option("--gitignore", is_flag=True, help="Honour .gitignore beside .casignore.")
@click.option("--no-stat-cache", is_flag=True, help="Read every file, changed or not.")
@pass_front
def snapshot(
    front: Front,
    folder: str,
    branch: str,
    message: str,
    skip_secrets: bool,
    gitignore: bool,
    no_stat_cache: bool,
) -> None:
    """Save a folder as the next commit of a branch, and print the commit's id.

    Links and executable bits are kept; .casignore leaves out what it names, in the syntax of
    gitignore; .cas is never saved. Files that cannot be saved are reported, the rest is saved,
    and the exit code is 1. The author is CAS_AUTHOR, else user@host.
    """
    options = ImportOptions(
        skip_secrets=skip_secrets, gitignore=gitignore, stat_cache=not no_stat_cache
    )
    request = SnapshotRequest(folder, branch, default_author(), message, options)
    with front.store(write=True) as store, Bar(front.settings) as bar:
        report = save_folder(store, request, bar.on_progress)
    front.exit_code = 1 if report.problems else 0
    if front.out.json:
        front.out.document("snapshot", **_snapshot_fields(branch, report))
        return
    front.out.line(str(report.commit))
    _notices(front, report, skip_secrets)
    files = count(report.file_count + report.link_count, "file")
    front.out.note(
        f"{branch}: {files}, {size(report.content_bytes)}; "
        f"{count(report.new_count, 'new object')}, {size(report.new_bytes)}"
    )


def _snapshot_fields(branch: str, report: ImportReport) -> dict[str, Any]:
    return {
        "commit": str(report.commit),
        "tree": str(report.tree),
        "branch": branch,
        "entry": report.entry.seq,
        "files": report.file_count,
        "links": report.link_count,
        "directories": report.directory_count,
        "size": report.content_bytes,
        "new_objects": report.new_count,
        "new_bytes": report.new_bytes,
        "problems": _problem_fields(report.problems),
        "secrets": [named("path", path) for path in report.secrets],
        "twins": [[named("path", path) for path in pair] for pair in report.twins],
    }


def _problem_fields(problems: tuple[Problem, ...]) -> list[dict[str, Any]]:
    return [
        {**named("path", p.path), "reason": p.reason, "message": printable(p.message)}
        for p in problems
    ]


def _notices(front: Front, report: ImportReport, skipped: bool) -> None:
    """Tell what people have to know before they rely on this commit."""
    _list(front, [p.message for p in report.problems], "could not be saved", "the rest is saved")
    what = "looks like a secret and was left out" if skipped else "looks like a secret and is saved"
    hint = "" if skipped else "--skip-secrets leaves such files out"
    _list(front, list(report.secrets), what, hint)
    twins = [f"{one} and {other}" for one, other in report.twins]
    _list(front, twins, "differ by case or form only", "some file systems cannot hold both")


def _list(front: Front, paths: list[str], what: str, hint: str) -> None:
    for path in paths[:_SHOWN_MAX]:
        front.out.warn(f"{path}: {what}")
    if len(paths) > _SHOWN_MAX:
        front.out.warn(f"and {len(paths) - _SHOWN_MAX} more: {what}")
    if paths and hint:
        front.out.note(f"  ({hint})")


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
    not have stay.
    """
    with front.store() as store, Bar(front.settings) as bar:
        if dry_run:
            plan = plan_folder(store, target, folder)
            _tell_plan(front, plan)
            return
        report = restore_folder(store, target, folder, force=force, progress=bar.on_progress)
    if front.out.json:
        front.out.document(
            "restore",
            **_restore_fields(report),
            written=report.written_count,
            written_bytes=report.written_bytes,
            replaced=[named("path", path) for path in report.replaced],
        )
        return
    _list(front, list(report.outside_links), "leads out of the folder", "links are never followed")
    files = count(report.file_count + report.link_count, "file")
    front.out.note(
        f"{report.folder}: {files}, {size(report.content_bytes)}; "
        f"{report.written_count:,} written, {len(report.replaced):,} of them over older ones"
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
    _list(front, list(plan.outside_links), "leads out of the folder", "links are never followed")
    front.out.note(
        f"{plan.folder}: {plan.write_count:,} would be written, {len(plan.replaced):,} of them "
        f"over older ones; {count(len(plan.unsaved), 'unsaved file')} would need --force"
    )


def _restore_fields(report: RestoreReport | RestorePlan) -> dict[str, Any]:
    return {
        **named("folder", report.folder),
        "files": report.file_count,
        "links": report.link_count,
        "directories": report.directory_count,
        "size": report.content_bytes,
        "outside_links": [named("path", path) for path in report.outside_links],
    }


COMMANDS: Final = {"snapshot": snapshot, "restore": restore}
