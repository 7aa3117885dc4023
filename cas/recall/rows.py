"""What of a record is searched: text, values, links, and what ranking looks at.

Floor 7. Invariant: a pure function of the record and of what its type declares, so that a
projection made anew says the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast, get_args

import attrs
from attrs import field, frozen

from cas.model.encoding import encode
from cas.recall.schema import VERSION
from cas.recall.tokens import estimate_tokens
from cas.workspace.codec import decode_record, upcast
from cas.workspace.links import Link
from cas.workspace.registry import KEPT, AggregateType, types

ARCHIVED: Final = "archived"
"""The tag that takes an aggregate out of recall; `find` gives it when it is asked for."""
FLAG_ARCHIVED: Final = 1

TRUST: Final[Mapping[str, int]] = {"trusted": 2, "unverified": 1, "untrusted": 0}

_TEXT_CHARS_MAX: Final = 1 << 20
"""Of a longer text this much is searched."""


@frozen
class Shape:
    """Which fields of a type are searched, and how."""

    type: AggregateType
    text: tuple[str, ...]
    plain: tuple[tuple[str, str], ...]
    links: tuple[str, ...]

    @property
    def fields(self) -> list[Any]:
        """What a projection that was made for another shape lacks."""
        how = [list(self.text), [list(each) for each in self.plain], list(self.links)]
        return [self.type.name, self.type.version, self.type.collection, self.type.context, how]


@frozen
class Row:
    """An aggregate's version, as the search database takes it."""

    text: str
    tokens: int
    values: tuple[tuple[str, Any], ...]
    links: tuple[tuple[str, Link], ...]
    importance: float | None = None
    at_us: int | None = None
    from_us: int | None = None
    to_us: int | None = None
    trust: int = field(default=1)
    flags: int = 0


def shape_of(type: AggregateType) -> Shape:
    """The shape that a type's declarations make."""
    searchable = type.searchable
    cls = cast("Any", type.cls)
    resolved = attrs.fields(attrs.resolve_types(cls))
    linked = tuple(each.name for each in resolved if each.name != KEPT and _has_link(each.type))
    return Shape(
        type,
        tuple(name for name, how in searchable.items() if how == "text"),
        tuple((name, how) for name, how in searchable.items() if how != "text"),
        linked,
    )


def _has_link(kind: Any) -> bool:
    return kind is Link or any(_has_link(each) for each in get_args(kind))


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
    links = tuple(
        (name, link) for name in shape.links for link in _links(fields.get(name)) if link.id
    )
    linked = {name for name, _ in links}
    values = [(name, link.id) for name, link in links if name in dict(shape.plain)]
    for name, _how in shape.plain:
        if name not in linked:
            values += [(name, value) for value in _values(fields.get(name))]
    text = "\n".join(part for name in shape.text for part in _texts(fields.get(name)))
    text = text[:_TEXT_CHARS_MAX]
    tags = fields.get("tags")
    archived = FLAG_ARCHIVED if isinstance(tags, list) and ARCHIVED in tags else 0
    return Row(
        text,
        estimate_tokens(text),
        tuple(dict.fromkeys(values)),
        tuple(dict.fromkeys(links)),
        _number(fields.get("importance")),
        _time(fields.get("at")),
        _time(fields.get("valid_from")),
        _time(fields.get("valid_to")),
        TRUST.get(str(fields.get("trust")), 1),
        archived,
    )


def _links(value: Any) -> Iterator[Link]:
    """Links in the plain form of a field that holds one, some or none."""
    if not isinstance(value, list) or not value:
        return
    if isinstance(value[0], list):
        for each in value:
            yield from _links(each)
    elif len(value) in (2, 3) and all(isinstance(part, str) for part in value[:2]):
        yield Link(value[0], value[1], value[2] if len(value) == 3 else None)


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _values(each)
    elif isinstance(value, bool):
        yield int(value)
    elif isinstance(value, str | int | float):
        yield value


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
