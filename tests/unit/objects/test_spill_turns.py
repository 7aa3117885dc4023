"""Whose turn it is to spill: one handle at a time, and none that has gone to sleep over it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.errors import Unavailable
from cas.history.store import Store
from cas.limits import THRESHOLDS
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from cas.objects import spill as module
from cas.objects.spill import PATIENCE, Spill
from cas.testing.stores import SteppedClock, build
from tests.tidy.source import ROOT
from tests.unit.kit import commits

LOW = THRESHOLDS._replace(spill_packs=12)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new store; spills gather four packs at a time, so that they take several commits."""
    monkeypatch.setattr(module, "GATHER_SLICE", 4)
    cas.init(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def pair(place: Path) -> Iterator[tuple[Store, Store]]:
    """Two handles on it, as two processes have them."""
    one, two = (
        build(str(place), clock=SteppedClock(f"handle {n}"), thresholds=LOW) for n in range(2)
    )
    yield one, two
    one.close()
    two.close()


def begun(store: Store) -> None:
    """Commit until the handle has begun a spill."""
    while store._spill._run is None:
        commits(store, 1, branch=f"b{store.view().seq}")
    assert store.objects.lookup.inline_count >= LOW.spill_packs


def young(store: Store) -> int:
    """Inline packs in the newest state."""
    store.objects.lookup.refresh()
    return store.objects.lookup.inline_count


def test_one_that_sleeps_over_a_spill_stops_nobody(pair: tuple[Store, Store]) -> None:
    """A handle that began and commits no more: another one begins anew after so many commits."""
    sleeper, other = pair
    begun(sleeper)
    before = young(other)
    commits(other, PATIENCE)
    assert young(other) >= before + PATIENCE - 2
    commits(other, 60, branch="more")
    assert young(other) < PATIENCE // 2
    # The sleeper wakes: it gives up what it had gathered, and nothing is lost or left over.
    commits(sleeper, 2, branch="awake")
    assert sleeper._spill._run is None
    other.spill()
    for store in pair:
        assert [entry.seq for entry in store.journal()] == list(range(1, store.view().seq + 1))
        assert dict(store.snapshot("awake")) == {"n": b"1"}
    packs = Path(other.location) / "packs"
    other.close()
    sleeper.close()
    assert [name for name in os.listdir(packs) if name.endswith(".tmp")] == []
    with cas.open(other.location) as store:
        assert fsck(store).ok


def test_one_that_is_at_work_is_not_overtaken(pair: tuple[Store, Store]) -> None:
    """While the first goes on with its slices, the second begins none, however many commits."""
    worker, other = pair
    begun(worker)
    run = worker._spill._run
    while worker._spill._run is run:
        commits(other, 5, branch=f"o{other.view().seq}")
        assert other._spill._run is None
        commits(worker, 1, branch=f"w{worker.view().seq}")
    assert young(worker) < LOW.spill_packs + 6 * 20


def test_asking_for_a_spill_does_not_wait_for_a_sleeper(pair: tuple[Store, Store]) -> None:
    """`spill` takes over at once; the sleeper's close leaves it at that."""
    sleeper, other = pair
    begun(sleeper)
    assert other.spill() >= LOW.spill_packs
    sleeper.close()
    assert young(other) == 0
    packs = Path(other.location) / "packs"
    assert len(os.listdir(packs)) == 1


def test_a_spill_that_died_is_begun_anew(place: Path) -> None:
    """A process killed between two slices leaves a note that is no reason to wait for ever."""
    program = """
import os, sys
from cas.limits import THRESHOLDS
from cas.maintenance.fsck.check import fsck
from cas.objects import spill
from cas.testing.stores import SteppedClock, build
spill.GATHER_SLICE = 4
low = THRESHOLDS._replace(spill_packs=12)
store = build(sys.argv[1], clock=SteppedClock("dies"), thresholds=low)
while store._spill._run is None:
    with store.begin() as tx:
        tx.branch(f"b-{tx.txid.hex()}")["n"] = b"1"
        tx.commit()
os._exit(9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, place], env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 9
    assert (place / "locks" / "spill").stat().st_size > 0
    with build(str(place), clock=SteppedClock("next"), thresholds=LOW) as store:
        commits(store, PATIENCE + 40)
        assert young(store) < 2 * LOW.spill_packs
        while store._spill._run is not None:
            commits(store, 1, branch=f"b{store.view().seq}")
        assert (place / "locks" / "spill").stat().st_size == 0


def test_no_lock_is_held_between_slices(pair: tuple[Store, Store]) -> None:
    """Between two commits the task is free, whatever has begun."""
    sleeper, other = pair
    begun(sleeper)
    with other.objects.catalog.elect("spill") as turn:
        assert turn is not None
        assert turn.note.startswith(sleeper._spill._run.name)  # type: ignore[union-attr]


def test_a_spill_that_fails_leaves_no_note(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error others need not wait: the note is taken back."""
    one, other = pair
    begun(one)

    def broken(self: Spill, run: object, limit: int) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Spill, "_gather", broken)
        with pytest.raises(KeyboardInterrupt):
            one.spill()
    with other.objects.catalog.elect("spill") as turn:
        assert turn is not None
        assert turn.note == b""


@pytest.mark.parametrize("goes", ["purged", "condemned"])
@pytest.mark.parametrize("end", ["close", "spill", "mirror"])
def test_what_is_given_up_during_a_spill_is_no_part_of_it(
    pair: tuple[Store, Store], goes: str, end: str
) -> None:
    """Whoever began to gather it ends its spill without an error, and without it."""
    sleeper, other = pair
    secret = os.urandom(900)
    id = sleeper.put(secret)
    begun(sleeper)
    while not sleeper._spill._run.sealed:  # type: ignore[union-attr]
        commits(sleeper, 1, branch=f"b{sleeper.view().seq}")
    if goes == "purged":
        with pytest.raises(Unavailable, match="at work"):
            # What the spill has gathered cannot go yet; the tombstone stands.
            purge(other, id, reason="a secret")
    else:
        other.gc(grace_us=0)
    if end == "close":
        sleeper.close()
    else:
        assert sleeper.spill() if end == "spill" else sleeper.mirror()
        assert young(sleeper) < LOW.spill_packs
    if goes == "purged":
        purge(other, id, reason="a secret")
    assert not other.has(id)
    assert fsck(other).ok
