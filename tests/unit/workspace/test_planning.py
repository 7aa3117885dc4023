"""States of planning: only what may follow follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cas.errors import ImpossibleState
from cas.workspace.links import Link
from cas.workspace.memories import Memory
from cas.workspace.planning import (
    Decision,
    DecisionState,
    Project,
    ProjectState,
    Run,
    RunState,
    Sprint,
    SprintState,
)

NOW = datetime(2026, 9, 1, tzinfo=UTC)

ALLOWED = {
    SprintState.PLANNED: {SprintState.ACTIVE, SprintState.CANCELLED},
    SprintState.ACTIVE: {SprintState.REVIEW, SprintState.CLOSED, SprintState.CANCELLED},
    SprintState.REVIEW: {SprintState.ACTIVE, SprintState.CLOSED, SprintState.CANCELLED},
    SprintState.CLOSED: set(),
    SprintState.CANCELLED: set(),
}
VERBS = {
    SprintState.ACTIVE: lambda s: s.start(NOW),
    SprintState.REVIEW: lambda s: s.review(),
    SprintState.CLOSED: lambda s: s.close(NOW),
    SprintState.CANCELLED: lambda s: s.cancel(NOW),
}


@pytest.mark.parametrize("state", list(SprintState))
@pytest.mark.parametrize("asked", list(VERBS))
def test_a_sprint_moves_only_where_it_may(state: SprintState, asked: SprintState) -> None:
    """Each state of a sprint is left for those that may follow; any other is a typed error."""
    sprint = Sprint(id="s1", name="One", state=state)
    if asked in ALLOWED[state]:
        assert VERBS[asked](sprint).state == asked
    else:
        with pytest.raises(ImpossibleState, match=f"is {state} and cannot become {asked}") as told:
            VERBS[asked](sprint)
        assert set(told.value.allowed) == {str(s) for s in ALLOWED[state]}


def test_the_others_have_states_too() -> None:
    """Projects, decisions and runs go their ways, and stay where these end."""
    project = Project(id="p", name="P").pause().resume().archive()
    assert project.state == ProjectState.ARCHIVED
    with pytest.raises(ImpossibleState):
        project.pause()
    decision = Decision(id="d", title="D").accept("ada", NOW)
    assert decision.supersede(Link("decision", "e")).state == DecisionState.SUPERSEDED
    with pytest.raises(ImpossibleState):
        decision.reject("ada", NOW)
    run = Run(id="r", agent="a").fail(NOW, "no disk")
    assert (run.state, run.error) == (RunState.FAILED, "no disk")
    with pytest.raises(ImpossibleState, match="nothing follows"):
        run.succeed(NOW)


def test_a_memory_holds_within_what_it_says() -> None:
    """From its beginning on, until before its end; without them, always."""
    later = NOW + timedelta(days=1)
    memory = Memory(id="m", agent="ada", text="t")
    assert memory.holds_at(NOW)
    bounded = memory.evolve(valid_from=NOW, valid_to=later)
    times = (NOW - timedelta(days=1), NOW, later)
    assert [bounded.holds_at(time) for time in times] == [False, True, False]
