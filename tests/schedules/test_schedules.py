"""gc beside writers and movers, interleaved step by step: nothing is lost, each rule is needed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from cas.assembly import CACHE, PACKS
from cas.history.upkeep import FULL
from cas.maintenance.gc import coloring, counting, forward
from cas.testing.staging import shown_in
from cas.testing.stores import SMALL, SteppedClock, Template, build, create, scratch
from tests.crash.reporting import Note
from tests.schedules.baton import Baton, Decision, schedules
from tests.schedules.planted import BUGS
from tests.schedules.scenes import SCENES, World

EVERY = sys.maxsize
COUNTS = {"quick": 60, "deep": EVERY}
RUNS = COUNTS.get(os.environ.get("CAS_TEST_PROFILE", "full"), 5_050)
"""Interleavings of each scene: those with the fewest preemptions first, or each that there is."""

PREEMPTIONS = 3 if RUNS == EVERY else 6
FOR_A_BUG = 480
"""Interleavings in which a planted bug has to be found."""


def explore(
    scene: str, runs_max: int, *, until_found: bool = False, counted: bool = False
) -> tuple[int, list[str]]:
    """How many different interleavings were run, and what was wrong in them. `counted`: a run of gc
    has counted references before they begin.
    """
    wrong: list[str] = []
    # What stands at the end, and what was promised: looked at once.
    good: set[tuple[bytes, ...]] = set()
    prepare, act = SCENES[scene]

    def run(choices: Sequence[int]) -> list[Decision]:
        place = os.path.join(folder, "store")
        template.lay_out(place)
        try:
            cache = os.path.join(place, CACHE) if counted else None
            return judged(World(place, scene, cache), choices)
        finally:
            shutil.rmtree(place)

    def judged(world: World, choices: Sequence[int]) -> list[Decision]:
        try:
            actors = act(world)
            world.baton = baton = Baton(actors, choices)
            baton.run()
            world.baton = None
            how = [decision.chosen for decision in baton.decisions]
            wrong.extend(f"{scene} {how}: {type(e).__name__}: {e}" for e in baton.errors)
            end = (shown_in(world.folder, os.path.join(world.folder, PACKS)), *world.promised)
            if not baton.errors and end not in good:
                found = world.findings()
                wrong.extend(f"{scene} {how}: {finding}" for finding in found)
                if not found:
                    good.add(end)
            return baton.decisions
        finally:
            world.close()

    made: set[tuple[int, ...]] = set()
    with scratch() as folder:
        first = os.path.join(folder, "template")
        create(first, clock=SteppedClock(f"{scene} create"))
        clock = SteppedClock(f"{scene} before")
        with build(first, clock=clock, thresholds=SMALL, cached=counted) as store:
            prepare(store)
            if counted:
                assert store.gc(full=True).marked.how == FULL
        template = Template(first)
        for schedule in schedules(run, PREEMPTIONS, runs_max):
            made.add(schedule)
            if wrong and until_found:
                break
    return len(made), wrong


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("scene", SCENES)
def test_no_interleaving_loses_anything(scene: str, note: Note) -> None:
    """Whoever goes on when: what is acknowledged is there, and what exists is whole."""
    made, wrong = explore(scene, RUNS)
    note("interleavings of gc", scene, runs=made)
    assert wrong == []


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("scene", SCENES)
def test_no_interleaving_loses_anything_by_counts(
    scene: str, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where gc believes counts of references instead of marking everything."""
    believed = []
    inner = coloring._counted

    def counted(*words: Any) -> Any:
        found = inner(*words)
        believed.append(1)
        return found

    monkeypatch.setattr(coloring, "_counted", counted)
    monkeypatch.setattr(counting, "GC_COUNT_SLOTS_MIN", 0)
    monkeypatch.setattr(forward, "GC_COUNT_NEW_MAX", 2.0)
    made, wrong = explore(scene, RUNS if RUNS == EVERY else max(1, RUNS // 5), counted=True)
    note("interleavings of gc that believes counts", scene, runs=made)
    assert wrong == []
    assert len(believed) >= made // 2


@pytest.mark.parametrize("name", BUGS)
def test_each_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch, note: Note) -> None:
    """With a rule taken out some interleaving of its scene goes wrong."""
    scene, plant = BUGS[name]
    plant(monkeypatch)
    made, wrong = explore(scene, FOR_A_BUG, until_found=True)
    note("interleavings until a planted bug of gc is found", name, runs=made)
    assert wrong, f"{made} interleavings of {scene!r} found nothing"
