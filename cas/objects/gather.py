"""What a spill gathers, and what it makes of one pack: which records count, and how they are
written again.

Floor 3; docs/format.md section 6. Invariant: what is given for a record holds the content that the
record holds; one that is damaged is given as it is, and still shows as damaged in its new place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from cas.catalog.catalog import CatalogReader
from cas.errors import Corrupt
from cas.limits import DICTIONARY_CONTENT_BYTES_MAX
from cas.model.ids import Kind
from cas.objects.dictionaries import Dictionaries
from cas.objects.packs import PackInfo, State, bit_is_set
from cas.objects.pipeline import Submitted
from cas.objects.store import ObjectStore
from cas.objects.training import Training
from cas.storage.codec import DICTIONARY, RAW, ZSTD, decode_payload
from cas.storage.dictionary import DICTIONARY_CONTENT_BYTES_MIN, Dictionary
from cas.storage.pack import Footer, Row, decode_inline
from cas.storage.record import COMMON_GROUP, RECORD_HEADER_BYTES, TAG_BYTES
from cas.storage.slots import CODEC_AT, column

_NODE_ENCODED_FROM_BYTES: Final = 512
"""Half of a tree node are ids; the names beside them are alike, and a frame takes two thirds."""

Output = tuple[int, Footer, bytes]
"""A new pack: number, footer, and the bits it was installed with."""


class Run:
    """One spill under way: what it gathers, and how far it has come."""

    def __init__(
        self, objects: ObjectStore, state: State, seq: int, sources: list[PackInfo]
    ) -> None:
        self.name = objects.clock.random(16)
        self.steps = 0
        self.state = state
        self.seq = seq
        """The newest entry in `state`."""
        self.missed = False
        """Whether an inline pack stays where it is, and with it what only it holds."""
        self.mirrored = 0
        self.batch = objects.new_batch()
        self.gathered: list[PackInfo] = []
        self.seen: set[bytes] = set()
        self.depths: dict[bytes, int] = {}
        self.sources = {pack.number: pack for pack in sources}
        self.inline = {pack.number: pack for pack in sources if pack.file is None}
        self.files = [pack for pack in sources if pack.file is not None]
        self.after = 0
        self.staged = self.sealed = self.overtaken = False
        # What is installed, and how many of the gathered packs are removed since.
        self.outputs: list[Output] | None = None
        self.removed = 0
        self.training: Training | None = None
        self.learns = True
        # A dictionary of which the new packs have a copy that is none of a gathered one.
        self.made: Dictionary | None = None

    def use(self, dictionary: Dictionary | None) -> None:
        """Write with a dictionary, and write a copy of it."""
        if dictionary is not None and dictionary.id not in self.seen:
            self.batch.use(dictionary, COMMON_GROUP)
            self.seen.add(dictionary.id)
            self.made = dictionary


def are_low(run: Run, footer: Footer, ids: set[bytes]) -> bool:
    """Whether none of these objects has less depth in this pack than where it was taken from."""
    deep = ids & run.depths.keys()
    return all(footer.slot(footer.find(id)).depth >= run.depths[id] for id in deep)


def live(footer: Footer, bits: bytes | None, twice: set[bytes]) -> list[Row]:
    """Rows of a pack that count and that no other gathered pack had (`twice`: what one had)."""
    if bits is None and not twice:
        return list(footer.rows())
    return [
        row
        for number, row in enumerate(footer.rows())
        if row[0] not in twice and not bit_is_set(bits, number)
    ]


def moves_whole(footer: Footer, bits: bytes | None, beside: Dictionary | None) -> bool:
    """Whether every record of a pack counts and can move as it lies: told without looking at
    each, so that no may be wrong.
    """
    return (
        bits is None
        and beside is not None
        and footer.dictionaries() == [beside.id]
        and not column(footer.table, CODEC_AT).strip(bytes([DICTIONARY]))
    )


def sort_out(
    rows: Sequence[Row], body: bytes, beside: Dictionary | None
) -> tuple[list[Row], list[Row]]:
    """Rows of the records that can move as they lie, and of those that are to be written again:
    blobs and whole tree nodes that a batch left as they were because they were young, and where
    there is a dictionary small blobs that stand alone or beside another one.
    """
    stay: list[Row] = []
    again: list[Row] = []
    for row in rows:
        _id, start, _stored, raw_bytes, kind, codec, _depth, _flags, _group = row
        if kind == Kind.TREE:
            young = codec == RAW and raw_bytes >= _NODE_ENCODED_FROM_BYTES
            (again if young else stay).append(row)
        elif kind != Kind.BLOB:
            stay.append(row)
        elif codec == RAW:
            (again if raw_bytes > DICTIONARY_CONTENT_BYTES_MIN else stay).append(row)
        elif beside is None or raw_bytes > DICTIONARY_CONTENT_BYTES_MAX:
            stay.append(row)
        else:
            foreign = codec == DICTIONARY and not body.startswith(
                beside.tag, start + RECORD_HEADER_BYTES
            )
            (again if codec == ZSTD or foreign else stay).append(row)
    return stay, again


def wanted(
    dictionaries: Dictionaries,
    pack: PackInfo,
    tags: Mapping[bytes, bytes],
    body: bytes,
    row: Row,
) -> Submitted:
    """A record that is to be written again, as its content, to be compressed; one that cannot be
    decoded as it is. `tags`: what the footer names as dictionaries.
    """
    id, start, stored, raw_bytes, kind, codec, depth, _flags, group = row
    start += RECORD_HEADER_BYTES
    payload = body[start : start + stored]
    with suppress(Corrupt):
        if codec == DICTIONARY:
            content = dictionaries.of(pack, payload, group).decode(payload, raw_bytes)
        else:
            content = payload if codec == RAW else decode_payload(codec, payload, raw_bytes)
        return Submitted(id, kind, content, None, raw_bytes, depth, group)
    base = tags.get(payload[:TAG_BYTES]) if codec == DICTIONARY else None
    return Submitted(id, kind, payload, codec, raw_bytes, depth, group, base)


def still_existing(
    reader: CatalogReader, gathered: list[PackInfo], objects: ObjectStore
) -> set[bytes]:
    """Ids of which a gathered copy exists in this state of the catalog."""
    alive = set(reader.pack_numbers())
    vectors = {number: bits for number, _version, bits in reader.vectors()}
    return {
        id
        for pack in gathered
        if pack.number in alive
        for number, id in enumerate(objects.lookup.footer(pack).ids())
        if not bit_is_set(vectors.get(pack.number), number)
    }


def footer_of(pack: PackInfo, footer_bytes: bytes, body: bytes) -> Footer:
    """The footer of an inline pack as it was read back. Raises `CorruptPack`.

    One slot that is wrong would make the footer of the new pack wrong, and hide everything in
    it: so it is the one that this handle made, byte by byte, or it is checked in full.
    """
    known = pack.footer
    own = pack.own and known is not None and len(body) == known.body_bytes
    if own and known is not None and known.stands_in(footer_bytes):
        return known
    return decode_inline(body, footer_bytes, pack.label)


def stand(reader: CatalogReader, outputs: Sequence[Output]) -> bool:
    """Whether every new copy still exists: nobody has taken it for the redundant one."""
    numbers = [number for number, _footer, _bits in outputs] or [0]
    alive = set(reader.pack_numbers(min(numbers), max(numbers)))
    vectors = {number: bits for number, _version, bits in reader.vectors()}
    return all(
        number in alive and vectors.get(number, bytes(len(bits))) == bits
        for number, _footer, bits in outputs
    )
