"""The bars of part 1 as data, and the row that measures each (`run.py --rows import,again`).

Keys name figures of a run: `row/contender/quantity`. Bytes are decimal: 120 MB = 120,000,000.
Where a row fixes a size (1,000,000 entries, 10 GiB) the key holds it, so that a quick run with
smaller sizes can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_folder, rows_process
from bench.context import Context
from bench.record import Bar

TITLE = "Store"

ROWS: dict[str, Callable[[Context], None]] = {
    # In this order: rows that create thousands of files come after those timed by the commit.
    "startup": rows_process.row_startup,
    "commit": rows_process.row_commit_small,
    "commit-peers": rows_process.row_commit_peers,
    "wal": rows_process.row_wal,
    "writers": rows_process.row_writers,
    "cost": rows_process.row_cost,
    "commit-large": rows_process.row_commit_large,
    "diff": rows_process.row_diff,
    "open": rows_process.row_open,
    "stream": rows_process.row_stream,
    "import": rows_folder.row_import,
    "fsck": rows_folder.row_fsck,
    "again": rows_folder.row_again,
    "ten": rows_folder.row_ten,
    "restore": rows_folder.row_restore,
}

BARS: tuple[Bar, ...] = (
    Bar(
        "A1",
        "A: first snapshot, durable",
        "<=",
        0.5,
        "import/cas/seconds",
        "import/borg/seconds",
    ),
    Bar(
        "A2",
        "A: first snapshot, durable",
        "<=",
        0.3,
        "import/cas/seconds",
        "import/git/seconds",
    ),
    Bar("A3", "A: first snapshot, sync calls", "<=", 10, "import/cas/syncs", show="count"),
    Bar(
        "A4",
        "A: first snapshot, size of the store",
        "<=",
        1.02,
        "import/cas/bytes",
        "import/borg/bytes",
        show="MB",
    ),
    Bar("A5", "A: first snapshot, RssAnon", "<=", 120e6, "import/cas/memory", show="MB"),
    Bar("B1", "A: again, command", "<=", 1.8, "again/cas/seconds", "again/git/seconds"),
    Bar("B2", "A: again, in process", "<=", 1.0, "again/cas-call/seconds", "again/git/seconds"),
    Bar("B3", "A: again, command", "<=", 0.2, "again/cas/seconds", "again/borg/seconds"),
    Bar("B4", "A: ten files changed, command", "<=", 1.8, "ten/cas/seconds", "ten/git/seconds"),
    Bar(
        "B5",
        "A: ten files changed, in process",
        "<=",
        1.0,
        "ten/cas-call/seconds",
        "ten/git/seconds",
    ),
    Bar("B6", "A: ten files changed, command", "<=", 0.2, "ten/cas/seconds", "ten/borg/seconds"),
    Bar("B7", "A: ten files changed, bytes added", "<=", 100e3, "ten/cas/added_bytes", show="KB"),
    Bar("C1", "A: restore", "<=", 0.65, "restore/cas/seconds", "restore/git/seconds"),
    Bar("C2", "A: restore", "<=", 0.95, "restore/cas/seconds", "restore/cp/seconds"),
    Bar("C3", "A: restore, files that differ", "<=", 0, "restore/cas/wrong_files", show="count"),
    Bar(
        "C4",
        "A: check every byte, git packed",
        "<=",
        0.4,
        "fsck/cas/seconds",
        "fsck/git-packed/seconds",
    ),
    Bar(
        "D1",
        "small durable commit, 1,000 entries",
        ">=",
        0.5,
        "commit-1000/cas/rate",
        "commit-1000/sqlite3/rate",
        show="rate",
    ),
    Bar(
        "D2",
        "small durable commit, 1,000,000 entries",
        ">=",
        0.42,
        "commit-1000000/cas/rate",
        "commit-1000000/sqlite3/rate",
        show="rate",
    ),
    Bar("D3", "small durable commit, syncs", "<=", 1.02, "wal/cas/syncs", show="ratio"),
    Bar("D4", "small durable commit, WAL frames", "<=", 5, "wal/cas/frames", show="ratio"),
    Bar(
        "D5",
        "small durable commit, 1,000 entries",
        ">=",
        5,
        "commit-1000-loose/cas/rate",
        "commit-1000-loose/pygit2/rate",
        show="rate",
    ),
    Bar(
        "E1",
        "4 writing processes, total",
        ">=",
        0.4,
        "writers/cas/rate",
        "writers/sqlite3/rate",
        show="rate",
    ),
    Bar("E2", "4 writing processes, least / mean", ">=", 0.8, "writers/cas/least", show="ratio"),
    Bar("E3", "4 writing processes, longest wait", "<=", 0.25, "writers/cas/longest", show="ms"),
    Bar("F1", "one file into 1,000,000, nodes", "<=", 6, "cost-1000000/cas/nodes", show="count"),
    Bar("F2", "one file into 1,000,000, bytes", "<=", 16e3, "cost-1000000/cas/bytes", show="KB"),
    Bar(
        "F3",
        "one file into 1,000,000, against 1,000",
        "<=",
        3,
        "cost-1000000/cas/seconds",
        "cost-1000/cas/seconds",
        show="ms",
    ),
    Bar("G1", "diff, 10 of 1,000,000, warm", "<=", 0.020, "diff-1000000/cas/seconds", show="ms"),
    Bar("G2", "diff, 10 of 1,000,000, first", "<=", 0.020, "diff-1000000/cas/first", show="ms"),
    Bar("H1", "stream of 10 GiB, put", "<=", 120e6, "stream-10/cas/put_memory", show="MB"),
    Bar("H2", "stream of 10 GiB, got", "<=", 120e6, "stream-10/cas/get_memory", show="MB"),
    Bar("I1", "import cas", "<=", 0.045, "startup/cas/import", show="ms"),
    Bar("I2", "cas --help", "<=", 0.150, "startup/cas/help", show="ms"),
    Bar("I3", "open a store of 1,000,000", "<=", 0.020, "open-1000000/cas/seconds", show="ms"),
)
