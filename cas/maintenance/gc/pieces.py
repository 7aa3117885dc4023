"""Some records of a pack, as pieces of a few MiB that move as they lie.

Floor 5. Invariant: a piece says of each of its records what the pack says of it, but for where it
lies; records keep their order, and nothing of them is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from cas.limits import ID_BYTES, MIB
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DICTIONARY
from cas.storage.header import PACK_HEADER_BYTES
from cas.storage.pack import EDGE_DICTIONARY, SLOT_BYTES, WHOLE_PACK, Edge, Footer, encode_edges
from cas.storage.record import RECORD_HEADER_BYTES

_PIECE_BYTES: Final = 8 * MIB
_GAP_BYTES: Final = 32 * 1024
"""Shorter gaps between records are read with them."""

_OFFSET: Final = struct.Struct("<I")
_BEHIND_OFFSET: Final = ID_BYTES + _OFFSET.size
Span = tuple[int, int]


def pieces(
    objects: ObjectStore, pack: PackInfo, footer: Footer, numbers: Sequence[int]
) -> Iterator[tuple[bytes, Footer]]:
    """Bodies and footers that hold the records of these slots, given in the order in which they
    lie. Raises what reading raises.
    """
    needs = {slot: (role, id) for slot, role, id in footer.edge_rows()}
    group: list[int] = []
    size_bytes = 0
    for number, row in zip(numbers, footer.pick(numbers), strict=True):
        group.append(number)
        size_bytes += RECORD_HEADER_BYTES + row[2]
        if size_bytes >= _PIECE_BYTES:
            yield _piece(objects, pack, footer, group, needs)
            group, size_bytes = [], 0
    if group:
        yield _piece(objects, pack, footer, group, needs)


def _piece(
    objects: ObjectStore,
    pack: PackInfo,
    footer: Footer,
    numbers: Sequence[int],
    needs: dict[int, tuple[int, bytes]],
) -> tuple[bytes, Footer]:
    spans: list[Span] = []
    places: dict[int, int] = {}
    end = PACK_HEADER_BYTES
    beside = False
    for number, row in zip(numbers, footer.pick(numbers), strict=True):
        start, length = row[1], RECORD_HEADER_BYTES + row[2]
        beside = beside or row[5] == DICTIONARY
        places[number] = end
        end += length
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], start + length)
        else:
            spans.append((start, start + length))
    order = sorted(places)  # the table is sorted by id, and so is every part of it
    table = footer.table
    slots = [
        b"".join(
            (
                table[at * SLOT_BYTES : at * SLOT_BYTES + ID_BYTES],
                _OFFSET.pack(places[at]),
                table[at * SLOT_BYTES + _BEHIND_OFFSET : (at + 1) * SLOT_BYTES],
            )
        )
        for at in order
    ]
    edges = [Edge(new, *needs[at]) for new, at in enumerate(order) if at in needs]
    if beside:
        edges += [Edge(WHOLE_PACK, EDGE_DICTIONARY, id) for id in footer.dictionaries()]
    body = b"".join((bytes(PACK_HEADER_BYTES), *_read(objects, pack, spans)))
    return body, Footer(len(order), len(edges), end, b"".join(slots), encode_edges(edges))


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
