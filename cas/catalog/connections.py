"""The connections of one handle to SQLite's file: one for writing, a pool for reading.

Floor 2; implements docs/format.md section 9. Invariant: a connection that failed in COMMIT is never
used again, because only a reopened one can tell what happened; and a commit counts as durable
only once the log was synced behind it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cas.catalog.catalog import Fetch, Head
from cas.catalog.engine import BUSY_MS, LOG_BYTES, Seal, connect, seal_of, translate, typed
from cas.catalog.gate import Gate
from cas.catalog.log import Log
from cas.clock import PROCESS
from cas.errors import Closed, ForkedStore, OutcomeUnknown, StorageFailed
from cas.interrupts import deferred, wait_for

if TYPE_CHECKING:
    import apsw


class Connections:
    """What reading and writing share. Any thread; whoever holds `writer_lock` writes."""

    def __init__(
        self,
        path: str,
        gate: Gate,
        *,
        read_only: bool,
        vfs: str | None,
        anchor: apsw.Connection | None,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.gate = gate
        self.genesis = b""
        self.fetch: Fetch | None = None
        self.writer_lock = threading.Lock()
        # The thread in whose hands the write transaction is.
        self.owner = 0
        # The mark and the head that the newest write transaction of this handle left.
        self.known: tuple[int, Head | None] = (0, None)
        self._vfs = vfs
        self._pid = PROCESS.id
        self._pool: list[apsw.Connection] = []
        # Only of handles that read what they cannot lock.
        self._seals: dict[apsw.Connection, Seal] = {}
        self._writing: apsw.Connection | None = None
        self._parked: list[apsw.Connection] = []
        # What is read-only cannot sync, and what lives in memory need not.
        self._log = None if read_only or anchor is not None else Log(path, gate, vfs)
        self._inode = 0 if self._log is None else _inode(path)
        self.closed = False
        # What a memory catalog lives in: it is gone when its last connection closes.
        self._anchor = anchor

    def connect(self) -> apsw.Connection:
        """A new connection. Raises the engine's errors."""
        seal = seal_of(self.path) if self.read_only else None
        sealed = seal is not None
        connection = connect(self.path, read_only=self.read_only, sealed=sealed, vfs=self._vfs)
        if self._log is not None:
            # From here on nobody can take the log away that a commit on this one writes to.
            self._log.reconnected()
        if seal is not None:
            self._seals[connection] = seal
        return connection

    def _is_stale(self, connection: apsw.Connection) -> bool:
        """Whether the file was written to since it was opened as one that nobody changes."""
        seal = self._seals.get(connection)
        return seal is not None and seal_of(self.path) != seal

    def take(self) -> apsw.Connection:
        """A connection to read with; `give` or `discard` it. Raises what the port says."""
        self.check()
        connection = self._pooled()
        while connection is not None and self._seals and self._is_stale(connection):
            self.discard(connection)
            connection = self._pooled()
        if connection is None:
            try:
                connection = self.connect()
            except Exception as error:
                translate(error, self.path)
        if self.closed:
            # By another thread, which has not seen this one.
            self.discard(connection)
            self.check()
        return connection

    def _pooled(self) -> apsw.Connection | None:
        """One of the pool, which another thread may be emptying."""
        try:
            return self._pool.pop()
        except IndexError:
            return None

    def lent(self) -> apsw.Connection | None:
        """The connection in whose write transaction this thread is, where none beside it could
        read: a database in memory is locked for all others meanwhile.
        """
        if self._anchor is None or self.owner != threading.get_ident():
            return None
        return self._writing

    def give(self, connection: apsw.Connection) -> None:
        """Back to the pool; not one on which a statement is still open, because somebody keeps a
        traceback: all that it read from now on would be of this state.
        """
        if connection.txn_state():
            self.discard(connection)
            return
        self._pool.append(connection)
        if self.closed:
            self._empty()

    def _empty(self) -> None:
        while (connection := self._pooled()) is not None:
            self.discard(connection)

    def discard(self, connection: apsw.Connection) -> None:
        """Close one that nobody is to use again."""
        self._seals.pop(connection, None)
        try:
            connection.close(True)
        except Exception:  # nothing more can be done for a broken connection
            return

    def writer(self) -> apsw.Connection:
        """The connection to write with; inside `writer_lock`."""
        if self._writing is None:
            self._writing = self.connect()
        return self._writing

    def drop_writer(self) -> None:
        """Close the writer; the next transaction opens another."""
        connection, self._writing = self._writing, None
        if connection is not None:
            self.discard(connection)

    def park_writer(self) -> None:
        """Use a connection no more whose commit failed, but keep it until one has succeeded.

        While any connection lives, what it left in the log stays invisible and is overwritten.
        Were it the last to close, the next to open would find a commit that nobody had synced.
        """
        if self._writing is not None:
            before, self._parked = self._parked, [self._writing]
            self._writing = None
            for connection in before:
                self.discard(connection)

    def unpark(self) -> None:
        """A commit of this handle has overwritten what a parked connection left in the log."""
        while self._parked:
            self.discard(self._parked.pop())

    def cover(self, number: int) -> None:
        """Make commit `number` durable; 0 is one whose number is not known.

        A sync that fails leaves the commit visible, and perhaps nowhere but in memory; so the
        log is written anew. Raises `OutcomeUnknown` when that fails too.
        """
        if self._log is not None:
            # Whoever syncs has a turn for which others wait.
            with deferred():
                self._cover(self._log, number)

    def _cover(self, log: Log, number: int) -> None:
        try:
            log.cover(number)
        except Exception as failure:
            try:
                with self.alone(settled=False):
                    log.renew()
            except Closed:
                raise
            except Exception as second:
                raise OutcomeUnknown(
                    f"The commit was written, and syncing it failed ({failure}); it may not "
                    "survive a power failure. Ask again with the transaction id.",
                    txid=None,
                ) from typed(second, self.path)

    @contextmanager
    def alone(self, *, settled: bool = True) -> Iterator[None]:
        """Inside the gate, without a transaction, with a log that is not in doubt unless `settled`
        says that it may be. Raises `Closed`, also where the catalog is another file by now, and
        `StorageFailed`.
        """
        with deferred():
            wait_for(self.writer_lock.acquire)
            try:
                self.check()
                marks = self.gate.enter_marked()
                try:
                    self.check_file()
                    if settled and marks.doubt:
                        self.settle()
                    yield
                finally:
                    self.gate.leave()
            finally:
                self.writer_lock.release()

    def settle(self) -> None:
        """Inside the gate, where a sync of the log has failed: write it anew before going on.

        Nothing may be added to such a log, and nothing copied from it. Raises `StorageFailed`.
        """
        if self._log is not None:
            self.check_file()
            try:
                self._log.renew()
            except Exception as error:
                raise StorageFailed(
                    f"A sync beside {self.path} failed before, and still does: {error}. Nothing "
                    "was committed; see to the disk, then try again.",
                    path=self.path,
                    errno=None,
                ) from error

    def check_file(self) -> None:
        """Refuse a handle whose catalog is another file by now. Raises `Closed`.

        Not asked in front of a commit, which is to have no call to the system for it, but where
        `doubt` stands at the gate, which a repair leaves there, and before the log is touched.
        """
        if self._log is not None and self._inode != _inode(self.path):
            raise Closed(
                f"{self.path} is not the file that was opened: it was removed, or the store was "
                "repaired. Open the store again.",
            )

    def check(self) -> None:
        """Refuse a closed handle, and one of the parent process. Raises `Closed`, `ForkedStore`."""
        if self.closed:
            raise Closed("The store is closed; open it again.")
        if self._pid != PROCESS.id:
            raise ForkedStore(
                "This handle belongs to the parent process; open the store again in the child."
            )

    def harden(self, *, reading: bool = False) -> None:
        """`Catalog.harden`."""
        log = self._log
        if log is None:
            return
        self.check()
        marks = self.gate.marks()
        if log.is_durable(marks) or self.owner == threading.get_ident():
            # The commit of a transaction under way covers what it has seen.
            return
        try:
            self.cover(marks.number)
        except OutcomeUnknown as error:
            if not reading:
                raise
            raise StorageFailed(
                f"What was committed last cannot be made durable beside {self.path}: {error}",
                path=self.path,
                errno=None,
            ) from error

    def close(self) -> None:
        """Give up every connection; harmless when called twice."""
        if self.closed:
            return
        if self._pid != PROCESS.id:
            # Closing a parent's connection in a child could checkpoint or remove the log that
            # the parent still uses; the handles are left alone.
            self.closed = True
            return
        with deferred():
            self.closed = True
            wait_for(self.writer_lock.acquire)
            try:
                self._leave()
            finally:
                self.writer_lock.release()
            if self._anchor is not None:
                self.discard(self._anchor)
            if self._log is not None:
                self._log.close()
            self.gate.close()

    def _leave(self) -> None:
        """Close every connection, the last one so that the engine takes the log away if nobody else
        has the file open. Where that cannot be, the log stays for the next to open.
        """
        last, self._writing = self._writing or self._pooled(), None
        self._empty()
        self.unpark()
        if last is None:
            return
        is_alone = self._log is not None and self.gate.try_enter()
        try:
            if is_alone:
                with suppress(Exception):
                    self._give_up_the_log(last)
            self.discard(last)
        finally:
            if is_alone:
                self.gate.leave()

    def _give_up_the_log(self, last: apsw.Connection) -> None:
        """Inside the gate: have the engine take the log away with this connection, if it is the
        only one to the file and no sync has failed. Raises the engine's errors.
        """
        import apsw

        log = self._log
        # A log in doubt is copied nowhere.
        if log is None or self.gate.marks().doubt:
            return
        if not log.is_empty:
            # As long as anybody has the file open a reader may come to stand in the log, behind any
            # checkpoint; then who writes next goes on in it, instead of beginning it anew.
            last.set_busy_timeout(0)
            last.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            last.execute("BEGIN IMMEDIATE; ROLLBACK")
            row = last.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            if row is None or row[0]:
                return
            log.blank(self.check_file)
        last.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)

    def cut_log(self, connection: apsw.Connection) -> bool:
        """Inside the gate: have the log begin anew, and be no longer than that takes; False while
        a reader of an older state needs it, for whom nobody waits. Raises the engine's errors.
        """
        log = self._log
        if log is None or log.is_empty:
            return True
        connection.set_busy_timeout(0)
        row = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        connection.set_busy_timeout(BUSY_MS)
        if row is None or row[0]:
            return False
        # The engine writes another header, syncs it, and cuts what is behind the commit: one that
        # changes nothing. Where a reader came in between it goes on at the end instead.
        before = log.header
        version = connection.pragma("user_version")
        connection.execute("PRAGMA journal_size_limit=0").fetchall()
        connection.execute(f"PRAGMA user_version={version}").fetchall()
        connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}").fetchall()
        return log.header != before


def _inode(path: str) -> int:
    """Inode of a file, 0 where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
