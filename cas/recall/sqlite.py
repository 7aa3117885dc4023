"""The search database in a file of SQLite: its tables, full text, and how damage in it is told.

Floor 7. Invariant: it holds nothing that the store does not give again; whatever the engine finds
wrong with it is `CorruptIndex`, and then it is thrown away and made anew. A file that somebody
named is opened and thrown away only if it bears the mark of an index, or is empty.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NoReturn

from attrs import frozen

from cas.catalog.engine import is_full
from cas.errors import Busy, CorruptIndex, Invalid, StorageFailed, StorageFull
from cas.later import Later
from cas.recall.database import VERSION, Database, Match, Rows
from cas.recall.fulltext import TOKENIZER, Words
from cas.recall.text import Clause
from cas.storage.files import translate_read

if TYPE_CHECKING:
    import apsw
    import numpy as np
    from numpy.typing import NDArray

    Docs = NDArray[np.int64]
else:
    apsw = Later("apsw")
    np = Later("numpy", keep=True)

BUSY_MS: Final = 30_000

MARK: Final = b"casr"
"""`application_id` of an index, which SQLite keeps at `_MARK_AT` of the file."""
_MARK_AT: Final = 68
_MAGIC: Final = b"SQLite format 3\0"

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


@frozen
class FileHome:
    """A file, ":memory:" for none. `named` is one that the caller chose: what lies there may be
    anything.
    """

    path: str
    named: bool = False

    @property
    def is_there(self) -> bool:
        """Whether there is a file."""
        return self.path != ":memory:" and os.path.exists(self.path)

    def open(self) -> Database:
        """Open the file, and make it where there is none. Raises `Invalid` for another's."""
        self._refuse_others()
        return SqliteDatabase(self.path)

    def remove(self, seen: Database | None) -> None:
        """Remove the file and those beside it. Who has it open goes on with what it was."""
        if self.path != ":memory:":
            self._refuse_others()
            for name in (self.path, self.path + "-wal", self.path + "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(name)

    def _refuse_others(self) -> None:
        """Raise `Invalid` where a file that was named is none of ours."""
        if not self.named or self.path == ":memory:":
            return
        try:
            if not os.path.getsize(self.path):
                return
            with open(self.path, "rb") as file:
                start = file.read(_MARK_AT + len(MARK))
        except FileNotFoundError:
            return
        except OSError as error:
            translate_read(error, self.path)
        if not start.startswith(_MAGIC) or start[_MARK_AT:] != MARK:
            raise Invalid(
                f"{self.path} is no search index, and stays as it is; name another file, or "
                "remove this one if nobody needs it."
            )


class SqliteDatabase:
    """`Database` over a file."""

    lost = replaced = False
    chooser = None
    listed = "json_each(?) d"

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
        if not self.connection.pragma("page_count"):
            # Before there is a log, so that the file itself says from the start what it is.
            run(f"PRAGMA application_id={int.from_bytes(MARK, 'big')}")
        run("PRAGMA journal_mode=WAL")
        # A power failure may take the newest rows, which the store gives again.
        run("PRAGMA synchronous=NORMAL")
        run("CREATE VIRTUAL TABLE IF NOT EXISTS temp.places USING fts5vocab(main, text, instance)")
        self.connection.register_fts5_function("occurrences", _occurrences)
        self._words = Words(self.connection)

    def prepare(self, identity: str) -> None:
        """`Database.prepare`."""
        with self._told():
            if self.connection.pragma("user_version") == VERSION:
                return
            tables = _TABLES.replace("{tokenizer}", " ".join(TOKENIZER))
            for statement in tables.strip().split(";\n"):
                if statement.strip():
                    self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version={VERSION}")
            self.connection.execute(
                "INSERT INTO meta VALUES ('store', ?), ('seq', '-1')", (identity,)
            )

    @property
    def version(self) -> int:
        """`Database.version`."""
        with self._told():
            return int(self.connection.pragma("user_version"))

    # -- statements --------------------------------------------------------------------------

    def rows(self, sql: str, values: Any = ()) -> Rows:
        """`Database.rows`."""
        with self.lock:
            try:
                return list(self.connection.execute(_plain(sql), values))
            except apsw.Error as error:
                self._tell(error)

    def row(self, sql: str, values: Any = ()) -> tuple[Any, ...] | None:
        """`Database.row`."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def run(self, sql: str, values: Any = ()) -> None:
        """`Database.run`."""
        self.rows(sql, values)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """`Database.many`."""
        with self.lock:
            try:
                self.connection.executemany(_plain(sql), rows)
            except apsw.Error as error:
                self._tell(error)

    def insert(self, table: str, rows: Iterable[Sequence[Any]], conflict: str = "") -> None:
        """`Database.insert`."""
        rows = iter(rows)
        for first in rows:
            marks = ", ".join("?" * len(first))
            self.many(f"INSERT INTO {table} VALUES ({marks}) {conflict}", chain([first], rows))

    def plan(self, sql: str, values: Any) -> list[str]:
        """`Database.plan`."""
        return [str(row[-1]) for row in self.rows("EXPLAIN QUERY PLAN " + sql, values)]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """`Database.writing`."""
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

    @contextmanager
    def reading(self) -> Iterator[None]:
        """`Database.reading`: who has the file open keeps it."""
        yield

    def close(self) -> None:
        """`Database.close`."""
        with self.lock:
            self.connection.close()

    # -- values ------------------------------------------------------------------------------

    def key(self, value: Any) -> Any:
        """`Database.key`: SQLite has this order itself."""
        return value

    def values(self, field: int, keys: Sequence[Any]) -> list[Any]:
        """`Database.values`."""
        return list(keys)

    def listing(self, docs: Sequence[int]) -> Any:
        """`Database.listing`."""
        return json.dumps([int(doc) for doc in docs])

    # -- full text ---------------------------------------------------------------------------

    def add_texts(self, texts: Iterable[tuple[int, str]]) -> None:
        """`Database.add_texts`."""
        self.many("INSERT INTO text(rowid, body) VALUES (?, ?)", texts)

    def drop_texts(self, docs: Sequence[tuple[int]]) -> None:
        """`Database.drop_texts`."""
        self.many("DELETE FROM text WHERE rowid = ?", docs)

    def term(self, word: str) -> str | None:
        """`Database.term`."""
        with self.lock:
            return self._words.term(word)

    def postings(self, clause: Clause, term: str | None, after: int) -> tuple[Docs, Docs]:
        """`Database.postings`."""
        if term is not None and not after:
            # One text of all numbers, read at once: a third of the time that rows take.
            row = self.row("SELECT group_concat(doc) FROM temp.places WHERE term = ?", (term,))
            numbers = row[0] if row and row[0] else None
            docs = np.fromstring(numbers, np.int64, sep=",") if numbers else np.zeros(0, np.int64)
            # A word's rows ascend, so that those of one row stand together.
            first = np.flatnonzero(np.diff(docs, prepend=0))
            return docs[first], np.diff(first, append=len(docs))
        rows = self.rows(
            "SELECT rowid, occurrences(text) FROM text WHERE text MATCH ? AND rowid >= ?",
            (clause.expression, after),
        )
        array = np.array(rows, np.int64).reshape(len(rows), 2)
        return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])

    def match(self, clauses: Sequence[Clause]) -> Match:
        """`Database.match`."""
        asked = " AND ".join(each.expression for each in clauses) or '""'
        return Match("text m", "m.rowid", ("m.text MATCH ?",), (asked,))

    # -- errors ------------------------------------------------------------------------------

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
        if is_full(error):
            raise StorageFull(
                f"No space is left for {self.path}; free space and try again.", path=self.path
            ) from error
        if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError):
            raise StorageFailed(
                f"{self.path} cannot be written: {error}.", path=self.path, errno=None
            ) from error
        raise CorruptIndex(f"{self.path}: {error}") from error


@functools.lru_cache(maxsize=512)
def _plain(sql: str) -> str:
    return sql.replace("@", "")


def _occurrences(api: Any, *_: Any) -> int:
    """How often the words of a query stand in a text."""
    return int(api.inst_count)
