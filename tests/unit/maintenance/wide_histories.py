"""Histories that counts of references have to follow, beyond those of one undisturbed handle."""

from __future__ import annotations

import contextlib
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import cas
from cas.catalog.sqlite import SqliteCatalog
from cas.errors import CasError
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.maintenance.copying import copy_refs
from cas.maintenance.findings import Severity
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc import collect
from cas.maintenance.gc.coloring import color_store
from cas.maintenance.gc.condemn import Condemnation
from cas.maintenance.purge import finish_purges, purge
from cas.model.ids import BlobId, digest_blob
from cas.testing.stores import SMALL, build, create
from tests.unit.kit import ManualClock, write
from tests.unit.maintenance.histories import BRANCHES, DAY_US, History

KILLED = 77
WRONG = 78

BESIDE = ("commit", "put", "thin", "horizon", "spill", "delete", "gc", "pin", "purge", "compact")
"""What another handle does between two steps of a run."""

KILLS = ("gc", "full", "spill", "archive", "purge", "compact", "commit", "thin", "retain", "young")
"""What a process of its own begins, and is killed in."""


class SaltedClock(ManualClock):
    """A clock whose names are of one process: a child goes on from where its parent was."""

    def __init__(self, salt: int) -> None:
        super().__init__()
        self.salt = salt

    def random(self, count: int) -> bytes:
        name = super().random(count)
        return name if count < 12 else self.salt.to_bytes(2, "big") + name[2:]


class WideHistory(History):
    """A store with two handles, to which more happens; it may be copied away and put back."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, SaltedClock(0))
        self.folder = folder
        self.far = f"{folder}-far"
        create(self.far, clock=self.clock)
        self.source = build(self.far, clock=self.clock, thresholds=SMALL)
        self.open: Transaction | None = None
        self.children = 0
        self.saved = 0
        self.other = self._second()

    def _second(self) -> Store:
        """A further handle, which shares the cache of the first."""
        return build(self.folder, clock=self.clock, thresholds=SMALL, cached=True)

    def close(self) -> None:
        """Close all handles."""
        self.roll_back("", 0, 0)
        for store in (self.store, self.other, self.source):
            store.close()

    def reopen(self) -> None:
        """New handles on whatever lies in the folder."""
        self.store = build(self.folder, clock=self.clock, thresholds=SMALL, cached=True)
        self.other = self._second()

    def check(self, name: str, one: int, two: int) -> None:
        # Files beside a catalog that was put back, and purges that were cut short, are told.
        bad = [
            f for f in fsck(self.store).findings if f.severity in (Severity.LOSS, Severity.DAMAGE)
        ]
        assert not bad, bad

    # -- refs ----------------------------------------------------------------------------------

    def tag(self, name: str, one: int, two: int) -> None:
        with self.store.begin() as tx:
            tags = self.store.tags()
            target: Any = self.store.resolve(f"{name}~{one % 3}")
            if two % 3 == 1:
                target = self.store.core.commits.get(target).tree
            elif two % 3 == 2 and tags:
                target = tags[one % len(tags)].target
            tx.tag(f"t{one % 5}", target, "m")
            tx.commit()

    def untag(self, name: str, one: int, two: int) -> None:
        with self.store.begin() as tx:
            tags = self.store.tags()
            tx.delete(tags[one % len(tags)].name if tags else "tags/none")
            tx.commit()

    def event(self, name: str, one: int, two: int) -> None:
        with self.store.begin() as tx:
            tx.event("e", b"%d" % two * (40_000 if one % 2 else 50))
            tx.commit()

    def lift(self, name: str, one: int, two: int) -> None:
        for found in self.store.holds():
            self.store.release(found.id)

    def redo(self, name: str, one: int, two: int) -> None:
        self.store.redo()

    def restore(self, name: str, one: int, two: int) -> None:
        self.store.restore(seq=max(0, self.store.view().seq - one))

    def retain(self, name: str, one: int, two: int) -> None:
        rule = KeepRule("heads/*", last=1 + one % 3)
        policy = RetentionPolicy((rule,), HorizonRule(Span(), two % 5))
        self.store.apply(self.store.plan_retention(policy), author="keeper")

    def nested(self, name: str, one: int, two: int) -> None:
        """The same directory in several places, and one file twice in it."""
        files = {f"n{at}/s/{f}": b"%d" % (one % 3) * 60 for at in range(2) for f in "ab"}
        write(self.store, name, files)

    def empty(self, name: str, one: int, two: int) -> None:
        write(self.store, name, dict.fromkeys(self.store.snapshot(name)))

    # -- content -------------------------------------------------------------------------------

    def loose_large(self, name: str, one: int, two: int) -> None:
        self.store.put(Random(two % 3).randbytes(300_000) * 28)

    def purge_large(self, name: str, one: int, two: int) -> None:
        content = Random(two % 3).randbytes(300_000) * 28
        purge(self.store, BlobId(digest_blob(content)), reason="asked for")
        if one % 2:
            self.store.put(content, allow_purged=True)

    def finish(self, name: str, one: int, two: int) -> None:
        finish_purges(self.store)

    def elsewhere(self, name: str, one: int, two: int) -> None:
        """The other store gets what this one may have, and more."""
        write(self.source, name, {f"d{one % 4}/e/f{one}": b"%d" % two * 50, "s": b"%d" % one * 70})
        if two % 4 == 0:
            copy_refs(self.store, self.source, [name], force=True, thinned=True)

    def copy(self, name: str, one: int, two: int) -> None:
        copy_refs(self.source, self.store, [name], force=True, thinned=bool(one % 2))

    # -- others --------------------------------------------------------------------------------

    def begin(self, name: str, one: int, two: int) -> None:
        """A transaction that stays open, with a pack file of its own or without."""
        self.roll_back("", 0, 0)
        self.open = self.store.begin(author="slow")
        self.open.branch(name)[f"slow{one % 3}"] = b"%d" % two * (9_000_000 if one % 2 else 50)

    def end(self, name: str, one: int, two: int) -> None:
        tx, self.open = self.open, None
        if tx is not None:
            with tx:
                tx.commit()

    def roll_back(self, name: str, one: int, two: int) -> None:
        tx, self.open = self.open, None
        if tx is not None:
            tx.rollback()

    def by_other(self, name: str, one: int, two: int) -> None:
        """A step of the other handle."""
        with self._swapped():
            self.take(BESIDE[one % len(BESIDE)], name, two % 4, one)

    @contextlib.contextmanager
    def _swapped(self) -> Any:
        self.store, self.other = self.other, self.store
        try:
            yield
        finally:
            self.store, self.other = self.other, self.store

    def beside(self, name: str, one: int, two: int) -> None:
        """A run between whose steps the other handle does something."""
        what = BESIDE[one % len(BESIDE)]

        def between() -> None:
            with self._swapped():
                self.take(what, name or "main", two % 4, one)

        run = Condemnation.run
        with pytest.MonkeyPatch.context() as patch:
            if two % 2:
                patch.setattr(collect, "color_store", _after(between, color_store))
            else:
                patch.setattr(Condemnation, "run", _after(between, run))
            self.gc("", 0, 0)

    def killed_in(self, name: str, one: int, two: int) -> None:
        """A process does something, and dies before one of its transactions or behind it."""
        self.roll_back("", 0, 0)
        self.children += 1
        pid = os.fork()
        if not pid:
            os._exit(self._in_child(KILLS[one % len(KILLS)], name or "main", one, two))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, KILLED), status

    def _in_child(self, what: str, name: str, one: int, two: int) -> int:
        try:
            assert isinstance(self.clock, SaltedClock)
            self.clock.salt += self.children
            self.store = build(self.folder, clock=self.clock, thresholds=SMALL, cached=True)
            write_block = SqliteCatalog.write
            left = [two % 7]

            def write_or_die(catalog: SqliteCatalog, **how: bool) -> Any:
                if left[0] == 0:
                    os._exit(KILLED)
                left[0] -= 1
                return write_block(catalog, **how)

            SqliteCatalog.write = write_or_die  # type: ignore[method-assign,assignment]
            self.take(what, name, one % 4, two)
            self.store.close()
        except BaseException:
            traceback.print_exc()
            return WRONG
        return 0

    def save(self, name: str, one: int, two: int) -> None:
        """Copy the whole store away, but for its cache."""
        self.roll_back("", 0, 0)
        self.store.close()
        self.other.close()
        self.saved += 1
        ignored = shutil.ignore_patterns("cache", "locks")
        shutil.copytree(self.folder, f"{self.folder}-saved-{self.saved}", ignore=ignored)
        self.reopen()

    def put_back(self, name: str, one: int, two: int) -> None:
        """Put a copy in its place: the catalog alone, or all but the cache."""
        if not self.saved:
            return
        self.roll_back("", 0, 0)
        self.store.close()
        self.other.close()
        for path in Path(self.folder).glob("catalog*"):
            path.unlink()
        saved = f"{self.folder}-saved-{max(1, self.saved - one % 3)}"
        shutil.copytree(saved, self.folder, dirs_exist_ok=True)
        self.reopen()

    def rebuild(self, name: str, one: int, two: int) -> None:
        """The catalog is made again from packs; the cache stays, as after somebody copied it."""
        self.roll_back("", 0, 0)
        self.store.mirror()
        self.store.close()
        self.other.close()
        cache = {path.name: path.read_bytes() for path in self.cache.glob("gc-counts*")}
        try:
            with cas.plan_repair(
                self.folder, rebuild=True, accept_loss=True, clock=self.clock
            ) as plan:
                plan.apply()
        finally:
            self.reopen()
            self.cache.mkdir(exist_ok=True)
            for file, data in cache.items():
                (self.cache / file).write_bytes(data)

    def later(self, name: str, one: int, two: int) -> None:
        self.clock.now_us += (one + 1) * DAY_US


def _after(first: Callable[[], None], then: Any) -> Any:
    done: list[bool] = []

    def both(*words: Any, **names: Any) -> Any:
        if not done:
            done.append(True)
            first()
        return then(*words, **names)

    return both


CALM = {
    **dict.fromkeys(
        ("merge", "branch", "delete", "undo", "redo", "restore", "retain", "horizon"), 1
    ),
    **dict.fromkeys(
        ("pin", "unpin", "hold", "lift", "tag", "untag", "event", "nested", "empty"), 1
    ),
    **dict.fromkeys(("put", "spill", "versions", "memories", "large", "file", "loose_large"), 1),
    **dict.fromkeys(("compact", "archive", "begin", "end", "roll_back"), 1),
    "commit": 4,
    "thin": 2,
    "elsewhere": 3,
    "copy": 2,
    "by_other": 2,
}
UPKEEP = {
    **dict.fromkeys(
        ("young", "full", "killed", "old", "plan", "purge", "purge_large", "finish"), 1
    ),
    **dict.fromkeys(("save", "put_back", "later", "check"), 1),
    "gc": 4,
    "beside": 3,
    "killed_in": 3,
    "rebuild": 0.2,
}


def random_steps(rng: Random, count: int) -> list[tuple[str, str, int, int]]:
    """Steps of a history, upkeep a third of them."""
    steps = []
    for _ in range(count):
        chances = UPKEEP if rng.random() < 0.35 else CALM
        (what,) = rng.choices(list(chances), list(chances.values()))
        steps.append((what, rng.choice(BRANCHES), rng.randrange(12), rng.randrange(31)))
    return steps


def play(place: str, steps: list[tuple[str, str, int, int]]) -> None:
    """Run a history to its end, and look at all that it left."""
    history = WideHistory(os.path.join(place, "store"))
    try:
        write(history.store, "main", {f"d{at % 3}/e/f{at}": b"%d" % at for at in range(9)})
        for step in steps:
            with contextlib.suppress(CasError):
                history.take(*step)
        history.roll_back("", 0, 0)
        history.gc("", 0, 0)
        history.full("", 0, 0)
        history.check("", 0, 0)
    finally:
        history.close()
