"""`cas cherry-pick` and `cas revert`: the change of one commit, once more or taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from cas.cli.front import Front, pass_front
from cas.cli.merge import tell, tell_plan
from cas.cli.options import BRANCH, REVISION, CasCommand, default_author, raw_option
from cas.history.threeway import POLICIES, OnConflict
from cas.model.names import MAIN

_Command = Callable[..., None]


def _options(command: _Command) -> _Command:
    for option in reversed(
        (
            click.argument("revision", metavar="REV", type=REVISION),
            click.option("-b", "--branch", default=MAIN, type=BRANCH, help="The branch to change."),
            click.option("-m", "--message", metavar="TEXT", default="", help="What it says."),
            click.option(
                "--on-conflict",
                type=click.Choice(POLICIES),
                default="report",
                help="Only tell conflicts, commit them as such, or settle each for a side.",
            ),
            click.option(
                "--mainline",
                metavar="N",
                type=click.IntRange(min=1),
                help="Of a merge: the parent from which its change is measured.",
            ),
            click.option("--no-renames", is_flag=True, help="Do not follow renamed files."),
            click.option("-n", "--dry-run", is_flag=True, help="Tell what would be done."),
            raw_option,
        )
    ):
        command = option(command)
    return command


@click.command("cherry-pick", cls=CasCommand)
@_options
@pass_front
def cherry_pick(front: Front, /, **words: Any) -> None:
    """Make the change of one commit once more, on a branch.

    The branch (main unless said) gets what REV changed of its parent, as a commit of its own, and
    nothing else of REV's history. Prints the commit. Conflicts are told as by `cas merge`.
    """
    _run(front, back=False, **words)


@click.command("revert", cls=CasCommand)
@_options
@pass_front
def revert(front: Front, /, **words: Any) -> None:
    """Take back what one commit changed, and leave what came since.

    The branch (main unless said) gets a commit with the opposite of what REV changed of its
    parent. Prints the commit. Conflicts are told as by `cas merge`. To put a branch back to where
    it was, use `cas undo` or `cas rewind`.
    """
    _run(front, back=True, **words)


def _run(
    front: Front,
    *,
    back: bool,
    revision: str,
    branch: str,
    message: str,
    on_conflict: OnConflict,
    mainline: int | None,
    no_renames: bool,
    dry_run: bool,
) -> None:
    document = "revert" if back else "cherry-pick"
    how: dict[str, Any] = {
        "mainline": mainline,
        "on_conflict": on_conflict,
        "renames": not no_renames,
    }
    if dry_run:
        with front.store() as store:
            plan = store.plan_pick(branch, revision, back=back, **how)
        tell_plan(front, plan, f"{document}-plan")
        return
    author = default_author()
    with front.store(write=True) as store:
        front.check_branches(store, branch)
        do = store.revert if back else store.cherry_pick
        done = do(branch, revision, author=author, message=message, **how)
    tell(front, done, document)


COMMANDS: Final = {"cherry-pick": cherry_pick, "revert": revert}
