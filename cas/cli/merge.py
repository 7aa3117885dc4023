"""`cas merge`, `cas conflicts` and `cas resolve`: two lines of work become one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, Final

import click

from cas.cli.form import named
from cas.cli.front import Front, pass_front
from cas.cli.options import BRANCH, REVISION, CasCommand, default_author, raw_option
from cas.cli.output import Output
from cas.cli.values import entry_fields
from cas.commands.merge import conflicted, resolve_paths
from cas.errors import Conflict
from cas.history.conflicts import SIDES, MergeConflict
from cas.history.merge import MergePlan, MergeResult
from cas.history.threeway import POLICIES, OnConflict
from cas.model.names import MAIN, printable, short_ref

if TYPE_CHECKING:
    from cas.history.branch import Side


@click.command("merge", cls=CasCommand)
@click.argument("revision", metavar="REV", type=REVISION)
@click.option("-b", "--branch", default=MAIN, type=BRANCH, help="The branch to merge into.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the commit says.")
@click.option(
    "--on-conflict",
    type=click.Choice(POLICIES),
    default="report",
    help="Only tell conflicts, commit them as such, or settle each for a side.",
)
@click.option("--no-ff", is_flag=True, help="Make a commit even where the branch could move.")
@click.option("--allow-unrelated", is_flag=True, help="Merge what has no commit in common.")
@click.option("--no-renames", is_flag=True, help="Do not merge files at new paths they were given.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be done and do nothing.")
@raw_option
@pass_front
def merge(
    front: Front,
    revision: str,
    branch: str,
    message: str,
    on_conflict: OnConflict,
    no_ff: bool,
    allow_unrelated: bool,
    no_renames: bool,
    dry_run: bool,
) -> None:
    """Merge a revision into a branch.

    The branch (main unless said) gets all that REV changed since their common ancestor. Prints
    the commit. A conflict is a line: why, and the path; then nothing is done and the exit code is
    4, unless --on-conflict says otherwise.
    """
    how: dict[str, Any] = {
        "on_conflict": on_conflict,
        "allow_unrelated": allow_unrelated,
        "fast_forward": not no_ff,
        "renames": not no_renames,
    }
    if dry_run:
        with front.store() as store:
            plan = store.plan_merge(branch, revision, **how)
        tell_plan(front, plan)
        return
    author = default_author()
    with front.store(write=True) as store:
        front.check_branches(store, branch)
        done = store.merge(branch, revision, author=author, message=message, **how)
    tell(front, done)


def tell_plan(front: Front, plan: MergePlan, document: str = "merge-plan") -> None:
    """Say what a merge, a cherry-pick or a revert would do."""
    out = front.out
    refused = bool(plan.conflicts) and plan.on_conflict == "report"
    if out.json:
        out.document(
            document,
            branch=short_ref(plan.into),
            ours=str(plan.ours),
            theirs=str(plan.theirs),
            bases=[str(id) for id in plan.bases],
            tree=str(plan.tree),
            clean=plan.clean,
            fast_forward=plan.fast_forward,
            up_to_date=plan.up_to_date,
            edits=plan.edit_count,
            **_all_fields(plan),
        )
    else:
        _conflict_lines(out, plan.conflicts)
        out.note(printable(plan.summary))
        _note_others(out, plan)
    front.exit_code = Conflict.exit_code if refused else 0


def tell(front: Front, done: MergeResult, document: str = "merge") -> None:
    """Say what a merge, a cherry-pick or a revert did."""
    out, branch = front.out, short_ref(done.into)
    if out.json:
        out.document(
            document,
            branch=branch,
            commit=None if done.commit is None else str(done.commit),
            entry=None if done.entry is None else done.entry.seq,
            bases=[str(id) for id in done.bases],
            clean=done.clean,
            fast_forward=done.fast_forward,
            up_to_date=done.up_to_date,
            **_all_fields(done),
        )
    else:
        if done.commit is not None:
            out.line(str(done.commit))
        _conflict_lines(out, done.conflicts)
        if done.up_to_date:
            # Of a revert it is what the branch has not.
            out.note(f"{branch} has all of it already" if document == "merge" else
                     f"nothing to do: {branch} is as it would be")  # fmt: skip
        elif done.fast_forward:
            out.note(f"{branch} moved forward")
        elif done.commit is None:
            out.note("nothing was done; --on-conflict says what to do with conflicts")
        elif done.conflicts:
            out.note("the conflicts are part of the commit; settle them with `cas resolve`")
        _note_others(out, done)
    front.exit_code = Conflict.exit_code if done.commit is None else 0


def _note_others(out: Output, done: MergePlan | MergeResult) -> None:
    out.note_each(
        [f"renamed: {printable(f.origin)} is merged at {printable(f.path)}" for f in done.followed]
    )
    out.note_each([f"settled: {printable(c.path)} ({c.reason})" for c in done.settled])
    out.note_each([f"still open: {printable(c.path)} ({c.reason})" for c in done.carried])


def _all_fields(done: MergePlan | MergeResult) -> dict[str, Any]:
    return {
        "conflicts": [_fields(conflict) for conflict in done.conflicts],
        "settled": [_fields(conflict) for conflict in done.settled],
        "carried": [_fields(conflict) for conflict in done.carried],
        "followed": [
            {**named("path", each.path), **named("origin", each.origin)} for each in done.followed
        ],
    }


def _fields(conflict: MergeConflict) -> dict[str, Any]:
    sides = {side: conflict.side(side) for side in SIDES}
    return {
        **named("path", conflict.path),
        "reason": conflict.reason.value,
        **{side: None if entry is None else entry_fields(entry) for side, entry in sides.items()},
    }


def _conflict_lines(out: Output, conflicts: Iterable[MergeConflict]) -> None:
    out.lines(
        out.paint(f"{conflict.reason.value:<15}", "red") + " " + printable(conflict.path)
        for conflict in conflicts
    )


@click.command("conflicts", cls=CasCommand)
@click.argument("revision", metavar="[REV]", default=MAIN, type=REVISION)
@pass_front
def conflicts_command(front: Front, revision: str) -> None:
    """List conflicts that a commit holds.

    They were committed by `cas merge --on-conflict commit` and nobody has settled them since. A
    line is: why, and the path. Without REV those of the branch main.
    """
    with front.store() as store:
        found = conflicted(store, revision)
    if front.out.json:
        rows = [_fields(conflict) for conflict in found.conflicts]
        front.out.document("conflicts", commit=str(found.id), conflicts=rows)
        return
    _conflict_lines(front.out, found.conflicts)
    if not found.conflicts:
        front.out.note("no conflict")


@click.command("resolve", cls=CasCommand)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("-b", "--branch", default=MAIN, type=BRANCH, help="The branch with the conflict.")
@click.option("--take", type=click.Choice(SIDES), help="The side whose content it gets.")
@click.option("--file", metavar="FILE|-", type=click.File("rb"), help="The content that it gets.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the commit says.")
@pass_front
def resolve(
    front: Front,
    paths: tuple[str, ...],
    branch: str,
    take: Side | None,
    file: IO[bytes] | None,
    message: str,
) -> None:
    """Settle conflicts of a branch.

    Each PATH gets the content of a side, or one PATH that of a file; then its conflict is gone.
    Prints the commit. Writing the path by any other command settles it too.
    """
    if (take is None) == (file is None):
        raise click.UsageError("Give --take or --file, and only one of them.")
    author = default_author()
    with front.store(write=True) as store:
        done = resolve_paths(
            store, branch, paths, take=take, content=file, author=author, message=message
        )
    if front.out.json:
        still_open = [_fields(conflict) for conflict in done.still_open]
        front.out.document(
            "resolve",
            branch=branch,
            commit=str(done.commit),
            entry=done.entry.seq,
            conflicts=still_open,
        )
        return
    front.out.line(str(done.commit))
    front.out.note_each([f"still open: {printable(c.path)} ({c.reason})" for c in done.still_open])


COMMANDS: Final = {"merge": merge, "conflicts": conflicts_command, "resolve": resolve}
