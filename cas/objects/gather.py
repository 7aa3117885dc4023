"""What a spill gathers, and what it makes of one pack: which records count, and how they are
written again.

Floor 3; docs/format.md section 6. Invariant: what is given for a record holds the content that the
record holds; one that is damaged is given as it is, and still shows as damaged in its new place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

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
from cas.storage.pack import Footer, Slot, decode_inline
from cas.storage.record import COMMON_GROUP, TAG_BYTES

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


def is_settled(footer: Footer, beside: Dictionary | None) -> bool:
    """Whether a pack can move as it lies: no blob that a batch left as it was because it was
    young, and none beside a dictionary that is not written with any more.
    """
    if any(beside is None or id != beside.id for id in footer.dictionaries()):
        return beside is None
    return not any(
        codec == RAW and kind == Kind.BLOB and raw_bytes > DICTIONARY_CONTENT_BYTES_MIN
        for _id, _offset, _stored, raw_bytes, kind, codec, _depth, _flags, _group in footer.rows()
    )


def live(footer: Footer, bits: bytes | None, seen: set[bytes]) -> Iterator[Slot]:
    """Slots of a pack that count and that no other gathered pack had."""
    for number, slot in enumerate(footer.slots()):
        if slot.id not in seen and not bit_is_set(bits, number):
            yield slot


def wanted(
    dictionaries: Dictionaries,
    pack: PackInfo,
    tags: Mapping[bytes, bytes],
    body: bytes,
    slot: Slot,
    beside: Dictionary | None,
) -> Submitted:
    """A record as it is to be written. Young blobs are given as contents, to be compressed;
    where there is a dictionary, small ones that stand alone or beside another one too.
    `tags`: what the footer names as dictionaries.
    """
    id, _offset, stored, raw_bytes, kind, codec, depth, _flags, group = slot
    payload = body[slot.payload_offset : slot.payload_offset + stored]
    base = tags.get(payload[:TAG_BYTES]) if codec == DICTIONARY else None
    if kind == Kind.BLOB and codec == RAW:
        return Submitted(id, kind, payload, None, raw_bytes, depth, group)
    if kind == Kind.BLOB and beside is not None and raw_bytes <= DICTIONARY_CONTENT_BYTES_MAX:
        with suppress(Corrupt):
            if codec == ZSTD:
                content = decode_payload(codec, payload, raw_bytes)
                return Submitted(id, kind, content, None, raw_bytes, depth, group)
            if codec == DICTIONARY and base != beside.id:
                other = dictionaries.of(pack, payload, group)
                content = other.decode(payload, raw_bytes)
                return Submitted(id, kind, content, None, raw_bytes, depth, group)
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
    alive = set(reader.pack_numbers())
    vectors = {number: bits for number, _version, bits in reader.vectors()}
    return all(
        number in alive and vectors.get(number, bytes(len(bits))) == bits
        for number, _footer, bits in outputs
    )
