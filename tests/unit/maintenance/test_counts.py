"""Counts of references: what they say is what a full mark says, or nobody asks them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

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
            tx.move(f"heads/{name}", self.store.resolve(BRANCHES[one % 3]))
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
        self.store.pin(self.store.resolve(f"{name}~{one % 3}"), reason="pin")

    def unpin(self, name: str, one: int, two: int) -> None:
        for found in self.store.pins():
            self.store.unpin(found.target)

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
        write(self.store, name, {f"l{one % 2}": Random(two % 3).randbytes(300_000) * 8})

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
