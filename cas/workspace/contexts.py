"""Bounded contexts: what is declared of each, and what one sees of another.

Floor 6. A declaration is an aggregate in the context `workspace`. Invariant: a unit of work
writes into a declared context only types that it has, within its limits (`quotas`); a context reads
its own aggregates, and of others the events that they publish. A context that nobody declared takes
every type that names it.

What it keeps of its history is declared here, and done by the policy of the store in which it lives
(`declaring` keeps both in step).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from cas.errors import Invalid, LimitExceeded, NotAllowed
from cas.history.retention import COUNTS, KeepRule, Span
from cas.history.view import View
from cas.model.names import HEADS
from cas.workspace.events import DomainEvent, check_type_name, type_filter
from cas.workspace.layout import MAIN, context_branch
from cas.workspace.parts import part
from cas.workspace.reading import Collection, Reader
from cas.workspace.registry import Aggregate, AggregateType, aggregate, not_valid, own_id

HOME = "workspace"
"""The context in which the workspace keeps what it is itself."""


@frozen
class Keep:
    """What stays of the history of a context: commits (`last`), the newest one of each of so many
    hours, days, weeks, months and years, and what is no older than `within` (such as `30d`) than
    the newest. -1 is without end.

    What no rule asks for gives up its content when `cas retain` or `cas maintain` does what the
    store's policy says; its record stays. Raises `Invalid` for a rule that keeps nothing.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""

    def __attrs_post_init__(self) -> None:
        self.rule("")

    def __str__(self) -> str:
        return str(self.rule(""))

    def rule(self, context: str) -> KeepRule:
        """The rule that a store's policy holds for it."""
        if not isinstance(self.within, str):
            raise Invalid(f"`within` is a duration such as 30d, not {self.within!r}.")
        span = Span.parse(self.within) if self.within else None
        counts = {name: getattr(self, name) for name in COUNTS}
        return KeepRule(branches_of(context), within=span, **counts)


def branches_of(context: str) -> str:
    """The pattern of the branches of a context, as rules of a store have it."""
    return f"{HEADS}{context}/*"


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
    types of events that other contexts see (`sprint.*` stands for all that begin so).

    Limits: `record_bytes_max` is how long a record may be, `artifact_bytes_max` the content of an
    artifact; `aggregate_count_max` how many aggregates each of its branches has, `total_bytes_max`
    how long their records, contents and events are together. `retention` is what stays of its
    history; None: all.

    `place` is the address of the store in which it lives, where that is another one: a URL, or a
    path, which begins beside the store that declares it unless it is absolute. `store_id` is the
    id of that store, filled in by `declare`.
    """

    id: str = part(validator=[own_id, _branches])
    description: str = part(default="", rule="text")
    types: frozenset[str] = part(default=frozenset(), rule="union")
    publishes: frozenset[str] = part(default=frozenset(), rule="union", validator=_patterns)
    record_bytes_max: int | None = part(default=None, validator=_positive)
    artifact_bytes_max: int | None = part(default=None, validator=_positive)
    aggregate_count_max: int | None = part(default=None, validator=_positive)
    total_bytes_max: int | None = part(default=None, validator=_positive)
    retention: Keep | None = part(default=None)
    place: str = part(default="")
    store_id: str = part(default="")

    def check_type(self, type: AggregateType) -> None:
        """Refuse a type that this context does not hold. Raises `NotAllowed`."""
        if self.types and type.name not in self.types:
            raise NotAllowed(
                f"The context {self.id!r} does not hold {type.name}; it holds "
                f"{', '.join(sorted(self.types))}. Declare it with the type, or save it elsewhere."
            )

    def check_record(self, type: AggregateType, id: str, size_bytes: int) -> None:
        """Refuse a record that is longer than this context allows. Raises `LimitExceeded`."""
        self._check("record_bytes_max", size_bytes, f"the record of {type.name} {id!r}")

    def check_content(self, name: str, size_bytes: int) -> None:
        """Refuse the content of an artifact that is longer than this context allows. Raises
        `LimitExceeded`.
        """
        self._check("artifact_bytes_max", size_bytes, f"the content of artifact {name!r}")

    def _check(self, limit: str, size_bytes: int, what: str) -> None:
        maximum = getattr(self, limit)
        if maximum is not None and size_bytes > maximum:
            raise self.too_much(limit, size_bytes, f"{what} has {size_bytes} bytes")

    def too_much(self, limit: str, value: int, what: str) -> LimitExceeded:
        """The error for what would be over a limit that this context declares."""
        maximum: int = getattr(self, limit)
        option, instead = LIMITS[limit]
        return LimitExceeded(
            f"{what[0].upper()}{what[1:]}; the context {self.id!r} allows {maximum} ({limit}). "
            f"Nothing of it was stored. {instead}, or raise the limit: `cas workspace context "
            f"{self.id} {option} N`.",
            limit=limit,
            value=value,
            maximum=maximum,
        )


_FEWER = "Remove what is no longer needed (its history stays)"
LIMITS: Final = {
    "record_bytes_max": ("--record-max", "Keep long content as an artifact and link it"),
    "artifact_bytes_max": ("--artifact-max", "Keep it in another context, or in parts"),
    "aggregate_count_max": ("--count-max", _FEWER),
    "total_bytes_max": ("--total-max", _FEWER),
}
"""Limit -> the option that sets it, and what else to do."""


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
