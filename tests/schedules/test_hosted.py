"""gc beside writers and movers, interleaved step by step, with the catalog on PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from cas.testing.stores import SMALL, SteppedClock, build, create, scratch
from tests.crash.reporting import Note
from tests.databases import fresh_url
from tests.schedules.baton import Baton, Decision, schedules
from tests.schedules.scenes import SCENES, World
from tools.postgres_server import PostgresServer

COUNTS = {"quick": 2, "deep": 200}
RUNS = COUNTS.get(os.environ.get("CAS_TEST_PROFILE", "full"), 5)
"""Interleavings of each scene; each has a store of its own, and a step is a trip to the server."""


@pytest.mark.parametrize("scene", SCENES)
def test_no_interleaving_loses_anything(scene: str, note: Note, postgres: PostgresServer) -> None:
    """Whoever goes on when: what is acknowledged is there, and what exists is whole."""
    wrong: list[str] = []
    prepare, act = SCENES[scene]

    def run(choices: Sequence[int]) -> list[Decision]:
        with scratch() as folder:
            url = fresh_url(postgres)
            place, name = f"{url}&bucket={folder}/packs", f"{scene} {url}"
            create(place, clock=SteppedClock(f"{name} create"))
            with build(place, clock=SteppedClock(f"{name} before"), thresholds=SMALL) as store:
                prepare(store)
            world = World(place, name)
            try:
                world.baton = baton = Baton(act(world), choices)
                baton.run()
                world.baton = None
                how = [decision.chosen for decision in baton.decisions]
                wrong.extend(f"{how}: {type(e).__name__}: {e}" for e in baton.errors)
                if not baton.errors:
                    wrong.extend(f"{how}: {finding}" for finding in world.findings())
                return baton.decisions
            finally:
                world.close()

    made = sum(1 for _ in schedules(run, 3, RUNS))
    note("interleavings of gc on a server", scene, runs=made)
    assert wrong == []
