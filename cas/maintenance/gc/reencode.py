"""Deltas whose base goes: stored anew, whole or on another that stays, so that the base may go.

Floor 5; implements docs/design/001, rules E4, E5 and "Deltas". Invariant: a new copy has no more
depth than the one that it stands for, and its base is whole and stays; the old copy goes in the
condemn transaction, which looks whether the new one stands. What is not stored anew keeps its
base, with all that this names.

Deltas that lead to one whole object form a family. Its newest member becomes whole, and the
others deltas of that where it is worth it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from cas.limits import DELTA_DEPTH_MAX
from cas.maintenance.gc.chains import Chains
from cas.maintenance.gc.colors import GONE, KEPT, Lost
from cas.maintenance.gc.moving import install_moved, moving
from cas.maintenance.gc.reach import Marks
from cas.objects.batch import Batch
from cas.objects.bulk import Ahead, BulkReader, place_of
from cas.objects.chains import Place
from cas.objects.packs import Copy, PackInfo
from cas.objects.pipeline import Submitted
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA, RECIPE
from cas.storage.delta import encode_delta

_DEEPEST: Final = DELTA_DEPTH_MAX + 1
_AHEAD: Final = 4
"""Groups of about a MiB that are read before they are written."""


def reencode(objects: ObjectStore, marks: Marks, bytes_max: int) -> int:
    """Store deltas anew whose base is not kept; bytes written. Marks what was replaced.

    Raises errors of storage; what was there is there then.
    """
    lost = marks.lost_bases()
    # What a run before this one has stored anew, and was killed before it condemned.
    stood = _stand_ins(marks, lost)
    marks.replace(stood)
    lost = [item for item in lost if item not in stood]
    if not lost:
        return 0
    state = objects.lookup.refresh()
    chosen = _within(marks, lost, bytes_max)
    packs: dict[int, PackInfo] = {}
    for item in chosen:
        pack = state.packs.get(item.number)
        if pack is None:
            return 0  # moved by another meanwhile; its base stays this time
        packs[item.number] = pack
    outputs = None
    written = 0
    with moving(objects) as batch:
        written = _write(objects, marks, batch, _families(Chains(marks), chosen))
        outputs = install_moved(objects, batch, state, list(packs.values()))
    if outputs is None:
        return 0
    if not any(any(output.bits) for output in outputs):
        marks.replace(chosen)
    return written


def _stand_ins(marks: Marks, lost: Sequence[Lost]) -> set[Lost]:
    """Those of these deltas for which a newer copy in a file stands, of no more depth, that is
    kept and lacks nothing.
    """
    spots = {(item.number, item.slot) for item in lost}
    found = set()
    for item in lost:
        footer = marks.footer(item.number)
        depth = 0 if footer is None else footer.slot(item.slot).depth
        for number, at in marks.places(item.id):
            if number <= item.number or (number, at) in spots:
                continue
            colors, pack = marks.colors.get(number), marks.packs.get(number)
            if colors is None or pack is None or pack.file is None or colors[at] != KEPT:
                continue
            other = marks.footer(number)
            if other is None or other.id_at(at) != item.id:
                continue
            slot = other.slot(at)
            if slot.codec != RECIPE and slot.depth <= depth:
                found.add(item)
    return found


def _within(marks: Marks, lost: Iterable[Lost], bytes_max: int) -> list[Lost]:
    """As many of them as may be written; all copies of an object together."""
    chosen = []
    size_bytes = 0
    for item in lost:
        size_bytes += item.raw_bytes
        if size_bytes > bytes_max:
            break
        chosen.append(item)
    return chosen


def _families(chains: Chains, lost: Iterable[Lost]) -> list[list[Lost]]:
    """Deltas by the object at the end of their chains, the newest of each first. Those whose first
    lie near each other stand near each other.
    """
    found: dict[bytes, dict[bytes, Lost]] = defaultdict(dict)
    for item in lost:
        found[chains.end_of(item.base)].setdefault(item.id, item)
    families = [
        sorted(family.values(), key=lambda item: (-item.number, item.slot))
        for family in found.values()
    ]
    return sorted(families, key=lambda family: (family[0].number, family[0].offset))


def _rank(place: Place) -> int:
    return _DEEPEST if place.codec == RECIPE else place.depth


class _Reader(BulkReader):
    """Finds copies where a mark has found them, if it has a table: an index is slower to ask."""

    def __init__(self, objects: ObjectStore, marks: Marks) -> None:
        super().__init__(objects)
        self._marks = marks

    def find(self, id: bytes) -> Place | None:
        """Where the copy of least rank lies; what went away since is not read there."""
        marks = self._marks
        if not marks.has_table:
            return super().find(id)
        found: list[Place] = []
        for number, at in marks.places(id):
            pack, footer = marks.packs.get(number), marks.footer(number)
            if pack is None or footer is None or marks.colors[number][at] == GONE:
                continue
            found.append(place_of(Copy(pack, footer.slot(at))))
        return min(found, key=_rank, default=None)


def _write(objects: ObjectStore, marks: Marks, batch: Batch, families: list[list[Lost]]) -> int:
    """Stage new copies of all; their bytes. Reading and compressing go on beside each other."""
    items = [(item, family[0]) for family in families for item in family]
    written = 0
    leading = b""
    ahead = Ahead(_Reader(objects, marks).read([item.id for item, _leader in items]), _AHEAD)
    try:
        for (item, leader), found in zip(items, chain.from_iterable(ahead), strict=True):
            content = found.content
            if content is None:
                content = objects.read(item.id)[1]
            content = bytes(content)
            written += len(content)
            new = None
            if item is leader:
                leading = content
            elif not batch.holds(item.id):
                new = _delta(item, content, leader, leading)
            if not batch.holds(item.id):
                whole = Submitted(item.id, item.kind, content, None, len(content), 0, item.group)
                batch.rewrite([new or whole])
    finally:
        ahead.close()
    return written


def _delta(item: Lost, content: bytes, leader: Lost, base: bytes) -> Submitted | None:
    """An object as a delta of the first of its family, where that is worth it."""
    if item.group != leader.group or item.kind != leader.kind:
        return None
    frame = encode_delta(content, base)
    if frame is None or 2 * len(frame) > len(content):
        return None
    payload = leader.id + frame
    return Submitted(item.id, item.kind, payload, DELTA, len(content), 1, item.group)
