"""Use cases of the workspace that fronts share: aggregates as plain values, and their verbs.

Floor 8. Invariant: what is given here is text, numbers, lists and maps that JSON holds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cas.errors import Invalid
from cas.history.revision import when
from cas.workspace.codec import to_fields
from cas.workspace.events import DomainEvent
from cas.workspace.links import Link
from cas.workspace.memories import ARCHIVED
from cas.workspace.planning import Sprint
from cas.workspace.registry import Aggregate
from cas.workspace.strict import moment
from cas.workspace.subscriptions import DeadLetter, Saved
from cas.workspace.views import Reading, WorkspaceView
from cas.workspace.work import UnitOfWork
from cas.workspace.workspace import Workspace

SPRINT_VERBS = ("start", "review", "close", "cancel")
_HAPPENED = {
    "start": "sprint.started",
    "review": "sprint.reviewed",
    "close": "sprint.closed",
    "cancel": "sprint.cancelled",
}


def row_of(value: Aggregate) -> dict[str, Any]:
    """An aggregate as JSON holds it: id, and the fields as its record has them, but for times."""
    fields = {}
    for name, each in to_fields(value).items():
        known = getattr(value, name, None)
        if name != "id":
            fields[name] = when(each, exact=True) if isinstance(known, datetime) else plain(each)
    return {"id": value.id, "record": str(value.origin) if value.origin else None, "fields": fields}


def plain(value: Any) -> Any:
    """A value of a record as JSON holds it: bytes become hex digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value


def archived_count(view: WorkspaceView) -> int:
    """How many of the memories are archived: forgotten, and not yet removed."""
    found = view.memories.find(lambda memory: ARCHIVED in memory.tags, holding=ARCHIVED.encode())
    return sum(1 for _ in found)


def event_row(event: DomainEvent) -> dict[str, Any]:
    """An event as JSON holds it."""
    try:
        data = plain(dict(event.data))
    except Invalid:
        data = {"": event.body().hex()}
    return {
        "position": event.id,
        "type": event.type,
        "actor": event.actor,
        "time": when(event.time_us, exact=True),
        "headers": dict(event.headers),
        "data": data,
    }


def subscriptions(space: Workspace, name: str | None = None) -> list[Saved]:
    """The subscriptions whose positions are in the store of a workspace, or the one of this name.

    Raises `AggregateNotFound`.
    """
    saved = space.collection(Saved)
    return list(saved) if name is None else [saved.get(name)]


def dead_letters(space: Workspace, name: str) -> list[DeadLetter]:
    """What nobody could handle for a subscription, oldest first."""
    found = space.collection(DeadLetter).find(lambda letter: letter.subscription == name)
    return sorted(found, key=lambda letter: (letter.seq, letter.index))


def subscription_row(space: Workspace, saved: Saved) -> dict[str, Any]:
    """A subscription as JSON holds it. `behind`: entries of the store that it has not seen; None
    where it reads another store.
    """
    here = saved.source == space.store.id
    dead = len(dead_letters(space, saved.id))
    return {
        "name": saved.id,
        "source": saved.source,
        "position": str(saved.position),
        "behind": max(space.last_event().seq - saved.seq, 0) if here else None,
        "handled": saved.handled_count,
        "dead": dead,
    }


def letter_row(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as JSON holds it."""
    return {
        "id": letter.id,
        "position": f"{letter.seq}.{letter.index}",
        "type": letter.type,
        "attempts": letter.attempts,
        "error": letter.error,
    }


def time_of(text: str) -> datetime:
    """A time as somebody wrote it: RFC 3339, in UTC unless it names a zone. Raises `Invalid`."""
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise Invalid(f"{text!r} is no time; write one like 2026-10-01T12:30:00Z.") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def linked(space: Reading, text: str) -> Aggregate:
    """What a link that somebody wrote, TYPE:ID, names now. Raises `Invalid`, `AggregateNotFound`,
    `UnknownType`.
    """
    return space.resolve(Link.parse(text).loose)


def move_sprint(space: Workspace, id: str, verb: str, *, actor: str, now_us: int) -> Sprint:
    """Start, review, close or cancel a sprint, with the event that says so."""
    at = moment(now_us)

    def work(uow: UnitOfWork) -> Sprint:
        sprint = uow.sprints.get(id)
        verbs: dict[str, Callable[[], Sprint]] = {
            "start": lambda: sprint.start(at),
            "review": sprint.review,
            "close": lambda: sprint.close(at),
            "cancel": lambda: sprint.cancel(at),
        }
        moved = verbs[verb]()
        uow.sprints.save(moved)
        uow.event(_HAPPENED[verb], {"id": id}, about=moved)
        return moved

    return space.run(work, actor, f"sprint {id}: {verb}")
