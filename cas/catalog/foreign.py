"""A SQLite file that another program made, to be read: its tables, as of one moment.

Floor 2. Invariant: the file is only read, and nothing in it is run: it is copied page by page in
one transaction, and what is read is the copy, in which views and triggers do not exist and a schema
is not trusted. Whatever the engine says of it is an error of the caller's family, never of a store.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from cas.errors import BadArchive, Busy, Invalid, StorageFailed
from cas.model.names import printable

if TYPE_CHECKING:
    import apsw

MAGIC: Final = b"SQLite format 3\0"
_BUSY_MS: Final = 10_000
_READ_BYTES: Final = 1 << 20


def is_sqlite(path: str) -> bool:
    """Whether a file begins as those of SQLite do. Raises `StorageFailed`."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise StorageFailed(f"{printable(path)} cannot be read: {error}.", path=path) from error


class ForeignFile:
    """The tables of such a file. One thread. Raises `BadArchive`, `Busy`, `StorageFailed`.

    `tables` has the columns of each table by name; `copy` is the path of the whole file as of that
    moment, and lies in a folder that goes when this is closed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = tempfile.TemporaryDirectory(prefix="cas-import-")
        self.copy = os.path.join(self._folder.name, "copy.sqlite")
        self._connection: apsw.Connection | None = None
        try:
            self._connection = self._copied()
            self.tables = self._tables()
        except BaseException as error:
            self.close()
            self._refuse(error)
            raise

    def __enter__(self) -> ForeignFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the copy; harmless when called twice."""
        if self._connection is not None:
            self._connection.close(True)
            self._connection = None
        self._folder.cleanup()

    def _copied(self) -> apsw.Connection:
        """The copy, made of the file as nobody writes it where that holds, else under its locks."""
        import apsw

        sealed = self._seal()
        copy = self._copy(immutable=True) if sealed is not None else None
        if copy is None or self._seal() != sealed:
            if copy is not None:
                copy.close(True)
                os.unlink(self.copy)
            copy = self._copy(immutable=False)
        copy.pragma("journal_mode", "DELETE")
        copy.pragma("trusted_schema", False)
        copy.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        copy.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
        copy.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        copy.pragma("query_only", True)
        return copy

    def _seal(self) -> tuple[int, ...] | None:
        """What a file looks like that has all of its content in itself; None for any other.

        Where it has a log, reading it under its locks leaves files beside it, and takes a folder
        that may be written; one with an empty log needs neither.
        """
        log = self.path + "-wal"
        with open(self.path, "rb") as stream:
            header = stream.read(20)
            found = os.fstat(stream.fileno())
        if header[18:20] != b"\x02\x02" or (os.path.exists(log) and os.path.getsize(log)):
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _copy(self, *, immutable: bool) -> apsw.Connection:
        import apsw

        name = os.path.abspath(self.path)
        for char in "%?#":
            name = name.replace(char, f"%{ord(char):02x}")
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        source = apsw.Connection(f"file:{name}{'?immutable=1' if immutable else ''}", flags=flags)
        try:
            source.set_busy_timeout(_BUSY_MS)
            copy = apsw.Connection(self.copy)
            try:
                with copy.backup("main", source, "main") as backup:
                    backup.step(-1)
            except BaseException:
                copy.close(True)
                raise
        finally:
            source.close(True)
        return copy

    def _tables(self) -> dict[str, tuple[str, ...]]:
        run = self._run
        # A virtual table has no page of its own, and code that would be run.
        named = run("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")
        names = [name for (name,) in named if not name.startswith("sqlite_")]
        return {
            name: tuple(each for (each,) in run("SELECT name FROM pragma_table_info(?)", (name,)))
            for name in sorted(names)
        }

    def count(self, table: str) -> int:
        """How many rows a table has."""
        ((found,),) = self._run(f"SELECT count(*) FROM {_quoted(table)}")
        return int(found)

    def rows(
        self, table: str, columns: Sequence[str], order: str, where: str = "", value: Any = None
    ) -> Iterator[tuple[Any, ...]]:
        """Rows of a table, those in which the column `where` has this value if it is said.

        A column that the table does not have gives None.
        """
        there = self.tables[table]
        picked = ", ".join(_quoted(each) if each in there else "NULL" for each in columns)
        text = f"SELECT {picked} FROM {_quoted(table)}"
        if where:
            text += f" WHERE {_quoted(where)} = ?"
        text += f" ORDER BY {', '.join(map(_quoted, order.split()))}"
        return self._run(text, (value,) if where else ())

    def _run(self, text: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        if self._connection is None:
            raise Invalid("This file was closed.")
        try:
            yield from self._connection.execute(text, values)
        except Exception as error:
            self._refuse(error)
            raise

    def _refuse(self, error: BaseException) -> None:
        """Raise the typed error for one of the engine's; leave every other as it is."""
        import apsw

        shown = printable(self.path)
        if isinstance(error, apsw.BusyError | apsw.LockedError):
            raise Busy(
                f"{shown} is being written by another program; try again.", waited_ms=_BUSY_MS
            ) from error
        if isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.FullError | OSError):
            raise StorageFailed(
                f"{shown} cannot be read, or not copied to be read: {error}.", path=self.path
            ) from error
        if isinstance(error, apsw.Error | UnicodeDecodeError):
            raise BadArchive(
                f"{shown} cannot be read as a file of SQLite: {error}. Nothing was taken in.",
                path=self.path,
                reason=str(error),
            ) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
