"""Types of aggregates: declared by a decorator, found by name, collection or class.

Floor 6. Invariant: a type's name, version and collection never change their meaning: a record
says the name and version that it was written with, and every older version has a way up to the
newest. The registry of a program is filled when its classes are defined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self, TypeVar, cast, dataclass_transform

import attrs
from attrs import field, frozen

from cas.errors import Invalid, InvalidRecord, UnknownType
from cas.model.ids import BlobId
from cas.model.names import HEADS, check_ref_name
from cas.workspace.links import Link, check_id
from cas.workspace.parts import Rule, Searchable, Unknown, part, rule_of, searchable_of

Fields = dict[str, Any]
"""The fields of a record, by name, as plain values."""
Upcaster = Callable[[Fields], Fields]
"""Makes the fields of the next version of those of one version."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED: Final = ("files", "sites")
A = TypeVar("A")
KEPT: Final = "unknown"
ORIGIN: Final = "origin"
"""The attribute that holds fields of which the type knows nothing."""


def own_id(instance: Any, _attribute: Any, value: object) -> None:
    """The validator of `id`: a type that declares its id anew names it again."""
    found = _BY_CLASS.get(type(instance))
    check_id(value, path=found is not None and found.path_ids)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(part, field))
def base(cls: type[A]) -> type[A]:
    """Make a class that types stand on, and that is none itself."""
    return attrs.frozen(kw_only=True)(cls)


@base
class Aggregate:
    """What every aggregate is: a frozen value with an id, which is its identity in its type.

    `unknown` holds fields that a newer program wrote and this one does not know; they are
    written back as they were. `origin` is the record that the value was read from, and stays with
    what `evolve` makes of it, so that saving an old value is a merge and loses nothing; it is no
    part of the value.
    """

    id: str = part(validator=own_id)
    unknown: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    origin: BlobId | None = field(default=None, repr=False, eq=False)

    @property
    def link(self) -> Link:
        """A link to this aggregate, whatever version it will have."""
        return Link(type_of(type(self)).name, self.id)

    def evolve(self, **changes: Any) -> Self:
        """A copy in which these fields are changed."""
        made: Self = attrs.evolve(cast("Any", self), **changes)
        return made


@frozen
class AggregateType:
    """What the registry knows of a type."""

    name: str
    version: int
    cls: type[Aggregate]
    collection: str
    context: str
    unknown: Unknown
    path_ids: bool
    event_sourced: bool
    upcasters: Mapping[int, Upcaster]
    fields: Mapping[str, attrs.Attribute[Any]]

    @property
    def rules(self) -> Mapping[str, Rule]:
        """The merge rule of each field, the id left out."""
        return {name: rule_of(each) for name, each in self.fields.items() if name != "id"}

    @property
    def sums(self) -> bool:
        """Whether two equal edits are two edits: a counter counts both, a list keeps both."""
        return any(rule in ("counter", "append") for rule in self.rules.values())

    @property
    def searchable(self) -> Mapping[str, Searchable]:
        """What a search may do with each field; those of which it may do nothing are left out."""
        found = ((name, searchable_of(each)) for name, each in self.fields.items())
        return {name: how for name, how in found if how is not None}


_BY_NAME: Final[dict[str, AggregateType]] = {}
_BY_COLLECTION: Final[dict[str, AggregateType]] = {}
_BY_CLASS: Final[dict[type, AggregateType]] = {}

T = TypeVar("T", bound=Aggregate)


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(part, attrs.field)
)
def aggregate(
    name: str,
    *,
    version: int = 1,
    collection: str | None = None,
    context: str | None = None,
    unknown: Unknown = "keep",
    path_ids: bool = False,
    event_sourced: bool = False,
    upcasters: Mapping[int, Upcaster] | None = None,
) -> Callable[[type[T]], type[T]]:
    """Make a class below `Aggregate` a frozen attrs class and a type that a workspace stores.

    `collection` is the name of its collection and folder (the name and an "s" unless said),
    `context` the bounded context that it belongs to (its collection unless said). `upcasters`
    has, for each older version, a function from its fields to those of the next one. With
    `path_ids` ids are paths; with `event_sourced` the state is a fold of its events.

    Raises `Invalid` for a name that is taken or none, and for a missing upcaster.
    """

    def declare(cls: type[T]) -> type[T]:
        if not isinstance(cls, type) or not issubclass(cls, Aggregate):
            raise Invalid(f"An aggregate is a class below `Aggregate`; {cls!r} is none.")
        made: type[T] = attrs.frozen(kw_only=True)(cls)
        folder = collection or f"{name}s"
        fields = {
            each.name: each
            for each in attrs.fields(cast("Any", made))
            if each.name not in (KEPT, ORIGIN)
        }
        found = AggregateType(
            name,
            version,
            made,
            folder,
            context or folder,
            unknown,
            path_ids,
            event_sourced,
            dict(upcasters or {}),
            fields,
        )
        _check(found)
        register(found)
        return made

    return declare


def _check(type: AggregateType) -> None:
    for what, name in (("type", type.name), ("collection", type.collection)):
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"{name!r} cannot name a {what}: small letters, digits and _, at most 63, "
                "beginning with a letter."
            )
    if "/" in type.context:
        raise Invalid(f"{type.context!r} cannot name a context: it is one name, without a slash.")
    check_ref_name(f"{HEADS}{type.context}/x")
    if type.collection in _RESERVED:
        raise Invalid(f"The collection {type.collection!r} is the workspace's own; name another.")
    if type.unknown not in ("keep", "refuse"):
        raise Invalid(f"`unknown` is keep or refuse, not {type.unknown!r}.")
    if not isinstance(type.version, int) or type.version < 1:
        raise Invalid(f"A schema version is a number from 1 on, not {type.version!r}.")
    missing = set(range(1, type.version)) ^ type.upcasters.keys()
    if missing:
        raise Invalid(
            f"Type {type.name!r} has version {type.version} and needs one upcaster from each "
            f"version before; look at {', '.join(map(str, sorted(missing)))}."
        )


def register(type: AggregateType) -> None:
    """Enter a type. One of the same module and class name takes the place of the older, as a
    reload does; any other that has the name or the collection is `Invalid`.
    """
    for known in (_BY_NAME.get(type.name), _BY_COLLECTION.get(type.collection)):
        if known is not None and _where(known) != _where(type):
            raise Invalid(
                f"The type {type.name!r} (collection {type.collection!r}) clashes with "
                f"{_where(known)}, which has the name {known.name!r} (collection "
                f"{known.collection!r})."
            )
    _BY_NAME[type.name] = _BY_COLLECTION[type.collection] = _BY_CLASS[type.cls] = type


def _where(type: AggregateType) -> str:
    return f"{type.cls.__module__}.{type.cls.__qualname__}"


def types() -> Iterator[AggregateType]:
    """All types that this program knows, by name."""
    return iter([_BY_NAME[name] for name in sorted(_BY_NAME)])


def type_of(cls: type[Aggregate]) -> AggregateType:
    """The type that a class is. Raises `UnknownType`."""
    found = _BY_CLASS.get(cls)
    if found is None:
        name = getattr(cls, "__qualname__", None) or repr(cls)
        raise UnknownType(
            f"{name} is no type of aggregate: name a class, decorated with `@aggregate(...)`.",
            type=name,
        )
    return found


def type_named(name: str) -> AggregateType:
    """The type of this name. Raises `UnknownType`."""
    found = _BY_NAME.get(name)
    if found is None:
        raise UnknownType(
            f"This program knows no type {name!r}; import the module that declares it. It knows "
            f"{', '.join(sorted(_BY_NAME))}.",
            type=name,
        )
    return found


def type_in(collection: str) -> AggregateType | None:
    """The type whose aggregates lie in this collection; None where this program knows none."""
    return _BY_COLLECTION.get(collection)


def not_valid(type: str, id: str | None, name: str, reason: str) -> InvalidRecord:
    """The error for a field that is not as its type says."""
    who = f"{type} {id!r}" if id else f"a {type}"
    return InvalidRecord(
        f"The field {name!r} of {who} {reason}. Nothing was stored.",
        type=type,
        id=id,
        field=name,
        reason=reason,
    )
