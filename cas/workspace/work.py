"""The unit of work that users hold: the core with a collection for each delivered type.

Floor 6. Invariant: it adds names, and nothing to what a unit of work promises.
"""

from __future__ import annotations

from typing import Any, TypeVar

from cas.model.objects import EntryKind, TreeEntry
from cas.workspace.artifacts import Artifact
from cas.workspace.clashes import OpenConflict, Take
from cas.workspace.codec import from_fields, to_fields
from cas.workspace.collections import UnitArtifacts, UnitCollection, UnitMemories
from cas.workspace.layout import conflict_path, content_path, file_path
from cas.workspace.planning import Agent, Decision, Project, Run, Sprint
from cas.workspace.registry import Aggregate, type_named, type_of
from cas.workspace.unit import UnitCore

T = TypeVar("T", bound=Aggregate)


class UnitOfWork(UnitCore):
    """`with space.unit_of_work(actor="planner") as uow: …; uow.commit()`. One thread."""

    def collection(self, cls: type[T]) -> UnitCollection[T]:
        """The aggregates of a type, a user's own included."""
        return UnitCollection(self, cls)

    @property
    def memories(self) -> UnitMemories:
        """What agents remember."""
        return UnitMemories(self)

    @property
    def artifacts(self) -> UnitArtifacts:
        """Content with names and provenance."""
        return UnitArtifacts(self)

    @property
    def projects(self) -> UnitCollection[Project]:
        """Projects."""
        return UnitCollection(self, Project)

    @property
    def sprints(self) -> UnitCollection[Sprint]:
        """Sprints."""
        return UnitCollection(self, Sprint)

    @property
    def agents(self) -> UnitCollection[Agent]:
        """Agents."""
        return UnitCollection(self, Agent)

    @property
    def decisions(self) -> UnitCollection[Decision]:
        """Decisions."""
        return UnitCollection(self, Decision)

    @property
    def runs(self) -> UnitCollection[Run]:
        """What agents did."""
        return UnitCollection(self, Run)

    def settle(
        self,
        conflict: OpenConflict,
        *,
        take: Take = "current",
        values: dict[str, Any] | None = None,
    ) -> Aggregate | None:
        """Settle a conflict: the clashing fields as one side had them, or by `values` as the
        fields of the aggregate. Gives what the aggregate becomes, None where it is removed.

        Raises `AggregateNotFound` when it is gone by now, and what saving raises.
        """
        type = type_named(conflict.about.type)
        self.edit(type.context).drop(conflict_path(conflict.id))
        self.edit(type.context).drop(content_path(conflict.id))
        value = self.find_one(type.cls, conflict.about.id)
        if conflict.removed:
            if value is not None and take == conflict.removed and values is None:
                if isinstance(value, Artifact):
                    self.artifacts.remove(value)
                else:
                    self.remove(value)
                return None
        elif value is not None and (take != "current" or values):
            taken = {} if take == "current" else conflict.taking(take)
            chosen = from_fields(type, {**to_fields(value), **taken}).evolve(origin=value.origin)
            return self._settled(chosen.evolve(**values) if values else chosen)
        elif value is not None and values:
            return self._settled(value.evolve(**values))
        return value

    def _settled(self, value: Aggregate) -> Aggregate:
        """Save what a conflict was settled to; the file of an artifact follows its record."""
        if isinstance(value, Artifact):
            batch = self.transaction.batch
            _kind, size = self._store.objects.measure(batch, value.content)
            edit = self.edit(type_of(Artifact).context)
            before = edit.entry(file_path(value.name))
            kind = EntryKind.FILE if before is None else before.kind
            edit.put_entry(file_path(value.name), TreeEntry(kind, value.content, size))
            value = value.evolve(size_bytes=size)
        return self.save(value)
