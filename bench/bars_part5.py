"""The bars of part 5 (scale-out), the half of buckets, as data, and the row that measures each.

As in `bars_part1.py`: keys name figures of a run, and hold the size of the row, so that a quick run
can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_bucket
from bench.context import Context
from bench.record import Bar

TITLE = "Scale-out: packs in a bucket"

ROWS: dict[str, Callable[[Context], None]] = {
    "bucket": rows_bucket.row_bucket,
}

_F = "bucket-first"
_C = f"bucket-cold-{rows_bucket.OBJECTS}"

BARS: tuple[Bar, ...] = (
    Bar("X1", "corpus A to S3", "<=", 1.6, f"{_F}/cas/seconds", f"{_F}/cas-folder/seconds"),
    Bar("X2", "corpus A to S3", "<=", 0.6, f"{_F}/cas/seconds", f"{_F}/restic/seconds"),
    Bar("X3", "requests a pack, corpus A", "<=", 2.5, f"{_F}/cas/requests", f"{_F}/cas/packs"),
    Bar(
        "X5", "corpus A to S3 and PostgreSQL", "<=", 1.6, f"{_F}/cas-postgres/seconds",
        f"{_F}/cas-folder/seconds",
    ),
    Bar(
        "X6", "corpus A to S3 and PostgreSQL", "<=", 0.6, f"{_F}/cas-postgres/seconds",
        f"{_F}/restic/seconds",
    ),
    Bar(
        "X7", "requests a pack, PostgreSQL", "<=", 2.5, f"{_F}/cas-postgres/requests",
        f"{_F}/cas-postgres/packs",
    ),
    Bar("X4", "1,000 cold reads", "<=", 0.5, f"{_C}/cas/seconds", f"{_C}/single/seconds"),
)  # fmt: skip
