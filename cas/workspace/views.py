"""What can be read of a workspace: typed collections, links, conflicts, streams; now or as of then.

Floor 6. Invariant: what belongs to a context is read from the store in which the context lives; a
view never moves. Any thread may use it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from cas.history.store import Store
from cas.history.view import View
from cas.model.ids import Kind
from cas.model.names import HEADS
from cas.objects.content import BlobReader
from cas.workspace.artifacts import Artifact
from cas.workspace.clashes import OpenConflict
from cas.workspace.codec import from_record, typed
from cas.workspace.contexts import HOME, Context, Declared
from cas.workspace.layout import CONFLICTS, context_of, file_path
from cas.workspace.links import Link
from cas.workspace.memories import Memory
from cas.workspace.placement import Places
from cas.workspace.planning import Agent, Decision, Project, Run, Sprint
from cas.workspace.reading import Collection, Reader
from cas.workspace.registry import Aggregate, type_named, type_of
from cas.workspace.streams import Sourced, StreamEvent, rebuild, stream

T = TypeVar("T", bound=Aggregate)
S = TypeVar("S", bound=Sourced)


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
    def _reader(self, context: str = HOME) -> Reader:
        """What the collections of a context read from."""

    @abstractmethod
    def contexts(self) -> Mapping[str, Context]:
        """The bounded contexts that were declared, by name."""

    def collection(self, cls: type[T]) -> Collection[T]:
        """The aggregates of a type, a user's own included."""
        return Collection(self._reader(type_of(cls).context), cls)

    @property
    def memories(self) -> Collection[Memory]:
        """What agents remember."""
        return self.collection(Memory)

    @property
    def artifacts(self) -> Artifacts:
        """Content with names and provenance."""
        return Artifacts(self._reader(type_of(Artifact).context), Artifact)

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
            return self.collection(type.cls).get(link.id)
        return self._reader(type.context).load(type, link.pin)

    def is_stale(self, link: Link) -> bool:
        """Whether what a pinned link names has changed, or gone, since it was made."""
        type = type_named(link.type)
        if link.pin is None:
            return False
        return self._reader(type.context).record(type, link.id) != link.pin

    def conflicts(self) -> Iterator[OpenConflict]:
        """Conflicts that were kept and are still to be settled, context by context."""
        for context in self.context_names():
            reader = self._reader(context)
            snapshot = reader.snapshot(context)
            if snapshot.entry(CONFLICTS) is None:
                continue
            for _path, entry in snapshot.walk(CONFLICTS):
                data = reader.core.objects.get(entry.id, Kind.BLOB)
                yield typed(from_record(data), OpenConflict)

    def rebuild(self, cls: type[S], id: str, *, version: int | None = None) -> S:
        """An event-sourced aggregate as the fold of its events: all of them, or those up to a
        version. Raises `AggregateNotFound`, `Invalid`, and what its `apply` raises.
        """
        return rebuild(self._reader(type_of(cls).context), cls, id, version=version)

    def stream(self, cls: type[S], id: str) -> Iterator[StreamEvent]:
        """The events of an event-sourced aggregate, oldest first."""
        return stream(self._reader(type_of(cls).context), type_of(cls), id)

    def context_names(self) -> list[str]:
        """The contexts in which something was written, ascending; those of other stores too."""
        home = self._reader()
        placed = {name for name, each in self.contexts().items() if each.place}
        found = {name for name in placed if self._reader(name).commit(name) is not None}
        for ref in home.view.refs(HEADS):
            where = context_of(ref.name)
            if where is not None and where[1] == home.branch and where[0] not in placed:
                found.add(where[0])
        return sorted(found)


class WorkspaceView(Reading):
    """A workspace as of one moment; it never moves. Any thread may use it.

    Of contexts that live in other stores each has the moment at which it was first asked for here,
    or with `at` the time of the entry.
    """

    def __init__(
        self, reader: Reader, declared: Declared, places: Places, when: Callable[[Store], View]
    ) -> None:
        self._fixed = reader
        self._contexts = declared.now(reader)
        self._places = places
        self._when = when
        self._placed: dict[str, Reader] = {}

    def _reader(self, context: str = HOME) -> Reader:
        declared = self._contexts.get(context)
        if declared is None or not declared.place:
            return self._fixed
        store = self._places.store_of(declared)
        found = self._placed.get(store.id)
        if found is None:
            made = Reader(store.core, self._when(store), self._fixed.branch)
            found = self._placed.setdefault(store.id, made)
        return found

    def contexts(self) -> Mapping[str, Context]:
        """The bounded contexts that were declared, by name."""
        return self._contexts

    @property
    def seq(self) -> int:
        """The journal entry that it stands after."""
        return self._fixed.seq
