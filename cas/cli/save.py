"""`cas snapshot`: a folder becomes a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from cas.cli.form import count, named, size
from cas.cli.front import Front, pass_front
from cas.cli.options import BRANCH, FOLDER, CasCommand, default_author, raw_option
from cas.cli.progress import Bar
from cas.model.names import MAIN
from cas.worktree.glance import options_mark

if TYPE_CHECKING:
    from cas.worktree.importer import ImportReport


@click.command("snapshot", cls=CasCommand)
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("-b", "--branch", metavar="BRANCH", default=MAIN, type=BRANCH, help="Else main.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the commit says.")
@click.option("--skip-secrets", is_flag=True, help="Leave out what looks like a secret.")
@click.option("--gitignore", is_flag=True, help="Honour .gitignore beside .casignore.")
@click.option("--no-stat-cache", is_flag=True, help="Read every file, changed or not.")
@raw_option
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
    """Save a folder as the next commit of a branch.

    The commit's id is printed. Links and executable bits are kept; .casignore leaves out what it
    names, in the syntax of gitignore; .cas is never saved. Files that cannot be saved are
    reported, the rest is saved, and the exit code is 1. The author is CAS_AUTHOR, else user@host.
    """
    # Before anything is loaded that writes: the folder is looked at meanwhile.
    chosen = options_mark(skip_secrets, gitignore)
    with front.glance(folder, chosen, wanted=not no_stat_cache) as glance:
        from cas.commands.save import SnapshotRequest, save_folder
        from cas.worktree.values import ImportOptions

        options = ImportOptions(
            skip_secrets=skip_secrets, gitignore=gitignore, stat_cache=not no_stat_cache
        )
        request = SnapshotRequest(folder, branch, default_author(), message, options)
        with front.store(write=True) as store, Bar(front.settings) as bar:
            front.check_branches(store, branch)
            report = save_folder(store, request, bar.files, glance)
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
    from cas.cli.values import problem_fields

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
        "problems": problem_fields(report.problems),
        "secrets": [named("path", path) for path in report.secrets],
        "stores": [named("path", path) for path in report.stores],
        "twins": [[named("path", path) for path in pair] for pair in report.twins],
    }


def _notices(front: Front, report: ImportReport, skipped: bool) -> None:
    """Tell what people have to know before they rely on this commit."""
    out = front.out
    out.warn_each([f"not saved: {p.message}" for p in report.problems], "the rest is saved")
    state, hint = "is saved", "--skip-secrets leaves such files out"
    if skipped:
        state, hint = "was left out", ""
    out.note_each([f"{path}: looks like a secret and {state}" for path in report.secrets], hint)
    stores = [f"{path}: is a store and was left out" for path in report.stores]
    out.note_each(stores, "`cas copy` and `cas backup` save stores")
    twins = [f"{one} and {other} differ by case or form only" for one, other in report.twins]
    out.note_each(twins, "not every file system can hold both")


COMMANDS: Final = {"snapshot": snapshot}
