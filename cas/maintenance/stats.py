"""What a store holds and what it weighs, from footers and file sizes alone.

Floor 5. Invariant: no payload is read, and two calls on the same state give the same answer.
Memory is that of `Known`: 20 bytes an object once there are many.
"""

from __future__ import annotations

import os

from attrs import frozen

from cas.catalog.catalog import MIRRORED, PackRow
from cas.errors import Corrupt
from cas.history.store import Store
from cas.maintenance.folder import CACHE, CATALOG, PACKS, files
from cas.maintenance.fsck.extent import Ledger
from cas.maintenance.fsck.known import Known, code_of, split_code
from cas.model.ids import Kind
from cas.objects.packs import bit_is_set, file_name, read_footer
from cas.objects.store import ObjectStore
from cas.storage.address import is_address
from cas.storage.codec import RECIPE
from cas.storage.pack import Footer, decode_footer
from cas.storage.place import address_in


@frozen
class FolderBytes:
    """Bytes of a store's files on this host, by what they are; 0 of what lies on a server."""

    catalog: int = 0
    packs: int = 0
    cache: int = 0
    other: int = 0


def measure(location: str) -> FolderBytes:
    """Sum the files of a store. Files that vanish meanwhile are left out."""
    sums = dict.fromkeys(("catalog", "packs", "cache", "other"), 0)
    for name, size in files(location):
        top = name.partition(os.sep)[0]
        if top.startswith(CATALOG):
            sums["catalog"] += size
        elif top in (PACKS, CACHE):
            sums[top] += size
        else:
            sums["other"] += size
    return FolderBytes(**sums)


def _places(store: Store) -> tuple[FolderBytes, str | None]:
    """What the files of a store take on this host, and where its packs lie if not in its folder."""
    objects, where = store.objects, store.objects.catalog.bucket
    if where is None:
        return measure(store.location), address_in(store.location)

    def below(folder: str | None) -> int:
        return sum(size for _name, size in files(folder)) if folder else 0

    packs = below(None if is_address(where) else where)
    return FolderBytes(packs=packs, cache=below(objects.cache)), where


@frozen
class KindStats:
    """Objects of one kind, each counted once. `content_bytes` is what they say, `stored_bytes`
    what the payloads of all their copies take; a blob in chunks counts as its chunks.
    """

    kind: Kind
    object_count: int
    content_bytes: int
    stored_bytes: int


@frozen
class StoreStats:
    """Counts and bytes of one state of a store. Times are µs since 1970 UTC, None before the
    first journal entry.

    `duplicate_*` is what further copies of objects take, which a later compaction frees.
    `chunked_*` are blobs kept as a recipe, and what they would be as one piece. `files` are bytes
    on the disk by what they are; its cache may be deleted at any time. `mirrored_seq` is the last
    entry that packs hold as well: up to there a lost catalog can be rebuilt. Since `verified_us`
    every byte of every pack file was read by a check and found good; None where one never was.
    `bucket` is the address of the packs, None where they lie in the folder.
    """

    kinds: tuple[KindStats, ...]
    inline_pack_count: int
    inline_pack_bytes: int
    file_pack_count: int
    file_pack_bytes: int
    unreadable_pack_count: int
    duplicate_count: int
    duplicate_bytes: int
    chunked_count: int
    chunked_bytes: int
    entry_count: int
    branch_count: int
    tag_count: int
    oldest_us: int | None
    newest_us: int | None
    mirrored_seq: int
    verified_us: int | None
    files: FolderBytes
    bucket: str | None = None

    @property
    def object_count(self) -> int:
        """Objects of all kinds."""
        return sum(kind.object_count for kind in self.kinds)

    @property
    def content_bytes(self) -> int:
        """Bytes of all objects as they are read."""
        return sum(kind.content_bytes for kind in self.kinds)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all payloads as they are stored."""
        return sum(kind.stored_bytes for kind in self.kinds)

    @property
    def pack_count(self) -> int:
        """Packs, inline ones included."""
        return self.inline_pack_count + self.file_pack_count


class _Count:
    def __init__(self) -> None:
        self.known = Known()
        self.copies = dict.fromkeys(Kind, 0)
        self.raw_bytes = dict.fromkeys(Kind, 0)
        self.stored_bytes = dict.fromkeys(Kind, 0)
        self.chunked: dict[bytes, int] = {}

    def add(self, footer: Footer, bits: bytes | None) -> None:
        """Count the copies that a pack has."""
        codes = []
        for number, row in enumerate(footer.rows()):
            id, _offset, stored, raw, kind, codec = row[:6]
            if bit_is_set(bits, number):
                continue
            if codec == RECIPE:
                self.chunked[id] = raw
                self.stored_bytes[Kind.RECIPE] += stored
                continue
            codes.append((id, code_of(kind, raw)))
            self.copies[Kind(kind)] += 1
            self.raw_bytes[Kind(kind)] += raw
            self.stored_bytes[Kind(kind)] += stored
        self.known.add(codes)

    def kinds(self) -> tuple[KindStats, ...]:
        """Distinct objects by kind."""
        self.known.freeze()
        counts = dict.fromkeys(Kind, 0)
        sizes = dict.fromkeys(Kind, 0)
        for code in self.known.codes():
            kind, size = split_code(code)
            counts[Kind(kind)] += 1
            sizes[Kind(kind)] += size
        return tuple(
            KindStats(kind, counts[kind], sizes[kind], self.stored_bytes[kind])
            for kind in Kind
            if counts[kind]
        )


def stats(store: Store) -> StoreStats:
    """Count what a store holds, in its newest state. Raises `CorruptCatalog`, `CorruptJournal`.

    A pack whose footer cannot be read is counted as such and left out of the rest.
    """
    objects = store.objects
    with objects.catalog.read() as reader:
        head_seq = reader.head().seq
        mirrored_seq = reader.cursor(MIRRORED) or 0
        rows = reader.packs()
        vectors = {number: bits for number, _version, bits in reader.vectors()}
    count = _Count()
    sizes = {True: [0, 0], False: [0, 0]}
    unreadable = 0
    for row in rows:
        try:
            footer, size_bytes = _footer(objects, row)
        except Corrupt:
            unreadable += 1
            continue
        tally = sizes[row.name is None]
        tally[0] += 1
        tally[1] += size_bytes
        count.add(footer, vectors.get(row.number))
    kinds = count.kinds()
    view = store.view()
    on_disk, bucket = _places(store)
    return StoreStats(
        kinds=kinds,
        inline_pack_count=sizes[True][0],
        inline_pack_bytes=sizes[True][1],
        file_pack_count=sizes[False][0],
        file_pack_bytes=sizes[False][1],
        unreadable_pack_count=unreadable,
        duplicate_count=sum(count.copies.values()) - len(count.known),
        duplicate_bytes=sum(count.raw_bytes.values()) - sum(kind.content_bytes for kind in kinds),
        chunked_count=len(count.chunked),
        chunked_bytes=sum(count.chunked.values()),
        entry_count=head_seq,
        branch_count=len(view.branches()),
        tag_count=len(view.tags()),
        oldest_us=store.entry(1).time_us if head_seq else None,
        newest_us=store.entry(head_seq).time_us if head_seq else None,
        mirrored_seq=mirrored_seq,
        verified_us=Ledger(objects.cache).oldest_us(
            file_name(row.name) for row in rows if row.name is not None
        ),
        files=on_disk,
        bucket=bucket,
    )


def _footer(objects: ObjectStore, row: PackRow) -> tuple[Footer, int]:
    """Footer of a pack, and the bytes of the whole pack."""
    if row.name is not None:
        file = file_name(row.name)
        return read_footer(objects.bucket, file)[1], objects.bucket.size(file)
    data = row.footer or b""
    footer = decode_footer(b"", data, f"inline pack {row.number}", verified=True)
    return footer, row.body_bytes + len(data)
