"""Counting references while everything is marked.

Floor 5; implements docs/design/029. Invariant: each object that is kept for the sake of roots
counts what it names once, however many copies it has; where a pack went away under the mark
nothing is counted, as what only its slots named was not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cas.limits import GC_COUNT_SLOTS_MIN
from cas.maintenance.gc.columns import Gathering, Unreadable
from cas.maintenance.gc.counts import Counts
from cas.maintenance.gc.roots import Roots
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.pack import Footer

if TYPE_CHECKING:
    from cas.maintenance.gc.reach import Marks


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

    def named(self, found: Mapping[bytes, Sequence[bytes]], marks: Marks) -> None:
        """What objects that are kept name."""
        for id, ids in found.items():
            if len(marks.places(id)) > 1:
                if id in self._twice:
                    continue
                self._twice.add(id)
            try:
                self._sums.add(ids)
            except OSError:  # the disk is full
                self.is_broken = True

    def finish(self, objects: ObjectStore, roots: Roots, marks: Marks) -> Counts | None:
        """The counts, once all that roots lead to is kept and what was given up is colored; None
        where they would not be right.
        """
        for number in list(marks.packs):
            footer = marks.footer(number)
            if footer is not None:
                self.took(marks.packs[number], footer, marks.colors[number])
        if self.is_broken:
            return None
        counts = self.counts
        counts.lineage, counts.seq = roots.lineage, roots.seq
        counts.anchor, counts.purged = roots.anchor, roots.purged
        counts.thinned = roots.thinned
        counts.roots = counts.all_roots(roots.all_kept)
        with suppress(OSError, OverflowError, Unreadable):
            self._sums.add(counts.roots)
            counts.settle(objects, self._sums, self._bases)
            for id, needs in counts.needs.items():
                if counts.of(id):
                    for need in needs:
                        counts.put(need, counts.of(need) + 1)
            counts.unkept = set(counts.unnamed(marks.loose_ids()))
            counts.given = set(marks.given_up)
            counts.save(objects, marks.packs)
            return counts
        return None

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
