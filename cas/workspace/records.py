"""The bytes of a record, by a plan that is made once for each type.

Floor 6; implements docs/format.md section 3 for what an aggregate holds. Invariant: the bytes are
those that `encode` gives for the same fields. What costs there is the order of keys, looked for in
every record, and floats, which have a shortest form: a type says once in which order its fields
stand, and which of them hold neither floats nor maps. These are encoded together, in half the time;
each of the others by itself, as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from cas.model.encoding import (
    ARRAY,
    EMPTY_MAP,
    MAP,
    encode,
    encode_plain,
    head,
    put_uint,
    text_order,
)
from cas.workspace.registry import AggregateType, Fields
from cas.workspace.strict import field_types, is_flat

_Part = Callable[[Fields], bytes]


def encoder_of(type: AggregateType) -> Callable[[Fields], bytes]:
    """A function that makes a record of the plain fields of an aggregate of this type, all of
    them and no others.
    """
    kinds = field_types(type)
    names = sorted(kinds, key=text_order)
    start = b"".join(
        (head(ARRAY, 4), encode_plain(type.name), put_uint(type.version), head(MAP, len(names)))
    )
    parts: list[_Part] = []
    for flat, group in groupby(names, lambda name: is_flat(kinds[name])):
        some = tuple(group)
        parts += [_together(some)] if flat else map(_alone, some)

    def encode_fields(fields: Fields) -> bytes:
        return b"".join((start, *[part(fields) for part in parts], EMPTY_MAP))

    return encode_fields


def _together(names: tuple[str, ...]) -> _Part:
    """Keys and values of fields that are encoded alike in either mode."""
    skip: Final = len(head(MAP, len(names)))
    # Of one name alone this gives the value and not a tuple of it.
    values: Callable[[Fields], Any] = itemgetter(*names)
    if len(names) == 1:
        return lambda fields: encode_plain({names[0]: values(fields)})[skip:]
    return lambda fields: encode_plain(dict(zip(names, values(fields), strict=True)))[skip:]


def _alone(name: str) -> _Part:
    key: Final = encode_plain(name)
    return lambda fields: key + encode(fields[name])
