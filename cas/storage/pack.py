"""Packs: a sealed run of records with a header before and a footer behind.

Floor 2; implements docs/format.md section 6. Invariant: a pack is never changed once sealed; a
footer whose digest holds says of every record where it lies and what it is. The same bytes are
a file in a bucket or, while small, two columns of a catalog row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import lt
from typing import Any, Final, NamedTuple

from cas.errors import CorruptPack
from cas.limits import (
    DICTIONARIES_A_PACK_MAX,
    ID_BYTES,
    PACK_SLOTS_MAX,
    STRUCTURED_BYTES_MAX,
)
from cas.model.ids import Kind, digest_blob
from cas.storage.codec import DELTA, RAW, RECIPE, ZSTD
from cas.storage.header import PACK_HEADER_BYTES, decode_header
from cas.storage.record import (
    COMMON_GROUP,
    RECORD_HEADER_BYTES,
    TAG_BYTES,
    RecordHeader,
    check_record,
)
from cas.storage.slots import (
    CODEC_AT,
    SLOT,
    are_deltas,
    are_plain,
    beginnings,
    column,
    picked,
    stored_lengths,
)

FOOTER_MAGIC: Final = b"casFOOT\n"
END_MAGIC: Final = b"\xcaSE1"

_FOOTER = struct.Struct("<8sIIQ")
_OFFSET = struct.Struct("<32xI20x")
_RANK = struct.Struct("<49xBBxI")
_EDGE = struct.Struct("<II32s")
_TRAILER = struct.Struct("<32sI4s")

SLOT_BYTES: Final = SLOT.size
TRAILER_BYTES: Final = _TRAILER.size
FOOTER_HEAD_BYTES: Final = _FOOTER.size
EDGE_BYTES: Final = _EDGE.size
encode_slot: Final = SLOT.pack

EDGE_BASE: Final = 1
EDGE_DICTIONARY: Final = 2
EDGE_RECIPE: Final = 3
_ROLES: Final = frozenset((EDGE_BASE, EDGE_DICTIONARY, EDGE_RECIPE))
_FEW: Final = 16
"""Slots up to which a footer remembers its ids: an inline pack is asked for them four times."""

EDGES_A_SLOT: Final = 2
"""A copy needs a base, or a recipe; one more is kept free."""

WHOLE_PACK: Final = (1 << 32) - 1
"""In the place of a slot number: the edge is of every copy of codec 4 in the pack."""

_DIGEST_BYTES: Final = 32
_SLOTS_AND_EDGES_MAX: Final = (
    PACK_SLOTS_MAX * (SLOT_BYTES + EDGES_A_SLOT * _EDGE.size) + DICTIONARIES_A_PACK_MAX * _EDGE.size
)

assert SLOT_BYTES == 56 == _OFFSET.size


Row = tuple[bytes, int, int, int, int, int, int, int, int]
"""A slot as a plain tuple, in the order of `Slot`'s fields."""


class Slot(NamedTuple):
    """What a footer says of one record. `offset` is that of the record in the pack."""

    id: bytes
    offset: int
    stored_bytes: int
    raw_bytes: int
    kind: int
    codec: int
    depth: int
    flags: int
    group: int

    @property
    def payload_offset(self) -> int:
        """Where the payload begins."""
        return self.offset + RECORD_HEADER_BYTES

    @property
    def header(self) -> RecordHeader:
        """What the record's own header must say."""
        return RecordHeader(
            self.kind,
            self.codec,
            self.depth,
            self.flags,
            self.group,
            self.stored_bytes,
            self.raw_bytes,
        )


Record = tuple[bytes, int, int, bytes, int]
"""A whole object ready to be written: id, kind, codec, payload, raw bytes."""

Made = tuple[bytes, int, int, bytes, int, int, int]
"""Any copy ready to be written: a record, its depth and its compression group."""


class Edge(NamedTuple):
    """What the copy in a slot needs beside itself: a base, a dictionary or a recipe."""

    slot: int
    role: int
    id: bytes


class Footer:
    """The slots and edges of one pack, read-only; searches by id.

    Built by `decode_footer` from checked bytes. Thread-safe: nothing that it says changes.
    """

    __slots__ = ("_edges", "_ids", "_slots", "body_bytes", "body_digest", "count", "edge_count")

    def __init__(
        self,
        count: int,
        edge_count: int,
        body_bytes: int,
        slots: bytes,
        edges: bytes,
        body_digest: bytes = b"",
        ids: list[bytes] | None = None,
    ) -> None:
        self.count = count
        self.edge_count = edge_count
        self.body_bytes = body_bytes
        self.body_digest = body_digest
        """BLAKE3 of header and records, where the writer has verified each of them; else b""."""
        self._slots = slots
        self._edges = edges
        self._ids = ids

    def encode(self, header: bytes) -> bytes:
        """Footer bytes, trailer included, of a pack with this header."""
        head = _FOOTER.pack(FOOTER_MAGIC, self.count, self.edge_count, self.body_bytes)
        body = b"".join((head, self._slots, self._edges, self.body_digest))
        digest = digest_blob(header + body)
        return body + _TRAILER.pack(digest, len(body) + TRAILER_BYTES, END_MAGIC)

    @property
    def memory_bytes(self) -> int:
        """What this costs to keep."""
        return len(self._slots) + len(self._edges) + 200

    def slot(self, number: int) -> Slot:
        """The slot of this number."""
        return Slot._make(SLOT.unpack_from(self._slots, number * SLOT_BYTES))

    def rank(self, number: int) -> int | None:
        """Depth of the copy in a slot, if it may be the base of deltas of the common group."""
        codec, depth, group = _RANK.unpack_from(self._slots, number * SLOT_BYTES)
        return None if codec == RECIPE or group != COMMON_GROUP else depth

    def id_at(self, number: int) -> bytes:
        """Id of the slot of this number."""
        start = number * SLOT_BYTES
        return self._slots[start : start + ID_BYTES]

    def find(self, id: bytes) -> int:
        """Number of the slot with this id, or -1."""
        slots = self._slots
        low, high = 0, self.count
        while low < high:
            middle = (low + high) >> 1
            start = middle * SLOT_BYTES
            if slots[start : start + ID_BYTES] < id:
                low = middle + 1
            else:
                high = middle
        start = low * SLOT_BYTES
        return low if low < self.count and slots[start : start + ID_BYTES] == id else -1

    def slots(self) -> Iterator[Slot]:
        """All slots, ascending by id."""
        return map(Slot._make, SLOT.iter_unpack(self._slots))

    def rows(self) -> Iterator[Row]:
        """All slots as plain tuples in the order of `Slot`'s fields, for long runs."""
        return SLOT.iter_unpack(self._slots)

    def by_offset(self) -> list[int]:
        """Numbers of all slots, in the order in which their records lie."""
        offsets = [offset for (offset,) in _OFFSET.iter_unpack(self._slots)]
        return sorted(range(self.count), key=offsets.__getitem__)

    def pick(self, numbers: Iterable[int]) -> Iterator[Row]:
        """Slots of these numbers, as `rows` gives them. Each is made when it is asked for."""
        slots = self._slots
        starts = [number * SLOT_BYTES for number in numbers]
        return SLOT.iter_unpack(b"".join([slots[at : at + SLOT_BYTES] for at in starts]))

    def ids(self) -> list[bytes]:
        """All ids, ascending; not to be changed."""
        ids = self._ids
        if ids is None:
            slots = self._slots
            ids = [slots[i : i + ID_BYTES] for i in range(0, len(slots), SLOT_BYTES)]
            if self.count <= _FEW:
                self._ids = ids
        return ids

    def keep_ids(self) -> list[bytes]:
        """`ids`, and remember them: a small pack is soon gathered, and asked for them each time."""
        self._ids = ids = self.ids()
        return ids

    @property
    def table(self) -> bytes:
        """All slots as they are written, for `cas.storage.slots`."""
        return self._slots

    @property
    def encoded_edges(self) -> bytes:
        """All edges as they are written."""
        return self._edges

    def stands_in(self, footer_bytes: bytes) -> bool:
        """Whether encoded footer bytes hold exactly these slots and edges."""
        return footer_bytes[FOOTER_HEAD_BYTES:-TRAILER_BYTES] == self._slots + self._edges

    def edge_rows(self) -> Iterator[tuple[int, int, bytes]]:
        """What single copies need, as plain tuples (slot, role, id), ascending by slot."""
        edges = self._edges
        end = len(edges) - len(self.dictionaries()) * _EDGE.size
        return _EDGE.iter_unpack(edges if end == len(edges) else edges[:end])

    def edges(self) -> list[Edge]:
        """What single copies need, ascending by slot; what the pack needs is in `dictionaries`."""
        if not self._edges:
            return []
        return [Edge._make(e) for e in _EDGE.iter_unpack(self._edges) if e[0] != WHOLE_PACK]

    @property
    def has_edges(self) -> bool:
        """Whether any single copy needs something beside itself."""
        edges = self._edges
        return bool(edges) and _EDGE.unpack_from(edges)[0] != WHOLE_PACK

    def all_edges(self) -> list[Edge]:
        """Every edge as it is written."""
        return [Edge._make(e) for e in _EDGE.iter_unpack(self._edges)]

    def dictionaries(self) -> list[bytes]:
        """Ids of the dictionaries that copies of codec 4 in this pack need, ascending."""
        found: list[bytes] = []
        for start in range(len(self._edges) - _EDGE.size, -1, -_EDGE.size):
            slot, _role, id = _EDGE.unpack_from(self._edges, start)
            if slot != WHOLE_PACK:
                break
            found.append(id)
        return found[::-1]


def encode_edges(edges: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Edges as they are written; the caller has sorted them."""
    return b"".join([_EDGE.pack(slot, role, id) for slot, role, id in edges])


def encode_footer(
    header: bytes,
    slots: Sequence[bytes],
    edges: Sequence[Edge],
    body_bytes: int,
    body_digest: bytes = b"",
) -> bytes:
    """Footer bytes, trailer included, for encoded slots ascending by id."""
    edge_bytes = encode_edges(edges)
    footer = Footer(len(slots), len(edges), body_bytes, b"".join(slots), edge_bytes, body_digest)
    return footer.encode(header)


def footer_length(trailer: bytes, pack: str) -> int:
    """Bytes of the footer that ends with these 40 bytes. Raises `CorruptPack`."""
    if len(trailer) == TRAILER_BYTES:
        _digest, length, magic = _TRAILER.unpack(trailer)
        least = FOOTER_HEAD_BYTES + TRAILER_BYTES
        if magic == END_MAGIC and least <= length <= least + _SLOTS_AND_EDGES_MAX + _DIGEST_BYTES:
            return int(length)
    raise CorruptPack(f"The end of {pack} is damaged; run `cas fsck`.", pack=pack, offset=-1)


def decode_footer_head(data: bytes, pack: str) -> tuple[int, int]:
    """Slots and edges that the beginning of a footer states. Raises `CorruptPack`."""
    magic, count, edge_count, _body_bytes = _FOOTER.unpack(data)
    if magic != FOOTER_MAGIC or not _is_possible(count, edge_count):
        raise CorruptPack(f"The footer of {pack} is damaged.", pack=pack, offset=-1)
    return count, edge_count


def _is_possible(count: int, edge_count: int) -> bool:
    if count > PACK_SLOTS_MAX:
        return False
    return edge_count <= EDGES_A_SLOT * count + min(count, DICTIONARIES_A_PACK_MAX)


def decode_footer(header: bytes, data: bytes, pack: str, *, verified: bool = False) -> Footer:
    """The footer of a pack, from its header's 80 bytes and the footer's. Raises `CorruptPack`.

    `verified=True` skips digest and order for a footer this process has just made.
    """
    if len(data) < FOOTER_HEAD_BYTES + TRAILER_BYTES:
        raise CorruptPack(f"The footer of {pack} is cut short.", pack=pack, offset=-1)
    magic, count, edge_count, body_bytes = _FOOTER.unpack_from(data)
    slots_end = FOOTER_HEAD_BYTES + count * SLOT_BYTES
    edges_end = slots_end + edge_count * _EDGE.size
    many = not _is_possible(count, edge_count)
    # Whether a digest of the body stands behind the edges is told by the length.
    trailer_at = len(data) - TRAILER_BYTES
    if magic != FOOTER_MAGIC or many or trailer_at - edges_end not in (0, _DIGEST_BYTES):
        raise CorruptPack(f"The footer of {pack} is damaged.", pack=pack, offset=-1)
    slots, edges = data[FOOTER_HEAD_BYTES:slots_end], data[slots_end:edges_end]
    footer = Footer(count, edge_count, body_bytes, slots, edges, data[edges_end:trailer_at])
    if not verified:
        digest, length, end = _TRAILER.unpack_from(data, trailer_at)
        if (
            end != END_MAGIC
            or length != len(data)
            or digest_blob(header + data[:trailer_at]) != digest
        ):
            raise CorruptPack(f"The footer of {pack} is damaged.", pack=pack, offset=-1)
        first = beginnings(slots)
        # Ids that begin alike are rare: only then is the whole of each looked at.
        if not (_ascend(first) or _ascend(footer.ids())):
            raise CorruptPack(f"The footer of {pack} is out of order.", pack=pack, offset=-1)
    return footer


def _ascend(values: Sequence[Any]) -> bool:
    return all(map(lt, values, islice(values, 1, None)))


def check_footer(footer: Footer, pack: str) -> None:
    """Check every slot and edge of a footer against the body. Raises `CorruptPack`."""
    end = footer.body_bytes - RECORD_HEADER_BYTES
    room = footer.body_bytes - PACK_HEADER_BYTES - footer.count * RECORD_HEADER_BYTES
    if _are_usual(footer.table, end) and sum(stored_lengths(footer.table)) <= room:
        _check_edges(footer, pack)
        return
    for row in footer.rows():
        _id, offset, stored, raw, kind, codec, depth, flags, group = row
        # The common cases in one test; what is odd is looked at again and told in full.
        if (
            (stored != raw if codec == RAW else codec != ZSTD)
            or depth
            or flags != (kind != 1)
            or not 1 <= kind <= 7
            or stored > STRUCTURED_BYTES_MAX
            or raw > STRUCTURED_BYTES_MAX
        ):
            check_record(RecordHeader(kind, codec, depth, flags, group, stored, raw), pack, offset)
        if not PACK_HEADER_BYTES <= offset <= end - stored:
            raise CorruptPack(f"A slot of {pack} lies outside its body.", pack=pack, offset=offset)
        room -= stored
    if room < 0:
        # Else whoever moves them one by one writes many times what was stored. fsck finds the
        # overlaps that leave as many bytes unused.
        raise CorruptPack(f"Records of {pack} overlap; run `cas fsck`.", pack=pack, offset=-1)
    _check_edges(footer, pack)


def _are_usual(table: bytes, end: int) -> bool:
    """Whether all slots are of whole copies and deltas that a writer could have made."""
    whole, deltas = table, b""
    codecs = column(table, CODEC_AT)
    if DELTA in codecs:
        whole = picked(table, [at for at, codec in enumerate(codecs) if codec != DELTA])
        deltas = picked(table, [at for at, codec in enumerate(codecs) if codec == DELTA])
    first, bytes_max = PACK_HEADER_BYTES, STRUCTURED_BYTES_MAX
    return are_plain(whole, first, end, kind_max=Kind.SEGMENT, bytes_max=bytes_max) and are_deltas(
        deltas, first, end, bytes_max=bytes_max
    )


def _check_edges(footer: Footer, pack: str) -> None:
    edges = list(_EDGE.iter_unpack(footer.encoded_edges))
    if not edges:
        return
    # They ascend, and those of the whole pack are the last.
    ascend = all(map(lt, edges, islice(edges, 1, None)))
    for slot, role, _id in edges:
        if slot == WHOLE_PACK:
            known = role == EDGE_DICTIONARY
        else:
            known = slot < footer.count and role in _ROLES
        if not (known and ascend):
            raise CorruptPack(f"An edge of {pack} is damaged.", pack=pack, offset=-1)
    tags = [id[:TAG_BYTES] for id in footer.dictionaries()]
    if len(tags) > DICTIONARIES_A_PACK_MAX or len(tags) != len(set(tags)):
        raise CorruptPack(f"Dictionaries of {pack} are too many, or alike.", pack=pack, offset=-1)


def decode_inline(body: bytes, footer_bytes: bytes, pack: str) -> Footer:
    """The footer of an inline pack, checked as that of a file is. Raises `CorruptPack`."""
    decode_header(body, pack)
    footer = decode_footer(body[:PACK_HEADER_BYTES], footer_bytes, pack)
    if footer.body_bytes != len(body):
        raise CorruptPack(f"The footer of {pack} is not its own.", pack=pack, offset=-1)
    check_footer(footer, pack)
    return footer


def decode_slot(data: bytes) -> Slot:
    """One slot from its 56 bytes, read alone: without its footer's digest. Raises `CorruptPack`."""
    slot = Slot._make(SLOT.unpack(data))
    if not Kind.BLOB <= slot.kind <= Kind.SEGMENT:
        raise CorruptPack(
            f"A slot names the unknown kind {slot.kind}; run `cas fsck`.", pack=None, offset=-1
        )
    return slot
