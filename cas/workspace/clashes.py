"""Conflicts of aggregates as values: kept beside what they are about, listed, settled later.

Floor 6. Invariant: a conflict that is kept holds what every side had in each field that no rule
could merge; the aggregate itself holds all that could be, and in those fields what stood before.
A conflict goes only when somebody settles it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from cas.errors import AggregateConflict, Invalid
from cas.workspace.links import Link
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, AggregateType, Fields, aggregate
from cas.workspace.rules import FieldClash

Take = Literal["current", "incoming", "base"]
"""A side of a conflict."""


@aggregate("conflict", collection="open_conflicts", context="workspace", path_ids=True)
class OpenConflict(Aggregate):
    """Fields of an aggregate that two sides changed, each in its way.

    `about` is the aggregate. `incoming` came from `actor`; `removed` says which side removed the
    aggregate as a whole, if one did: then the fields are those of the other side.
    """

    about: Link = part()
    clashes: tuple[FieldClash, ...] = part(rule="append")
    actor: str = part(default="")
    at: datetime | None = part(default=None)
    removed: str = part(default="")

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that clash."""
        return tuple(dict.fromkeys(each.field for each in self.clashes))

    def taking(self, side: Take) -> Fields:
        """The clashing fields as one side had them, the latest clash of each."""
        if side not in ("current", "incoming", "base"):
            raise Invalid(f"A side is current, incoming or base, not {side!r}.")
        return {each.field: getattr(each, side) for each in self.clashes}


def conflict_error(
    type: AggregateType, id: str, clashes: tuple[FieldClash, ...], removed: str = ""
) -> AggregateConflict:
    """The error for an aggregate that two sides changed and no rule merges."""
    if removed:
        what = f"was removed by the {removed} side and changed by the other"
    elif clashes:
        named = ", ".join(each.field for each in clashes)
        what = f"was changed by another unit of work in the same fields ({named})"
    else:
        what = "was changed by another unit of work, and no rule merges the two"
    look = "Look at `conflicts`, and do" if clashes or removed else "Do"
    keep = ", or commit with on_conflict='keep'" if clashes or removed else ""
    return AggregateConflict(
        f"The {type.name} {id!r} {what}; nothing was committed. {look} the work again from the "
        f"new state{keep}.",
        type=type.name,
        id=id,
        conflicts=clashes,
        removed=removed,
    )


def shape_error(type: AggregateType, id: str) -> AggregateConflict:
    """The error for an id that is a name on one side and a folder of ids on the other."""
    return AggregateConflict(
        f"The {type.name} {id!r} stands on one side, and others in a folder of this name on the "
        "other; nothing was committed. Remove what is in the way, or choose another name.",
        type=type.name,
        id=id,
        conflicts=(),
        removed="",
    )


def read_changed(type: AggregateType, id: str) -> AggregateConflict:
    """The error for an aggregate that a unit of work rested on and others changed."""
    return AggregateConflict(
        f"The {type.name} {id!r}, which this unit of work has read, was changed meanwhile; nothing "
        "was committed. Do the work again from the new state; `space.run` does that by itself.",
        type=type.name,
        id=id,
        conflicts=(),
        removed="",
    )
