"""The two blocks of the PostgreSQL catalog: one state to read, one transaction to write.

Floor 2. Invariant: a write block holds the head row of its store from its first statement to its
COMMIT, in READ COMMITTED: whoever waited for the row is given the newest version of it, and each
statement after it sees what was committed before. (Under REPEATABLE READ the snapshot would be
older than the lock.) The row is the only lock that anybody waits for, so that nobody waits in a
ring.

A small commit is two round trips: BEGIN with the lock, and all that was gathered with COMMIT. A
read block is one state (REPEATABLE READ), from its first statement on.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from cas.catalog.catalog import CatalogReader, CatalogWriter, Head
from cas.catalog.postgres_dialect import Statements
from cas.catalog.postgres_errors import is_lost, reraise, said, typed
from cas.catalog.postgres_link import IDLE_IN_GATE, Link, history_lost
from cas.catalog.postgres_statements import PostgresReader, PostgresWriter, Rows, Statement
from cas.errors import CorruptCatalog, OutcomeUnknown, ReadOnly

if TYPE_CHECKING:
    import psycopg

    from cas.catalog.postgres_link import Connection

_NOT_DURABLE = "SET LOCAL synchronous_commit = off"
_TELL = "SELECT pg_notify($1, $2)"


class ReadBlock:
    """`with catalog.read()`: a connection of the pool inside one transaction."""

    __slots__ = ("_connection", "_link")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._connection: Connection | None = None

    def __enter__(self) -> CatalogReader:
        link = self._link
        link.check()
        return PostgresReader(self._ask, link.sql, link.store, link.saw, link.fetch)

    def _ask(self, statement: str, arguments: tuple[Any, ...]) -> Rows:
        connection = self._connection
        if connection is not None:
            return connection.execute(statement, arguments, prepare=True, binary=True).fetchall()

        def begin(connection: Connection) -> Rows:
            # Both in one round trip.
            with connection.pipeline():
                connection.execute(self._link.sql.begin_read)
                cursor = connection.execute(statement, arguments, prepare=True, binary=True)
            return cursor.fetchall()

        self._connection, rows = self._link.retrying(begin)
        return rows

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection, link = self._connection, self._link
        if connection is not None:
            try:
                connection.execute("ROLLBACK" if error is not None else "COMMIT")
            except BaseException as failure:
                link.discard(connection)
                # What was read is right, whatever became of the connection behind it.
                if error is None and not is_lost(failure, connection):
                    reraise(failure, link.path)
                    raise
            else:
                link.give(connection)
        if error is not None:
            reraise(error, link.path)


class WriteBlock:
    """`with catalog.write()`: the head row, then what was gathered, then COMMIT or ROLLBACK."""

    __slots__ = ("_channel", "_connection", "_durable", "_link", "_sent", "_told", "_writer")

    def __init__(self, link: Link, channel: str, *, durable: bool = True) -> None:
        self._link = link
        self._channel = channel
        self._durable = durable
        self._sent = False

    def __enter__(self) -> CatalogWriter:
        link = self._link
        link.check()
        if link.read_only:
            raise ReadOnly(
                f"{link.path} was opened read-only; open the store for writing.", path=link.path
            )
        link.writer_lock.acquire()
        try:
            link.check()
            try:
                head = self._begin()
            except BaseException:
                link.drop_writer()
                raise
        except BaseException as error:
            link.writer_lock.release()
            reraise(error, link.path)
            raise
        self._writer = PostgresWriter(self._ask, self._send, link.sql, link.store, head, link.fetch)
        return self._writer

    def _begin(self) -> Head:
        """BEGIN and the head row in one round trip; once more where the connection was gone."""
        link = self._link
        idle = link.has_writer
        self._connection = link.writer()
        try:
            return self._lock(self._connection, link.sql)
        except Exception as error:
            if not (idle and is_lost(error, self._connection)):
                raise
        link.drop_writer()
        link.forget_pool()
        self._connection = link.writer()
        return self._lock(self._connection, link.sql)

    def _lock(self, connection: Connection, sql: Statements) -> Head:
        link = self._link
        # Text without parameters goes out as one message, whatever statements are in it.
        begin = sql.begin_write.format(store=link.store, idle=IDLE_IN_GATE)
        cursor = connection.execute(begin, prepare=False)
        cursor.nextset()
        cursor.nextset()
        row = cursor.fetchone()
        if row is None:
            raise CorruptCatalog("The catalog has lost the head of this store.", detail="head")
        *head, self._told = row
        found = Head(*head)
        if found.seq < link.seen[0]:
            raise history_lost(link.path, link.seen[0], found.seq)
        return found

    def _ask(self, statement: str, arguments: tuple[Any, ...]) -> Rows:
        return self._connection.execute(statement, arguments, prepare=True, binary=True).fetchall()

    def _send(self, pending: list[Statement]) -> None:
        self._sent = True
        with self._connection.pipeline():
            for statement, arguments in pending:
                self._connection.execute(statement, arguments, prepare=True, binary=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        link = self._link
        try:
            if error is None:
                self._commit()
            else:
                self._roll_back()
        finally:
            link.writer_lock.release()
        if error is not None:
            reraise(error, link.path)

    def _commit(self) -> None:
        """What was gathered, and COMMIT, in one round trip."""
        link, connection, writer = self._link, self._connection, self._writer
        pending = writer.take_pending()
        if not (pending or self._sent):
            self._roll_back()
            link.saw(writer.found.seq, writer.found.hash)
            return
        end = connection.cursor()
        link.warned = None
        try:
            self._finish(connection, pending, writer.found, end)
        except Exception as failure:
            if end.statusmessage != "COMMIT":
                self._refuse(failure)
            # What failed came behind the answer: the notice.
            link.drop_writer()
        except BaseException:
            link.drop_writer()
            raise
        if link.warned is not None and self._durable:
            # Somebody has ended the wait for the standby: it says COMMIT, and a failover would
            # take it back. Whoever asks what became of it waits again.
            raise OutcomeUnknown(
                f"The commit stands on this server alone as yet ({link.warned}); ask again with "
                "the transaction id to learn whether it counts.",
                txid=None,
            )
        link.saw(writer.found.seq, writer.found.hash)

    def _finish(
        self,
        connection: Connection,
        pending: list[Statement],
        found: Head,
        end: psycopg.Cursor[tuple[Any, ...]],
    ) -> None:
        run = connection.execute
        with connection.pipeline():
            if not self._durable:
                run(_NOT_DURABLE)
            for statement, arguments in pending:
                run(statement, arguments, prepare=True, binary=True)
            end.execute("COMMIT", prepare=True)
            if found.seq <= self._told:
                # Behind the COMMIT, and not in it: whoever commits with a notice takes a lock
                # that all such commits of the whole server wait for, sync included.
                run(_TELL, (self._channel, str(found.seq)), prepare=True)

    def _refuse(self, failure: Exception) -> None:
        """The error for statements, or a COMMIT, that failed; never returns."""
        link, connection = self._link, self._connection
        if not is_lost(failure, connection) and _is_open(connection):
            # The server has refused a statement before COMMIT, and told so.
            self._roll_back()
            raise typed(failure, link.path) from failure
        link.drop_writer()
        raise OutcomeUnknown(
            f"The answer of the commit was lost ({said(failure)}); ask again with the "
            "transaction id to learn whether it counts.",
            txid=None,
        ) from typed(failure, link.path)

    def _roll_back(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except BaseException:
            self._link.drop_writer()


def _is_open(connection: Connection) -> bool:
    """Whether the transaction that was begun is not over, so that it was not committed."""
    import psycopg

    status = connection.info.transaction_status
    return status in (
        psycopg.pq.TransactionStatus.INTRANS,
        psycopg.pq.TransactionStatus.INERROR,
    )
