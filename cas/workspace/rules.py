"""Three-way merge of an aggregate, field by field, by the rule of each.

Floor 6; pure but for reading and making contents. Invariants, held by properties: one side alone
changed gives that side; both the same gives it, but for `counter` and `append`, where two equal
edits are two edits; all but `last` and `append` do not depend on which side came first; whatever
cannot be decided is a `FieldClash` and never dropped.

It works on plain fields, as records hold them. `current` is what stands, `incoming` what comes
onto it: the side that is later in every sense that the store knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from attrs import frozen

from cas.history.text import merge_text
from cas.model.encoding import encode
from cas.workspace.registry import AggregateType, Fields

_INT_END: Final = 1 << 63


class _Absent:
    """Where a side has no such field or no such aggregate."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()


@frozen
class FieldClash:
    """A field that both sides changed, each in its way; plain values, None where it was absent."""

    field: str
    base: Any
    current: Any
    incoming: Any


class Contents(NamedTuple):
    """How contents that records name by id are read and made."""

    read: Callable[[bytes], bytes]
    make: Callable[[bytes], bytes]


class Merged(NamedTuple):
    """What a merge gives: fields, of which clashing ones stand as `current` has them."""

    fields: Fields
    clashes: tuple[FieldClash, ...]


def merge_fields(
    type: AggregateType, base: Fields | None, current: Fields, incoming: Fields, contents: Contents
) -> Merged:
    """The aggregate that has the changes of both sides. `base` None: both made it anew."""
    rules = type.rules
    merged: Fields = {}
    clashes = []
    for name in {**current, **incoming}:
        old = ABSENT if base is None else base.get(name, ABSENT)
        mine, other = current.get(name, ABSENT), incoming.get(name, ABSENT)
        value = merge_value(rules.get(name, "strict"), old, mine, other, contents)
        if value is CLASH:
            clashes.append(FieldClash(name, _plain(old), _plain(mine), _plain(other)))
            value = mine
        if value is not ABSENT:
            merged[name] = value
    _measure(merged, current, incoming, contents)
    return Merged(merged, tuple(clashes))


def merge_nothing(base: Fields | None, current: Fields, incoming: Fields) -> Merged:
    """The aggregate as it stands, with all that `incoming` changes as clashes: for what the type
    refuses once it was merged.
    """
    clashes = []
    for name in {**current, **incoming}:
        old = ABSENT if base is None else base.get(name, ABSENT)
        mine, other = current.get(name, ABSENT), incoming.get(name, ABSENT)
        if not (_same(old, other) or _same(mine, other)):
            clashes.append(FieldClash(name, _plain(old), _plain(mine), _plain(other)))
    return Merged(current, tuple(clashes))


SUMS: Final = ("counter", "append")
"""Rules by which two equal edits are two edits all the same."""

CLASH: Final = object()
"""What `merge_value` gives where no rule brings two edits together."""


def merge_value(rule: str, base: Any, current: Any, incoming: Any, contents: Contents) -> Any:
    """One field that a rule merges, or `CLASH`."""
    if _same(base, incoming) or (rule not in SUMS and _same(current, incoming)):
        return current
    if _same(base, current):
        return incoming
    merge = _RULES.get(rule)
    if rule == "last":
        return incoming
    if merge is None or ABSENT in (current, incoming):
        return CLASH
    return merge(base, current, incoming, contents)


def _same(one: Any, other: Any) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is other
    # 1, 1.0 and True are equal to Python, and three different things in a record.
    return bool(one == other) and (one.__class__ in (str, bytes) or encode(one) == encode(other))


def _plain(value: Any) -> Any:
    return None if value is ABSENT else value


def _union(base: Any, current: Any, incoming: Any, _contents: Contents) -> Any:
    start = [] if base is ABSENT or base is None else base
    if any(type(side) is not list for side in (start, current, incoming)):
        return CLASH
    old, mine, other = (
        {encode(each): each for each in side} for side in (start, current, incoming)
    )
    gone = (old.keys() - mine.keys()) | (old.keys() - other.keys())
    kept = {key: each for key, each in {**old, **mine, **other}.items() if key not in gone}
    return [kept[key] for key in sorted(kept)]


def _counter(base: Any, current: Any, incoming: Any, _contents: Contents) -> Any:
    start = 0 if base is ABSENT or base is None else base
    if any(type(side) is not int for side in (start, current, incoming)):
        return CLASH
    total = current + incoming - start
    return total if -_INT_END <= total < _INT_END else CLASH


def _append(base: Any, current: Any, incoming: Any, _contents: Contents) -> Any:
    start = [] if base is ABSENT or base is None else base
    if any(type(side) is not list for side in (start, current, incoming)):
        return CLASH
    count = len(start)
    # A list that is only appended to still begins with what it was.
    if not (_same(current[:count], start) and _same(incoming[:count], start)):
        return CLASH
    return [*current, *incoming[count:]]


_ORDERED: Final = (int, float, str, bytes)
"""Plain values of which one is the greater; lists may hold what cannot be compared."""


def _greatest(_base: Any, current: Any, incoming: Any, _contents: Contents) -> Any:
    if current is None or incoming is None:
        return incoming if current is None else current
    ordered = type(current) is type(incoming) and isinstance(current, _ORDERED)
    return max(current, incoming) if ordered else CLASH


def _text(base: Any, current: Any, incoming: Any, _contents: Contents) -> Any:
    start = "" if base is ABSENT or base is None else base
    if any(type(side) is not str for side in (start, current, incoming)):
        return CLASH
    merged = merge_text(start.encode(), current.encode(), incoming.encode())
    return CLASH if merged is None else merged.decode()


def _content(base: Any, current: Any, incoming: Any, contents: Contents) -> Any:
    if any(type(side) is not bytes for side in (base, current, incoming)):
        return CLASH
    merged = merge_text(*(contents.read(side) for side in (base, current, incoming)))
    return CLASH if merged is None else contents.make(merged)


def _map(base: Any, current: Any, incoming: Any, contents: Contents) -> Any:
    start: Mapping[str, Any] = {} if base is ABSENT or base is None else base
    if any(type(side) is not dict for side in (start, current, incoming)):
        return CLASH
    merged: dict[str, Any] = {}
    for key in {**current, **incoming}:
        value = merge_value(
            "strict",
            start.get(key, ABSENT),
            current.get(key, ABSENT),
            incoming.get(key, ABSENT),
            contents,
        )
        if value is CLASH:
            return CLASH
        if value is not ABSENT:
            merged[key] = value
    return merged


_RULES: Final[Mapping[str, Callable[[Any, Any, Any, Contents], Any]]] = {
    "union": _union,
    "counter": _counter,
    "append": _append,
    "greatest": _greatest,
    "text": _text,
    "content": _content,
    "map": _map,
}


def _measure(merged: Fields, current: Fields, incoming: Fields, contents: Contents) -> None:
    """Keep the length beside a content right when that was taken or made."""
    content = merged.get("content")
    if type(content) is not bytes or "size_bytes" not in merged:
        return
    for side in (current, incoming):
        if side.get("content") == content:
            merged["size_bytes"] = side.get("size_bytes")
            return
    merged["size_bytes"] = len(contents.read(content))
