"""The catalog in one SQLite file: WAL, synchronous=FULL, one sync a transaction.

Floor 2; implements docs/format.md sections 7 and 8. Invariant: only SQLite opens SQLite's
files; every write runs inside the gate and BEGIN IMMEDIATE; a connection that failed in COMMIT
is never used again, because only a reopened one can tell what happened.

`with connection:` of apsw is not used anywhere: it waits for locks and commits while it holds
the GIL. WAL checkpoints run inline every 1,000 pages; a background one never caught up.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from cas.catalog.catalog import CatalogReader, CatalogWriter, Head, Meta, Turn
from cas.catalog.engine import connect, reraise, translate, typed
from cas.catalog.gate import FileGate, NoGate
from cas.catalog.host import check_engine, check_filesystem
from cas.catalog.place import NOWHERE, place_of, refuse_moved
from cas.catalog.schema import APPLICATION_ID, KNOWN_FEATURES, SCHEMA_VERSION, fill
from cas.catalog.statements import SqliteReader, SqliteWriter
from cas.errors import (
    Closed,
    CorruptCatalog,
    ForkedStore,
    NewerFormat,
    NotAStore,
    OutcomeUnknown,
    ReadOnly,
    StorageFailed,
    StorageFull,
)
from cas.model.entry import genesis_hash

if TYPE_CHECKING:
    import apsw

FORMAT_VERSION: Final = 1


class _Gate(Protocol):
    def enter(self) -> None: ...
    def enter_marked(self) -> int: ...
    def leave(self) -> None: ...
    def mark(self) -> int: ...
    def before_commit(self) -> None: ...
    def after_commit(self) -> int: ...
    def elect(self, task: str) -> AbstractContextManager[Turn | None]: ...
    def close(self) -> None: ...


class _Read:
    """`with catalog.read()`: a connection of the pool inside one transaction."""

    __slots__ = ("_catalog", "_connection")

    def __init__(self, catalog: SqliteCatalog) -> None:
        self._catalog = catalog

    def __enter__(self) -> CatalogReader:
        self._connection = connection = self._catalog._take()
        try:
            connection.execute("BEGIN")
        except Exception as error:
            self._catalog._discard(connection)
            translate(error, self._catalog.path)
        return SqliteReader(connection, self._catalog._genesis)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection = self._connection
        try:
            connection.execute("COMMIT")
        except Exception as failure:
            self._catalog._discard(connection)
            if error is None:
                translate(failure, self._catalog.path)
        else:
            self._catalog._give(connection)
        if error is not None:
            reraise(error, self._catalog.path)


class _Write:
    """`with catalog.write()`: the gate, then BEGIN IMMEDIATE, then COMMIT or ROLLBACK."""

    __slots__ = ("_catalog", "_changes", "_connection", "_writer")

    def __init__(self, catalog: SqliteCatalog) -> None:
        self._catalog = catalog

    def __enter__(self) -> CatalogWriter:
        catalog = self._catalog
        catalog._check()
        if catalog.read_only:
            raise ReadOnly(
                f"{catalog.path} was opened read-only; open the store for writing.",
                path=catalog.path,
            )
        catalog._writer_lock.acquire()
        try:
            # Who waited here while another thread closed the store must not touch the gate: the
            # numbers of its descriptors may belong to other files by now.
            catalog._check()
            try:
                mark = catalog._gate.enter_marked()
                self._connection = connection = catalog._writer()
                connection.execute("BEGIN IMMEDIATE")
                self._changes = connection.total_changes()
            except BaseException:
                # An interrupt can leave the transaction open: that connection must not stay.
                catalog._drop_writer()
                catalog._gate.leave()
                raise
        except BaseException as error:
            catalog._writer_lock.release()
            reraise(error, catalog.path)
            raise
        self._writer = writer = SqliteWriter(connection, catalog._genesis)
        known_mark, head = catalog._known
        if mark and mark == known_mark:
            # Nobody has committed since this handle did: what it left is what it finds.
            writer.expect(head)
        writer.mark = mark
        return writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        catalog = self._catalog
        try:
            if error is None:
                self._commit()
                return
            self._roll_back()
        finally:
            catalog._gate.leave()
            catalog._writer_lock.release()
        reraise(error, catalog.path)

    def _commit(self) -> None:
        catalog, connection, writer = self._catalog, self._connection, self._writer
        # A transaction that changed nothing syncs nothing, and leaves the mark.
        changed = connection.total_changes() != self._changes
        if changed:
            try:
                catalog._gate.before_commit()
            except OSError as failure:
                self._roll_back()
                raise _unmarked(failure, catalog.path) from failure
        try:
            connection.execute("COMMIT")
        except Exception as failure:
            catalog._park_writer()
            told = typed(failure, catalog.path)
            if isinstance(told, StorageFull):
                # Only a write says this, and it comes before the sync: what would make the
                # commit count is not in the log, so that nothing can bring it back.
                raise told from failure
            raise OutcomeUnknown(
                f"The answer of the commit was lost ({failure}); ask again with the "
                "transaction id to learn whether it counts.",
                txid=None,
            ) from told
        except BaseException:
            catalog._drop_writer()
            raise
        if changed:
            writer.mark = catalog._gate.after_commit()
            catalog._synced()
        catalog._known = writer.mark, writer.found

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except BaseException:
            self._catalog._drop_writer()


def _unmarked(failure: OSError, path: str) -> StorageFull | StorageFailed:
    """The error for a commit that was not begun, because its mark could not be written."""
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"No space is left for {path}; nothing was committed. Free space and try again.",
            path=path,
        )
    return StorageFailed(
        f"I/O failed beside {path}: {failure}; nothing was committed.",
        path=path,
        errno=failure.errno,
    )


class SqliteCatalog:
    """The catalog of one store. Connections: one for writing, a pool for reading."""

    def __init__(
        self,
        path: str,
        gate: _Gate,
        *,
        read_only: bool = False,
        vfs: str | None = None,
        anchor: apsw.Connection | None = None,
        anywhere: bool = False,
    ) -> None:
        import apsw

        check_engine(apsw.sqlite_lib_version())
        self.path = path
        self.read_only = read_only
        self._vfs = vfs
        self._gate = gate
        self._pid = os.getpid()
        self._pool: list[apsw.Connection] = []
        self._writer_lock = threading.Lock()
        self._writing: apsw.Connection | None = None
        self._parked: list[apsw.Connection] = []
        # The mark and the head that the newest write transaction of this handle left.
        self._known: tuple[int, Head | None] = (0, None)
        # Without a log all is in the file itself, synced by whoever took the log away.
        self._hard = anchor is not None or not os.path.exists(path + "-wal")
        self._closed = False
        # What a memory catalog lives in: it is gone when its last connection closes.
        self._anchor = anchor
        self._anywhere = anywhere or anchor is not None
        self._genesis = b""
        try:
            self.meta = self._load_meta()
        except BaseException as error:
            self.close()
            reraise(error, path)
            raise
        self._genesis = genesis_hash(self.meta.store_id)

    # -- connections -------------------------------------------------------------------------

    def _connect(self) -> apsw.Connection:
        return connect(self.path, read_only=self.read_only, vfs=self._vfs)

    def _take(self) -> apsw.Connection:
        self._check()
        try:
            return self._pool.pop()
        except IndexError:
            try:
                return self._connect()
            except Exception as error:
                translate(error, self.path)

    def _give(self, connection: apsw.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._pool.append(connection)

    def _discard(self, connection: apsw.Connection) -> None:
        try:
            connection.close(True)
        except Exception:  # nothing more can be done for a broken connection
            return

    def _writer(self) -> apsw.Connection:
        if self._writing is None:
            self._writing = self._connect()
        return self._writing

    def _drop_writer(self) -> None:
        connection, self._writing = self._writing, None
        if connection is not None:
            self._discard(connection)

    def _park_writer(self) -> None:
        """Use a connection no more whose commit failed, but keep it until one has succeeded.

        While any connection lives, what it left in the log stays invisible and is overwritten.
        Were it the last to close, the next to open would find a commit that nobody had synced.
        """
        if self._writing is not None:
            before, self._parked = self._parked, [self._writing]
            self._writing = None
            for connection in before:
                self._discard(connection)

    def _synced(self) -> None:
        """A commit of this handle has synced the log, and all in it."""
        self._hard = True
        while self._parked:
            self._discard(self._parked.pop())

    def _check(self) -> None:
        if self._closed:
            raise Closed("The store is closed; open it again.")
        if self._pid != os.getpid():
            raise ForkedStore(
                "This handle belongs to the parent process; open the store again in the child."
            )

    # -- the port ----------------------------------------------------------------------------

    def read(self) -> _Read:
        return _Read(self)

    def write(self) -> _Write:
        return _Write(self)

    def harden(self) -> None:
        if not self._hard:
            with self.write() as writer:
                writer.set_cursor("settled", writer.head().version)

    def inline_body(self, number: int) -> bytes | None:
        connection = self._take()
        try:
            rows = connection.execute("SELECT body FROM pack WHERE number = ?", (number,))
            row = rows.fetchone()
        except Exception as error:
            self._discard(connection)
            translate(error, self.path)
        self._give(connection)
        return None if row is None else row[0]

    def head_seq(self) -> int:
        connection = self._take()
        try:
            row: Any = connection.execute("SELECT max(seq) FROM journal").fetchone()
        except Exception as error:
            self._discard(connection)
            translate(error, self.path)
        self._give(connection)
        return row[0] or 0

    def mark(self) -> int:
        self._check()
        return self._gate.mark()

    def elect(self, task: str) -> AbstractContextManager[Turn | None]:
        return self._gate.elect(task)

    def check(self) -> Iterator[str]:
        connection = self._take()
        try:
            rows = connection.execute("PRAGMA integrity_check(20)").fetchall()
        except Exception as error:
            self._discard(connection)
            yield f"The catalog cannot be checked: {error}."
            return
        self._give(connection)
        for (text,) in rows:
            if text != "ok":
                yield str(text)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            # Closing a parent's connection in a child could checkpoint or remove the log that
            # the parent still uses; the handles are left alone.
            return
        with self._writer_lock:
            self._drop_writer()
        while self._pool:
            self._discard(self._pool.pop())
        while self._parked:
            self._discard(self._parked.pop())
        if self._anchor is not None:
            self._discard(self._anchor)
        self._gate.close()

    def _load_meta(self) -> Meta:
        connection = self._connect()
        try:
            application = connection.pragma("application_id")
            schema = connection.pragma("user_version")
            if application != APPLICATION_ID:
                raise NotAStore(f"{self.path} is not the catalog of a store.", path=self.path)
            if schema > SCHEMA_VERSION:
                raise NewerFormat(
                    f"The store at {self.path} has schema {schema}; this version knows "
                    f"{SCHEMA_VERSION}. Install a newer version of agent-cas.",
                    needs=schema,
                    known=SCHEMA_VERSION,
                )
            rows: Any = connection.execute("SELECT key, value FROM meta").fetchall()
            values = dict(rows)
        finally:
            # The connection that proved the file good serves the first reader.
            self._pool.append(connection)
        meta = _meta_of(values, self.path)
        if not (self.read_only or self._anywhere):
            refuse_moved(self.path, values)
        return meta


def _meta_of(values: dict[str, Any], path: str) -> Meta:
    try:
        features = tuple(str(values["features"]).split())
        meta = Meta(
            bytes(values["store_id"]),
            bytes(values["lineage_id"]),
            int(values["format"]),
            features,
            int(values["created_us"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptCatalog(
            f"The catalog {path} does not say what it is ({error}).", detail=str(error)
        ) from error
    if meta.format > FORMAT_VERSION:
        raise NewerFormat(
            f"The store at {path} has format {meta.format}; this version knows "
            f"{FORMAT_VERSION}. Install a newer version of agent-cas.",
            needs=meta.format,
            known=FORMAT_VERSION,
        )
    unknown = [name for name in features if name not in KNOWN_FEATURES]
    if unknown:
        raise NewerFormat(
            f"The store at {path} needs {', '.join(unknown)}, which this version does not "
            "know. Install a newer version of agent-cas.",
            needs=" ".join(unknown),
            known=FORMAT_VERSION,
        )
    return meta


def create_catalog(path: str, meta: Meta, *, vfs: str | None = None) -> None:
    """Make the file of a new catalog, durable when this returns; it must not exist."""
    import apsw

    check_engine(apsw.sqlite_lib_version())
    try:
        connection = apsw.Connection(path, vfs=vfs)
        try:
            fill(connection, meta, NOWHERE if path == ":memory:" else place_of(path))
        finally:
            connection.close()
    except Exception as error:
        translate(error, path)


def open_catalog(
    path: str,
    locks: str,
    *,
    read_only: bool = False,
    vfs: str | None = None,
    anywhere: bool = False,
) -> SqliteCatalog:
    """Open the catalog of a store folder; `locks` is the folder of the gate's files.

    `anywhere`: a copy may be written to as well, for who settles it and for tests.
    Raises `StoreNotFound`'s cause as `NotAStore`, `NewerFormat`, `UnsafeFilesystem`,
    `UnsafeEngine`, `CorruptCatalog`, `ReadOnly`, `StoreMoved`.
    """
    check_filesystem(os.path.dirname(path) or ".")
    try:
        gate: _Gate = NoGate() if read_only else FileGate(locks)
    except OSError as error:
        raise ReadOnly(
            f"{locks} cannot be written ({error.strerror}); open the store read-only.", path=locks
        ) from error
    return SqliteCatalog(path, gate, read_only=read_only, vfs=vfs, anywhere=anywhere)


def memory_catalog(meta: Meta, name: str) -> SqliteCatalog:
    """A catalog that lives as long as its handle, for tests and throw-away stores.

    Handles of one process that give the same name share it.
    """
    import apsw

    path = f"file:/cas-{name}?vfs=memdb"
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    anchor = apsw.Connection(path, flags=flags)
    fill(anchor, meta, NOWHERE)
    return SqliteCatalog(path, NoGate(), anchor=anchor)
