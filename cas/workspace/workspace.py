"""The workspace: the domain over one store, as users hold it.

Floor 6. Invariant: every answer of the workspace itself is about the newest state of its branch;
`at` gives one that stays where it is. What belongs to a context is asked of the store in which the
context lives. Any thread may use it; a unit of work belongs to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Collection as Many
from types import TracebackType
from typing import Any, Self, TypeVar

from cas.errors import AggregateConflict, ConditionFailed, EntryNotFound, Invalid, RefConflict
from cas.history.core import Core
from cas.history.revision import AsOf
from cas.history.store import Store
from cas.history.view import View
from cas.limits import WORK_ATTEMPTS_MAX, WORK_OPTIMISTIC_MAX
from cas.model.entry import Entry
from cas.workspace import branches, declaring
from cas.workspace.branches import BranchMerge
from cas.workspace.contexts import HOME, Context, Declared, visible
from cas.workspace.events import CAUSE, CORRELATION, DomainEvent, Position, read_events
from cas.workspace.layout import MAIN, branch_names, context_branch, no_branch
from cas.workspace.placement import Given, Places
from cas.workspace.reading import Reader
from cas.workspace.streams import Sourced
from cas.workspace.unit import Asked, OnConflict
from cas.workspace.views import Reading, WorkspaceView
from cas.workspace.work import UnitOfWork
from cas.workspace.working import WorkingFolders

R = TypeVar("R")
S = TypeVar("S", bound=Sourced)


class Queue:
    """A turn among those who try again, one at a time in all processes. Used once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> Queue:
        self._elect()
        return self

    def _elect(self) -> None:
        clock, catalog = self._store.objects.clock, self._store.objects.catalog
        while True:
            self._turn = catalog.elect("work")
            if self._turn.__enter__() is not None:
                return
            self._turn.__exit__(None, None, None)
            clock.sleep_ms(1)

    def __exit__(self, *_: object) -> None:
        self._turn.__exit__(None, None, None)


class Workspace(Reading, WorkingFolders):
    """The domain over a store: `cas.Workspace(store)`.

    `places` is how it comes to other stores in which contexts live: a function that opens an
    address, such as `cas.open`, or open stores by address. What it opens itself `close` closes;
    the store that it was given stays its owner's.
    """

    def __init__(self, store: Store, *, branch: str = MAIN, places: Given | Places = None) -> None:
        if not isinstance(store, Store):
            raise Invalid(f"A workspace stands over an open store (`cas.open`), not {store!r}.")
        self.store = store
        self.branch_name = branch
        self._declared = Declared()
        self._places = places if isinstance(places, Places) else Places(store, places)
        context_branch("x", branch)

    def __repr__(self) -> str:
        return f"<Workspace {self.branch_name} of {self.store!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the stores that were opened because contexts live there; harmless when there are
        none, or when called twice.
        """
        self._places.close()

    @property
    def core(self) -> Core:
        """The store below."""
        return self.store.core

    def store_of(self, context: str) -> Store:
        """The store in which a context lives. Raises `StoreNotFound`, `NotAsExpected`, and what
        opening one raises.
        """
        return self._places.store_of(self.contexts().get(context))

    def place(self, context: str) -> Workspace:
        """The workspace over the store in which a context lives, for its events, subscriptions and
        positions: this one where it lives here. Raises what `store_of` does.
        """
        store = self.store_of(context)
        return self if store is self.store else Workspace(store, branch=self.branch_name)

    def stores(self) -> dict[str, Store]:
        """All stores of the workspace by id, its own first. Raises what `store_of` does."""
        found = {self.store.id: self.store}
        for context in self.contexts().values():
            store = self._places.store_of(context)
            found[store.id] = store
        return found

    def _elsewhere(self) -> branches.Elsewhere:
        """Other stores, and which contexts live there."""
        found: dict[str, tuple[Store, set[str]]] = {}
        for name, context in self.contexts().items():
            if context.place:
                store = self._places.store_of(context)
                found.setdefault(store.id, (store, set()))[1].add(name)
        return tuple(found.values())

    def _reader(self, context: str = HOME) -> Reader:
        home = self._reader_of(self.store.view())
        if context == HOME:
            return home
        declared = self._declared.now(home).get(context)
        if declared is None or not declared.place:
            return home
        store = self._places.store_of(declared)
        return Reader(store.core, store.view(), self.branch_name)

    def _reader_of(self, view: View) -> Reader:
        return Reader(self.core, view, self.branch_name)

    def contexts(self) -> Mapping[str, Context]:
        """The bounded contexts that were declared, by name."""
        return self._declared.now(self._reader())

    def now(self) -> WorkspaceView:
        """The workspace as it is now, staying there: several readings of one moment."""
        return WorkspaceView(self._reader(), self._declared, self._places, Store.view)

    def at(self, seq: AsOf | None = None, *, time_us: int | None = None) -> WorkspaceView:
        """The workspace after an entry, or as of a time (µs since 1970 UTC), as `Store.at`.

        Contexts in other stores are read as of that time, which is as exact as the clocks agree.
        Raises `EntryNotFound`, `BeforeHorizon`.
        """
        reader = self._reader_of(self.store.at(seq, time_us=time_us))

        def when(store: Store) -> View:
            wanted = time_us
            if wanted is None:
                wanted = 0 if not reader.seq else self.store.entry(reader.seq).time_us
            try:
                return store.at(time_us=wanted)
            except EntryNotFound:
                return store.at(0)

        return WorkspaceView(reader, self._declared, self._places, when)

    def rebuild(
        self, cls: type[S], id: str, *, version: int | None = None, as_of: AsOf | None = None
    ) -> S:
        """An event-sourced aggregate as the fold of its events: all of them, those up to a version,
        or those that were there as of an entry or a time (as `at` takes it).

        Raises `AggregateNotFound`, `Invalid`, what its `apply` raises; with `as_of` `EntryNotFound`
        and `BeforeHorizon`.
        """
        if as_of is None:
            return super().rebuild(cls, id, version=version)
        return self.at(as_of).rebuild(cls, id, version=version)

    # -- writing -----------------------------------------------------------------------------

    def unit_of_work(
        self,
        actor: str,
        message: str = "",
        *,
        key: str | None = None,
        on_conflict: OnConflict = "raise",
        cause: DomainEvent | str | None = None,
        correlation: str | None = None,
    ) -> UnitOfWork:
        """Begin a unit of work. Nothing is visible before its `commit`.

        It commits in one store: that of the first context that it touches. One that lives in
        another store is refused then (`AcrossStores`).

        `key` is an idempotency key: of all units with one key, one commits, and the others give
        its entry. With `on_conflict="keep"` fields that no rule merges do not refuse the commit:
        the aggregate keeps what stood, and a `OpenConflict` beside it holds both sides. `cause` (an
        event) and `correlation` stand in the headers of every event of this unit; what a cause
        belongs to, its effects do too.
        """
        headers: dict[str, str] = {}
        if isinstance(cause, DomainEvent):
            headers[CAUSE] = cause.id
            headers[CORRELATION] = cause.correlation or cause.id
        elif cause is not None:
            headers[CAUSE] = cause
        if correlation is not None:
            headers[CORRELATION] = correlation
        asked = Asked(actor, message, key, self.branch_name, on_conflict, headers)
        reader = self._reader()
        declared = self._declared.now(reader)
        return UnitOfWork(self.store, reader, asked, declared, self._places)

    def run(
        self,
        work: Callable[[UnitOfWork], R],
        actor: str,
        message: str = "",
        *,
        attempts_max: int = WORK_ATTEMPTS_MAX,
        **how: Any,
    ) -> R:
        """Do `work(uow)` and commit, anew while others change what it rests on; gives its result.

        After a few tries it queues behind others that also try again, so that nobody starves.
        `work` must have no effect but through its unit of work. `how` goes to `unit_of_work`.
        Raises the last conflict when `attempts_max` tries were not enough.
        """
        if attempts_max < 1:
            raise Invalid(f"`attempts_max` is 1 or more, not {attempts_max}.")
        tried = 0
        while True:
            tried += 1
            try:
                if tried <= WORK_OPTIMISTIC_MAX:
                    return self._once(work, actor, message, how)
                with self._queue():
                    return self._once(work, actor, message, how)
            except (AggregateConflict, ConditionFailed, RefConflict):
                if tried >= attempts_max:
                    raise

    def _once(
        self, work: Callable[[UnitOfWork], R], actor: str, message: str, how: dict[str, Any]
    ) -> R:
        with self.unit_of_work(actor, message, **how) as uow:
            result = work(uow)
            uow.commit()
            return result

    def _queue(self) -> Queue:
        return Queue(self.store)

    # -- contexts and branches -----------------------------------------------------------------

    def declare(self, context: Context, actor: str, *, force: bool = False) -> Entry:
        """Declare a bounded context, or change what is declared of it.

        With another `place` the context moves: its branches are copied to that store, and what
        comes later is written there. With `force` the store in which it lived before is left as it
        is, unread: for one that is gone. Raises `Invalid`, `NotAllowed`, `RefConflict` where both
        stores have branches of it that went apart, and what opening and copying raise.
        """
        return declaring.declare(self._places, context, actor, force=force)

    def branch(self, name: str, *, actor: str = "", create: bool = True) -> Workspace:
        """The workspace on a branch of that name, made where this one stands unless it is there.

        Nothing is copied. Raises `RefNotFound` for one that is not there with `create=False`.
        """
        if not branches.branch_refs(self.store.view(), name):
            if not create:
                if name not in self.branches():
                    raise no_branch(name)
                return Workspace(self.store, branch=name, places=self._places)
            branches.create(self.store, name, self.branch_name, actor, self._elsewhere())
        return Workspace(self.store, branch=name, places=self._places)

    def check_branch(self) -> None:
        """Raise `RefNotFound` unless this branch of the workspace is there; the main one always
        is, though nothing be in it.
        """
        if self.branch_name != MAIN and self.branch_name not in self.branches():
            raise no_branch(self.branch_name)

    def branches(self) -> list[str]:
        """All branches of the workspace."""
        found = set(branch_names(self.store.view()))
        for store, contexts in self._elsewhere():
            found |= set(branch_names(store.view(), contexts))
        return sorted(found)

    def merge(
        self, branch: str, *, actor: str, message: str = "", on_conflict: OnConflict = "raise"
    ) -> BranchMerge:
        """Bring what another branch of the workspace changed into this one, in one entry a store.

        Aggregates that both sides changed are merged by the rules of their types. Raises
        `AggregateConflict` for what these do not merge, unless `on_conflict="keep"`;
        `LimitExceeded`; `RefNotFound`.
        """
        into, elsewhere, declared = self.branch_name, self._elsewhere(), self.contexts()
        return branches.merge(
            self.store, branch, into, actor, message, on_conflict, declared, elsewhere
        )

    def drop_branch(self, name: str, *, actor: str) -> Entry:
        """Remove a branch of the workspace; undo brings it back. Raises `RefNotFound`."""
        return branches.drop(self.store, name, actor, self._elsewhere())

    # -- events ------------------------------------------------------------------------------

    def events(
        self,
        after: Position | int | str = 0,
        types: Many[str] | None = None,
        *,
        limit: int | None = None,
        seen_by: str | None = None,
    ) -> Iterator[DomainEvent]:
        """Events behind a position, oldest first; of these types, where any are said.

        A type such as `sprint.*` stands for all that begin with `sprint.`. With `seen_by` those
        that a context sees: its own, and what others publish. Positions and events are those of
        the store in which that context lives; without it, of the store of the workspace.
        """
        position = to_position(after)
        start = position.seq - (position.index >= 0)
        store = self.store if seen_by is None else self.store_of(seen_by)
        found = read_events(store.core, store.journal(max(start, 0)), position, types)
        if seen_by is not None:
            found = visible(found, seen_by, self.contexts())
        return found if limit is None else _first(found, limit)

    def last_event(self) -> Position:
        """The position behind everything that there is now."""
        return Position(self.store.view().seq)


def to_position(after: Position | int | str) -> Position:
    """A position from what a caller gives: one, an entry, or text. Raises `Invalid`."""
    if isinstance(after, Position):
        return after
    if isinstance(after, str):
        return Position.parse(after)
    if not isinstance(after, int) or isinstance(after, bool) or after < 0:
        raise Invalid(f"A position is an entry, a Position, or text such as 17.0, not {after!r}.")
    return Position(after)


def _first(events: Iterator[DomainEvent], limit: int) -> Iterator[DomainEvent]:
    for _count, event in zip(range(limit), events, strict=False):
        yield event
