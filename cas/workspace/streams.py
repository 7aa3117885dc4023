"""Event-sourced aggregates: state is the fold of their events, and the events are kept in order.

Floor 6. The events of an aggregate are files of its context's tree, .streams/COLLECTION/ID/N, so
that they have branches, history and merges as everything else; the journal tells them too. The
folded state is saved as the record in the same commit: the snapshots are the commits. Invariant:
the fold of the events at any commit gives the record at that commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from attrs import field, frozen

from cas.errors import Invalid, InvalidRecord
from cas.model.encoding import decode, encode
from cas.model.ids import BlobId
from cas.workspace.events import check_type_name
from cas.workspace.layout import stream_path
from cas.workspace.parts import part
from cas.workspace.reading import Reader, not_found
from cas.workspace.registry import Aggregate, AggregateType, base, type_of
from cas.workspace.strict import plain_value

S = TypeVar("S", bound="Sourced")

_DIGITS = 10


@frozen
class StreamEvent:
    """One event of an aggregate: its number from 1 on, its type, what it says."""

    number: int
    type: str
    data: Mapping[str, Any] = field(factory=dict)
    actor: str = ""
    time_us: int = 0

    def encode(self) -> bytes:
        """Its bytes in the stream."""
        fields = {
            "actor": self.actor,
            "data": dict(self.data),
            "time": self.time_us,
            "type": self.type,
        }
        return encode(["event", 1, fields, {}])


def decode_event(number: int, data: bytes) -> StreamEvent:
    """The event of a file of a stream. Raises `InvalidRecord`."""
    parts = decode(data, verified=True)
    if isinstance(parts, list) and len(parts) == 4 and parts[:2] == ["event", 1]:
        fields = parts[2]
        return StreamEvent(number, fields["type"], fields["data"], fields["actor"], fields["time"])
    raise InvalidRecord(
        "This file of a stream is no event.", type=None, id=None, field=None, reason="is no event"
    )


@base
class Sourced(Aggregate):
    """An aggregate whose state follows from its events: define `apply`, decorate the class with
    `@aggregate(..., event_sourced=True)`, and change it by `uow.emit`.
    """

    version: int = part(default=0)

    @classmethod
    def begin(cls: type[S], id: str) -> S:
        """The state before the first event. All other fields have defaults, or override this."""
        return cls(id=id)

    def apply(self: S, event: StreamEvent) -> S:
        """The state after an event; pure. Raise an error for one that cannot be."""
        raise NotImplementedError(f"{type(self).__name__} defines no `apply`.")


def next_event(
    value: Sourced,
    staged: Aggregate | None,
    type: str,
    data: Mapping[str, Any],
    actor: str,
    time_us: int,
) -> StreamEvent:
    """The event that comes next in the stream of an aggregate, whose newest state in the unit of
    work is `staged`. Raises `Invalid`.
    """
    check_sourced(value.__class__)
    _check_newest(value, staged)
    check_type_name(type)
    if not isinstance(data, Mapping):
        raise Invalid(f"What the event {type} says is a map of plain values, not {data!r}.")
    try:
        plain = plain_value(data)
    except Invalid as error:
        raise Invalid(f"What the event {type} says {error}.") from error
    return StreamEvent(value.version + 1, type, plain, actor, time_us)


def check_sourced(cls: type[Aggregate]) -> None:
    """Refuse a type whose state is not a fold of its events. Raises `Invalid`."""
    kind = type_of(cls)
    if not (kind.event_sourced and issubclass(cls, Sourced)):
        raise Invalid(
            f"The state of a {kind.name} does not follow from its events: save it. A type that is "
            "event-sourced is a class below `Sourced` with `@aggregate(..., event_sourced=True)`."
        )


def check_stated(type: AggregateType, id: str) -> None:
    """Refuse an aggregate whose state only its events change. Raises `Invalid`."""
    if type.event_sourced:
        raise Invalid(
            f"The state of {type.name} {id!r} is the fold of its events; change it by `uow.emit`. "
            "Nothing was stored."
        )


def _check_newest(value: Sourced, staged: Aggregate | None) -> None:
    """Refuse an event upon a state that the same unit of work has gone on from, or has removed: it
    would take the place of one that was recorded. Raises `Invalid`.
    """
    if staged is None and value.version:
        what = "was removed by this unit of work; begin it anew"
    elif isinstance(staged, Sourced) and staged.version != value.version:
        what = "has had another event since; go on from what that `emit` gave"
    else:
        return
    raise Invalid(f"{type_of(value.__class__).name} {value.id!r} {what}. Nothing was staged.")


def after(value: S, event: StreamEvent) -> S:
    """The state after an event, with its version counted on."""
    return value.apply(event).evolve(version=event.number, origin=value.origin)


def event_path(type: AggregateType, id: str, number: int) -> str:
    """Where an event lies."""
    return f"{stream_path(type, id)}/{number:0{_DIGITS}}"


def stream(reader: Reader, type: AggregateType, id: str) -> Iterator[StreamEvent]:
    """The events of an aggregate, oldest first."""
    snapshot = reader.snapshot(type.context)
    folder = stream_path(type, id)
    if snapshot.entry(folder) is None:
        return
    found = list(snapshot.entries(folder))
    contents = reader.core.objects.get_many([BlobId(entry.id) for _name, entry in found])
    for (name, _entry), (_id, _kind, data) in zip(found, contents, strict=True):
        yield decode_event(int(name), data)


def rebuild(reader: Reader, cls: type[S], id: str, *, version: int | None = None) -> S:
    """The aggregate as the fold of its events, up to a version where one is said.

    Raises `AggregateNotFound` for one without events, `Invalid` for a version before the first and
    a type that has none, and what `apply` raises.
    """
    check_sourced(cls)
    if version is not None and version < 1:
        raise Invalid(f"The first version of an aggregate is 1, not {version!r}.")
    type = type_of(cls)
    value = cls.begin(id)
    seen = False
    for event in stream(reader, type, id):
        if version is not None and event.number > version:
            break
        value = value.apply(event)
        seen = True
        number = event.number
    if not seen:
        raise not_found(type, id)
    return value.evolve(version=number)
