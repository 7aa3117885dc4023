"""Maintenance: what is due is done within a time, and what is left is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import cas
from cas.catalog.sqlite import SqliteCatalog
from cas.errors import AccessDenied, StorageFailed
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.limits import DAY_US
from cas.maintenance import maintain
from cas.maintenance import purge as purging
from cas.maintenance.fsck.check import fsck
from cas.maintenance.stats import stats
from tests.unit.kit import ManualClock, reopened, write


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands where it is put."""
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True, clock=clock) as opened:
        yield opened


def fill(store: Store, rng: Random) -> None:
    """Commits enough that a spill is due, with a rule that gives most of them up."""
    for at in range(600):
        write(store, "main", {"f": rng.randbytes(2_000), "n": b"%d" % at})
    store.set_retention(RetentionPolicy((KeepRule("*", last=5),), HorizonRule(Span(), 0)))


def test_what_is_due_is_done_and_then_nothing_is(store: Store, rng: Random) -> None:
    """A plan names what is due; a run does all of it; afterwards nothing is due, all is well."""
    fill(store, rng)
    newest = store.snapshot("main")["f"]
    names = [chore.name for chore in store.plan_maintenance()]
    assert names[:4] == ["spill", "retain", "mirror", "gc"]
    assert store.plan_maintenance() == store.plan_maintenance()
    report = store.maintain()
    outcomes = {row.name: row.outcome for row in report.rows}
    assert not report.left
    assert outcomes.items() >= {"spill": "done", "retain": "done", "gc": "done"}.items()
    assert store.plan_maintenance() == ()
    assert store.maintain().rows == ()
    assert store.snapshot("main")["f"] == newest
    assert fsck(store).ok


def test_a_run_without_time_leaves_everything(store: Store, rng: Random) -> None:
    """When the time is over nothing is begun; the report says what is left for the next run."""
    fill(store, rng)
    due = [chore.name for chore in store.plan_maintenance()]
    report = store.maintain(budget_ms=0)
    assert {row.outcome for row in report.rows} == {"left"}
    assert [row.name for row in report.left][: len(due)] == due
    done = [row.name for row in store.maintain().rows if row.outcome == "done"]
    assert done[:4] == ["spill", "retain", "mirror", "gc"]


def test_a_small_store_does_not_hang_on_its_catalog(store: Store) -> None:
    """What a run is asked to do it does to the end: the journal goes into packs, however short."""
    write(store, "main", {"f": b"1"})
    assert store.plan_maintenance()[0].name == "mirror"
    assert {row.outcome for row in store.maintain().rows} == {"done"}
    assert stats(store).mirrored_seq == 1
    assert store.plan_maintenance() == ()


def test_a_chore_that_fails_is_told_and_the_others_are_done(
    store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of one chore stands in the report with its code."""

    def broken(*_args: object, **_how: object) -> int:
        raise StorageFailed("no", path="x", errno=5)

    fill(store, rng)
    monkeypatch.setattr(Store, "spill", broken)
    outcomes = {row.name: row for row in store.maintain().rows}
    assert outcomes["spill"].outcome == "failed"
    assert "storage-failed" in outcomes["spill"].detail
    assert outcomes["retain"].outcome == outcomes["gc"].outcome == "done"


def test_a_purge_that_was_cut_short_is_ended_first(
    store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content that has a tombstone and is there stands in the way of everything that gathers: it
    is taken out, and where this handle may not do that, nothing is told as done that was not.
    """
    for at in range(40):
        write(store, "main", {f"f{at}": rng.randbytes(30_000)})
    entry = store.snapshot("main").entry("f3")
    assert entry is not None

    def stop(*_words: object) -> None:
        raise StorageFailed("no", path="x", errno=None)

    with monkeypatch.context() as patch:
        patch.setattr(purging, "take_out", stop)
        with pytest.raises(StorageFailed):
            cas.purge(store, entry.id, reason="r")

    def refuse(_self: object) -> None:
        raise AccessDenied("no", path="x")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteCatalog, "refuse_scrub", refuse)
        rows = {row.name: row for row in store.maintain().rows}
        assert "purge" not in rows
        assert {rows["spill"].outcome, rows["mirror"].outcome} == {"left"}
        assert "fsck" in rows["spill"].detail
    assert store.plan_maintenance()[0].name == "purge"
    rows = {row.name: row for row in store.maintain().rows}
    assert {rows["purge"].outcome, rows["spill"].outcome} == {"done"}
    assert store.plan_maintenance() == ()
    assert fsck(store).ok
    assert not store.objects.has(entry.id)


def test_one_at_a_time(store: Store) -> None:
    """While a run is at work another says so and does nothing."""
    with (
        store.objects.catalog.elect("maintain"),
        reopened(store) as other,
        pytest.raises(cas.Unavailable, match="Another maintenance"),
    ):
        other.maintain()


def test_a_log_that_has_grown_is_emptied(store: Store, rng: Random) -> None:
    """A log longer than its bound is gone after a run; while a reader needs it, it is left."""
    with store.objects.catalog.read() as reader:
        reader.head()
        for _ in range(25):
            store.put_many([rng.randbytes(60_000) for _ in range(15)])
            write(store, "main", {"f": rng.randbytes(900_000)[:60_000]})
            with store.objects.catalog.write() as writer:
                for at in range(30):
                    writer.add_unlinked([rng.randbytes(60_000)], 1 << 60 | at)
        log = Path(store.location, "catalog.sqlite-wal")
        assert log.stat().st_size > 16 << 20
        held = {row.name: row.outcome for row in store.maintain().rows}
        assert held["log"] == "left"
    done = {row.name: row.outcome for row in store.maintain().rows}
    assert done["log"] == "done"
    assert log.stat().st_size < 1 << 20
    assert fsck(store).ok


def test_free_pages_of_a_small_catalog_are_given_back(store: Store, rng: Random) -> None:
    """Where little is in use the file is written anew; what it says is the same."""
    with store.objects.catalog.write() as writer:
        names = [rng.randbytes(200_000) for _ in range(60)]
        writer.add_unlinked(names, 1 << 60)
    with store.objects.catalog.write() as writer:
        writer.drop_unlinked(names)
    write(store, "main", {"f": b"1"})
    store.objects.catalog.trim()  # type: ignore[attr-defined]
    before = os.path.getsize(Path(store.location, "catalog.sqlite"))
    done = {row.name: row for row in store.maintain().rows}
    assert done["catalog"].outcome == "done"
    assert done["catalog"].size_bytes > 10_000_000
    assert os.path.getsize(Path(store.location, "catalog.sqlite")) < before - 10_000_000
    assert store.snapshot("main")["f"] == b"1"
    assert fsck(store).ok


def test_a_catalog_in_use_is_not_rewritten_under_writers(
    store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where much would have to be copied, free pages stay for reuse, and the report says so."""
    monkeypatch.setattr(maintain, "CATALOG_REWRITE_BYTES_MAX", 1)
    with store.objects.catalog.write() as writer:
        names = [rng.randbytes(200_000) for _ in range(60)]
        writer.add_unlinked(names, 1 << 60)
    with store.objects.catalog.write() as writer:
        writer.drop_unlinked(names)
    done = {row.name: row for row in store.maintain().rows}
    assert done["catalog"].outcome == "left"
    assert "writers would wait" in done["catalog"].detail


def test_the_check_reads_what_was_read_longest_ago(
    store: Store, rng: Random, clock: ManualClock
) -> None:
    """Packs are due to be read when they were not for a month, and no more when they were."""
    store.put_many([rng.randbytes(200_000) for _ in range(10)])
    assert [row.name for row in store.maintain().rows] == ["gc", "check"]
    assert store.plan_maintenance() == ()
    clock.now_us += 31 * DAY_US
    assert [chore.name for chore in store.plan_maintenance()][-1:] == ["check"]


def test_it_runs_by_itself_where_the_store_asks(tmp_path: Path, rng: Random) -> None:
    """Behind commits, for all handles, every so many entries; not where nobody asked."""
    place = tmp_path / "store"
    with cas.open(place, create=True) as store:
        fill(store, rng)
        assert store.maintenance() == 0
        assert store._automatic._thread is None
    with cas.open(place) as store:
        store.set_maintenance(600_000)
        assert len(store.commit("main~20").parents) == 1
        write(store, "main", {"last": b"1"})
        thread = store._automatic._thread
        assert thread is not None
        thread.join()
    with cas.open(place) as store:
        assert store.maintenance() == 600_000
        with pytest.raises(cas.Gone):
            store.snapshot("main~20")["f"]
        assert store.snapshot("main")["last"] == b"1"
        write(store, "main", {"last": b"2"})
        assert store._automatic._thread is None
        assert fsck(store).ok


def test_it_is_not_in_the_way_of_commits(
    tmp_path: Path, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits of the thread and of others are acknowledged while a run is at work."""
    began: list[str] = []
    with cas.open(tmp_path / "store", create=True) as store:
        fill(store, rng)
        store.set_maintenance(600_000)
        first = store.view().seq

        def retain(_self: maintain.Maintenance) -> str:
            began.append("retain")
            for at in range(20):
                write(store, "other", {"f": b"%d" % at})
            return ""

        monkeypatch.setattr(maintain.Maintenance, "_retain_due", retain)
        write(store, "main", {"last": b"1"})
        thread = store._automatic._thread
        assert thread is not None
        for at in range(20):
            write(store, "main", {"last": b"%d" % at})
        thread.join()
        assert began == ["retain"]
        assert store.view().seq == first + 41
