"""What a mark asks of every pack, taken from its footer once.

Floor 5. Invariant: a pack file never changes, so what was taken stays true; the footers of a large
store do not fit into memory, and reading and checking one again costs more than all that is here.
"""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

from cas.model.ids import Kind
from cas.storage.codec import ZSTD
from cas.storage.pack import EDGE_BASE, Footer
from cas.storage.slots import CODEC_AT, KIND_AT, column, stored_lengths

_BLOBS: Final = frozenset((Kind.BLOB,))


class Traits(NamedTuple):
    """Of one pack: stored bytes by slot, kinds of its objects, and what these may lead to."""

    lengths: array[int]
    kinds: frozenset[int]
    has_edges: bool
    is_needy: bool
    """Whether any single copy needs more than a base."""
    leads_on: bool
    """Whether any object names another, or any copy needs one."""


def traits_of(footer: Footer) -> Traits:
    """The traits of the pack that has this footer."""
    kinds = frozenset(column(footer.table, KIND_AT))
    return Traits(
        stored_lengths(footer.table),
        kinds,
        footer.has_edges,
        any(role != EDGE_BASE for _slot, role, _id in footer.edge_rows()),
        not kinds <= _BLOBS or max(column(footer.table, CODEC_AT), default=0) > ZSTD,
    )
