"""Maintenance: what is due is done, within a time, and what is left is said.

Floor 5. Invariant: every chore is one that can be called by itself, and does no more here; what is
due is looked at when its turn comes; when the time is over nothing is begun. Nothing is remembered
that the next run needs, but for how long chores took, which is a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from cas.catalog.catalog import MIRRORED
from cas.catalog.trim import Trims
from cas.errors import AccessDenied, CasError, StorageFull, Unavailable
from cas.history.automatic import MAINTAINED
from cas.history.store import Store
from cas.history.upkeep import Chore, ChoreRow, MaintenanceReport
from cas.limits import (
    CATALOG_FREE_BYTES_MIN,
    CATALOG_REWRITE_BYTES_MAX,
    DAY_US,
    GC_MOVED_BYTES_MAX,
    GC_WASTE_MIN,
    LOG_BYTES_MAX,
    MAINTAIN_CHECK_DAYS,
)
from cas.maintenance.fsck.check import fsck
from cas.maintenance.fsck.extent import FsckExtent, Ledger
from cas.maintenance.gc.collect import Collector
from cas.maintenance.gc.compact import compact, worth_moving
from cas.maintenance.purge import finish_purges, unfinished_purges
from cas.maintenance.remembered import Remembered
from cas.model.names import count
from cas.objects.archive import archive_some, lacking, old_entries, renew_homes
from cas.objects.mirror import is_due

_TIMES_FILE: Final = "maintain.json"
_SHARE: Final = 8
"""A spill is due at an eighth of what makes a commit begin one."""

_FOR_PEOPLE: Final = ("purge", "check")
"""What a run by itself leaves: one holds others up, the other reads everything."""

_IN_THE_WAY: Final = "damage or a purge that was cut short is in the way (`cas fsck` tells)"

Done = tuple[str, int]
"""What was done, in words, and bytes."""


class Maintenance:
    """One run over one store. One thread."""

    def __init__(self, store: Store, collector: Collector) -> None:
        self._store = store
        self._collector = collector
        self._objects = store.objects
        self._catalog = store.objects.catalog
        self._end_ms = 0.0
        self._by_itself = False
        cache = store.objects.cache
        self._file = Remembered(cache, _TIMES_FILE)
        self._chores: dict[str, tuple[Callable[[], str], Callable[[], Done]]] = {
            "purge": (self._purge_due, self._purge),
            "spill": (self._spill_due, self._spill),
            "retain": (self._retain_due, self._retain),
            "mirror": (self._mirror_due, self._mirror),
            "archive": (self._archive_due, self._archive),
            "gc": (self._gc_due, self._gc),
            "packs": (self._packs_due, self._packs),
            "log": (self._log_due, self._log),
            "catalog": (self._catalog_due, self._rewrite),
            "check": (self._check_due, self._check),
        }

    def plan(self) -> tuple[Chore, ...]:
        """What is due, in the order in which it would be done."""
        return tuple(
            Chore(name, reason) for name, (due, _do) in self._chores.items() if (reason := due())
        )

    def run(self, budget_ms: float, stopping: Callable[[], bool] | None) -> MaintenanceReport:
        """Do it. Raises `Unavailable` while another run is at work."""
        with self._catalog.elect("maintain") as turn:
            if turn is None:
                raise Unavailable("Another maintenance is at work; try again when it is done.")
            self._end_ms = self._objects.clock.monotonic_ms() + budget_ms
            # On a full disk there may be room for this when a collection has made some.
            with suppress(StorageFull), self._catalog.write(durable=False) as writer:
                writer.set_cursor(MAINTAINED, writer.head().seq)
            return MaintenanceReport(tuple(self._rows(stopping)))

    def _left_ms(self) -> float:
        return self._end_ms - self._objects.clock.monotonic_ms()

    def _rows(self, stopping: Callable[[], bool] | None) -> Iterator[ChoreRow]:
        times = self._times()
        self._by_itself = stopping is not None
        for name, (due, do) in self._chores.items():
            if stopping is not None and (stopping() or name in _FOR_PEOPLE):
                continue
            started_ms = self._objects.clock.monotonic_ms()
            try:
                reason = due()
                if not reason:
                    continue
                self._refuse_late(times.get(name, 0) if stopping is not None else 0)
                outcome, (detail, size_bytes) = "done", do()
            except CasError as error:
                # What is only not to be done now says so, and nothing more.
                waits = type(error) is Unavailable
                outcome, size_bytes = "left" if waits else "failed", 0
                detail = str(error) if waits else f"{error.code}: {error}"
            took_ms = int(self._objects.clock.monotonic_ms() - started_ms)
            if outcome == "done":
                times[name] = took_ms
            yield ChoreRow(name, outcome, detail, size_bytes, took_ms)
        self._file.save(times)

    def _refuse_late(self, took_ms: int) -> None:
        """`took_ms`: how long it took the last time, for a run that must not take longer."""
        left_ms = self._left_ms()
        if left_ms <= 0:
            raise Unavailable("the time was over")
        if took_ms > left_ms:
            raise Unavailable(f"it took {took_ms} ms the last time; `cas maintain` does it")

    def _times(self) -> dict[str, int]:
        return self._file.load(lambda found: {str(n): int(ms) for n, ms in found.items()}, {})

    # -- chores: why one is due, "" where it is not; and doing it ------------------------------

    def _purge_due(self) -> str:
        """A purge that was cut short: while what it names is there, nothing can be gathered."""
        there = len(unfinished_purges(self._store))
        if there:
            try:
                self._catalog.refuse_scrub()
            except AccessDenied:
                return ""  # for the owner of the tables; what it stands in the way of says so
        return f"content that was purged is still there: {count(there, 'object')}" if there else ""

    def _purge(self) -> Done:
        done = finish_purges(self._store)
        return f"took out what was left of {count(len(done), 'purged object')}", 0

    def _spill_due(self) -> str:
        lookup, limits = self._objects.lookup, self._objects.thresholds
        lookup.refresh()
        many = lookup.inline_count * _SHARE >= limits.spill_packs
        large = lookup.inline_bytes * _SHARE >= limits.spill_bytes
        return f"{count(lookup.inline_count, 'pack')} in the catalog" if many or large else ""

    def _spill(self) -> Done:
        size_bytes = self._objects.lookup.inline_bytes
        gathered = self._store.spill()
        if not gathered and unfinished_purges(self._store):
            raise Unavailable(f"nothing could be gathered: {_IN_THE_WAY}")
        return f"gathered {count(gathered, 'pack')}", size_bytes

    def _mirror_due(self) -> str:
        """After commits only where much is in no pack: it is a file a time."""
        if self._by_itself:
            due = is_due(self._catalog, self._objects.thresholds)
            return "much of the journal is in no pack" if due else ""
        with self._catalog.read() as reader:
            count = reader.head().seq - (reader.cursor(MIRRORED) or 0)
        return f"entries that are in no pack: {count}" if count else ""

    def _mirror(self) -> Done:
        seq, reached = self._store.view().seq, self._store.mirror()
        text = f"packs hold the journal up to entry {reached}"
        if reached < seq:
            raise Unavailable(f"{text}: {_IN_THE_WAY}")
        return text, 0

    def _archive_due(self) -> str:
        objects = self._objects
        if not objects.catalog.may_archive():
            return ""
        if single := len(lacking(objects)):
            return f"segments of old entries that are in one pack only: {single}"
        count = old_entries(objects)
        return f"old entries in the catalog: {count}" if count else ""

    def _archive(self) -> Done:
        """As many as the time allows: each step is whole."""
        renewed = renew_homes(self._objects)
        moved = 0
        while found := archive_some(self._objects):
            moved += found
            if self._left_ms() <= 0:
                break
        text = f"moved {count(moved, 'entry', 'entries')} of the journal into packs"
        again = f"; {count(renewed, 'segment')} in two packs again" if renewed else ""
        return text + again, 0

    def _retain_due(self) -> str:
        if self._store.retention() is None:
            return ""
        going = len(self._store.plan_retention().going)
        return f"the rules give up {count(going, 'commit')}" if going else ""

    def _retain(self) -> Done:
        plan = self._store.plan_retention()
        self._store.apply(plan, author="maintain", message="retention by the rules of the store")
        return f"gave up the content of {count(len(plan.going), 'commit')}", 0

    def _gc_due(self) -> str:
        idle = self._collector.is_idle(self._store.core)
        return "" if idle else "something may have become garbage, or a writer died"

    def _gc(self) -> Done:
        done = self._store.gc()
        text = f"removed {count(done.object_count, 'object')} and {count(done.file_count, 'file')}"
        if done.marked.finding:
            text += f". {done.marked.finding}"
        return text, done.stored_bytes + done.file_bytes

    def _packs_due(self) -> str:
        objects = self._objects
        state = objects.lookup.refresh()
        chosen = worth_moving(objects, state, waste_min=GC_WASTE_MIN, bytes_max=GC_MOVED_BYTES_MAX)
        return f"small or mostly waste: {count(len(chosen), 'pack')}" if chosen else ""

    def _packs(self) -> Done:
        moved = compact(self._objects, waste_min=GC_WASTE_MIN, bytes_max=GC_MOVED_BYTES_MAX)
        self._store.mirror()
        return "wrote small and wasteful packs anew", moved

    def _log_due(self) -> str:
        catalog = self._catalog
        size_bytes = catalog.weigh().log_bytes if isinstance(catalog, Trims) else 0
        return f"the log has {size_bytes} bytes" if size_bytes > LOG_BYTES_MAX else ""

    def _log(self) -> Done:
        assert isinstance(self._catalog, Trims)
        before = self._catalog.weigh().log_bytes
        if not self._catalog.trim():
            raise Unavailable("a reader holds an older state, for which the log has to stay")
        return "cut the log", before

    def _catalog_due(self) -> str:
        if not isinstance(self._catalog, Trims):
            return ""
        found = self._catalog.weigh()
        much = found.free_bytes >= max(CATALOG_FREE_BYTES_MIN, found.file_bytes // 2)
        return f"{found.free_bytes} bytes of the catalog are free" if much else ""

    def _rewrite(self) -> Done:
        assert isinstance(self._catalog, Trims)
        found = self._catalog.weigh()
        used = found.file_bytes - found.free_bytes
        if used > CATALOG_REWRITE_BYTES_MAX:
            raise Unavailable(
                f"writers would wait while {used} bytes are copied; free pages are reused"
            )
        self._catalog.trim()
        self._catalog.scrub(rewrite=True)
        return "wrote the catalog anew", found.file_bytes - self._catalog.weigh().file_bytes

    def _check_due(self) -> str:
        times = Ledger(self._objects.cache).times
        state = self._objects.lookup.refresh()
        files = [pack.file for pack in state.packs.values() if pack.file is not None]
        since_us = self._objects.clock.wall_us() - MAINTAIN_CHECK_DAYS * DAY_US
        old = sum(times.get(file, 0) < since_us for file in files)
        return f"not read for {MAINTAIN_CHECK_DAYS} days: {count(old, 'pack file')}" if old else ""

    def _check(self) -> Done:
        extent = FsckExtent(budget_ms=max(1.0, self._left_ms()), oldest_first=True)
        report = fsck(self._store, extent=extent)
        faults = len(report.findings)
        text = f"read {report.content_bytes} bytes, left {count(report.unread_count, 'pack')}"
        return text + (f"; {count(faults, 'finding')}, run `cas fsck`" if faults else ""), 0
