"""The search database beside a catalog on PostgreSQL: one index for all hosts that use a store.

Floor 7. Invariant: one at a time writes (an advisory lock, which the server takes back from who
dies), each transaction whole; who reads sees one state of the tables, which nobody throws away
meanwhile. Whoever makes the index anew gives it another mark, and what others had read of it then
counts for nothing.

The tables lie in a schema of their own and belong to whoever made them; who may use the schema may
use them. Nothing here is the truth: a commit need not be on the server's disk.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from attrs import field, frozen

from cas.catalog.postgres import PostgresCatalog
from cas.catalog.postgres_errors import is_lost, quietly_close, said, state_of, translate
from cas.catalog.postgres_link import connect
from cas.catalog.postgres_place import PostgresPlace, search_schema
from cas.catalog.postgres_schema import key_of as lock_of
from cas.errors import AccessDenied, CorruptIndex, StorageFailed, Unsupported
from cas.later import Later
from cas.recall import postgres_dialect as dialect
from cas.recall.database import VERSION, Chooser, Database, Match, Rows, vector_place
from cas.recall.postgres_texts import Texts
from cas.recall.text import Clause

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cas.catalog.postgres_link import Connection

    Docs = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Bits = NDArray[np.uint64]
else:
    np = Later("numpy", keep=True)

_T = TypeVar("_T")

# Joined as written, as SQLite joins them; planned each time, for what is asked.
_SETTLE_IN: Final = (
    "SET synchronous_commit = off; SET join_collapse_limit = 1; SET jit = off;"
    " SET plan_cache_mode = force_custom_plan; SET lock_timeout = '30s';"
    " SET idle_in_transaction_session_timeout = '300s'"
)
# What is not there, is otherwise, or contradicts itself: of whole tables nothing asks for it.
_DAMAGE: Final = ("22", "23", "3F", "42", "XX")
_REFUSED: Final = "42501"
_MADE: Final = "SELECT value FROM @meta WHERE key = 'made'"


@frozen
class ServerHome:
    """The tables of one projection in the schema for searches."""

    place: PostgresPlace = field(repr=False)
    identity: str
    is_there = False
    """Whether tables are due: where there are none, nothing was lost."""

    @property
    def schema(self) -> str:
        """The schema for searches."""
        return search_schema(self.place.schema)

    @property
    def key(self) -> str:
        """What the names of its tables end in."""
        return hashlib.blake2b(self.identity.encode(), digest_size=8, person=b"search").hexdigest()

    @property
    def path(self) -> str:
        """How people are told it."""
        return f"{self.place.shown} ({self.schema}, *_{self.key})"

    def open(self) -> Database:
        """Connect. Raises `AccessDenied`, `Unsupported`, `StorageFailed`, `ReadOnly`."""
        return PostgresDatabase(self)

    def remove(self, seen: Database | None) -> None:
        """Throw the tables away, unless others have done so since `seen` looked."""
        database = PostgresDatabase(self)
        try:
            database.remove(seen.mark if isinstance(seen, PostgresDatabase) else None)
        finally:
            database.close()


def home_beside(catalog: object, identity: str) -> ServerHome | None:
    """The place of an index beside a catalog; None where that is not on PostgreSQL."""
    return ServerHome(catalog.place, identity) if isinstance(catalog, PostgresCatalog) else None


class PostgresDatabase:
    """`Database` over tables of a server."""

    listed = "unnest(?::int8[]) d(value)"

    def __init__(self, home: ServerHome) -> None:
        self.lost = self.replaced = False
        self.mark: str | None = None
        """Of the tables that this handle has read; another one means that they are others."""
        self._home = home
        self.path = home.path
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._depth = 0
        self._texts = Texts(self)
        self._key = lock_of("search", home.schema, home.key)
        try:
            self._connection = connect(home.place, read_only=False)
            self._connection.execute(_SETTLE_IN)
        except Exception as error:
            translate(error, home.place.shown)
        if self._connection.info.parameter_status("server_encoding") != "UTF8":
            self.close()
            raise Unsupported(
                f"{home.place.shown} does not keep text as UTF8; a search index needs that. Have "
                'the index in a file (`index="cache"`).'
            )

    def close(self) -> None:
        """`Database.close`."""
        if self._pid == os.getpid():
            quietly_close(self._connection)

    # -- tables ------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """`Database.version`."""
        self.mark = None
        there = self.row("SELECT to_regclass(?) IS NOT NULL", (self._table("meta"),))
        if there is None or not there[0]:
            return 0
        rows = self.rows("SELECT key, value FROM @meta WHERE key IN ('made', 'version')")
        found = {str(key): str(value) for key, value in rows}
        self.mark = found.get("made")
        return int(found.get("version", 0))

    def prepare(self, identity: str) -> None:
        """`Database.prepare`."""
        if self.version == VERSION:
            return
        schema = self._home.schema
        if not self.rows("SELECT 1 WHERE to_regnamespace(?) IS NOT NULL", (f'"{schema}"',)):
            self.run(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        self._drop()
        for statement in dialect.MAKE:
            self.run(statement.replace("{all}", self._tables()))
        self.run(dialect.FILL, (identity,))
        self.version  # noqa: B018 - notes the mark

    def remove(self, mark: str | None) -> None:
        """Throw the tables away if they have that mark, or none."""
        try:
            self._renew(mark, self._drop)
        except AccessDenied:
            # They belong to another role: it has let everybody empty them.
            self.mark = None
            self._renew(mark, self._empty)

    def _renew(self, mark: str | None, work: Callable[[], None]) -> None:
        with self.writing():
            if not self.version or mark is None or self.mark == mark:
                work()

    def _empty(self) -> None:
        self.run(f"TRUNCATE {self._tables()}")
        self.run(dialect.FILL, (self._home.identity,))

    def _drop(self) -> None:
        # The one that all readers hold first: nobody waits for anybody in a ring.
        self.run(f"DROP TABLE IF EXISTS {self._table('meta')}")
        self.run(f"DROP TABLE IF EXISTS {self._tables()}")

    def _table(self, name: str) -> str:
        return dialect.table(self._home.schema, self._home.key, name)

    def _tables(self) -> str:
        return ", ".join(map(self._table, dialect.TABLES))

    # -- statements --------------------------------------------------------------------------

    def rows(self, sql: str, values: Any = ()) -> Rows:
        """`Database.rows`."""
        text, names = dialect.said(sql, self._home.schema, self._home.key)
        if isinstance(values, Mapping):
            values = [values[name] for name in names]
        found = [
            value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values
        ]

        def ask(connection: Connection) -> Rows:
            cursor = connection.execute(text, found, binary=True)
            return cursor.fetchall() if cursor.description else []

        return self._ask(ask)

    def row(self, sql: str, values: Any = ()) -> tuple[Any, ...] | None:
        """`Database.row`."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def run(self, sql: str, values: Any = ()) -> None:
        """`Database.run`."""
        self.rows(sql, values)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """`Database.many`."""
        text, _ = dialect.said(sql, self._home.schema, self._home.key)
        found = list(rows)
        if found:
            self._ask(lambda connection: connection.cursor().executemany(text, found))

    def insert(self, table: str, rows: Iterable[Sequence[Any]], conflict: str = "") -> None:
        """`Database.insert`."""
        rows = list(rows)
        if not rows:
            return
        self.run(*dialect.insertion(table, rows, conflict))
        if table == "value" and (real := {row[0] for row in rows if type(row[1]) is float}):
            self.run(
                "INSERT INTO @meta SELECT 'real.' || code, '' FROM unnest(?::int8[]) code"
                " ON CONFLICT DO NOTHING",
                (sorted(real),),
            )

    def plan(self, sql: str, values: Any) -> list[str]:
        """`Database.plan`."""
        return [str(row[0]) for row in self.rows("EXPLAIN (COSTS OFF) " + sql, values)]

    def _ask(self, ask: Callable[[Connection], _T]) -> _T:
        with self._lock:
            self.lost = self.replaced = False
            if self._pid != os.getpid():
                # The parent goes on with that connection.
                self.lost = True
                raise StorageFailed(
                    f"The connection to {self.path} belongs to the parent process.",
                    path=self.path,
                    errno=None,
                )
            try:
                return ask(self._connection)
            except Exception as error:
                self._tell(error)

    def _tell(self, error: Exception) -> NoReturn:
        state = state_of(error)
        if state[:2] in _DAMAGE and state != _REFUSED:
            raise CorruptIndex(f"{self.path}: {said(error)}") from error
        self.lost = is_lost(error, self._connection)
        translate(error, self._home.place.shown)

    # -- transactions ------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """`Database.writing`: the turn is an advisory lock, and ends with the transaction."""
        with self._lock:
            self._send(f"BEGIN; SELECT pg_advisory_xact_lock({self._key})")
            try:
                if self.mark is not None:
                    self._check(self.rows(_MADE))
                yield
                self._send("COMMIT")
            except BaseException:
                self._undo()
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """`Database.reading`: a state of the server, taken behind a lock on the first table."""
        with self._lock:
            if self._depth:
                yield
                return
            meta = self._table("meta")
            self._check(
                self._send(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                    f" LOCK TABLE {meta} IN ACCESS SHARE MODE;"
                    f" SELECT value FROM {meta} WHERE key = 'made'",
                    undo=True,
                )
            )
            self._depth += 1
            try:
                yield
                self._send("COMMIT")
            except BaseException:
                self._undo()
                raise
            finally:
                self._depth -= 1

    def _send(self, text: str, *, undo: bool = False) -> Rows:
        """Statements without parameters, in one round trip; rows of the last."""

        def ask(connection: Connection) -> Rows:
            cursor = connection.execute(text)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

        try:
            return self._ask(ask)
        except BaseException:
            if undo:
                self._undo()
            raise

    def _undo(self) -> None:
        with suppress(Exception):
            self._connection.execute("ROLLBACK")

    def _check(self, found: Rows) -> None:
        mark = found[0][0] if found else None
        if self.mark is not None and mark != self.mark:
            self._undo()
            self.replaced = True
            raise CorruptIndex(f"{self.path} was made anew by another handle")

    # -- values ------------------------------------------------------------------------------

    def key(self, value: Any) -> Any:
        """`Database.key`."""
        return dialect.key_of(value)

    def values(self, field: int, keys: Sequence[Any]) -> list[Any]:
        """`Database.values`: of a field that has met one that is not whole, numbers are floats."""
        real = bool(self.rows("SELECT 1 FROM @meta WHERE key = ?", (f"real.{field}",)))
        return [dialect.value_of(key, real=real) for key in keys]

    def listing(self, docs: Sequence[int]) -> Any:
        """`Database.listing`."""
        return [int(doc) for doc in docs]

    # -- vectors -----------------------------------------------------------------------------

    @property
    def chooser(self) -> Chooser:
        """`Database.chooser`."""
        return self

    def nearest(self, model: int, bits: Bits, allowed: Mask, count: int) -> list[int]:
        """`Chooser.nearest`: the mask goes as a bit a row, and filters before rows are ranked."""
        base = vector_place(model, 0)
        signs, once, twice = dialect.bit_texts(bits)
        rows = self.rows(
            "SELECT place - ? FROM @vector WHERE place >= ? AND place < ?"
            " AND get_bit(?::bytea, place - ?) = 1"
            " ORDER BY bit_count((bits # ?::varbit) & ?::varbit)"
            " + 2 * bit_count((bits # ?::varbit) & ?::varbit), place LIMIT ?",
            (
                *(base, base, base + len(allowed)),
                *(np.packbits(allowed, bitorder="little").tobytes(), base),
                *(signs, once, signs, twice, count),
            ),
        )
        return sorted(int(doc) for (doc,) in rows)

    def vectors(self, model: int, docs: Sequence[int]) -> Rows:
        """`Chooser.vectors`."""
        base = vector_place(model, 0)
        return self.rows(
            "SELECT place - ?, data FROM @vector WHERE place = ANY(?::int8[])",
            (base, [base + int(doc) for doc in docs]),
        )

    # -- full text ---------------------------------------------------------------------------

    def add_texts(self, texts: Iterable[tuple[int, str]]) -> None:
        """`Database.add_texts`."""
        rows = self._texts.rows_of(list(texts))
        if rows:
            self.run(
                "INSERT INTO @text SELECT doc, part, body::tsvector FROM"
                " unnest(?::int8[], ?::int8[], ?::text[]) t(doc, part, body)",
                [list(column) for column in zip(*rows, strict=True)],
            )

    def drop_texts(self, docs: Sequence[tuple[int]]) -> None:
        """`Database.drop_texts`."""
        self.run("DELETE FROM @text WHERE doc = ANY(?::int8[])", ([doc for (doc,) in docs],))

    def term(self, word: str) -> str | None:
        """`Database.term`."""
        return self._texts.term(word)

    def postings(self, clause: Clause, term: str | None, after: int) -> tuple[Docs, Docs]:
        """`Database.postings`."""
        return self._texts.postings(clause, term, after)

    def match(self, clauses: Sequence[Clause]) -> Match:
        """`Database.match`."""
        return self._texts.match(clauses)
