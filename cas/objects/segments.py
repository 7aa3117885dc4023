"""Segments of the journal, read: for the catalog, which cannot read packs.

Floor 3; implements docs/format.md section 5.6. Invariant: the entries that are given stood in bytes
which hash to the id that was asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from cas.catalog.catalog import CatalogReader
from cas.model.ids import Kind
from cas.model.segment import Segment

_HELD: Final = 4
"""Segments that stay decoded: who reads the journal reads it in groups, one after the other."""


class SegmentReader:
    """Entries of segments, as `get` of an object store gives these. Any thread."""

    def __init__(self, get: Callable[[bytes, Kind], bytes]) -> None:
        self._get = get
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()

    def __call__(self, id: bytes) -> Sequence[bytes]:
        """The entries of a segment. Raises what a read of an object raises."""
        with self._lock:
            found = self._held.get(id)
            if found is not None:
                self._held.move_to_end(id)
                return found
        found = Segment.decode(self._get(id, Kind.SEGMENT), verified=True).entries
        with self._lock:
            self._held[id] = found
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return found


def homes(reader: CatalogReader) -> frozenset[int]:
    """Numbers of the packs that have to stay: the two that hold what an archive row names."""
    return frozenset(number for row in reader.archived() for number in (row.pack, row.other))
