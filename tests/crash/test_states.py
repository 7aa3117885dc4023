"""Every state that a crash can leave of a workload opens, and shows what was acknowledged."""

from __future__ import annotations

import random

import pytest

from cas.testing.driver import STEPS
from cas.testing.explore import Explorer, Report, explore, record_killed
from cas.testing.stores import scratch
from tests.crash.reporting import Note, explain, scaled

WORKLOADS = {
    "make a store": ("init", "commit", "put"),
    "small puts and commits": ("put", "put many", "commit", "multi", "keyed", "reopen", "commit"),
    "refs: tags, removals, checkpoints": ("commit", "tag", "multi", "tag", "remove", "reopen"),
    "pack files": ("commit file", "put file", "multi", "commit file", "reopen"),
    "a batch of two pack files": ("put files",),
    "deltas and a spill of them": ("versions", "commit", "versions", "spill", "versions"),
    "dictionaries": ("memories", "spill", "memories", "put many", "spill", "reopen", "memories"),
    "dictionaries of batches": ("many memories", "memories", "spill", "many memories", "reopen"),
    "a stream with a recipe": ("stream", "commit", "reopen"),
    "a spill by itself": ("put",) + ("commit",) * 8,
    "a spill of packs and files": ("commit", "put file", "commit", "put many", "spill", "commit"),
    "mirrors of the journal": ("commit", "mirror", "tag", "mirror", "put", "mirror", "reopen"),
    "archives of the journal": ("archive", "spill", "archive", "put", "gc", "keyed", "reopen"),
    "an archive beside spills": ("archive", "put file", "archive", "spill", "commit", "archive"),
    "collections": ("versions", "commit", "gc", "put", "gc", "spill", "commit"),
    "a collection beside a commit": ("commit", "gc beside a commit", "put file"),
    "checkpoints of the log": ("commit", "wal", "multi", "passive", "commit file", "wal", "commit"),
    "two handles in each other": ("put beside a spill", "commit", "spill beside a commit"),
    "two handles": ("commit", "second", "multi", "second", "commit", "spill", "second", "commit"),
}
"""Explored from their first step to their close."""

_HEAVY = ("stream", "put files", "gc beside a commit", "many memories")
LETTERS = tuple(name for name in STEPS if name not in _HEAVY)
"""What sequences are made of: those left out weigh up to a megabyte a state."""


def _note(note: Note, row: str, report: Report) -> None:
    counts = {
        "states": sum(report.states.values()),
        "read whole": report.read,
        "judged": report.judged,
        "written to": report.written,
        "in recovery": report.nested,
    }
    note("crash states by workload", row, **counts)
    for operation, states in report.states.items():
        note("crash states by the operation before the crash", operation, states=states)
    for step, states in report.steps.items():
        note("crash states by the step that was under way", step, states=states)


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_crash_breaks_a_workload(name: str, note: Note) -> None:
    """Whatever a crash leaves of a workload opens, is whole, and lacks nothing acknowledged."""
    large = name == "a batch of two pack files"
    # Each state of a store that is not there yet shows something new.
    rare = name == "make a store"
    report = explore(
        WORKLOADS[name],
        name,
        each_max=scaled(4 if large else 18),
        subsets=scaled(4),
        written=0.1 if rare else 0.3,
        nested=0.005 if rare else 0.05,
    )
    _note(note, name, report)
    assert report.failures == [], explain(report.failures)


@pytest.mark.parametrize("first", LETTERS)
def test_no_crash_breaks_a_pair_of_steps(first: str, note: Note) -> None:
    """Of every two steps in a row, whatever a crash in the second leaves is as it must be."""
    report = Report()
    for second in LETTERS:
        found = explore(
            (first, second),
            f"{first}, {second}",
            tail=1,
            each_max=scaled(8),
            subsets=scaled(3),
            written=0.15,
            nested=0.02,
        )
        report.add(found)
    _note(note, f"all pairs: {first}, then …", report)
    assert report.failures == [], explain(report.failures)


@pytest.mark.parametrize("number", range(20))
def test_no_crash_breaks_a_random_sequence(number: int, rng: random.Random, note: Note) -> None:
    """Random sequences of steps leave nothing that is not as it must be."""
    report = Report()
    for _ in range(scaled(5)):
        steps = [rng.choice(LETTERS) for _ in range(rng.randint(3, 7))]
        report.add(
            explore(
                steps,
                rng.randrange(1 << 32),
                tail=3,
                each_max=scaled(8),
                subsets=scaled(2),
                written=0.15,
                nested=0.02,
            )
        )
    _note(note, "random sequences", report)
    assert report.failures == [], explain(report.failures)


@pytest.mark.parametrize("step", ["put", "put many", "put file", "keyed"])
def test_a_retry_after_a_kill_is_as_durable_as_the_first_try(step: str, note: Note) -> None:
    """What another process is told of the work of a killed one survives a power cut."""
    report = Report()
    with scratch() as folder:
        for recording in record_killed(["commit"], step, step):
            explorer = Explorer(
                recording, folder, each_max=scaled(3), subsets=1, written=0, nested=0
            )
            report.add(explorer.run())
    _note(note, f"{step}: kill, retry, power cut", report)
    assert report.failures == [], explain(report.failures)
