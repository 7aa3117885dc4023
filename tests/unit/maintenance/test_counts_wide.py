"""Counts of references beside other handles, kills, catalogs put back, copies and repairs."""

from __future__ import annotations

import os
from random import Random

import pytest

from cas.testing.stores import scratch
from tests.counted import against_full_marks
from tests.unit.maintenance.wide_histories import play, random_steps

HISTORIES = {"quick": 5, "deep": 2_000}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_counts_follow_whatever_happens_to_a_store(rng: Random) -> None:
    """What counts say is what a full mark says, or nobody believes them, and nothing is lost: with
    two handles, processes that are killed, copies both ways, catalogs put back and made anew.
    """
    compared = 0
    for _ in range(HISTORIES.get(os.environ.get("CAS_TEST_PROFILE", "full"), 40)):
        with pytest.MonkeyPatch.context() as patch, against_full_marks(patch) as seen:
            with scratch() as place:
                play(place, random_steps(rng, rng.randrange(20, 90)))
            compared += seen.compared
    assert compared
