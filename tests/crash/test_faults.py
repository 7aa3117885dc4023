"""Every call fails once in every way: the store says what became of its work, and is right."""

from __future__ import annotations

import pytest

from cas.testing.faults import FaultReport, Sweep
from tests.crash.reporting import Note, scaled
from tests.crash.test_states import LETTERS

WORKLOADS = {
    "commits": (("commit", "commit"), ("commit", "multi", "keyed")),
    "puts": (("commit",), ("put", "put many", "put file")),
    "pack files and a checkpoint of refs": (("commit", "commit"), ("commit file", "reopen", "tag")),
    "a spill": (("commit", "put file", "commit", "put many"), ("spill", "commit")),
    "dictionaries": (("memories", "commit"), ("spill", "memories")),
    "dictionaries of batches": (("commit",), ("many memories", "memories", "spill")),
    "checkpoints of the log": (("commit", "commit file", "multi"), ("wal", "commit", "passive")),
    "two handles in each other": (("commit", "put"), ("spill beside a commit", "put")),
    "two handles": (("commit",), ("second", "commit", "second")),
}

HEAVY = ("put beside a spill", "archive", "gc", "gc beside a commit")
"""Steps of which a run costs three times what others do."""


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_call_may_fail(name: str, note: Note) -> None:
    """Whatever call fails, each step ends as committed, refused, or unknown until asked."""
    before, steps = WORKLOADS[name]
    sweep = Sweep(before, steps, name, power_cuts=scaled(3), written=0.5)
    report = sweep.run(share=min(1.0, scaled(50) / 100))
    answers = {key: report.answers[key] for key in ("refused", "unknown")}
    note("faults", name, **report.faults, opened=report.opened, **answers)
    assert report.answers["refused"] > 0
    assert [str(failure) for failure in report.failures] == []


@pytest.mark.parametrize("first", LETTERS)
def test_every_call_of_a_pair_of_steps_may_fail(first: str, note: Note) -> None:
    """Of every two steps in a row calls of the second fail: it ends as it says it did."""
    report = FaultReport()
    for second in LETTERS:
        sweep = Sweep((first,), (second,), f"{first}, {second}", power_cuts=2, written=0.2)
        report.add(sweep.run(most=scaled(36 if second in HEAVY else 60)))
    answers = {key: report.answers[key] for key in ("refused", "unknown")}
    note("faults", f"all pairs: {first}, then …", **report.faults, opened=report.opened, **answers)
    assert [str(failure) for failure in report.failures] == []
