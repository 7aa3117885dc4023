"""The unit of work that users hold: the core with a collection for each delivered type.

Floor 6. Invariant: it adds names, and nothing to what a unit of work promises.
"""

from __future__ import annotations

from typing import Any, TypeVar

from cas.errors import AggregateNotFound, Invalid
from cas.model.objects import EntryKind, TreeEntry
from cas.workspace.artifacts import Artifact
from cas.workspace.clashes import OpenConflict, Take
from cas.workspace.codec import from_fields, to_fields
from cas.workspace.collections import UnitArtifacts, UnitCollection, UnitMemories
from cas.workspace.layout import conflict_path, content_path, file_path
from cas.workspace.planning import Agent, Decision, Project, Run, Sprint
from cas.workspace.reading import not_found
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

        Raises `AggregateNotFound` when the conflict was settled by now, or the aggregate is gone
        and a side or values are to become it; `Invalid` for a side that there is not; and what
        saving raises.
        """
        type = type_named(conflict.about.type)
        if self.edit(type.context).entry(conflict_path(conflict.id)) is None:
            raise AggregateNotFound(
                f"The conflict {conflict.id!r} is there no longer; somebody has settled it.",
                type="conflict",
                id=conflict.id,
            )
        if conflict.removed and take == "base":
            raise Invalid(
                f"One side removed {conflict.about}: take current or incoming, of which the "
                f"{conflict.removed} one is to remove it."
            )
        value = self.find_one(type.cls, conflict.about.id)
        if value is None and not conflict.removed and (take != "current" or values):
            # Before anything is staged: the conflict stands, and may be settled otherwise.
            raise not_found(type, conflict.about.id)
        self.edit(type.context).drop(conflict_path(conflict.id))
        self.edit(type.context).drop(content_path(conflict.id))
        if conflict.removed:
            if value is not None and take == conflict.removed and values is None:
                if isinstance(value, Artifact):
                    self.artifacts.remove(value)
                else:
                    self.remove(value)
                return None
            return self._settled(value.evolve(**values)) if value is not None and values else value
        if value is not None and take != "current":
            fields = {**to_fields(value), **conflict.taking(take)}
            value = from_fields(type, fields).evolve(origin=value.origin)
            return self._settled(value.evolve(**values) if values else value)
        return self._settled(value.evolve(**values)) if value is not None and values else value

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
