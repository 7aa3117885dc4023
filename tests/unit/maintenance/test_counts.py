"""Counts of references: what they say is what a full mark says, or nobody asks them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cas
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.history.upkeep import COUNTED, FULL
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc import coloring, counts
from cas.maintenance.gc.counts import Counts
from cas.maintenance.gc.forward import Forward
from cas.testing.stores import scratch
from tests.counted import Seen, against_full_marks
from tests.databases import fresh_url
from tests.unit.kit import ManualClock, write
from tests.unit.maintenance.histories import BRANCHES, History, eventful, run, thin
from tools.postgres_server import PostgresServer
from tools.services import S3Server


@pytest.fixture
def store(cached_store: Store) -> Store:
    """One with a cache, in which counts are kept."""
    return cached_store


def test_a_thinned_commit_is_taken_by_counts(store: Store, seen: Seen, rng: Random) -> None:
    """What only a thinned commit named goes without a full mark, and all else stays."""
    files = {f"d{at % 7}/f{at}": rng.randbytes(300) for at in range(200)}
    write(store, "main", files)
    for at in range(4):
        write(store, "main", {f"d1/f{8 * at + 1}": rng.randbytes(400)})
    first = run(store, FULL)
    assert "not counted yet" in first.marked.reason
    thin(store, "main~1", "main~2")
    done = run(store, COUNTED)
    assert done.object_count >= 4
    assert seen.compared == 1
    write(store, "main", {"g": b"later"})
    thin(store, "main~1")
    assert run(store, COUNTED).object_count
    assert seen.compared == 2
    assert run(store, FULL, full=True).marked.reason == "asked for"
    assert seen.compared == 3
    assert fsck(store).findings == ()
    assert {path: store.snapshot("main")[path] for path in files if "d1/" not in path} == {
        path: content for path, content in files.items() if "d1/" not in path
    }


def test_much_that_is_loose_is_not_counted(
    store: Store, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts are kept only while few objects are loose, for each of them is held in memory: with
    more everything is marked, and nothing is lost by that.
    """
    for module in (coloring, counts):
        monkeypatch.setattr(module, "GC_COUNT_UNKEPT_MAX", 50)
    write(store, "main", {f"d/f{at}": b"%d" % at for at in range(20)})
    loose = store.put_many([b"loose %d" % at for at in range(60)])
    assert run(store, FULL).object_count == 60
    few = store.put_many([b"more %d" % at for at in range(20)])
    done = run(store, FULL)
    assert "not counted yet" in done.marked.reason
    assert done.object_count == 20
    write(store, "main", {"g": b"named"})
    few += store.put_many([b"few %d" % at for at in range(20)])
    assert run(store, COUNTED).object_count == 20
    assert seen.compared == 1
    more = store.put_many([b"yet more %d" % at for at in range(60)])
    done = run(store, FULL)
    assert "more is loose" in done.marked.reason
    assert done.object_count == 60
    assert not any(map(store.has, (*loose, *few, *more)))
    assert fsck(store).findings == ()


def test_what_retention_would_leave_is_not_remembered(store: Store, seen: Seen) -> None:
    """A plan of what would go after retention goes by counts, and leaves them as they were."""
    for at in range(4):
        write(store, "main", {"f": b"%d" % at * 3_000, f"g{at}": b"%d" % at})
    run(store, FULL)
    before = {path.name: path.read_bytes() for path in Path(store.objects.cache).glob("gc-*")}
    wanted = store.plan_retention(
        RetentionPolicy((KeepRule("heads/*", last=1),), HorizonRule(Span(), 0))
    )
    plan = store.plan_gc(after=wanted)
    assert plan.marked.how == COUNTED
    assert {
        path.name: path.read_bytes() for path in Path(store.objects.cache).glob("gc-*")
    } == before
    store.apply(wanted)
    assert run(store, COUNTED).rows == plan.rows
    assert seen.compared >= 2


# -- any history -----------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(BRANCHES), st.integers(0, 11), st.integers(0, 30)),
    st.tuples(st.just("commit"), st.sampled_from(BRANCHES), st.integers(0, 11), st.integers(0, 30)),
    st.tuples(st.just("thin"), st.sampled_from(BRANCHES), st.integers(0, 3), st.integers(0, 6)),
    st.tuples(
        st.sampled_from(
            [
                "branch",
                "merge",
                "delete",
                "undo",
                "pin",
                "unpin",
                "hold",
                "put",
                "spill",
                "versions",
                "memories",
                "large",
                "file",
                "compact",
                "archive",
                "horizon",
            ]
        ),
        st.sampled_from(BRANCHES),
        st.integers(0, 11),
        st.integers(0, 30),
    ),
    st.tuples(
        st.sampled_from(("gc", "gc", "gc", "young", "full", "killed", "old", "plan", "purge")),
        st.just(""),
        st.integers(0, 3),
        st.just(0),
    ),
)


@pytest.mark.slow
@given(st.lists(STEPS, min_size=8, max_size=40))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_counts_say_what_a_full_mark_says(steps: list[tuple[str, str, int, int]]) -> None:
    """Whatever happened to a store, counts brought forward are those of a full mark of its state,
    and no run leaves a hole.
    """
    with pytest.MonkeyPatch.context() as patch, against_full_marks(patch), scratch() as place:
        history = History(os.path.join(place, "store"), ManualClock())
        with history.store:
            write(history.store, "main", {f"d{at % 3}/e/f{at}": b"%d" % at for at in range(9)})
            for step in steps:
                history.take(*step)
            history.gc("", 0, 0)
            history.full("", 0, 0)
            assert all(f.severity == Severity.NOTICE for f in fsck(history.store).findings)


# -- bugs that are planted -------------------------------------------------------------------------


def _a_root_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    inner = Forward._raise
    patch.setattr(
        Forward,
        "_raise",
        lambda self, ids: inner(self, [id for id in ids if not self._counts.of(id)]),
    )


def _an_edge_is_counted_once_too_few(patch: pytest.MonkeyPatch) -> None:
    inner = Forward._named_by
    patch.setattr(Forward, "_named_by", lambda self, ids, absent: inner(self, ids, absent)[1:])


def _an_older_state_is_believed(patch: pytest.MonkeyPatch) -> None:
    def run(self: Forward) -> None:
        self._take_packs()
        self._counts.roots = self._counts.all_roots(self._roots.all_kept)
        self._color()

    patch.setattr(Forward, "run", run)


def _what_is_thinned_counts_twice(patch: pytest.MonkeyPatch) -> None:
    inner = Forward._give_up

    def give_up(self: Forward) -> list[bytes]:
        return inner(self) * 2

    patch.setattr(Forward, "_give_up", give_up)


def _what_was_thinned_before_counts_again(patch: pytest.MonkeyPatch) -> None:
    inner = Forward._give_up

    def give_up(self: Forward) -> list[bytes]:
        self._counts.thinned = frozenset()
        return inner(self)

    patch.setattr(Forward, "_give_up", give_up)


def _what_falls_takes_nothing_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Forward,
        "_was_missing",
        lambda self, id: True,
    )
    inner = Forward._named_by

    def named_by(self: Forward, ids: list[bytes], absent: Any) -> list[bytes]:
        return [] if absent.__name__ != "_is_purged" else inner(self, ids, absent)

    patch.setattr(Forward, "_named_by", named_by)


def _recipes_are_not_needed(patch: pytest.MonkeyPatch) -> None:
    inner = Forward._named_by

    def named_by(self: Forward, ids: list[bytes], absent: Any) -> list[bytes]:
        needs, self._counts.needs = self._counts.needs, {}
        found = inner(self, ids, absent)
        self._counts.needs = needs
        return found

    patch.setattr(Forward, "_named_by", named_by)


def _new_packs_are_not_taken_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Forward, "_take_packs", lambda self: [])


def _bases_of_new_deltas_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    inner = Counts.packs_on

    def packs_on(self: Counts, ids: Iterable[bytes]) -> set[int]:
        self.fresh_bases = set()
        return inner(self, ids)

    patch.setattr(Counts, "packs_on", packs_on)


def _segments_of_the_journal_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Counts, "all_roots", lambda self, kept: frozenset(kept))


PLANTED = {
    plant.__name__: plant
    for plant in (
        _a_root_is_not_counted,
        _an_edge_is_counted_once_too_few,
        _an_older_state_is_believed,
        _what_is_thinned_counts_twice,
        _what_was_thinned_before_counts_again,
        _what_falls_takes_nothing_off,
        _recipes_are_not_needed,
        _new_packs_are_not_taken_in,
        _bases_of_new_deltas_are_forgotten,
        _segments_of_the_journal_are_forgotten,
    )
}


def test_an_eventful_history_is_counted(seen: Seen, tmp_path: Path) -> None:
    """A history with all that counts follow is counted from the first run to the last."""
    history = History(str(tmp_path / "store"), ManualClock())
    with history.store:
        eventful(history)
    assert seen.compared >= 12
    assert seen.taken >= 20
    assert seen.refused == ["references were not counted yet"]


def test_a_history_on_a_server_is_counted(
    seen: Seen, tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the catalog on PostgreSQL."""
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "cache"))
    url = f"{fresh_url(postgres)}&bucket={tmp_path}/packs"
    history = History(url, ManualClock())
    with history.store:
        eventful(history)
    assert seen.compared >= 12
    assert seen.refused == ["references were not counted yet"]


def test_a_history_on_a_bucket_is_counted(
    seen: Seen, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the packs in a bucket of a real S3 server."""
    pytest.importorskip("obstore")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    folder = str(tmp_path / "store")
    cas.init(folder, bucket=f"s3://{s3_server.bucket}{folder}")
    history = History(folder, ManualClock(), is_made=True)
    with history.store:
        eventful(history)
    assert seen.compared >= 12
    assert seen.refused == ["references were not counted yet"]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(
    plant: str, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with full marks finds each of these bugs, so that it can find others."""
    PLANTED[plant](monkeypatch)
    history = History(str(tmp_path / "store"), ManualClock())
    found = False
    with history.store:
        try:
            eventful(history)
        except AssertionError:
            found = True
    # A count that falls below 0 is noticed without any comparison.
    assert found or "a count was too low" in seen.refused
