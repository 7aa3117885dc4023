"""Garbage collection: mark, condemn, remove; beside writers, in steps that may each be the last.

Floor 5; implements docs/design/001. Invariant: a run may be killed behind any step; what stands
then is whole, and the next run goes on. Nothing waits for it but at the gate, for moments.

A plan is a mark. Applying it condemns what the mark and everything that came since lead nowhere
to (`condemn`), then removes the files that lost their rows (`cas.objects.unlink`) and what stopped
writers left (`leftovers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import compress
from typing import TYPE_CHECKING, Any

from attrs import evolve

from cas.errors import Invalid, StorageFull
from cas.history.core import Core
from cas.history.horizon import horizon_at
from cas.history.upkeep import NOT_MARKED, GcPlan, GcResult, GcRow, KeptRow, Marked
from cas.limits import GC_GRACE_US, GC_MOVED_BYTES_MAX
from cas.maintenance.gc.ages import Ages
from cas.maintenance.gc.bases import keep_cheap_bases
from cas.maintenance.gc.chains import Chains
from cas.maintenance.gc.coloring import color_store
from cas.maintenance.gc.colors import DROPPED, FREE, GONE
from cas.maintenance.gc.condemn import Condemnation
from cas.maintenance.gc.doubles import Doubles
from cas.maintenance.gc.leftovers import Leftovers, find_leftovers, remove_leftovers
from cas.maintenance.gc.reach import Marks
from cas.maintenance.gc.reencode import reencode
from cas.maintenance.gc.roots import Roots, read_roots
from cas.maintenance.gc.scarce import Scarce
from cas.model.ids import Kind
from cas.model.values import frozen
from cas.objects.promises import MARKING
from cas.objects.store import ObjectStore
from cas.objects.unlink import remove_unlinked
from cas.trees.cursor import nodes_of
from cas.trees.node import EMPTY_DATA, REFS

if TYPE_CHECKING:
    from cas.history.retain import RetentionPlan

_REASONS = {FREE: "loose", DROPPED: "dropped"}


@frozen
class _Mark:
    """What a plan holds for the run that applies it."""

    objects: ObjectStore
    roots: Roots
    marks: Marks
    leftovers: Leftovers
    grace_us: int
    waiting: tuple[int, int]
    waiting_packs: list[int]
    kept: tuple[KeptRow, ...]
    marked: Marked


class Collector:
    """Collects for one store handle. Any thread; runs are apart from each other."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._ages = Ages(objects.cache)
        self._doubles = Doubles(objects)

    def plan_gc(
        self, core: Core, grace_us: int, full: bool, after: RetentionPlan | None = None
    ) -> GcPlan:
        """Mark, and say what nothing leads to, or would once `after` was applied. Raises `Corrupt`
        where the store is not whole.
        """
        return self._plan(self._mark(core, grace_us, full, saving=after is None, after=after))

    def collect(
        self,
        core: Core,
        grace_us: int,
        plan: GcPlan | None,
        mirror: Callable[[], int],
        full: bool,
    ) -> GcResult:
        """Mark anew, and remove what nothing leads to; of a plan, only what it says as well.
        `full`: believe no counts of references, and look for something to do in any case.

        Anew, because a put that found what the plan saw as garbage was acknowledged since: while
        a run is at work, and says so, such a put writes another copy.
        """
        before = None if plan is None else plan.mark
        if before is not None and not (
            isinstance(before, _Mark) and before.objects is self._objects
        ):
            raise Invalid("This plan was made by another handle; make one with this one.")
        objects = self._objects
        scarce = Scarce(objects)
        try:
            if before is None and not full and (quiet := self._quiet(core, grace_us)) is not None:
                return self._finish(mirror, quiet, find_leftovers(objects), scarce)
            grace_us = grace_us if before is None else before.grace_us
            mark, result = scarce.do(lambda: self._condemn(core, grace_us, before, full, scarce))
            return self._finish(mirror, result, mark.leftovers, scarce)
        finally:
            objects.room.keep()

    def _condemn(
        self, core: Core, grace_us: int, before: _Mark | None, full: bool, scarce: Scarce
    ) -> tuple[_Mark, GcResult]:
        """Mark, and the one transaction. May be done again where it fails."""
        objects = self._objects
        with _at_work(objects) as version:
            mark = self._mark(core, grace_us, full, version, saving=not scarce.found)
            if before is not None:
                mark.marks.spare(before.marks)
            moved = 0
            if not scarce.found:
                try:
                    moved = reencode(objects, mark.marks, GC_MOVED_BYTES_MAX)
                except StorageFull:
                    scarce.note()  # bases stay this time
            mark.marks.keep_bases()
            found = self._plan(mark)
            kept = store_refs(core, mark.roots.horizon)
            done = Condemnation(objects, mark.roots, mark.marks).run(kept)
        if before is None and not scarce.found:
            roots = mark.roots
            self._ages.note(roots.told, roots.version, mark.waiting, mark.waiting_packs, mark.kept)
        self._ages.advance(mark.marks.packs, objects.clock.wall_us())
        result = GcResult(
            seq=found.seq,
            horizon=found.horizon,
            rows=found.rows if done is not None else (),
            waiting_count=found.waiting_count,
            waiting_bytes=found.waiting_bytes,
            pack_count=0 if done is None else done.pack_count,
            file_count=0,
            file_bytes=0 if done is None else done.file_bytes,
            session_count=0,
            kept=found.kept,
            marked=found.marked,
            moved_bytes=moved,
        )
        return mark, result

    def is_idle(self, core: Core, grace_us: int = GC_GRACE_US) -> bool:
        """Whether a run would find nothing to do, as far as that is known without a mark."""
        if self._quiet(core, grace_us, seen=False) is None or _listed(self._objects):
            return False
        left = find_leftovers(self._objects)
        return not (left.count or left.sessions)

    def _quiet(self, core: Core, grace_us: int, *, seen: bool = True) -> GcResult | None:
        """What a run would find, where it need not look: nothing, and what waits. `seen`: this
        counts as a run, for the ages of packs.
        """
        objects = self._objects
        now_us = objects.clock.wall_us()
        with objects.catalog.read() as reader:
            head = reader.head()
            self._ages.load(reader.lineage())
            told = horizon_at(core, core.timeline.now(reader, head))
            numbers = reader.pack_numbers()
        if not self._ages.is_quiet(told.root.hex(), numbers, now_us, grace_us):
            return None
        if seen:
            self._ages.advance(numbers, now_us)
        count, size_bytes = self._ages.left
        kept = self._ages.kept
        marked = Marked(NOT_MARKED, "", "")
        return GcResult(head.seq, told.seq, (), count, size_bytes, 0, 0, 0, 0, kept, marked, 0)

    def _finish(
        self, mirror: Callable[[], int], result: GcResult, leftovers: Leftovers, scarce: Scarce
    ) -> GcResult:
        """Write wasteful packs anew, and remove the files that nothing names."""
        objects = self._objects
        removed = 0

        def unlink() -> None:
            nonlocal removed
            removed += self._unlink(mirror)

        scarce.do(self._doubles.take_out)
        left_bytes = max(0, GC_MOVED_BYTES_MAX - result.moved_bytes)
        moved = scarce.compact(left_bytes)
        scarce.do(unlink)
        removed += scarce.do(lambda: remove_leftovers(objects, leftovers))
        moved += scarce.squeeze(left_bytes - moved, mirror, unlink)
        objects.lookup.refresh()
        return evolve(
            result,
            file_count=removed,
            file_bytes=result.file_bytes + leftovers.size_bytes,
            session_count=len(leftovers.sessions),
            moved_bytes=result.moved_bytes + moved,
        )

    def _unlink(self, mirror: Callable[[], int]) -> int:
        """Remove the files on the list that the mirror has passed; how many went."""
        objects = self._objects
        listed = _listed(objects)
        if not listed:
            return 0
        mirror()  # which removes what it covers
        remove_unlinked(objects.catalog, objects.bucket)
        return len(listed - _listed(objects))

    def _mark(
        self,
        core: Core,
        grace_us: int,
        full: bool,
        version: int | None = None,
        *,
        saving: bool = True,
        after: RetentionPlan | None = None,
    ) -> _Mark:
        """`version`: what was installed behind it counts as newer than the mark."""
        objects = self._objects
        leftovers = find_leftovers(objects)
        with objects.catalog.read() as reader:
            roots = read_roots(core, reader, planned=after)
        if version is not None:
            roots = evolve(roots, version=min(version, roots.version))
        objects.catalog.harden(reading=True)
        self._ages.load(roots.lineage)
        colored = color_store(core, objects, roots, self._ages.kept, full=full, saving=saving)
        marks, shares = colored.marks, colored.shares
        marks.keep_packs([number for number in marks.packs if number > roots.version])
        now_us = objects.clock.wall_us()
        self._ages.recognise(marks.packs.values())
        young = [n for n in marks.packs if (self._ages.of(n, now_us) or 0) < grace_us]
        count, size_bytes = _sum_of(marks, FREE) if young else (0, 0)
        waiting_packs = [n for n in young if FREE in marks.colors[n]]
        marks.keep_packs(young, dropped=False)
        left = _sum_of(marks, FREE) if count else (0, 0)
        waiting = count - left[0], size_bytes - left[1]
        if shares is not None:
            shares.note("young")
        rows = self._ages.kept if shares is None else shares.rows
        kept_bytes = sum(row.stored_bytes for row in rows if row.reason != "base")
        keep_cheap_bases(marks, Chains(marks), kept_bytes)
        if shares is not None:
            shares.note("base")
            rows = shares.rows
            if after is None:
                self._ages.kept = rows
        return _Mark(
            objects, roots, marks, leftovers, grace_us, waiting, waiting_packs, rows, colored.marked
        )

    def _plan(self, mark: _Mark) -> GcPlan:
        rows, packs = _tally(self._objects, mark.marks)
        return GcPlan(
            seq=mark.roots.seq,
            horizon=mark.roots.horizon,
            grace_us=mark.grace_us,
            rows=rows,
            waiting_count=mark.waiting[0],
            waiting_bytes=mark.waiting[1],
            pack_count=packs,
            file_count=mark.leftovers.count,
            file_bytes=mark.leftovers.size_bytes,
            session_count=len(mark.leftovers.sessions),
            kept=mark.kept,
            marked=mark.marked,
            mark=mark,
        )


@contextmanager
def _at_work(objects: ObjectStore) -> Iterator[int]:
    """Say to who puts that a run is at work, from before its mark until it has condemned; the
    version from which on they know.
    """
    catalog = objects.catalog
    number = int.from_bytes(objects.clock.random(6), "big") | 1
    release = catalog.hold(number)
    try:
        with catalog.write() as writer:
            writer.set_cursor(MARKING, number)
            version = writer.head().version
        yield version
        with catalog.write() as writer:
            writer.set_cursor(MARKING, 0)
    finally:
        release()


def _listed(objects: ObjectStore) -> set[bytes]:
    """Files that lost their rows and may still be there."""
    with objects.catalog.read() as reader:
        return {row.name for row in reader.unlinked()}


def store_refs(core: Core, seq: int) -> list[bytes]:
    """Make the refs tree after entry `seq` a checkpoint; its root, which must stay. The empty one
    is known without being stored.
    """
    objects = core.objects
    if not seq:
        return []
    with objects.catalog.read() as reader:
        root = core.timeline.at(reader, seq).root
        kept = [root] if root != REFS.empty else []
        stored = reader.checkpoint(seq)
        if stored is not None and stored.seq == seq:
            return kept
        nodes = [(root, EMPTY_DATA)]
        if root != REFS.empty:
            found = nodes_of(REFS, root, core.timeline.nodes)
            nodes = [(id, node.data) for id, node in found]
    batch = objects.new_batch()
    try:
        for id, data in nodes:
            batch.add(id, Kind.REFS, data)
        batch.seal()
        with objects.catalog.write() as writer:
            head = writer.head()
            rows = batch.install(writer, head)
            there = writer.checkpoint(seq)
            if there is None or there.seq != seq:
                writer.add_checkpoint(seq, root)
        batch.installed(rows, head)
    except BaseException as error:
        batch.abandon(error)
        raise
    return kept


def _tally(objects: ObjectStore, marks: Marks) -> tuple[tuple[GcRow, ...], int]:
    """What goes, by kind and reason, and how many packs go whole."""
    sums: dict[tuple[str, int], list[int]] = {}
    packs = 0
    for number, colors in list(marks.colors.items()):
        if FREE not in colors and DROPPED not in colors:
            continue
        packs += set(colors) <= {FREE, DROPPED, GONE}
        footer = objects.lookup.footer(marks.packs[number])
        for color, reason in _REASONS.items():
            for id, _offset, stored, raw, kind, *_rest in _rows(footer, colors, color):
                row = sums.setdefault((reason, kind), [0, 0, 0])
                row[2] += stored
                first = next(p for p in marks.places(id) if p[0] in marks.colors)
                if first[0] == number:
                    row[0] += 1
                    row[1] += raw
    rows = [GcRow(Kind(kind), reason, *row) for (reason, kind), row in sorted(sums.items())]
    return tuple(rows), packs


def _rows(footer: Any, colors: bytearray, color: int) -> Iterable[Any]:
    slots = [slot for slot, now in enumerate(colors) if now == color] if color in colors else ()
    return footer.pick(slots)  # type: ignore[no-any-return]


def _sum_of(marks: Marks, color: int) -> tuple[int, int]:
    """(copies, stored bytes) of a color."""
    count = size_bytes = 0
    wanted = bytes(int(other == color) for other in range(256))
    for number, colors in list(marks.colors.items()):
        if color in colors:
            count += colors.count(color)
            size_bytes += sum(compress(marks.lengths(number), colors.translate(wanted)))
    return count, size_bytes
