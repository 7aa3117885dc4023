"""Contents that are made of another object's: deltas, one at a time.

Floor 3; implements docs/format.md section 6.4. Invariant: a base is read only from a base copy,
and no copy is tried twice for one content. The caller proves what is given here by its id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cas.errors import CasError, Corrupt, CorruptObject, NotFound
from cas.limits import ID_BYTES, MIB
from cas.objects.bodies import BytesCache
from cas.objects.chains import may_be_base
from cas.objects.lookup import Lookup
from cas.objects.packs import Copy
from cas.storage.delta import decode_delta, delta_base

_BASES_BYTES: Final = 8 * MIB
"""Contents that deltas stand on, kept for those that stand beside each other."""

Places = set[tuple[int, int]]
"""Copies that failed: number of the pack, offset."""


class Beside:
    """Reads deltas of one store. `load` gives (kind, content) of one copy, verified. Any thread."""

    def __init__(
        self, lookup: Lookup, load: Callable[[Copy, Places | None], tuple[int, bytes]]
    ) -> None:
        self._lookup = lookup
        self._load = load
        self._bases: BytesCache[bytes] = BytesCache(_BASES_BYTES)

    def delta(self, copy: Copy, payload: bytes, tried: Places) -> bytes:
        """Content of a delta, from the first copy of its base that serves.

        Depth falls with each step, so this ends after `DELTA_DEPTH_MAX` of them; no copy is
        tried twice for one content. Raises `CorruptObject`.
        """
        slot = copy.slot
        base = delta_base(payload)
        key = b"%s%d/%d" % (base, slot.kind, slot.group)
        if known := self._bases.get(key):
            return decode_delta(memoryview(payload)[ID_BYTES:], known, slot.raw_bytes)
        failure: CasError | None = None
        for other in self._lookup.copies(base):
            below, place = other.slot, (other.pack.number, other.slot.offset)
            of = slot.depth, slot.kind, slot.group
            if place in tried or not may_be_base(
                below.codec, below.depth, below.kind, below.group, of
            ):
                continue
            try:
                _kind, content = self._load(other, tried)
            except (Corrupt, NotFound) as error:
                tried.add(place)
                failure = error
                continue
            self._bases.put(key, content)
            return decode_delta(memoryview(payload)[ID_BYTES:], content, slot.raw_bytes)
        raise CorruptObject(
            f"Object {slot.id.hex()} in {copy.pack.label} is a delta of {base.hex()}, and no copy "
            f"of that serves ({failure or 'there is none of smaller depth'}); run `cas fsck`.",
            id=slot.id,
            pack=copy.pack.label,
        )

    def clear(self) -> None:
        """Drop what is kept."""
        self._bases.clear()
