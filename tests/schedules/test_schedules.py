"""gc beside writers and movers, interleaved step by step: nothing is lost, each rule is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from cas.testing.stores import scratch
from tests.crash.reporting import Note
from tests.schedules.baton import Baton, Decision, schedules
from tests.schedules.planted import BUGS
from tests.schedules.scenes import SCENES, World

RUNS = int(os.environ.get("CAS_TEST_SCHEDULES", "120"))
"""Interleavings of each scene."""

PREEMPTIONS = 3


def explore(scene: str, runs_max: int, *, until_found: bool = False) -> tuple[int, list[str]]:
    """Interleavings that were run, and what was wrong in them."""
    wrong: list[str] = []

    def run(choices: Sequence[int]) -> list[Decision]:
        with scratch() as folder:
            return judged(World(os.path.join(folder, "store")), choices)

    def judged(world: World, choices: Sequence[int]) -> list[Decision]:
        try:
            actors = SCENES[scene](world)
            world.baton = baton = Baton(actors, choices)
            baton.run()
            world.baton = None
            how = [decision.chosen for decision in baton.decisions]
            wrong.extend(f"{scene} {how}: {type(e).__name__}: {e}" for e in baton.errors)
            if not baton.errors:
                wrong.extend(f"{scene} {how}: {finding}" for finding in world.findings())
            return baton.decisions
        finally:
            world.close()

    made = 0
    for _schedule in schedules(run, PREEMPTIONS, runs_max):
        made += 1
        if wrong and until_found:
            break
    return made, wrong


@pytest.mark.parametrize("scene", SCENES)
def test_no_interleaving_loses_anything(scene: str, note: Note) -> None:
    """Whoever goes on when: what is acknowledged is there, and what exists is whole."""
    made, wrong = explore(scene, RUNS)
    note("interleavings of gc", scene, runs=made)
    assert wrong == []


@pytest.mark.parametrize("name", BUGS)
def test_each_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch, note: Note) -> None:
    """With a rule taken out some interleaving of its scene goes wrong."""
    scene, plant = BUGS[name]
    plant(monkeypatch)
    made, wrong = explore(scene, 4 * RUNS, until_found=True)
    note("interleavings until a planted bug of gc is found", name, runs=made)
    assert wrong, f"{made} interleavings of {scene!r} found nothing"
