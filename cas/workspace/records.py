"""The bytes of a record, by a plan that is made once for each type.

Floor 6; implements docs/format.md section 3 for what an aggregate holds. Invariant: the bytes are
those that `encode` gives for the plain fields of the same value. A type says once in which order
its fields stand, and how values of each are put: text, times, numbers, enums and sets of text are
put together here, without plain values or maps that are made to be taken apart. A call of the
encoder, which costs more than most of these are long, is left for the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, get_args, get_origin

from cas.errors import Invalid
from cas.model.encoding import (
    ARRAY,
    EMPTY_MAP,
    MAP,
    NULL,
    TEXT,
    encode,
    encode_plain,
    head,
    put_uint,
)
from cas.workspace.registry import Aggregate, AggregateType
from cas.workspace.strict import (
    EPOCH,
    MICROSECOND,
    field_types,
    field_writer,
    is_enum,
    is_flat,
    is_optional,
    optional_of,
)

Put = Callable[[Any], bytes]
"""Makes the encoding of a field's value. Raises some error for what is not of just that class: it
is told what is wrong, if anything is, where plain values are made of it (`strict`)."""

_TEXT_HEADS: Final = tuple(head(TEXT, length) for length in range(256))
_EMPTY: Final = head(ARRAY, 0)


def encoder_of(type: AggregateType) -> Callable[[Aggregate], bytes]:
    """A function that makes the record of an aggregate of this type, which has no unknown fields.

    It raises some error for a value with which the general way has to deal.
    """
    kinds = field_types(type)
    names = sorted(kinds, key=lambda name: (len(name.encode()), name.encode()))
    start = b"".join(
        (head(ARRAY, 4), encode_plain(type.name), put_uint(type.version), head(MAP, len(names)))
    )
    plan = [(encode_plain(name), _put_of(kinds[name])) for name in names]
    # Of one name alone this gives the value and not a tuple of it.
    values: Callable[[Aggregate], Any] = attrgetter(*names)
    if len(names) == 1:
        (name,) = names
        values = lambda value: (getattr(value, name),)  # noqa: E731

    def make(value: Aggregate) -> bytes:
        fields = [key + put(each) for (key, put), each in zip(plan, values(value), strict=True)]
        return b"".join((start, *fields, EMPTY_MAP))

    return make


def _put_of(kind: Any) -> Put:
    """How values of a type are put."""
    if kind in _PUTS:
        return _PUTS[kind]
    if is_enum(kind):
        return _member(kind)
    if is_optional(kind):
        put = _put_of(optional_of(kind))
        return lambda value: NULL if value is None else put(value)
    plain, make = field_writer(kind), encode_plain if is_flat(kind) else encode
    if get_origin(kind) not in (frozenset, tuple):
        return lambda value: make(plain(value))
    return _many(kind, lambda value: make(plain(value)))


def _text(value: Any) -> bytes:
    if value.__class__ is not str:
        raise TypeError
    data: bytes = value.encode()
    length = len(data)
    return (_TEXT_HEADS[length] if length < 256 else head(TEXT, length)) + data


def _time(value: Any) -> bytes:
    if value.__class__ is not datetime or value.tzinfo is None:
        raise TypeError
    time_us = (value - EPOCH) // MICROSECOND
    return put_uint(time_us) if time_us >= 0 else encode_plain(time_us)


def _number(value: Any) -> bytes:
    if value.__class__ is not int or not -1 << 63 <= value < 1 << 63:
        raise TypeError
    return put_uint(value) if value >= 0 else encode_plain(value)


def _fraction(value: Any) -> bytes:
    if value.__class__ is not float or not math.isfinite(value):
        raise TypeError
    # The two zeros are equal, and their encodings are not.
    return _shortest(value) if value else encode(value)


_shortest: Final = lru_cache(maxsize=64)(encode)
"""The floats that come again, as weights between 0 and 1 do: to find their form takes long."""


def _member(kind: type[Enum]) -> Put:
    known = {}
    for each in kind:
        with suppress(Invalid):  # a value that has no encoding is refused when it is stored
            known[each.name] = encode(each.value)

    def put(value: Any) -> bytes:
        if value.__class__ is not kind:
            raise TypeError
        return known[value._name_]

    return put


def _many(kind: Any, otherwise: Put) -> Put:
    """Of sets and tuples those of texts, and empty ones; `otherwise` puts the others."""
    origin, inner = get_origin(kind), get_args(kind)[0]
    is_set, of_text = origin is frozenset, inner is str

    def put(value: Any) -> bytes:
        if value.__class__ is not origin or (value and not of_text):
            return otherwise(value)
        if not value:
            return _EMPTY
        each = list(map(_text, value))
        if is_set:
            # Texts stand in the order of their encodings, which these are.
            each.sort()
        return head(ARRAY, len(each)) + b"".join(each)

    return put


_PUTS: Final[dict[Any, Put]] = {
    str: _text,
    datetime: _time,
    int: _number,
    float: _fraction,
}
