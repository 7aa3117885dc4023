"""Bad days: a laptop that sleeps through a commit, clocks ten years off, a disk that fills while
room is made. Packs and catalogs in wrong hands are in `test_hands.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

import cas
from cas.errors import StorageFull
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.limits import DAY_US
from cas.maintenance.fsck.check import fsck
from tests.unit.kit import ManualClock, reopened, write

_SLEEPER = """
import random, sys
import cas
with cas.open(sys.argv[1]) as store:
    with store.begin(message="slow") as tx:
        tx.branch("slow")["large"] = random.Random(1).randbytes(3_000_000)
        tx.branch("slow")["seen"] = b"put by somebody else"
        print("staged", flush=True)
        sys.stdin.readline()
        try:
            print("committed", tx.commit().seq, flush=True)
        except cas.CasError as error:
            print("refused", error.code, flush=True)
"""


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands where it is put."""
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True, clock=clock) as opened:
        yield opened


def collect_for_days(store: Store, clock: ManualClock, days: int) -> None:
    """A run of gc a day, without any grace."""
    for _ in range(days):
        clock.now_us += DAY_US
        store.gc(grace_us=0)


@pytest.mark.parametrize("named", [True, False], ids=["named", "loose"])
def test_a_process_asleep_in_mid_commit(store: Store, clock: ManualClock, named: bool) -> None:
    """What it had written is there when it wakes, however often others have collected; it commits,
    or is told that what it had only found was taken, and the same again succeeds.
    """
    store.put(b"put by somebody else")
    if named:
        write(store, "main", {"f": b"put by somebody else"})
    command = [sys.executable, "-c", _SLEEPER, store.location]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sleeper:
        assert sleeper.stdin is not None
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "staged\n"
        sleeper.send_signal(signal.SIGSTOP)
        try:
            collect_for_days(store, clock, 3)
        finally:
            sleeper.send_signal(signal.SIGCONT)
        sleeper.stdin.write("\n")
        sleeper.stdin.flush()
        answer = sleeper.stdout.readline().split()
    if named:
        assert answer[0] == "committed"
    else:
        assert answer == ["refused", "condemned"]
        assert "slow" not in [ref.short for ref in store.branches()]
        large = Random(1).randbytes(3_000_000)
        write(store, "slow", {"large": large, "seen": b"put by somebody else"})
    assert len(store.snapshot("slow")["large"]) == 3_000_000
    assert store.snapshot("slow")["seen"] == b"put by somebody else"
    assert fsck(store).ok


@pytest.mark.parametrize("years", [10, -10])
def test_clocks_ten_years_off(store: Store, clock: ManualClock, rng: Random, years: int) -> None:
    """The journal's time never runs backwards, nothing young is collected, and rules of retention
    keep as many commits as they say; when the clock is right again, all goes on.
    """
    loose = rng.randbytes(2_000)
    for at in range(3):
        write(store, "main", {"f": b"right %d" % at})
    right_us = clock.now_us
    clock.now_us += years * 365 * DAY_US
    store.put(loose)
    write(store, "main", {"f": b"wrong"})
    assert store.gc().object_count == 0
    clock.now_us = right_us + DAY_US
    write(store, "main", {"f": b"right again"})
    assert store.gc().object_count == 0
    with reopened(store) as other:
        times = [entry.time_us for entry in other.journal()]
        assert times == sorted(times)
        assert [other.snapshot(f"main~{n}")["f"] for n in range(2)] == [b"right again", b"wrong"]
        assert other.has(cas.BlobId(store.put(loose)))
        policy = RetentionPolicy((KeepRule("*", last=2),), HorizonRule(Span(), 100))
        assert other.plan_retention(policy).going == ()
        assert fsck(other).ok


def test_a_disk_that_fills_while_room_is_made(small_disk: Path, rng: Random) -> None:
    """A collection that finds no room for what it moves fails typed; nothing is lost, and with
    room again the next one ends the work.
    """
    kept = {f"k{at}": rng.randbytes(30_000) for at in range(8)}
    with cas.open(small_disk / "store", create=True) as store:
        store.put_many([*kept.values(), *(rng.randbytes(30_000) for _ in range(25))])
        write(store, "main", dict(kept))
        ballast = small_disk / "ballast"
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass
        with pytest.raises(StorageFull):
            store.gc(grace_us=0)
        assert dict(store.snapshot("main")) == kept
        os.unlink(ballast)
        store.gc(grace_us=0)
        assert dict(store.snapshot("main")) == kept
        packs = sum(p.stat().st_size for p in (small_disk / "store" / "packs").iterdir())
        assert packs < 400_000
        assert fsck(store).ok


# -- a disk that is full -----------------------------------------------------------------------


def free_bytes(disk: Path) -> int:
    """What is free on a disk."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path) -> None:
    """Leave nothing free."""
    with open(disk / "ballast", "ab", buffering=0) as file:
        for piece in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(piece)) == piece:
                    pass
    assert free_bytes(disk) == 0


def wasteful(disk: Path, rng: Random) -> dict[str, bytes]:
    """Make a store of 9 MB on a disk, closed, in which 13 of 100 bytes of each pack are needed:
    the rest is of a commit that was thinned.
    """
    kept = {f"k{at}": rng.randbytes(30_000) for at in range(40)}
    waste = {f"w{at}": rng.randbytes(40_000) for at in range(200)}
    with cas.open(disk / "store", create=True) as store:
        for at in range(4):
            names = [*list(kept)[at::4], *list(waste)[at::4]]
            store.put_many([(kept | waste)[name] for name in names])
        write(store, "main", kept | waste)
        with store.begin() as tx:
            for name in waste:
                del tx.branch("main")[name]
            tx.commit()
        policy = RetentionPolicy((KeepRule("heads/*", last=1),), HorizonRule(Span(), 0))
        store.apply(store.plan_retention(policy))
        assert not reserve(disk).exists()
    assert reserve(disk).stat().st_size == 1 << 20
    return kept


def reserve(disk: Path) -> Path:
    """The file that is kept for this."""
    return disk / "store" / "cache" / "reserve"


@pytest.mark.parametrize("way", ["gc", "maintain", "gc in a handle that was open"])
def test_a_collection_on_a_full_disk_gives_room_back(disk: Path, rng: Random, way: str) -> None:
    """A store that is opened on a full disk can be read and collected: it keeps a reserve for
    that. Nothing that is needed is lost, and files that nothing names are gone afterwards.
    """
    kept = wasteful(disk, rng)
    early = cas.open(disk / "store") if "open" in way else None
    if early is not None:
        early.put(b"so that it has written")
    fill(disk)
    with cas.open(disk / "store", read_only=True) as reader:
        assert dict(reader.snapshot("main")) == kept
    with early or cas.open(disk / "store") as store:
        with pytest.raises(StorageFull):
            store.put(rng.randbytes(3_000_000))
        assert reserve(disk).stat().st_size > 900_000, "it is for who collects"
        if way == "maintain":
            store.maintain()
        else:
            assert store.gc().object_count >= 200
        assert dict(store.snapshot("main")) == kept
        assert free_bytes(disk) > 7_000_000
        assert fsck(store).ok
        write(store, "main", {"more": rng.randbytes(100_000)})
    with cas.open(disk / "store") as again:
        assert len(again.snapshot("main")) == 41
        assert fsck(again).findings == ()


def test_a_collection_without_a_reserve_fails_whole(disk: Path, rng: Random) -> None:
    """Where the reserve is gone, as where the cache was deleted, a full disk is told, by who
    collects and by who opens; with room again all goes on, and the reserve is made again.
    """
    kept = wasteful(disk, rng)
    with cas.open(disk / "store") as store:
        store.put(b"so that it has written")
        reserve(disk).unlink()
        fill(disk)
        for _ in range(2):
            with pytest.raises(StorageFull):
                store.gc()
        assert dict(store.snapshot("main")) == kept
    fill(disk)
    with pytest.raises(StorageFull):
        cas.open(disk / "store")
    (disk / "ballast").unlink()
    with cas.open(disk / "store") as store:
        store.put_many([rng.randbytes(40_000) for _ in range(40)])
        store.spill()
        assert reserve(disk).stat().st_size == 1 << 20
        assert store.gc().object_count >= 200
        assert fsck(store).ok


def test_a_reserve_that_another_has_given_up_meanwhile_serves(disk: Path, rng: Random) -> None:
    """Two find the disk full; what one has given up is room for the other, and neither fails for
    a file that is gone.
    """
    kept = wasteful(disk, rng)
    with cas.open(disk / "store") as one, cas.open(disk / "store") as two:
        one.put(b"so that it has written")
        two.put(b"so has this")
        fill(disk)
        two.objects.room.give_up()
        assert one.gc().object_count >= 200
        assert two.gc().object_count == 0
        assert dict(two.snapshot("main")) == kept
        assert fsck(two).ok


def test_a_collection_that_is_killed_behind_its_reserve(disk: Path, rng: Random) -> None:
    """Killed at any moment of a run on a full disk: the next run, in a new process and on a disk
    that is as full as before or has the room that was given up, loses nothing.
    """
    kept = wasteful(disk, rng)
    fill(disk)
    program = "import sys, cas; cas.open(sys.argv[1]).gc(); print('done')"
    for wait_ms in (0, 30, 60, 120, 240, 480):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(disk / "store")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as run:
            with suppress(subprocess.TimeoutExpired):
                run.wait(0.15 + wait_ms / 1000)
            run.kill()
        with cas.open(disk / "store", read_only=True) as reader:
            assert dict(reader.snapshot("main")) == kept
            assert fsck(reader).ok
    with cas.open(disk / "store") as store:
        store.gc()
        assert dict(store.snapshot("main")) == kept
        assert free_bytes(disk) > 7_000_000
        assert fsck(store).ok


def test_a_purge_on_a_full_disk_says_what_stands(small_disk: Path) -> None:
    """Its tombstone was committed and the content is there yet: that is told, and not that nothing
    was done; with room the same purge ends.
    """
    with cas.open(small_disk / "store", create=True) as store:
        with store.batch() as batch:
            goes, stays = batch.put(os.urandom(500_000)), batch.put(os.urandom(600_000))
        write(store)
        filler = small_disk / "filler"
        room = os.statvfs(small_disk)
        filler.write_bytes(bytes(room.f_bavail * room.f_bsize - 400_000))
        with pytest.raises(StorageFull, match="has its tombstone") as refused:
            cas.purge(store, goes, reason="leaked")
        assert "nothing was committed" not in refused.value.message
        assert [stone.id for stone in store.purged()] == [goes]
        assert "purge-unfinished" in {finding.code for finding in fsck(store).findings}
        filler.unlink()
        cas.purge(store, goes, reason="leaked")
        assert len(store.get(stays)) == 600_000
        assert fsck(store).ok
