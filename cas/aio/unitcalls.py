"""Collections of aggregates, and units of work, for an event loop.

Floor 9. Written by `tools/aio.py` from the synchronous calls, whose docstrings these
are; do not edit. Invariant: a call does what the synchronous one of that name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from cas.aio.spaceparts import CollectionParts
from cas.aio.streams import AsyncReader, Items, bridged
from cas.aio.threads import Face
from cas.workspace.collections import UnitArtifacts, UnitCollection, UnitMemories
from cas.workspace.reading import Collection, T
from cas.workspace.views import Artifacts
from cas.workspace.work import UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from typing import Any

    from cas.aio.streams import AsyncSource
    from cas.model.objects import TreeEntry
    from cas.objects.content import Readable
    from cas.workspace.artifacts import Artifact, ArtifactKind
    from cas.workspace.clashes import OpenConflict, Take
    from cas.workspace.collections import Target
    from cas.workspace.links import Link
    from cas.workspace.memories import Memory, Trust
    from cas.workspace.reading import Version, Where
    from cas.workspace.registry import Aggregate, AggregateType
    from cas.workspace.unit import S


class AsyncCollection(CollectionParts[Collection[T]], Generic[T]):
    """`Collection` for an event loop."""

    async def get(self, id: str) -> T:
        """The aggregate of this id. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.get(id))

    async def find_one(self, id: str) -> T | None:
        """The aggregate of this id, or None."""
        return await self._run(lambda: self.sync.find_one(id))

    def ids(self) -> Items[str]:
        """All ids, ascending."""
        return Items(self._threads, lambda: self.sync.ids())

    def find(self, where: Where | None = None, *, holding: bytes = b"") -> Items[T]:
        """The aggregates of which `where` is true, all without it, in the order of ids.

        Reads the whole collection, a group of records at a time. A record without the bytes
        `holding`, such as a word that is looked for, is passed by undecoded, which is quick.
        """
        return Items(self._threads, lambda: self.sync.find(where, holding=holding))

    def history(self, id: str) -> Items[Version[T]]:
        """The versions of an aggregate, newest first, with who made each. Nothing is lost by an
        edit: what it was is here. Raises `AggregateNotFound` when there never was one.
        """
        return Items(self._threads, lambda: self.sync.history(id))


class AsyncArtifacts(CollectionParts[Artifacts]):
    """`Artifacts` for an event loop."""

    async def get(self, id: str) -> Artifact:
        """The aggregate of this id. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.get(id))

    async def find_one(self, id: str) -> Artifact | None:
        """The aggregate of this id, or None."""
        return await self._run(lambda: self.sync.find_one(id))

    def ids(self) -> Items[str]:
        """All ids, ascending."""
        return Items(self._threads, lambda: self.sync.ids())

    def find(self, where: Where | None = None, *, holding: bytes = b"") -> Items[Artifact]:
        """The aggregates of which `where` is true, all without it, in the order of ids.

        Reads the whole collection, a group of records at a time. A record without the bytes
        `holding`, such as a word that is looked for, is passed by undecoded, which is quick.
        """
        return Items(self._threads, lambda: self.sync.find(where, holding=holding))

    def history(self, id: str) -> Items[Version[Artifact]]:
        """The versions of an aggregate, newest first, with who made each. Nothing is lost by an
        edit: what it was is here. Raises `AggregateNotFound` when there never was one.
        """
        return Items(self._threads, lambda: self.sync.history(id))

    async def read(self, name: str) -> bytes:
        """The content of an artifact. Raises `PathNotFound`."""
        return await self._run(lambda: self.sync.read(name))

    async def open(self, name: str) -> AsyncReader:
        """The content as a seekable stream, of any size. Raises `PathNotFound`."""
        made = await self._run(lambda: self.sync.open(name))
        return AsyncReader(made, self._threads, self._lock)


class AsyncUnitCollection(Face[UnitCollection[T]], Generic[T]):
    """`UnitCollection` for an event loop."""

    async def get(self, id: str) -> T:
        """The aggregate of this id; the reading is recorded. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.get(id))

    async def find_one(self, id: str) -> T | None:
        """The aggregate of this id, or None."""
        return await self._run(lambda: self.sync.find_one(id))

    def find(self, where: Where | None = None, *, guard: bool = False) -> Items[T]:
        """The aggregates of which `where` is true; with `guard` the answer is a condition."""
        return Items(self._threads, lambda: self.sync.find(where, guard=guard))

    async def add(self, value: T) -> T:
        """Stage a new aggregate. Raises `AggregateExists`."""
        return await self._run(lambda: self.sync.add(value))

    async def save(self, value: T) -> T:
        """Stage a new aggregate, or what became of one. See `UnitOfWork.save`."""
        return await self._run(lambda: self.sync.save(value))

    async def remove(self, value: T | str) -> None:
        """Stage a removal, by value or id. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.remove(value))


class AsyncUnitMemories(Face[UnitMemories]):
    """`UnitMemories` for an event loop."""

    async def get(self, id: str) -> Memory:
        """The aggregate of this id; the reading is recorded. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.get(id))

    async def find_one(self, id: str) -> Memory | None:
        """The aggregate of this id, or None."""
        return await self._run(lambda: self.sync.find_one(id))

    def find(self, where: Where | None = None, *, guard: bool = False) -> Items[Memory]:
        """The aggregates of which `where` is true; with `guard` the answer is a condition."""
        return Items(self._threads, lambda: self.sync.find(where, guard=guard))

    async def add(self, value: Memory) -> Memory:
        """Stage a new aggregate. Raises `AggregateExists`."""
        return await self._run(lambda: self.sync.add(value))

    async def save(self, value: Memory) -> Memory:
        """Stage a new aggregate, or what became of one. See `UnitOfWork.save`."""
        return await self._run(lambda: self.sync.save(value))

    async def remove(self, value: Memory | str) -> None:
        """Stage a removal, by value or id. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.remove(value))

    async def note(
        self,
        text: str,
        *,
        agent: str = "",
        kind: str = "note",
        importance: float = 0.5,
        tags: Iterable[str] = (),
        source: Target | None = None,
        trust: Trust | str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        supersedes: Iterable[Target] = (),
        at: datetime | None = None,
        id: str = "",
    ) -> Memory:
        """Stage a new memory of the actor, or of another agent. Gives it.

        A source that is given as an aggregate is pinned to what it is now. `at` is now unless
        said; a caller who retries with a key gives `id` and `at`. Raises `InvalidRecord`, also for
        a text that is empty, and a validity that ends before it begins.
        """
        return await self._run(
            lambda: self.sync.note(
                text,
                agent=agent,
                kind=kind,
                importance=importance,
                tags=tags,
                source=source,
                **({} if trust is None else {"trust": trust}),
                valid_from=valid_from,
                valid_to=valid_to,
                supersedes=supersedes,
                at=at,
                id=id,
            )
        )


class AsyncUnitArtifacts(Face[UnitArtifacts]):
    """`UnitArtifacts` for an event loop."""

    async def get(self, id: str) -> Artifact:
        """The aggregate of this id; the reading is recorded. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.get(id))

    async def find_one(self, id: str) -> Artifact | None:
        """The aggregate of this id, or None."""
        return await self._run(lambda: self.sync.find_one(id))

    def find(self, where: Where | None = None, *, guard: bool = False) -> Items[Artifact]:
        """The aggregates of which `where` is true; with `guard` the answer is a condition."""
        return Items(self._threads, lambda: self.sync.find(where, guard=guard))

    async def add(self, value: Artifact) -> Artifact:
        """Stage a new aggregate. Raises `AggregateExists`."""
        return await self._run(lambda: self.sync.add(value))

    async def save(self, value: Artifact) -> Artifact:
        """Stage a new aggregate, or what became of one. See `UnitOfWork.save`."""
        return await self._run(lambda: self.sync.save(value))

    async def remove(self, value: Artifact | str) -> None:
        """Stage a removal, by value or id. Raises `AggregateNotFound`."""
        return await self._run(lambda: self.sync.remove(value))

    async def put(
        self,
        name: str,
        content: bytes | Readable | AsyncSource,
        *,
        kind: ArtifactKind | None = None,
        media_type: str = "",
        title: str = "",
        tags: Iterable[str] = (),
        made_from: Iterable[Target] = (),
        cites: Iterable[Target] = (),
        run: Target | None = None,
    ) -> Artifact:
        """Stage an artifact, or a new version of it: content of any size, as bytes, a path
        (`pathlib.Path`) or a readable stream. Gives its record.

        What `made_from` and `cites` name is pinned where an aggregate is given. What is not said
        stays as it was; the media type is guessed from the name. Raises `AggregateExists` for a
        name that is a folder of artifacts, or has an artifact for a folder, and `LimitExceeded` for
        more than the context allows.
        """
        given, waits = bridged(content)
        return await self._run(
            lambda: self.sync.put(
                name,
                given,
                kind=kind,
                media_type=media_type,
                title=title,
                tags=tags,
                made_from=made_from,
                cites=cites,
                run=run,
            ),
            waits=waits,
        )

    async def put_entry(self, name: str, entry: TreeEntry) -> Artifact:
        """Stage an artifact, or a new version of it, whose content was staged in this unit's
        transaction, or exists. Gives its record. Raises as `put`.
        """
        return await self._run(lambda: self.sync.put_entry(name, entry))

    async def read(self, name: str) -> bytes:
        """The content of an artifact, what is staged included. Raises `PathNotFound`."""
        return await self._run(lambda: self.sync.read(name))


class UnitCalls(Face[UnitOfWork]):
    """`UnitOfWork` for an event loop."""

    async def get(self, cls: type[T], id: str) -> T:
        """The aggregate of this id, as this unit of work sees it; the reading is recorded.

        Raises `AggregateNotFound`.
        """
        return await self._run(lambda: self.sync.get(cls, id))

    async def find_one(self, cls: type[T], id: str) -> T | None:
        """`get`, or None where there is none: that, too, is recorded."""
        return await self._run(lambda: self.sync.find_one(cls, id))

    def find(self, cls: type[T], where: Where | None = None, *, guard: bool = False) -> Items[T]:
        """The aggregates of which `where` is true, in the order of ids, with what is staged here.

        The whole collection is read. With `guard` the answer becomes a condition: the commit is
        refused if one that matches has come, changed or gone since.
        """
        return Items(self._threads, lambda: self.sync.find(cls, where, guard=guard))

    async def ensure(self, cls: type[T], where: Where, what: str = "") -> None:
        """Commit only if nothing of which `where` is true comes, changes or goes meanwhile.

        `where` is pure and quick: it may be asked while other writers wait. `what` names the
        condition in the error, `ConditionFailed`.
        """
        return await self._run(lambda: self.sync.ensure(cls, where, what))

    async def new_id(self) -> str:
        """A fresh id; later ones sort later."""
        return await self._run(lambda: self.sync.new_id())

    async def add(self, value: T) -> T:
        """Stage a new aggregate. Raises `AggregateExists`, `InvalidRecord`, and `Invalid` for an
        event-sourced one (`emit` its first event).
        """
        return await self._run(lambda: self.sync.add(value))

    async def add_fresh(self, value: T) -> T:
        """`add` of an aggregate whose id was made here and that nobody can have."""
        return await self._run(lambda: self.sync.add_fresh(value))

    async def emit(self, value: S, type: str, data: Mapping[str, Any] | None = None) -> S:
        """Record an event of an event-sourced aggregate and apply it; gives the new state.

        The event joins the aggregate's stream and the journal (as TYPE OF AGGREGATE.TYPE), the
        state is saved with it. Raises `Invalid`, also for a value that this unit has emitted an
        event of since; what `apply` raises; and `AggregateConflict` when others have added to the
        stream: at once where the value is older, else at the commit.
        """
        return await self._run(lambda: self.sync.emit(value, type, data))

    async def save(self, value: T) -> T:
        """Stage an aggregate: a new one, or what became of one that was read.

        One that was read before others changed it is merged with what stands, by the rules of its
        type. Raises `AggregateExists` for a new one whose id is taken, `AggregateConflict` where
        the rules do not bring both together, `InvalidRecord`; `Invalid` for an event-sourced one,
        whose state only events change (`emit`).
        """
        return await self._run(lambda: self.sync.save(value))

    async def check_room(self, type: AggregateType, id: str) -> None:
        """Refuse an id that is a path where another one is its folder, or in it, before anything
        is staged for it. Raises `AggregateExists`.
        """
        return await self._run(lambda: self.sync.check_room(type, id))

    async def remove(self, value: Aggregate) -> None:
        """Stage the removal of an aggregate, of an artifact with its content; its history stays.
        Raises `AggregateNotFound`.
        """
        return await self._run(lambda: self.sync.remove(value))

    async def event(
        self,
        type: str,
        data: Mapping[str, Any] | None = None,
        *,
        about: Aggregate | Link | None = None,
        context: str = "",
    ) -> None:
        """Record a domain event in the same commit: a type such as `sprint.closed`, plain values,
        the aggregate that it is about. Raises `Invalid`, `LimitExceeded`, and `AcrossStores` for
        one of a context that lives elsewhere.
        """
        return await self._run(lambda: self.sync.event(type, data, about=about, context=context))

    async def settle(
        self,
        conflict: OpenConflict,
        *,
        take: Take = "current",
        values: dict[str, Any] | None = None,
    ) -> Aggregate | None:
        """Settle a conflict: the clashing fields as one side had them, or by `values` as the
        fields of the aggregate. Gives what the aggregate becomes, None where it is removed.

        Raises `AggregateNotFound` when the conflict was settled by now, or the aggregate is gone
        and a side or values are to become it; `Invalid` for a side that there is not; and what
        saving raises.
        """
        return await self._run(lambda: self.sync.settle(conflict, take=take, values=values))
