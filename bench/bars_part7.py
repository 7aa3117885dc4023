"""The bars of part 7 (recall) as data, and the row that measures each.

As in `bars_part1.py`: keys name figures of a run, and hold the size of the row, so that a quick run
can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_recall, rows_recall_large, rows_recall_quality
from bench.context import Context
from bench.record import Bar

TITLE = "Recall"

ROWS: dict[str, Callable[[Context], None]] = {
    "recall": rows_recall.row_recall,
    "recall-large": rows_recall_large.row_recall_large,
    "recall-quality": rows_recall_quality.row_recall_quality,
}

_R = f"recall-{rows_recall.COUNT}"
_A = f"{_R}/cas/seconds"
_L = f"recall-{rows_recall_large.LARGE}"
_Q = "recall-quality"

BARS: tuple[Bar, ...] = (
    Bar("R1", "recall, p50", "<=", 0.010, _A, show="ms"),
    Bar("R2", "recall, p99", "<=", 0.030, f"{_A}_p99", show="ms"),
    Bar("R3", "recall against LangGraph", "<=", 0.5, _A, f"{_R}/langgraph/seconds", show="ms"),
    Bar("R4", "recall against SQLite by hand", "<=", 1.0, _A, f"{_R}/hand/seconds", show="ms"),
    Bar("R5", "recall as of half the history", "<=", 1.5, f"{_R}/cas/then", _A, show="ms"),
    Bar("R6", "a page of 50", "<=", 0.002, f"{_R}/cas/page_first", show="ms"),
    Bar(
        "R7", "the last page against the first", "<=", 1.2, f"{_R}/cas/page_last",
        f"{_R}/cas/page_first", show="ms",
    ),
    Bar("R8", "rebuild, memories a second", ">=", 10_000, f"{_R}/cas/rebuild", show="rate"),
    Bar("R9", "the same with vectors", ">=", 5_000, f"{_R}/cas/rebuild_vectors", show="rate"),
    Bar("R10", "catch-up with vectors", ">=", 5_000, f"{_R}/cas/catch_up", show="rate"),
    Bar(
        "R11", "commits with the index following", "<=", 1.3, f"{_R}/cas/units_followed",
        f"{_R}/cas/units",
    ),
    Bar("R12", "index against the texts", "<=", 1.5, f"{_R}/cas/bytes", f"{_R}/cas/raw", show="MB"),
    Bar(
        "R13", "the same, a thousand memories a commit", "<=", 1.3, f"{_R}/cas/commits_followed",
        f"{_R}/cas/commits",
    ),
    Bar(
        "R14", "recall, 1,000,000 memories against 100,000", "<=", 3, f"{_L}/large/seconds",
        f"{_L}/small/seconds", show="ms",
    ),
    Bar("R15", "the last page of 50", "<=", 0.002, f"{_R}/cas/page_last", show="ms"),
    Bar(
        "R16", "page 10,000 against page 1, of 1,000,000", "<=", 1.2, f"{_L}/large/page_far",
        f"{_L}/large/page_first", show="ms",
    ),
    Bar("R17", "catch-up without vectors", ">=", 10_000, f"{_R}/cas/catch_up_words", show="rate"),
    Bar("R18", "vectors, recall@10", ">=", 0.98, f"{_R}/cas/recall_at_10", show="ratio"),
    Bar(
        "R19", "vectors, recall@10 of 1,000,000", ">=", 0.98, f"{_L}/large/recall_at_10",
        show="ratio",
    ),
    *(
        Bar(
            f"R{number}", f"MRR, {kind}, hybrid against {part.replace('_', ' ')}", ">=", 1,
            f"{_Q}/{kind}/hybrid", f"{_Q}/{kind}/{part}", show="ratio",
        )
        for number, (kind, part) in enumerate(rows_recall_quality.JUDGED, 20)
    ),
)  # fmt: skip
