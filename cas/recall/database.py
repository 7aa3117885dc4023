"""The port `Database`: what a projection asks of the database that its rows lie in.

Floor 7. Invariant: what a projection does (follow, rows as versions, states, cursors, models) is
said once, in SQL that every database takes; what is said otherwise (tables, full text, values of
any type in one order, damage) stands behind this port, `sqlite` for a file and `postgres` for a
server. Equal rows give equal answers.

SQL here names tables with `@` in front (`@item`), and parameters with `?`, or `:name` where they
are given by name. Tables are joined in the order in which they are written where that is
`CROSS JOIN`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from cas.recall.text import Clause

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Docs = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Bits = NDArray[np.uint64]

VERSION: Final = 5
"""Of tables and of what is written into them. A database of another one is not read, but made
anew.
"""

Rows = list[tuple[Any, ...]]


class Match(NamedTuple):
    """Rows whose text matches, as a source of numbers `key`, with tests and their values."""

    source: str
    key: str
    tests: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def test(self) -> str:
        """The same as a test of a row `i`."""
        return f"i.doc IN (SELECT {self.key} FROM {self.source} WHERE {' AND '.join(self.tests)})"


class Chooser(Protocol):
    """Vectors that are compared where they lie."""

    def nearest(self, model: int, bits: Bits, allowed: Mask, count: int) -> list[int]:
        """The `count` rows among those allowed, a place of the mask a row, whose bits differ least
        from those of a probe (`vectors.probe`); of equals those that came first.
        """

    def vectors(self, model: int, docs: Sequence[int]) -> Rows:
        """(row, vector) of rows that have one of a model."""


class Database(Protocol):
    """One connection to a search database, used by one thread at a time.

    Whatever is asked raises `CorruptIndex` where the database is not whole, `Busy`,
    `StorageFailed`, `StorageFull`.
    """

    @property
    def version(self) -> int:
        """The version of the tables; 0 where there are none."""

    @property
    def lost(self) -> bool:
        """Whether the last error was that the connection is gone: asked again, a new one is
        made. A transaction that was under way is undone, or done whole.
        """

    @property
    def replaced(self) -> bool:
        """Whether the last `CorruptIndex` was that somebody else has made the database anew: what
        was read of it before says nothing.
        """

    def prepare(self, identity: str) -> None:
        """Make the tables, of that store, where there are none; inside `writing`."""

    def close(self) -> None:
        """Give the connection up."""

    # -- statements --------------------------------------------------------------------------

    def rows(self, sql: str, values: Any = ()) -> Rows:
        """All rows of a statement."""

    def row(self, sql: str, values: Any = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""

    def run(self, sql: str, values: Any = ()) -> None:
        """A statement whose rows nobody wants."""

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """A statement for each row of values."""

    def insert(self, table: str, rows: Iterable[Sequence[Any]], conflict: str = "") -> None:
        """Rows of all columns of a table; `conflict` is SQL for those that are there. Nothing else
        is asked of the database while `rows` are told.
        """

    def plan(self, sql: str, values: Any) -> list[str]:
        """How a statement would be answered, in the database's words."""

    def writing(self) -> AbstractContextManager[None]:
        """A transaction that waits its turn, and is rolled back when the block raises."""

    def reading(self) -> AbstractContextManager[None]:
        """Meanwhile nobody makes the database anew. May stand inside itself."""

    # -- values ------------------------------------------------------------------------------

    def key(self, value: Any) -> Any:
        """A text or number as `@value` has it: numbers in their order, before texts in theirs."""

    def values(self, field: int, keys: Sequence[Any]) -> list[Any]:
        """What was stored as that, in a field."""

    @property
    def listed(self) -> str:
        """A table `d` whose column `value` is what `listing` gives as parameter."""

    def listing(self, docs: Sequence[int]) -> Any:
        """Numbers of rows as one parameter."""

    # -- vectors -----------------------------------------------------------------------------

    @property
    def chooser(self) -> Chooser | None:
        """What chooses among vectors that lie far away, so that who asks once need not read every
        one; None where they lie near.
        """

    # -- full text ---------------------------------------------------------------------------

    def add_texts(self, texts: Iterable[tuple[int, str]]) -> None:
        """Texts of new rows, in their order."""

    def drop_texts(self, docs: Sequence[tuple[int]]) -> None:
        """Texts of rows that are given up."""

    def term(self, word: str) -> str | None:
        """What the full text has for a word; None for what is several, or none, there."""

    def postings(self, clause: Clause, term: str | None, after: int) -> tuple[Docs, Docs]:
        """Rows from number `after` on that match a clause, ascending, and how often it stands in
        each. `term` is that of the clause where it is a word with one.
        """

    def match(self, clauses: Sequence[Clause]) -> Match:
        """Rows in which all of these stand; none where there is nothing to look for."""


class Home(Protocol):
    """Where the search database of a projection lies."""

    @property
    def path(self) -> str:
        """The place, as people are told it; ":memory:" for one that goes with its handle."""

    @property
    def is_there(self) -> bool:
        """Whether something lies there which should have tables in it."""

    def open(self) -> Database:
        """A connection to it."""

    def remove(self, seen: Database | None) -> None:
        """Throw away what lies there, if it is what `seen` was connected to."""


def vector_place(model: int, doc: int) -> int:
    """Where the vector of a row by a model lies. One number, because SQLite fills the pages of a
    table that grows at its end, and leaves a twelfth of those of an index free.
    """
    return (model << 40) + doc
