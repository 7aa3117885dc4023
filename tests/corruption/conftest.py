"""The reference store, how much of the sweep a run does, and the counts at its end.

`CAS_TEST_PROFILE` (or `tools/dev.py test --profile`) decides: `quick` a small sample, `full` what
takes about a minute, `deep` every bit and every length. The run's seed picks the sample.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from cas.testing.stores import scratch
from tests.corruption.harness import Tally
from tests.corruption.reference import Reference

_T = TypeVar("_T")
_SHARE = {"quick": 0.1, "full": 1.0}

Sample = Callable[[Sequence[_T], int], list[_T]]


@pytest.fixture(scope="session")
def reference() -> Iterator[Reference]:
    """The reference store of this process."""
    with scratch() as folder:
        yield Reference(Path(folder) / "store")


@pytest.fixture
def sample(rng: random.Random) -> Sample[int]:
    """Picks so many of a population (all of them in a deep run), in order."""
    profile = os.environ.get("CAS_TEST_PROFILE", "full")

    def pick(population: Sequence[int], count: int) -> list[int]:
        if profile == "deep" or count >= len(population):
            return list(population)
        wanted = max(1, round(count * _SHARE.get(profile, 1.0)))
        return sorted(rng.sample(population, wanted))

    return pick


@pytest.fixture
def tally(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Tally]:
    """Counts outcomes; the summary of the run prints them."""
    found = Tally(request.node.name)
    yield found
    row = request.node.originalname
    record_property("counts", {"table": "damaged bytes", "row": row, "counts": dict(found.counts)})
