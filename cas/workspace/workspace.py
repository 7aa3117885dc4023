"""The workspace: the domain over one store, as users hold it.

Floor 6. Invariant: every answer of the workspace itself is about the newest state of its branch;
`at` gives one that stays where it is. Any thread may use it; a unit of work belongs to one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from collections.abc import Collection as Many
from typing import Any, TypeVar

from cas.errors import AggregateConflict, ConditionFailed, Invalid, RefConflict
from cas.history.core import Core
from cas.history.store import Store
from cas.history.view import View
from cas.limits import WORK_ATTEMPTS_MAX, WORK_OPTIMISTIC_MAX
from cas.model.entry import Entry
from cas.model.ids import Kind
from cas.model.names import HEADS
from cas.objects.content import BlobReader
from cas.workspace import branches
from cas.workspace.artifacts import Artifact
from cas.workspace.branches import BranchMerge
from cas.workspace.clashes import OpenConflict
from cas.workspace.codec import from_record, typed
from cas.workspace.contexts import Context, Declared, visible
from cas.workspace.events import CAUSE, CORRELATION, DomainEvent, Position, read_events
from cas.workspace.layout import CONFLICTS, MAIN, context_branch, context_of, file_path
from cas.workspace.links import Link
from cas.workspace.memories import Memory
from cas.workspace.planning import Agent, Decision, Project, Run, Sprint
from cas.workspace.reading import Collection, Reader
from cas.workspace.registry import Aggregate, type_named, type_of
from cas.workspace.streams import Sourced, StreamEvent, rebuild, stream
from cas.workspace.unit import Asked, OnConflict
from cas.workspace.work import UnitOfWork
from cas.workspace.working import WorkingFolders

T = TypeVar("T", bound=Aggregate)
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


class Artifacts(Collection[Artifact]):
    """Artifacts as of one moment, with their contents."""

    def read(self, name: str) -> bytes:
        """The content of an artifact. Raises `PathNotFound`."""
        return self._reader.snapshot(self.type.context).read(file_path(name))

    def open(self, name: str) -> BlobReader:
        """The content as a seekable stream, of any size. Raises `PathNotFound`."""
        return self._reader.snapshot(self.type.context).open(file_path(name))


class Reading(ABC):
    """What can be read of a workspace, now or at a moment."""

    @abstractmethod
    def _reader(self) -> Reader:
        """What the collections read from."""

    def collection(self, cls: type[T]) -> Collection[T]:
        """The aggregates of a type, a user's own included."""
        return Collection(self._reader(), cls)

    @property
    def memories(self) -> Collection[Memory]:
        """What agents remember."""
        return self.collection(Memory)

    @property
    def artifacts(self) -> Artifacts:
        """Content with names and provenance."""
        return Artifacts(self._reader(), Artifact)

    @property
    def projects(self) -> Collection[Project]:
        """Projects."""
        return self.collection(Project)

    @property
    def sprints(self) -> Collection[Sprint]:
        """Sprints."""
        return self.collection(Sprint)

    @property
    def agents(self) -> Collection[Agent]:
        """Agents."""
        return self.collection(Agent)

    @property
    def decisions(self) -> Collection[Decision]:
        """Decisions."""
        return self.collection(Decision)

    @property
    def runs(self) -> Collection[Run]:
        """What agents did."""
        return self.collection(Run)

    def resolve(self, link: Link) -> Aggregate:
        """What a link names: the pinned version where it is pinned, else what it is here.

        Raises `AggregateNotFound`, `UnknownType`; `ObjectNotFound` where the pinned version was
        given up since.
        """
        type = type_named(link.type)
        if link.pin is None:
            return Collection(self._reader(), type.cls).get(link.id)
        return self._reader().load(type, link.pin)

    def is_stale(self, link: Link) -> bool:
        """Whether what a pinned link names has changed, or gone, since it was made."""
        type = type_named(link.type)
        return link.pin is not None and self._reader().record(type, link.id) != link.pin

    def conflicts(self) -> Iterator[OpenConflict]:
        """Conflicts that were kept and are still to be settled, context by context."""
        reader = self._reader()
        for context in self.context_names():
            snapshot = reader.snapshot(context)
            if snapshot.entry(CONFLICTS) is None:
                continue
            for _path, entry in snapshot.walk(CONFLICTS):
                data = reader.core.objects.get(entry.id, Kind.BLOB)
                yield typed(from_record(data), OpenConflict)

    def rebuild(self, cls: type[S], id: str, *, version: int | None = None) -> S:
        """An event-sourced aggregate as the fold of its events: all of them, or those up to a
        version. Raises `AggregateNotFound`, and what its `apply` raises.
        """
        return rebuild(self._reader(), cls, id, version=version)

    def stream(self, cls: type[S], id: str) -> Iterator[StreamEvent]:
        """The events of an event-sourced aggregate, oldest first."""
        return stream(self._reader(), type_of(cls), id)

    def contexts(self) -> dict[str, Context]:
        """The bounded contexts that were declared, by name."""
        reader = self._reader()
        return {each.id: each for each in Collection(Reader(reader.core, reader.view), Context)}

    def context_names(self) -> list[str]:
        """The contexts in which something was written, ascending."""
        reader = self._reader()
        found = (context_of(ref.name) for ref in reader.view.refs(HEADS))
        return sorted(each[0] for each in found if each and each[1] == reader.branch)


class WorkspaceView(Reading):
    """A workspace as of one moment; it never moves. Any thread may use it."""

    def __init__(self, reader: Reader) -> None:
        self._fixed = reader

    def _reader(self) -> Reader:
        return self._fixed

    @property
    def seq(self) -> int:
        """The journal entry that it stands after."""
        return self._fixed.seq


class Workspace(Reading, WorkingFolders):
    """The domain over a store: `cas.Workspace(store)`."""

    def __init__(self, store: Store, *, branch: str = MAIN) -> None:
        self.store = store
        self.branch_name = branch
        self._declared = Declared()
        context_branch("x", branch)

    def __repr__(self) -> str:
        return f"<Workspace {self.branch_name} of {self.store!r}>"

    @property
    def core(self) -> Core:
        """The store below."""
        return self.store.core

    def _reader(self) -> Reader:
        return self._reader_of(self.store.view())

    def _reader_of(self, view: View) -> Reader:
        return Reader(self.core, view, self.branch_name)

    def now(self) -> WorkspaceView:
        """The workspace as it is now, staying there: several readings of one moment."""
        return WorkspaceView(self._reader())

    def at(self, seq: int | None = None, *, time_us: int | None = None) -> WorkspaceView:
        """The workspace after an entry, or as of a time (µs since 1970 UTC).

        Raises `EntryNotFound`, `BeforeHorizon`.
        """
        return WorkspaceView(self._reader_of(self.store.at(seq, time_us=time_us)))

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
        return UnitOfWork(self.store, reader, asked, self._declared.now(reader))

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

    def declare(self, context: Context, actor: str) -> Entry:
        """Declare a bounded context, or change what is declared of it."""
        main = self if self.branch_name == MAIN else Workspace(self.store)
        with main.unit_of_work(actor, f"context {context.id}") as uow:
            old = uow.find_one(Context, context.id)
            uow.save(context.evolve(origin=None if old is None else old.origin))
            return uow.commit()

    def branch(self, name: str, *, actor: str = "", create: bool = True) -> Workspace:
        """The workspace on a branch of that name, made where this one stands unless it is there.

        Nothing is copied. Raises `RefNotFound` for one that is not there with `create=False`.
        """
        there = branches.branch_refs(self.store.view(), name)
        if not there:
            if not create:
                raise branches.no_branch(name)
            branches.create(self.store, name, self.branch_name, actor)
        return Workspace(self.store, branch=name)

    def branches(self) -> list[str]:
        """All branches of the workspace."""
        return branches.branch_names(self.store.view())

    def merge(
        self, branch: str, *, actor: str, message: str = "", on_conflict: OnConflict = "raise"
    ) -> BranchMerge:
        """Bring what another branch of the workspace changed into this one, in one entry.

        Aggregates that both sides changed are merged by the rules of their types. Raises
        `AggregateConflict` for what these do not merge, unless `on_conflict="keep"`;
        `RefNotFound`.
        """
        return branches.merge(self.store, branch, self.branch_name, actor, message, on_conflict)

    def drop_branch(self, name: str, *, actor: str) -> Entry:
        """Remove a branch of the workspace; undo brings it back. Raises `RefNotFound`."""
        return branches.drop(self.store, name, actor)

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
        that a context sees: its own, and what others publish.
        """
        position = to_position(after)
        start = position.seq - (position.index >= 0)
        found = read_events(self.core, self.store.journal(max(start, 0)), position, types)
        if seen_by is not None:
            found = visible(found, seen_by, self._declared.now(self._reader()))
        return found if limit is None else _first(found, limit)

    def last_event(self) -> Position:
        """The position behind everything that there is now."""
        return Position(self.store.view().seq)


def to_position(after: Position | int | str) -> Position:
    """A position from what a caller gives: one, an entry, or text. Raises `Invalid`."""
    if isinstance(after, Position):
        return after
    return Position.parse(after) if isinstance(after, str) else Position(after)


def _first(events: Iterator[DomainEvent], limit: int) -> Iterator[DomainEvent]:
    for _count, event in zip(range(limit), events, strict=False):
        yield event
