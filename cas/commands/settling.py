"""Use cases of conflicts that were kept: both sides as plain values, and settling one.

Floor 8. Invariant: what is settled is settled in one unit of work with the event that says so, and
only if the conflict is still there; what a person typed for a field is held to its type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cas.commands.workspace import plain, row_of
from cas.errors import AggregateNotFound, Invalid
from cas.model.ids import BlobId
from cas.model.names import printable, quoted
from cas.objects.content import Readable
from cas.workspace.artifacts import Artifact
from cas.workspace.clashes import OpenConflict, Take
from cas.workspace.codec import from_fields, to_fields
from cas.workspace.registry import Aggregate, AggregateType, type_named
from cas.workspace.workspace import Workspace


def find_conflict(space: Workspace, name: str) -> OpenConflict:
    """The open conflict of this id, of a beginning of it, or about TYPE:ID.

    Raises `AggregateNotFound`, and `Invalid` where several are meant.
    """
    every = list(space.conflicts())
    found = [each for each in every if name in (each.id, str(each.about.loose))]
    found = found or [each for each in every if each.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise AggregateNotFound(
            f"There is no open conflict {quoted(name)}; `cas workspace conflicts` lists them.",
            type="conflict",
            id=name,
        )
    several = ", ".join(printable(each.id) for each in found)
    raise Invalid(f"{quoted(name)} may be any of {several}; give one whole.")


def conflict_row(space: Workspace, conflict: OpenConflict) -> dict[str, Any]:
    """A conflict as JSON holds it: each side of each field, and what the aggregate is now."""
    now = _now(space, conflict)
    return {
        **row_of(conflict),
        "about": str(conflict.about),
        "clashes": [
            {
                "field": each.field,
                "base": plain(each.base),
                "current": plain(each.current),
                "incoming": plain(each.incoming),
            }
            for each in conflict.clashes
        ],
        "now": None if now is None else row_of(now),
    }


def _now(space: Workspace, conflict: OpenConflict) -> Aggregate | None:
    type = type_named(conflict.about.type)
    return space.collection(type.cls).find_one(conflict.about.id)


def settle(
    space: Workspace,
    name: str,
    actor: str,
    *,
    take: Take | None = None,
    values: Mapping[str, str] | None = None,
    content: bytes | Readable | None = None,
) -> Aggregate | None:
    """Settle a conflict: fields as one side had them, then those of `values`, as they were typed,
    then the content of an artifact. Gives what the aggregate is now; None: it is removed.

    Raises `AggregateNotFound`, `Invalid`, `InvalidRecord`, and what a commit raises.
    """
    if take is None and not values and content is None:
        raise Invalid("Say how it is settled: by a side, by values of fields, or by content.")
    conflict = find_conflict(space, name)
    type = type_named(conflict.about.type)
    with space.unit_of_work(actor, f"settle {conflict.about}"[:200]) as uow:
        current = uow.find_one(type.cls, conflict.about.id)
        said = {} if not values else _typed(type, conflict, current, values)
        if content is not None:
            if type.cls is not Artifact:
                raise Invalid(f"Only an artifact has content, and {conflict.about} is none.")
            said["content"] = BlobId(uow.transaction.put(content))
        made = uow.settle(conflict, take=take or "current", values=said or None)
        how = {"id": conflict.id, "take": take or "", "fields": sorted(said)}
        about = conflict.about.loose
        uow.event("conflict.settled", how, about=about, context=type.context)
        uow.commit()
    return None if made is None else space.collection(type.cls).find_one(about.id)


def _typed(
    type: AggregateType, conflict: OpenConflict, current: Aggregate | None, typed: Mapping[str, str]
) -> dict[str, Any]:
    """Values of fields out of what was typed. Raises `Invalid`, `InvalidRecord`."""
    if current is None:
        raise AggregateNotFound(
            f"{conflict.about} is gone; settle the conflict by a side.",
            type=conflict.about.type,
            id=conflict.about.id,
        )
    fields = to_fields(current)
    for name, text in typed.items():
        if name not in fields or name == "id":
            every = ", ".join(sorted(fields.keys() - {"id"}))
            raise Invalid(f"{conflict.about} has no field {name!r} to be set; it has {every}.")
        fields = {**fields, name: _value(type, conflict, name, fields[name], text)}
    made = from_fields(type, fields)
    return {name: getattr(made, name) for name in typed}


def _value(type: AggregateType, conflict: OpenConflict, name: str, old: Any, text: str) -> Any:
    """A value as records hold it: text as it stands where a side has text, else JSON."""
    sides = [side for each in conflict.clashes if each.field == name for side in _sides(each)]
    if any(isinstance(each, str) for each in (old, *sides)):
        return text
    if type.searchable.get(name) == "time":
        return _time(name, text)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sides(clash: Any) -> tuple[Any, ...]:
    return clash.base, clash.current, clash.incoming


def _time(name: str, text: str) -> int | None:
    if text == "null":
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(f"{name} is a time, as 2026-10-01T12:00:00Z, not {text!r}.") from error
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return int(time.timestamp() * 1_000_000)


def fields_of(typed: tuple[str, ...]) -> dict[str, str]:
    """FIELD=VALUE, taken apart. Raises `Invalid`."""
    found = {}
    for each in typed:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise Invalid(f"{each!r} is no FIELD=VALUE.")
        found[name] = value
    return found
