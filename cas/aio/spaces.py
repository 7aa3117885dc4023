"""A workspace for an event loop: collections, units of work, branches, working folders.

Floor 9. Invariant: a unit of work has ended when its block has, also when its task was cancelled;
`entry` says what it committed, and where even that is not known, `txid` is what to ask with.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from os import PathLike
from typing import Self, TypeVar

from cas.aio.moves import soon
from cas.aio.parts import Ending
from cas.aio.spacecalls import SpaceCalls, ViewCalls
from cas.aio.store import AsyncStore, Opening
from cas.aio.threads import Threads, to_the_end
from cas.aio.unitcalls import (
    AsyncArtifacts,
    AsyncCollection,
    AsyncUnitArtifacts,
    AsyncUnitCollection,
    AsyncUnitMemories,
    UnitCalls,
)
from cas.history.store import Store
from cas.limits import FOLDER_NEW_MAX
from cas.model.entry import Entry
from cas.workspace.checkouts import EXTERNAL
from cas.workspace.events import DomainEvent
from cas.workspace.folders import FolderReport
from cas.workspace.layout import MAIN
from cas.workspace.memories import Memory
from cas.workspace.placement import Given
from cas.workspace.planning import Agent, Decision, Project, Run, Sprint
from cas.workspace.registry import Aggregate
from cas.workspace.unit import OnConflict
from cas.workspace.views import Reading
from cas.workspace.work import UnitOfWork
from cas.workspace.workspace import Workspace

T = TypeVar("T", bound=Aggregate)


class _Collections(ABC):
    """The collections of a workspace, or of a view of one."""

    _threads: Threads

    @abstractmethod
    def _reading(self) -> Reading:
        """What they are read from."""

    def collection(self, cls: type[T]) -> AsyncCollection[T]:
        """The aggregates of a type, a user's own included."""
        return AsyncCollection(lambda: self._reading().collection(cls), self._threads)

    @property
    def memories(self) -> AsyncCollection[Memory]:
        """What agents remember."""
        return self.collection(Memory)

    @property
    def artifacts(self) -> AsyncArtifacts:
        """Content with names and provenance."""
        return AsyncArtifacts(lambda: self._reading().artifacts, self._threads)

    @property
    def projects(self) -> AsyncCollection[Project]:
        """Projects."""
        return self.collection(Project)

    @property
    def sprints(self) -> AsyncCollection[Sprint]:
        """Sprints."""
        return self.collection(Sprint)

    @property
    def agents(self) -> AsyncCollection[Agent]:
        """Agents."""
        return self.collection(Agent)

    @property
    def decisions(self) -> AsyncCollection[Decision]:
        """Decisions."""
        return self.collection(Decision)

    @property
    def runs(self) -> AsyncCollection[Run]:
        """What agents did."""
        return self.collection(Run)


class AsyncWorkspaceView(_Collections, ViewCalls):
    """A workspace as of one moment; it never moves."""

    def _reading(self) -> Reading:
        return self.sync

    @property
    def seq(self) -> int:
        """The journal entry that it stands after."""
        return self.sync.seq


class AsyncUnitOfWork(Ending[UnitOfWork], UnitCalls):
    """A unit of work; `store` is the one to ask for the outcome of a commit without an answer."""

    @property
    def actor(self) -> str:
        """Who."""
        return self.sync.actor

    @property
    def clock(self) -> object:
        """The store's clock."""
        return self.sync.clock

    @property
    def store(self) -> Store:
        """The store in which it commits: that of the first context that it touches."""
        return self.sync.store

    @property
    def already(self) -> Entry | None:
        """The entry that a unit of work with this key has made before."""
        return self.sync.already

    def collection(self, cls: type[T]) -> AsyncUnitCollection[T]:
        """The aggregates of a type, a user's own included."""
        return AsyncUnitCollection(self.sync.collection(cls), self._threads, self._lock)

    @property
    def memories(self) -> AsyncUnitMemories:
        """What agents remember."""
        return AsyncUnitMemories(self.sync.memories, self._threads, self._lock)

    @property
    def artifacts(self) -> AsyncUnitArtifacts:
        """Content with names and provenance."""
        return AsyncUnitArtifacts(self.sync.artifacts, self._threads, self._lock)

    @property
    def projects(self) -> AsyncUnitCollection[Project]:
        """Projects."""
        return self.collection(Project)

    @property
    def sprints(self) -> AsyncUnitCollection[Sprint]:
        """Sprints."""
        return self.collection(Sprint)

    @property
    def agents(self) -> AsyncUnitCollection[Agent]:
        """Agents."""
        return self.collection(Agent)

    @property
    def decisions(self) -> AsyncUnitCollection[Decision]:
        """Decisions."""
        return self.collection(Decision)

    @property
    def runs(self) -> AsyncUnitCollection[Run]:
        """What agents did."""
        return self.collection(Run)


class _Ends:
    """What ends a watch when its task is cancelled."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def cancel(self) -> None:
        """End it."""
        self._stop.set()


class AsyncWorkspace(_Collections, SpaceCalls):
    """The domain over a store, for an event loop. Make one with `cas.aio.workspace(store)`."""

    def _reading(self) -> Reading:
        return self.space

    @property
    def branch_name(self) -> str:
        """The branch of the workspace that it is on."""
        return self.space.branch_name

    def unit_of_work(
        self,
        actor: str,
        message: str = "",
        *,
        key: str | None = None,
        on_conflict: OnConflict = "raise",
        cause: DomainEvent | str | None = None,
        correlation: str | None = None,
    ) -> Opening[AsyncUnitOfWork]:
        """Begin a unit of work: `async with space.unit_of_work("ada") as uow`.

        All as in the synchronous one. After a cancelled `commit` ask `uow.entry`.
        """

        async def make() -> AsyncUnitOfWork:
            made = await self._run(
                lambda: self.space.unit_of_work(
                    actor,
                    message,
                    key=key,
                    on_conflict=on_conflict,
                    cause=cause,
                    correlation=correlation,
                ),
                discard=lambda unit: unit.rollback(),
            )
            return AsyncUnitOfWork(made, self._threads)

        return Opening(make)

    async def now(self) -> AsyncWorkspaceView:
        """The workspace as it is now, staying there: several readings of one moment."""
        return AsyncWorkspaceView(await self._run(self.space.now), self._threads)

    async def at(self, seq: int | None = None, *, time_us: int | None = None) -> AsyncWorkspaceView:
        """The workspace after an entry, or as of a time (µs since 1970 UTC).

        Raises `EntryNotFound`, `BeforeHorizon`.
        """
        made = await self._run(lambda: self.space.at(seq, time_us=time_us))
        return AsyncWorkspaceView(made, self._threads)

    async def branch(self, name: str, *, actor: str = "", create: bool = True) -> AsyncWorkspace:
        """The workspace on a branch of that name, made where this one stands unless it is there.

        Raises `RefNotFound` for one that is not there with `create=False`.
        """
        made = await self._run(lambda: self.space.branch(name, actor=actor, create=create))
        return AsyncWorkspace(made, self._threads)

    async def place(self, context: str) -> AsyncWorkspace:
        """The workspace over the store in which a context lives."""
        return AsyncWorkspace(await self._run(lambda: self.space.place(context)), self._threads)

    async def watch(
        self,
        folder: str | PathLike[str],
        *,
        actor: str,
        on_report: Callable[[FolderReport], None],
        stop: threading.Event,
        interval_ms: int = 1000,
        author: str = EXTERNAL,
        new_max: int = FOLDER_NEW_MAX,
    ) -> None:
        """`sync` whenever folder or branch changed, and renew the lease, until `stop` is set.

        It holds one thread of the store. `on_report` is called in this event loop. When the task
        is cancelled, `stop` is set and the end waited for.
        """
        loop = asyncio.get_running_loop()
        await self._run(
            lambda: self.space.watch(
                folder,
                actor=actor,
                on_report=lambda report: soon(loop, lambda: on_report(report)),
                stop=stop,
                interval_ms=interval_ms,
                author=author,
                new_max=new_max,
            ),
            waits=(_Ends(stop),),
        )

    async def close(self) -> None:
        """Close the stores that were opened because contexts live there; not the store itself."""
        await to_the_end(self._run(self.space.close))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def workspace(store: AsyncStore, *, branch: str = MAIN, places: Given = None) -> AsyncWorkspace:
    """The workspace over a store that `cas.aio.open` gave; all as in `cas.Workspace`.

    `places` opens stores for threads, as `cas.open` does.
    """
    return AsyncWorkspace(Workspace(store.sync, branch=branch, places=places), store.threads)
