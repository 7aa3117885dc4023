"""Forgetting, finding duplicates and taking back what came from a bad source, over a `Recall`.

Floor 7. Invariant: a plan changes nothing; applying one is a single entry of the journal, leaves
alone what has another version than the plan saw, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

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
from cas.recall.linked import DEPTH_MAX, Linked, links_to
from cas.recall.recall import AsOf, Recall
from cas.recall.recalled import time_of
from cas.recall.receipts import write
from cas.recall.score import Scoring
from cas.workspace.codec import from_record
from cas.workspace.links import Link, new_id
from cas.workspace.memories import Memory, Trust
from cas.workspace.registry import Aggregate

NEAR: Final = 0.9
"""Two memories whose vectors are nearer than this probably say the same."""
_RECEIPT: Final = "receipt"

_KNOWN: Final = (
    "SELECT i.id, i.blob, i.time_us FROM @item i JOIN @name n ON n.code = i.type WHERE "
    "n.name = 'memory' AND i.since <= ? AND coalesce(i.until, ?) > ? ORDER BY i.id"
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


@frozen
class TaintPlan:
    """What came from a source or an agent: `tainted`, pinned; how it was `derived`; and in which
    `receipts` it was shown.
    """

    seq: int
    tainted: tuple[Link, ...]
    derived: tuple[Linked, ...]
    receipts: tuple[Linked, ...]


def known_memories(recall: Recall, seq: int) -> list[Known]:
    """All memories of a state, with what protects each."""
    projection = recall.projection
    rows = projection.read(lambda db: db.rows(_KNOWN, (seq, seq + 1, seq)))
    contents = recall.store.get_many([BlobId(blob) for _, blob, _ in rows])
    protected = projection.read(lambda db: _protected(db, seq))
    found = []
    for (id, blob, time_us), data in zip(rows, contents, strict=True):
        value = from_record(data)
        assert isinstance(value, Memory)
        tag = next((tag for tag in (HELD, PINNED) if tag in value.tags), None)
        why = tag or protected.get(id)
        found.append(Known(value, Link("memory", id, BlobId(blob)), int(time_us), why))
    return found


def _protected(db: Database, seq: int) -> dict[str, str]:
    """Memories to which something links that is pinned to the version: its evidence."""
    rows = db.rows(
        "SELECT l.id, n.name, i.id FROM @link l JOIN @item i ON i.doc = l.doc JOIN @name n ON "
        "n.code = i.type WHERE l.type = 'memory' AND l.pin IS NOT NULL AND n.name <> ? AND "
        "i.since <= ? AND coalesce(i.until, ?) > ?",
        (_RECEIPT, seq, seq + 1, seq),
    )
    return {target: f"linked by {type}:{id}" for target, type, id in rows}


# -- forgetting --------------------------------------------------------------------------------


def plan_forget(recall: Recall, policy: Policy, *, as_of: AsOf = None) -> ForgetPlan:
    """What a policy would do; changes nothing. Times are compared with that of the entry."""
    seq = recall.position(as_of)
    now_us = recall.store.entry(seq).time_us if seq else 0
    return decide(policy, known_memories(recall, seq), now_us, seq)


def apply_forget(recall: Recall, plan: ForgetPlan, *, actor: str) -> Applied:
    """Do what a plan says, as one entry, with what has not changed since."""
    seq = recall.position()
    now = {each.link.id: each for each in known_memories(recall, seq)}
    values: list[Aggregate] = []
    gone: list[Link] = []
    skipped: list[Link] = []
    done: list[Link] = []
    for each in plan.forgotten:
        found = now.get(each.link.id)
        if found is None or found.link.pin != each.link.pin or found.protected is not None:
            skipped.append(each.link)
            continue
        done.append(each.link)
        if each.action == "remove":
            gone.append(each.link)
        else:
            values.append(archived(found.value))
    entry = _write(recall, values, gone, actor, f"forget: {plan.summary}")
    return Applied(entry, tuple(done), tuple(skipped))


def consolidate(
    recall: Recall, links: Sequence[Link], summarise: Summariser, *, actor: str
) -> Link:
    """One memory that stands for several, which are archived and which it names as superseded.

    Raises `Invalid`, `NotAsExpected` where one of them is not there.
    """
    seq = recall.position()
    known = {each.link.id: each for each in known_memories(recall, seq)}
    missing = [str(link) for link in links if link.id not in known]
    if missing:
        raise NotAsExpected(
            f"There is no {', '.join(missing)} to consolidate.",
            path=missing[0],
            expected="a memory",
            actual=None,
        )
    group = [known[link.id].value for link in links]
    made = consolidated(group, summarise, new_id(recall.store.objects.clock))
    parts = [archived(each) for each in group if known[each.id].protected is None]
    _write(recall, [made, *parts], [], actor, f"consolidate {len(group)} memories")
    return made.link


_NAMES_TOLD: Final = 100


def _write(
    recall: Recall,
    values: Sequence[Aggregate],
    gone: Sequence[Link],
    actor: str,
    message: str,
    told: tuple[str, dict[str, Any]] | None = None,
) -> int | None:
    if not values and not gone:
        return None
    branch = recall.projection.branch
    return write(recall.store, branch, values, author=actor, message=message, gone=gone, told=told)


# -- duplicates --------------------------------------------------------------------------------


def duplicates(
    recall: Recall, text: str, *, agent: str | None = None, near: float = NEAR
) -> list[Duplicate]:
    """Memories that say what a text says, before it is written: a warning, and no more.

    Without an embedder only those that are equal but for case and blanks.
    """
    how = Scoring(floor=0, alike=2, links=0, recency=0, importance=0, feedback=0, candidates=20)
    found = recall.recall(text, agent=agent, budget_tokens=1_000_000, scoring=how, margin=0)
    plain = " ".join(text.split()).casefold()
    same = []
    for item in found.items:
        exact = " ".join(item.text.split()).casefold() == plain
        if exact or item.parts.meaning >= near:
            same.append(Duplicate(item.link, item.text, item.parts.meaning, exact))
    return sorted(same, key=lambda each: (not each.exact, -each.nearness, each.link.id))


# -- trust -------------------------------------------------------------------------------------


def plan_taint(
    recall: Recall,
    *,
    source: Link | None = None,
    agent: str | None = None,
    after: AsOf = None,
) -> TaintPlan:
    """Everything that rests on a source, or that an agent wrote behind a moment, and all that was
    made from it; and which receipts show that it was given to somebody. Changes nothing.

    Raises `Invalid` unless a source or an agent is named.
    """
    if (source is None) == (agent is None):
        raise Invalid("Name a source or an agent whose memories are in doubt, and only one.")
    start = 0 if after is None else recall.position(after)
    seq = recall.position()
    seeds = [source.loose] if source is not None else _of_agent(recall, str(agent), start, seq)

    def read(db: Database) -> TaintPlan:
        derived: dict[tuple[str, str, str, str], Linked] = {}
        receipts: dict[str, Linked] = {}
        links = {(seed.type, seed.id): seed for seed in seeds}
        for seed in seeds:
            for each in links_to(db, seed, seq, DEPTH_MAX):
                if each.source.type == _RECEIPT:
                    receipts[each.source.id] = each
                else:
                    key = (each.source.type, each.source.id, each.target.type, each.target.id)
                    derived[key] = each
                    links.setdefault((each.source.type, each.source.id), each.source)
        return TaintPlan(
            seq,
            tuple(_pinned(db, [links[key] for key in sorted(links)], seq)),
            tuple(derived.values()),
            tuple(receipts[id] for id in sorted(receipts)),
        )

    return recall.projection.read(read)


def _of_agent(recall: Recall, agent: str, after: int, seq: int) -> list[Link]:
    code = recall.projection.code("memories.agent")
    rows = recall.projection.read(
        lambda db: db.rows(
            "SELECT i.id FROM @value v JOIN @item i ON i.doc = v.doc WHERE v.field = ? AND "
            "v.value = ? AND i.since > ? AND i.since <= ? AND coalesce(i.until, ?) > ?",
            (code, db.key(agent), after, seq, seq + 1, seq),
        )
    )
    return [Link("memory", id) for (id,) in rows]


def _pinned(db: Database, links: Sequence[Link], seq: int) -> list[Link]:
    """Those that there are, with the versions that hold."""
    found = []
    for link in links:
        row = db.row(
            "SELECT i.blob FROM @item i JOIN @name n ON n.code = i.type WHERE i.id = ? AND "
            "n.name = ? AND i.since <= ? AND coalesce(i.until, ?) > ?",
            (link.id, link.type, seq, seq + 1, seq),
        )
        if row is not None:
            found.append(Link(link.type, link.id, BlobId(row[0])))
    return found


def apply_taint(
    recall: Recall,
    plan: TaintPlan,
    *,
    actor: str,
    action: Literal["remove", "distrust"] = "remove",
) -> Applied:
    """Take everything tainted back in one entry: remove it, or label memories untrusted.

    An event `taint.removed` or `taint.distrusted` says so. `undo` of the entry brings it back.
    What has another version than the plan saw is left alone.
    """
    seq = recall.position()
    now = {
        (link.type, link.id): link
        for link in recall.projection.read(lambda db: _pinned(db, plan.tainted, seq))
    }
    done, skipped = [], []
    values: list[Aggregate] = []
    for link in plan.tainted:
        if now.get((link.type, link.id)) != link or now[link.type, link.id].pin != link.pin:
            skipped.append(link)
            continue
        if action == "distrust":
            assert link.pin is not None
            value = from_record(recall.store.get(link.pin))
            if not isinstance(value, Memory):
                skipped.append(link)
                continue
            values.append(value.evolve(trust=Trust.UNTRUSTED))
        done.append(link)
    gone = done if action == "remove" else []
    what = "removed" if action == "remove" else "distrusted"
    named = [str(link.loose) for link in done[:_NAMES_TOLD]]
    said = (f"taint.{what}", {"count": len(done), "links": named})
    entry = _write(recall, values, gone, actor, f"taint: {len(done)} {what}", said)
    return Applied(entry, tuple(done), tuple(skipped))


def preview(each: Forgotten) -> str:
    """A line for people."""
    first = next(iter(each.text.splitlines()), "")
    return f"{each.action:8} {each.because:12} {each.link.id}  {first[:80]}".rstrip()


__all__ = [
    "Applied",
    "Duplicate",
    "Policy",
    "TaintPlan",
    "apply_forget",
    "apply_taint",
    "consolidate",
    "duplicates",
    "plan_forget",
    "plan_taint",
    "preview",
    "time_of",
]
