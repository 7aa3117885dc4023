"""The protocol is safe in every scenario, and no rule of it is idle.

Invariant of these tests: nothing is concluded from an exploration that did not end, that met none
of the steps it is about, or that failed for another reason than the rule's. Implements
docs/design/001-what-the-model-taught.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model import report
from tests.model.board import BOARD, SPARES, Loss
from tests.model.canon import canonical
from tests.model.machine import Explorer, StateSpaceTooLarge
from tests.model.nature import Scenario
from tests.model.protocol import Pack, Rules, Slot, World
from tests.model.scenarios import LARGE, SCENARIOS

DOCUMENT = Path(__file__).parents[2] / "docs" / "design" / "001-what-the-model-taught.md"
LONG = {"mixed", "relaxed", "rebuild, moves", "loose parent"}


def _params(scenarios: tuple[Scenario, ...]) -> list[object]:
    return [
        pytest.param(s.name, id=s.name, marks=[pytest.mark.slow] if s.name in LONG else [])
        for s in scenarios
    ]


def _check(name: str) -> None:
    found = report.safe(name)
    print(report.scenario_row(name))
    assert found.trace is None, f"{name}: {found.states} states\n{found.trace}"
    unmet = set(report.named(name).must) - found.kinds
    assert not unmet, f"{name} never met {sorted(unmet)}, only {sorted(found.kinds)}"


@pytest.mark.parametrize("name", _params(SCENARIOS))
def test_full_protocol_is_safe_in_every_reachable_state(name: str) -> None:
    """With all rules no interleaving of actors and misfortunes breaks an invariant."""
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [scenario.name for scenario in LARGE])
def test_full_protocol_is_safe_in_the_large_scenarios(name: str) -> None:
    """The same for scenarios that take minutes; explored in the deep profile."""
    if os.environ.get("CAS_TEST_PROFILE") != "deep":
        pytest.skip("takes about two minutes; set CAS_TEST_PROFILE=deep")
    _check(name)


@pytest.mark.parametrize("loss", BOARD, ids=lambda loss: f"{loss.name}, {loss.scenario}")
def test_taking_a_rule_away_gives_a_counterexample(loss: Loss) -> None:
    """Without the rule some interleaving breaks the invariant that the rule is there for."""
    trace = report.broken(loss).trace
    assert trace is not None, f"{loss.scenario} does not notice that {loss.name} is gone"
    print(f"Without {loss.name} ({loss.section}), scenario {loss.scenario}:\n{trace}")
    assert loss.says in trace.breach


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        pytest.param(changes, name, id=f"{'+'.join(changes)}, {name}")
        for changes, names in SPARES
        for name in names
    ],
)
def test_a_spare_rule_alone_is_not_needed(changes: dict[str, bool], name: str) -> None:
    """What the document calls a second wall, or a weaker form, is safe where it says so."""
    found = report.named(name).explore(Rules(**changes))
    assert found.trace is None, f"{changes} in {name}\n{found.trace}"


def test_every_rule_is_on_the_board() -> None:
    """No switch of the model is without a scenario that notices its loss, or a stated reason."""
    switches = {field.name for field in attrs.fields(Rules)}
    tried = {rule for loss in BOARD for rule in (loss.rule, *loss.also)}
    tried |= {rule for changes, _ in SPARES for rule in changes}
    assert switches == tried


@pytest.mark.parametrize("name", ["session", "copies", "bases", "rebuild", "reader, delta"])
def test_merging_states_by_rank_changes_no_verdict(name: str) -> None:
    """Exploring without merging finds the same verdict and reaches every merged state."""
    scenario = report.named(name)
    plain = scenario.explore(Rules(), merge=False)
    merged = report.safe(name)
    assert plain.trace is None
    assert plain.states >= merged.states
    assert plain.kinds == merged.kinds
    for loss in BOARD:
        if loss.scenario == name:
            longhand = scenario.explore(Rules(**loss.changes), merge=False).trace
            short = report.broken(loss).trace
            assert longhand is not None
            assert short is not None
            assert len(longhand.steps) == len(short.steps)


def test_canonical_values_are_fixed_points() -> None:
    """Ranking the counters of a ranked state changes nothing."""
    scenario = report.named("bases")
    world = scenario.world(Rules())
    state = scenario.first()
    for _ in range(12):
        moves = [m for i, a in enumerate(scenario.actors) for m in a.steps(world, state, i)]
        if not moves:
            break
        state = moves[-1][1]
        assert canonical(canonical(state)) == canonical(state)


SLOTS = st.builds(
    lambda oid, base, rank: Slot(oid, rank if base != oid else 0, base if base != oid else ""),
    st.sampled_from("ABCD"),
    st.sampled_from("ABCD"),
    st.integers(1, 3),
)
PACKS = st.lists(st.lists(SLOTS, min_size=1, max_size=3), max_size=4)


@given(PACKS)
def test_bottom_up_admission_is_sound_and_leaves_nothing_out(content: list[list[Slot]]) -> None:
    """What a rebuild admits has all it needs, and no copy could be added to it alone."""
    world = World(Rules(), {"A": "B", "C": "BD"})
    packs = tuple(Pack(n, n, f"f{n}", tuple(slots), 0) for n, slots in enumerate(content, 1))
    admitted = world.admitted(packs)
    assert _complaint(world, admitted) is None
    for number, pack in enumerate(admitted):
        for slot_no in range(len(pack.slots)):
            if pack.dead >> slot_no & 1:
                more = pack._replace(dead=pack.dead & ~(1 << slot_no))
                added = (*admitted[:number], more, *admitted[number + 1 :])
                assert _complaint(world, added) is not None


def _complaint(world: World, packs: tuple[Pack, ...]) -> str | None:
    live = world.live(packs)
    for oid in live:
        for child in world.children.get(oid, ""):
            if child not in live:
                return f"{oid} has no {child}"
    return next(iter(world.wants(packs).values()), None)


def test_the_explorer_finds_a_shortest_way() -> None:
    """A breach that can be reached in many ways is shown by one of the shortest."""

    def steps(state: int) -> list[tuple[str, int]]:
        return [("add one", state + 1), ("add three", state + 3)] if state < 7 else []

    found = Explorer(steps, lambda state: "seven" if state == 7 else None).explore(0)
    assert found.trace is not None
    assert str(found.trace).splitlines()[-1] == "  => seven"
    assert len(found.trace.steps) == 3
    assert found.kinds == {"add one", "add three"}


def test_the_explorer_counts_what_it_saw() -> None:
    """A space without a breach is walked to its end, and its counts are exact."""
    found = Explorer(
        lambda state: [("step on", (state + 1) % 5), ("stay there", state)], lambda state: None
    ).explore(0)
    assert (found.states, found.transitions, found.depth, found.ends) == (5, 10, 4, 0)
    merged = Explorer(
        lambda state: [("step on", state + 1)] if state < 9 else [],
        lambda state: None,
        lambda state: state // 2,
    ).explore(0)
    assert merged.states == 1


def test_an_unfinished_exploration_is_no_verdict() -> None:
    """Past its bound the explorer raises; it never calls a part of the space safe."""
    endless: Explorer[int] = Explorer(
        lambda state: [("step on", state + 1)], lambda state: None, states_max=100
    )
    with pytest.raises(StateSpaceTooLarge):
        endless.explore(0)


@pytest.mark.slow
@pytest.mark.docs
def test_the_document_states_what_the_model_finds() -> None:
    """The tables of the design note are those of this run, line by line."""
    lines = set(DOCUMENT.read_text(encoding="utf-8").splitlines())
    rows = [report.scenario_row(scenario.name) for scenario in SCENARIOS]
    rows += [report.loss_row(loss) for loss in BOARD]
    missing = [row for row in rows if row not in lines]
    assert not missing, "\n".join(["the note lacks:", *missing])
    assert report.total() in DOCUMENT.read_text(encoding="utf-8")
