"""The bars of part 5 (scale-out), catalog on PostgreSQL, as data, and the rows that measure each.

As in `bars_part1.py`. `hosted-writers/one` and the others are rates: larger is better.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_hosted, rows_recall_hosted
from bench.context import Context
from bench.record import Bar

TITLE = "Scale-out: a catalog on PostgreSQL"

ROWS: dict[str, Callable[[Context], None]] = {
    "hosted-commit": rows_hosted.row_hosted_commit,
    "hosted-writers": rows_hosted.row_hosted_writers,
    "hosted-stores": rows_hosted.row_hosted_stores,
    "hosted-size": rows_hosted.row_hosted_size,
    "journal-size": rows_hosted.row_journal_size,
    "recall-hosted": rows_recall_hosted.row_recall_hosted,
}

_C, _W, _S = "hosted-commit", "hosted-writers", "hosted-stores"
_J = f"journal-size-{rows_hosted.NEWEST}"

BARS: tuple[Bar, ...] = (
    Bar("PG1", "a commit against a one-row insert", ">=", 0.4, f"{_C}/cas/rate", f"{_C}/row/rate"),
    Bar("PG2", "16 writers against one hot row", ">=", 0.5, f"{_W}/one/rate", f"{_W}/hot/rate"),
    Bar("PG3", "the slowest of 16 writers", ">=", 0.5, f"{_W}/one/least"),
    Bar("PG4", "16 writers on 16 stores", ">=", 3.0, f"{_W}/many/rate", f"{_W}/one/rate"),
    Bar(
        "PG5", "10,000 stores against 10", "<=", 1.2, f"{_S}/{rows_hosted.MANY}/seconds",
        f"{_S}/{rows_hosted.FEW}/seconds",
    ),
    Bar(
        "PG6", "catalog bytes per million objects", "<=", 1_000_000,
        f"hosted-size-{rows_hosted.OBJECTS}/cas/bytes",
    ),
    Bar("PG7", "journal bytes an older entry", "<=", 64, f"{_J}/postgres/bytes"),
    Bar("PG8", "the same on SQLite", "<=", 64, f"{_J}/sqlite/bytes"),
)  # fmt: skip
