"""The catalog in one SQLite file: a write-ahead log, one sync a transaction at the most.

Floor 2; implements docs/format.md sections 7 and 8. Invariant: only SQLite opens SQLite's
files, but for the sync of its log. Reading and writing are in `blocks`, the connections they use
in `connections`, and what makes a commit durable in `log`.

WAL checkpoints run inline every 1,000 pages; a background one never caught up.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from cas.catalog.blocks import ReadBlock, WriteBlock
from cas.catalog.catalog import EntryRow, Fetch, Meta, Turn
from cas.catalog.connections import Connections
from cas.catalog.engine import reraise, translate
from cas.catalog.gate import FileGate, Gate, NoGate
from cas.catalog.host import check_engine, check_filesystem
from cas.catalog.place import NOWHERE, place_of, refuse_moved
from cas.catalog.schema import APPLICATION_ID, SCHEMA_VERSION, check_features, fill
from cas.errors import (
    CorruptCatalog,
    NewerFormat,
    NotAStore,
    ReadOnly,
    StorageFull,
)
from cas.later import Later
from cas.model.entry import genesis_hash

if TYPE_CHECKING:
    import apsw

    from cas.catalog import scrub as scrubbing
    from cas.catalog import trim as trimming
    from cas.catalog.trim import Weight
else:
    scrubbing = Later("cas.catalog.scrub")
    trimming = Later("cas.catalog.trim")


class SqliteCatalog:
    """The catalog of one store. Connections: one for writing, a pool for reading."""

    def __init__(
        self,
        path: str,
        gate: Gate,
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
        self._gate = gate
        self._anywhere = anywhere or anchor is not None
        self._connections = Connections(path, gate, read_only=read_only, vfs=vfs, anchor=anchor)
        try:
            self.meta = self._load_meta()
        except BaseException as error:
            self.close()
            reraise(error, path)
            raise
        self._connections.genesis = genesis_hash(self.meta.store_id)

    # -- the port ----------------------------------------------------------------------------

    def read(self) -> ReadBlock:
        return ReadBlock(self._connections)

    def write(self, *, durable: bool = True) -> WriteBlock:
        return WriteBlock(self._connections, durable=durable)

    def harden(self, *, reading: bool = False) -> None:
        self._connections.harden(reading=reading)

    def serve_archive(self, fetch: Fetch) -> None:
        self._connections.fetch = fetch

    def refuse_scrub(self) -> None:
        return  # who may write the file may write it anew

    def may_archive(self) -> bool:
        return not self.read_only

    def inline_body(self, number: int) -> bytes | None:
        lent = self._connections.lent()
        if lent is not None:
            return _body(lent, number)
        connection = self._connections.take()
        try:
            body = _body(connection, number)
        except Exception as error:
            self._connections.discard(connection)
            translate(error, self.path)
        self._connections.give(connection)
        return body

    def head_seq(self) -> int:
        connection = self._connections.take()
        try:
            row: Any = connection.execute("SELECT max(seq) FROM journal").fetchone()
        except Exception as error:
            self._connections.discard(connection)
            translate(error, self.path)
        self._connections.give(connection)
        return row[0] or 0

    def newer(self, after: int, limit: int) -> Sequence[EntryRow]:
        if self.is_locked:
            return ()  # nobody commits beside the transaction of this thread
        with self.read() as reader:
            return reader.entries(after, limit)

    @property
    def bucket(self) -> str | None:
        return None

    @property
    def is_locked(self) -> bool:
        return self._connections.lent() is not None

    @property
    def is_distant(self) -> bool:
        return False

    def listen(self, wake: Callable[[], None]) -> Callable[[], None] | None:
        return None

    def mark(self) -> int:
        self._connections.check()
        return self._gate.mark()

    def elect(self, task: str) -> AbstractContextManager[Turn | None]:
        return self._gate.elect(task)

    def hold(self, number: int) -> Callable[[], None]:
        return self._gate.hold(number)

    def is_held(self, number: int) -> bool | None:
        return self._gate.is_held(number)

    def scrub(self, *, rewrite: bool) -> bool:
        return scrubbing.scrub(self._connections, rewrite=rewrite)

    def weigh(self) -> Weight:
        return trimming.weigh(self._connections)

    def trim(self) -> bool:
        return trimming.trim(self._connections)

    def check(self) -> Iterator[str]:
        connection = self._connections.take()
        try:
            rows = connection.execute("PRAGMA integrity_check(20)").fetchall()
        except Exception as error:
            self._connections.discard(connection)
            yield f"The catalog cannot be checked: {error}."
            return
        self._connections.give(connection)
        for (text,) in rows:
            if text != "ok":
                yield str(text)

    def close(self) -> None:
        self._connections.close()

    def _load_meta(self) -> Meta:
        connection = self._connections.connect()
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
            self._connections.give(connection)
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
            bytes(values.get("ancestry") or b""),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptCatalog(
            f"The catalog {path} does not say what it is ({error}).", detail=str(error)
        ) from error
    check_features(meta, path)
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
    `UnsafeEngine`, `CorruptCatalog`, `ReadOnly`, `StorageFull`, `StoreMoved`.
    """
    check_filesystem(os.path.dirname(path) or ".")
    try:
        gate: Gate = NoGate() if read_only else FileGate(locks)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"No space is left for {locks}. Free space and try again.", path=locks
            ) from error
        raise ReadOnly(
            f"{locks} cannot be written ({error.strerror}). Who may not write there can read "
            "(`cas log`, `cas restore`; `cas.open(..., read_only=True)`) and change nothing.",
            path=locks,
        ) from error
    return SqliteCatalog(path, gate, read_only=read_only, vfs=vfs, anywhere=anywhere)


def _body(connection: apsw.Connection, number: int) -> bytes | None:
    rows = connection.execute("SELECT body FROM pack WHERE number = ?", (number,))
    row: Any = rows.fetchone()
    return None if row is None else row[0]


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
