"""`cas bench`: what this machine and this disk give."""

from __future__ import annotations

import os
from functools import partial
from typing import Final

import click

from cas.assembly import open as open_store
from cas.cli.form import columns, size
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand
from cas.clock import SystemClock
from cas.commands.bench import SECONDS, Figure, measure


@click.command("bench", cls=CasCommand)
@click.option(
    "--at",
    "place",
    metavar="FOLDER",
    help="Measure here; by default in the folder that the store lies in.",
)
@click.option(
    "--seconds",
    type=float,
    default=SECONDS,
    show_default=True,
    help="About how long it may take; below 5, of smaller amounts.",
)
@pass_front
def bench_command(front: Front, place: str | None, seconds: float) -> None:
    """Measure what a store does on this machine and this disk.

    A store is made in a new folder beside yours, filled with generated content, measured, and
    removed; yours is not opened. Every write is durable when it counts. What else runs on the
    machine counts too: run it twice.
    """
    if place is None:
        place = os.path.dirname(os.path.abspath(front.location()))
    report = measure(place, partial(open_store, create=True), SystemClock(), seconds)
    if front.out.json:
        front.out.document(
            "bench",
            folder=report.folder,
            seconds=round(report.seconds, 3),
            figures=[
                {"name": f.name, "value": f.value, "unit": f.unit, "count": f.count}
                for f in report.figures
            ],
        )
        return
    rows = [(figure.name, _value(figure), f"of {figure.count:,}") for figure in report.figures]
    front.out.lines(columns(rows, frozenset((1, 2))))
    front.out.note(f"measured in {report.folder} for {report.seconds:.0f} s; nothing is left there")


def _value(figure: Figure) -> str:
    value, unit = figure.value, figure.unit
    if unit == "B/s":
        return f"{size(round(value))}/s"
    if unit != "s":
        return f"{value:,.0f} {unit}"
    return f"{value * 1e6:,.0f} µs" if value < 0.01 else f"{value * 1e3:,.0f} ms"


COMMANDS: Final = {"bench": bench_command}
