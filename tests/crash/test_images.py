"""What a crash leaves of a real file system mounts, and the store on it lacks nothing."""

from __future__ import annotations

import glob
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cas.testing.images import FILE_SYSTEMS, Flushed, Said, Wrote, explore, losses, record, replay
from cas.testing.mounting import lacking
from cas.testing.processes import Child
from tests.crash.imaging import BUGS, WORKLOADS, drawn, explain
from tests.crash.reporting import Note, scaled

IMAGES = 24
"""Of each workload on each file system."""


def _can(system: str) -> None:
    reason = lacking(FILE_SYSTEMS[system].kind)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.parametrize("system", FILE_SYSTEMS)
def test_an_image_of_a_crash_shows_all_that_was_acknowledged(
    system: str, note: Note, seed: str, rng: random.Random
) -> None:
    """A file system cut off behind any flush mounts, and its store is whole and lacks nothing."""
    _can(system)
    failures = []
    for steps in (*WORKLOADS.values(), drawn(rng)):
        report = explore(steps, seed, scaled(IMAGES), system)
        failures += report.failures
        counts = {"images": report.images, "written to": report.written}
        note("images of file systems", system, flushes=report.flushes, **counts)
    assert not failures, explain(failures)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_sync_that_is_left_out_shows_in_an_image(name: str) -> None:
    """A bug of syncs, planted into the process that writes, is found in what the disk had."""
    _can("ext4")
    steps, plant = BUGS[name]
    found = explore(steps, "planted", 90, prepare=plant, fail_fast=True).failures
    assert found, f"{name}: not found"
    print(f"{name} <- {found[0]}")
    # Without it the same workload shows nothing.
    assert explain(explore(steps, "planted", 20, fail_fast=True).failures) == ""


def test_an_image_has_what_was_flushed() -> None:
    """A log has the writes, flushes and marks of a workload; each crash behind a flush differs."""
    _can("ext4")
    log = record(("commit",), 1)
    kinds = {type(op) for op in log.ops}
    assert kinds == {Wrote, Flushed, Said}
    chosen = losses(log, 1_000, random.Random(1))
    assert len(set(chosen)) == len(chosen)
    assert {loss.flush for loss in chosen if not loss.kept} <= {
        number for number, op in enumerate(log.ops) if isinstance(op, Flushed)
    }
    # The last of them is a store with one entry: all there is.
    last = max(chosen, key=lambda loss: (loss.flush, loss.kept))
    assert replay(log, [last]).failures == []


def _attached(pid: int) -> list[str]:
    """Loop devices on the disk that a process has made."""
    found = []
    for place in glob.glob("/sys/block/loop*/loop/backing_file"):
        with suppress(OSError):
            if f"disk-{pid}" in Path(place).read_text():
                found.append(place)
    return found


def test_nothing_is_left_of_a_killed_run() -> None:
    """Whoever records is killed: its mounts and its loop device are gone with it."""
    _can("ext4")
    mounts = Path("/proc/self/mounts").read_text()
    child = Child(lambda: record(["commit"] * 400, 1))
    # The recording itself is done by a child of this child.
    inner = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    pids: list[int] = []
    while not any(_attached(pid) for pid in pids):
        pids = [int(word) for word in inner.read_text().split()]
        time.sleep(0.01)
    child.kill()
    assert child.wait() is None
    while any(_attached(pid) for pid in pids):
        time.sleep(0.01)
    assert Path("/proc/self/mounts").read_text() == mounts
