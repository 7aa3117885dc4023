"""`cas maintain`: what is due is done, within a time."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import columns, size
from cas.cli.front import Front, pass_front
from cas.cli.gc import Length
from cas.cli.options import CasCommand
from cas.history.upkeep import ChoreRow
from cas.limits import MAINTAIN_BUDGET_MS
from cas.model.names import printable


@click.command("maintain", cls=CasCommand)
@click.option(
    "--budget",
    metavar="TIME",
    type=Length(),
    default=MAINTAIN_BUDGET_MS * 1000,
    help="Begin nothing new after that time, as 60s (the default) or 10m.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what is due, and do nothing.")
@click.option(
    "--auto",
    metavar="TIME",
    type=Length(),
    help="Let it run by itself after commits, for that long at the most; 0: no more.",
)
@pass_front
def maintain_command(front: Front, budget: int, dry_run: bool, auto: int | None) -> None:
    """Do what is due for the store, within a time.

    Young packs are gathered and the journal is put into packs; commits are given up by the rules
    of the store, and gc makes room; small packs are merged, the catalog's files are shortened, and
    what was read longest ago is read. Others may go on reading and writing. What the time did not
    suffice for is said, and the next run goes on with it. `--auto` notes in the store that it runs
    by itself, and does nothing else.
    """
    if auto is not None:
        _automatic(front, auto // 1000)
        return
    if dry_run:
        with front.store() as store:
            due = store.plan_maintenance()
        if front.out.json:
            rows = [{"name": chore.name, "reason": chore.reason} for chore in due]
            front.out.document("maintain", dry_run=True, due=rows)
            return
        front.out.lines(columns([(chore.name, chore.reason) for chore in due]))
        front.out.note(f"{len(due)} due" if due else "nothing is due")
        return
    with front.store(write=True) as store:
        report = store.maintain(budget_ms=budget / 1000)
    front.exit_code = int(any(row.outcome == "failed" for row in report.rows))
    if front.out.json:
        rows = [_fields(row) for row in report.rows]
        front.out.document("maintain", dry_run=False, done=rows)
        return
    front.out.lines(columns([_row(row) for row in report.rows]))
    left = [row.name for row in report.left]
    front.out.note(f"left: {', '.join(left)}" if left else "nothing is left to do")


def _automatic(front: Front, budget_ms: int) -> None:
    with front.store(write=True) as store:
        store.set_maintenance(budget_ms)
    if front.out.json:
        front.out.document("maintain", automatic_ms=budget_ms)
        return
    front.out.note(
        f"runs by itself, for {budget_ms} ms at the most" if budget_ms else "runs by itself no more"
    )


def _row(row: ChoreRow) -> tuple[str, ...]:
    text = row.detail + (f" ({size(row.size_bytes)})" if row.size_bytes else "")
    return row.name, row.outcome, f"{row.duration_ms} ms", printable(text)


def _fields(row: ChoreRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "outcome": row.outcome,
        "detail": printable(row.detail),
        "size": row.size_bytes,
        "duration_ms": row.duration_ms,
    }


COMMANDS: Final = {"maintain": maintain_command}
