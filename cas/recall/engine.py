"""Recall: what fits a query, ranked, folded and packed into a budget of tokens.

Floor 7. Invariant: the answer is a function of the state after one entry, the request and the
embedder; everything that was looked at is given or named as left out with its reason.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from cas.errors import CasError, Invalid, ModelUnavailable, Unsupported
from cas.later import Later
from cas.model.ids import BlobId
from cas.recall.arena import Arena
from cas.recall.beforehand import WARM_ROWS, Beforehand
from cas.recall.database import Database
from cas.recall.masks import Masks
from cas.recall.models import Model, vectors_of
from cas.recall.packing import Packing, Ranked
from cas.recall.projection import Projection
from cas.recall.recalled import Recalled, Request
from cas.recall.score import (
    Scoring,
    factor_of_trust,
    recency,
    relevance,
    score,
)
from cas.recall.text import clauses_of
from cas.recall.tokens import Counter
from cas.recall.vectors import unpack
from cas.workspace.links import Link

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Docs = NDArray[np.int64]
    Numbers = NDArray[np.float64]
else:
    np = Later("numpy", keep=True)

_LEADING: Final = 10
"""Best rows whose links are followed."""


class Engine:
    """Answers requests over one projection. Any thread, one at a time."""

    def __init__(self, projection: Projection, counter: Counter | None = None) -> None:
        self._projection = projection
        self._counter = counter
        self._arena = Arena()
        self._made = -1
        self._asked = False
        self._beforehand: Beforehand | None = None
        self._masks: Masks | None = None
        self._model: Model | None = None

    def recall(
        self, request: Request, now_us: int, notices: Sequence[str], *, again: bool = False
    ) -> Recalled:
        """The answer to a request; the projection goes at least as far as it asks.

        The model is that which serves, or, `again`, that of the request. Raises `Invalid`,
        `Unsupported`, and what reading the store raises.
        """

        def answer(db: Database) -> Recalled:
            models, told = self._projection.models, list(notices)
            if again:
                return self._recall(db, request, now_us, told)
            if models.notice is not None:
                told.append(models.notice)
            serving = models.serving
            model = "" if serving is None else serving.embedder.identity
            try:
                return self._recall(db, evolve(request, model=model), now_us, told)
            except ModelUnavailable as error:
                # As if there were no model, so that a receipt of it can be replayed.
                told = [*notices, f"{error} What was found was found by its words alone."]
                return self._recall(db, evolve(request, model=""), now_us, told)

        return self._projection.read(answer)

    def _recall(self, db: Database, request: Request, now_us: int, notices: list[str]) -> Recalled:
        self._model = self._projection.models.of(request.model)
        if self._model is None and request.model:
            raise Unsupported(
                f"The answer was made with the model {request.model!r}, which this handle or the "
                "search index does not have. Open it with that embedder.",
                model=request.model,
            )
        masks = self.masks(db)
        self._read_beforehand()
        self._asked = True
        held = masks.held(request.seq, request.types)
        counts: Counts[str] = Counts()
        allowed = masks.allowed(request, held, now_us, counts)
        ranked = self._rank(db, request, held, allowed, now_us, notices)
        pinned = self._pinned(db, request)
        return Packing(self, db, request, ranked, pinned, counts, notices).answer()

    def masks(self, db: Database) -> Masks:
        """Sets of rows, over arrays that go as far as the database does, with vectors of the model
        that is asked for.
        """
        projection = self._projection
        if self._made != projection.made or self._masks is None:
            self.close()
            self._arena, self._made, self._asked = Arena(), projection.made, False
            self._masks = Masks(self._arena, projection)
        model = 0 if self._model is None else self._model.code
        self._arena.refresh(db, projection.seq, model, once=not self._asked)
        self._masks.database = db
        return self._masks

    def _read_beforehand(self) -> None:
        """From the second question on common words are read beside: a command asks only one."""
        connect = self._projection.beside()
        if self._beforehand is not None:
            for term, size, places in self._beforehand.take():
                self._arena.remember(term, size, places)
        elif self._asked and self._arena.size >= WARM_ROWS and connect is not None:
            with suppress(CasError):
                self._beforehand = Beforehand(connect(), self._texts_of, self._arena.size)

    def _texts_of(self, db: Database, docs: Sequence[int]) -> list[str]:
        projection = self._projection
        rows = self.links_of(db, docs).values()
        contents = projection.store.get_many([row.pin for row in rows if row.pin])
        return [
            projection.text_of(row.type, data) for row, data in zip(rows, contents, strict=True)
        ]

    def close(self) -> None:
        """End what goes on beside questions."""
        beforehand, self._beforehand = self._beforehand, None
        if beforehand is not None:
            beforehand.close()

    # -- ranking -----------------------------------------------------------------------------

    def _rank(
        self,
        db: Database,
        request: Request,
        held: Any,
        allowed: Any,
        now_us: int,
        notices: list[str],
    ) -> Ranked:
        arena, scoring = self._arena, request.scoring
        clauses = clauses_of(request.query)
        query = self._query_vector(request, allowed, notices)
        fit, share = None, 0.0
        found: Docs = np.zeros(0, np.int64)
        # Of very many rows words take as long as bits, which others compare meanwhile.
        chosen = arena.choosing(query, allowed)
        if clauses and scoring.text:
            fit = arena.fit(db, clauses, held)
            found, share = fit.best(allowed, scoring.candidates)
        if query is not None:
            near, _ = arena.nearest(query, chosen(), scoring.candidates)
            found = _together(found, near)
        if not clauses and query is None:
            # Nothing to go by: what is newest and weighs most.
            found = np.flatnonzero(allowed)[-scoring.candidates :]
            words = np.full(len(found), 1.0 / max(scoring.text, 1e-9))
        else:
            words = np.zeros(len(found)) if fit is None else fit.of(found)[0]
        nearness = (
            np.zeros(len(found)) if query is None else np.maximum(arena.nearness(query, found), 0)
        )
        fits = relevance(scoring, words, nearness, share)
        linked = np.zeros(len(found))
        if scoring.links:
            ranked = len(found)
            found, fits, linked = self._linked(db, found, fits, allowed, scoring)
            more = found[ranked:]
            also = np.zeros(len(more)) if fit is None else fit.of(more)[0]
            words = np.concatenate([words, also])
            nearness = np.concatenate([nearness, np.zeros(len(more))])
        return self._scored(db, request, found, fits, (words, nearness, linked), now_us)

    def _scored(
        self,
        db: Database,
        request: Request,
        found: Docs,
        fits: Numbers,
        parts: tuple[Numbers, Numbers, Numbers],
        now_us: int,
    ) -> Ranked:
        arena, scoring = self._arena, request.scoring
        at = arena.at_us[found]
        at = np.where(np.isnan(at), arena.time_us[found], at)
        recent = recency(scoring, now_us, at)
        important = np.nan_to_num(arena.importance[found], nan=0.5)
        liked = self._feedback(db, found, request.seq)
        trust = factor_of_trust(scoring, arena.trust[found])
        scores = score(scoring, fits, recent, important, liked, trust)
        order = np.lexsort((found, -scores))
        every = (*parts, recent, important, liked, trust)
        return Ranked(found[order], scores[order], [part[order] for part in every])

    def _query_vector(self, request: Request, allowed: Any, notices: list[str]) -> Any:
        if self._model is None or not request.scoring.meaning or not request.query.strip():
            return None
        embedder = self._model.embedder
        missing = self._arena.without_vector(allowed)
        if missing:
            every = np.count_nonzero(allowed)
            notices.append(
                f"{missing} of {every} have no vector of {embedder.identity} yet and are "
                "found by their words alone"
            )
        packed = vectors_of(embedder, [request.query])
        vector = unpack(packed, embedder.dimensions)[0]
        return vector if vector.any() else None

    def _linked(
        self, db: Database, found: Docs, fits: Numbers, allowed: Any, scoring: Scoring
    ) -> tuple[Docs, Numbers, Numbers]:
        """With what the best rows link to, or what links to them, raised by a share of theirs."""
        places = {int(doc): place for place, doc in enumerate(found)}
        gains: dict[int, float] = {}
        if not db.rows("SELECT 1 FROM @link LIMIT 1"):
            return found, fits, np.zeros(len(found))
        for place in np.lexsort((found, -fits))[:_LEADING]:
            for doc in self._neighbours(db, int(found[place])):
                if doc < len(allowed) and allowed[doc] and doc != int(found[place]):
                    gains[doc] = max(gains.get(doc, 0.0), float(fits[place]))
        more = sorted(doc for doc in gains if doc not in places)
        docs = np.concatenate([found, np.array(more, np.int64)])
        linked = np.array([gains.get(int(doc), 0.0) for doc in docs])
        base = np.concatenate([fits, np.zeros(len(more))])
        return docs, base + scoring.links * linked, np.minimum(linked, 1.0)

    def _neighbours(self, db: Database, doc: int) -> list[int]:
        rows = db.rows(
            "SELECT t.doc FROM @link l JOIN @name n ON n.name = l.type JOIN @item t ON t.id = l.id "
            "AND t.type = n.code WHERE l.doc = ? UNION "
            "SELECT l.doc FROM @item i JOIN @name n ON n.code = i.type JOIN @link l ON l.id = i.id "
            "AND l.type = n.name WHERE i.doc = ?",
            (doc, doc),
        )
        return [int(row[0]) for row in rows]

    def _feedback(self, db: Database, found: Docs, seq: int) -> Numbers:
        """From -1 (all of it says wrong) to 1, by what agents said until that entry."""
        liked = np.zeros(len(found), np.float64)
        if not db.rows("SELECT 1 FROM @feedback LIMIT 1"):
            return liked
        for place, doc in enumerate(found):
            (good, bad) = db.rows(
                "SELECT count(*) FILTER (WHERE f.worth > 0), count(*) FILTER (WHERE f.worth < 0) "
                "FROM @item i JOIN @name n ON n.code = i.type "
                "JOIN @feedback f ON f.id = i.id AND f.type = n.name "
                "WHERE i.doc = ? AND f.seq <= ?",
                (int(doc), seq),
            )[0]
            liked[place] = (good - 2 * bad) / (good + 2 * bad + 1)
        return liked

    def _pinned(self, db: Database, request: Request) -> list[int]:
        docs = []
        for text in request.pinned:
            link = Link.parse(text)
            rows = db.rows(
                "SELECT i.doc FROM @item i JOIN @name n ON n.code = i.type WHERE i.id = ? AND "
                "n.name = ? AND i.since <= ? AND coalesce(i.until, ?) > ?",
                (link.id, link.type, request.seq, request.seq + 1, request.seq),
            )
            if not rows:
                raise Invalid(
                    f"{text} is pinned, and there is none in the state after entry {request.seq}.",
                    link=text,
                )
            docs.append(int(rows[0][0]))
        return list(dict.fromkeys(docs))

    # -- reading -----------------------------------------------------------------------------

    def links_of(self, db: Database, docs: Sequence[int]) -> dict[int, Link]:
        """Links to rows, pinned to their versions."""
        found: dict[int, Link] = {}
        for doc, type, id, blob in db.rows(
            f"SELECT i.doc, n.name, i.id, i.blob FROM {db.listed} CROSS JOIN @item i "
            "CROSS JOIN @name n WHERE i.doc = d.value AND n.code = i.type",
            (db.listing(docs),),
        ):
            found[int(doc)] = Link(type, id, BlobId(blob))
        return found

    def superseded(self, db: Database, docs: Sequence[int], seq: int) -> dict[int, int]:
        """Rows that a row which holds after an entry takes the place of, and which one."""
        code = self._projection.code("memories.supersedes")
        if code < 0 or not docs or not db.rows("SELECT 1 FROM @link LIMIT 1"):
            return {}
        arena = self._arena
        found: dict[int, int] = {}
        for doc, by in db.rows(
            f"SELECT i.doc, l.doc FROM {db.listed} CROSS JOIN @item i CROSS JOIN @name n "
            "CROSS JOIN @link l WHERE i.doc = d.value AND n.code = i.type AND l.id = i.id "
            "AND l.type = n.name AND l.field = ? ORDER BY 1, 2",
            (db.listing(docs), code),
        ):
            if by != doc and by < arena.size and arena.since[by] <= seq < arena.until[by]:
                found[int(doc)] = int(by)
        return found

    @property
    def arena(self) -> Arena:
        """The arrays."""
        return self._arena

    @property
    def counter(self) -> Callable[[str], int] | None:
        """What counts tokens, where it is not the estimate."""
        return self._counter

    @property
    def projection(self) -> Projection:
        """What is searched."""
        return self._projection


def _together(one: Any, other: Any) -> Docs:
    """Rows of both, ascending, each once. numpy's own `union1d` loads a room of numpy that nothing
    else here needs, for as long as ten answers take.
    """
    found: Docs = np.sort(np.concatenate([one, other]))
    return found[np.diff(found, prepend=-1) > 0]
