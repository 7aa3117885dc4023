"""Compaction: what lives in packs that are mostly waste, or small, is written anew.

Floor 5; implements docs/design/001, rules E4 and E9. Invariant: every object that exists before
exists after, in every state a crash can leave; a record moves as it lies, of several copies the
one of the least rank, so that nothing which hangs on a copy is left hanging.

Which packs are worth it is a pure decision over live and stored bytes, within a bound of bytes
that are moved in one run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from cas.errors import Corrupt
from cas.limits import DELTA_DEPTH_MAX, GC_WASTE_MAX, GC_WASTE_SURE
from cas.maintenance.gc.loads import Load, loads_of
from cas.maintenance.gc.moving import install_moved, moving, remove_moved
from cas.maintenance.gc.pieces import pieces
from cas.objects.bulk import Ahead
from cas.objects.packs import PackInfo, State, bit_is_set, live_slots
from cas.objects.segments import homes
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.pack import Footer, Slot

_SMALL_SLOTS: Final = 1 << 13
_MERGE_MIN: Final = 8
"""Small packs that are worth one new one."""


def choose(
    loads: Iterable[Load],
    *,
    waste_min: float,
    pack_bytes: int,
    bytes_max: int,
    spare_bytes: int = 0,
) -> list[PackInfo]:
    """The packs to write anew, the most wasteful first: of those with `waste_min` or more so many
    that no more than `spare_bytes` are wasted by the rest, or by packs that are mostly needed; and
    small ones where there are many. No more than `bytes_max` live bytes are moved.
    """
    loads = list(loads)
    wasted_bytes = sum(load.all_bytes - load.live_bytes for load in loads)
    wasteful = []
    for load in sorted(loads, key=lambda load: -load.waste):
        if load.waste >= waste_min and (wasted_bytes > spare_bytes or load.waste >= GC_WASTE_SURE):
            wasteful.append(load)
            wasted_bytes -= load.all_bytes - load.live_bytes
    small = [
        load
        for load in loads
        if load.waste < waste_min
        and load.live_bytes < pack_bytes // 8
        and load.slot_count < _SMALL_SLOTS  # full of tiny objects: as many packs would come of it
    ]
    if len(small) < _MERGE_MIN:
        small = []
    chosen: list[PackInfo] = []
    moved = 0
    for load in wasteful + small:
        if moved + load.live_bytes <= bytes_max:
            chosen.append(load.pack)
            moved += load.live_bytes
    return chosen


def worth_moving(
    objects: ObjectStore,
    state: State,
    *,
    waste_min: float,
    bytes_max: int,
    waste_max: float = GC_WASTE_MAX,
) -> list[PackInfo]:
    """The packs of a state that are worth it, but for those that cannot be read: they stay.

    `waste_max` is the part of all packs that may be left as waste, below 0 for none to be left
    that has `waste_min`.
    """
    with objects.catalog.read() as reader:
        stay = homes(reader)
    chosen = choose(
        (load for load in loads_of(objects, state) if load.pack.number not in stay),
        waste_min=waste_min,
        pack_bytes=objects.thresholds.pack_bytes,
        bytes_max=bytes_max,
        spare_bytes=int(waste_max * sum(pack.body_bytes for pack in state.packs.values())),
    )
    return [pack for pack in chosen if _is_readable(objects, pack)]


def _is_readable(objects: ObjectStore, pack: PackInfo) -> bool:
    try:
        objects.lookup.footer(pack)
    except Corrupt:
        return False
    return True


def compact(
    objects: ObjectStore, *, waste_min: float, bytes_max: int, waste_max: float = GC_WASTE_MAX
) -> int:
    """Write what lives in wasteful packs anew, and take these out; bytes moved.

    Raises `StorageFull` and other errors of storage: what was there is there then.
    """
    state = objects.lookup.refresh()
    chosen = worth_moving(
        objects, state, waste_min=waste_min, bytes_max=bytes_max, waste_max=waste_max
    )
    if not chosen:
        return 0
    outputs = None
    moved = 0
    with moving(objects) as batch:
        # The next piece is read while one is written.
        ahead = Ahead(_pieces(objects, state, chosen, _worse(objects, state, chosen)), 1)
        try:
            for body, part in ahead:
                batch.files().copy(body, part)
                moved += len(body)
        finally:
            ahead.close()
        if batch.is_empty:
            batch.abandon()
            outputs = []
        else:
            outputs = install_moved(objects, batch, state, chosen)
    if outputs is None:
        return 0
    remove_moved(objects, chosen, outputs)
    return moved


def _pieces(
    objects: ObjectStore,
    state: State,
    packs: Sequence[PackInfo],
    worse: Mapping[int, set[int]],
) -> Iterator[tuple[bytes, Footer]]:
    """What lives in these packs, but for what is not written anew."""
    for pack in packs:
        footer = objects.lookup.footer(pack)
        bits = state.vectors.get(pack.number)
        numbers = live_slots(bits, footer.by_offset(), footer.count)
        if others := worse.get(pack.number):
            numbers = [at for at in numbers if at not in others]
        yield from pieces(objects, pack, footer, numbers)


def _rank(slot: Slot) -> int:
    return DELTA_DEPTH_MAX + 1 if slot.codec == RECIPE else slot.depth


def _worse(objects: ObjectStore, state: State, packs: Sequence[PackInfo]) -> Mapping[int, set[int]]:
    """Slots by pack that are not written anew: of an object that several of these packs hold
    there is a copy of less rank, or the same and in an older pack.
    """
    seen: set[bytes] = set()
    twice: set[bytes] = set()
    for pack in packs:
        ids = objects.lookup.footer(pack).ids()
        twice.update(seen.intersection(ids))
        seen.update(ids)
    copies: dict[bytes, list[tuple[int, int, int]]] = defaultdict(list)
    for pack in packs if twice else ():
        footer, bits = objects.lookup.footer(pack), state.vectors.get(pack.number)
        for at, id in enumerate(footer.ids()):
            if id in twice and not bit_is_set(bits, at):
                copies[id].append((_rank(footer.slot(at)), pack.number, at))
    worse: dict[int, set[int]] = defaultdict(set)
    for places in copies.values():
        for _rank_of, number, at in sorted(places)[1:]:
            worse[number].add(at)
    return worse
