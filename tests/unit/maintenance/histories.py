"""Histories that counts of references have to follow, step by step."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

import pytest

from cas.errors import CasError, Unavailable
from cas.history.horizon import Thinning
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.history.upkeep import GcResult
from cas.maintenance.gc.compact import compact
from cas.maintenance.gc.condemn import Condemnation
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, digest_blob
from cas.testing.archiving import archive_all
from cas.testing.memories import ENOUGH, memories_of
from cas.testing.stores import SMALL, build, create
from cas.testing.versions import put_on, versions_of
from tests.unit.kit import ManualClock, write

DAY_US = 24 * 3600 * 1_000_000
BRANCHES = ("main", "draft", "plan")


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


class History:
    """A store to which anything happens, and copies of its counts."""

    def __init__(self, folder: str, clock: ManualClock, *, is_made: bool = False) -> None:
        self.clock = clock
        if not is_made:
            create(folder, clock=clock)
        self.store = build(folder, clock=clock, thresholds=SMALL, cached=True)
        assert self.store.objects.cache is not None
        self.cache = Path(self.store.objects.cache)
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
