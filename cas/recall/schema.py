"""The search database: its tables, how it is opened, and how damage in it is told.

Floor 7. Invariant: it holds nothing that the store does not give again; whatever the engine finds
wrong with it is `CorruptIndex`, and then it is thrown away and made anew.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cas.errors import Busy, CorruptIndex, StorageFailed, StorageFull
from cas.later import Later

if TYPE_CHECKING:
    import apsw
else:
    apsw = Later("apsw")

VERSION: Final = 4
"""Of tables and of what is written into them. A file of another one is not read, but made anew."""

BUSY_MS: Final = 30_000

# The last line: words of a transaction stay in memory until its end, so that the index has one
# part a transaction; parts of a megabyte take a fifth more room.
_TABLES: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE name(code INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE item(
    doc INTEGER PRIMARY KEY, type INTEGER NOT NULL, id TEXT NOT NULL, blob BLOB NOT NULL,
    since INTEGER NOT NULL, until INTEGER, time_us INTEGER NOT NULL, words INTEGER NOT NULL,
    tokens INTEGER NOT NULL, importance REAL, at_us INTEGER, from_us INTEGER, to_us INTEGER,
    trust INTEGER NOT NULL, flags INTEGER NOT NULL);
CREATE INDEX item_id ON item(id, type, since);
CREATE INDEX item_until ON item(until) WHERE until IS NOT NULL;
CREATE TABLE value(
    field INTEGER, value, doc INTEGER, PRIMARY KEY(field, value, doc)) WITHOUT ROWID;
CREATE INDEX value_doc ON value(doc, field);
CREATE TABLE link(
    doc INTEGER, field INTEGER, type TEXT, id TEXT, pin BLOB,
    PRIMARY KEY(id, type, doc, field)) WITHOUT ROWID;
CREATE INDEX link_doc ON link(doc);
CREATE TABLE feedback(seq INTEGER, type TEXT, id TEXT, worth INTEGER, agent TEXT);
CREATE INDEX feedback_id ON feedback(id, type, seq);
CREATE TABLE model(
    code INTEGER PRIMARY KEY, identity TEXT UNIQUE, dimensions INTEGER, upto INTEGER);
CREATE TABLE vector(place INTEGER PRIMARY KEY, data BLOB);
CREATE VIRTUAL TABLE text USING fts5(
    body, content='', contentless_delete=1, tokenize='{tokenizer}');
INSERT INTO text(text, rank) VALUES ('hashsize', 16777216);
"""
TOKENIZER: Final = ["porter", "unicode61", "remove_diacritics", "2"]


class Database:
    """One connection to a search database, used by one thread at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()
        with self._told():
            self.connection = apsw.Connection(path)
            self._configure()

    def _configure(self) -> None:
        run = self.connection.execute
        self.connection.set_busy_timeout(BUSY_MS)
        run("PRAGMA cell_size_check=ON")
        # What was purged must not stay in the file's free pages.
        run("PRAGMA secure_delete=ON")
        run("PRAGMA cache_size=-32768")
        run("PRAGMA temp_store=MEMORY")
        run("PRAGMA journal_mode=WAL")
        # A power failure may take the newest rows, which the store gives again.
        run("PRAGMA synchronous=NORMAL")
        run("CREATE VIRTUAL TABLE IF NOT EXISTS temp.terms USING fts5vocab('main', 'text', 'row')")
        run("CREATE VIRTUAL TABLE IF NOT EXISTS temp.places USING fts5vocab(main, text, instance)")
        self.connection.register_fts5_function("occurrences", _occurrences)
        self._tokenizer = self.connection.fts5_tokenizer(TOKENIZER[0], TOKENIZER[1:])

    def prepare(self) -> None:
        """Make the tables where there are none; inside a transaction of the caller's."""
        with self._told():
            if self.connection.pragma("user_version") == VERSION:
                return
            tables = _TABLES.replace("{tokenizer}", " ".join(TOKENIZER))
            for statement in tables.strip().split(";\n"):
                if statement.strip():
                    self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version={VERSION}")

    @property
    def version(self) -> int:
        """The version of the tables; 0 where there are none."""
        with self._told():
            return int(self.connection.pragma("user_version"))

    def term(self, word: str) -> str | None:
        """What the full text has for a word; None for what is several, or none, there."""
        with self.lock:
            tokens: Any = self._tokenizer(
                word.encode("utf-8"),
                apsw.FTS5_TOKENIZE_QUERY,
                None,
                include_offsets=False,
                include_colocated=False,
            )
        return str(tokens[0]) if len(tokens) == 1 else None

    def rows(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement. Raises `CorruptIndex`, `Busy`, `StorageFailed`."""
        with self.lock:
            try:
                return list(self.connection.execute(sql, values))
            except apsw.Error as error:
                self._tell(error)

    def row(self, sql: str, values: Any = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def run(self, sql: str, values: Any = ()) -> None:
        """A statement whose rows nobody wants."""
        self.rows(sql, values)

    def many(self, sql: str, rows: Any) -> None:
        """A statement for each row of values."""
        with self.lock:
            try:
                self.connection.executemany(sql, rows)
            except apsw.Error as error:
                self._tell(error)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that waits its turn, and is rolled back when the block raises."""
        with self.lock:
            # Not apsw's own `with`: that waits with the interpreter locked.
            self.run("BEGIN IMMEDIATE")
            try:
                yield
                self.run("COMMIT")
            except BaseException:
                with suppress(Exception):
                    self.connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Give the connection up."""
        with self.lock:
            self.connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            self._tell(error)

    def _tell(self, error: Exception) -> NoReturn:
        """Raise what an error of the engine means here."""
        if isinstance(error, apsw.BusyError | apsw.LockedError):
            raise Busy(
                f"{self.path} is in use by another program; try again.", waited_ms=BUSY_MS
            ) from error
        if isinstance(error, apsw.FullError):
            raise StorageFull(
                f"No space is left for {self.path}; free space and try again.", path=self.path
            ) from error
        if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError):
            raise StorageFailed(
                f"{self.path} cannot be written: {error}.", path=self.path, errno=None
            ) from error
        raise CorruptIndex(f"{self.path}: {error}") from error


def vector_place(model: int, doc: int) -> int:
    """Where the vector of a row by a model lies. One number, because SQLite fills the pages of a
    table that grows at its end, and leaves a twelfth of those of an index free.
    """
    return (model << 40) + doc


def remove(path: str) -> None:
    """Remove a search database and the files beside it."""
    for name in (path, path + "-wal", path + "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(name)


def _occurrences(api: Any, *_: Any) -> int:
    """How often the words of a query stand in a text."""
    return int(api.inst_count)
