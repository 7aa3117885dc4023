"""The two blocks of the catalog: one state to read, one transaction to write.

Floor 2; implements docs/format.md section 9. Invariant: every write runs inside the gate and
BEGIN IMMEDIATE, and its block ends normally only when what it wrote is durable.

`with connection:` of apsw is not used anywhere: it waits for locks and commits while it holds
the GIL.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from cas.catalog.catalog import CatalogReader, CatalogWriter
from cas.catalog.connections import Connections
from cas.catalog.engine import cannot_share, reraise, translate, typed
from cas.catalog.statements import SqliteReader, SqliteWriter
from cas.errors import CasError, OutcomeUnknown, ReadOnly, StorageFull
from cas.interrupts import STATE, closes, deferred, wait_for

if TYPE_CHECKING:
    import apsw


class ReadBlock:
    """`with catalog.read()`: a connection of the pool inside one transaction. In a write
    transaction beside which nothing can be read it is that one.
    """

    __slots__ = ("_connections", "_own")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._own: apsw.Connection | None = None

    def __enter__(self) -> CatalogReader:
        connection = self._connections.lent()
        if connection is None:
            self._own = connection = self._connections.take()
            try:
                connection.execute("BEGIN")
            except Exception as error:
                self._connections.discard(connection)
                translate(error, self._connections.path)
        return SqliteReader(connection, self._connections.genesis, self._connections.fetch)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection = self._own
        if connection is not None:
            try:
                connection.execute("COMMIT")
            except Exception as failure:
                self._connections.discard(connection)
                if error is None:
                    translate(failure, self._connections.path)
            else:
                self._connections.give(connection)
        if error is not None:
            reraise(error, self._connections.path)


class WriteBlock:
    """`with catalog.write()`: the gate, then BEGIN IMMEDIATE, then COMMIT or ROLLBACK.

    A handler of a signal may raise while this waits for others, and in the block; not in between.
    """

    __slots__ = ("_changes", "_connection", "_connections", "_deferred", "_durable", "_writer")

    def __init__(self, connections: Connections, *, durable: bool = True) -> None:
        self._connections = connections
        self._durable = durable
        self._deferred = deferred()

    def __enter__(self) -> CatalogWriter:
        connections = self._connections
        connections.check()
        if connections.read_only:
            raise ReadOnly(
                f"{connections.path} was opened read-only; open the store for writing.",
                path=connections.path,
            )
        own = self._deferred.__enter__()
        try:
            writer = self._enter(connections)
        except BaseException as error:
            own.__exit__(type(error), error, None)
            raise
        if own.is_outermost:
            STATE.open = True
        return writer

    def _enter(self, connections: Connections) -> CatalogWriter:
        wait_for(connections.writer_lock.acquire)
        try:
            # Who waited here while another thread closed the store must not touch the gate: the
            # numbers of its descriptors may belong to other files by now.
            if connections.closed:
                connections.check()
            try:
                marks = connections.gate.enter_marked()
                if marks.doubt:
                    connections.settle()
                self._connection = connection = connections.writer()
                connection.execute("BEGIN IMMEDIATE")
                self._changes = connection.total_changes()
            except BaseException:
                # An interrupt can leave the transaction open: that connection must not stay.
                connections.drop_writer()
                connections.gate.leave()
                raise
        except BaseException as error:
            connections.writer_lock.release()
            reraise(error, connections.path)
            raise
        connections.owner = threading.get_ident()
        mark = marks.mark
        known_mark, head = connections.known
        # If nobody has committed since this handle did, what it left is what it finds: that spares
        # a commit one statement.
        found = head if mark and mark == known_mark else None
        self._writer = SqliteWriter(connection, connections.genesis, connections.fetch, mark, found)
        return self._writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._deferred.is_outermost:
            STATE.open = False
        try:
            self._leave(error)
        finally:
            self._deferred.__exit__(kind, error, trace)

    def _leave(self, error: BaseException | None) -> None:
        connections = self._connections
        changed = False
        try:
            if error is None:
                changed = self._commit()
            else:
                self._roll_back()
        finally:
            connections.owner = 0
            connections.gate.leave()
            connections.writer_lock.release()
        if changed:
            if self._durable:
                connections.cover(self._writer.mark)
        elif error is not None:
            # What the block saw of others may stand in its error.
            with suppress(CasError):
                connections.harden()
            reraise(error, connections.path)

    def _commit(self) -> bool:
        """COMMIT; whether there was anything to commit."""
        connections, connection, writer = self._connections, self._connection, self._writer
        # A transaction that changed nothing syncs nothing, and leaves the mark.
        changed = connection.total_changes() != self._changes
        if changed:
            connections.gate.before_commit()
        try:
            connection.execute("COMMIT")
        except Exception as failure:
            connections.park_writer()
            told = typed(failure, connections.path)
            if isinstance(told, StorageFull) and not cannot_share(failure):
                # Only a write says this: what would make the commit count is not in the log, so
                # that nothing can bring it back. The index of the log follows the log.
                raise told from failure
            raise OutcomeUnknown(
                f"The answer of the commit was lost ({failure}); ask again with the "
                "transaction id to learn whether it counts.",
                txid=None,
            ) from told
        except BaseException:
            connections.drop_writer()
            raise
        if changed:
            writer.mark = connections.gate.after_commit()
            connections.unpark()
        connections.known = writer.mark, writer.found
        if connection.txn_state():  # as in `give`
            connections.drop_writer()
        return changed

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except BaseException:
            self._connections.drop_writer()


closes(WriteBlock.__exit__)
