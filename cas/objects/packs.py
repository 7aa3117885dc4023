"""What is installed, as values: packs, copies, one state of the catalog, and what packs say.

Floor 3; implements docs/format.md section 7.1 (existence). Invariant: a state is one snapshot
of the catalog; a copy counts only while its pack is in it and its bit is clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cas.errors import CorruptObject, CorruptPack
from cas.limits import DICTIONARIES_A_PACK_MAX
from cas.storage.bucket import Bucket
from cas.storage.codec import RECIPE
from cas.storage.header import PACK_HEADER_BYTES, PackHeader, decode_header
from cas.storage.index import Run
from cas.storage.pack import (
    EDGE_BYTES,
    FOOTER_HEAD_BYTES,
    SLOT_BYTES,
    TRAILER_BYTES,
    Footer,
    Slot,
    check_footer,
    decode_footer,
    decode_footer_head,
    footer_length,
)
from cas.storage.record import COMMON_GROUP


class PackInfo(NamedTuple):
    """An installed pack. `file` is None for an inline one; `footer` is kept for that, and for a
    small file that this handle has just written.

    `own`: this handle has made it, and its footer here is the one that it wrote.
    """

    number: int
    file: str | None
    body_bytes: int
    footer: Footer | None
    own: bool = False

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.file or f"inline pack {self.number}"


class Copy(NamedTuple):
    """One stored copy of an object."""

    pack: PackInfo
    slot: Slot

    def damaged(self) -> CorruptObject:
        """The error for a copy that is not what its slot says."""
        return CorruptObject(
            f"Object {self.slot.id.hex()} in {self.pack.label} is damaged; run `cas fsck`.",
            id=self.slot.id,
            pack=self.pack.label,
        )


class State(NamedTuple):
    """One snapshot of what is installed."""

    version: int
    removal_version: int
    condemn_seq: int
    packs: Mapping[int, PackInfo]
    vectors: Mapping[int, bytes]


class Stamp(NamedTuple):
    """What a look-up was made from."""

    version: int
    removal_version: int
    runs: Sequence[Run] | None


def may_have_deltas(slot: Slot) -> bool:
    """Whether a copy may be the base of deltas of the common group, as far as its slot says."""
    return slot.codec != RECIPE and slot.group == COMMON_GROUP


def file_name(name: bytes) -> str:
    """File of a pack in the bucket."""
    return name.hex() + ".pack"


def pack_name(file: str) -> bytes:
    """Name of the pack in a file."""
    return bytes.fromhex(file.removesuffix(".pack"))


def bit_is_set(bits: bytes | bytearray | None, slot: int) -> bool:
    """Whether a deletion vector says that a slot does not exist; None has no bit set.

    A damaged vector may be too short, and a damaged index may ask for a slot that is none.
    """
    if bits is None or slot >> 3 >= len(bits):
        return False
    return bool(bits[slot >> 3] >> (slot & 7) & 1)


_NUMBERS: Final = bytes(int(digit == 0x31) for digit in range(256))


def flags_of(bits: bytes | bytearray | None, count: int) -> bytes:
    """`bit_is_set` of the first `count` slots, one byte each."""
    if bits is None or not count:
        return bytes(count)
    number = int.from_bytes(bits, "little") | 1 << 8 * len(bits) + count
    return format(number, "b")[: -count - 1 : -1].encode("ascii").translate(_NUMBERS)


def live_slots(bits: bytes | None, order: Iterable[int], count: int) -> list[int]:
    """Those numbers of slots, of `count` in all, whose bits are clear."""
    if bits is None:
        return list(order)
    gone = flags_of(bits, count)
    return [number for number in order if not gone[number]]


def read_dictionaries(bucket: Bucket, pack: PackInfo) -> list[bytes]:
    """What a pack file's footer names as dictionaries, without the footer's digest: two short
    reads. Whoever uses one proves it by its id. Raises `CorruptPack`, `MissingPack`.
    """
    file = pack.file
    assert file is not None
    start = pack.body_bytes
    count, edge_count = decode_footer_head(bucket.read(file, start, FOOTER_HEAD_BYTES), file)
    few = min(edge_count, DICTIONARIES_A_PACK_MAX)
    start += FOOTER_HEAD_BYTES + count * SLOT_BYTES + (edge_count - few) * EDGE_BYTES
    edges = bucket.read(file, start, few * EDGE_BYTES) if few else b""
    return Footer(0, few, 0, b"", edges).dictionaries()


def read_footer(bucket: Bucket, file: str) -> tuple[PackHeader, Footer]:
    """Header and checked footer of a pack file. Raises `CorruptPack`, `MissingPack`."""
    size = bucket.size(file)
    if size < PACK_HEADER_BYTES + FOOTER_HEAD_BYTES + TRAILER_BYTES:
        raise CorruptPack(f"The pack {file} is cut short; run `cas fsck`.", pack=file, offset=size)
    head = bucket.read(file, 0, PACK_HEADER_BYTES)
    header = decode_header(head, file)
    length = footer_length(bucket.read(file, size - TRAILER_BYTES, TRAILER_BYTES), file)
    if length > size - PACK_HEADER_BYTES:
        raise CorruptPack(f"The footer of {file} is damaged.", pack=file, offset=-1)
    footer = decode_footer(head, bucket.read(file, size - length, length), file)
    if footer.body_bytes != size - length:
        raise CorruptPack(f"The footer of {file} is not its own.", pack=file, offset=-1)
    check_footer(footer, file)
    return header, footer


def read_own_footer(bucket: Bucket, pack: PackInfo, store_id: bytes) -> Footer:
    """The checked footer of an installed pack file. Raises `CorruptPack`, also where another file
    lies under its name, and `MissingPack`.
    """
    file = pack.file
    assert file is not None
    header, footer = read_footer(bucket, file)
    if header.store_id != store_id or footer.body_bytes != pack.body_bytes:
        raise exchanged(file)
    return footer


def exchanged(file: str) -> CorruptPack:
    """The error for a pack under whose name another one lies."""
    return CorruptPack(
        f"{file} is another pack than the one of this name; run `cas fsck`.", pack=file, offset=-1
    )
