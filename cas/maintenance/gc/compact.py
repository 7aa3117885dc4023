"""Compaction: what lives in packs that are mostly waste, or small, is written anew.

Floor 5; implements docs/design/001, rules E4 and E9. Invariant: every object that exists before
exists after, in every state a crash can leave; a record moves as it lies, of several copies the
one of the least rank, so that nothing which hangs on a copy is left hanging.

Which packs are worth it is a pure decision over live and stored bytes, within a bound of bytes
that are moved in one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cas.errors import Corrupt
from cas.limits import DELTA_DEPTH_MAX
from cas.maintenance.gc.loads import Load, loads_of
from cas.maintenance.gc.moving import install_moved, moving, remove_moved
from cas.maintenance.gc.pieces import pieces
from cas.objects.packs import PackInfo, State, bit_is_set
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.pack import Footer, Slot

_SMALL_SLOTS: Final = 1 << 13
_MERGE_MIN: Final = 8
"""Small packs that are worth one new one."""


def choose(
    loads: Iterable[Load], *, waste_min: float, pack_bytes: int, bytes_max: int
) -> list[PackInfo]:
    """The packs to write anew, the most wasteful first: those with `waste_min` or more, and
    small ones where there are many, as long as no more than `bytes_max` live bytes are moved.
    """
    loads = list(loads)
    wasteful = [load for load in loads if load.waste >= waste_min]
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
    for load in sorted(wasteful, key=lambda load: -load.waste) + small:
        if moved + load.live_bytes <= bytes_max:
            chosen.append(load.pack)
            moved += load.live_bytes
    return chosen


def worth_moving(
    objects: ObjectStore, state: State, *, waste_min: float, bytes_max: int
) -> list[PackInfo]:
    """The packs of a state that are worth it, but for those that cannot be read: they stay."""
    chosen = choose(
        loads_of(objects, state),
        waste_min=waste_min,
        pack_bytes=objects.thresholds.pack_bytes,
        bytes_max=bytes_max,
    )
    return [pack for pack in chosen if _is_readable(objects, pack)]


def _is_readable(objects: ObjectStore, pack: PackInfo) -> bool:
    try:
        objects.lookup.footer(pack)
    except Corrupt:
        return False
    return True


def compact(objects: ObjectStore, *, waste_min: float, bytes_max: int) -> int:
    """Write what lives in wasteful packs anew, and take these out; bytes moved.

    Raises `StorageFull` and other errors of storage: what was there is there then.
    """
    state = objects.lookup.refresh()
    chosen = worth_moving(objects, state, waste_min=waste_min, bytes_max=bytes_max)
    if not chosen:
        return 0
    best = _best(objects, state, chosen)
    outputs = None
    moved = 0
    with moving(objects) as batch:
        for pack in chosen:
            footer = objects.lookup.footer(pack)
            numbers = [at for at in _live(footer, state, pack) if _is_best(best, footer, at, pack)]
            for body, part in pieces(objects, pack, footer, numbers):
                batch.files().copy(body, part)
                moved += len(body)
        if batch.is_empty:
            batch.abandon()
            outputs = []
        else:
            outputs = install_moved(objects, batch, state, chosen)
    if outputs is None:
        return 0
    remove_moved(objects, chosen, outputs)
    return moved


def _is_best(
    best: Mapping[bytes, tuple[int, int]], footer: Footer, number: int, pack: PackInfo
) -> bool:
    if not best:
        return True
    slot = footer.slot(number)
    place = _rank(slot), pack.number
    return best.get(slot.id, place) == place


def _rank(slot: Slot) -> int:
    return DELTA_DEPTH_MAX + 1 if slot.codec == RECIPE else slot.depth


def _best(
    objects: ObjectStore, state: State, packs: Sequence[PackInfo]
) -> Mapping[bytes, tuple[int, int]]:
    """Of each object that several of these packs hold, rank and pack of the copy to take."""
    seen: set[bytes] = set()
    twice: set[bytes] = set()
    for pack in packs:
        ids = set(objects.lookup.footer(pack).ids())
        twice |= seen & ids
        seen |= ids
    best: dict[bytes, tuple[int, int]] = {}
    for pack in packs if twice else ():
        footer = objects.lookup.footer(pack)
        for number in _live(footer, state, pack):
            if footer.id_at(number) in twice:
                slot = footer.slot(number)
                place = _rank(slot), pack.number
                best[slot.id] = min(place, best.get(slot.id, place))
    return best


def _live(footer: Footer, state: State, pack: PackInfo) -> list[int]:
    """The live slots of a pack file, in the order in which their records lie."""
    bits = state.vectors.get(pack.number)
    order = footer.by_offset()
    return order if bits is None else [at for at in order if not bit_is_set(bits, at)]
