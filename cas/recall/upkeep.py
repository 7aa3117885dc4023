"""Forgetting by policy, consolidating, and finding duplicates, over a `Recall`.

Floor 7. Invariant: a plan changes nothing; applying one is a single entry of the journal, leaves
alone what has another version than the plan saw, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from cas.errors import Invalid, NotAsExpected
from cas.model.ids import BlobId
from cas.recall.database import Database
from cas.recall.forget import (
    HELD,
    PINNED,
    ForgetPlan,
    Forgotten,
    Known,
    Policy,
    Summariser,
    archived,
    consolidated,
    decide,
)
from cas.recall.recall import AsOf, Recall
from cas.recall.recalled import time_of
from cas.recall.receipts import Change, Told, write
from cas.recall.score import Scoring
from cas.recall.text import clauses_of
from cas.workspace.artifacts import Artifact
from cas.workspace.links import Link, new_id
from cas.workspace.memories import Memory
from cas.workspace.registry import type_named

NEAR: Final = 0.9
"""Two memories whose vectors are nearer than this probably say the same."""
RECEIPT: Final = "receipt"
_LIKELY: Final = 20
_NEWEST: Final = 1_000
"""Memories that are compared with a text before it is written."""

_KNOWN: Final = (
    "SELECT i.id, i.blob, i.time_us FROM @item i JOIN @name n ON n.code = i.type WHERE "
    "n.name = ? AND i.since <= ? AND coalesce(i.until, ?) > ? ORDER BY i.id"
)


@frozen
class Applied:
    """What applying a plan did. `seq` is the entry, None where there was nothing to do; `skipped`
    have another version by now, or are gone.
    """

    seq: int | None
    done: tuple[Link, ...]
    skipped: tuple[Link, ...]


@frozen
class Duplicate:
    """A memory that says what another text says; `exact` when letter for letter."""

    link: Link
    text: str
    nearness: float
    exact: bool


def known_of(recall: Recall, seq: int, type: str = "memory") -> list[Known]:
    """All aggregates of a type in a state, with what protects each. Raises `UnknownType`, and
    `Invalid` for a type whose state only events change.
    """
    if type_named(type).event_sourced:
        raise Invalid(f"A {type} is what its events say, and is not forgotten by policy.")
    projection = recall.projection
    rows = projection.read(lambda db: db.rows(_KNOWN, (type, seq, seq + 1, seq)))
    contents = recall.store.get_many([BlobId(blob) for _, blob, _ in rows])
    protected = projection.read(lambda db: _protected(db, seq, type))
    found = []
    for (id, blob, time_us), data in zip(rows, contents, strict=True):
        text, value = projection.shown(type, data)
        tags = getattr(value, "tags", ())
        tag = next((tag for tag in (HELD, PINNED) if tag in tags), None)
        why = tag or protected.get(id)
        size = value.size_bytes if isinstance(value, Artifact) else len(text.encode())
        link = Link(type, id, BlobId(blob))
        found.append(Known(value, link, int(time_us), why, text, size))
    return found


def _protected(db: Database, seq: int, type: str) -> dict[str, str]:
    """Those to which something links that is pinned to the version: its evidence."""
    rows = db.rows(
        "SELECT l.id, n.name, i.id FROM @link l JOIN @item i ON i.doc = l.doc JOIN @name n ON "
        "n.code = i.type WHERE l.type = ? AND l.pin IS NOT NULL AND n.name <> ? AND "
        "i.since <= ? AND coalesce(i.until, ?) > ?",
        (type, RECEIPT, seq, seq + 1, seq),
    )
    return {target: f"linked by {by}:{id}" for target, by, id in rows}


# -- forgetting --------------------------------------------------------------------------------


def plan_forget(recall: Recall, policy: Policy, *, as_of: AsOf = None) -> ForgetPlan:
    """What a policy would do; changes nothing. Times are compared with that of the entry."""
    seq = recall.position(as_of)
    now_us = recall.store.entry(seq).time_us if seq else 0
    return decide(policy, known_of(recall, seq, policy.type), now_us, seq)


def apply_forget(recall: Recall, plan: ForgetPlan, *, actor: str) -> Applied:
    """Do what a plan says, as one entry, with what has not changed since."""
    seq = recall.position()
    now = {each.link.id: each for each in known_of(recall, seq, plan.policy.type)}
    changes: list[Change] = []
    for each in plan.forgotten:
        found = now.get(each.link.id)
        if found is not None and found.link.pin == each.link.pin and found.protected is None:
            changes.append((each.link, None if each.action == "remove" else archived(found)))
    return apply_changes(
        recall, [f.link for f in plan.forgotten], changes, actor, f"forget: {plan.summary}"
    )


def apply_changes(
    recall: Recall,
    planned: Sequence[Link],
    changes: Sequence[Change],
    actor: str,
    message: str,
    told: Told | None = None,
) -> Applied:
    """Do what is left of a plan as one entry, with what has not changed by then."""
    seq, done = None, frozenset[Link]()
    if changes:
        branch, store = recall.projection.branch, recall.store
        seq, done = write(store, branch, author=actor, message=message, changes=changes, told=told)
    return Applied(
        seq,
        tuple(link for link in planned if link in done),
        tuple(link for link in planned if link not in done),
    )


def consolidate(
    recall: Recall, links: Sequence[Link], summarise: Summariser, *, actor: str
) -> Link:
    """One memory that stands for several, which are archived and which it names as superseded.

    Raises `Invalid`, `NotAsExpected` where one of them is not there, or has changed meanwhile.
    """
    seq = recall.position()
    known = {each.link.id: each for each in known_of(recall, seq)}
    missing = [str(link) for link in links if link.id not in known]
    if missing:
        raise NotAsExpected(
            f"There is no {', '.join(missing)} to consolidate.",
            path=missing[0],
            expected="a memory",
            actual=None,
        )
    every = [known[id] for id in dict.fromkeys(link.id for link in links)]
    group = [each.value for each in every if isinstance(each.value, Memory)]
    made = consolidated(group, summarise, new_id(recall.store.objects.clock))
    changes: list[Change] = [
        (each.link, archived(each)) for each in every if each.protected is None
    ]

    def check(done: Sequence[Link]) -> None:
        changed = [str(link.loose) for link, _ in changes if link not in done]
        if changed:
            raise NotAsExpected(
                f"{', '.join(changed)} was changed meanwhile, and the summary is of what it was; "
                "nothing was committed. Consolidate again.",
                path=changed[0],
                expected=None,
                actual=None,
            )

    write(
        recall.store,
        recall.projection.branch,
        author=actor,
        message=f"consolidate {len(group)} memories",
        made=[made],
        changes=changes,
        told=check,
    )
    return made.link


# -- duplicates --------------------------------------------------------------------------------


def duplicates(
    recall: Recall, text: str, *, agent: str | None = None, near: float = NEAR
) -> list[Duplicate]:
    """Memories that say what a text says, before it is written: a warning, and no more.

    Without an embedder only those that are equal but for case and blanks.
    """
    # Where there is no word to go by, that of marks alone stands anywhere among the newest.
    count = _LIKELY if clauses_of(text) else _NEWEST
    how = Scoring(floor=0, alike=2, links=0, recency=0, importance=0, feedback=0, candidates=count)
    found = recall.recall(text, agent=agent, budget_tokens=1_000_000, scoring=how, margin=0)
    same = []
    for item in found.items:
        exact = is_same(item.text, text)
        if exact or item.parts.meaning >= near:
            same.append(Duplicate(item.link, item.text, item.parts.meaning, exact))
    return sorted(same, key=lambda each: (not each.exact, -each.nearness, each.link.id))


def is_same(one: str, other: str) -> bool:
    """Whether texts are equal but for case and blanks."""
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def preview(each: Forgotten) -> str:
    """A line for people."""
    first = next(iter(each.text.splitlines()), "")
    return f"{each.action:8} {each.because:12} {each.link.id}  {first[:80]}".rstrip()


__all__ = [
    "Applied",
    "Duplicate",
    "Policy",
    "apply_forget",
    "consolidate",
    "duplicates",
    "plan_forget",
    "preview",
    "time_of",
]
