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
from collections.abc import Iterable
from typing import Final

from cas.limits import ID_BYTES
from cas.maintenance.gc.moving import install_moved, moving
from cas.maintenance.gc.reach import Lost, Marks
from cas.objects.batch import Batch
from cas.objects.packs import PackInfo
from cas.objects.pipeline import Submitted
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA
from cas.storage.delta import encode_delta
from cas.storage.record import RECORD_HEADER_BYTES

_STEPS_MAX: Final = 8


def reencode(objects: ObjectStore, marks: Marks, bytes_max: int) -> int:
    """Store deltas anew whose base is not kept; bytes written. Marks what was replaced.

    Raises errors of storage; what was there is there then.
    """
    lost = marks.lost_bases()
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
        for family in _families(objects, chosen):
            written += _write(objects, batch, family)
        outputs = install_moved(objects, batch, state, list(packs.values()))
    if outputs is None:
        return 0
    if not any(any(output.bits) for output in outputs):
        marks.replace(chosen)
    return written


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


def _families(objects: ObjectStore, lost: Iterable[Lost]) -> list[list[Lost]]:
    """Deltas by the object at the end of their chains, the newest of each first."""
    found: dict[bytes, dict[bytes, Lost]] = defaultdict(dict)
    for item in lost:
        found[_end_of(objects, item.base)].setdefault(item.id, item)
    return [
        sorted(family.values(), key=lambda item: (-item.number, item.slot))
        for family in found.values()
    ]


def _end_of(objects: ObjectStore, id: bytes) -> bytes:
    for _ in range(_STEPS_MAX):
        copy = objects.lookup.find(id)
        if copy is None or copy.slot.codec != DELTA:
            return id
        start = copy.slot.offset + RECORD_HEADER_BYTES
        id = objects.stored(copy.pack, start, ID_BYTES)
    return id


def _write(objects: ObjectStore, batch: Batch, family: list[Lost]) -> int:
    leader, *others = family
    kind, base = objects.read(leader.id)
    written = len(base)
    batch.rewrite([Submitted(leader.id, kind, base, None, len(base), 0, leader.group)])
    for item in others:
        if batch.holds(item.id):
            continue
        kind, content = objects.read(item.id)
        written += len(content)
        frame = encode_delta(content, base) if item.group == leader.group else None
        if frame is not None and kind == leader.kind and 2 * len(frame) <= len(content):
            payload = leader.id + frame
            new = Submitted(item.id, kind, payload, DELTA, len(content), 1, item.group)
        else:
            new = Submitted(item.id, kind, content, None, len(content), 0, item.group)
        batch.rewrite([new])
    return written
