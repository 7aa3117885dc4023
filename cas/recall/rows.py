"""What of a record is searched: text, values, links, and what ranking looks at.

Floor 7. Invariant: a pure function of the record and of what its type declares, so that a
projection made anew says the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast, get_args

import attrs
from attrs import frozen

from cas.model.encoding import encode
from cas.recall.database import VERSION
from cas.workspace.codec import decode_record, from_fields, from_record, upcast
from cas.workspace.links import Link
from cas.workspace.memories import ARCHIVED
from cas.workspace.registry import KEPT, Aggregate, AggregateType, types
from cas.workspace.strict import is_optional, optional_of

Finder = Callable[[Any], list[Link]]
"""Finds the links in the plain form of a value; what is none is passed by."""

"""The tag that takes an aggregate out of recall; `find` gives it when it is asked for."""
FLAG_ARCHIVED: Final = 1

TRUST: Final[Mapping[str, int]] = {"trusted": 2, "unverified": 1, "untrusted": 0}

_TEXT_CHARS_MAX: Final = 1 << 20
"""Of a longer text this much is searched."""


_PLAIN: Final = (str, int, float)
"""What is searched as it is; `bool` is none of these types."""


@frozen
class Shape:
    """Which fields of a type are searched, and how."""

    type: AggregateType
    text: tuple[str, ...]
    plain: tuple[tuple[str, str], ...]
    links: Mapping[str, Finder]
    """Fields that may hold links, and what finds them there."""

    @property
    def fields(self) -> list[Any]:
        """What a projection that was made for another shape lacks."""
        how = [list(self.text), [list(each) for each in self.plain], list(self.links)]
        return [self.type.name, self.type.version, self.type.collection, self.type.context, how]


class Row(NamedTuple):
    """An aggregate's version, as the search database takes it. A plain tuple: made for each."""

    text: str
    values: dict[str, Any]
    """By field: a text or a number, or a tuple of several. A dict of plain values is nothing that
    Python's collector has to look at."""
    links: tuple[tuple[str, Link], ...]
    importance: float | None
    at_us: int | None
    from_us: int | None
    to_us: int | None
    trust: int
    flags: int


def shape_of(type: AggregateType) -> Shape:
    """The shape that a type's declarations make."""
    searchable = type.searchable
    cls = cast("Any", type.cls)
    resolved = attrs.fields(attrs.resolve_types(cls))
    finders = {each.name: _finder(each.type) for each in resolved if each.name != KEPT}
    return Shape(
        type,
        tuple(name for name, how in searchable.items() if how == "text"),
        tuple((name, how) for name, how in searchable.items() if how != "text"),
        {name: finder for name, finder in finders.items() if finder is not None},
    )


def _finder(kind: Any) -> Finder | None:
    """What finds the links in the plain form of a value of a type, at any depth: in sets, tuples
    and maps, and in fields of attrs classes. None where there can be none.
    """
    if kind is Link:
        return _link
    if attrs.has(kind):
        every = {each.name: _finder(each.type) for each in attrs.fields(attrs.resolve_types(kind))}
        within = [(name, finder) for name, finder in every.items() if finder is not None]
        return _in_fields(within) if within else None
    if is_optional(kind):
        return _finder(optional_of(kind))
    inner = next(filter(None, map(_finder, get_args(kind))), None)
    return None if inner is None else _in_each(inner)


def _link(value: Any) -> list[Link]:
    if not isinstance(value, list) or len(value) not in (2, 3):
        return []
    type, id = value[:2]
    if not (isinstance(type, str) and isinstance(id, str) and id):
        return []
    return [Link(type, id, value[2] if len(value) == 3 else None)]


def _in_fields(within: Sequence[tuple[str, Finder]]) -> Finder:
    def find(value: Any) -> list[Link]:
        if not isinstance(value, dict):
            return []
        return [link for name, finder in within for link in finder(value.get(name))]

    return find


def _in_each(finder: Finder) -> Finder:
    def find(value: Any) -> list[Link]:
        every = value.values() if isinstance(value, dict) else value
        if not isinstance(value, dict | list):
            return []
        return [link for each in every for link in finder(each)]

    return find


def shapes() -> dict[str, Shape]:
    """The shapes of all types that this program knows, by name of the type."""
    return {type.name: shape_of(type) for type in types()}


def digest_of(shapes: Mapping[str, Shape], branch: str) -> str:
    """What a projection depends on beside the store, as 16 hex digits."""
    every = [shapes[name].fields for name in sorted(shapes)]
    return hashlib.sha256(encode([VERSION, branch, every])).hexdigest()[:16]


def row_of(shape: Shape, data: bytes) -> Row:
    """What is searched of a record's bytes. Raises what decoding a record raises."""
    fields = upcast(shape.type, decode_record(data))
    get = fields.get
    links: tuple[tuple[str, Link], ...] = ()
    linked: set[str] = set()
    for name, finder in shape.links.items():
        if value := get(name):
            found = dict.fromkeys((name, link) for link in finder(value))
            # Of two to one aggregate the first is kept: the version that one names says more.
            links += tuple(sorted(found, key=_is_loose) if len(found) > 1 else found)
            if found:
                linked.add(name)
    values: dict[str, Any] = {}
    for name, _how in shape.plain:
        value = get(name)
        kind = type(value)
        if kind in _PLAIN:
            values[name] = value
        elif value is None or (kind is list and not value):
            continue
        elif name in linked and kind is list:
            values[name] = tuple(dict.fromkeys(link.id for of, link in links if of == name))
        elif isinstance(value, dict):
            for place, each in dict.fromkeys(_in_map(name, value)):
                values[place] = (*values.get(place, ()), each)
        elif several := tuple(dict.fromkeys(_values(value))):
            values[name] = several
    text = _text_of(shape, fields)
    tags = get("tags")
    archived = FLAG_ARCHIVED if isinstance(tags, list) and ARCHIVED in tags else 0
    return Row(
        text,
        values,
        links,
        _number(get("importance")),
        _time(get("at")),
        _time(get("valid_from")),
        _time(get("valid_to")),
        TRUST.get(str(get("trust")), 1),
        archived,
    )


def shown_of(shape: Shape, data: bytes) -> tuple[str, Aggregate]:
    """The text of a record and the aggregate that it is. Raises what decoding a record raises."""
    record = decode_record(data)
    fields = upcast(shape.type, record)
    text = _text_of(shape, fields)
    if record.type != shape.type.name:
        return text, from_record(data)
    return text, from_fields(shape.type, fields)


def text_of(shape: Shape, data: bytes) -> str:
    """The text of a record that is searched and shown. Raises what decoding a record raises."""
    return _text_of(shape, upcast(shape.type, decode_record(data)))


def _is_loose(named: tuple[str, Link]) -> bool:
    return named[1].pin is None


def _text_of(shape: Shape, fields: Mapping[str, Any]) -> str:
    if len(shape.text) == 1 and type(value := fields.get(shape.text[0])) is str:
        return value[:_TEXT_CHARS_MAX]
    text = "\n".join(part for name in shape.text for part in _texts(fields.get(name)))
    return text[:_TEXT_CHARS_MAX]


def _values(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [each for part in value for each in _values(part)]
    if isinstance(value, bool):
        return [int(value)]
    return [value] if type(value) in _PLAIN else []


def _in_map(name: str, value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Values in a map, each under the names on the way to it, with dots between them."""
    for key, each in value.items():
        place = f"{name}.{key}"
        if isinstance(each, dict):
            yield from _in_map(place, each)
        else:
            yield from ((place, one) for one in _values(each))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _time(value: Any) -> int | None:
    return value if isinstance(value, int) else None
