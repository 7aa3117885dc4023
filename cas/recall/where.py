"""Conditions on the fields of aggregates: values that say what is looked for.

Floor 7. Invariant: a condition is a value; the same one gives the same rows of the same state,
whether SQLite is asked (`sql`) or arrays are (`recall`). Times are datetimes with a zone, or
microseconds since 1970 UTC.

    field("agent") == "planner"
    (field("importance") >= 0.5) & ~field("tags").has("draft")
    {"agent": "planner", "kind": ["fact", "decision"]}
    field("data.env.name") == "staging"     # in a field that is a map
    field("source").leads_to("artifact", field("kind") == "report")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal, Protocol

from attrs import frozen

from cas.errors import Invalid
from cas.limits import CONDITIONS_MAX
from cas.workspace.links import Link
from cas.workspace.registry import Aggregate, type_named, type_of

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


@frozen
class Linked(Condition):
    """A link leads to an aggregate of a type that fits, or, `back`, one of that type has a link
    here in this field. What it leads to is taken as it is in the state that is asked about.
    """

    field: str
    type: str
    part: Condition
    back: bool = False


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

    def leads_to(self, type: type[Aggregate] | str, where: object = None) -> Condition:
        """A link in this field leads to an aggregate of a type that fits a condition."""
        return Linked(self._name, _type_name(type), condition_of(where) or All(()))


def linked_from(type: type[Aggregate] | str, name: str, where: object = None) -> Condition:
    """An aggregate of a type that fits a condition has a link here in its field `name`."""
    return Linked(name, _type_name(type), condition_of(where) or All(()), back=True)


def _type_name(type: type[Aggregate] | str) -> str:
    return type_named(type).name if isinstance(type, str) else type_of(type).name


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
    if isinstance(condition, Not | Linked):
        return 1 + _size(condition.part)
    return 1


class Names(Protocol):
    """What numbers the names of types and fields have in the database; -1 for what no row has."""

    def code(self, name: str) -> int:
        """The number of a type, or of a field as COLLECTION.NAME."""

    def codes(self, type: str) -> Mapping[str, int]:
        """The searchable fields of a type that are not text, with their numbers."""


class Sql:
    """A condition on rows of a type as SQL over `@item i`, with its values; `key` gives a value of
    a field as the database has it, `seq` is the state in which links lead somewhere.
    """

    def __init__(self, names: Names, key: Callable[[Any], Any], type: str, seq: int) -> None:
        self._names, self._key, self._seq = names, key, seq
        # The type that is asked about, and how deep in links.
        self._type, self._depth = type, 0
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
        if isinstance(condition, Linked):
            return self._linked(condition)
        assert isinstance(condition, Compare)
        return self._compare(condition)

    @property
    def _row(self) -> str:
        return f"i{self._depth or ''}"

    def _linked(self, linked: Linked) -> str:
        here, was = self._row, self._type
        source = linked.type if linked.back else was
        field = self._names.code(f"{type_named(source).collection}.{linked.field}")
        code_of(self._names.codes(source), linked.field)
        self._type, self._depth = linked.type, self._depth + 1
        there = self._row
        joined = (
            f"l.id = {here}.id AND {there}.doc = l.doc"
            if linked.back
            else f"l.doc = {here}.doc AND {there}.id = l.id"
        )
        self.values += [field, was if linked.back else linked.type, self._names.code(linked.type)]
        self.values += [self._seq, self._seq]
        inner = self.text(linked.part)
        self._type, self._depth = was, self._depth - 1
        return (
            f"EXISTS (SELECT 1 FROM @link l CROSS JOIN @item {there} WHERE l.field = ? AND "
            f"l.type = ? AND {joined} AND {there}.type = ? AND {there}.since <= ? AND "
            f"({there}.until IS NULL OR {there}.until > ?) AND {inner})"
        )

    def _compare(self, compare: Compare) -> str:
        if compare.field == "id":
            return self._test(f"{self._row}.id", compare, str)
        self.values.append(code_of(self._names.codes(self._type), compare.field))
        if (reason := misfit(self._type, compare)) is not None:
            raise Invalid(reason, field=compare.field)
        test = "TRUE" if compare.op == "set" else self._test("v.value", compare, self._key)
        return (
            f"EXISTS (SELECT 1 FROM @value v WHERE v.field = ? AND v.doc = {self._row}.doc "
            f"AND {test})"
        )

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
        # A list of none is no SQL everywhere, and of NULL the opposite is not true either.
        return (f"value IN ({', '.join('?' * len(value))})" if value else "FALSE"), tuple(value)
    if op == "prefix":
        if not isinstance(value, str):
            raise Invalid(f"A prefix is text, not {value!r}.")
        end = _behind(value)
        if end is None:
            return "value >= ?", (value,)
        # In brackets: what stands before it may be NOT.
        return "(value >= ? AND value < ?)", (value, end)
    return f"value {op} ?", (value,)


def _behind(prefix: str) -> str | None:
    """The least text behind all that begin so; None where there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # Those between are no characters.
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)


class Codes(dict[str, int]):
    """Numbers of fields by name. One with a dot is a place in a field that is a map."""

    def __init__(self, known: Mapping[str, int], ask: Callable[[str], int]) -> None:
        super().__init__(known)
        self._ask = ask

    def get(self, name: str, default: Any = None) -> Any:
        """The number, or `default` for a name that is of no field."""
        if "." in name and name.partition(".")[0] in self:
            return self._ask(name)
        return super().get(name, default)


def code_of(codes: Mapping[str, int], name: str) -> int:
    """The number of a field. Raises `Invalid` for one that is not searched."""
    code = codes.get(name)
    if code is None:
        known = ", ".join(sorted(codes)) or "none"
        raise Invalid(f"There is no searchable field {name!r}; there are: id, {known}.", field=name)
    return code


def misfit(type: str, compare: Compare) -> str | None:
    """What is wrong with a text beside a field of numbers or times: any number is less than it."""
    how = type_named(type).searchable.get(compare.field.partition(".")[0])
    values = compare.value if compare.op == "in" else (compare.value,)
    text = next((each for each in values if isinstance(each, str)), None)
    if text is None or how not in ("number", "time"):
        return None
    return f"{compare.field} of a {type} is compared with a {how}, not {text!r}."


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
    if isinstance(condition, Linked):
        named = [condition.field, condition.type, _listed(condition.part)]
        return ["from" if condition.back else "to", *named]
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
    if head in ("from", "to"):
        name, type, part = parts[1:]
        return Linked(name, type, _unlisted(part), head == "from")
    op, name, value = parts
    return Compare(name, op, tuple(value) if isinstance(value, list) else value)
