"""Where an object lies: installed packs, their footers, deletion vectors and the index.

Floor 3; implements docs/format.md section 7.1 (existence). Invariant: `packs`, `vectors` and
`condemn_seq` are one snapshot of the catalog, taken together; a copy counts only while its pack
is in that snapshot and its bit is clear. Refreshing moves the whole snapshot forward.

Any thread may ask; `refresh` and `installed` serialise behind a lock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from cas.catalog.catalog import Catalog, CatalogReader, PackRow
from cas.clock import Clock
from cas.errors import CasError, Corrupt, CorruptPack
from cas.interrupts import deferred
from cas.limits import FOOTER_CACHE_BYTES, SPILL_BYTES, THRESHOLDS, Thresholds
from cas.objects.packs import (
    Copy,
    PackInfo,
    Stamp,
    State,
    bit_is_set,
    file_name,
    pack_name,
    read_own_footer,
)
from cas.objects.places import SLOT_BITS, SLOT_MASK, Places
from cas.objects.plan import Plan
from cas.objects.proof import FileProof, InlineProof
from cas.objects.runs import RunFolder, uncovered
from cas.objects.slots import SlotTables
from cas.storage.bucket import Bucket
from cas.storage.index import Run, prefix_of, prefixes_of, run_of
from cas.storage.pack import Footer, Slot, decode_footer

_LAG_MIN, _LAG_MAX = 256, 2048
"""Versions that the snapshot may fall behind a writer that never has to look anything up: as many
as weigh twice what a spill waits for; most are spilled by then, and need not be looked at."""

_YOUNG_IDS_MAX = 1 << 16  # whose places are kept in memory: 15 MB at the most


class Lookup:
    """Finds copies by id. `cache` is a folder for index runs, or None to keep them in memory."""

    def __init__(
        self,
        catalog: Catalog,
        bucket: Bucket,
        clock: Clock,
        cache: str | None,
        thresholds: Thresholds = THRESHOLDS,
    ) -> None:
        self._catalog = catalog
        self._bucket = bucket
        self._folder = RunFolder(cache, catalog, clock)
        self._lock = threading.RLock()
        self.young = Places()
        self._inline = self.young.first
        self._runs: list[Run] | None = None
        self.slots = SlotTables(bucket)
        self.tables: Mapping[int, Footer] = self.slots.tables
        # Dropped with whatever it was made of, but for packs that are only added.
        self.plan: Plan | None = None
        self._footers: OrderedDict[int, Footer] = OrderedDict()
        self._footer_bytes = 0
        self.state = State(0, 0, 0, {}, {})
        self._fresh = False
        self._kept_up = 0  # the catalog's mark when nothing had been condemned since
        self._unreadable: dict[int, Corrupt] = {}
        self._proof = InlineProof(catalog)
        self._files = FileProof(bucket, self.slots, catalog.meta.store_id)
        self.inline_count = self.inline_bytes = 0
        self._small_max = min(thresholds.spill_small_pack_bytes, thresholds.pack_bytes // 2)
        self.small_bytes = 0  # of pack files so small that a spill gathers them

    # -- finding -----------------------------------------------------------------------------

    def find(self, id: bytes) -> Copy | None:
        """A copy of `id` in the snapshot at hand, or None. Never touches the catalog."""
        # As `copies` does it, without a generator: most reads and most misses come here.
        state, runs = self.state, self._runs
        if (place := self._inline.get(id)) is not None:
            young, at = state.packs.get(place >> SLOT_BITS), place & SLOT_MASK
            if young and young.footer is not None and not self.is_gone(young.number, at, state):
                return Copy(young, young.footer.slot(at))
            return next(self.copies(id), None)
        if runs is None:
            runs, state = self._load_index(), self.state
        prefix, packs, vectors, tables = prefix_of(id), state.packs, state.vectors, self.tables
        for run in runs:
            for number, slot_number in run.find(prefix):
                pack = packs.get(number)
                if pack is None or bit_is_set(vectors.get(number), slot_number):
                    continue
                table = tables.get(number)
                if table is not None and slot_number < table.count:
                    slot: Slot | None = table.slot(slot_number)
                else:
                    slot = self._slot(pack, slot_number)
                if slot is not None and slot[0] == id:
                    return Copy(pack, slot)
        return None

    def has(self, id: bytes) -> bool:
        """Whether the snapshot at hand has a copy, as far as the index knows.

        A stale or damaged index may say no where yes is right: a second copy. `exists` is certain.
        """
        state = self.state
        if (place := self._inline.get(id)) is not None:
            number = place >> SLOT_BITS
            if number in state.packs and not self.is_gone(number, place & SLOT_MASK, state):
                return True
        plan = self.plan
        if plan is not None and (told := plan.tells(id)) is not None:
            return told
        runs = self._load_index() if self._runs is None else self._runs
        prefix = prefix_of(id)
        for run in runs:
            if run.find(prefix):
                # Only now does the full id have to be read.
                return self.find(id) is not None
        return False

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Those of `ids` that `has` says yes to, in one go."""
        runs = self._runs or self._load_index()
        inline = self._inline
        candidates = [id for id in ids if id in inline]
        if runs:
            prefixes = prefixes_of(ids)
            for run in runs:
                if there := run.among(prefixes):
                    candidates += [id for id in ids if prefix_of(id) in there]
        return {id for id in candidates if self.has(id)}

    def view(self) -> tuple[State, Sequence[Run]]:
        """What is installed, and the index over it."""
        self._runs or self._load_index()
        return self.state, self._runs or ()

    def make_plan(self) -> Plan:
        """The plan of the snapshot at hand."""
        with self._lock:
            runs = self._load_index()
            self.plan = Plan(self.state, runs, self.slots, self._inline)
            return self.plan

    def exists(self, id: bytes) -> bool:
        """Whether the snapshot at hand has a copy, whatever state the index is in."""
        if self.has(id):
            return True
        self._confirm()
        return self.has(id)

    def copies(self, id: bytes) -> Iterator[Copy]:
        """Every copy the index knows in the snapshot at hand."""
        state = self.state
        for number, slot_number in self.young.all(id):
            pack = state.packs.get(number)
            if pack is None or pack.footer is None or self.is_gone(number, slot_number, state):
                continue
            yield Copy(pack, pack.footer.slot(slot_number))
        runs = self._runs
        if runs is None:
            runs = self._load_index()
        prefix = prefix_of(id)
        for run in runs:
            for number, slot_number in run.find(prefix):
                pack = state.packs.get(number)
                if pack is None or self.is_gone(number, slot_number, state):
                    continue
                slot = self._slot(pack, slot_number)
                if slot is not None and slot.id == id:
                    yield Copy(pack, slot)

    def abbreviated(self, text: str) -> list[bytes]:
        """Ids that begin with these hex digits (8 or more), ascending, in the newest state."""
        whole = bytes.fromhex(text[: len(text) & ~1])
        low = int(text[:16].ljust(16, "0"), 16)
        high = int(text[:16].ljust(16, "f"), 16)
        with self._lock:
            # Commits of other threads wait: a dict cannot be walked while it grows.
            state = self.refresh()
            found = {id for id in self._inline if id.startswith(whole)}
        for run in self._confirm():
            for number, slot_number in run.find_range(low, high):
                pack = state.packs.get(number)
                slot = None if pack is None else self._slot(pack, slot_number)
                if slot is not None:
                    found.add(slot.id)
        return sorted(id for id in found if id.hex().startswith(text) and self.has(id))

    def stamp(self) -> Stamp:
        """What a look-up that begins now is made from, for `is_certain`."""
        state = self.state
        return Stamp(state.version, state.removal_version, self._runs)

    def is_certain(self, before: Stamp, *, again: bool) -> bool:
        """Whether a miss in what `before` stamped may be believed; moves the snapshot forward.

        Not while packs were removed or the index was replaced meanwhile: what was looked for can
        have moved past the one who looked. `again` says that the snapshot is no older than the
        question, so that packs which were only added do not matter.
        """
        self.refresh()
        self._confirm()
        now = self.stamp()
        stood_still = now.runs is before.runs and now.removal_version == before.removal_version
        return stood_still and (again or now.version == before.version)

    def _confirm(self) -> Sequence[Run]:
        """The runs, each one's digest checked once; a damaged one is dropped, and its packs are
        indexed anew from their footers.
        """
        with self._lock:
            runs = self._load_index()
            whole = [run for run in runs if run.is_whole()]
            if len(whole) < len(runs):
                for run in (run for run in runs if run not in whole):
                    self._folder.drop(run)
                runs = self._cover(whole, uncovered(whole, self.state.packs), self.state.packs)
                self._runs = runs
            return runs

    def hidden_by(self, id: bytes | None = None) -> Corrupt | None:
        """Why a miss of `id` may be wrong all the same: a footer that is not what it was."""
        packs = self.state.packs
        self._unreadable.update(self._proof.faults(packs))
        if id is not None:
            self._unreadable.update(self._files.faults(id, self._load_index(), packs))
        return next((error for n, error in list(self._unreadable.items()) if n in packs), None)

    def is_gone(self, number: int, slot: int, state: State | None = None) -> bool:
        """Whether the deletion vector of a snapshot, that at hand, has this slot's bit."""
        return bit_is_set((state or self.state).vectors.get(number), slot)

    def _slot(self, pack: PackInfo, number: int) -> Slot | None:
        """One slot of a pack file; None if it is damaged or the file has no such slot."""
        try:
            return self.slots.slot(pack, number)
        except Corrupt as error:
            self._unreadable[pack.number] = error
            return None

    # -- footers -----------------------------------------------------------------------------

    def footer(self, pack: PackInfo) -> Footer:
        """The checked footer of an installed pack. Raises `CorruptPack`, `MissingPack`."""
        if pack.footer is not None:
            return pack.footer
        footer = self._footers.get(pack.number)
        if footer is None:
            footer = read_own_footer(self._bucket, pack, self._catalog.meta.store_id)
            self.keep_footer(pack.number, footer)
        return footer

    def keep_footer(self, number: int, footer: Footer) -> None:
        """Remember the footer of a pack file that was read in full, or written here and named."""
        with self._lock:
            if number in self._footers:
                return
            self._footers[number] = footer
            self.slots.lend(number, footer)
            self._footer_bytes += footer.memory_bytes
            while self._footer_bytes > FOOTER_CACHE_BYTES and len(self._footers) > 1:
                gone, old = self._footers.popitem(last=False)
                self.plan = None
                self.slots.take_back(gone)
                self._footer_bytes -= old.memory_bytes

    # -- the snapshot ------------------------------------------------------------------------

    def refresh(self, reader: CatalogReader | None = None) -> State:
        """Move the snapshot to the newest state (that of `reader`, unless that is older)."""
        with self._lock:
            if reader is None:
                if self._fresh and self._catalog.is_locked:
                    return self.state  # nobody commits beside the transaction of this thread
                with self._catalog.read() as own:
                    state = self._refresh(own)
                self._catalog.harden(reading=True)
                return state
            return self._refresh(reader)

    def ensure(self) -> State:
        """The snapshot at hand, read from the catalog if that never happened."""
        return self.state if self._fresh else self.refresh()

    def keep_up(self) -> bool:
        """Move the snapshot forward if anything was condemned since it was taken; whether it was.
        Not where the catalog is far away: there the transaction finds out, and says so.
        """
        catalog = self._catalog
        mark = catalog.mark()
        if catalog.is_distant or (mark and mark == self._kept_up):
            return False
        with catalog.read() as reader:
            moved = reader.head().condemn_seq != self.state.condemn_seq
            if moved:
                self.refresh(reader)
        self._kept_up = mark
        return moved

    def _refresh(self, reader: CatalogReader) -> State:
        head = reader.head()
        old = self.state
        if self._fresh and head.version <= old.version:
            # An older reader would bring what was installed since it began a second time.
            return old
        packs = dict(old.packs)
        # All is read before anything is changed: a read that fails leaves the snapshot whole.
        moved = bool(packs) and head.removal_version != old.removal_version
        alive = set(reader.pack_numbers()) if moved else packs.keys()
        added = reader.packs(old.version)
        changed = reader.vectors(old.version)
        gone = [packs.pop(number) for number in packs.keys() - alive] if moved else []
        fresh = [self._admit(row) for row in added]
        packs.update((pack.number, pack) for pack in fresh)
        # Readers take the state first and the index then, so the index is never the older one.
        if self._runs is not None:
            self._runs = self._cover(self._runs, fresh, packs)
        vectors = {n: bits for n, bits in old.vectors.items() if n in packs}
        vectors.update((number, bits) for number, _version, bits in changed)
        with deferred():  # an interrupt in between would have packs taken in twice
            for pack in gone:
                self._forget(pack)
            for pack in fresh:
                self._remember(pack)
            self.state = State(head.version, head.removal_version, head.condemn_seq, packs, vectors)
            self._fresh, self.plan = True, None
        return self.state

    def installed(self, row: PackRow, footer: Footer, previous_version: int) -> None:
        """Take in a pack this process has just installed, when nothing came between."""
        with self._lock, deferred():
            state = self.state
            if not self._fresh or state.version != previous_version:
                # Others commit in between. What they installed is looked at when it is missed,
                # but not so late that nobody notices that a spill is due.
                enough = 2 * SPILL_BYTES // max(1, row.body_bytes)
                if row.number - state.version > max(_LAG_MIN, min(_LAG_MAX, enough)):
                    # The commit before it stands; what is not seen now is seen when it is missed.
                    with suppress(CasError):
                        self.refresh()
                return
            # A small file is soon gathered: an index of its own would not be worth it.
            few = row.body_bytes < self._small_max and len(self._inline) < _YOUNG_IDS_MAX
            young = row.name is None or few
            info = PackInfo(
                row.number,
                None if row.name is None else file_name(row.name),
                row.body_bytes,
                footer if young else None,
                True,
            )
            # The mapping only grows here, so it is shared and not copied for each commit.
            packs = state.packs
            assert isinstance(packs, dict)
            packs[row.number] = info
            self._remember(info)
            if not young:
                self.keep_footer(row.number, footer)
                # Behind the line above: a merge leaves out what is not in the snapshot.
                if self._runs is not None:
                    self._runs = self._cover(self._runs, [info], packs)
            self.state = State(
                row.number, state.removal_version, state.condemn_seq, packs, state.vectors
            )

    def _admit(self, row: PackRow) -> PackInfo:
        if row.name is not None:
            return PackInfo(row.number, file_name(row.name), row.body_bytes, None)
        # The engine keeps row and footer together; the digest, which needs the header in the
        # body, is checked by spill and fsck, and every object by its id.
        try:
            footer = decode_footer(
                b"", row.footer or b"", f"inline pack {row.number}", verified=True
            )
        except CorruptPack as error:
            # Its objects cannot be found; those of every other pack can.
            self._unreadable[row.number] = error
            footer = Footer(0, 0, row.body_bytes, b"", b"")
        return PackInfo(row.number, None, row.body_bytes, footer)

    def _remember(self, pack: PackInfo) -> None:
        self._count(pack, 1)
        if pack.footer is not None:
            self.young.remember(pack.number, pack.footer.keep_ids())

    def _forget(self, pack: PackInfo) -> None:
        self._count(pack, -1)
        if pack.footer is not None:
            self.young.forget(pack.number, pack.footer.ids())
        self._unreadable.pop(pack.number, None)
        self.slots.forget(pack.number)
        footer = self._footers.pop(pack.number, None)
        if footer is not None:
            self._footer_bytes -= footer.memory_bytes

    def _count(self, pack: PackInfo, sign: int) -> None:
        if pack.file is None:
            self.inline_count += sign
            self.inline_bytes += sign * pack.body_bytes
        elif pack.body_bytes < self._small_max:
            self.small_bytes += sign * pack.body_bytes

    def outgrows(self, count: int, size_bytes: int) -> bool:
        """Whether what a spill gathers has become so many packs, or so many bytes."""
        return self.inline_count >= count or self.inline_bytes + self.small_bytes >= size_bytes

    # -- the index ---------------------------------------------------------------------------

    def _load_index(self) -> list[Run]:
        with self._lock:
            if self._runs is not None:
                return self._runs
            loaded = self._folder.load(self.ensure(), self.refresh)
            self._runs = self._cover(loaded, uncovered(loaded, self.state.packs), self.state.packs)
            return self._runs

    def _cover(
        self, covering: Sequence[Run], packs: list[PackInfo], alive: Mapping[int, PackInfo]
    ) -> list[Run]:
        """`covering` and runs of the pack files among `packs`, merged where that is due.

        It is given whole or not at all: half an index would say no where yes is right.
        """
        self.plan, runs = None, list(covering)
        for pack in packs:
            if pack.file is None or pack.footer is not None:
                continue
            try:
                run = run_of(pack.number, pack_name(pack.file), self.footer(pack))
            except Corrupt as error:
                # Every other object stays readable; a miss now says that this pack is damaged.
                self._unreadable[pack.number] = error
                continue
            runs.append(self._folder.save(run))
        if len(runs) > len(covering):
            runs = self._folder.merge(runs, alive)
        # What is sought lies in the largest run more often than not.
        runs.sort(key=lambda run: -run.count)
        return runs
