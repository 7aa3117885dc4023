"""Receipts: what a model was shown, kept as aggregates, so that it can be shown again and proved.

Floor 7. Invariant: a receipt holds the whole request, a pinned link to each item with its score,
and the digest of the answer; replaying the request gives that digest, or says that it did not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cas.errors import Invalid, RefConflict
from cas.history.store import Store
from cas.limits import WORK_ATTEMPTS_MAX
from cas.model.objects import EntryKind, TreeEntry
from cas.recall.recalled import Recalled, Request, time_of
from cas.recall.score import Scoring
from cas.workspace.artifacts import Artifact
from cas.workspace.events import encode_event
from cas.workspace.layout import file_path
from cas.workspace.links import Link, new_id
from cas.workspace.memories import Memory
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate, type_named, type_of
from cas.workspace.work import UnitOfWork
from cas.workspace.workspace import Workspace


@aggregate("receipt", collection="receipts", context="recall")
class Receipt(Aggregate):
    """What one recall was asked and gave. `items` are in the order in which they were given."""

    query: str = part(searchable="text")
    agent: str = part(default="", searchable="keyword")
    at: datetime | None = part(default=None, searchable="time")
    seq: int = part(default=0, searchable="number")
    tokens: int = part(default=0, searchable="number")
    items: tuple[Link, ...] = part(default=(), searchable="keyword")
    scores: tuple[float, ...] = part(default=())
    left_out: tuple[str, ...] = part(default=())
    request: str = part(default="")
    digest: str = part(default="")


def receipt_of(recalled: Recalled, id: str, at: datetime) -> Receipt:
    """The receipt of an answer."""
    return Receipt(
        id=id,
        query=recalled.request.query,
        agent=recalled.request.agent or "",
        at=at,
        seq=recalled.seq,
        tokens=recalled.tokens,
        items=tuple(item.link for item in recalled.items),
        scores=tuple(item.score for item in recalled.items),
        left_out=tuple(f"{each.reason} {each.link}" for each in recalled.left_out),
        request=json.dumps(recalled.request.plain),
        digest=recalled.digest,
    )


def request_of(receipt: Receipt) -> Request:
    """The request of a receipt. Raises `Invalid` for one that is not whole."""
    try:
        plain: list[Any] = json.loads(receipt.request)
        query, agent, budget, seq, types, pinned, where, archived, untrusted, margin = plain[:10]
        model, scoring = plain[10:]
        return Request(
            *(query, agent, budget, seq, tuple(types), tuple(pinned)),
            *(where, archived, untrusted, margin, model, Scoring.of_plain(scoring)),
        )
    except (ValueError, TypeError) as error:
        if isinstance(error, Invalid):
            raise
        raise Invalid(f"The receipt {receipt.id!r} holds no request that can be read.") from error


def save(store: Store, branch: str, recalled: Recalled, author: str) -> Link:
    """Keep the receipt of an answer, as one entry; the link to it. Raises `RefNotFound`."""
    clock = store.objects.clock
    receipt = receipt_of(recalled, new_id(clock), time_of(clock.wall_us()))
    write(store, branch, author=author, message="recall", made=(receipt,))
    return receipt.link


Change = tuple[Link, Aggregate | None]
"""A link that is pinned to a version, and what becomes of that; None: it is removed."""
Told = Callable[[Sequence[Link]], tuple[str, Mapping[str, Any]] | None]
"""Of what was changed the type of an event, and what is said in it. Raises to leave all alone."""


def write(
    store: Store,
    branch: str,
    *,
    author: str,
    message: str,
    made: Sequence[Aggregate] = (),
    changes: Sequence[Change] = (),
    told: Told | None = None,
) -> tuple[int | None, frozenset[Link]]:
    """Save new aggregates and change others, as one entry: its number, None where there was nothing
    to do, and what was changed. What has another version than its link is left alone, whoever
    commits first.

    Raises `RefNotFound` for a branch that nobody made, `LimitExceeded`, what `told` raises.
    """
    space = Workspace(store, branch=branch)
    tried = 0
    while True:
        tried += 1
        with space.unit_of_work(author, message) as uow:
            for value in made:
                uow.add_fresh(value)
            done = frozenset(link for link, value in changes if _change(uow, link, value))
            event = None if told is None else told([link for link, _ in changes if link in done])
            if not made and not done:
                return None, done
            if event is not None:
                context = type_of(Memory).context
                uow.transaction.event(event[0], *encode_event(*event, None, context, {}))
            try:
                return uow.commit().seq, done
            except RefConflict:
                # What was compared has changed: look again.
                if tried >= WORK_ATTEMPTS_MAX:
                    raise


def _change(uow: UnitOfWork, link: Link, value: Aggregate | None) -> bool:
    """Stage a change, if the version is still that of the link."""
    type = type_named(link.type)
    edit = uow.edit(type.context)
    # Nothing is merged: what others change meanwhile is another version.
    edit.settle = None
    now = uow.find_one(type.cls, link.id)
    if now is None or now.origin != link.pin:
        return False
    if value is None:
        uow.remove(now)
        return True
    if isinstance(value, Artifact):
        # As an older record says, its file is again.
        file = edit.entry(file_path(value.id))
        kind = EntryKind.FILE if file is None else file.kind
        edit.put_entry(file_path(value.id), TreeEntry(kind, value.content, value.size_bytes))
    uow.save(value.evolve(origin=link.pin))
    return True
