"""Domain events: values in the journal entry of the commit that made them true.

Floor 6. An event's body is the canonical CBOR of a map of plain values; its headers say the
context, the aggregate it is about, what caused it and which conversation it belongs to. Invariant:
an event exists if and only if the commit that recorded it stands; its position, (entry, place in
it), never changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from attrs import field, frozen

from cas.errors import Invalid, NotCanonical
from cas.history.core import Core
from cas.model.encoding import decode, encode
from cas.model.entry import Entry, Event
from cas.model.ids import Kind
from cas.workspace.links import Link
from cas.workspace.strict import plain_value

ABOUT: Final = "about"
CONTEXT: Final = "context"
CAUSE: Final = "cause"
CORRELATION: Final = "correlation"
CARRIED_FROM: Final = "carried-from"
"""STORE/POSITION of an event that was carried here from another store."""
CARRIED_BY: Final = "carried-by"

_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_POSITION: Final = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?")


@frozen(order=True)
class Position:
    """A place in the log: after the event `index` of entry `seq`, all of entry `seq` for -1."""

    seq: int = 0
    index: int = -1

    def __str__(self) -> str:
        return f"{self.seq}" if self.index < 0 else f"{self.seq}.{self.index}"

    def covers(self, other: Position) -> bool:
        """Whether the event at `other` is not behind this position."""
        if self.seq != other.seq:
            return other.seq < self.seq
        return self.index < 0 or other.index <= self.index

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that `SEQ` or `SEQ.INDEX` stands for. Raises `Invalid`."""
        found = _POSITION.fullmatch(text)
        if found is None:
            raise Invalid(f"A position is SEQ or SEQ.INDEX, as in 17.0, not {text!r}.")
        return cls(int(found[1]), -1 if found[2] is None else int(found[2]))


@frozen
class DomainEvent:
    """An event as it was recorded: where, by whom, when, and what it says."""

    type: str
    position: Position
    actor: str
    time_us: int
    headers: Mapping[str, str] = field(repr=False)
    body: Callable[[], bytes] = field(repr=False, eq=False)

    @property
    def id(self) -> str:
        """Its position in text, by which it is named as a cause."""
        return str(self.position)

    @property
    def data(self) -> Mapping[str, Any]:
        """What it says. Raises `Invalid` for an event that holds something else than a map."""
        body = self.body()
        if not body:
            return {}
        try:
            value = decode(body, verified=True)
        except NotCanonical as error:
            raise Invalid(
                f"The event {self.id} ({self.type}) holds bytes of its own; read them with "
                "`event.body()`."
            ) from error
        return value if isinstance(value, dict) else {"": value}

    @property
    def about(self) -> Link | None:
        """The aggregate that it is about."""
        text = self.headers.get(ABOUT)
        return None if text is None else Link.parse(text)

    @property
    def context(self) -> str:
        """The bounded context that it belongs to; empty when it says none."""
        return self.headers.get(CONTEXT, "")

    @property
    def cause(self) -> str | None:
        """The id of the event that caused it."""
        return self.headers.get(CAUSE)

    @property
    def correlation(self) -> str | None:
        """The id of the conversation that it belongs to."""
        return self.headers.get(CORRELATION)

    @property
    def carried_from(self) -> str | None:
        """STORE/POSITION of the event in the store that it was carried from; None: it is of here.

        Its cause is a position in that store.
        """
        return self.headers.get(CARRIED_FROM)


def check_type_name(type: str) -> str:
    """`type` itself when an event may be of it. Raises `Invalid`."""
    if not isinstance(type, str) or not _TYPE.fullmatch(type):
        raise Invalid(
            f"{type!r} is no type of event: letters, digits, dots, - and _, at most 128, beginning "
            "with a letter, as in sprint.closed."
        )
    return type


def encode_event(
    type: str,
    data: Mapping[str, Any],
    about: Link | None,
    context: str,
    headers: Mapping[str, str],
) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of an event. Raises `Invalid` for what cannot be recorded."""
    check_type_name(type)
    if not isinstance(data, Mapping):
        raise Invalid(f"What an event says is a map of plain values, not {data!r}.")
    try:
        plain = plain_value(data)
    except Invalid as error:
        raise Invalid(f"What the event {type} says {error}.") from error
    every = dict(headers)
    if about is not None:
        every[ABOUT] = str(about)
    if context:
        every[CONTEXT] = context
    return (encode(plain) if plain else b""), every


def _body_of(core: Core, event: Event) -> Callable[[], bytes]:
    body, blob = event.body, event.blob
    if body is not None:
        return lambda: body
    assert blob is not None
    return lambda: core.objects.get(blob, Kind.BLOB)


def read_events(
    core: Core,
    entries: Iterator[Entry],
    after: Position,
    types: Collection[str] | None = None,
) -> Iterator[DomainEvent]:
    """The events of entries behind a position, those of these types where any are said.

    A type that ends in `.*` stands for all that begin with what is before it.
    """
    wanted = None if types is None else type_filter(types)
    for entry in entries:
        events, seq = entry.events, entry.seq
        if not events:
            continue
        actor, time_us = entry.actor, entry.time_us
        skip = after.index if seq == after.seq else -1
        for index, event in enumerate(events):
            if index > skip and (wanted is None or wanted(event.type)):
                yield DomainEvent(
                    event.type,
                    Position(seq, index),
                    actor,
                    time_us,
                    event.headers,
                    _body_of(core, event),
                )


def type_filter(types: Collection[str] | None) -> Callable[[str], bool]:
    """Whether a type of event is wanted. Raises `Invalid` for what is no collection of types."""
    if types is None:
        return lambda _type: True
    if isinstance(types, str):
        raise Invalid(f"`types` is a collection of types, as in [{types!r}].")
    exact = frozenset(types)
    for each in exact:
        if not isinstance(each, str) or "*" in each.removesuffix(".*"):
            raise Invalid(
                f"{each!r} is neither a type of event nor all that begin with one, as sprint.* is; "
                "leave out `types` for all events."
            )
    prefixes = tuple(each[:-1] for each in exact if each.endswith(".*"))
    return lambda type: type in exact or (bool(prefixes) and type.startswith(prefixes))
