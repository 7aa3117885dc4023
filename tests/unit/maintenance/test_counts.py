"""Counts of references: what they say is what a full mark says, or nobody asks them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cas.errors import CasError, Unavailable
from cas.history.horizon import Thinning
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.history.upkeep import COUNTED, FULL, GcResult
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc.compact import compact
from cas.maintenance.gc.condemn import Condemnation
from cas.maintenance.gc.counts import Counts
from cas.maintenance.gc.forward import Forward
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, digest_blob
from cas.testing.archiving import archive_all
from cas.testing.memories import ENOUGH, memories_of
from cas.testing.stores import SMALL, build, create, scratch
from cas.testing.versions import put_on, versions_of
from tests.counted import Seen, against_full_marks
from tests.unit.kit import ManualClock, write

DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Every run that believes counts is compared with a full mark."""
    with against_full_marks(monkeypatch) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a folder, with a cache."""
    create(str(tmp_path / "store"), clock=ManualClock())
    with build(str(tmp_path / "store"), clock=ManualClock(), cached=True) as opened:
        yield opened


def thin(store: Store, *revisions: str, seq: int | None = None) -> None:
    """Give up the content of commits, and all states before an entry (the newest)."""
    ids = [store.resolve(revision) for revision in revisions]
    with store.begin(author="keeper", message="thin") as tx:
        upto = store.view().seq if seq is None else seq
        stage_raise(store.core, tx, upto, {id: Thinning("test", "keeper", 1) for id in ids})
        tx.commit()


def run(store: Store, how: str, **options: object) -> GcResult:
    """One run without grace, found out this way."""
    done = store.gc(grace_us=0, **options)  # type: ignore[arg-type]
    assert done.marked.how == how, done.marked
    assert not done.marked.finding
    return done


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


# -- any history -----------------------------------------------------------------------------------

BRANCHES = ("main", "draft", "plan")
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


class History:
    """A store to which anything happens, and copies of its counts."""

    def __init__(self, folder: str, clock: ManualClock) -> None:
        self.clock = clock
        create(folder, clock=clock)
        self.store = build(folder, clock=clock, thresholds=SMALL, cached=True)
        self.cache = Path(folder, "cache")
        self.copies: list[dict[str, bytes]] = []

    def take(self, what: str, name: str, one: int, two: int) -> None:
        """One step. What the store refuses is refused."""
        with contextlib.suppress(CasError):
            getattr(self, what)(name or "main", one, two)

    def commit(self, branch: str, one: int, two: int) -> None:
        write(self.store, branch, {f"d{one % 4}/e/f{one}": b"%d" % two * 50 if two else None})

    def thin(self, branch: str, back: int, kept: int) -> None:
        seq = max(0, self.store.view().seq - kept)
        thin(self.store, f"{branch}~{back}", seq=seq)

    def branch(self, name: str, one: int, two: int) -> None:
        with self.store.begin() as tx:
            tx.move(f"heads/{name}", self.store.resolve(f"{BRANCHES[one % 3]}~{two % 3}"))
            tx.commit()

    def merge(self, name: str, one: int, two: int) -> None:
        self.store.merge(name, BRANCHES[one % 3], on_conflict="commit")

    def delete(self, name: str, one: int, two: int) -> None:
        with self.store.begin() as tx:
            tx.delete(f"heads/{name}")
            tx.commit()

    def undo(self, name: str, one: int, two: int) -> None:
        self.store.undo(self.store.view().seq - one)

    def pin(self, name: str, one: int, two: int) -> None:
        commit = self.store.resolve(f"{name}~{one % 3}")
        what = self.store.core.commits.get(commit).tree if two % 2 else commit
        self.store.pin(what, reason="pin")

    def unpin(self, name: str, one: int, two: int) -> None:
        for found in self.store.pins():
            self.store.unpin(found.id)

    def hold(self, name: str, one: int, two: int) -> None:
        if one == 0:
            self.store.hold(self.store.resolve(name), reason="hold")

    def put(self, name: str, one: int, two: int) -> None:
        # Some of these are contents of commits as well.
        self.store.put(b"%d" % two * 50)

    def spill(self, name: str, one: int, two: int) -> None:
        self.store.spill()

    def versions(self, name: str, one: int, two: int) -> None:
        contents = versions_of(Random(one % 3).randbytes(1500), 2 + two % 5)
        write(self.store, name, {"v": contents[0]})
        put_on(self.store, contents[0], contents[1:])
        for content in contents[1:]:
            write(self.store, name, {"v": content})

    def memories(self, name: str, one: int, two: int) -> None:
        contents = memories_of(Random(one % 2), ENOUGH)
        write(self.store, name, {f"m/{at}": c for at, c in enumerate(contents)})

    def large(self, name: str, one: int, two: int) -> None:
        write(self.store, name, {f"l{one % 2}": Random(two % 3).randbytes(300_000) * 28})

    def file(self, name: str, one: int, two: int) -> None:
        write(self.store, name, {f"g{one % 3}": Random(two).randbytes(70_000)})

    def compact(self, name: str, one: int, two: int) -> None:
        compact(self.store.objects, waste_min=0.01, bytes_max=1 << 30, waste_max=-1.0)

    def archive(self, name: str, one: int, two: int) -> None:
        archive_all(self.store)

    def horizon(self, name: str, one: int, two: int) -> None:
        thin(self.store, seq=max(0, self.store.view().seq - one))

    def gc(self, name: str, one: int, two: int) -> None:
        self.remember()
        assert not self.store.gc(grace_us=0).marked.finding

    def young(self, name: str, one: int, two: int) -> None:
        self.clock.now_us += one * DAY_US // 2
        assert not self.store.gc(grace_us=2 * DAY_US).marked.finding

    def full(self, name: str, one: int, two: int) -> None:
        assert not self.store.gc(grace_us=0, full=True).marked.finding

    def plan(self, name: str, one: int, two: int) -> None:
        plan = self.store.plan_gc(grace_us=0)
        write(self.store, "main", {"planned": b"%d" % one * 50})
        assert not self.store.apply_gc(plan).marked.finding

    def killed(self, name: str, one: int, two: int) -> None:
        """Counts are saved, and nothing is condemned."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Condemnation, "run", _killed)
            with contextlib.suppress(Unavailable):
                self.store.gc(grace_us=0)

    def purge(self, name: str, one: int, two: int) -> None:
        content = b"%d" % (one + 1) * 50
        purge(self.store, BlobId(digest_blob(content)), reason="asked for")
        if one == 2:
            self.store.put(content, allow_purged=True)

    def remember(self) -> None:
        self.copies.append({f.name: f.read_bytes() for f in self.cache.glob("gc-counts*")})

    def old(self, name: str, one: int, two: int) -> None:
        """Counts of some day before are put back."""
        self.remember()
        for path in self.cache.glob("gc-counts*"):
            path.unlink()
        for file, data in self.copies[-1 - min(one, len(self.copies) - 1)].items():
            (self.cache / file).write_bytes(data)


def _killed(*_words: object) -> None:
    raise Unavailable("killed")


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


def eventful(history: History) -> None:
    """All that counts have to follow, one after the other, with runs between."""
    steps = (
        "commit main 0 1|commit main 1 2|large main 0 0|versions main 0 6|gc|thin main 1 0|gc|"
        "branch draft 0 0|pin draft 0 0|commit draft 5 7|commit draft 5 8|gc|thin draft 1 0|gc|"
        "large main 1 1|large main 1 2|spill|commit main 2 2|thin main 1 0|gc|versions draft 1 8|"
        "commit draft 1 1|thin draft 2 0|gc|thin draft 4 0|gc|put main 0 9|memories plan 0 0|gc|"
        "unpin|delete draft 0 0|horizon main 0 0|archive|commit main 2 3|commit main 2 4|gc|"
        "horizon main 0 0|gc|pin main 1 1|branch old 0 1|horizon main 0 0|gc|unpin|commit main 2 5|"
        "thin main 1 0|gc|"
        "compact|commit main 3 3|commit main 3 4|thin main 1 0|gc|versions main 2 9|spill|"
        "commit main 1 7|thin main 3 0|gc|thin main 5 0|gc"
    )
    for step in steps.split("|"):
        what, *rest = step.split()
        name, one, two = rest or ("main", "0", "0")
        getattr(history, what)(name, int(one), int(two))
    history.full("", 0, 0)


def test_an_eventful_history_is_counted(seen: Seen, tmp_path: Path) -> None:
    """A history with all that counts follow is counted from the first run to the last."""
    history = History(str(tmp_path / "store"), ManualClock())
    with history.store:
        eventful(history)
    assert seen.compared >= 12
    assert seen.taken >= 20
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
