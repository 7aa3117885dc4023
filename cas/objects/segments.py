"""Segments of the journal, read: for the catalog, which cannot read packs.

Floor 3; implements docs/format.md section 5.6. Invariant: the entries that are given stood in bytes
which hash to the id that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from cas.catalog.catalog import CatalogReader
from cas.model.ids import Kind
from cas.model.segment import Segment

_HELD: Final = 4
"""Segments that stay decoded: who reads the journal reads it in groups, one after the other."""


def segment_reader(get: Callable[[bytes, Kind], bytes]) -> Callable[[bytes], Sequence[bytes]]:
    """What gives the entries of a segment, by its id and `get` of an object store. Any thread; it
    raises what `get` raises.
    """

    @lru_cache(maxsize=_HELD)
    def read(id: bytes) -> Sequence[bytes]:
        return Segment.decode(get(id, Kind.SEGMENT), verified=True).entries

    return read


def homes(reader: CatalogReader) -> frozenset[int]:
    """Numbers of the packs that have to stay: the two that hold what an archive row names."""
    return frozenset(number for row in reader.archived() for number in (row.pack, row.other))
