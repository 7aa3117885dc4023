"""Recall and search over one branch of a workspace: what a program holds.

Floor 7. Invariant: every question is about one state, the newest unless `as_of` says another, and
the handle's own last commit is always among what the newest shows. Any thread may use it.

    with Recall(store) as recall:
        context = recall.recall("how do we ship?", agent="planner", budget_tokens=2_000)
        print(context.text, context.counts)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

from attrs import evolve

from cas.errors import Corrupt, EntryNotFound, Invalid, NotFound
from cas.history.horizon import check_seq
from cas.history.revision import AsOf as Named
from cas.history.revision import When, when_of
from cas.history.store import Store
from cas.model.ids import BlobId
from cas.recall.embed import Embedder, default_embedder, need_numpy
from cas.recall.engine import Engine
from cas.recall.feedback import FEEDBACK, Verdict, feedback_event
from cas.recall.find import Finder, Page, ask, read_page, seq_of
from cas.recall.fulltext import snippets
from cas.recall.keeping import Keeping
from cas.recall.linked import Linked, Stale, links_from, links_to, stale
from cas.recall.models import ModelState
from cas.recall.projection import Followed, Projection
from cas.recall.recalled import Recalled, Request
from cas.recall.receipts import Receipt, request_of, save
from cas.recall.score import Scoring
from cas.recall.sentences import SentenceEmbedder
from cas.recall.text import clean
from cas.recall.tokens import Counter
from cas.recall.where import condition_of, plain, to_text
from cas.workspace.codec import to_record
from cas.workspace.layout import MAIN, context_branch, record_path
from cas.workspace.links import Link
from cas.workspace.memories import Memory
from cas.workspace.registry import Aggregate, type_named, type_of

T = TypeVar("T", bound=Aggregate)
R = TypeVar("R")
QUERY_CHARS_MAX: Final = 32_768
"""Of a longer query this much is searched for, and a notice says so."""
MARGIN: Final = 0.05
"""Part of a budget that is kept free, because tokens are estimated."""

AsOf = Named | None
"""A state: the number of an entry, a time, either as text, a revision, None for the newest."""


class Recall:
    """Recall and search. `embedder=None` makes no vectors, and searches by words alone; by default
    the model of the package serves. That and `recall` need numpy, the other calls do not. `former`
    is the model that `embedder` takes the place of: it serves until each row has a vector of the
    new one, some of which are made with each catching up. "sentences" is the better model on this
    machine (`cas.SentenceEmbedder`). `counter` counts tokens exactly (`cas.exact_tokens`); else
    they are estimated. `index` says where the search index lies: "database" (beside a catalog on
    PostgreSQL, shared by all hosts; the default there), "cache" (a file in the store's cache; the
    default elsewhere), or a file.
    """

    def __init__(
        self,
        store: Store,
        *,
        branch: str = MAIN,
        embedder: Embedder | str | None = "default",
        former: Embedder | str | None = None,
        counter: Counter | None = None,
        index: str | None = None,
    ) -> None:
        if not isinstance(store, Store):
            raise Invalid(f"Recall stands over an open store (`cas.open`), not {store!r}.")
        self.store = store
        self.projection = Projection(
            store, branch=branch, embedder=_given(embedder), former=_given(former), index=index
        )
        self._lock = threading.Lock()
        self._keeping: Keeping | None = None
        self._engine = Engine(self.projection, counter)

    def __enter__(self) -> Recall:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the search database; the store stays open."""
        with self._lock:
            keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.close()
        with self._lock:
            self._engine.close()
        self.projection.close()

    def models(self) -> list[ModelState]:
        """The models whose vectors the index has, how far each is, and which one serves."""
        self.position()
        return self.projection.read(self.projection.models.states)

    def follow(self) -> Followed:
        """Catch up with the journal now; questions about the newest state do so themselves."""
        return self.projection.follow()

    def keep_up(self) -> None:
        """From now on catch up on a thread of its own, many commits at a time, so that a question
        finds little left to take in. `close` ends it; said twice it is one thread.
        """
        with self._lock:
            if self._keeping is None:
                self._keeping = Keeping(self.store, self.projection)

    def position(self, as_of: AsOf = None) -> int:
        """The entry whose state a question is about, to which the index goes by now.

        Raises `EntryNotFound`, `BeforeHorizon`, `Invalid`.
        """
        if as_of is None:
            return self.projection.follow().seq
        seq, time_us = self._when(as_of)
        if seq is None or not 0 <= seq <= self.projection.seq:
            # What the index has seen was there; asking the store would replay entries.
            seq = self.store.at(seq, time_us=time_us).seq
        if seq > self.projection.seq:
            self.projection.follow()
        check_seq(self.store.core, seq)
        return seq

    def _when(self, as_of: Named) -> When:
        try:
            return when_of(as_of)
        except Invalid:
            if not isinstance(as_of, str):
                raise
            try:
                made = self.store.resolve(as_of)
            except (NotFound, Invalid):
                made = None
            if made is None:
                # Neither: what a moment is says the error.
                raise
        # It was made a moment before its entry.
        before_us = max(0, self.store.commit(made).time_us - 1)
        try:
            start = self.store.at(time_us=before_us).seq
        except EntryNotFound:
            start = 0
        for entry in self.store.journal(start):
            if any(change.new == made for change in entry.changes):
                return When(entry.seq, None)
        raise EntryNotFound(
            f"No entry made the commit that {as_of} names here; give the number of one.", seq=None
        )

    # -- recall ------------------------------------------------------------------------------

    def recall(
        self,
        query: str | bytes,
        *,
        agent: str | None = None,
        budget_tokens: int = 2_000,
        as_of: AsOf = None,
        pinned: Sequence[Link | Aggregate] = (),
        types: Sequence[type[Aggregate]] = (Memory,),
        where: object = None,
        archived: bool = False,
        untrusted: bool = True,
        scoring: Scoring | None = None,
        margin: float = MARGIN,
        receipt: bool = False,
    ) -> Recalled:
        """What fits a query best, in a budget of tokens, with reasons for what is and is not given.

        `pinned` comes first and is never left out; more of it than the budget takes is `Invalid`.
        `where` filters before anything is ranked. With `receipt` the answer is kept as a `Receipt`,
        by an entry of its own, and `Recalled.receipt` links to it. Raises `Invalid`,
        `EntryNotFound`, `BeforeHorizon`, `Unsupported` without numpy, and what reading the store
        raises.
        """
        text = clean(query)
        notices = []
        if len(text) > QUERY_CHARS_MAX:
            text = text[:QUERY_CHARS_MAX]
            notices.append(f"of the query the first {QUERY_CHARS_MAX} characters are searched for")
        if not isinstance(budget_tokens, int) or budget_tokens < 0:
            raise Invalid(f"A budget is a number of tokens from 0 on, not {budget_tokens!r}.")
        if agent is not None and not isinstance(agent, str):
            raise Invalid(f"An agent is text, or None for all, not {agent!r}.")
        if not 0 <= margin < 1:
            raise Invalid(f"A margin is a part of the budget, from 0 to below 1, not {margin!r}.")
        request = Request(
            text,
            None if agent is None else plain(agent),
            budget_tokens,
            self.position(as_of),
            tuple(type_of(cls).name for cls in types),
            tuple(str(_link(each)) for each in pinned),
            to_text(condition_of(where)),
            archived,
            untrusted,
            margin,
            "",
            scoring or Scoring(),
        )
        recalled = self._answer(request, notices)
        if not receipt:
            return recalled
        return evolve(
            recalled, receipt=save(self.store, self.projection.branch, recalled, agent or "")
        )

    def _answer(self, request: Request, notices: Sequence[str], *, again: bool = False) -> Recalled:
        need_numpy()
        now_us = self.store.entry(request.seq).time_us if request.seq else 0
        with self._lock:
            return self._engine.recall(request, now_us, notices, again=again)

    def replay(self, request: Request | Receipt) -> Recalled:
        """The answer to a request, or to that of a receipt, once more: the same, bit for bit.

        Raises `Unsupported` where it was made with a model that this handle or the index does not
        have, and `Corrupt` where the answer is not that of the receipt.
        """
        if isinstance(request, Receipt):
            again = self.replay(request_of(request))
            if again.digest != request.digest:
                raise Corrupt(
                    f"The answer of receipt {request.id!r} cannot be given again: its digest is "
                    f"{request.digest[:16]}…, now {again.digest[:16]}….",
                    receipt=request.id,
                )
            return again
        self.position(request.seq)
        return self._answer(request, (), again=True)

    # -- feedback ----------------------------------------------------------------------------

    def feedback(self, links: Sequence[Link | Aggregate], verdict: Verdict, *, agent: str) -> int:
        """Record that memories were used, helpful or wrong, as events of one entry; its number.

        Later recalls weigh it. Raises `Invalid`.
        """
        events = [feedback_event(_link(each), verdict) for each in links]
        if not events:
            raise Invalid("Feedback is about one memory at least.")
        with self.store.begin(author=agent, message=f"feedback: {verdict}") as tx:
            for event in events:
                tx.event(FEEDBACK, event.body or b"")
            return tx.commit().seq

    # -- queries -----------------------------------------------------------------------------

    def find(
        self,
        cls: type[T],
        where: object = None,
        *,
        order: str | None = None,
        limit: int = 50,
        after: str | None = None,
        match: str | bytes = "",
        as_of: AsOf = None,
        archived: bool = False,
    ) -> Page[T]:
        """Aggregates of a type that fit a condition, a page at a time.

        `order` is "id", "time" (when it was written), or a field, with "-" before it the other way
        round. `match` wants words in the text. `after` is the cursor of the page before, which
        keeps to the state that its first page was of. Raises `Invalid`, `BeforeHorizon`.
        """
        asked = ask(cls, condition_of(where), order, clean(match), archived)
        seq = self.position(as_of if after is None else seq_of(after))
        return read_page(self.projection, cls, asked, seq, after, limit)

    def snippets(
        self,
        values: Sequence[Aggregate],
        match: str | bytes,
        *,
        words: int = 16,
        marks: tuple[str, str] = ("[", "]"),
    ) -> list[str]:
        """Of each aggregate a piece of its text around the words of a query, which are marked;
        the beginning of the text where it has none of them. `words`: at most 64.
        """
        projection = self.projection
        texts = [
            projection.text_of(type_of(value.__class__).name, to_record(value)) for value in values
        ]
        return snippets(texts, clean(match), words, marks)

    def count(
        self,
        cls: type[Aggregate],
        where: object = None,
        *,
        match: str | bytes = "",
        as_of: AsOf = None,
        archived: bool = False,
    ) -> int:
        """How many aggregates of a type fit a condition."""
        return self._finding(cls, where, match, as_of, archived, lambda finder: finder.count())

    def facets(
        self,
        cls: type[Aggregate],
        field: str,
        where: object = None,
        *,
        limit: int = 20,
        match: str | bytes = "",
        as_of: AsOf = None,
        archived: bool = False,
    ) -> list[tuple[Any, int]]:
        """The values of a field among what fits, with how many have each; most frequent first."""
        return self._finding(
            cls, where, match, as_of, archived, lambda finder: finder.facets(field, limit)
        )

    def explain(
        self,
        cls: type[Aggregate],
        where: object = None,
        *,
        order: str | None = None,
        match: str | bytes = "",
    ) -> list[str]:
        """How such a query is answered, in words."""
        return self._finding(cls, where, match, None, False, lambda finder: finder.explain(), order)

    def _finding(
        self,
        cls: type[Aggregate],
        where: object,
        match: str | bytes,
        as_of: AsOf,
        archived: bool,
        give: Callable[[Finder], R],
        order: str | None = None,
    ) -> R:
        asked = ask(cls, condition_of(where), order, clean(match), archived)
        seq = self.position(as_of)
        projection = self.projection
        return projection.read(lambda db: give(Finder(projection, db, asked, seq)))

    # -- links -------------------------------------------------------------------------------

    def links_from(
        self, link: Link | Aggregate, *, depth: int = 1, as_of: AsOf = None
    ) -> list[Linked]:
        """What an aggregate links to, `depth` steps far."""
        seq, start = self.position(as_of), _link(link)
        return self.projection.read(lambda db: links_from(db, start, seq, depth))

    def links_to(
        self, link: Link | Aggregate, *, depth: int = 1, as_of: AsOf = None
    ) -> list[Linked]:
        """What links to an aggregate, `depth` steps far."""
        seq, start = self.position(as_of), _link(link)
        return self.projection.read(lambda db: links_to(db, start, seq, depth))

    def stale(self, *, as_of: AsOf = None) -> list[Stale]:
        """Aggregates that link to a version which is no longer the newest, and what rests on
        them.
        """
        seq = self.position(as_of)
        return self.projection.read(lambda db: stale(db, seq))

    # -- one at a time -----------------------------------------------------------------------

    def get(self, link: Link, *, as_of: AsOf = None) -> bytes:
        """The record of an aggregate in a state. Raises `PathNotFound`."""
        type = type_named(link.type)
        view = self.store.at(self.position(as_of))
        branch = context_branch(type.context, self.projection.branch)
        if link.pin is not None:
            return self.store.get(BlobId(link.pin))
        return view.snapshot(branch).read(record_path(type, link.id))


def _given(embedder: Embedder | str | None) -> Embedder | None:
    if embedder == "default":
        return default_embedder()
    if embedder == "sentences":
        return SentenceEmbedder()
    if isinstance(embedder, str):
        raise Invalid(
            f'An embedder is an object with `embed`, "default" or "sentences", not {embedder!r}.'
        )
    return embedder


def _link(value: Link | Aggregate) -> Link:
    if isinstance(value, Aggregate):
        return value.link
    if isinstance(value, Link):
        return value.loose
    raise Invalid(f"This is neither a link nor an aggregate: {value!r}.")
