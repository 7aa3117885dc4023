"""Bounded contexts: what is declared of each, and what one sees of another.

Floor 6. A declaration is an aggregate in the context `workspace`. Invariant: a unit of work
writes into a declared context only types that it has, within its limits; a context reads its own
aggregates, and of others the events that they publish. A context that nobody declared takes every
type that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cas.errors import LimitExceeded, NotAllowed
from cas.history.view import View
from cas.model.names import HEADS
from cas.workspace.events import DomainEvent, check_type_name, type_filter
from cas.workspace.layout import MAIN, context_branch
from cas.workspace.parts import part
from cas.workspace.reading import Collection, Reader
from cas.workspace.registry import Aggregate, AggregateType, aggregate, not_valid

HOME = "workspace"
"""The context in which the workspace keeps what it is itself."""


def _positive(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise not_valid("context", instance.id, attribute.name, "is a number from 1 on")


def _patterns(instance: Any, attribute: Any, value: Any) -> None:
    for each in value:
        if isinstance(each, str):
            check_type_name(each.removesuffix(".*"))


def _branches(instance: Any, _attribute: Any, value: Any) -> None:
    if isinstance(value, str):
        context_branch(value)


@aggregate("context", context=HOME)
class Context(Aggregate):
    """A bounded context. Its id is its name, which its branches begin with.

    `types` are the names of the types that it holds (empty: each that names it), `publishes` the
    types of events that other contexts see (`sprint.*` stands for all that begin so),
    `record_bytes_max` how long a record may be. `place` is the address of the store in which it
    lives, where that is another one: a URL, or a path, which begins beside the store that declares
    it unless it is absolute. `store_id` is the id of that store, filled in by `declare`.
    """

    id: str = part(validator=_branches)
    description: str = part(default="", rule="text")
    types: frozenset[str] = part(default=frozenset(), rule="union")
    publishes: frozenset[str] = part(default=frozenset(), rule="union", validator=_patterns)
    record_bytes_max: int | None = part(default=None, validator=_positive)
    place: str = part(default="")
    store_id: str = part(default="")

    def check_type(self, type: AggregateType) -> None:
        """Refuse a type that this context does not hold. Raises `NotAllowed`."""
        if self.types and type.name not in self.types:
            raise NotAllowed(
                f"The context {self.id!r} does not hold {type.name}; it holds "
                f"{', '.join(sorted(self.types))}. Declare it with the type, or save it elsewhere."
            )

    def check_bytes(self, type: AggregateType, id: str, size_bytes: int) -> None:
        """Refuse a record that is longer than this context allows. Raises `LimitExceeded`."""
        if self.record_bytes_max is not None and size_bytes > self.record_bytes_max:
            raise LimitExceeded(
                f"The record of {type.name} {id!r} has {size_bytes} bytes; the context "
                f"{self.id!r} allows {self.record_bytes_max}.",
                limit="record_bytes_max",
                value=size_bytes,
                maximum=self.record_bytes_max,
            )


class Declared:
    """The declarations of a store, read again when they have changed. Thread-safe: it only ever
    swaps whole values.
    """

    def __init__(self) -> None:
        self._known: tuple[int, object, dict[str, Context]] = (-1, None, {})

    def now(self, reader: Reader) -> dict[str, Context]:
        """The declared contexts as of a reader, by name."""
        seq, known, contexts = self._known
        if seq == reader.seq:
            return contexts
        target = _home(reader.view)
        if known != target:
            main = Reader(reader.core, reader.view, MAIN)
            contexts = {each.id: each for each in Collection(main, Context)}
        self._known = (reader.seq, target, contexts)
        return contexts


def _home(view: View) -> object:
    ref = view.ref(HEADS + context_branch(HOME))
    return None if ref is None else ref.target


def visible(
    events: Iterator[DomainEvent], context: str, declared: Mapping[str, Context]
) -> Iterator[DomainEvent]:
    """Those of the events that a context sees: its own, and what others publish."""
    filters = {name: type_filter(each.publishes) for name, each in declared.items()}
    for event in events:
        if event.context == context:
            yield event
        else:
            published = filters.get(event.context)
            if published is not None and published(event.type):
                yield event
