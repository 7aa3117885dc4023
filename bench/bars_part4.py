"""The bars of part 4 (truth) as data, and the row that measures each.

As in `bars_part1.py`: keys name figures of a run, and hold the size of the row, so that a quick run
can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_backup
from bench.context import Context
from bench.record import Bar

ROWS: dict[str, Callable[[Context], None]] = {
    "backup": rows_backup.row_backup,
}

_L = f"backup-{rows_backup.LARGE_MB}"
_T = "backup-ten"

BARS: tuple[Bar, ...] = (
    Bar("W1", "second backup, ten files", "<=", 0.2, f"{_T}/cas/seconds", f"{_T}/borg/seconds"),
    Bar("W2", "second backup, ten files", "<=", 0.2, f"{_T}/cas/seconds", f"{_T}/restic/seconds"),
    Bar("W3", "first backup, against cp -a", "<=", 1.2, f"{_L}/cas/first", f"{_L}/cp/first"),
    Bar(
        "W4", "first, against cp -a and sync", "<=", 1.2, f"{_L}/cas/first", f"{_L}/cp-synced/first"
    ),
)
