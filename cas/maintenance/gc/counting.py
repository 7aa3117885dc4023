"""Counting references while everything is marked.

Floor 5; implements docs/design/029. Invariant: each object that is kept for the sake of roots
counts what it names once, however many copies it has; where a pack went away under the mark
nothing is counted, as what only its slots named was not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from cas.limits import GC_COUNT_SLOTS_MIN
from cas.maintenance.gc.columns import Gathering
from cas.maintenance.gc.counts import Counts
from cas.maintenance.gc.whereabouts import Spot
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.pack import Footer


class Tally:
    """What one mark counts. One thread."""

    def __init__(self, folder: str) -> None:
        self._sums = Gathering(folder)
        self._bases = Gathering(folder, pairs=True)
        self._taken: set[int] = set()
        self._twice: set[bytes] = set()
        self.counts = Counts()
        self.is_broken = False

    def took(self, pack: PackInfo, footer: Footer, colors: bytearray) -> None:
        """The mark has read the footer of a pack."""
        if pack.number not in self._taken:
            self._taken.add(pack.number)
            with suppress(OSError, OverflowError):
                self._bases.add(self.counts.take(pack, footer, colors))
                return
            self.is_broken = True

    def named(
        self, found: Mapping[bytes, Sequence[bytes]], places: Callable[[bytes], Sequence[Spot]]
    ) -> None:
        """What objects that are kept name; `places` says where copies of one may lie."""
        for id, ids in found.items():
            if len(places(id)) > 1:
                if id in self._twice:
                    continue
                self._twice.add(id)
            try:
                self._sums.add(ids)
            except OSError:  # the disk is full
                self.is_broken = True

    def settle(self, objects: ObjectStore) -> None:
        """Count roots, write columns, and count what copies of kept objects need. Raises `OSError`,
        `OverflowError`, `Uncounted`.
        """
        counts = self.counts
        self._sums.add(counts.roots)
        counts.settle(objects, self._sums, self._bases)
        for id, needs in counts.needs.items():
            if counts.of(id):
                for need in needs:
                    counts.put(need, counts.of(need) + 1)

    def close(self) -> None:
        """Give files back."""
        self._sums.close()
        self._bases.close()


def tally_for(objects: ObjectStore, slot_count: int) -> Tally | None:
    """A tally, where counting is worth it and there is a place for it."""
    if objects.cache is None or objects.catalog.read_only or slot_count < GC_COUNT_SLOTS_MIN:
        return None
    try:
        return Tally(objects.cache)
    except OSError:
        return None
