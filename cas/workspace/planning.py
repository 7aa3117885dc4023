"""The types of planning: Project, Sprint, Agent, Decision and Run, with their states.

Floor 6. Invariant: a state is left only for one that may follow it; the methods are pure and give
a new value, which a unit of work then saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from cas.errors import ImpossibleState
from cas.workspace.links import Link
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate, type_of

S = TypeVar("S", bound=StrEnum)
A = TypeVar("A", bound=Aggregate)


def _move(value: A, to: S, table: Mapping[Any, tuple[Any, ...]], **also: Any) -> A:
    """The value in its next state. Raises `ImpossibleState`."""
    now = getattr(value, "state")  # noqa: B009
    allowed = table.get(now, ())
    if to not in allowed:
        name = type_of(value.__class__).name
        named = "it can become " + " or ".join(allowed) if allowed else "nothing follows on that"
        raise ImpossibleState(
            f"The {name} {value.id!r} is {now} and cannot become {to}; {named}. "
            "Nothing was changed.",
            type=name,
            id=value.id,
            state=str(now),
            asked=str(to),
            allowed=[str(each) for each in allowed],
        )
    return value.evolve(state=to, **also)


class ProjectState(StrEnum):
    """What becomes of a project."""

    ACTIVE = "active"
    PAUSED = "paused"
    ARCHIVED = "archived"


_PROJECT: Final[Mapping[Any, tuple[Any, ...]]] = {
    ProjectState.ACTIVE: (ProjectState.PAUSED, ProjectState.ARCHIVED),
    ProjectState.PAUSED: (ProjectState.ACTIVE, ProjectState.ARCHIVED),
    ProjectState.ARCHIVED: (ProjectState.ACTIVE,),
}


@aggregate("project", context="planning")
class Project(Aggregate):
    """What sprints belong to."""

    name: str = part(searchable="text")
    description: str = part(default="", rule="text", searchable="text")
    state: ProjectState = part(default=ProjectState.ACTIVE, searchable="keyword")
    members: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")
    tags: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")

    def pause(self) -> Project:
        """The project, paused. Raises `ImpossibleState`."""
        return _move(self, ProjectState.PAUSED, _PROJECT)

    def archive(self) -> Project:
        """The project, archived. Raises `ImpossibleState`."""
        return _move(self, ProjectState.ARCHIVED, _PROJECT)

    def resume(self) -> Project:
        """The project, active again. Raises `ImpossibleState`."""
        return _move(self, ProjectState.ACTIVE, _PROJECT)


class SprintState(StrEnum):
    """Where a sprint stands."""

    PLANNED = "planned"
    ACTIVE = "active"
    REVIEW = "review"
    CLOSED = "closed"
    CANCELLED = "cancelled"


_SPRINT: Final[Mapping[Any, tuple[Any, ...]]] = {
    SprintState.PLANNED: (SprintState.ACTIVE, SprintState.CANCELLED),
    SprintState.ACTIVE: (SprintState.REVIEW, SprintState.CLOSED, SprintState.CANCELLED),
    SprintState.REVIEW: (SprintState.ACTIVE, SprintState.CLOSED, SprintState.CANCELLED),
}


@aggregate("sprint", context="planning")
class Sprint(Aggregate):
    """A stretch of work with a goal.

    planned → active → review → closed; from review back to active; active → closed without a
    review; cancelled from all but the ends.
    """

    name: str = part(searchable="text")
    goal: str = part(default="", rule="text", searchable="text")
    project: Link | None = part(default=None, searchable="keyword")
    state: SprintState = part(default=SprintState.PLANNED, searchable="keyword")
    started: datetime | None = part(default=None, searchable="time")
    ended: datetime | None = part(default=None, searchable="time")
    agents: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")
    tags: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")
    notes: tuple[str, ...] = part(default=(), rule="append", searchable="text")

    def start(self, at: datetime) -> Sprint:
        """The sprint, active. Raises `ImpossibleState`."""
        return _move(self, SprintState.ACTIVE, _SPRINT, started=self.started or at)

    def review(self) -> Sprint:
        """The sprint, under review. Raises `ImpossibleState`."""
        return _move(self, SprintState.REVIEW, _SPRINT)

    def close(self, at: datetime) -> Sprint:
        """The sprint, closed. Raises `ImpossibleState`."""
        return _move(self, SprintState.CLOSED, _SPRINT, ended=at)

    def cancel(self, at: datetime) -> Sprint:
        """The sprint, cancelled. Raises `ImpossibleState`."""
        return _move(self, SprintState.CANCELLED, _SPRINT, ended=at)

    def note(self, text: str) -> Sprint:
        """The sprint with one more note."""
        return self.evolve(notes=(*self.notes, text))


@aggregate("agent", context="planning")
class Agent(Aggregate):
    """Who works: a model with a role."""

    name: str = part(searchable="text")
    role: str = part(default="", searchable="text")
    model: str = part(default="", rule="last", searchable="keyword")
    skills: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")
    retired: bool = part(default=False)


class DecisionState(StrEnum):
    """Where a decision stands."""

    PROPOSED = "proposed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


_DECISION: Final[Mapping[Any, tuple[Any, ...]]] = {
    DecisionState.PROPOSED: (DecisionState.ACCEPTED, DecisionState.REJECTED),
    DecisionState.ACCEPTED: (DecisionState.SUPERSEDED,),
}


@aggregate("decision", context="planning")
class Decision(Aggregate):
    """What was decided, why, and on what grounds."""

    title: str = part(searchable="text")
    text: str = part(default="", rule="text", searchable="text")
    state: DecisionState = part(default=DecisionState.PROPOSED, searchable="keyword")
    decided_by: str = part(default="", searchable="keyword")
    at: datetime | None = part(default=None, searchable="time")
    about: Link | None = part(default=None, searchable="keyword")
    grounds: frozenset[Link] = part(default=frozenset(), rule="union", searchable="keyword")
    superseded_by: Link | None = part(default=None, searchable="keyword")
    tags: frozenset[str] = part(default=frozenset(), rule="union", searchable="keyword")

    def accept(self, by: str, at: datetime) -> Decision:
        """The decision, accepted. Raises `ImpossibleState`."""
        return _move(self, DecisionState.ACCEPTED, _DECISION, decided_by=by, at=at)

    def reject(self, by: str, at: datetime) -> Decision:
        """The decision, rejected. Raises `ImpossibleState`."""
        return _move(self, DecisionState.REJECTED, _DECISION, decided_by=by, at=at)

    def supersede(self, by: Link) -> Decision:
        """The decision, in whose place another stands. Raises `ImpossibleState`."""
        return _move(self, DecisionState.SUPERSEDED, _DECISION, superseded_by=by)


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


_RUN: Final[Mapping[Any, tuple[Any, ...]]] = {
    RunState.RUNNING: (RunState.SUCCEEDED, RunState.FAILED),
}


@aggregate("run", context="planning")
class Run(Aggregate):
    """What an agent did: of what, to what, at which cost.

    `inputs` are pinned to the versions that were read. Costs are whole millionths of a unit of
    money, since floats do not add up.
    """

    agent: str = part(searchable="keyword")
    task: str = part(default="", rule="text", searchable="text")
    sprint: Link | None = part(default=None, searchable="keyword")
    state: RunState = part(default=RunState.RUNNING, searchable="keyword")
    started: datetime | None = part(default=None, searchable="time")
    ended: datetime | None = part(default=None, searchable="time")
    inputs: frozenset[Link] = part(default=frozenset(), rule="union", searchable="keyword")
    outputs: frozenset[Link] = part(default=frozenset(), rule="union", searchable="keyword")
    tokens_in_count: int = part(default=0, rule="counter", searchable="number")
    tokens_out_count: int = part(default=0, rule="counter", searchable="number")
    cost_micros: int = part(default=0, rule="counter", searchable="number")
    error: str = part(default="", rule="last", searchable="text")

    def succeed(self, at: datetime) -> Run:
        """The run, done. Raises `ImpossibleState`."""
        return _move(self, RunState.SUCCEEDED, _RUN, ended=at)

    def fail(self, at: datetime, error: str) -> Run:
        """The run, failed. Raises `ImpossibleState`."""
        return _move(self, RunState.FAILED, _RUN, ended=at, error=error)
