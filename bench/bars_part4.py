"""The bars of part 4 (truth) as data, and the row that measures each.

As in `bars_part1.py`: keys name figures of a run, and hold the size of the row, so that a quick run
can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_backup, rows_gc
from bench.context import Context
from bench.record import Bar

TITLE = "Truth"

ROWS: dict[str, Callable[[Context], None]] = {
    "backup": rows_backup.row_backup,
    "gc-states": rows_gc.row_gc_states,
    "gc-many": rows_gc.row_gc_many,
    "gc-idle": rows_gc.row_gc_idle,
    "gc-beside": rows_gc.row_gc_beside,
    "rebuild": rows_gc.row_rebuild,
}

_L = f"backup-{rows_backup.LARGE_MB}"
_T = "backup-ten"
_G = "gc-states-6"
_N = f"gc-many-{rows_gc.MANY}"
_I = "gc-idle-1000000"
_S = "scale-10000000"
_R = "rebuild-1000000"
_MB = 1_000_000

BARS: tuple[Bar, ...] = (
    Bar("W1", "second backup, ten files", "<=", 0.2, f"{_T}/cas/seconds", f"{_T}/borg/seconds"),
    Bar("W2", "second backup, ten files", "<=", 0.2, f"{_T}/cas/seconds", f"{_T}/restic/seconds"),
    Bar("W3", "first backup, against cp -a", "<=", 1.2, f"{_L}/cas/first", f"{_L}/cp/first"),
    Bar(
        "W4", "first, against cp -a and sync", "<=", 1.2, f"{_L}/cas/first", f"{_L}/cp-synced/first"
    ),
    Bar("Y1", "half the states reclaimed", "<=", 0.6, f"{_G}/cas/seconds", f"{_G}/borg/seconds"),
    Bar("Y2", "half the states reclaimed", "<=", 0.25, f"{_G}/cas/seconds", f"{_G}/git/seconds"),
    Bar("Y3", "half the states reclaimed", "<=", 0.25, f"{_G}/cas/seconds", f"{_G}/restic/seconds"),
    Bar(
        "Y4",
        "size after, against a fresh store",
        "<=",
        1.1,
        f"{_G}/cas/after_bytes",
        f"{_G}/cas/fresh_bytes",
    ),
    Bar("Y5", "files deleted", "<=", 20, f"{_G}/cas/deleted", None, "count"),
    Bar("Y6", "500 of 1,000 reclaimed", "<=", 0.3, f"{_N}/cas/seconds", f"{_N}/git/seconds"),
    Bar("Y7", "500 of 1,000 reclaimed", "<=", 0.3, f"{_N}/cas/seconds", f"{_N}/restic/seconds"),
    Bar("Y8", "500 of 1,000 reclaimed", "<=", 0.3, f"{_N}/cas/seconds", f"{_N}/borg/seconds"),
    Bar(
        "Y9",
        "nothing to collect, 10 x the objects",
        "<=",
        1.5,
        f"{_I}/cas-large/seconds",
        f"{_I}/cas-small/seconds",
    ),
    Bar("Y10", "nothing to collect", "<=", 0.1, f"{_I}/cas-large/seconds", None, "ms"),
    Bar("Y11", "memory of gc", "<=", 300 * _MB, f"{_I}/cas/gc_memory", None, "MB"),
    Bar("Y12", "memory of fsck", "<=", 300 * _MB, f"{_I}/cas/fsck_memory", None, "MB"),
    Bar(
        "Y16",
        "memory of gc, 10,000,000 objects",
        "<=",
        300 * _MB,
        f"{_S}/cas/gc_memory",
        None,
        "MB",
    ),
    Bar(
        "Y17",
        "memory of fsck, 10,000,000 objects",
        "<=",
        300 * _MB,
        f"{_S}/cas/fsck_memory",
        None,
        "MB",
    ),
    Bar(
        "Y13",
        "p99 of a commit beside gc",
        "<=",
        5.0,
        "gc-beside/cas-beside/p99",
        "gc-beside/cas-alone/p99",
    ),
    Bar("Y14", "rebuild of the catalog", "<=", 10.0, f"{_R}/cas/seconds", None, "s"),
    Bar("Y15", "memory of a rebuild", "<=", 300 * _MB, f"{_R}/cas/memory", None, "MB"),
)
