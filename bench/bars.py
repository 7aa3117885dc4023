"""All bars and rows, part by part; `run.py` and `report.py` know the parts from here.

A part gives `TITLE`, `ROWS` (name -> row) and `BARS`. Names of rows and ids of bars are never used
twice.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import (
    bars_hosted,
    bars_part1,
    bars_part2,
    bars_part3,
    bars_part4,
    bars_part5,
    bars_part6,
    bars_part7,
)
from bench.context import Context
from bench.record import Bar

PARTS = (
    *(bars_part1, bars_part2, bars_part3, bars_part4, bars_part5, bars_part6, bars_part7),
    bars_hosted,
)

ROWS: dict[str, Callable[[Context], None]] = {
    name: row for part in PARTS for name, row in part.ROWS.items()
}
BARS: tuple[Bar, ...] = tuple(bar for part in PARTS for bar in part.BARS)

if len({bar.id for bar in BARS}) < len(BARS) or len(ROWS) < sum(len(p.ROWS) for p in PARTS):
    raise ValueError("two parts use one name")
