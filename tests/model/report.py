"""Prints what the model knows: state counts, the board, and a counterexample for every rule.

Run as `python -m tests.model.report [tables | traces | large]`. The tables are those of
docs/design/001-what-the-model-taught.md, sections 5 and 6; a test compares them.
"""

from __future__ import annotations

import sys
from functools import cache

from tests.model.board import BOARD, Loss
from tests.model.machine import Exploration
from tests.model.nature import Scenario
from tests.model.protocol import Rules
from tests.model.scenarios import LARGE, SCENARIOS

_BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *LARGE)}


def named(name: str) -> Scenario:
    """The scenario of that name."""
    return _BY_NAME[name]


@cache
def safe(name: str) -> Exploration:
    """The exploration of a scenario under all rules."""
    return named(name).explore(Rules(), states_max=400_000)


@cache
def broken(loss: Loss) -> Exploration:
    """The exploration that finds out what the loss of a rule does."""
    return named(loss.scenario).explore(Rules(**loss.changes))


def total() -> str:
    """The counts of all scenarios of a CI run in one line."""
    found = [safe(scenario.name) for scenario in SCENARIOS]
    states = sum(exploration.states for exploration in found)
    transitions = sum(exploration.transitions for exploration in found)
    return f"{len(found)} scenarios, {states:,} states, {transitions:,} transitions"


def scenario_row(name: str) -> str:
    """A line of the table of scenarios."""
    found = safe(name)
    actors = ", ".join(actor.name for actor in named(name).actors)
    return f"| {name} | {actors} | {found.states:,} | {found.transitions:,} | {found.depth} |"


def loss_row(loss: Loss) -> str:
    """A line of the board."""
    trace = broken(loss).trace
    steps = len(trace.steps) if trace else "none"
    return f"| {loss.section} | `{loss.name}` | {loss.scenario} | {steps} |"


def main(what: str) -> None:
    """Print tables, traces, or the counts of the large scenarios."""
    if what == "traces":
        for loss in BOARD:
            print(f"\nWithout {loss.name} ({loss.section}), scenario {loss.scenario}:")
            print(broken(loss).trace)
        return
    for scenario in LARGE if what == "large" else SCENARIOS:
        print(scenario_row(scenario.name), safe(scenario.name).trace or "")
    if what == "tables":
        print(f"\n{total()}\n")
        for loss in BOARD:
            print(loss_row(loss))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tables")
