"""Who is alive, whose turn it is, and who wants to be told: what a session of the server keeps.

Floor 2. Invariant: what is held here is held by a connection of its own, so that the server gives
it up with the process; losing the connection costs a turn or a session, never an object: a
session that is taken for dead is fenced off, and its writer is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from cas.catalog.postgres_dialect import IS_LOCKED, LOCK, TRY_LOCK, UNLOCK
from cas.catalog.postgres_errors import is_lost, quietly_close, translate
from cas.catalog.postgres_link import Link
from cas.catalog.postgres_schema import key_of
from cas.errors import CasError

if TYPE_CHECKING:
    from cas.catalog.postgres_link import Connection

NOTE_BYTES = 64


class PostgresTurn:
    """A turn whose note is a row."""

    __slots__ = ("_link", "_task")

    def __init__(self, link: Link, task: str) -> None:
        self._link = link
        self._task = task

    @property
    def note(self) -> bytes:
        """What was left last."""
        with suppress(CasError):
            row = self._link.row(self._link.sql.note, self._link.store, self._task)
            return b"" if row is None else row[0]
        return b""

    def leave(self, note: bytes) -> None:
        """Replace it; a note that the server does not take is lost."""
        with suppress(CasError):
            self._link.run(
                self._link.sql.leave_note, self._link.store, self._task, note[:NOTE_BYTES]
            )


class Attendance:
    """The locks that one handle holds at the server. Any thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._held: set[int] = set()
        self._tasks: set[str] = set()

    def hold(self, number: int) -> Callable[[], None]:
        """`Catalog.hold`. Raises what a connection raises."""
        key = self._key("session", number)
        with self._lock:
            # Noted behind it: a connection that is made for it takes all that is noted, and who
            # has a lock twice has it still when it was given up once.
            self._ask(LOCK, key)
            self._held.add(key)

        def release() -> None:
            with self._lock:
                if key in self._held:
                    self._held.discard(key)
                    with suppress(CasError):
                        self._ask(UNLOCK, key)

        return release

    def is_held(self, number: int) -> bool | None:
        """`Catalog.is_held`."""
        key = self._key("session", number) & ((1 << 64) - 1)
        try:
            row = self._link.row(IS_LOCKED, key >> 32, key & 0xFFFFFFFF)
        except CasError:
            return None
        return None if row is None else bool(row[0])

    @contextmanager
    def elect(self, task: str) -> Iterator[PostgresTurn | None]:
        """`Catalog.elect`: an advisory lock, if it is free."""
        if not self._try(task):
            yield None
            return
        try:
            yield PostgresTurn(self._link, task)
        finally:
            with self._lock:
                self._tasks.discard(task)
                with suppress(CasError):
                    self._ask(UNLOCK, self._key("turn", task))

    def _try(self, task: str) -> bool:
        with self._lock:
            # The server gives one session the same lock twice.
            if task in self._tasks:
                return False
            if not self._ask(TRY_LOCK, self._key("turn", task)):
                return False
            self._tasks.add(task)
            return True

    def _key(self, what: str, name: object) -> int:
        return key_of(what, self._link.place.schema, self._link.store, name)

    def _ask(self, statement: str, key: int) -> Any:
        """One statement on the connection of this handle's locks; inside the lock.

        A connection that was lost is made anew with the locks of sessions: turns are lost with it.
        """
        self._link.check()
        try:
            connection = self._connected()
            try:
                return _first(connection, statement, key)
            except Exception as error:
                self.drop()
                if not is_lost(error, connection):
                    raise
            return _first(self._connected(), statement, key)
        except Exception as error:
            translate(error, self._link.path)

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._link.connect()
            try:
                for key in self._held:
                    _first(connection, TRY_LOCK, key)
            except BaseException:
                quietly_close(connection)
                raise
            self._connection = connection
        return self._connection

    def drop(self) -> None:
        """Give up the connection, and with it all locks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._link.discard(connection)


def _first(connection: Connection, statement: str, key: int) -> Any:
    row = connection.execute(statement, (key,), prepare=True, binary=True).fetchone()
    return None if row is None else row[0]
