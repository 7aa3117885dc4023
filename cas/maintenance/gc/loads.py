"""What pack files hold and how much of it lives: learnt once, and kept.

Floor 5. Invariant: a pack file never changes, so what was learnt of it stays true, and with a
deletion vector as long as that has the same bits; what is kept is a cache, and a wrong number in it
makes a pack be written anew for nothing, or not. So whoever asks again pays for what is new.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from cas.errors import Corrupt
from cas.maintenance.remembered import Remembered
from cas.model.ids import digest_blob
from cas.objects.packs import PackInfo, State, flags_of
from cas.objects.store import ObjectStore
from cas.storage.header import PACK_HEADER_BYTES
from cas.storage.pack import FOOTER_HEAD_BYTES, SLOT_BYTES, decode_footer_head
from cas.storage.record import RECORD_HEADER_BYTES
from cas.storage.slots import stored_lengths

_FILE: Final = "pack-loads.json"


class Load(NamedTuple):
    """What a pack file holds: bytes of records and slots that live, and all of them."""

    pack: PackInfo
    live_bytes: int
    all_bytes: int
    slot_count: int = 0

    @property
    def waste(self) -> float:
        """The part of it that nobody needs."""
        return 1 - self.live_bytes / self.all_bytes if self.all_bytes else 0.0


class _Known(NamedTuple):
    """Slots of a pack file, and bytes of records and slots that these bits take."""

    slot_count: int
    bits: str
    dead_bytes: int


# What each store knows; in its cache folder too, where it has one.
_KNOWN: WeakKeyDictionary[ObjectStore, dict[str, _Known]] = WeakKeyDictionary()


def loads_of(objects: ObjectStore, state: State) -> list[Load]:
    """What each pack file holds that has a deletion vector, or is small.

    What cannot be read is left out. Costs a look at each pack that is new, or whose vector is.
    """
    known = _known(objects)
    small_bytes = objects.thresholds.pack_bytes // 8
    fresh: dict[str, _Known] = {}
    loads = []
    for pack in state.packs.values():
        bits = state.vectors.get(pack.number)
        if pack.file is None or (bits is None and pack.body_bytes >= small_bytes):
            continue
        digest = "" if bits is None else digest_blob(bits).hex()
        found = known.get(pack.file)
        if found is None or found.bits != digest:
            try:
                found = fresh[pack.file] = _learn(objects, pack, bits, digest)
            except Corrupt:
                continue
        all_bytes = pack.body_bytes - PACK_HEADER_BYTES + SLOT_BYTES * found.slot_count
        loads.append(Load(pack, all_bytes - found.dead_bytes, all_bytes, found.slot_count))
    if fresh:
        known.update(fresh)
        _save(objects, known, state.packs.values())
    return loads


def _learn(objects: ObjectStore, pack: PackInfo, bits: bytes | None, digest: str) -> _Known:
    """Look at one pack. Raises `Corrupt`."""
    if bits is None:
        if pack.footer is not None:
            return _Known(pack.footer.count, digest, 0)
        assert pack.file is not None
        head = objects.bucket.read(pack.file, pack.body_bytes, FOOTER_HEAD_BYTES)
        return _Known(decode_footer_head(head, pack.file)[0], digest, 0)
    footer = objects.lookup.footer(pack)
    dead = list(compress(stored_lengths(footer.table), flags_of(bits, footer.count)))
    return _Known(footer.count, digest, sum(dead) + len(dead) * (RECORD_HEADER_BYTES + SLOT_BYTES))


# -- the cache -------------------------------------------------------------------------------------


def _known(objects: ObjectStore) -> dict[str, _Known]:
    known = _KNOWN.get(objects)
    if known is None:
        known = _KNOWN[objects] = Remembered(objects.cache, _FILE).load(_saved, {})
    return known


def _saved(found: Any) -> dict[str, _Known]:
    return {
        str(name): _Known(int(count), str(bits), int(dead))
        for name, (count, bits, dead) in found.items()
    }


def _save(objects: ObjectStore, known: dict[str, _Known], packs: Iterable[PackInfo]) -> None:
    """Forget packs that are gone, and write the rest where there is a folder."""
    there = {pack.file for pack in packs}
    for name in known.keys() - there:
        del known[name]
    if not objects.catalog.read_only:
        Remembered(objects.cache, _FILE).save(known)
