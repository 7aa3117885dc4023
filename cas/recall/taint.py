"""What came from a bad source: all that rests on it, who was shown it, and taking it back.

Floor 7. Invariant: a plan changes nothing; applying one is a single entry of the journal, leaves
alone what has another version than the plan saw, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from attrs import frozen

from cas.errors import Invalid
from cas.model.ids import BlobId
from cas.recall.database import Database
from cas.recall.linked import DEPTH_MAX, Linked, links_from, links_to
from cas.recall.recall import AsOf, Recall
from cas.recall.receipts import Change
from cas.recall.upkeep import RECEIPT, Applied, apply_changes
from cas.workspace.codec import from_record
from cas.workspace.links import Link
from cas.workspace.memories import Memory, Trust
from cas.workspace.registry import Aggregate, type_named

Action = Literal["remove", "distrust", "revert"]
_DONE: Final[dict[Action, str]] = {
    "remove": "removed",
    "distrust": "distrusted",
    "revert": "reverted",
}
_NAMES_TOLD: Final = 100
_Key = tuple[str, str]
_Version = tuple[int, int, int | None, bytes]
"""A version: its row, since which entry it held and before which one, and its blob."""


@frozen
class TaintPlan:
    """What came from a source, an agent or an actor: `tainted`, pinned; for each of these the
    version before it was (`clean`), None where there is none; how it was `derived`; and in which
    `receipts` it was shown.
    """

    seq: int
    tainted: tuple[Link, ...]
    clean: tuple[Link | None, ...]
    derived: tuple[Linked, ...]
    receipts: tuple[Linked, ...]


def plan_taint(
    recall: Recall,
    *,
    source: Link | None = None,
    agent: str | None = None,
    actor: str | None = None,
    after: AsOf = None,
) -> TaintPlan:
    """Everything that rests on a source, that an agent remembers or that an actor committed behind
    a moment, and all that was made from it; and which receipts show that it was given to somebody.
    Of a run its outputs rest on it too. Changes nothing.

    `agent` is that of memories, `actor` who made the entries. Raises `Invalid` unless one of the
    three is named.
    """
    if [source, agent, actor].count(None) != 2:
        raise Invalid("Name a source, an agent or an actor that is in doubt, and only one.")
    start = 0 if after is None else recall.position(after)
    seq = recall.position()
    bad: set[int] = set()
    if actor is not None:
        entries = recall.store.journal(start, limit=seq - start) if seq > start else ()
        bad = {entry.seq for entry in entries if entry.actor == actor}

    def read(db: Database) -> TaintPlan:
        is_bad: Callable[[int], bool] = _always
        if source is not None:
            seeds = [source.loose]
        elif agent is not None:
            seeds = _of_agent(db, recall.projection.code("memories.agent"), agent, start, seq)
            is_bad = start.__lt__
        else:
            seeds, is_bad = _of_entries(db, bad, start, seq), lambda since: since in bad
        return _Walk(db, seq, seeds, is_bad).plan()

    return recall.projection.read(read)


def _always(_since: int) -> bool:
    return True


def _of_agent(db: Database, code: int, agent: str, after: int, seq: int) -> list[Link]:
    rows = db.rows(
        "SELECT i.id FROM @value v JOIN @item i ON i.doc = v.doc WHERE v.field = ? AND "
        "v.value = ? AND i.since > ? AND i.since <= ? AND coalesce(i.until, ?) > ?",
        (code, db.key(agent), after, seq, seq + 1, seq),
    )
    return [Link("memory", id) for (id,) in rows]


def _of_entries(db: Database, bad: set[int], after: int, seq: int) -> list[Link]:
    """Aggregates of which these entries made a version; receipts are no work of theirs."""
    rows = db.rows(
        "SELECT n.name, i.id, i.since FROM @item i JOIN @name n ON n.code = i.type "
        "WHERE i.since > ? AND i.since <= ? AND n.name <> ? ORDER BY i.doc",
        (after, seq, RECEIPT),
    )
    return list(dict.fromkeys(Link(type, id) for type, id, since in rows if since in bad))


class _Walk:
    """From what is in doubt to all that rests on it."""

    def __init__(
        self, db: Database, seq: int, seeds: Sequence[Link], is_bad: Callable[[int], bool]
    ) -> None:
        self._db, self._seq = db, seq
        # From which version on an aggregate is in doubt, where its links do not say so.
        self._bad: dict[_Key, Callable[[int], bool]] = {}
        self._links: dict[_Key, Link] = {}
        self._derived: dict[tuple[_Key, _Key], Linked] = {}
        self._receipts: dict[str, Linked] = {}
        for seed in seeds:
            self._bad[seed.type, seed.id] = is_bad
            self._links[seed.type, seed.id] = seed
        pending = list(seeds)
        while pending:
            pending += self._follow(pending.pop())

    def _follow(self, seed: Link) -> list[Link]:
        """Take in what links to one, at any distance; gives what runs among it have made."""
        found = [seed]
        for each in links_to(self._db, seed, self._seq, DEPTH_MAX):
            if each.source.type == RECEIPT:
                self._receipts[each.source.id] = each
                continue
            key = each.source.type, each.source.id
            self._derived[key, (each.target.type, each.target.id)] = each
            if key not in self._links:
                self._links[key] = each.source
                found.append(each.source)
        made = []
        for run in found:
            if run.type != "run":
                continue
            first = min((since for _, since, *_ in self._versions(run)), default=0)
            for each in links_from(self._db, run, self._seq, 1):
                key = each.target.type, each.target.id
                if each.field == "outputs" and key not in self._links:
                    self._links[key], self._bad[key] = each.target, first.__le__
                    made.append(each.target.loose)
        return made

    def plan(self) -> TaintPlan:
        """All of it, in the order of types and ids; what is no more is left out."""
        tainted, clean = [], []
        for key in sorted(self._links):
            versions = self._versions(self._links[key])
            if not versions or versions[-1][2] is not None:
                continue
            tainted.append(Link(*key, BlobId(versions[-1][3])))
            clean.append(self._clean(key, versions))
        return TaintPlan(
            self._seq,
            tuple(tainted),
            tuple(clean),
            tuple(self._derived.values()),
            tuple(self._receipts[id] for id in sorted(self._receipts)),
        )

    def _clean(self, key: _Key, versions: Sequence[_Version]) -> Link | None:
        """The version that held right before the first one in doubt."""
        is_bad = self._bad.get(key)
        for place, (doc, since, _, _) in enumerate(versions):
            if is_bad(since) if is_bad is not None else self._rests(doc):
                before = versions[place - 1] if place else None
                if before is None or before[2] != since:
                    return None
                return Link(*key, BlobId(before[3]))
        return None

    def _rests(self, doc: int) -> bool:
        rows = self._db.rows("SELECT type, id FROM @link WHERE doc = ?", (doc,))
        return any((type, id) in self._links for type, id in rows)

    def _versions(self, link: Link) -> list[_Version]:
        rows = self._db.rows(
            "SELECT i.doc, i.since, CASE WHEN i.until <= ? THEN i.until END, i.blob FROM @item i "
            "JOIN @name n ON n.code = i.type WHERE i.id = ? AND n.name = ? AND i.since <= ? "
            "ORDER BY i.since, i.doc",
            (self._seq, link.id, link.type, self._seq),
        )
        return [(int(doc), int(since), until, blob) for doc, since, until, blob in rows]


def apply_taint(
    recall: Recall, plan: TaintPlan, *, actor: str, action: Action = "remove"
) -> Applied:
    """Take everything tainted back in one entry: remove it, label memories untrusted, or revert it
    to what it was before, where it was anything, and remove it where not.

    An event `taint.removed`, `taint.distrusted` or `taint.reverted` says so. `undo` of the entry
    brings it back. What has another version than the plan saw is left alone, and so are aggregates
    of which events alone make the state.
    """
    if action not in _DONE:
        raise Invalid(f"What is tainted is one of {', '.join(_DONE)}, not {action!r}.")
    changes: list[Change] = []
    for link, clean in zip(plan.tainted, plan.clean, strict=True):
        value: Aggregate | None = None
        if action == "distrust" and link.pin is not None:
            found = from_record(recall.store.get(link.pin))
            value = found.evolve(trust=Trust.UNTRUSTED) if isinstance(found, Memory) else None
        elif action == "revert" and clean is not None and clean.pin is not None:
            value = from_record(recall.store.get(clean.pin))
        if type_named(link.type).event_sourced or (value is None and action == "distrust"):
            continue
        changes.append((link, value))

    def told(done: Sequence[Link]) -> tuple[str, Mapping[str, Any]]:
        named = [str(link.loose) for link in done[:_NAMES_TOLD]]
        return f"taint.{_DONE[action]}", {"count": len(done), "links": named}

    message = f"taint: {len(changes)} {_DONE[action]}"
    return apply_changes(recall, plan.tainted, changes, actor, message, told)
