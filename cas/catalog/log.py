"""The durability of SQLite's log: one sync serves everybody whose commit it covers.

Floor 2; implements docs/format.md section 9. Invariant: the number of a commit is published as
synced only by whoever synced the log after all of that commit, and of those before it, had been
written; and nobody is told that a commit stands before its number is.

SQLite runs with synchronous=NORMAL: COMMIT writes to the log and does not wait for the disk. The
log is synced afterwards, outside the gate, so that other writers go on meanwhile; a sync makes
all that was written before it durable, so that threads and processes share them. SQLite itself
syncs the log before it copies from it, and the file before it uses the log again, so that a
power failure leaves all commits up to some point, and that point is never before a sync.

Nor may a log be taken away as it is. The removal is durable some time later, and the room of the
file may be given to another one before (ext4 with data=writeback): a crash then brings back a log
of which only the beginning is still there, and SQLite would read its old pages over a newer file.
So its header is overwritten and synced first (`blank`), by the only connection that is left.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cas.catalog.gate import Gate, Marks
from cas.catalog.turns import Turns
from cas.errors import StorageFailed

if TYPE_CHECKING:
    import apsw


_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)

_HEADER_BYTES: Final = 32
_PIECE_BYTES: Final = 1 << 20
_VFS_PIECE_BYTES: Final = 1 << 16
"""Of the log, through a VFS: SQLite's own takes a write of a multiple of 128 KiB for a full disk
(os_unix.c, seekAndWrite), because no caller of its writes more than a page.
"""


class Log:
    """The log of one catalog file, as one handle syncs it. Any thread."""

    def __init__(self, path: str, gate: Gate, vfs: str | None = None) -> None:
        self._path: Final = path + "-wal"
        self._gate = gate
        self._vfs = vfs
        self._fd = -1
        # Whoever has the turn syncs, and lets go those whose work that has done. A condition
        # costs each commit six calls more.
        self._turns: Final = Turns()
        self._stale = False
        self._closed = False
        # Without a log all is in the file itself, synced by whoever took the log away. With one
        # nobody knows what the process before has synced: a killed one may not have come to it.
        self._known = not os.path.exists(self._path)

    def __del__(self) -> None:
        # Of a handle that nobody closed.
        self._drop()

    def is_durable(self, marks: Marks) -> bool:
        """Whether everything that can be seen is known to be durable."""
        return self._known and marks.synced >= marks.number and not marks.doubt

    def cover(self, number: int) -> None:
        """Return once commit `number`, and all before it, would survive a power failure.

        0 is a commit whose number nobody knows. Threads wait for the one that syncs, and find
        that it has done their work. Raises `StorageFailed`, and what the system says of a sync
        that failed; `renew` must follow before anything is acknowledged again.
        """
        while not self._turns.take(number):
            if self._covers(number, self._gate.marks()):
                return
        covered = 0
        try:
            marks = self._gate.marks()
            # Another process may have done it in the meantime. They do not wait for each other:
            # syncs that overlap were a fifth faster than syncs in turn, four processes.
            covered = marks.synced if self._covers(number, marks) else self._sync_all(marks)
        finally:
            self._turns.hand_on(covered)

    def _covers(self, number: int, marks: Marks) -> bool:
        if marks.doubt:
            raise self._failure("a sync of the log has failed before")
        return 0 < number <= marks.synced and self._known

    def _sync_all(self, marks: Marks) -> int:
        """The number up to which all is durable then."""
        # One that is under way may not be written in full yet.
        written = marks.mark or marks.number - 1
        try:
            self._sync()
        except BaseException:
            self._gate.doubt(True)
            raise
        self._known = True
        if written > marks.synced:
            self._gate.publish(written)
        return max(written, marks.synced)

    def renew(self) -> None:
        """Inside the gate: write the whole log anew, in place, and sync that.

        After a sync that failed the system may hold bytes for written that are on no disk, and
        the next sync would say yes. The same bytes written once more are synced in earnest, and
        whatever a crash leaves of them is what was there. Emptying the log into the file instead
        would not do: the file would be newer than what a crash leaves of the log over it.
        """
        number = self._gate.marks().number
        with self._turns.taken():
            self._write_again()
            self._known = True
            self._gate.publish(number)
            self._gate.doubt(False)

    @property
    def is_empty(self) -> bool:
        """Whether it is not there, or holds nothing."""
        try:
            return os.path.getsize(self._path) == 0
        except OSError:
            return True

    @property
    def header(self) -> bytes:
        """How it begins: with other bytes each time that the engine begins it anew."""
        with open(self._path, "rb", buffering=0) as file:
            return file.read(_HEADER_BYTES)

    def blank(self, check: Callable[[], None]) -> None:
        """Have it begin with nothing, durably, when all of it was copied; only where no other
        connection to the file exists, for whom it would go on where it ended.

        `check` says whether the file beside it still is the one that was copied into, by an error.
        """
        with self._turns.taken():
            if self._vfs is not None:
                check()
                self._blank_through(self._vfs)
                return
            self._drop()
            fd = self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            # Once it is open: of a folder that gave way to another both were opened before.
            check()
            if os.pwrite(fd, bytes(_HEADER_BYTES), 0) != _HEADER_BYTES:
                raise self._failure("its header was not written in full")
            sync_data(fd)

    def _failure(self, reason: str) -> StorageFailed:
        return StorageFailed(f"{self._path}: {reason}.", path=self._path, errno=None)

    def reconnected(self) -> None:
        """A connection was opened. While there was none, the log may have become another file."""
        self._stale = True

    def close(self) -> None:
        """Give up the descriptor, once the sync that is under way is over.

        Who has committed and comes to its sync only now still syncs: its commit stands.
        """
        with self._turns.taken():
            self._closed = True
            self._drop()

    def _drop(self) -> None:
        """Close the descriptor; by whoever has the turn, so that nobody syncs by it or closes it
        too: its number may be another file's by then.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _sync(self) -> None:
        if self._vfs is not None:
            self._sync_through(self._vfs)
            return
        if self._stale:
            self._stale = False
            self._drop()
        if self._fd < 0:
            try:
                # No lock of SQLite's lies on this file, so that closing it takes none away.
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return
        try:
            sync_data(self._fd)
        finally:
            if self._closed:
                self._drop()

    def _write_again(self) -> None:
        if self._vfs is not None:
            self._write_again_through(self._vfs)
            return
        self._drop()
        try:
            fd = self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        for offset in range(0, os.fstat(fd).st_size, _PIECE_BYTES):
            piece = os.pread(fd, _PIECE_BYTES, offset)
            if os.pwrite(fd, piece, offset) != len(piece):
                raise self._failure("the log was not written in full")
        sync_data(fd)

    # -- the same through a VFS that somebody watches; unlike the above it holds the GIL -------

    def _sync_through(self, vfs: str) -> None:
        import apsw

        with self._opened(vfs) as file:
            if file is not None:
                file.xSync(apsw.SQLITE_SYNC_NORMAL)

    def _write_again_through(self, vfs: str) -> None:
        import apsw

        with self._opened(vfs) as file:
            if file is not None:
                size = file.xFileSize()
                for offset in range(0, size, _VFS_PIECE_BYTES):
                    length = min(_VFS_PIECE_BYTES, size - offset)
                    file.xWrite(file.xRead(length, offset), offset)
                file.xSync(apsw.SQLITE_SYNC_NORMAL)

    def _blank_through(self, vfs: str) -> None:
        import apsw

        with self._opened(vfs) as file:
            if file is not None:
                file.xWrite(bytes(_HEADER_BYTES), 0)
                file.xSync(apsw.SQLITE_SYNC_NORMAL)

    @contextmanager
    def _opened(self, vfs: str) -> Iterator[apsw.VFSFile | None]:
        import apsw

        if not os.path.exists(self._path):
            yield None
            return
        flags = [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0]
        file = apsw.VFSFile(vfs, self._path, flags)
        try:
            yield file
        finally:
            file.xClose()


def sync_data(fd: int) -> None:
    """Make a file's bytes durable, and as much of its description as reading them needs."""
    if _FULL_SYNC is None:
        os.fdatasync(fd)
    else:  # pragma: no cover - macOS: fsync alone leaves the bytes in the drive's own cache
        fcntl.fcntl(fd, _FULL_SYNC)
