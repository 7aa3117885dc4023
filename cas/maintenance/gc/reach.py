"""Marking: which copies something that must be kept leads to.

Floor 5; implements docs/design/001, rules E3 and E5. Invariant: whoever is kept has everything
kept that it names, and everything that each of its copies is decoded with; what cannot be read or
found stops the marking, so that damage is never taken for garbage.

Memory is five bytes a slot, and what one group of objects holds. The marking goes pack by pack: a
slot that is newly marked waits in its pack until that is swept, its records in the order in which
they lie. Places come from the look-up index, unverified: two ids that begin with the same 40 bits
or more are marked together, which keeps too much and never too little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import compress
from typing import Final

from cas.catalog.catalog import CatalogReader, PackRow
from cas.errors import MissingPack
from cas.maintenance.gc.colors import (
    DROPPED,
    DROPPING,
    FREE,
    GONE,
    KEEPING,
    KEPT,
    REPLACED,
    Lost,
    positions,
)
from cas.maintenance.gc.counting import Tally
from cas.maintenance.gc.names import Names, places_in
from cas.maintenance.gc.spread import Spread
from cas.maintenance.gc.traits import Traits, traits_of
from cas.maintenance.gc.vanished import absence, is_named, moved
from cas.maintenance.gc.whereabouts import TABLE_SLOTS_MAX, Whereabouts, newest
from cas.model.ids import Kind
from cas.objects.packs import PackInfo, file_name
from cas.objects.store import ObjectStore
from cas.storage.codec import DICTIONARY, RECIPE, ZSTD
from cas.storage.pack import EDGE_BASE, Footer, decode_footer
from cas.storage.slots import CODEC_AT, KIND_AT, column

_BLOB: Final = int(Kind.BLOB)
_AT_ONCE: Final = 1 << 15

_WORTH_KEEPING: Final = frozenset((FREE, DROPPED, DROPPING))
_WORTH_DROPPING: Final = frozenset((FREE,))
_IS_KEPT: Final = bytes(int(color == KEPT) for color in range(256))


class Marks:
    """What is known of every slot of every pack of one store. One thread.

    `version`: packs up to it were taken in. `colors`: by number of the pack, one byte a slot.
    """

    def __init__(self, objects: ObjectStore, thinned: frozenset[bytes] = frozenset()) -> None:
        self._objects = objects
        self._names = Names(objects, thinned)
        self.packs: dict[int, PackInfo] = {}
        self.colors: dict[int, bytearray] = {}
        self.version = 0
        self.removal_version = 0
        self._where = Whereabouts()
        self.places = self._where.places
        self._waiting: set[int] = set()
        self._spread = Spread(self._where, self._names, self.colors, self._waiting)
        self._traits: dict[int, Traits] = {}
        self.given_up = self._names.given_up
        """Thinned commits that are kept, and their directories: what only these lead to was given
        up."""
        self.tally: Tally | None = None
        """While it is set, references are counted."""
        self.bases_in: set[int] | None = None
        """Packs that hold all deltas whose bases may go, where that is known."""
        self.deferring = False
        """While it is set, the base of a delta is not kept for its sake: see `lost_bases`."""

    @property
    def has_table(self) -> bool:
        """Whether `places` costs no look-up in an index."""
        return self._where.table is not None

    # -- which packs there are ---------------------------------------------------------------

    def begin(self) -> None:
        """Take in all packs of the newest state. Raises `Corrupt` where one cannot be read."""
        state, runs, slots = newest(self._objects.lookup)
        self.version, self.removal_version = state.version, state.removal_version
        is_small = sum(slots.values()) <= TABLE_SLOTS_MAX
        if not is_small:
            self._where.use(runs)
        for number, pack in state.packs.items():
            count = slots.get(number)
            footer = None
            if count is None or is_small:
                footer = pack.footer or self._objects.lookup.footer(pack)
                count = footer.count
                if number in slots:
                    self._where.note(number, footer)
                else:
                    self._where.add(pack, footer)
                self._traits[number] = traits_of(footer)
            self._admit(pack, count, FREE, state.vectors.get(number))
            if footer is not None and is_small:
                self._names.note(pack, footer, self.colors[number])
        self._names.read_ahead()

    def begin_kept(self) -> None:
        """Take in all packs as if all that they hold were kept, and read no footer of an indexed
        one.
        """
        state, runs, slots = newest(self._objects.lookup)
        self.version, self.removal_version = state.version, state.removal_version
        self._where.use(runs)
        for number, pack in state.packs.items():
            count = slots.get(number)
            if count is None:
                footer = pack.footer or self._objects.lookup.footer(pack)
                count = footer.count
                self._where.add(pack, footer)
            self._admit(pack, count, KEPT, state.vectors.get(number))

    def _admit(self, pack: PackInfo, count: int, color: int, bits: bytes | None) -> None:
        self.packs[pack.number] = pack
        self.colors[pack.number] = bytearray((color,)) * count
        self.strike(pack.number, bits)

    def catch_up(self, reader: CatalogReader, slots_max: int) -> list[int] | None:
        """Take in what was installed and removed since, in the state of `reader`: the numbers of
        the new packs; None, and no new pack taken in, when these have more than `slots_max` slots.
        """
        head = reader.head()
        if head.version == self.version:
            return []
        fresh: list[tuple[PackInfo, Footer]] = []
        for row in reader.packs(self.version):
            pack, footer = self._opened(row)
            fresh.append((pack, footer))
        if sum(footer.count for _pack, footer in fresh) > slots_max:
            return None
        if head.removal_version != self.removal_version:
            alive = set(reader.pack_numbers())
            for number in self.packs.keys() - alive:
                del self.packs[number], self.colors[number]
                self._waiting.discard(number)
        for pack, footer in fresh:
            self._where.add(pack, footer)
            self.packs[pack.number] = pack
            self.colors[pack.number] = bytearray(footer.count)
        for number, _version, bits in reader.vectors(self.version):
            self.strike(number, bits)
        self.version, self.removal_version = head.version, head.removal_version
        return [pack.number for pack, _footer in fresh]

    def _opened(self, row: PackRow) -> tuple[PackInfo, Footer]:
        if row.name is None:
            label = f"inline pack {row.number}"
            footer = decode_footer(b"", row.footer or b"", label, verified=True)
            return PackInfo(row.number, None, row.body_bytes, footer), footer
        pack = PackInfo(row.number, file_name(row.name), row.body_bytes, None)
        try:
            return pack, self._objects.lookup.footer(pack)
        except MissingPack as error:
            if is_named(self._objects, row.number):
                raise
            raise moved() from error

    def strike(self, number: int, bits: bytes | None) -> None:
        """Take in a deletion vector."""
        colors = self.colors.get(number)
        if bits is None or colors is None:
            return
        for at, byte in enumerate(bits):
            for slot in range(8 * at, min(8 * at + 8, len(colors))) if byte else ():
                if byte >> (slot & 7) & 1:
                    colors[slot] = GONE

    # -- marking -----------------------------------------------------------------------------

    def keep(self, ids: Iterable[bytes], by: str) -> None:
        """Keep these objects and all that they lead to. Raises `CorruptObject`."""
        for id in ids:
            if not self._mark(id, KEEPING, _WORTH_KEEPING):
                self._miss(id, by)
        self._sweep(KEEPING, KEPT, _WORTH_KEEPING)

    def drop(self, ids: Iterable[bytes]) -> None:
        """Note what these lead to as given up; what is missing already is passed over."""
        for id in ids:
            self._mark(id, DROPPING, _WORTH_DROPPING)
        self._sweep(DROPPING, DROPPED, _WORTH_DROPPING)

    def keep_packs(self, numbers: Iterable[int], *, dropped: bool = True) -> None:
        """Keep every object of these packs, with all that they lead to (E3).

        Without `dropped` those stay as they are that were given up.
        """
        wanted = _WORTH_KEEPING if dropped else _WORTH_DROPPING
        table = bytes(KEEPING if color in wanted else color for color in range(256))
        for number in numbers:
            colors = self.colors.get(number)
            if colors is not None:
                colors[:] = colors.translate(table)
                self._waiting.add(number)
        # An object of a young pack is kept with all its copies, wherever they lie.
        self._spread_copies(numbers)
        self._sweep(KEEPING, KEPT, _WORTH_KEEPING)

    def keep_kind(self, kind: Kind) -> None:
        """Keep every object of a kind, whatever leads to it."""
        for number in list(self.packs):
            traits = self._traits_of(number)
            if traits is None or kind not in traits.kinds:
                continue
            footer = self.footer(number)
            colors = self.colors.get(number)
            if footer is None or colors is None:
                continue
            kinds = column(footer.table, KIND_AT)
            for slot in positions(kinds, kind, kinds.find(kind), len(kinds)):
                if colors[slot] in _WORTH_KEEPING:
                    colors[slot] = KEEPING
                    self._waiting.add(number)
        self._sweep(KEEPING, KEPT, _WORTH_KEEPING)

    def spare(self, before: Marks) -> None:
        """Keep whatever an earlier mark did not find to go, with all that it leads to."""
        for number, colors in self.colors.items():
            then = before.colors.get(number, b"")
            for color in _WORTH_KEEPING:
                for slot in positions(colors, color, colors.find(color), len(colors)):
                    if slot >= len(then) or then[slot] not in _WORTH_KEEPING:
                        colors[slot] = KEEPING
                        self._waiting.add(number)
        self._spread_copies(list(self._waiting))
        self._sweep(KEEPING, KEPT, _WORTH_KEEPING)

    # -- bases ---------------------------------------------------------------------------------

    def lost_bases(self) -> list[Lost]:
        """Deltas that are kept while no copy of their base is."""
        found = []
        is_kept = self._kept_now()
        for number, colors in list(self.colors.items()):
            if self.bases_in is not None and number not in self.bases_in:
                continue
            traits = self._traits_of(number)
            footer = self.footer(number) if traits and traits.has_edges else None
            if footer is None:
                continue
            lost = [
                (at, base)
                for at, role, base in footer.edge_rows()
                if role == EDGE_BASE and colors[at] == KEPT and not is_kept(base)
            ]
            rows = footer.pick([at for at, _base in lost])
            for (at, base), (id, offset, stored, raw, kind, _c, _d, _f, group) in zip(
                lost, rows, strict=True
            ):
                found.append(Lost(number, at, id, base, kind, group, offset, stored, raw))
        return found

    def _kept_now(self) -> Callable[[bytes], bool]:
        """Whether a copy of an object is kept, for many of them, while no color changes."""
        if not self.has_table:
            return cache(self._is_kept)
        kept: set[bytes] = set()
        for number, colors in self.colors.items():
            kept.update(compress(self._where.ids[number], colors.translate(_IS_KEPT)))
        return kept.__contains__

    def _is_kept(self, id: bytes) -> bool:
        all_colors = self.colors
        for number, slot in self.places(id):
            colors = all_colors.get(number)
            if colors is not None and colors[slot] == KEPT:
                return True
        return False

    def replace(self, items: Iterable[Lost]) -> None:
        """Note copies for which others stand now, that are newer than the mark."""
        for item in items:
            self.colors[item.number][item.slot] = REPLACED

    def keep_bases(self) -> None:
        """Keep what the deltas that are left hang on (E5); from here on nothing is deferred."""
        self.deferring = False
        self.keep({item.base for item in self.lost_bases()}, "a delta")

    def restore(self) -> bool:
        """Keep replaced copies after all whose new copy does not stand; whether there were any."""
        found = False
        for number, colors in self.colors.items():
            for slot in positions(colors, REPLACED, colors.find(REPLACED), len(colors)):
                footer = self.footer(number)
                if footer is not None and not self._is_kept(footer.id_at(slot)):
                    colors[slot] = KEEPING
                    self._waiting.add(number)
                    found = True
        self._sweep(KEEPING, KEPT, _WORTH_KEEPING)
        return found

    def _spread_copies(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            colors = self.colors.get(number)
            if colors is None or KEEPING not in colors:
                continue
            footer = self.footer(number)
            if footer is None:
                continue
            for slot in positions(colors, KEEPING, colors.find(KEEPING), len(colors)):
                self._mark(footer.id_at(slot), KEEPING, _WORTH_KEEPING)

    def _mark(self, id: bytes, color: int, wanted: frozenset[int]) -> bool:
        """Color every copy of an object that is not colored yet; whether it has any copy."""
        found = False
        all_colors = self.colors
        for number, slot in self.places(id):
            colors = all_colors.get(number)
            if colors is None:
                continue
            now = colors[slot]
            if now == GONE:
                continue
            found = True
            if now in wanted:
                colors[slot] = color
                self._waiting.add(number)
        return found

    def _mark_all(self, ids: set[bytes], color: int, wanted: frozenset[int]) -> list[bytes]:
        """`_mark` of each; those that have no copy."""
        if self.has_table:
            return self._spread.color(ids, color, wanted, self.tally if color == KEEPING else None)
        return [id for id in ids if not self._mark(id, color, wanted)]

    def _miss(self, id: bytes, by: str) -> None:
        """Raise for an object that is named and is not there, but for one that was purged."""
        if self._objects.absent.error(id) is None:
            raise absence(self._objects, self.version, id, by)
        if self.tally is not None:
            self.tally.counts.missing.add(id)

    # -- sweeping ----------------------------------------------------------------------------

    def _sweep(self, todo: int, done: int, wanted: frozenset[int]) -> None:
        """Mark what the waiting slots lead to, until none waits. Newest packs first: what names
        something mostly came after it.
        """
        while self._waiting:
            number = max(self._waiting)
            self._waiting.discard(number)
            colors = self.colors.get(number)
            traits = self._traits.get(number)
            if colors is not None and traits is not None and not traits.leads_on:
                colors[:] = colors.replace(bytes((todo,)), bytes((done,)))
            while colors is not None and (first := colors.find(todo)) >= 0:
                slots = positions(colors, todo, first, _AT_ONCE)
                footer = self.footer(number)
                if footer is None:
                    break
                if len(slots) < _AT_ONCE:
                    colors[:] = colors.replace(bytes((todo,)), bytes((done,)))
                else:
                    for slot in slots:
                        colors[slot] = done
                self._trace(number, footer, slots, todo, wanted)

    def footer(self, number: int) -> Footer | None:
        """The footer of a pack; None when the pack was removed meanwhile."""
        pack = self.packs.get(number)
        if pack is None:
            return None
        try:
            return self._objects.lookup.footer(pack)
        except MissingPack:
            if is_named(self._objects, number):
                raise
            # Moved, and its objects are in a pack that is newer than the mark.
            if self.tally is not None:
                self.tally.is_broken = True
            del self.packs[number], self.colors[number]
            return None

    def lengths(self, number: int) -> Sequence[int]:
        """Stored bytes of the slots of a pack; none when it was removed meanwhile."""
        traits = self._traits_of(number)
        return () if traits is None else traits.lengths

    def _traits_of(self, number: int) -> Traits | None:
        found = self._traits.get(number)
        if found is None and (footer := self.footer(number)) is not None:
            found = self._traits[number] = traits_of(footer)
            if self.tally is not None:
                self.tally.took(self.packs[number], footer, self.colors[number])
        return found

    def loose_ids(self) -> Iterator[bytes]:
        """Ids of all copies that nothing kept leads to."""
        for number, colors in list(self.colors.items()):
            if FREE in colors or DROPPED in colors:
                footer = self.footer(number)
                if footer is not None:
                    for color in (FREE, DROPPED):
                        for slot in positions(colors, color, colors.find(color), len(colors)):
                            yield footer.id_at(slot)

    def _trace(
        self, number: int, footer: Footer, slots: Sequence[int], todo: int, wanted: frozenset[int]
    ) -> None:
        pack = self.packs[number]
        strict = todo == KEEPING
        kinds, codecs = column(footer.table, KIND_AT), column(footer.table, CODEC_AT)
        slots = [at for at in slots if kinds[at] != _BLOB or codecs[at] > ZSTD]
        beside = any(codecs[at] == DICTIONARY for at in slots)
        stored = {at for at in slots if ZSTD < codecs[at] != DICTIONARY}
        traits = self._traits_of(number)
        if stored and (not self.deferring or traits is None or traits.is_needy):
            for slot, role, needed in footer.edge_rows():
                if slot not in stored or (self.deferring and role == EDGE_BASE):
                    continue
                if not self._mark(needed, todo, wanted) and strict:
                    by = f"a copy of {footer.id_at(slot).hex()}"
                    raise absence(self._objects, self.version, needed, by)
        # One that needs a dictionary keeps all of its pack's: mostly there is one.
        for dictionary in footer.dictionaries() if beside else ():
            if not self._mark(dictionary, todo, wanted) and strict:
                by = f"copies in {pack.label}"
                raise absence(self._objects, self.version, dictionary, by)
        structured = [at for at in slots if kinds[at] != _BLOB and codecs[at] != RECIPE]
        closed, here = self._spread.closed[todo], self._where.ids.get(number)
        if closed and here is not None:
            structured = [at for at in structured if here[at] not in closed]
        ids, places = places_in(pack, footer, structured)
        for found in self._names.of(ids, places, strict=strict):
            if strict and self.tally is not None:
                self.tally.named(found, self.places)
            if self.has_table:
                closed.update(found)
            named = set().union(*found.values())
            for child in self._mark_all(named, todo, wanted):
                if strict:
                    self._miss(child, f"an object in {pack.label}")
