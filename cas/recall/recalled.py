"""What a recall gives: items with reasons, what was left out, and the forms a program wants.

Floor 7. Invariant: whatever was looked at and not given is counted by reason, and the best of it
is named; nothing is left out silently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from attrs import field, frozen

from cas.model.encoding import encode
from cas.recall.score import Parts, Scoring
from cas.workspace.links import Link
from cas.workspace.registry import Aggregate

Reason = Literal[
    "budget", "alike", "floor", "archived", "expired", "not-yet", "superseded", "untrusted", "rank"
]
"""`budget`: no room. `alike`: folded into another. `floor`: not relevant enough. `archived`,
`superseded`, `untrusted`: as they are labelled. `expired`, `not-yet`: not valid at that time.
`rank`: relevant, but behind as many others as are looked at.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Message = Mapping[str, str]


@frozen
class Item:
    """A memory, or another aggregate, that was chosen. `link` is pinned to the version shown."""

    link: Link
    text: str
    score: float
    parts: Parts
    tokens: int
    pinned: bool
    at: datetime
    folded: tuple[Link, ...]
    value: Aggregate = field(repr=False, eq=False)

    @property
    def line(self) -> str:
        """As a model is shown it."""
        return head_line(self.link, self.at) + self.text


@frozen
class LeftOut:
    """What was found and not given, and why; `by` is what stands for it."""

    link: Link
    reason: Reason
    score: float
    by: Link | None = None


@frozen
class Request:
    """What was asked: all that an answer depends on, beside the state of the store."""

    query: str
    agent: str | None
    budget: int
    seq: int
    types: tuple[str, ...]
    pinned: tuple[str, ...]
    where: str
    archived: bool
    untrusted: bool
    margin: float
    model: str
    scoring: Scoring

    @property
    def plain(self) -> list[Any]:
        """As a receipt has it."""
        return [
            *(self.query, self.agent, self.budget, self.seq, list(self.types), list(self.pinned)),
            *(self.where, self.archived, self.untrusted, self.margin, self.model),
            self.scoring.plain,
        ]


@frozen
class Recalled:
    """The answer of a recall."""

    request: Request
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]
    counts: Mapping[str, int]
    tokens: int
    notices: tuple[str, ...]
    receipt: Link | None = None

    @property
    def seq(self) -> int:
        """The entry of the journal whose state was searched."""
        return self.request.seq

    @property
    def text(self) -> str:
        """The items as a text for a model, a paragraph each."""
        return "\n".join(item.line for item in self.items)

    def messages(self, role: str = "system") -> list[Message]:
        """The items as one message; none where nothing was found."""
        return [{"role": role, "content": self.text}] if self.items else []

    def records(self) -> list[Aggregate]:
        """The items as the aggregates that they are."""
        return [item.value for item in self.items]

    @property
    def digest(self) -> str:
        """What was given, in one hash: equal for equal items, scores, order and reasons."""
        given = [
            [str(item.link), item.score, item.tokens, [str(link) for link in item.folded]]
            for item in self.items
        ]
        left = [[str(each.link), each.reason, each.score] for each in self.left_out]
        data = encode([self.request.plain, given, left, dict(self.counts), self.tokens])
        return hashlib.sha256(data).hexdigest()


def head_line(link: Link, at: datetime) -> str:
    """What stands before an item's text."""
    return f"[{link.type}:{link.id} {at:%Y-%m-%d}] "


def time_of(time_us: int) -> datetime:
    """Microseconds since 1970 UTC as a time; the nearest that a calendar has."""
    try:
        return _EPOCH + timedelta(microseconds=int(time_us))
    except OverflowError:
        return _EPOCH
