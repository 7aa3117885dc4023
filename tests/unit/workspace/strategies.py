"""Random values of the delivered types, for properties."""

from __future__ import annotations

import types
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Union, get_args, get_origin

import attrs
from hypothesis import strategies as st

from cas.model.ids import BlobId
from cas.workspace.links import Link
from cas.workspace.registry import Aggregate, AggregateType
from cas.workspace.strict import EPOCH

IDS = st.text("abcxyz019_.-", min_size=1, max_size=12).filter(lambda id: id not in (".", ".."))
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
BLOBS = st.binary(min_size=32, max_size=32).map(BlobId)
LINKS = st.builds(Link, st.sampled_from(["memory", "sprint", "gone"]), IDS, st.none() | BLOBS)
TIMES = st.datetimes(
    min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)
)
FIXED: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(-(1 << 63), (1 << 63) - 1),
    float: st.floats(0.0, 1.0),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    datetime: TIMES,
    Link: LINKS,
    BlobId: BLOBS,
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of the type of a field."""
    if kind in FIXED:
        return FIXED[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.none() | values(next(each for each in arguments if each is not type(None)))
    if origin is frozenset:
        return st.frozensets(values(arguments[0]), max_size=4)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=4).map(tuple)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    assert isinstance(origin, type), kind
    return st.dictionaries(TEXTS, values(arguments[1]), max_size=4)


def aggregates(type: AggregateType, id: str | None = None) -> st.SearchStrategy[Aggregate]:
    """Aggregates of a type."""
    cls: Any = type.cls
    fields = {
        each.name: values(each.type)
        for each in attrs.fields(attrs.resolve_types(cls))
        if each.name not in ("id", "unknown")
    }
    return st.builds(cls, id=IDS if id is None else st.just(id), **fields)


__all__ = ["EPOCH", "IDS", "LINKS", "TEXTS", "aggregates", "values"]
