"""The bars of part 3 (history) as data, and the row that measures each.

As in `bars_part1.py`: keys name figures of a run, and hold the size of the row, so that a quick run
can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_history, rows_shared
from bench.context import Context
from bench.record import Bar

TITLE = "History"

ROWS: dict[str, Callable[[Context], None]] = {
    "undo": rows_history.row_undo,
    "merge": rows_history.row_merge,
    "log-path": rows_history.row_log_path,
    "one-branch": rows_shared.row_one_branch,
    "import-git": rows_shared.row_import_git,
}

_L = "log-path-10000"

BARS: tuple[Bar, ...] = (
    Bar("P1", "merge, 2 x 100 of 1,000,000", "<=", 0.1, "merge-1000000/cas/first", show="ms"),
    Bar("P2", "log of a path, 10,000", "<=", 0.5, f"{_L}/cas/first", f"{_L}/git/seconds"),
    Bar("P3", "undo of any of 10,000, longest", "<=", 0.01, "undo-10000/cas/longest", show="ms"),
    Bar(
        "P4",
        "8 writers, one branch",
        ">=",
        0.6,
        "one-branch/one/rate",
        "one-branch/apart/rate",
        show="rate",
    ),
    Bar("P5", "8 writers, one branch, the least", ">=", 0.8, "one-branch/one/least", show="ratio"),
    Bar("P6", "8 writers, conflicts", "<=", 0, "one-branch/one/conflicts", show="count"),
    Bar("P7", "import-git", "<=", 1.0, "import-git/cas/seconds", "import-git/git/seconds"),
)
