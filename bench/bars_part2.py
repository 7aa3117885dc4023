"""The bars of part 2 (fast and small) as data, and the row that measures each.

As in `bars_part1.py`: keys name figures of a run, and hold the size of the row, so that a quick run
can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_batch, rows_large, rows_states
from bench.context import Context
from bench.record import Bar

TITLE = "Fast and small"

ROWS: dict[str, Callable[[Context], None]] = {
    # In this order: what creates thousands of files comes last.
    "threads": rows_batch.row_threads,
    "memories": rows_batch.row_memories,
    "scale": rows_batch.row_scale,
    "files": rows_states.row_files,
    "large": rows_large.row_large,
    "states": rows_states.row_states,
}

_M = "memories-100000"
_S = "states-6"

BARS: tuple[Bar, ...] = (
    Bar("J1", "B: put_many", ">=", 1.4, f"{_M}/cas/put", f"{_M}/lmdb/put", show="rate"),
    Bar("J2", "B: put_many", ">=", 4, f"{_M}/cas/put", f"{_M}/git/put", show="rate"),
    Bar("J3", "B: put_many", ">=", 2.5, f"{_M}/cas/put", f"{_M}/langgraph/put", show="rate"),
    Bar("J4", "B: get", ">=", 1.2, f"{_M}/cas/get_one", f"{_M}/sqlite3/get_one", show="rate"),
    Bar(
        "J5",
        "B: get_many",
        ">=",
        0.85,
        f"{_M}/cas/get_many",
        f"{_M}/lmdb-verified/get_many",
        show="rate",
    ),
    Bar("J6", "B: get", ">=", 3, f"{_M}/cas/get_one", f"{_M}/git/get_one", show="rate"),
    Bar("J7", "B: size", "<=", 0.92, f"{_M}/cas/bytes", f"{_M}/rocksdict/bytes", show="MB"),
    Bar("J8", "B: size", "<=", 0.75, f"{_M}/cas/bytes", f"{_M}/git/bytes", show="MB"),
    Bar("J9", "B: caches, share of the size", "<=", 0.03, f"{_M}/cas/cache_share", show="ratio"),
    Bar("K1", "8 threads, syncs a commit", "<=", 0.3, "threads/cas-8/syncs", show="ratio"),
    Bar(
        "K2",
        "8 threads against one",
        ">=",
        1.3,
        "threads/cas-8/rate",
        "threads/cas-1/rate",
        show="rate",
    ),
    Bar(
        "K3",
        "8 threads against one, each sync 2 ms slower",
        ">=",
        4,
        "threads-slow-2ms/cas-8/rate",
        "threads-slow-2ms/cas-1/rate",
        show="rate",
    ),
    Bar(
        "L1",
        "put beside 10,000,000 objects, against 100,000",
        ">=",
        0.8,
        "scale-10000000/cas/put",
        "scale-100000/cas/put",
        show="rate",
    ),
    Bar(
        "L2",
        "look-up among 10,000,000 objects, against 100,000",
        "<=",
        1.5,
        "scale-10000000/cas/look_up",
        "scale-100000/cas/look_up",
        show="us",
    ),
    Bar("L3", "10,000,000 objects, RssAnon", "<=", 250e6, "scale-10000000/cas/memory", show="MB"),
    Bar("L4", "1,000,000 files, RssAnon", "<=", 250e6, "files-1000000/cas/first_memory", show="MB"),
    Bar("M1", "C: first set", "<=", 0.7, "large/cas/first", "large/borg/first"),
    Bar("M2", "C: edited set", "<=", 0.65, "large/cas/edited", "large/borg/edited"),
    Bar("M3", "C: restore", "<=", 0.7, "large/cas/restore", "large/borg/restore"),
    Bar(
        "M4",
        "C: both sets stored",
        "<=",
        0.97,
        "large/cas/edited_bytes",
        "large/borg/edited_bytes",
        show="MB",
    ),
    Bar(
        "M5",
        "C: new bytes of the edited set, against casync at 64 KiB",
        "<=",
        1.05,
        "large/cas/new_bytes",
        "large/casync/new_bytes",
        show="MB",
    ),
    Bar("M6", "C: restore, files that differ", "<=", 0, "large/cas/wrong_files", show="count"),
    Bar("M7", "C: first set, RssAnon", "<=", 120e6, "large/cas/memory", show="MB"),
    Bar(
        "N1", "six states, size", "<=", 1.25, f"{_S}/cas/bytes", f"{_S}/git-packed/bytes", show="MB"
    ),
    Bar("N2", "six states, size", "<=", 0.65, f"{_S}/cas/bytes", f"{_S}/borg/bytes", show="MB"),
    Bar("N3", "six states, size", "<=", 0.65, f"{_S}/cas/bytes", f"{_S}/restic/bytes", show="MB"),
    Bar("N4", "states 2 to 6, deltas", "<=", 1.3, f"{_S}/cas/later", f"{_S}/cas-whole/later"),
    Bar("N5", "six states, oldest restored", "<=", 0.7, f"{_S}/cas/oldest", f"{_S}/git/oldest"),
    Bar("N6", "six states, newest restored", "<=", 0.7, f"{_S}/cas/newest", f"{_S}/git/newest"),
    Bar("N7", "six states, check of all", "<=", 0.5, f"{_S}/cas/fsck", f"{_S}/git-packed/fsck"),
    Bar("N8", "A: first snapshot", "<=", 1.6, "import/cas/seconds", "import/tar-zstd/seconds"),
)
