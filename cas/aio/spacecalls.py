"""Workspaces for an event loop.

Floor 9. Written by `tools/aio.py` from the synchronous calls, whose docstrings these
are; do not edit. Invariant: a call does what the synchronous one of that name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.aio.spaceparts import SpaceParts
from cas.aio.streams import Items
from cas.aio.threads import Face
from cas.workspace.views import WorkspaceView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Collection as Many
    from os import PathLike
    from typing import Any

    from cas.history.revision import AsOf
    from cas.history.store import Store
    from cas.model.entry import Entry
    from cas.workspace.branches import BranchMerge
    from cas.workspace.checkouts import Checkout
    from cas.workspace.clashes import OpenConflict
    from cas.workspace.contexts import Context
    from cas.workspace.events import DomainEvent, Position
    from cas.workspace.folders import FolderReport, FolderStatus
    from cas.workspace.links import Link
    from cas.workspace.registry import Aggregate
    from cas.workspace.streams import StreamEvent
    from cas.workspace.unit import OnConflict
    from cas.workspace.views import S
    from cas.workspace.work import UnitOfWork
    from cas.workspace.workspace import R


class ViewCalls(Face[WorkspaceView]):
    """`WorkspaceView` for an event loop."""

    async def contexts(self) -> Mapping[str, Context]:
        """The bounded contexts that were declared, by name."""
        return await self._run(lambda: self.sync.contexts())

    async def resolve(self, link: Link) -> Aggregate:
        """What a link names: the pinned version where it is pinned, else what it is here.

        Raises `AggregateNotFound`, `UnknownType`; `ObjectNotFound` where the pinned version was
        given up since.
        """
        return await self._run(lambda: self.sync.resolve(link))

    async def is_stale(self, link: Link) -> bool:
        """Whether what a pinned link names has changed, or gone, since it was made."""
        return await self._run(lambda: self.sync.is_stale(link))

    def conflicts(self) -> Items[OpenConflict]:
        """Conflicts that were kept and are still to be settled, context by context."""
        return Items(self._threads, lambda: self.sync.conflicts())

    async def rebuild(self, cls: type[S], id: str, *, version: int | None = None) -> S:
        """An event-sourced aggregate as the fold of its events: all of them, or those up to a
        version. Raises `AggregateNotFound`, `Invalid`, and what its `apply` raises.
        """
        return await self._run(lambda: self.sync.rebuild(cls, id, version=version))

    def stream(self, cls: type[S], id: str) -> Items[StreamEvent]:
        """The events of an event-sourced aggregate, oldest first."""
        return Items(self._threads, lambda: self.sync.stream(cls, id))

    async def context_names(self) -> list[str]:
        """The contexts in which something was written, ascending; those of other stores too."""
        return await self._run(lambda: self.sync.context_names())


class SpaceCalls(SpaceParts):
    """`Workspace` for an event loop."""

    async def store_of(self, context: str) -> Store:
        """The store in which a context lives. Raises `StoreNotFound`, `NotAsExpected`, and what
        opening one raises.
        """
        return await self._run(lambda: self.space.store_of(context))

    async def check_branch(self) -> None:
        """Raise `RefNotFound` unless this branch of the workspace is there; the main one always
        is, though nothing be in it.
        """
        return await self._run(lambda: self.space.check_branch())

    async def checkout(
        self,
        folder: str | PathLike[str],
        *,
        actor: str,
        sprint: str | None = None,
        lease_ms: float = 900000,
        author: str = "external",
        new_max: int = 10000,
    ) -> FolderReport:
        """Have the artifacts of this branch as files in a folder, and keep it in step.

        What stands there already is taken in, as outside changes are by `sync`. `actor` gets a
        lease of so many ms, unless somebody else's still runs: it tells who works there (for
        `sprint`, an id, if said) and refuses nothing. Raises `Invalid`, also for a folder inside
        or around another working folder, `RefNotFound` for a branch that is not there,
        `AggregateNotFound`, and what `sync` raises.
        """
        return await self._run(
            lambda: self.space.checkout(
                folder,
                actor=actor,
                sprint=sprint,
                lease_ms=lease_ms,
                author=author,
                new_max=new_max,
            )
        )

    async def status(self, folder: str | PathLike[str]) -> FolderStatus:
        """How a working folder stands to its branch; changes neither. Raises `NotCheckedOut`."""
        return await self._run(lambda: self.space.status(folder))

    async def sync(
        self, folder: str | PathLike[str], *, author: str = "external", new_max: int = 10000
    ) -> FolderReport:
        """Take in what was changed in a working folder, and bring it up to its branch.

        Everything that stands in it is in the store before anything is overwritten. What both
        sides changed is merged by line; what cannot be is a conflict (`conflicts`, `settle`) that
        holds both contents, while the folder keeps its own. `author` is whose changes they are.
        Raises `NotCheckedOut`; `LimitExceeded` for more than `new_max` new files, and then did
        nothing; what a commit and writing files raise.
        """
        return await self._run(lambda: self.space.sync(folder, author=author, new_max=new_max))

    async def release(
        self,
        folder: str | PathLike[str],
        *,
        actor: str,
        author: str = "external",
        new_max: int = 10000,
    ) -> FolderReport | None:
        """Take in what was changed in a working folder, and let go of it; its files stay.

        None for a folder that is gone. Raises as `sync`.
        """
        return await self._run(
            lambda: self.space.release(folder, actor=actor, author=author, new_max=new_max)
        )

    async def checkouts(self) -> list[Checkout]:
        """All working folders of the store, with their leases."""
        return await self._run(lambda: self.space.checkouts())

    async def contexts(self) -> Mapping[str, Context]:
        """The bounded contexts that were declared, by name."""
        return await self._run(lambda: self.space.contexts())

    async def resolve(self, link: Link) -> Aggregate:
        """What a link names: the pinned version where it is pinned, else what it is here.

        Raises `AggregateNotFound`, `UnknownType`; `ObjectNotFound` where the pinned version was
        given up since.
        """
        return await self._run(lambda: self.space.resolve(link))

    async def is_stale(self, link: Link) -> bool:
        """Whether what a pinned link names has changed, or gone, since it was made."""
        return await self._run(lambda: self.space.is_stale(link))

    def conflicts(self) -> Items[OpenConflict]:
        """Conflicts that were kept and are still to be settled, context by context."""
        return Items(self._threads, lambda: self.space.conflicts())

    async def rebuild(
        self, cls: type[S], id: str, *, version: int | None = None, as_of: AsOf | None = None
    ) -> S:
        """An event-sourced aggregate as the fold of its events: all of them, those up to a version,
        or those that were there as of an entry or a time (as `at` takes it).

        Raises `AggregateNotFound`, `Invalid`, what its `apply` raises; with `as_of` `EntryNotFound`
        and `BeforeHorizon`.
        """
        return await self._run(lambda: self.space.rebuild(cls, id, version=version, as_of=as_of))

    def stream(self, cls: type[S], id: str) -> Items[StreamEvent]:
        """The events of an event-sourced aggregate, oldest first."""
        return Items(self._threads, lambda: self.space.stream(cls, id))

    async def context_names(self) -> list[str]:
        """The contexts in which something was written, ascending; those of other stores too."""
        return await self._run(lambda: self.space.context_names())

    async def stores(self) -> dict[str, Store]:
        """All stores of the workspace by id, its own first. Raises what `store_of` does."""
        return await self._run(lambda: self.space.stores())

    async def run(
        self,
        work: Callable[[UnitOfWork], R],
        actor: str,
        message: str = "",
        *,
        attempts_max: int = 64,
        **how: Any,
    ) -> R:
        """Do `work(uow)` and commit, anew while others change what it rests on; gives its result.

        After a few tries it queues behind others that also try again, so that nobody starves.
        `work` must have no effect but through its unit of work. `how` goes to `unit_of_work`.
        Raises the last conflict when `attempts_max` tries were not enough.
        """
        return await self._run(
            lambda: self.space.run(work, actor, message, attempts_max=attempts_max, **how)
        )

    async def declare(self, context: Context, actor: str, *, force: bool = False) -> Entry:
        """Declare a bounded context, or change what is declared of it.

        With another `place` the context moves: its branches are copied to that store, and what
        comes later is written there. With `force` the store in which it lived before is left as it
        is, unread: for one that is gone. Raises `Invalid`, `NotAllowed`, `RefConflict` where both
        stores have branches of it that went apart, and what opening and copying raise.
        """
        return await self._run(lambda: self.space.declare(context, actor, force=force))

    async def branches(self) -> list[str]:
        """All branches of the workspace."""
        return await self._run(lambda: self.space.branches())

    async def merge(
        self, branch: str, *, actor: str, message: str = "", on_conflict: OnConflict = "raise"
    ) -> BranchMerge:
        """Bring what another branch of the workspace changed into this one, in one entry a store.

        Aggregates that both sides changed are merged by the rules of their types. Raises
        `AggregateConflict` for what these do not merge, unless `on_conflict="keep"`;
        `LimitExceeded`; `RefNotFound`.
        """
        return await self._run(
            lambda: self.space.merge(branch, actor=actor, message=message, on_conflict=on_conflict)
        )

    async def drop_branch(self, name: str, *, actor: str) -> Entry:
        """Remove a branch of the workspace; undo brings it back. Raises `RefNotFound`."""
        return await self._run(lambda: self.space.drop_branch(name, actor=actor))

    def events(
        self,
        after: Position | int | str = 0,
        types: Many[str] | None = None,
        *,
        limit: int | None = None,
        seen_by: str | None = None,
    ) -> Items[DomainEvent]:
        """Events behind a position, oldest first; of these types, where any are said.

        A type such as `sprint.*` stands for all that begin with `sprint.`. With `seen_by` those
        that a context sees: its own, and what others publish. Positions and events are those of
        the store in which that context lives; without it, of the store of the workspace.
        """
        return Items(
            self._threads, lambda: self.space.events(after, types, limit=limit, seen_by=seen_by)
        )

    async def last_event(self) -> Position:
        """The position behind everything that there is now."""
        return await self._run(lambda: self.space.last_event())
