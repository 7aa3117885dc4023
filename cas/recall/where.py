"""Conditions on the fields of aggregates: values that say what is looked for.

Floor 7. Invariant: a condition is a value; the same one gives the same rows of the same state,
whether SQLite is asked (`sql`) or arrays are (`recall`). Times are datetimes with a zone, or
microseconds since 1970 UTC.

    field("agent") == "planner"
    (field("importance") >= 0.5) & ~field("tags").has("draft")
    {"agent": "planner", "kind": ["fact", "decision"]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal

from attrs import frozen

from cas.errors import Invalid
from cas.workspace.links import Link

CONDITIONS_MAX: Final = 200
"""Comparisons in one condition: SQLite takes 1,000 terms, and each is a look into an index."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Op = Literal["=", "<", "<=", ">", ">=", "in", "prefix", "set"]


class Condition:
    """What `find` and `recall` take as `where`; joined by `&`, `|` and `~`."""

    def __and__(self, other: Condition) -> Condition:
        return All((self, other))

    def __or__(self, other: Condition) -> Condition:
        return Any_((self, other))

    def __invert__(self) -> Condition:
        return Not(self)


@frozen
class Compare(Condition):
    """A field beside a value. Of a field with several values one is enough."""

    field: str
    op: Op
    value: Any


@frozen
class All(Condition):
    """All of these hold."""

    parts: tuple[Condition, ...]


@frozen
class Any_(Condition):
    """One of these holds."""

    parts: tuple[Condition, ...]


@frozen
class Not(Condition):
    """This does not hold."""

    part: Condition


class Field:
    """A field by name; comparing it gives a condition."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return Compare(self._name, "=", plain(value))

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return Not(Compare(self._name, "=", plain(value)))

    def __lt__(self, value: object) -> Condition:
        return Compare(self._name, "<", plain(value))

    def __le__(self, value: object) -> Condition:
        return Compare(self._name, "<=", plain(value))

    def __gt__(self, value: object) -> Condition:
        return Compare(self._name, ">", plain(value))

    def __ge__(self, value: object) -> Condition:
        return Compare(self._name, ">=", plain(value))

    def has(self, value: object) -> Condition:
        """One of the values is this."""
        return Compare(self._name, "=", plain(value))

    def one_of(self, *values: object) -> Condition:
        """A value is one of these."""
        return Compare(self._name, "in", tuple(map(plain, values)))

    def begins(self, prefix: str) -> Condition:
        """A value begins so."""
        return Compare(self._name, "prefix", plain(prefix))

    def is_set(self) -> Condition:
        """The field has a value."""
        return Compare(self._name, "set", None)


def field(name: str) -> Field:
    """A field of the type that is asked for, to compare it."""
    return Field(name)


def plain(value: object) -> Any:
    """A value as the search database has it. Raises `Invalid`."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Link):
        return value.id
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Invalid("A time needs a zone, as datetime.now(UTC) has.")
        return (value - _EPOCH) // timedelta(microseconds=1)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return value
    if isinstance(value, float) and value == value:
        return value
    raise Invalid(f"A field is compared with text, a number, a time or a link, not {value!r}.")


def condition_of(where: object) -> Condition | None:
    """A condition of what a caller gave: one, a map of field to value(s), or None.

    Raises `Invalid`.
    """
    if where is None or isinstance(where, Condition):
        found = where
    elif isinstance(where, Mapping):
        found = All(tuple(_equal(name, value) for name, value in where.items()))
    else:
        raise Invalid(f"`where` is a condition or a map of fields to values, not {where!r}.")
    if found is not None and _size(found) > CONDITIONS_MAX:
        raise Invalid(f"A condition has at most {CONDITIONS_MAX} comparisons; ask in parts.")
    return found


def _equal(name: object, value: object) -> Condition:
    if not isinstance(name, str):
        raise Invalid(f"The name of a field is text, not {name!r}.")
    if isinstance(value, list | tuple | set | frozenset):
        return Compare(name, "in", tuple(sorted(map(plain, value), key=repr)))
    return Compare(name, "=", plain(value))


def _size(condition: Condition) -> int:
    if isinstance(condition, All | Any_):
        return 1 + sum(_size(part) for part in condition.parts)
    if isinstance(condition, Not):
        return 1 + _size(condition.part)
    return 1


class Sql:
    """A condition as SQL over `@item i`, with its values; `key` gives a value of a field as the
    database has it.
    """

    def __init__(self, codes: Mapping[str, int], key: Callable[[Any], Any]) -> None:
        self._codes = codes
        self._key = key
        self.values: list[Any] = []

    def text(self, condition: Condition) -> str:
        """The SQL. Raises `Invalid` for a field that the type does not declare."""
        if isinstance(condition, All | Any_):
            if not condition.parts:
                return "TRUE" if isinstance(condition, All) else "FALSE"
            joint = " AND " if isinstance(condition, All) else " OR "
            return "(" + joint.join(map(self.text, condition.parts)) + ")"
        if isinstance(condition, Not):
            return f"NOT {self.text(condition.part)}"
        assert isinstance(condition, Compare)
        return self._compare(condition)

    def _compare(self, compare: Compare) -> str:
        if compare.field == "id":
            return self._test("i.id", compare, str)
        code = code_of(self._codes, compare.field)
        self.values.append(code)
        test = "TRUE" if compare.op == "set" else self._test("v.value", compare, self._key)
        return f"EXISTS (SELECT 1 FROM @value v WHERE v.field = ? AND v.doc = i.doc AND {test})"

    def _test(self, column: str, compare: Compare, key: Callable[[Any], Any]) -> str:
        test, values = test_of(compare)
        self.values += map(key, values)
        return test.replace("value", column)


def test_of(compare: Compare) -> tuple[str, tuple[Any, ...]]:
    """A comparison as SQL over a column `value`, with its values. Raises `Invalid`."""
    op, value = compare.op, compare.value
    if op == "set":
        return "TRUE", ()
    if op == "in":
        # A list of none is no SQL everywhere.
        return f"value IN ({', '.join('?' * len(value)) or 'NULL'})", tuple(value)
    if op == "prefix":
        if not isinstance(value, str):
            raise Invalid(f"A prefix is text, not {value!r}.")
        return "value >= ? AND value < ?", (value, value + "\U0010ffff")
    return f"value {op} ?", (value,)


def code_of(codes: Mapping[str, int], name: str) -> int:
    """The number of a field. Raises `Invalid` for one that is not searched."""
    code = codes.get(name)
    if code is None:
        known = ", ".join(sorted(codes)) or "none"
        raise Invalid(f"There is no searchable field {name!r}; there are: id, {known}.", field=name)
    return code


def equalities(condition: Condition | None) -> Sequence[Compare]:
    """Comparisons of which every row that is found satisfies each: what an index can begin with."""
    if isinstance(condition, Compare) and condition.op in ("=", "in") and condition.field != "id":
        return [condition]
    if isinstance(condition, All):
        return [each for part in condition.parts for each in equalities(part)]
    return []


def to_text(condition: Condition | None) -> str:
    """A condition as text that a receipt keeps; "" for none."""
    return "" if condition is None else json.dumps(_listed(condition), ensure_ascii=True)


def of_text(text: str) -> Condition | None:
    """The condition of such a text. Raises `Invalid`."""
    if not text:
        return None
    try:
        return _unlisted(json.loads(text))
    except (ValueError, TypeError, IndexError, KeyError, RecursionError) as error:
        raise Invalid(f"This is no condition that a receipt keeps: {text[:60]!r}.") from error


def _listed(condition: Condition) -> list[Any]:
    if isinstance(condition, All):
        return ["all", [_listed(part) for part in condition.parts]]
    if isinstance(condition, Any_):
        return ["any", [_listed(part) for part in condition.parts]]
    if isinstance(condition, Not):
        return ["not", _listed(condition.part)]
    assert isinstance(condition, Compare)
    return [condition.op, condition.field, condition.value]


def _unlisted(parts: list[Any]) -> Condition:
    head = parts[0]
    if head == "all":
        return All(tuple(_unlisted(part) for part in parts[1]))
    if head == "any":
        return Any_(tuple(_unlisted(part) for part in parts[1]))
    if head == "not":
        return Not(_unlisted(parts[1]))
    op, name, value = parts
    return Compare(name, op, tuple(value) if isinstance(value, list) else value)
