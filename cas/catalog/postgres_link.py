"""The connections of one handle to a PostgreSQL catalog: one for writing, a pool for reading.

Floor 2. Invariant: a connection whose statement failed without an answer is never used again; a
new one is used only after the server was seen to hold everything that this handle has seen: what
comes after a failover to a standby that lagged behind would else be taken for the truth.

Every statement that no transaction surrounds commits by itself (autocommit); transactions are
begun and ended in so many words. Nothing here waits for a lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cas.catalog.catalog import Fetch
from cas.catalog.postgres_dialect import SETTLE_IN, Statements, statements
from cas.catalog.postgres_errors import is_lost, quietly_close, translate
from cas.catalog.postgres_place import PostgresPlace
from cas.errors import Closed, ForkedStore, HistoryLost, ReadOnly, Unsupported

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

_T = TypeVar("_T")

OLDEST_SERVER: Final = 150_000
"""PostgreSQL 15, the oldest that tests have run on."""

IDLE_MAX: Final = 4
"""Connections to read with that a handle keeps; a server has a few hundred for everybody."""

_PLAIN_WARNING: Final = "01000"

IDLE_IN_GATE: Final = "300s"
"""How long a writer may stand still between two statements with the head in its hands: longer
than the longest look that gc takes there.
"""


def connect(place: PostgresPlace, *, read_only: bool) -> Connection:
    """A new connection, settled in. Raises psycopg's errors, `Unsupported`, `ReadOnly`."""
    import psycopg
    from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

    parameters = {
        "application_name": "cas",
        "connect_timeout": 10,
        # Of several hosts, the one that takes writes.
        "target_session_attrs": "any" if read_only else "read-write",
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        **place.parameters,
    }
    connection = psycopg.connect(autocommit=True, cursor_factory=psycopg.RawCursor, **parameters)
    try:
        # One type for all integers: else each size of number is another prepared statement, and
        # a list of them has the type of whatever list of its kind came first. (Lists take the
        # dumper for text; the last that is registered serves the numbers themselves.)
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        row = connection.execute(SETTLE_IN, binary=True).fetchone()
        assert row is not None
        recovering, version = row[0], row[1]
        if version < OLDEST_SERVER:
            raise Unsupported(
                f"{place.shown} is PostgreSQL {version // 10_000}; 15 or newer is needed."
            )
        if recovering and not read_only:
            raise ReadOnly(
                f"{place.shown} is a standby, which takes no writes; name the primary; it can "
                "be read (`cas log`, `cas restore`; `cas.open(..., read_only=True)`).",
                path=place.shown,
            )
    except BaseException:
        quietly_close(connection)
        raise
    return connection


class Link:
    """What reading and writing share. Any thread; whoever holds `writer_lock` writes."""

    def __init__(self, place: PostgresPlace, *, read_only: bool) -> None:
        self.place = place
        self.path = place.shown
        self.read_only = read_only
        self.sql: Statements = statements(place.schema)
        self.store = 0
        self.genesis = b""
        self.fetch: Fetch | None = None
        self.writer_lock = threading.Lock()
        # The newest entry that this handle has seen: seq and hash.
        self.seen: tuple[int, bytes] = (0, b"")
        # What the server has warned of on the connection to write with.
        self.warned: str | None = None
        # Told of each newer one: who opens the store later is to know of it too.
        self.note: Callable[[int, bytes], None] | None = None
        self._pid = os.getpid()
        self._pool: list[Connection] = []
        self._writing: Connection | None = None
        self._closed = False

    def check(self) -> None:
        """Refuse a closed handle, and one of the parent process. Raises `Closed`, `ForkedStore`."""
        if self._closed:
            raise Closed("The store is closed; open it again.")
        if self._pid != os.getpid():
            raise ForkedStore(
                "This handle belongs to the parent process; open the store again in the child."
            )

    # -- connections -------------------------------------------------------------------------

    def connect(self) -> Connection:
        """A new connection that knows what this handle has seen. Raises psycopg's errors."""
        connection = connect(self.place, read_only=self.read_only)
        if self.store:
            try:
                self._compare(connection)
            except BaseException:
                quietly_close(connection)
                raise
        return connection

    def _compare(self, connection: Connection) -> None:
        """Raise `HistoryLost` unless the server has the newest entry that was seen here."""
        seq, hash = self.seen
        row = connection.execute(
            self.sql.seen, (self.store, seq), prepare=True, binary=True
        ).fetchone()
        found = 0 if row is None else row[0]
        if found < seq or (row is not None and seq and row[1] not in (None, hash)):
            raise history_lost(self.path, seq, found)

    def saw(self, seq: int, hash: bytes) -> None:
        """Note the newest entry of a state that was read; one that is older changes nothing."""
        if seq > self.seen[0]:
            self.seen = seq, hash
            if self.note is not None:
                self.note(seq, hash)

    def take(self) -> Connection:
        """A connection to read with; `give` or `discard` it. Raises psycopg's errors."""
        self.check()
        try:
            return self._pool.pop()
        except IndexError:
            return self.connect()

    def give(self, connection: Connection) -> None:
        """Back to the pool."""
        if self._closed or connection.closed or len(self._pool) >= IDLE_MAX:
            self.discard(connection)
        else:
            self._pool.append(connection)

    def discard(self, connection: Connection) -> None:
        """Close one that nobody is to use again."""
        if self._pid == os.getpid():
            quietly_close(connection)

    def forget_pool(self) -> None:
        """Close what is idle: its server is gone."""
        while self._pool:
            self.discard(self._pool.pop())

    def writer(self) -> Connection:
        """The connection to write with; inside `writer_lock`."""
        if self._writing is None:
            self._writing = self.connect()
            self._writing.add_notice_handler(self._heed)
        return self._writing

    def _heed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and notice.sqlstate == _PLAIN_WARNING:
            self.warned = notice.message_primary or "the server warned"

    @property
    def has_writer(self) -> bool:
        """Whether the connection to write with stands already, and may have been idle long."""
        return self._writing is not None

    def drop_writer(self) -> None:
        """Close the writer; the next transaction opens another."""
        connection, self._writing = self._writing, None
        if connection is not None:
            self.discard(connection)

    # -- single statements -------------------------------------------------------------------

    def retrying(self, ask: Callable[[Connection], _T]) -> tuple[Connection, _T]:
        """What `ask` gives on a connection of the pool, and that connection.

        `ask` changes nothing: where the connection turns out to be gone, which is first noticed
        when it is used, it is asked once more on a new one. Raises psycopg's errors.
        """
        connection = self.take()
        try:
            return connection, ask(connection)
        except BaseException as error:
            self.discard(connection)
            if not is_lost(error, connection):
                raise
        self.forget_pool()
        connection = self.take()
        try:
            return connection, ask(connection)
        except BaseException:
            self.discard(connection)
            raise

    def row(self, statement: str, *arguments: object) -> tuple[Any, ...] | None:
        """The first row of one statement that changes nothing. Raises what the port says."""
        return next(iter(self.rows(statement, *arguments)), None)

    def rows(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """All rows of one statement that changes nothing. Raises what the port says."""

        def ask(connection: Connection) -> list[tuple[Any, ...]]:
            return connection.execute(statement, arguments, prepare=True, binary=True).fetchall()

        try:
            connection, rows = self.retrying(ask)
        except Exception as error:
            translate(error, self.path)
        self.give(connection)
        return rows

    def run(self, statement: str, *arguments: object) -> None:
        """One statement that may be done twice, by itself. Raises what the port says."""
        self.row(statement + " RETURNING 1", *arguments)

    def close(self) -> None:
        """Give up every connection; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            # To close a parent's connection would end it for the parent as well.
            return
        with self.writer_lock:
            self.drop_writer()
        self.forget_pool()


def history_lost(path: str, seq: int, found: int) -> HistoryLost:
    """The error for a server that does not have what was seen before."""
    return HistoryLost(
        f"{path} does not have entry {seq} as it was seen from here (its newest is {found}): "
        "the server was restored, or a standby that lagged behind was promoted. Nothing was "
        f"changed. See to the server; `cas init --moved {path}` accepts the state that it has.",
        seq=seq,
        found=found,
    )
