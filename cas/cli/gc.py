"""`cas gc`: give back the space of what nothing leads to."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import columns, count, size
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand
from cas.history.upkeep import GcPlan, GcResult, GcRow
from cas.limits import DAY_US, GC_GRACE_US

_UNITS_US: Final = {
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": DAY_US,
    "w": 7 * DAY_US,
}
_LENGTH_US_MAX: Final = 1 << 53


class Length(click.ParamType[int]):
    """A length of time: a number and one of s, m, h, d, w; in µs."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """µs. Fails with what would be right."""
        if isinstance(value, int):
            return value
        text = str(value)
        number, unit = (text, "d") if text == "0" else (text[:-1], text[-1:])
        if not (number.isascii() and number.isdigit()) or unit not in _UNITS_US:
            self.fail(f"{text!r} is no length of time; write one like 14d, 12h or 0.", param, ctx)
        length_us = int(number[:18]) * _UNITS_US[unit]
        return min(length_us, _LENGTH_US_MAX)


@click.command("gc", cls=CasCommand)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option(
    "--grace",
    metavar="TIME",
    type=Length(),
    default=GC_GRACE_US,
    help="How long loose objects stay, as 14d (the default), 12h or 0.",
)
@click.option("--full", is_flag=True, help="Look at all objects, and check what is remembered.")
@pass_front
def gc_command(front: Front, dry_run: bool, grace: int, full: bool) -> None:
    """Give back the space of what nothing leads to.

    What branches, tags, pins and the history inside the horizon lead to stays; so does what is
    being written. Others may go on reading and writing. Loose objects, which nothing ever led to,
    stay until runs of gc have seen them for the whole grace, a day a run at the most. Session
    rows and files of writers that died go as well.

    A large store remembers how many objects name each one, so that a run costs what came and
    went since the last. It looks at all of them now and then, and with --full.
    """
    with front.store(write=not dry_run) as store:
        found: GcPlan | GcResult = (
            store.plan_gc(grace_us=grace, full=full)
            if dry_run
            else store.gc(grace_us=grace, full=full)
        )
    if front.out.json:
        front.out.document("gc", **fields(found))
    else:
        tell(front, found)


def tell(front: Front, found: GcPlan | GcResult) -> None:
    """What went, or would go, for people."""
    front.out.lines(columns([_row(row) for row in found.rows], frozenset((2, 3))))
    front.out.note(_sentence(found))
    if found.marked.reason:
        front.out.note(f"looked at all objects: {found.marked.reason}")
    if found.marked.finding:
        front.out.note(f"warning: {found.marked.finding}")
    if not found.object_count:
        for line in _why(found):
            front.out.note(line)


def _row(row: GcRow) -> tuple[str, ...]:
    return row.reason, row.kind.name.lower(), f"{row.object_count:,}", size(row.stored_bytes)


def _sentence(found: GcPlan | GcResult) -> str:
    parts = [count(found.object_count, "object"), count(found.file_count, "file")]
    if found.session_count:
        parts.append(count(found.session_count, "dead writer"))
    verb = "would go" if isinstance(found, GcPlan) else "removed"
    text = f"{verb}: {', '.join(parts)}"
    if found.waiting_count:
        text += f"; {count(found.waiting_count, 'loose object')} kept for the grace"
    return text


_WHY: Final = {
    "newest": "files that branches and tags point at now",
    "hold": "covered by legal holds; `cas hold -d` ends one",
    "pin": "pinned; `cas unpin` ends that",
    "history": "older commits of branches and tags; `cas retain` gives some up",
    "horizon": "earlier states inside the horizon, and events; `cas retain --horizon` moves it",
    "journal": "the journal",
    "young": "waiting for the grace, or just written; `--grace` shortens it",
    "base": "given up, and other files are stored as small deltas of them",
}


def _why(found: GcPlan | GcResult) -> list[str]:
    rows = [
        (f"  {size(row.stored_bytes)}", count(row.copy_count, "copy", "copies"), _WHY[row.reason])
        for row in found.kept
    ]
    return ["kept:", *columns(rows, frozenset((0, 1)))] if rows else []


def fields(found: GcPlan | GcResult) -> dict[str, Any]:
    """The same as keys of a document."""
    return {
        "dry_run": isinstance(found, GcPlan),
        "entry": found.seq,
        "horizon": found.horizon,
        "rows": [
            {
                "reason": row.reason,
                "kind": row.kind.name.lower(),
                "count": row.object_count,
                "size": row.content_bytes,
                "stored": row.stored_bytes,
            }
            for row in found.rows
        ],
        "packs": found.pack_count,
        "files": found.file_count,
        "files_size": found.file_bytes,
        "sessions": found.session_count,
        "waiting": found.waiting_count,
        "waiting_stored": found.waiting_bytes,
        "kept": [
            {"reason": row.reason, "copies": row.copy_count, "stored": row.stored_bytes}
            for row in found.kept
        ],
        "mark": found.marked.how,
        "mark_reason": found.marked.reason,
        "mark_finding": found.marked.finding,
    }


COMMANDS: Final = {"gc": gc_command}
