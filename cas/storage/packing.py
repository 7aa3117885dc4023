"""Packs in the making: records in, a sealed run of bytes out.

Floor 2; implements docs/format.md section 6. Invariant: what is built here is what
`cas.storage.pack` reads; a footer names every object that a copy in it needs beside itself.
Used by one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, repeat
from operator import itemgetter
from typing import Final
from zlib import crc32

from cas.errors import Invalid
from cas.limits import DICTIONARIES_A_PACK_MAX, ID_BYTES
from cas.storage.codec import DELTA, DICTIONARY, RECIPE, ZSTD
from cas.storage.header import PACK_HEADER_BYTES, PackHeader
from cas.storage.pack import (
    EDGE_BASE,
    EDGE_DICTIONARY,
    EDGE_RECIPE,
    WHOLE_PACK,
    Edge,
    Footer,
    Made,
    Record,
    Row,
    Slot,
    encode_edges,
    encode_footer,
    encode_slot,
)
from cas.storage.record import (
    COMMON_GROUP,
    MAGIC,
    RECORD_HEADER_BYTES,
    TAG_BYTES,
    encode_record_headers,
    put_crc,
    put_fields,
)
from cas.storage.slots import CODEC_AT, SLOT, column, shifted

_MANY: Final = 32
"""Records that are made column by column: with fewer, that takes longer."""

_Need = tuple[bytes, int, bytes]
"""Id of a copy, what it needs, and the id of that."""

_id_of: Final[Callable[[Record], bytes]] = itemgetter(0)

NO_DEPTHS: Final[Mapping[bytes, int]] = {}


def build_inline(
    head: bytes,
    records: Sequence[Record],
    dictionary: bytes | None = None,
    depths: Mapping[bytes, int] = NO_DEPTHS,
) -> tuple[bytes, bytes, Footer]:
    """A whole small pack at once: (body, footer bytes, footer).

    What `PackBuilder` gives, in one function: each small commit makes one. `dictionary` is the
    id of the one that records of codec 4 need, `depths` are those of deltas; `head` is the
    encoded header.
    """
    if len(records) >= _MANY:
        return _build_many(head, records, dictionary, depths)
    parts = [head]
    offset = PACK_HEADER_BYTES
    slots: list[bytes] = []
    needs: list[_Need] = []
    group = COMMON_GROUP
    for id, kind, codec, payload, raw_bytes in records:
        stored, depth, flags = len(payload), 0, kind != 1  # Kind.BLOB
        if codec > ZSTD:
            if codec == DELTA:
                depth = depths[id]
                needs.append((id, EDGE_BASE, payload[:ID_BYTES]))
            elif codec == RECIPE:
                needs.append((id, EDGE_RECIPE, payload[ID_BYTES:]))
        fields = put_fields(MAGIC, kind, codec, depth, flags, group, stored, raw_bytes)
        parts += fields, put_crc(crc32(fields)), payload
        slots.append(encode_slot(id, offset, stored, raw_bytes, kind, codec, depth, flags, group))
        offset += RECORD_HEADER_BYTES + stored
    ids = sorted(map(_id_of, records))
    return _sealed(head, b"".join(parts), ids, slots, needs, dictionary, offset)


def _build_many(
    head: bytes,
    records: Sequence[Record],
    dictionary: bytes | None,
    depths: Mapping[bytes, int],
) -> tuple[bytes, bytes, Footer]:
    """`build_inline` of a batch: the same bytes, column by column."""
    ids, kinds, codecs, payloads, raws = zip(*records, strict=True)
    needs: list[_Need] = []
    deep: Sequence[int] = bytes(len(records))
    if not {DELTA, RECIPE}.isdisjoint(codecs):
        deep = [depths[id] if codec == DELTA else 0 for id, codec in zip(ids, codecs, strict=True)]
        for id, codec, payload in zip(ids, codecs, payloads, strict=True):
            if codec == DELTA:
                needs.append((id, EDGE_BASE, payload[:ID_BYTES]))
            elif codec == RECIPE:
                needs.append((id, EDGE_RECIPE, payload[ID_BYTES:]))
    stored = list(map(len, payloads))
    ends = [size_bytes + RECORD_HEADER_BYTES for size_bytes in stored]
    *offsets, end = accumulate(ends, initial=PACK_HEADER_BYTES)
    flags = [kind != 1 for kind in kinds]
    slots = list(
        map(
            encode_slot,
            ids,
            offsets,
            stored,
            raws,
            kinds,
            codecs,
            deep,
            flags,
            repeat(COMMON_GROUP),
        )
    )
    headers = encode_record_headers(kinds, codecs, deep, repeat(COMMON_GROUP), stored, raws)
    body = b"".join([head, *chain.from_iterable(zip(headers, payloads, strict=True))])
    return _sealed(head, body, sorted(ids), slots, needs, dictionary, end)


def _sealed(
    head: bytes,
    body: bytes,
    ids: list[bytes],
    slots: list[bytes],
    needs: list[_Need],
    dictionary: bytes | None,
    offset: int,
) -> tuple[bytes, bytes, Footer]:
    # A slot begins with its id.
    slots.sort()
    found: list[tuple[int, int, bytes]] = []
    if needs:
        found = [(bisect_left(ids, id), role, target) for id, role, target in needs]
        found.sort()
    if dictionary is not None:
        found.append((WHOLE_PACK, EDGE_DICTIONARY, dictionary))
    table, edges = b"".join(slots), encode_edges(found)
    footer = Footer(len(slots), len(found), offset, table, edges, b"", ids)
    return body, footer.encode(head), footer


class PackBuilder:
    """Writes one pack: header, records in the order given, footer. Used by one thread.

    `write` receives the bytes in order. Ids must be new to this pack; the caller knows.
    """

    def __init__(self, header: PackHeader, write: Callable[[bytes], object]) -> None:
        self.header = header.encode()
        self._write = write
        # Encoded as they are written: a pack that is copied brings its slots as bytes.
        self._slots: list[bytes] = []
        # (id of the copy, role, id of what it needs) of each copy that is not whole.
        self._edges: list[tuple[bytes, int, bytes]] = []
        # Dictionaries by the tag that payloads name them with, and the tags that were met.
        self._dictionaries: dict[bytes, bytes] = {}
        self._tags: set[bytes] = set()
        self.body_bytes = PACK_HEADER_BYTES
        write(self.header)

    def __len__(self) -> int:
        return len(self._slots)

    def use(self, dictionaries: Iterable[bytes]) -> bool:
        """Say which dictionaries records may name from now on; False when they are too many for
        one pack, or two of them begin alike: they need a pack of their own then.
        """
        known = self._dictionaries
        more = {id[:TAG_BYTES]: id for id in dictionaries}
        if any(known.get(tag, id) != id for tag, id in more.items()):
            return False
        if len(known.keys() | more.keys()) > DICTIONARIES_A_PACK_MAX:
            return False
        known.update(more)
        return True

    def dictionary(self, payload: bytes) -> bytes:
        """Id of the dictionary that a payload of codec 4 names."""
        return self._dictionaries[payload[:TAG_BYTES]]

    def add_many(self, records: Iterable[Made]) -> None:
        """Append records. What a copy needs beside itself is read from its payload."""
        given = list(records)
        if not given:
            return
        # Column by column: no step of Python for each.
        ids, kinds, codecs, payloads, raws, depths, groups = zip(*given, strict=True)
        stored = list(map(len, payloads))
        lengths = [size_bytes + RECORD_HEADER_BYTES for size_bytes in stored]
        *offsets, end = accumulate(lengths, initial=self.body_bytes)
        flags = [kind != 1 for kind in kinds]
        if max(codecs) > ZSTD:
            for id, codec, payload in zip(ids, codecs, payloads, strict=True):
                self._note_edge(id, codec, payload)
        self._slots += map(
            encode_slot, ids, offsets, stored, raws, kinds, codecs, depths, flags, groups
        )
        headers = encode_record_headers(kinds, codecs, depths, groups, stored, raws)
        self._write(b"".join(chain.from_iterable(zip(headers, payloads, strict=True))))
        self.body_bytes = end

    def copy(self, body: bytes, footer: Footer) -> None:
        """Append the records of another pack as they lie: all of them.

        Records hold no offsets, so a pack moves as one piece and only its slots are shifted. The
        caller has said with `use` which dictionaries it needs.
        """
        self._slots += shifted(footer.table, self.body_bytes - PACK_HEADER_BYTES)
        self._tags.update([id[:TAG_BYTES] for id in footer.dictionaries()])
        if footer.has_edges:
            codecs = column(footer.table, CODEC_AT)
            needing = [at for at, codec in enumerate(codecs) if codec in (RECIPE, DELTA)]
            for id, offset, stored, _raw, _kind, codec, *_rest in footer.pick(needing):
                start = offset + RECORD_HEADER_BYTES
                self._note_edge(id, codec, body[start : start + stored])
        self._write(body[PACK_HEADER_BYTES:])
        self.body_bytes += len(body) - PACK_HEADER_BYTES

    def copy_records(self, records: Iterable[tuple[bytes, Row]]) -> None:
        """Append single records of other packs as they lie, each given as the body that holds it
        and its row there.
        """
        pieces: list[bytes] = []
        slots, at = self._slots, self.body_bytes
        for body, (id, start, stored, raw_bytes, kind, codec, depth, flags, group) in records:
            end = start + RECORD_HEADER_BYTES + stored
            pieces.append(body[start:end])
            slots.append(encode_slot(id, at, stored, raw_bytes, kind, codec, depth, flags, group))
            if codec > ZSTD:
                self._note_edge(id, codec, body[start + RECORD_HEADER_BYTES : end])
            at += end - start
        self._write(b"".join(pieces))
        self.body_bytes = at

    def _note_edge(self, id: bytes, codec: int, payload: bytes) -> None:
        if codec == RECIPE:
            self._edges.append((id, EDGE_RECIPE, payload[ID_BYTES:]))
        elif codec == DELTA:
            self._edges.append((id, EDGE_BASE, payload[:ID_BYTES]))
        elif codec == DICTIONARY:
            tag = payload[:TAG_BYTES]
            if tag not in self._dictionaries:
                raise Invalid(
                    f"The copy of {id.hex()} needs a dictionary that nobody named for this pack."
                )
            self._tags.add(tag)

    def slot(self, number: int) -> Slot:
        """The slot of the record that was added as `number`-th; before `footer` only."""
        return Slot._make(SLOT.unpack(self._slots[number]))

    def footer(self, body_digest: bytes = b"") -> bytes:
        """The footer; the caller writes it behind the body or keeps it in a row."""
        slots = sorted(self._slots)
        edges: list[Edge] = []
        if self._edges:
            numbers = {slot[:ID_BYTES]: number for number, slot in enumerate(slots)}
            needs = sorted([(numbers[id], role, target) for id, role, target in self._edges])
            edges = list(map(Edge._make, needs))
        edges += [
            Edge(WHOLE_PACK, EDGE_DICTIONARY, id)
            for id in sorted(self._dictionaries[tag] for tag in self._tags)
        ]
        return encode_footer(self.header, slots, edges, self.body_bytes, body_digest)
