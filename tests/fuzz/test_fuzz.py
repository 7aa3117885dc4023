"""No decoder stumbles: over two million inputs a run are refused by name or mean what they say."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.corruption.harness import no_hang
from tests.fuzz.corpus import seeds_of
from tests.fuzz.mutator import Mutator
from tests.fuzz.targets import TARGETS

COUNTS = {"quick": 2_000, "deep": 4_000_000}
COUNT = COUNTS.get(os.environ.get("CAS_TEST_PROFILE", "full"), 76_000)
"""Inputs of each decoder."""


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_decoder(
    name: str, seed: str, record_property: Callable[[str, object], None]
) -> None:
    """Whatever bytes a decoder is given, it gives a value of these very bytes or a typed error."""
    target = TARGETS[name]
    mutator = Mutator(f"{seed} {name}", seeds_of(name))
    good = 0
    for _ in range(0, COUNT, 2_000):
        with no_hang():
            for _ in range(min(2_000, COUNT)):
                data = mutator.next()
                try:
                    good += target(data)
                except Exception as error:
                    pytest.fail(
                        f"{name} raised {error!r} for {data.hex()}\nrepeat it with: "
                        f"python3 tools/dev.py soak --decoder {name} --input {data.hex()}"
                    )
    counts = {"executions": -(-COUNT // 2_000) * 2_000, "well formed": good}
    record_property("counts", {"table": "fuzz", "row": name, "counts": counts})


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_well_formed(name: str) -> None:
    """Each decoder takes what the corpus holds for it: mutations begin at what is right."""
    seeds = seeds_of(name)
    assert seeds
    assert all(TARGETS[name](data) for data in seeds)
