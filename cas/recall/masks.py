"""Sets of rows as masks: of a state, of types, of conditions, of what recall may give.

Floor 7. Invariant: what a condition finds here is what it finds as SQL; what recall leaves out by a
label is counted under that label's name.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.errors import Invalid
from cas.later import Later
from cas.recall.arena import Arena
from cas.recall.database import Database
from cas.recall.projection import Projection
from cas.recall.recalled import Request
from cas.recall.rows import FLAG_ARCHIVED
from cas.recall.where import (
    All,
    Any_,
    Compare,
    Condition,
    Linked,
    Not,
    Sql,
    code_of,
    misfit,
    of_text,
    test_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
else:
    np = Later("numpy", keep=True)

_HELD_MAX: Final = 8
"""States and sets of types whose rows are remembered."""


class Masks:
    """Masks over an arena. One thread at a time."""

    database: Database

    def __init__(self, arena: Arena, projection: Projection) -> None:
        self._arena = arena
        self._projection = projection
        self._held: dict[tuple[int, tuple[str, ...]], Any] = {}
        self._held_of: Any = None
        self._labelled: tuple[tuple[int, int], tuple[Any, Any, Any, Any]] | None = None

    def held(self, seq: int, types: Sequence[str]) -> Mask:
        """Rows of these types (none: of all) in the state after an entry."""
        state, key = (self._arena.seq, self._arena.size), (seq, tuple(types))
        if state != self._held_of or len(self._held) >= _HELD_MAX:
            self._held, self._held_of = {}, state
        found: Mask | None = self._held.get(key)
        if found is None:
            found = self._arena.held_at(seq)
            if types:
                codes = [self._projection.code(name) for name in types]
                found = found & np.isin(self._arena.type, codes)
            self._held[key] = found
        return found

    def allowed(self, request: Request, held: Mask, now_us: int, counts: Counts[str]) -> Mask:
        """Rows that may be given: those that hold, fit the filters, and no label keeps away."""
        arena = self._arena
        allowed = held
        condition = of_text(request.where)
        if condition is not None:
            allowed = allowed & self.of(condition, request.types, request.seq)
        if request.agent is not None:
            allowed = allowed & self.of(
                Compare("agent", "=", request.agent), request.types, request.seq
            )
        archived, untrusted, ending, beginning = self._labelled_rows()
        reasons: tuple[tuple[str, bool, Any, Callable[[Any], Any] | None], ...] = (
            ("archived", not request.archived, archived, None),
            ("untrusted", not request.untrusted, untrusted, None),
            ("expired", True, ending, lambda rows: arena.to_us[rows] <= now_us),
            ("not-yet", True, beginning, lambda rows: arena.from_us[rows] > now_us),
        )
        for name, asked, rows, test in reasons:
            if not asked or not len(rows):
                continue
            out = rows[allowed[rows]]
            out = out if test is None else out[test(out)]
            if len(out):
                counts[name] += len(out)
                allowed = allowed.copy()
                allowed[out] = False
        return allowed

    def _labelled_rows(self) -> tuple[Any, Any, Any, Any]:
        """Rows that some label may keep away: archived, untrusted, with an end, with a beginning.
        Few, in most stores, of many.
        """
        arena = self._arena
        if self._labelled is None or self._labelled[0] != (arena.seq, arena.size):
            found = (
                np.flatnonzero(arena.flags & FLAG_ARCHIVED),
                np.flatnonzero(arena.trust == 0),
                np.flatnonzero(~np.isnan(arena.to_us)),
                np.flatnonzero(~np.isnan(arena.from_us)),
            )
            self._labelled = (arena.seq, arena.size), found
        return self._labelled[1]

    def of(self, condition: Condition, types: Sequence[str], seq: int) -> Mask:
        """Rows, of any state, that a condition finds, where links lead to what holds after an
        entry. Raises `Invalid`.
        """
        if isinstance(condition, All | Any_):
            every = isinstance(condition, All)
            mask: Mask = np.full(self._arena.size, every, np.bool_)
            for part in condition.parts:
                found = self.of(part, types, seq)
                mask = mask & found if every else mask | found
            return mask
        if isinstance(condition, Not):
            return ~self.of(condition.part, types, seq)
        if isinstance(condition, Linked):
            return self._linked(condition, types, seq)
        assert isinstance(condition, Compare)
        return self._compare(condition, types)

    def _compare(self, compare: Compare, types: Sequence[str]) -> Mask:
        mask: Mask = np.zeros(self._arena.size, np.bool_)
        if compare.field == "id":
            mask[self._ids(compare)] = True
            return mask
        known, reason = False, None
        every = types or list(self._projection.shapes)
        for type in every:
            code = self._projection.codes(type).get(compare.field)
            if code is None:
                continue
            if (wrong := misfit(type, compare)) is not None:
                reason = wrong
                continue
            known = True
            mask[self._field(code, compare)] = True
        if reason is not None and not known:
            raise Invalid(reason, field=compare.field)
        if not known:
            code_of(dict.fromkeys(self._named(every), 0), compare.field)
        return mask

    def _named(self, types: Sequence[str]) -> list[str]:
        """The fields that a condition on these types may name."""
        return [name for type in types for name in self._projection.codes(type)]

    def _linked(self, linked: Linked, types: Sequence[str], seq: int) -> Mask:
        mask: Mask = np.zeros(self._arena.size, np.bool_)
        db, projection = self.database, self._projection
        every = types or list(projection.shapes)
        with_field = [t for t in every if projection.codes(t).get(linked.field) is not None]
        if not linked.back and not with_field:
            code_of(dict.fromkeys(self._named(every), 0), linked.field)
        for type in every if linked.back else with_field:
            sql = Sql(projection, db.key, type, seq)
            text = sql.text(linked)
            rows = db.rows(
                f"SELECT i.doc FROM @item i WHERE i.type = ? AND i.doc < ? AND {text}",
                [projection.code(type), self._arena.size, *sql.values],
            )
            mask[[int(doc) for (doc,) in rows]] = True
        return mask

    def _field(self, code: int, compare: Compare) -> Any:
        arena, db = self._arena, self.database
        if compare.op == "=":
            return arena.with_value(db, code, compare.value)
        if compare.op == "in":
            parts = [arena.with_value(db, code, value) for value in compare.value]
            return np.concatenate(parts) if parts else np.zeros(0, np.int64)
        test, values = test_of(compare)
        return arena.with_test(db, code, test, values)

    def _ids(self, compare: Compare) -> Any:
        test, values = test_of(compare)
        test = test.replace("value", "id")
        rows = self.database.rows(f"SELECT doc FROM @item WHERE {test}", [*map(str, values)])
        return np.array([row[0] for row in rows if row[0] < self._arena.size], np.int64)
