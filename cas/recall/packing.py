"""From ranked rows to an answer that fits a budget of tokens.

Floor 7. Invariant: pinned rows come first and stay; what was ranked is given, or left out by a
reason that is counted; no answer costs more than its budget less the margin.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import frozen

from cas.errors import Invalid
from cas.later import Later
from cas.recall.arena import Arena
from cas.recall.database import Database
from cas.recall.projection import Projection
from cas.recall.recalled import Item, LeftOut, Reason, Recalled, Request, head_line, time_of
from cas.recall.score import Parts, diverse, fold
from cas.recall.tokens import estimate_tokens
from cas.workspace.links import Link

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Docs = NDArray[np.int64]
    Numbers = NDArray[np.float64]
else:
    np = Later("numpy", keep=True)

_LEFT_OUT_MAX: Final = 50
"""Rows that are named as left out; the counts tell of all."""
_MISSES_MAX: Final = 12
"""Rows in a row that did not fit: then the room that is left is too small to go on."""
_LINKS: Final = 32
"""Rows whose links are read at once: those of most answers."""
_JOINT: Final = 2
"""Tokens that the end of a line, and rounding, may cost."""


@frozen
class Ranked:
    """Rows that may be given, best first, and what their scores are made of."""

    docs: Docs
    scores: Numbers
    parts: Sequence[Numbers]


class Source(Protocol):
    """What packing asks of the engine."""

    @property
    def arena(self) -> Arena:
        """The rows as arrays."""

    @property
    def projection(self) -> Projection:
        """What is searched."""

    @property
    def counter(self) -> Callable[[str], int] | None:
        """What counts tokens, where it is not the estimate."""

    def links_of(self, db: Database, docs: Sequence[int]) -> dict[int, Link]:
        """Links to rows, pinned to their versions."""

    def superseded(self, db: Database, docs: Sequence[int], seq: int) -> dict[int, int]:
        """Rows that a row which holds after an entry takes the place of, and which one."""


class Packing:
    """From ranked rows to an answer that fits the budget."""

    def __init__(
        self,
        engine: Source,
        db: Database,
        request: Request,
        ranked: Ranked,
        pinned: list[int],
        counts: Counts[str],
        notices: list[str],
    ) -> None:
        self._engine, self._db, self._request = engine, db, request
        self._ranked, self._pinned = ranked, pinned
        self._counts, self._notices = counts, notices
        self._left: list[tuple[int, Reason, float, int | None]] = []
        self._room = int(request.budget * (1 - request.margin))
        self._used = 0
        self._places = {int(doc): place for place, doc in enumerate(ranked.docs)}
        self._folded: dict[int, list[int]] = {}
        self._texts: dict[int, str] = {}
        self._links: dict[int, Link] = {}
        self._costs: dict[int, int] = {}

    def answer(self) -> Recalled:
        """Choose, read, and tell what was left out."""
        docs, scores = self._relevant()
        self._read_links(docs[:_LINKS].tolist())
        alike = self._engine.arena.alike(docs)
        docs, scores, alike = self._fold(docs, scores, alike)
        chosen = self._choose(docs, scores, alike)
        items = self._items(chosen)
        self._left.sort(key=lambda each: (-each[2], each[0]))
        del self._left[_LEFT_OUT_MAX:]
        self._read_links([d for d, *_ in self._left])
        self._read_links([by for *_, by in self._left if by is not None])
        names = self._links
        left = tuple(
            LeftOut(names[doc], reason, value, None if by is None else names[by])
            for doc, reason, value, by in self._left
        )
        return Recalled(
            self._request,
            items,
            left,
            dict(sorted(self._counts.items())),
            self._used,
            tuple(self._notices),
        )

    def _leave(self, doc: int, reason: Reason, value: float, by: int | None = None) -> None:
        self._counts[reason] += 1
        self._left.append((doc, reason, value, by))

    def _leave_all(self, places: Docs, reason: Reason) -> None:
        """The same for places of the ranking, best first; only the best can be named."""
        if len(places):
            self._counts[reason] += len(places)
            named = places[:_LEFT_OUT_MAX]
            docs, scores = self._ranked.docs[named].tolist(), self._ranked.scores[named].tolist()
            self._left += [
                (doc, reason, value, None) for doc, value in zip(docs, scores, strict=True)
            ]

    def _relevant(self) -> tuple[Docs, Numbers]:
        """Pinned rows first, then those above the floor that nothing has taken the place of."""
        ranked, floor = self._ranked, self._request.scoring.floor
        most = 2 * self._request.scoring.candidates
        fits = np.flatnonzero(ranked.scores >= floor)
        self._leave_all(np.flatnonzero(ranked.scores < floor), "floor")
        self._leave_all(fits[most:], "rank")
        docs = [doc for doc in ranked.docs[fits[:most]].tolist() if doc not in self._pinned]
        replaced = self._engine.superseded(self._db, docs, self._request.seq)
        for doc, by in replaced.items():
            self._leave(doc, "superseded", self._score(doc), by)
        kept = [*self._pinned, *(doc for doc in docs if doc not in replaced)]
        return np.array(kept, np.int64), np.array([self._score(doc) for doc in kept], np.float64)

    def _score(self, doc: int) -> float:
        place = self._places.get(doc)
        return 0.0 if place is None else float(self._ranked.scores[place])

    def _fold(self, docs: Docs, scores: Numbers, alike: Numbers) -> tuple[Docs, Numbers, Numbers]:
        stands = fold(scores, alike, self._request.scoring.alike)
        if stands == list(range(len(stands))):
            return docs, scores, alike
        kept = []
        for place, other in enumerate(stands):
            if other == place or place < len(self._pinned):
                kept.append(place)
            else:
                doc, by = int(docs[place]), int(docs[other])
                self._folded.setdefault(by, []).append(doc)
                self._leave(doc, "alike", float(scores[place]), by)
        chosen = np.array(kept, np.int64)
        return docs[chosen], scores[chosen], alike[np.ix_(chosen, chosen)]

    def _choose(self, docs: Docs, scores: Numbers, alike: Numbers) -> list[int]:
        pins = list(range(len(self._pinned)))
        chosen = [int(docs[place]) for place in pins]
        self._used = sum(self._cost(doc) for doc in chosen)
        if self._used > self._room:
            raise Invalid(
                f"What is pinned takes {self._used} tokens, more than the budget of "
                f"{self._request.budget} leaves after its margin; pin less, or give more.",
                tokens=self._used,
                budget=self._request.budget,
            )
        rows, worths = docs.tolist(), scores.tolist()
        tokens = self._engine.arena.tokens[docs].tolist()
        least = min(tokens, default=0)
        order = diverse(scores, alike, self._request.scoring.diversity, pins)
        place = next(order, None)
        waiting = set(range(len(docs))) - set(pins)
        misses = 0
        while (
            place is not None
            and misses < _MISSES_MAX
            and tokens
            and self._used + least <= self._room
        ):
            doc = rows[place]
            # The text alone is too long: what stands before it need not be counted.
            fits = self._used + tokens[place] <= self._room or self._engine.counter is not None
            cost = self._cost(doc) if fits else 0
            waiting.discard(place)
            if fits and self._used + cost <= self._room:
                chosen.append(doc)
                self._used += cost
                misses = 0
                place = order.send(True) if waiting else None
            else:
                misses += 1
                self._leave(doc, "budget", worths[place])
                place = order.send(False) if waiting else None
        for place in sorted(waiting):
            self._leave(rows[place], "budget", worths[place])
        return chosen

    def _cost(self, doc: int) -> int:
        """Tokens of a row as it is shown, counted, or as its estimate was when it was taken in."""
        cost = self._costs.get(doc)
        if cost is None:
            link = self._link(doc)
            head = head_line(link, self._at(doc))
            if self._engine.counter is None:
                cost = estimate_tokens(head) + int(self._engine.arena.tokens[doc]) + _JOINT
            else:
                cost = int(self._engine.counter(head + self._text(link, doc))) + _JOINT
            self._costs[doc] = cost
        return cost

    def _link(self, doc: int) -> Link:
        if doc not in self._links:
            self._read_links([doc])
        return self._links[doc]

    def _read_links(self, docs: Sequence[int]) -> None:
        missing = [doc for doc in docs if doc not in self._links]
        if missing:
            self._links |= self._engine.links_of(self._db, missing)

    def _at(self, doc: int) -> Any:
        arena = self._engine.arena
        at = float(arena.at_us[doc])
        return time_of(int(arena.time_us[doc]) if at != at else int(at))

    def _text(self, link: Link, doc: int) -> str:
        if doc not in self._texts:
            assert link.pin is not None
            projection = self._engine.projection
            data = projection.store.get(link.pin)
            self._texts[doc] = projection.text_of(link.type, data)
        return self._texts[doc]

    def _items(self, chosen: list[int]) -> tuple[Item, ...]:
        engine = self._engine
        store = engine.projection.store
        self._read_links(chosen)
        self._read_links([doc for of in chosen for doc in self._folded.get(of, [])])
        links = self._links
        pins = [links[doc].pin for doc in chosen]
        items = []
        for doc, data in zip(chosen, store.get_many([p for p in pins if p]), strict=True):
            place = self._places.get(doc)
            numbers = [0.0] * 7 if place is None else [float(p[place]) for p in self._ranked.parts]
            link = links[doc]
            text, value = engine.projection.shown(link.type, data)
            items.append(
                Item(
                    link,
                    text,
                    self._score(doc),
                    Parts(*numbers),
                    self._cost(doc),
                    doc in self._pinned,
                    self._at(doc),
                    tuple(links[other] for other in self._folded.get(doc, [])),
                    value,
                )
            )
        return tuple(items)
