"""Queries over typed fields: pages that never skip or repeat, counts, facets, and how they ran.

Floor 7. Invariant: a page belongs to one state, which its cursor keeps; the pages of one state are
disjoint and complete, whatever is written meanwhile. An order is that of a field, then that in
which rows came; rows without a value come last.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from cas.errors import CasError, Invalid
from cas.limits import PAGE_ITEMS_MAX
from cas.model.encoding import decode, encode
from cas.model.ids import BlobId
from cas.recall.database import Database, Match
from cas.recall.projection import Projection
from cas.recall.rows import FLAG_ARCHIVED
from cas.recall.text import clauses_of
from cas.recall.where import Condition, Sql, code_of, equalities, to_text
from cas.workspace.codec import from_record, typed
from cas.workspace.registry import Aggregate, AggregateType, type_of

FEW_ROWS: Final = 1_500
"""Rows of one value that are sorted rather than met on a walk in order."""
_IN_MAX: Final = 100
"""Values of a set that are looked up one by one."""
T = TypeVar("T", bound=Aggregate)

_NO_CURSOR: Final = "This is no cursor: take the one that came with a page, as it is."


@frozen
class Page(Generic[T]):
    """Some of what was found, in order. `cursor` asks for the next page; None at the end."""

    items: tuple[T, ...]
    cursor: str | None
    seq: int
    plan: tuple[str, ...] = ()


@frozen
class Asked:
    """A query: what decides which rows it finds and in which order."""

    type: AggregateType
    condition: Condition | None
    order: str
    match: str
    archived: bool

    @property
    def digest(self) -> bytes:
        """Tells whether a cursor belongs to this query."""
        every = [self.type.name, to_text(self.condition), self.order, self.match, self.archived]
        return hashlib.sha256(encode(every)).digest()[:8]

    @property
    def descending(self) -> bool:
        """Whether the order is turned round."""
        return self.order.startswith("-")

    @property
    def key(self) -> str:
        """What the order goes by: "id", "time" or a field."""
        return self.order.removeprefix("-")


@frozen
class _Mark:
    """Where a page ended: behind `value` and `doc`, in phase 1 among rows without a value."""

    seq: int
    phase: int
    value: Any
    doc: int


@frozen
class _Lead:
    """An equality that a query begins with: how many rows have it, up to one more than few."""

    code: int
    values: tuple[Any, ...]
    count: int

    @property
    def few(self) -> bool:
        """Whether its rows are sorted rather than walked."""
        return self.count <= FEW_ROWS

    @property
    def single(self) -> bool:
        """Whether it is one value, whose rows the index has in the order in which they came."""
        return len(self.values) == 1


class Finder:
    """Finds rows of one type. One thread at a time, inside `Projection.read`."""

    def __init__(self, projection: Projection, db: Database, asked: Asked, seq: int) -> None:
        self._projection, self._db, self._asked, self._seq = projection, db, asked, seq
        self._codes = projection.codes(asked.type.name)
        self.plan: list[str] = []

    # -- pages -------------------------------------------------------------------------------

    def page(self, mark: _Mark | None, limit: int) -> tuple[list[tuple[int, bytes]], _Mark | None]:
        """(doc, blob) of the rows behind a mark, and where they end if more follow."""
        rows: list[tuple[int, bytes, Any, int]] = []
        phases = (0, 1) if self._asked.key not in ("id", "time") else (0,)
        for phase in phases:
            if mark is not None and mark.phase > phase:
                continue
            behind = mark if mark is not None and mark.phase == phase else None
            found = self._phase(phase, behind, limit + 1 - len(rows))
            rows += [(doc, blob, value, phase) for doc, blob, value in found]
            if len(rows) > limit:
                break
        more = len(rows) > limit
        rows = rows[:limit]
        end = None
        if more:
            doc, _, value, phase = rows[-1]
            if phase == 0 and len(phases) == 2:
                (value,) = self._db.values(code_of(self._codes, self._asked.key), [value])
            end = _Mark(self._seq, phase, value, doc)
        return [(doc, blob) for doc, blob, _, _ in rows], end

    def _phase(self, phase: int, behind: _Mark | None, limit: int) -> list[tuple[Any, ...]]:
        return self._run(*self._statement(phase, behind, limit))

    def _statement(self, phase: int, behind: _Mark | None, limit: int) -> tuple[str, list[Any]]:
        """The question that gives the rows of a phase behind a mark, and its values."""
        sql = self._sql()
        way, sign = ("DESC", "<") if self._asked.descending else ("ASC", ">")
        keys, values_before, source, lead = self._source(phase)
        # What the walk goes along need not be tested on it, which would read all that matches.
        tests, values = self._tests(sql, phase, match=not self._walks_match(keys))
        tests[:0] = lead
        after: list[Any] = []
        if behind is not None:
            if len(keys) == 2:
                tests.append(f"({keys[0]}, {keys[1]}) {sign} (?, ?)")
                after = [self._db.key(behind.value), behind.doc]
            else:
                tests.append(f"{keys[0]} {sign} ?")
                after = [behind.value if keys[0] == "i.id" else behind.doc]
        order = ", ".join(f"{key} {way}" for key in keys)
        text = (
            f"SELECT i.doc, i.blob, {keys[0]} FROM {source} WHERE {' AND '.join(tests)} "
            f"ORDER BY {order} LIMIT ?"
        )
        return text, [*values_before, *values, *after, limit]

    def _source(self, phase: int) -> tuple[list[str], list[Any], str, list[str]]:
        """Keys of the order, values, where rows come from, and tests that say which.

        The tables are in the order of the walk, and joined so that the database keeps to it.
        """
        key, lead = self._asked.key, self._lead()
        if key == "id" or key == "time" or phase == 1:
            return self._rows_source("i.id" if key == "id" and phase == 0 else "doc", lead)
        code = code_of(self._codes, key)
        if lead is not None and lead.few:
            self.plan.append(f"{lead.count} rows of one value, sorted")
            begin, tests, values = self._begin(lead)
            source = f"{begin} CROSS JOIN @value o CROSS JOIN @item i"
            return (
                ["o.value", "o.doc"],
                [*values, code],
                source,
                [*tests, "o.doc = f.doc", "o.field = ?", "i.doc = o.doc"],
            )
        self.plan.append(f"a walk in order of {key}")
        if lead is not None and lead.single:
            begin, tests, values = self._begin(lead)
            source = f"@value o CROSS JOIN {begin} CROSS JOIN @item i"
            tests = ["o.field = ?", *tests, "f.doc = o.doc", "i.doc = o.doc"]
            return ["o.value", "o.doc"], [code, *values], source, tests
        tests = ["o.field = ?", "i.doc = o.doc"]
        return ["o.value", "o.doc"], [code], "@value o CROSS JOIN @item i", tests

    def _rows_source(
        self, key: str, lead: _Lead | None
    ) -> tuple[list[str], list[Any], str, list[str]]:
        """The same for an order by id, or by that in which rows came."""
        by_id = key == "i.id"
        if lead is not None and (lead.few or (lead.single and not by_id)):
            how = "sorted" if by_id or not lead.single else "in order of time"
            self.plan.append(f"rows of one value, {how}")
            begin, tests, values = self._begin(lead)
            keys = [key if by_id else "f.doc"]
            return keys, values, f"{begin} CROSS JOIN @item i", [*tests, "i.doc = f.doc"]
        if self._asked.match and not by_id:
            self.plan.append("rows that match, in order of time")
            match = self._match()
            tests = [*match.tests, f"i.doc = {match.key}"]
            return [match.key], [*match.values], f"{match.source} CROSS JOIN @item i", tests
        self.plan.append(f"a walk in order of {'id' if by_id else 'time'}")
        return [key if by_id else "i.doc"], [], "@item i", []

    def _match(self) -> Match:
        return self._db.match(clauses_of(self._asked.match))

    def _walks_match(self, keys: list[str]) -> bool:
        return bool(self._asked.match) and keys == [self._match().key]

    def _lead(self) -> _Lead | None:
        """The equality that the fewest rows have, of those that every row must have."""
        best: _Lead | None = None
        every = equalities(self._asked.condition)
        if self._asked.key == "time" and len(every) == 1 and every[0].op == "=":
            # In the order of time its index is walked, however many rows have it.
            return _Lead(code_of(self._codes, every[0].field), (every[0].value,), FEW_ROWS + 1)
        for compare in every:
            wanted = compare.value if compare.op == "in" else (compare.value,)
            if not wanted or len(wanted) > _IN_MAX:
                continue
            code = code_of(self._codes, compare.field)
            rows = self._db.rows(
                f"SELECT count(*) FROM (SELECT 1 FROM @value WHERE field = ? AND value IN "
                f"({_marks(wanted)}) LIMIT ?) AS few",
                (code, *map(self._db.key, wanted), FEW_ROWS + 1),
            )
            lead = _Lead(code, tuple(wanted), int(rows[0][0]))
            if best is None or (lead.count, not lead.single) < (best.count, not best.single):
                best = lead
        return best

    def _tests(self, sql: Sql, phase: int, match: bool = True) -> tuple[list[str], list[Any]]:
        asked = self._asked
        values: list[Any] = [
            self._projection.code(asked.type.name),
            self._seq,
            self._seq,
        ]
        tests = ["i.type = ?", "i.since <= ?", "(i.until IS NULL OR i.until > ?)"]
        if not asked.archived:
            tests.append(f"i.flags & {FLAG_ARCHIVED} = 0")
        if asked.match and match:
            found = self._match()
            tests.append(found.test)
            values += found.values
        if asked.condition is not None:
            tests.append(sql.text(asked.condition))
            values += sql.values
        if phase == 1:
            tests.append("NOT EXISTS (SELECT 1 FROM @value w WHERE w.field = ? AND w.doc = i.doc)")
            values.append(code_of(self._codes, asked.key))
        return tests, values

    def _run(self, text: str, values: list[Any]) -> list[tuple[Any, ...]]:
        return self._db.rows(text, values)

    def _begin(self, lead: _Lead) -> tuple[str, list[str], list[Any]]:
        """Rows of an equality as `f`, each once: a table, tests, values."""
        values = [lead.code, *map(self._db.key, lead.values)]
        if lead.single:
            return "@value f", ["f.field = ?", "f.value = ?"], values
        marks = _marks(lead.values)
        rows = f"SELECT DISTINCT doc FROM @value WHERE field = ? AND value IN ({marks})"
        return f"({rows}) f", ["TRUE"], values

    def _sql(self) -> Sql:
        return Sql(self._projection, self._db.key, self._asked.type.name, self._seq)

    # -- sums --------------------------------------------------------------------------------

    def count(self) -> int:
        """How many rows are found."""
        tests, values = self._tests(self._sql(), 0)
        source = "@item i"
        before: list[Any] = []
        if (lead := self._lead()) is not None:
            begin, first, before = self._begin(lead)
            source, tests = f"{begin} CROSS JOIN @item i", [*first, "i.doc = f.doc", *tests]
        text = f"SELECT count(*) FROM {source} WHERE {' AND '.join(tests)}"
        return int(self._run(text, [*before, *values])[0][0])

    def facets(self, field: str, limit: int) -> list[tuple[Any, int]]:
        """The values of a field among what is found, the most frequent first."""
        tests, values = self._tests(self._sql(), 0)
        code = code_of(self._codes, field)
        rows = self._run(
            "SELECT o.value, count(*) FROM @item i JOIN @value o ON o.doc = i.doc AND o.field = ? "
            f"WHERE {' AND '.join(tests)} GROUP BY o.value ORDER BY 2 DESC, 1 LIMIT ?",
            [code, *values, limit],
        )
        values = self._db.values(code, [key for key, _ in rows])
        return [(value, int(count)) for value, (_, count) in zip(values, rows, strict=True)]

    def explain(self) -> list[str]:
        """How the database goes about the first page, in its words."""
        self.plan.clear()
        statement = self._statement(0, None, 1)
        return [*self.plan, *self._db.plan(*statement)]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def ask(
    cls: type[T],
    condition: Condition | None,
    order: str | None,
    match: str,
    archived: bool,
) -> Asked:
    """The query that a caller's arguments make. Raises `Invalid`, `UnknownType`."""
    type = type_of(cls)
    order = "id" if order is None else order
    if not isinstance(order, str):
        raise Invalid(f"An order is text, such as time or -importance, not {order!r}.")
    name = order.removeprefix("-")
    if name not in ("id", "time") and type.searchable.get(name.partition(".")[0]) in (None, "text"):
        known = ", ".join(n for n, how in type.searchable.items() if how != "text")
        raise Invalid(f"There is no order by {name!r}; it goes by id, time, {known}.", field=name)
    return Asked(type, condition, order, match, archived)


def read_page(
    projection: Projection, cls: type[T], asked: Asked, seq: int, after: str | None, limit: int
) -> Page[T]:
    """A page of a query in a state. Raises `Invalid` for a cursor of something else."""
    if not isinstance(limit, int) or not 1 <= limit <= PAGE_ITEMS_MAX:
        raise Invalid(f"A page has from 1 to {PAGE_ITEMS_MAX} items, not {limit!r}.")
    mark = None if after is None else open_cursor(projection, asked, after)
    seq = seq if mark is None else mark.seq

    def read(db: Database) -> tuple[list[tuple[int, bytes]], _Mark | None, int, list[str]]:
        finder = Finder(projection, db, asked, seq)
        rows, end = finder.page(mark, limit)
        return rows, end, _base(db), finder.plan

    rows, end, base, plan = projection.read(read)
    store = projection.store
    values = store.get_many([BlobId(blob) for _, blob in rows])
    items = tuple(typed(from_record(data), cls) for data in values)
    cursor = None if end is None else _seal(projection, asked, end, base)
    return Page(items, cursor, seq, tuple(plan))


def seq_of(cursor: str) -> int:
    """The entry that a cursor is about. Raises `Invalid`."""
    return int(_parts(cursor)[3])


def _base(db: Database) -> int:
    """The entry from which rows are numbered: with another one they have other numbers."""
    row = db.row("SELECT value FROM @meta WHERE key = 'base'")
    return -1 if row is None else int(row[0])


def _seal(projection: Projection, asked: Asked, mark: _Mark, base: int) -> str:
    parts = [1, _store_of(projection), asked.digest, mark.seq, base]
    return base64.urlsafe_b64encode(encode([*parts, mark.phase, mark.value, mark.doc])).decode(
        "ascii"
    )


def _store_of(projection: Projection) -> bytes:
    return hashlib.sha256(projection.identity.encode()).digest()[:8]


def _parts(cursor: str) -> Sequence[Any]:
    try:
        parts = decode_loose(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (ValueError, CasError, AttributeError) as error:
        raise Invalid(_NO_CURSOR) from error
    if type(parts) is not list or len(parts) != 8 or parts[0] != 1:
        raise Invalid(_NO_CURSOR)
    return parts


def decode_loose(data: bytes) -> Any:
    """A cursor's value; floats may stand in it."""
    return decode(data, verified=True)


def open_cursor(projection: Projection, asked: Asked, cursor: str) -> _Mark:
    """Where a cursor goes on. Raises `Invalid`."""
    _, store, digest, seq, base, phase, value, doc = _parts(cursor)
    if store != _store_of(projection):
        raise Invalid("This cursor is of another store or branch; begin with the first page.")
    if digest != asked.digest:
        raise Invalid("This cursor is of another query; ask with the same arguments.")
    if not all(type(each) is int for each in (seq, base, phase, doc)):
        raise Invalid(_NO_CURSOR)
    if base != projection.read(_base):
        raise Invalid(
            "The search index was made anew since this cursor was given, and numbers its rows "
            "otherwise; begin with the first page."
        )
    return _Mark(seq, phase, value, doc)
