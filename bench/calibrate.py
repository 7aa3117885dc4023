"""Checks the instruments on programs whose cost is known, before anything is measured with them.

Raises InstrumentError when an instrument does not read what it must: a bench that counts wrong is
worse than none. Takes about two seconds; `run.py` always begins with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench import corpus, harness, trace
from bench.harness import Step
from bench.rows_folder import differing
from tools import releases

SYNCS = """
import os, subprocess, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for number in range(7):
    os.pwrite(handle, b"x", number)
    (os.fsync if number % 2 else os.fdatasync)(handle)
if len(sys.argv) == 2:
    subprocess.run([sys.executable, *sys.orig_argv[1:-1], sys.argv[1] + "2", "child"], check=True)
"""

MEMORY = """
import subprocess, sys, time
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
if len(sys.argv) == 2:
    subprocess.run([sys.executable, *sys.orig_argv[1:-1], sys.argv[1], "child"], check=True)
else:
    time.sleep(0.2)
"""

LOG = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
db.execute("INSERT INTO t (body) VALUES (x'00')")
def mark():
    handle = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
    os.pwrite(handle, b"m", 0)
    os.close(handle)
mark()
for _ in range(5):
    db.execute("UPDATE t SET body = randomblob(8) WHERE id = 1")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
mark()
"""


class InstrumentError(RuntimeError):
    """An instrument reads something else than what is known to be there."""


def calibrate(folder: Path, with_strace: bool) -> dict[str, str]:
    """Reads of each instrument on known programs; raises InstrumentError."""
    readings = {}
    if with_strace:
        step = _python(folder, SYNCS, str(folder / "synced"))
        calls = harness.count_syncs(step, folder)
        readings["sync calls"] = _expect("sync calls", dict(calls), {"fdatasync": 8, "fsync": 6})
        readings["log trace"] = _log(folder)
    peak = harness.peak_anonymous(_python(folder, MEMORY, "64"))
    if not 128 * 2**20 < peak < 168 * 2**20:
        raise InstrumentError(f"RssAnon of two processes of 64 MiB each was read as {peak:,} B")
    readings["RssAnon of 2 x 64 MiB"] = f"{peak / 2**20:.0f} MiB"
    readings["ten files"] = _ten(folder)
    return readings


def _python(folder: Path, code: str, *words: str) -> Step:
    return Step(((sys.executable, "-I", "-c", code, *words),), folder)


def _log(folder: Path) -> str:
    log, mark = folder / "calibrate-trace.txt", folder / "calibrate-mark"
    step = _python(folder, LOG, str(folder / "calibrate.db"), str(mark))
    harness.run(step, wrap=trace.command(log))
    found = trace.read(log, mark)
    # Five commits of one page each. The checkpoint syncs the log and the database; nothing else.
    wanted = (5, 5, 2, 0)
    read = (found.frames, found.commit_syncs, found.checkpoint_syncs, found.other_syncs)
    return _expect("frames, commit, checkpoint and other syncs of sqlite3", read, wanted)


def _ten(folder: Path) -> str:
    trees = [folder / "calibrate-a", folder / "calibrate-b"]
    for tree in trees:
        (tree / "sub").mkdir(parents=True)
        for number in range(30):
            (tree / "sub" / f"{number}.py").write_text("line = 1\n" * 40)
    changed = corpus.change_files(trees[1], seed=3)
    wanted = sorted(str(path.relative_to(trees[1])) for path in changed)
    found = differing(*trees)
    if len(found) != 10 or found != wanted:
        raise InstrumentError(f"ten files were to change, these differ: {found}")
    grown = releases.count(trees[1]).file_bytes - releases.count(trees[0]).file_bytes
    return f"10 differ, {grown} bytes longer"


def _expect(what: str, read: object, wanted: object) -> str:
    if read != wanted:
        raise InstrumentError(f"{what}: read {read}, known to be {wanted}")
    return str(read)
