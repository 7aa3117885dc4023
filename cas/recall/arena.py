"""The rows of a projection as arrays in memory, for ranking: read once, then what is new.

Floor 7. Invariant: it says what the database says up to `seq`; every answer is for one state, whose
rows are those with since <= seq < until, and counts nothing of any other, so that it is the answer
that a store stopped at that state would give. One thread at a time, under the owner's lock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from cas.errors import CorruptIndex
from cas.later import Later
from cas.recall.database import Chooser, Database, vector_place
from cas.recall.fit import Fit, Places, Remembered, State, Sums, Term
from cas.recall.sketches import choosing, nearest_count, probe, sketch
from cas.recall.text import Clause
from cas.recall.vectors import EXACT_ROWS_MAX, cosines, lengths_of, nearness_of_all, unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Docs = NDArray[np.integer[Any]]
    Mask = NDArray[np.bool_]
    Numbers = NDArray[np.float64]
else:
    np = Later("numpy", keep=True)

FOREVER: Final = 1 << 62
_NEVER: Final = 1 << 62
_READ: Final = 8_192
"""Rows that are read at once, and vectors: as tuples they take ten times the room."""
_COLUMNS: Final = (
    ("type", "int16", -1),
    ("since", "int64", _NEVER),
    ("until", "int64", FOREVER),
    ("time_us", "int64", 0),
    ("words", "int32", 0),
    ("tokens", "int32", 0),
    ("importance", "float64", float("nan")),
    ("at_us", "float64", float("nan")),
    ("from_us", "float64", float("nan")),
    ("to_us", "float64", float("nan")),
    ("trust", "int8", 1),
    ("flags", "int8", 0),
)
_ROW: Final = [("doc", "int64"), *((name, kind) for name, kind, _ in _COLUMNS)]


class Arena:
    """Arrays with a place a row; a row's place is its number in the database."""

    def __init__(self) -> None:
        self.size = 0
        self.seq = -1
        self.model = 0
        self._columns: dict[str, Any] = {}
        self._remembered = Remembered()
        self._state: State | None = None
        self._sums = Sums()
        self._dimensions = 0
        self._vectors: Any = None
        self._lengths: Any = None
        self._sketches: Any = None
        self._has_vector: Any = None
        self._lacking: Any = None
        self._vectors_to = 0
        # Set while vectors are read as they are needed, and those to compare are chosen there.
        self._chooser: Chooser | None = None

    def __getattr__(self, name: str) -> Any:
        columns = self.__dict__.get("_columns", {})
        if name in columns:
            return columns[name][: self.size]
        raise AttributeError(name)

    # -- reading -----------------------------------------------------------------------------

    def refresh(self, db: Database, seq: int, model: int, *, once: bool = False) -> None:
        """Take in what the database has since. Who asks `once` has vectors chosen by the database,
        where it does that and each row has one, and reads those alone.
        """
        if seq == self.seq and model == self.model and self._lacking is None and not self._chooser:
            return
        closed = db.rows("SELECT doc, until FROM @item WHERE until > ?", (self.seq,))
        names = ", ".join(
            name if missing != missing else f"coalesce({name}, {missing})"
            for name, _, missing in _COLUMNS
        )
        fresh = f"SELECT doc, {names} FROM @item WHERE doc >= ? ORDER BY doc LIMIT {_READ}"
        while rows := db.rows(fresh, (self.size,)):
            # What is none becomes "no number" where the column has floats.
            with _whole("a row"):
                made = np.array(rows, _ROW)
            docs = made["doc"]
            self._grow(int(docs[-1]) + 1)
            places = _span(docs)
            for name, _, _ in _COLUMNS:
                self._columns[name][places] = made[name]
        if closed and self.size:
            docs = np.array([row[0] for row in closed], np.int64)
            self._columns["until"][docs] = np.array([row[1] for row in closed], np.int64)
        if not self._columns:
            self._grow(1)
        self._read_vectors(db, model, once=once)
        self.seq = seq

    def _grow(self, size: int) -> None:
        for name, kind, missing in _COLUMNS:
            held = self._columns.get(name)
            if held is None or len(held) < size:
                made = np.full(max(1024, size + size // 2), missing, kind)
                if held is not None:
                    made[: self.size] = held[: self.size]
                self._columns[name] = made
        self.size = size

    def _read_vectors(self, db: Database, model: int, *, once: bool) -> None:
        if model != self.model or self._chooser:
            self._vectors = self._lacking = self._chooser = None
            self._vectors_to, self.model = 0, model
        if not model:
            return
        if self._vectors is None or len(self._vectors) < self.size:
            row = db.row("SELECT dimensions, upto FROM @model WHERE code = ?", (model,))
            assert row is not None
            self._dimensions = int(row[0])
            self._room_for_vectors()
            if once and not self._vectors_to and int(row[1]) >= self.size - 1:
                self._chooser = db.chooser
                if self._chooser:
                    return
        # Later rows may have got theirs before earlier ones, where a model is new.
        first = self._vectors_to if self._lacking is None else int(np.argmax(self._lacking))
        base = vector_place(model, 0)
        for start in range(base + first, base + self.size, _READ):
            ends = base, start, min(start + _READ, base + self.size)
            self._put(
                db.rows("SELECT place - ?, data FROM @vector WHERE place >= ? AND place < ?", ends)
            )
        self._vectors_to = self.size
        self._lacking = ~self._has_vector[: self.size] & (self.since != _NEVER)
        if not self._lacking.any():
            self._lacking = None

    def _room_for_vectors(self) -> None:
        room = max(1024, self.size + self.size // 2)
        width = sketch(np.zeros((1, self._dimensions), np.int8)).shape[1]
        held = self._vectors, self._lengths, self._sketches, self._has_vector
        self._vectors = np.zeros((room, self._dimensions), np.int8)
        self._lengths = np.ones(room, np.float64)
        # Word by word: a comparison goes through all rows of one after the other.
        self._sketches = np.zeros((width, room), np.uint64)
        self._has_vector = np.zeros(room, np.bool_)
        if held[0] is not None:
            made = self._vectors, self._lengths, self._sketches.T, self._has_vector
            for old, new in zip((*held[:2], held[2].T, held[3]), made, strict=True):
                new[: len(old)] = old

    # -- sets of rows ------------------------------------------------------------------------

    def held_at(self, seq: int) -> Mask:
        """Rows that hold in the state after an entry."""
        mask: Mask = (self.since <= seq) & (self.until > seq)
        return mask

    def with_value(self, db: Database, field: int, value: Any) -> Docs:
        """Rows that have a value in a field, in any state."""
        return self._with(db, "SELECT", field, "value = ?", (value,))

    def with_test(self, db: Database, field: int, test: str, values: tuple[Any, ...]) -> Docs:
        """Rows, of any state, with a value in a field that passes a test in SQL."""
        return self._with(db, "SELECT DISTINCT", field, test, values)

    def _with(
        self, db: Database, select: str, field: int, test: str, values: tuple[Any, ...]
    ) -> Docs:
        sql = f"{select} doc, 1 FROM @value WHERE field = ? AND {test} AND doc >= ?"
        keys = field, *map(db.key, values)
        return self._remembered.of(
            (test, field, values), self.size, lambda after: _pairs(db.rows(sql, (*keys, after)))
        ).docs

    def fit(self, db: Database, clauses: list[Clause], held: Mask) -> Fit:
        """How well rows of a state fit some words."""
        if self._state is None or self._state.held is not held:
            self._state = State(held, self.words)
        state = self._state
        terms = []
        for clause in clauses:
            key, places = self._places(db, clause)
            terms.append(Term(places, state.rarity(key, places.docs)))
        return Fit(state, terms, self._sums.room_for(self.size))

    def remember(self, term: str, size: int, places: Places) -> None:
        """Rows of a term among the first `size`, which somebody else has read."""
        key = "text", term
        if key not in self._remembered:
            self._remembered.of(key, size, lambda _: places)

    def _places(self, db: Database, clause: Clause) -> tuple[Any, Places]:
        """Rows, of any state, that match a clause, and how often it stands in each."""
        term = db.term(clause.text) if clause.kind == "word" else None
        # Forms of a word are one term, and read once.
        key = "text", clause if term is None else term
        ask = functools.partial(db.postings, clause, term)
        return key, self._remembered.of(key, self.size, ask)

    # -- scores ------------------------------------------------------------------------------

    def choosing(self, query: Any, allowed: Mask) -> Callable[[], Docs]:
        """Rows of `allowed` worth comparing with a packed vector, once they are asked for: all of
        few, those nearest by bits of many. Bits of very many are compared beside the caller.
        """
        if self._vectors is None or query is None:
            return lambda: np.zeros(0, np.int64)
        if self._lacking is not None:
            allowed = allowed & self._has_vector[: self.size]
        many = int(np.count_nonzero(allowed))
        if many <= EXACT_ROWS_MAX:
            return lambda: np.flatnonzero(allowed)
        bits, count = probe(query), nearest_count(many)
        if chooser := self._chooser:
            near = chooser.nearest(self.model, bits, allowed, count)
            return lambda: np.array(near, np.int64)
        return choosing(self._sketches[:, : self.size], bits, allowed, count)

    def nearest(self, query: Any, rows: Docs, count: int) -> tuple[Docs, Numbers]:
        """Those of some rows that are nearest to a packed vector, and how near each is."""
        nearness = self.nearness(query, rows)
        order = np.lexsort((rows, -nearness))[:count]
        return rows[order], nearness[order]

    def nearness(self, query: Any, rows: Docs) -> Numbers:
        """How near each row is to a packed vector; 0 for one without a vector."""
        if self._vectors is None:
            return np.zeros(len(rows), np.float64)
        self._fetch(rows)
        return cosines(self._vectors[rows], self._lengths[rows], query)

    def alike(self, rows: Docs) -> Numbers:
        """How near the rows are to each other."""
        if self._vectors is None:
            return np.zeros((len(rows), len(rows)), np.float64)
        self._fetch(rows)
        return nearness_of_all(self._vectors[rows], self._lengths[rows])

    def _fetch(self, rows: Docs) -> None:
        """Read vectors of these rows, where not all were read."""
        if self._chooser is None:
            return
        missing = rows[~self._has_vector[rows]]
        if len(missing):
            self._put(self._chooser.vectors(self.model, missing.tolist()))

    def _put(self, found: Sequence[tuple[Any, ...]]) -> None:
        if not found:
            return
        numbers, data = zip(*found, strict=True)
        places = _span(np.array(numbers, np.int64))
        with _whole("a vector"):
            values = unpack(data, self._dimensions)
        self._vectors[places] = values
        self._lengths[places] = lengths_of(values)
        self._has_vector[places] = True
        if self._chooser is None:
            self._sketches[:, places] = sketch(values).T

    def without_vector(self, allowed: Mask) -> int:
        """How many rows have no vector yet."""
        if self._has_vector is not None and self._lacking is None:
            return 0
        return int(np.count_nonzero(allowed if self._lacking is None else allowed & self._lacking))


@contextmanager
def _whole(what: str) -> Iterator[None]:
    """Tell what the database gives and could not have been put into it as damage."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise CorruptIndex(f"{what} of it is none: {error}") from error


def _span(docs: Docs) -> Any:
    """Rows as an index of arrays: a slice where they stand side by side, as most do."""
    first, last = int(docs[0]), int(docs[-1])
    beside = last - first + 1 == len(docs) and bool((np.diff(docs) == 1).all())
    return slice(first, last + 1) if beside else docs


def _pairs(rows: list[tuple[Any, ...]]) -> tuple[Docs, Docs]:
    array = np.array(rows, np.int64).reshape(len(rows), 2)
    return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])
