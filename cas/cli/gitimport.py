"""`cas import-git`: the history of a git folder becomes history of the store."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import count, named, size
from cas.cli.front import Front, pass_front
from cas.cli.options import FOLDER, CasCommand, default_author, raw_option
from cas.cli.progress import Bar
from cas.commands.gitimport import GitRequest, import_history
from cas.model.names import printable
from cas.worktree.gitrefs import GitOptions, GitReport
from cas.worktree.values import Problem


@click.command("import-git", cls=CasCommand)
@click.argument("path", metavar="DIR", type=FOLDER)
@click.option(
    "-b", "--branch", "branches", metavar="BRANCH", multiple=True, help="Only this one, and so on."
)
@click.option("--prefix", metavar="NAME", default="", help="Branches become NAME/BRANCH.")
@click.option("-f", "--force", is_flag=True, help="Move branches that do not lead forward, too.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the journal entry says.")
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@raw_option
@pass_front
def import_git_command(
    front: Front,
    path: str,
    branches: tuple[str, ...],
    prefix: str,
    force: bool,
    message: str,
    author: str | None,
) -> None:
    """Take in the history of a git folder.

    Every commit, directory, file and tag that its branches and tags reach, with authors and
    times. What was taken in before is not read again. Submodules are left out and told; then the
    exit code is 1.
    """
    options = GitOptions(branches, prefix, force)
    request = GitRequest(path, author or default_author(), message, options)
    with front.store(write=True) as store, Bar(front.settings) as bar:
        report = import_history(store, request, bar.commits, raw=front.raw)
    front.exit_code = 1 if report.problems else 0
    if front.out.json:
        front.out.document("import-git", **_fields(report))
        return
    front.out.lines(f"{moved.new}  {printable(moved.ref)}" for moved in report.refs)
    front.out.warn_each([f"not imported: {p.message}" for p in report.problems])
    front.out.note_each([p.message for p in report.odd_modes])
    front.out.note(
        f"{count(report.commit_count, 'commit')}, {count(report.file_count, 'file')}, "
        f"{size(report.content_bytes)}; {count(report.new_count, 'new object')}"
    )


def _fields(report: GitReport) -> dict[str, Any]:
    return {
        "refs": [
            {
                "ref": moved.ref,
                "old": None if moved.old is None else str(moved.old),
                "new": str(moved.new),
                "git": moved.git,
            }
            for moved in report.refs
        ],
        "entry": report.seq,
        "commits": report.commit_count,
        "directories": report.directory_count,
        "files": report.file_count,
        "size": report.content_bytes,
        "new_objects": report.new_count,
        "new_bytes": report.new_bytes,
        "problems": [_problem(problem) for problem in report.problems],
        "odd_modes": [_problem(problem) for problem in report.odd_modes],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    message = printable(problem.message)
    return {**named("path", problem.path), "reason": problem.reason, "message": message}


COMMANDS: Final = {"import-git": import_git_command}
