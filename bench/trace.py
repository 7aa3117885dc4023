"""Counts what a durable commit costs the disk, from a trace of system calls between two marks.

strace writes one line a call, with the file of each descriptor (`-y`). From these: WAL frames (the
24-byte frame headers that SQLite writes to a `-wal` file), sync calls, and which of the syncs
belong to a WAL checkpoint. Invariant: every sync is put in exactly one class, by these rules:

* of a main database file: a checkpoint wrote it back;
* of a `-wal` file to which no frame was written since its last sync: a checkpoint too (SQLite
  syncs the log before it copies it back, and the header of a log that begins anew);
* of any other `-wal` file: a commit;
* of anything else (pack files, folders, locks): other, and counted against the commits.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import attrs

TRACED = "pwrite64,fsync,fdatasync,sync_file_range,msync,sync,syncfs"
FRAME_HEADER_BYTES = 24

_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((?:\d+<([^>]*)>)?(.*)$")
_WRITE_ARGUMENTS = re.compile(r", (\d+), (\d+)(?:\)| <unfinished)")


@attrs.frozen
class Trace:
    """Counts between the first and the second mark."""

    frames: int
    commit_syncs: int
    checkpoint_syncs: int
    other_syncs: int
    groups: tuple[int, ...]
    """WAL frames before each commit sync, in order: one transaction each, if syncs are FULL."""
    written: Counter[str]
    """Bytes of pwrite64 by file suffix or name."""

    @property
    def counted_syncs(self) -> int:
        """All syncs but those of WAL checkpoints."""
        return self.commit_syncs + self.other_syncs

    @property
    def what_counts(self) -> str:
        """Which syncs these are, as a note."""
        note = f"{self.checkpoint_syncs} syncs of WAL checkpoints apart"
        if self.other_syncs:
            note += f"; {self.other_syncs} of pack files and folders (spill) included"
        return note


def command(log: Path) -> tuple[str, ...]:
    """What to put before a command so that `read` understands the log."""
    return ("strace", "-f", "-qq", "-y", "-s", "0", "-e", f"trace={TRACED}", "-o", str(log))


def read(log: Path, mark: Path) -> Trace:
    """Counts between the first two writes to `mark`. Raises ValueError when there are fewer."""
    marks = frames = commit_syncs = checkpoint_syncs = other_syncs = 0
    unsynced: Counter[str] = Counter()
    groups = []
    written: Counter[str] = Counter()
    with log.open(errors="replace") as lines:
        for line in lines:
            call = _CALL.match(line)
            if call is None:  # the second half of a call that was interrupted in print
                continue
            name, path, rest = call[1], call[2] or "", call[3]
            if name == "pwrite64":
                if path == str(mark):
                    marks += 1
                    continue
                arguments = _WRITE_ARGUMENTS.search(rest)
                if arguments is None:
                    raise ValueError(f"not understood: {line!r}")
                length = int(arguments[1])
                frame = path.endswith("-wal") and length == FRAME_HEADER_BYTES
                unsynced[path] += frame
                if marks == 1:
                    frames += frame
                    written[_label(path)] += length
                continue
            with_frames = unsynced.pop(path, 0)
            if marks != 1:
                continue
            if path.endswith("-wal") and with_frames:
                commit_syncs += 1
                groups.append(with_frames)
            elif path.endswith(("-wal", ".sqlite", ".db")):
                checkpoint_syncs += 1
            else:
                other_syncs += 1
    if marks != 2:
        raise ValueError(f"{log} holds {marks} marks, 2 were expected")
    return Trace(frames, commit_syncs, checkpoint_syncs, other_syncs, tuple(groups), written)


def _label(path: str) -> str:
    return "log" if path.endswith("-wal") else Path(path).suffix or Path(path).name
