"""`cas undo`, `cas redo` and `cas rewind`: what was done is taken back by a new entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from cas.cli.form import named
from cas.cli.front import Front, pass_front
from cas.cli.options import TARGET, CasCommand, default_author, raw_option
from cas.cli.values import entry_fields
from cas.errors import Conflict
from cas.history.revision import parse_when
from cas.history.store import Store
from cas.history.undo import RefClash, RefMove, RestorePlan, Undone, UndoPlan
from cas.model.ids import ObjectId
from cas.model.names import printable

_SEQ = click.IntRange(min=1)


@click.command("undo", cls=CasCommand)
@click.argument("seq", metavar="[SEQ]", required=False, type=_SEQ)
@click.option("-m", "--message", metavar="TEXT", default="", help="What the entry says.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be done and do nothing.")
@pass_front
def undo(front: Front, seq: int | None, message: str, dry_run: bool) -> None:
    """Take back what a journal entry did.

    SEQ is an entry of `cas journal`; without it the newest that was not undone. Its branches and
    tags go back to where they were before it, by a new entry. Where one has moved since, nothing
    is done and the exit code is 4.
    """
    _run(front, "undo", lambda store: store.plan_undo(seq), message, dry_run)


@click.command("redo", cls=CasCommand)
@click.argument("seq", metavar="[SEQ]", required=False, type=_SEQ)
@click.option("-m", "--message", metavar="TEXT", default="", help="What the entry says.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be done and do nothing.")
@pass_front
def redo(front: Front, seq: int | None, message: str, dry_run: bool) -> None:
    """Take back an undo.

    SEQ is the entry of an undo; without it the newest that was not redone.
    """
    _run(front, "redo", lambda store: store.plan_redo(seq), message, dry_run)


def _run(
    front: Front, verb: str, plan: Callable[[Store], UndoPlan], message: str, dry_run: bool
) -> None:
    author = default_author()
    with front.store(write=not dry_run) as store:
        wanted = plan(store)
        done = Undone(wanted.seq, None, wanted.moves, wanted.clashes)
        if not dry_run:
            done = store.apply(wanted, author=author, message=message)
    _tell(front, verb, done, undone=wanted.seq)
    if not dry_run and done.clean:
        front.out.note(f"entry {wanted.seq} is {verb}ne" if done.entry else "nothing to do")
    elif done.clashes:
        front.out.note("nothing was done: these have moved since")


def _tell(front: Front, schema: str, done: Undone, **more: Any) -> None:
    out = front.out
    moves = done.moves if done.clean else ()
    if out.json:
        out.document(
            schema,
            **more,
            entry=None if done.entry is None else done.entry.seq,
            clean=done.clean,
            moves=[_move_fields(move) for move in moves],
            clashes=[_clash_fields(clash) for clash in done.clashes],
        )
    else:
        out.lines(f"{printable(m.ref)} {_short(m.old)} -> {_short(m.new)}" for m in moves)
        out.lines(
            out.paint("moved", "red")
            + f" {printable(c.ref)} is at {_short(c.actual)}, was left at {_short(c.left)}"
            for c in done.clashes
        )
    front.exit_code = 0 if done.clean else Conflict.exit_code


def _short(id: ObjectId | None) -> str:
    return "nothing" if id is None else id.short


def _full(id: ObjectId | None) -> str | None:
    return None if id is None else str(id)


def _move_fields(move: RefMove) -> dict[str, Any]:
    return {"ref": move.ref, "old": _full(move.old), "new": _full(move.new)}


def _clash_fields(clash: RefClash) -> dict[str, Any]:
    return {
        "ref": clash.ref,
        "left": _full(clash.left),
        "actual": _full(clash.actual),
        "wanted": _full(clash.wanted),
    }


@click.command("rewind", cls=CasCommand)
@click.argument("target", metavar="[BRANCH|TAG|BRANCH:PATH]", required=False, type=TARGET)
@click.option("--to", "when", metavar="WHEN", required=True, help="An entry's number, or a time.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the entry says.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be done and do nothing.")
@raw_option
@pass_front
def rewind(front: Front, target: str | None, when: str, message: str, dry_run: bool) -> None:
    """Put a branch, a path or everything back to what it was.

    WHEN is the number of a journal entry, or a time like 2026-10-01T12:30:00Z. A path comes back
    in a new commit of its branch; without a target all branches, tags, pins and rules go back.
    It is a new entry, which `cas undo` takes back.
    """
    moment = parse_when(when)
    author = default_author()
    with front.store(write=not dry_run) as store:
        plan = store.plan_restore(target, seq=moment.seq, time_us=moment.time_us)
        if plan.branch is not None:
            # One path of a context: a record without its file, or a file without its record.
            front.check_branches(store, plan.branch)
        done = Undone(plan.seq, None, plan.moves)
        if not dry_run:
            done = store.apply(plan, author=author, message=message)
    _tell(front, "rewind", done, to=plan.seq, **_path_fields(plan))
    if plan.is_empty:
        front.out.note("everything is as it was then")


def _path_fields(plan: RestorePlan) -> dict[str, Any]:
    if plan.branch is None:
        return {}
    return {
        **named("path", plan.path),
        "old": None if plan.current is None else entry_fields(plan.current),
        "new": None if plan.entry is None else entry_fields(plan.entry),
    }


COMMANDS: Final = {"undo": undo, "redo": redo, "rewind": rewind}
