"""Hooks of cattrs that check and never convert: what a field may hold, and its plain form.

Floor 6. Invariant: a value of another type than the field says is `Invalid`, in both directions;
cattrs alone would make "7" a 7 and 1.9 a 1, and so change hashes without a word. Plain forms are
what canonical CBOR holds: a time is whole microseconds since 1970 UTC, a set is a list in the
order of its members' encodings, an enum its value, a link [type, id] or [type, id, pin].
"""

from __future__ import annotations

import math
import types as pytypes
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

import attrs

from cas.errors import Invalid
from cas.later import Later
from cas.limits import RECORD_DEPTH_MAX
from cas.model.encoding import decode, encode, text_order
from cas.model.ids import BlobId, CommitId, ObjectId
from cas.workspace.links import Link
from cas.workspace.registry import KEPT, ORIGIN, Aggregate, AggregateType

if TYPE_CHECKING:
    import cattrs
    from cattrs import gen
else:
    cattrs = Later("cattrs")
    gen = Later("cattrs.gen")

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
_INT_END: Final = 1 << 63


# -- cattrs without coercion ---------------------------------------------------------------------


def _expect(kind: type, words: str) -> Callable[..., Any]:
    def structure(value: Any, _type: Any = None) -> Any:
        if value.__class__ is not kind:
            raise Invalid(f"is {words}, not {_shown(value)}")
        return value

    return structure


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}{'…' * (len(text) > 60)} ({type(value).__name__})"


def _int(value: Any, _type: Any = None) -> int:
    if value.__class__ is not int:
        raise Invalid(f"is a whole number, not {_shown(value)}")
    if not -_INT_END <= value < _INT_END:
        raise Invalid("is a number of more than 64 bits")
    return value


def _float(value: Any, _type: Any = None) -> float:
    if value.__class__ is not float:
        raise Invalid(f"is a float, not {_shown(value)}")
    if not math.isfinite(value):
        raise Invalid("is not a finite number")
    return value


def _text(value: Any, _type: Any = None) -> str:
    if value.__class__ is not str:
        raise Invalid(f"is text, not {_shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Invalid("is text that cannot be stored as UTF-8") from error
    return value


def _time_out(value: Any) -> int:
    if not isinstance(value, datetime):
        raise Invalid(f"is a datetime, not {_shown(value)}")
    if value.tzinfo is None:
        raise Invalid("is a time without a zone; give it one, as datetime.now(UTC) has")
    return (value - EPOCH) // MICROSECOND


def moment(time_us: int) -> datetime:
    """A time of the store's clock, microseconds since 1970, as records have it."""
    return EPOCH + timedelta(microseconds=time_us)


def _time_in(value: Any, _type: Any) -> datetime:
    if value.__class__ is not int:
        raise Invalid(f"is a time in microseconds since 1970, not {_shown(value)}")
    try:
        return moment(value)
    except OverflowError as error:
        raise Invalid("is a time that no calendar has") from error


def _enum_out(value: Any, kind: type[Enum]) -> Any:
    if not isinstance(value, kind):
        raise Invalid(f"is one of {', '.join(str(m.value) for m in kind)}, not {_shown(value)}")
    return value.value


def _enum_in(value: Any, kind: type[Enum]) -> Enum:
    try:
        # True is 1 to an enum of numbers, but not to us.
        return kind(None if value.__class__ is bool else value)
    except ValueError as error:
        named = ", ".join(str(member.value) for member in kind)
        raise Invalid(f"is one of {named}, not {_shown(value)}") from error


def _check_members(kind: type[Enum]) -> None:
    """Refuse an enum of which a member would be stored and not come back: a tuple is a list in a
    record, and True is a number only to Python.
    """
    for each in kind:
        try:
            data = encode(each.value)
        except Invalid:
            # What has no encoding is refused when it is stored.
            continue
        try:
            found = _enum_in(decode(data, verified=True), kind)
        except Invalid:
            found = None
        if found is not each:
            raise Invalid(
                f"is an enum whose member {each.name} is {_shown(each.value)}, which would not be "
                "read again; give its members text, numbers or bytes"
            )


def _member_in(kind: type[Enum]) -> Callable[[Any, Any], Enum]:
    """`_enum_in` of one enum: what is text, as most are, is looked up."""
    _check_members(kind)
    known = {each.value: each for each in kind if each.value.__class__ is str}

    def structure(value: Any, _type: Any) -> Enum:
        found = known.get(value) if value.__class__ is str else None
        return _enum_in(value, kind) if found is None else found

    return structure


def _id_in(value: Any, kind: type[ObjectId]) -> ObjectId:
    if value.__class__ is not bytes or len(value) != 32:
        raise Invalid(f"is an id of 32 bytes, not {_shown(value)}")
    return kind(value)


def _link_out(value: Any) -> list[Any]:
    if not isinstance(value, Link):
        raise Invalid(f"is a link, not {_shown(value)}; `aggregate.link` gives one")
    plain: list[Any] = [_text(value.type), _text(value.id)]
    return plain if value.pin is None else [*plain, bytes(value.pin)]


def _link_in(value: Any, _type: Any) -> Link:
    if value.__class__ is not list or len(value) not in (2, 3):
        raise Invalid(f"is a link of type and id, not {_shown(value)}")
    pin = _id_in(value[2], BlobId) if len(value) == 3 else None
    return Link(_text(value[0]), _text(value[1]), BlobId(pin) if pin else None)


def _plain(value: Any, depth: int = 0) -> Any:
    """Any value that a record may hold as it is: what JSON has, and bytes."""
    if depth > RECORD_DEPTH_MAX:
        raise Invalid(f"is nested deeper than {RECORD_DEPTH_MAX}")
    kind = value.__class__
    if value is None or kind in (bool, bytes):
        return value
    if kind is str:
        return _text(value)
    if kind is int:
        return _int(value)
    if kind is float:
        return _float(value)
    if kind in (list, tuple):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, Mapping):
        return {_text(key): _plain(each, depth + 1) for key, each in value.items()}
    raise Invalid(f"is something that no record can hold: {_shown(value)}")


def writer_of(cls: Any) -> Callable[[Any], dict[str, Any]]:
    """A function that makes plain fields of an instance of an attrs class."""
    hooks = {
        each.name: gen.override(unstruct_hook=_out(each.type))
        for each in attrs.fields(attrs.resolve_types(cls))
    }
    write: Callable[[Any], dict[str, Any]] = gen.make_dict_unstructure_fn(
        cls, _converter(), **_left_out(cls, hooks)
    )

    def unstructure(value: Any) -> dict[str, Any]:
        if value.__class__ is not cls:
            raise Invalid(f"is a {cls.__name__}, not {_shown(value)}")
        return write(value)

    return unstructure


def reader_of(cls: Any) -> Callable[[Any, Any], Any]:
    """A function that makes an instance of an attrs class of plain fields."""
    hooks = {
        each.name: gen.override(struct_hook=_in(each.type))
        for each in attrs.fields(attrs.resolve_types(cls))
    }
    # Of an aggregate what its type does not know was put aside before.
    strict = not issubclass(cls, Aggregate)
    read: Callable[[Any, Any], Any] = gen.make_dict_structure_fn(
        cls, _converter(), _cattrs_forbid_extra_keys=strict, **_left_out(cls, hooks)
    )

    def structure(value: Any, _type: Any = None) -> Any:
        if value.__class__ is not dict:
            raise Invalid(f"is a map of fields, not {_shown(value)}")
        return read(value, cls)

    return structure


def _left_out(cls: type, hooks: dict[str, Any]) -> dict[str, Any]:
    """The hooks of a class; fields that its type does not know are no field for cattrs."""
    if issubclass(cls, Aggregate):
        hooks[KEPT] = hooks[ORIGIN] = gen.override(omit=True)
    return hooks


@lru_cache(maxsize=1)
def _converter() -> cattrs.Converter:
    return cattrs.Converter(detailed_validation=False, prefer_attrib_converters=False)


def plain_value(value: Any) -> Any:
    """A value of lists, maps, text, numbers and bytes as a record holds it. Raises `Invalid`."""
    return _plain(value)


def field_writer(kind: Any) -> Callable[[Any], Any]:
    """A function that makes the plain form of a value of this type."""
    return _out(kind)


def field_reader(kind: Any) -> Callable[[Any, Any], Any]:
    """A function that makes a value of this type of its plain form."""
    return _in(kind)


def _in(kind: Any) -> Callable[[Any, Any], Any]:
    """How a value of this type is read."""
    if kind in _PLAIN:
        read = _PLAIN[kind][0]
        return (lambda value, _type: _id_in(value, kind)) if read is _id_in else read
    if is_enum(kind):
        return _member_in(kind)
    if is_optional(kind):
        return _optional_in(kind)
    if _is_many(kind):
        return _many_in(kind)
    if _is_map(kind):
        return _map_in(kind)
    if attrs.has(kind):
        return reader_of(kind)
    raise Invalid(f"is a {kind}, which no record can hold")


def _out(kind: Any) -> Callable[[Any], Any]:
    """How a value of this type is written."""
    if kind in _PLAIN:
        return _PLAIN[kind][1]
    if is_enum(kind):
        return lambda value: _enum_out(value, kind)
    if is_optional(kind):
        return _optional_out(kind)
    if _is_many(kind):
        return _many_out(kind)
    if _is_map(kind):
        return _map_out(kind)
    if attrs.has(kind):
        return writer_of(kind)
    raise Invalid(f"is a {kind}, which no record can hold")


def _id_out(kind: type[ObjectId]) -> Callable[[Any], bytes]:
    def unstructure(value: Any) -> bytes:
        if not isinstance(value, kind):
            raise Invalid(f"is a {kind.__name__}, not {_shown(value)}")
        return bytes(value)

    return unstructure


def is_enum(kind: Any) -> bool:
    """Whether a type is an enum."""
    return isinstance(kind, type) and issubclass(kind, Enum)


def is_optional(kind: Any) -> bool:
    """Whether a type is another one or None."""
    if get_origin(kind) not in (Union, pytypes.UnionType):
        return False
    return len(get_args(kind)) == 2 and type(None) in get_args(kind)


def optional_of(kind: Any) -> Any:
    """The type that one which `is_optional` is beside None."""
    return next(each for each in get_args(kind) if each is not type(None))


def _optional_in(kind: Any) -> Callable[[Any, Any], Any]:
    inner = optional_of(kind)
    hook = _in(inner)
    return lambda value, _type: None if value is None else hook(value, inner)


def _optional_out(kind: Any) -> Callable[[Any], Any]:
    inner = optional_of(kind)
    hook = _out(inner)
    return lambda value: None if value is None else hook(value)


_FLAT: Final = (str, int, bool, bytes)


def _is_many(kind: Any) -> bool:
    """A frozenset of one type, or a tuple of one type and any length."""
    origin, arguments = get_origin(kind), get_args(kind)
    return origin is frozenset or (origin is tuple and len(arguments) == 2 and arguments[1] is ...)


def _many_in(kind: Any) -> Callable[[Any, Any], Any]:
    origin, inner = get_origin(kind), get_args(kind)[0]
    hook = _in(inner)

    def structure(value: Any, _type: Any) -> Any:
        if value.__class__ is not list:
            raise Invalid(f"is a list, not {_shown(value)}")
        plain = inner is str and set(map(type, value)) == {str} and "".join(value).isascii()
        found = origin(value if plain else [hook(each, inner) for each in value])
        if len(found) != len(value):
            raise Invalid("is a set in which something stands twice")
        return found

    return structure


def _many_out(kind: Any) -> Callable[[Any], Any]:
    origin, inner = get_origin(kind), get_args(kind)[0]
    hook, is_set = _out(inner), origin is frozenset
    order: Callable[[Any], Any] = text_order if inner is str else encode

    def unstructure(value: Any) -> list[Any]:
        if not isinstance(value, origin):
            raise Invalid(f"is a {origin.__name__}, not {_shown(value)}")
        plain = [hook(each) for each in value]
        # A set has no order of its own, and equal sets have equal bytes.
        if is_set and len(plain) > 1:
            plain.sort(key=order)
        return plain

    return unstructure


def _is_map(kind: Any) -> bool:
    return isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping)


def _map_in(kind: Any) -> Callable[[Any, Any], Any]:
    inner = get_args(kind)[1]
    hook = _in(inner)

    def structure(value: Any, _type: Any) -> Any:
        if value.__class__ is not dict:
            raise Invalid(f"is a map, not {_shown(value)}")
        return {_text(key): hook(each, inner) for key, each in value.items()}

    return structure


def _map_out(kind: Any) -> Callable[[Any], Any]:
    inner = get_args(kind)[1]
    hook = _out(inner)

    def unstructure(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise Invalid(f"is a map, not {_shown(value)}")
        return {_text(key): hook(each) for key, each in value.items()}

    return unstructure


def field_types(type: AggregateType) -> dict[str, Any]:
    """The type of each field."""
    cls: Any = type.cls
    return {
        each.name: each.type
        for each in attrs.fields(attrs.resolve_types(cls))
        if each.name in type.fields
    }


def is_flat(kind: Any) -> bool:
    """Whether the plain form of every value of this type holds neither floats nor maps."""
    if kind in _PLAIN:
        return kind not in (float, Any)
    if is_enum(kind):
        return all(each.value.__class__ in _FLAT for each in kind)
    if is_optional(kind):
        return is_flat(optional_of(kind))
    return _is_many(kind) and is_flat(get_args(kind)[0])


def check_type(type: AggregateType) -> None:
    """Refuse a type one of whose fields no record can hold. Raises `Invalid`."""
    for name, kind in field_types(type).items():
        try:
            _in(kind)
        except Invalid as error:
            raise Invalid(
                f"The field {name!r} of type {type.name!r} {error}. Use str, int, float, "
                "bool, bytes, datetime, enums, links, ids, attrs classes, and frozenset, "
                "tuple[X, ...], Mapping[str, X] or `X | None` of these."
            ) from error


_is_true: Final = _expect(bool, "true or false")
_is_bytes: Final = _expect(bytes, "bytes")
_PLAIN: Final[dict[Any, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]]] = {
    str: (_text, _text),
    int: (_int, _int),
    float: (_float, _float),
    bool: (_is_true, _is_true),
    bytes: (_is_bytes, _is_bytes),
    datetime: (_time_in, _time_out),
    Link: (_link_in, _link_out),
    Any: (lambda value, _type: _plain(value), _plain),
    **{kind: (_id_in, _id_out(kind)) for kind in (ObjectId, BlobId, CommitId)},
}
"""By identity: a class below `str`, as an enum may be, is not text."""
