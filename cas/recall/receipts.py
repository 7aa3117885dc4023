"""Receipts: what a model was shown, kept as aggregates, so that it can be shown again and proved.

Floor 7. Invariant: a receipt holds the whole request, a pinned link to each item with its score,
and the digest of the answer; replaying the request gives that digest, or says that it did not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cas.errors import Invalid
from cas.history.store import Store
from cas.model.objects import EntryKind, TreeEntry
from cas.recall.recalled import Recalled, Request, time_of
from cas.recall.score import Scoring
from cas.workspace.artifacts import Artifact
from cas.workspace.codec import to_record
from cas.workspace.events import encode_event
from cas.workspace.layout import context_branch, file_path, record_path
from cas.workspace.links import Link, new_id
from cas.workspace.memories import Memory
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate, type_named, type_of


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
    """Keep the receipt of an answer, as one entry; the link to it."""
    clock = store.objects.clock
    receipt = receipt_of(recalled, new_id(clock), time_of(clock.wall_us()))
    write(store, branch, (receipt,), author=author, message="recall")
    return receipt.link


def write(
    store: Store,
    branch: str,
    values: Sequence[Aggregate],
    *,
    author: str,
    message: str,
    gone: Sequence[Link] = (),
    told: tuple[str, Mapping[str, Any]] | None = None,
) -> int:
    """Save aggregates, and remove others, as one entry; its number. `told` is the type and what
    is said of an event in it.
    """
    with store.begin(author=author, message=message) as tx:
        for value in values:
            type = type_of(value.__class__)
            place = tx.branch(context_branch(type.context, branch))
            place[record_path(type, value.id)] = to_record(value)
            if isinstance(value, Artifact):
                # As an older record says, its file is again.
                file = place.entry(file_path(value.id))
                kind = EntryKind.FILE if file is None else file.kind
                entry = TreeEntry(kind, value.content, value.size_bytes)
                place.put_entry(file_path(value.id), entry)
        for link in gone:
            type = type_named(link.type)
            place = tx.branch(context_branch(type.context, branch))
            del place[record_path(type, link.id)]
            if type.name == "artifact":
                place.drop(file_path(link.id))
        if told is not None:
            tx.event(told[0], *encode_event(*told, None, type_of(Memory).context, {}))
        return tx.commit().seq
