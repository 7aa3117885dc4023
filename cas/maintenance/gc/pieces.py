"""Some records of a pack, as pieces of a few MiB that move as they lie.

Floor 5. Invariant: a piece says of each of its records what the pack says of it, but for where it
lies; records keep their order, and nothing of them is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add, ne
from typing import Final

from cas.limits import MIB
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DICTIONARY
from cas.storage.header import PACK_HEADER_BYTES
from cas.storage.pack import EDGE_DICTIONARY, WHOLE_PACK, Edge, Footer, encode_edges
from cas.storage.record import RECORD_HEADER_BYTES
from cas.storage.slots import CODEC_AT, column, offsets_of, picked, placed, stored_lengths

_PIECE_BYTES: Final = 8 * MIB
_GAP_BYTES: Final = 32 * 1024
"""Shorter gaps between records are read with them."""

Span = tuple[int, int]


def pieces(
    objects: ObjectStore, pack: PackInfo, footer: Footer, numbers: Sequence[int]
) -> Iterator[tuple[bytes, Footer]]:
    """Bodies and footers that hold the records of these slots, given in the order in which they
    lie. Raises what reading raises.
    """
    needs = {slot: (role, id) for slot, role, id in footer.edge_rows()}
    lengths = stored_lengths(footer.table)
    first = size_bytes = 0
    for at, number in enumerate(numbers, 1):
        size_bytes += RECORD_HEADER_BYTES + lengths[number]
        if size_bytes >= _PIECE_BYTES or at == len(numbers):
            yield _piece(objects, pack, footer, numbers[first:at], needs)
            first, size_bytes = at, 0


def _piece(
    objects: ObjectStore,
    pack: PackInfo,
    footer: Footer,
    numbers: Sequence[int],
    needs: dict[int, tuple[int, bytes]],
) -> tuple[bytes, Footer]:
    table = footer.table
    offsets, stored = offsets_of(table), stored_lengths(table)
    starts = [offsets[number] for number in numbers]
    lengths = [RECORD_HEADER_BYTES + stored[number] for number in numbers]
    *places, end = accumulate(lengths, initial=PACK_HEADER_BYTES)
    # The table is sorted by id, and so is every part of it.
    order, moved = zip(*sorted(zip(numbers, places, strict=True)), strict=True)
    slots = placed(picked(table, order), moved)
    edges = [Edge(new, *needs[at]) for new, at in enumerate(order) if at in needs] if needs else []
    if DICTIONARY in column(slots, CODEC_AT):
        edges += [Edge(WHOLE_PACK, EDGE_DICTIONARY, id) for id in footer.dictionaries()]
    body = b"".join((bytes(PACK_HEADER_BYTES), *_read(objects, pack, _spans(starts, lengths))))
    return body, Footer(len(order), len(edges), end, slots, encode_edges(edges))


def _spans(starts: Sequence[int], lengths: Sequence[int]) -> list[Span]:
    """Stretches without a gap."""
    ends = list(map(add, starts, lengths))
    # Where the next record does not begin at the end of this one.
    breaks = [at for at, gap in enumerate(map(ne, ends, starts[1:]), 1) if gap]
    return list(
        zip(
            [starts[at] for at in (0, *breaks)],
            [ends[at - 1] for at in (*breaks, len(ends))],
            strict=True,
        )
    )


def _read(objects: ObjectStore, pack: PackInfo, spans: Sequence[Span]) -> Iterator[memoryview]:
    """The bytes of these stretches; those that lie close together are read in one go."""
    first = 0
    for at in range(1, len(spans) + 1):
        if at < len(spans) and spans[at][0] - spans[at - 1][1] < _GAP_BYTES:
            continue
        start = spans[first][0]
        data = memoryview(objects.stored(pack, start, spans[at - 1][1] - start))
        for span in spans[first:at]:
            yield data[span[0] - start : span[1] - start]
        first = at
