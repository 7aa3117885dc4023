"""Aggregates as records: canonical CBOR with type name and schema version, strict both ways.

Floor 6. A record is the array [type name, schema version, fields, extras] in the encoding of
docs/format.md section 3, in which a record may also hold floats in their shortest form. Invariant:
`from_record(to_record(x)) == x`, equal values have equal bytes, and a value of another type than
the field says is refused by a message that names the field, never converted.

cattrs writes one function a class; the hooks of `strict` take its coercions away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import attrs

from cas.errors import CasError, Invalid, InvalidRecord, NewerSchema, NotCanonical, UnknownType
from cas.limits import RECORD_BYTES_MAX
from cas.model.encoding import decode, encode
from cas.model.ids import BlobId, digest_blob
from cas.workspace.links import Link
from cas.workspace.records import encoder_of
from cas.workspace.registry import (
    ORIGIN,
    Aggregate,
    AggregateType,
    Fields,
    not_valid,
    type_named,
    type_of,
)
from cas.workspace.strict import check_type, field_reader, field_writer, reader_of, writer_of

T = TypeVar("T", bound=Aggregate)


class Record(NamedTuple):
    """A record as it is stored, before it is taken for a value."""

    type: str
    version: int
    fields: Fields


# -- values ------------------------------------------------------------------------------------


def to_record(value: Aggregate) -> bytes:
    """The bytes of an aggregate's record. Raises `InvalidRecord`, `LimitExceeded`."""
    type = type_of(value.__class__)
    if value.unknown:
        _check_unknown(type, value)
        return encode_record(Record(type.name, type.version, to_fields(value)))
    make = _ENCODERS.get(type.cls)
    if make is None:
        check_type(type)
        make = _ENCODERS[type.cls] = encoder_of(type)
    try:
        data = make(value)
    except Exception:
        # Something is wrong with it, or of a class below the one that is expected.
        return encode_record(Record(type.name, type.version, to_fields(value)))
    return _bounded(data, type.name, value.id)


def to_fields(value: Aggregate) -> Fields:
    """The fields of an aggregate as plain values, those that its type does not know included.

    Raises `InvalidRecord` naming the field.
    """
    type = type_of(value.__class__)
    write = _writer(type.cls)
    try:
        fields = write(value)
    except Exception as error:
        raise _bad_value(type, value, error) from error
    return {**value.unknown, **fields} if value.unknown else fields


def _check_unknown(type: AggregateType, value: Aggregate) -> None:
    """Refuse what no decoder would give back: of these fields no type says what they may hold."""
    for name, each in value.unknown.items():
        try:
            # As deep as it lies in the record.
            decode(encode([[each]]), verified=True)
        except (CasError, RecursionError) as error:
            reason = "is too long a number, too deep, or something else that no record gives back"
            raise not_valid(type.name, value.id, name, reason) from error


def from_record(
    data: bytes, *, expected: AggregateType | None = None, origin: BlobId | None = None
) -> Aggregate:
    """The aggregate of a record, brought up to the newest version of its type. `origin` is the
    record's id, where it is known.

    Raises `UnknownType`, `NewerSchema`, `InvalidRecord`.
    """
    record = decode_record(data)
    type = type_named(record.type) if expected is None else expected
    if record.type != type.name:
        raise InvalidRecord(
            f"This is a record of type {record.type!r}, where one of {type.name!r} should be.",
            type=type.name,
            id=None,
            field=None,
            reason=f"is of type {record.type!r}",
        )
    value = from_fields(type, upcast(type, record))
    if origin is not None:
        # As its own constructor would: nobody else has the value yet.
        object.__setattr__(value, ORIGIN, origin)
    return value


def pinned(value: Aggregate) -> Link:
    """A link to an aggregate as it is now, pinned to the record that it has or would have."""
    return Link(type_of(value.__class__).name, value.id, BlobId(digest_blob(to_record(value))))


def from_fields(type: AggregateType, fields: Fields) -> Aggregate:
    """The aggregate of plain fields of the newest version. Raises `InvalidRecord`."""
    known, kept = fields, {}
    if not fields.keys() <= type.fields.keys():
        extra = fields.keys() - type.fields.keys()
        if type.unknown == "refuse":
            reason = "is not known to its type, which refuses"
            raise not_valid(type.name, _id_of(fields), min(extra), reason)
        kept = {name: fields[name] for name in sorted(extra)}
        known = {name: fields[name] for name in fields if name not in kept}
    read = _reader(type.cls)
    try:
        value = read(known, type.cls)
    except Exception as error:
        raise _bad_fields(type, known, error) from error
    return value.evolve(unknown=kept) if kept else value


def upcast(type: AggregateType, record: Record) -> Fields:
    """The fields of a record as the newest version has them. Raises `NewerSchema`,
    `InvalidRecord`.
    """
    version, fields = record.version, record.fields
    if version > type.version:
        raise NewerSchema(
            f"This {type.name} was written with version {version} of its type; this program knows "
            f"version {type.version}. Use a newer program.",
            type=type.name,
            version=version,
            known=type.version,
        )
    while version < type.version:
        try:
            fields = type.upcasters[version](dict(fields))
        except CasError:
            raise
        except Exception as error:
            raise _not_brought_up(type, record, version, repr(error)) from error
        if not isinstance(fields, dict):
            raise _not_brought_up(type, record, version, f"the upcaster gave {fields!r}, no dict")
        version += 1
    if fields.get("id") != record.fields.get("id"):
        # Its place in the tree is that of the id.
        given = f"the id became {fields.get('id')!r}"
        raise _not_brought_up(type, record, version - 1, given)
    return fields


def _not_brought_up(type: AggregateType, record: Record, version: int, why: str) -> InvalidRecord:
    return InvalidRecord(
        f"{type.name} {_id_of(record.fields)!r} cannot be brought from version {version} "
        f"to {version + 1}: {why}.",
        type=type.name,
        id=_id_of(record.fields),
        field=None,
        reason=f"upcaster {version} failed",
    )


_WRITERS: Final[dict[type, Callable[[Any], Fields]]] = {}
_READERS: Final[dict[type, Callable[[Any, Any], Aggregate]]] = {}
_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {}
"""What was made for each class, most of it by cattrs; two threads may write one twice."""


def _writer(cls: type[Aggregate]) -> Callable[[Any], Fields]:
    found = _WRITERS.get(cls)
    if found is None:
        check_type(type_of(cls))
        found = _WRITERS[cls] = writer_of(cls)
    return found


def _reader(cls: type[Aggregate]) -> Callable[[Any, Any], Aggregate]:
    found = _READERS.get(cls)
    if found is None:
        check_type(type_of(cls))
        found = _READERS[cls] = reader_of(cls)
    return found


# -- bytes -------------------------------------------------------------------------------------


def encode_record(record: Record) -> bytes:
    """The canonical bytes of a record. Raises `InvalidRecord`."""
    data = encode([record.type, record.version, record.fields, {}])
    return _bounded(data, record.type, _id_of(record.fields))


def _bounded(data: bytes, type: str, id: str | None) -> bytes:
    """`data` itself when a record may be so long. Raises `InvalidRecord`."""
    if len(data) > RECORD_BYTES_MAX:
        raise InvalidRecord(
            f"The record of {type} {id!r} has {len(data):,} bytes, more than "
            f"{RECORD_BYTES_MAX:,}; keep long content as an artifact and link it.",
            type=type,
            id=id,
            field=None,
            reason="is too long",
        )
    return data


def decode_record(data: bytes) -> Record:
    """What a record's bytes say; the bytes were compared with their id. Raises `InvalidRecord`."""
    try:
        parts = decode(data, verified=True)
    except NotCanonical:
        # Whole, but not ours: somebody has written a file of their own where records lie.
        parts = None
    if type(parts) is list and len(parts) == 4:
        name, version, fields, _extras = parts
        if type(name) is str and type(version) is int and version > 0 and type(fields) is dict:
            return Record(name, version, fields)
    raise InvalidRecord(
        f"A file of a collection is no record (it begins with {bytes(data[:24])!r}): it was not "
        "written through a workspace. Move it out of the collection's folder (`cas mv`), or give "
        "the workspace a store, or branches, of its own.",
        type=None,
        id=None,
        field=None,
        reason="is no record",
    )


def _id_of(fields: Mapping[str, Any]) -> str | None:
    id = fields.get("id")
    return id if isinstance(id, str) else None


# -- what is wrong, said by field ----------------------------------------------------------------


def _bad_value(type: AggregateType, value: Aggregate, error: Exception) -> CasError:
    """Which field of a value cannot be stored."""
    for name, each in type.fields.items():
        try:
            field_writer(each.type)(getattr(value, name))
        except Exception as found:
            return not_valid(type.name, value.id, name, _reason(found))
    return not_valid(type.name, value.id, "?", _reason(error))


def _bad_fields(type: AggregateType, fields: Fields, error: Exception) -> CasError:
    """Which field of a record is not as the type says."""
    id = _id_of(fields)
    if isinstance(error, InvalidRecord) and error.fields.get("field"):
        return error
    for name, each in type.fields.items():
        if name not in fields:
            if each.default is attrs.NOTHING:
                return not_valid(type.name, id, name, "is missing")
            continue
        try:
            field_reader(each.type)(fields[name], each.type)
        except Exception as found:
            return not_valid(type.name, id, name, _reason(found))
    if isinstance(error, CasError):
        return error
    return not_valid(type.name, id, "?", _reason(error))


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Invalid):
        return str(error).rstrip(".")
    return f"is not as its type says ({error})"


def typed(value: Aggregate, cls: type[T]) -> T:
    """The value, which is of this class. Raises `UnknownType`."""
    if not isinstance(value, cls):
        raise UnknownType(f"{value!r} is no {cls.__name__}.", type=cls.__name__)
    return value
