"""gc beside writers and movers, interleaved step by step: the catalog on PostgreSQL, the packs in a
bucket, both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from cas.maintenance.newstore import build as build_folder
from cas.testing.stores import SMALL, SteppedClock, build, create, scratch
from tests.crash.reporting import Note
from tests.databases import fresh_url
from tests.schedules.baton import Baton, Decision, schedules
from tests.schedules.scenes import SCENES, World

COUNTS = {"quick": 2, "deep": 200}
RUNS = COUNTS.get(os.environ.get("CAS_TEST_PROFILE", "full"), 5)
"""Interleavings of each scene; each has a store of its own, and a step is a trip to the server."""


@pytest.mark.parametrize("where", ["postgres", "s3", "postgres and s3"])
@pytest.mark.parametrize("scene", SCENES)
def test_no_interleaving_loses_anything(
    scene: str, where: str, note: Note, request: pytest.FixtureRequest
) -> None:
    """Whoever goes on when: what is acknowledged is there, and what exists is whole."""
    wrong: list[str] = []
    prepare, act = SCENES[scene]
    server = request.getfixturevalue("postgres") if "postgres" in where else None
    buckets = request.getfixturevalue("s3_url") if "s3" in where else None

    def made(folder: str, name: str) -> str:
        bucket = buckets(folder.strip("/")) if buckets else f"{folder}/packs"
        if server is None:
            place = f"{folder}/store"
            build_folder(place, SteppedClock(name), bucket=bucket)
        else:
            place = fresh_url(server, bucket)
            create(place, clock=SteppedClock(name))
        return place

    def run(choices: Sequence[int]) -> list[Decision]:
        with scratch() as folder:
            # Names of packs are drawn by the names of clocks: one prefix is never used twice.
            name = f"{scene} {where} {folder}"
            place = made(folder, f"{name} create")
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

    count = sum(1 for _ in schedules(run, 3, RUNS))
    note("interleavings of gc on servers", f"{where}: {scene}", runs=count)
    assert wrong == []
