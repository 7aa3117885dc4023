"""Patches that a small batch writes: nodes of trees, as what an edit took from the node before.

Floor 3; implements docs/format.md section 6.4. Invariant: a patch has one more depth than a copy of
its base that exists in the snapshot at hand, and that is looked up again in the installing
transaction if anything was condemned in between. What is only staged is no base: it may never
exist.

What is known of a node's content says nothing of how it is stored, or whether: so its rank is
asked for each time, which takes a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable

from cas.limits import DELTA_DEPTH_MAX, ID_BYTES
from cas.objects.deltas import EDGE_BYTES, TARGET_BYTES_MIN
from cas.objects.lookup import Lookup
from cas.objects.packs import may_have_deltas
from cas.objects.places import SLOT_BITS, SLOT_MASK
from cas.trees.node import Made

Origin = Made | tuple[()] | None
"""What an object was just made from, where it is to be stored so; (): of nothing older. None: it
came from elsewhere, and the store may well have it."""


def rank_of(lookup: Lookup, id: bytes) -> int | None:
    """Depth of a copy of `id` that may be a base, one that is not too much where there is such a
    copy in files; None: there is none in the snapshot.
    """
    state, place = lookup.state, lookup.young.first.get(id)
    if place is not None and (number := place >> SLOT_BITS) not in state.vectors:
        # The common case: a commit has made it since the last spill, and nothing was condemned.
        pack = state.packs.get(number)
        if pack is not None and pack.footer is not None:
            rank = pack.footer.rank(place & SLOT_MASK)
            if rank is not None:
                return rank
    copy = lookup.find(id)
    if copy is None:
        return None
    slot = copy.slot
    if slot.depth < DELTA_DEPTH_MAX and may_have_deltas(slot):
        return slot.depth
    depths = [each.slot.depth for each in lookup.copies(id) if may_have_deltas(each.slot)]
    return min(depths, default=None)


class Patches:
    """What one batch stores as patches. One thread."""

    def __init__(self, lookup: Lookup, wanted: bool) -> None:
        self._lookup = lookup
        self._wanted = wanted
        self.depths: dict[bytes, int] = {}
        """Depth of each patch, by the id of its object."""
        self._bases: dict[bytes, bytes] = {}

    def encode(self, id: bytes, made: Made, size_bytes: int) -> bytes | None:
        """The payload that stores `id` as a patch; None where it is stored whole."""
        base, patch = made
        if not self._wanted or size_bytes < TARGET_BYTES_MIN:
            return None
        if len(patch) + ID_BYTES + EDGE_BYTES > size_bytes // 2:
            return None
        rank = rank_of(self._lookup, base)
        if rank is None or rank >= DELTA_DEPTH_MAX:
            return None
        self.depths[id] = rank + 1
        self._bases[id] = base
        return base + patch

    def forget(self, ids: Iterable[bytes]) -> None:
        """These are not staged any more."""
        for id in ids:
            if self.depths.pop(id, 0):
                del self._bases[id]

    def bases(self) -> dict[bytes, int]:
        """Every base, with the depth that a copy of it has to be below."""
        found: dict[bytes, int] = {}
        for id, base in self._bases.items():
            found[base] = min(self.depths[id], found.get(base, DELTA_DEPTH_MAX))
        return found
