"""What a store folder still holds of a store, whatever became of its catalog.

Floor 5; reads docs/format.md sections 6 to 8. Invariant: nothing in the folder is written. What is
gathered here is looked at through a catalog in memory that names every pack there is, so that the
reading code of the store serves the rebuild too.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from typing import Final

from attrs import field, frozen

from cas.catalog.catalog import DELTAS, Meta
from cas.catalog.remains import Remains, read_remains
from cas.catalog.sqlite import memory_catalog
from cas.clock import Clock
from cas.errors import CasError, Corrupt, CorruptPack, StorageFailed
from cas.maintenance.folder import CACHE, CATALOG, LOCKS, PACKS
from cas.maintenance.repair.admission import Source, Survey, survey
from cas.maintenance.repair.rescue import Built, Odd, build_pack, rescue, resolve_odd
from cas.objects.packs import bit_is_set, pack_name, read_footer
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket, BucketFile
from cas.storage.codec import DICTIONARY
from cas.storage.header import PACK_HEADER_BYTES, PackHeader, decode_header
from cas.storage.memory import MemoryBucket
from cas.storage.pack import Footer, Made, decode_inline
from cas.storage.place import bucket_in
from cas.storage.record import RECORD_HEADER_BYTES, RecordHeader

_BIRTH_UNKNOWN: Final = 0


@frozen
class Folder:
    """Where the parts of a store folder lie."""

    path: str

    @property
    def catalog(self) -> str:
        """The catalog file."""
        return os.path.join(self.path, CATALOG)

    @property
    def packs(self) -> str:
        """The folder of pack files."""
        return os.path.join(self.path, PACKS)

    @property
    def locks(self) -> str:
        """The folder of the gate."""
        return os.path.join(self.path, LOCKS)

    @property
    def cache(self) -> str:
        """The folder that may be deleted at any time."""
        return os.path.join(self.path, CACHE)


@frozen
class Stamp:
    """What stood in a folder when it was looked at."""

    files: tuple[tuple[str, int], ...]
    catalog: tuple[int, int, int] | None


@frozen
class PackFile:
    """A pack file whose footer holds."""

    file: str
    header: PackHeader
    footer: Footer


@frozen
class Evidence:
    """All that was gathered. `made` are packs in memory, by number in the provisional catalog:
    of damaged files, of what lies inline in the old catalog. `live` are ids of which the old
    catalog says, credibly, that they exist; None where it says nothing that can be believed.
    """

    folder: Folder
    stamp: Stamp
    meta: Meta
    remains: Remains
    packs: tuple[PackFile, ...]
    foreign: tuple[str, ...]
    damaged: tuple[str, ...]
    unreadable: tuple[str, ...]
    made: dict[int, Built]
    objects: ObjectStore
    found: Survey
    live: set[bytes] | None = field(default=None)
    dead: set[bytes] = field(factory=set)


def stamp_of(folder: Folder, bucket: Bucket) -> Stamp:
    """What a plan is compared with when it is applied."""
    catalog: tuple[int, int, int] | None = None
    total = mtime = inode = 0
    for suffix in ("", "-wal"):
        try:
            status = os.stat(folder.catalog + suffix)
        except OSError:
            continue
        if not status.st_size:
            continue  # a log that looking at the catalog has made
        inode = inode or status.st_ino
        total += status.st_size
        mtime = max(mtime, status.st_mtime_ns)
        catalog = inode, total, mtime
    return Stamp(tuple(sorted((file.name, file.size_bytes) for file in _files(bucket))), catalog)


def _files(bucket: Bucket) -> list[BucketFile]:
    try:
        return [f for f in bucket.list() if len(f.name) == 37 and _is_name(f.name)]
    except StorageFailed as error:
        # A folder that is not there has no packs. A server that does not answer may have many.
        if error.fields.get("errno") != errno.ENOENT:
            raise
        return []


def _is_name(file: str) -> bool:
    try:
        return len(pack_name(file)) == 16
    except ValueError:
        return False


def gather(
    folder: Folder, clock: Clock, progress: Callable[[str, str], None] | None = None
) -> Evidence | None:
    """Look at everything; None where no pack says what store this was.

    Raises `NewerFormat`, `StorageFailed`.
    """
    bucket = bucket_in(folder.path, clock)
    stamp = stamp_of(folder, bucket)
    remains = read_remains(folder.catalog)
    good: list[PackFile] = []
    damaged: list[str] = []
    unreadable: list[str] = []
    for name, _size in stamp.files:
        if progress is not None:
            progress("footers", name)
        try:
            good.append(PackFile(name, *read_footer(bucket, name)))
        except CorruptPack:
            damaged.append(name)
        except Corrupt:
            unreadable.append(name)
    store_id = _store_id(remains, good, bucket, damaged)
    if store_id is None:
        return None
    foreign = [pack.file for pack in good if pack.header.store_id != store_id]
    good = [pack for pack in good if pack.header.store_id == store_id]
    good.sort(key=lambda pack: (pack.header.birth_us, pack.file))
    meta = _meta(remains, store_id, good, clock)
    provisional = _Provisional(bucket, meta, clock, good, damaged, remains)
    found = survey(
        provisional.objects,
        provisional.sources(),
        None if progress is None else lambda pack: progress("packs", pack),
    )
    return Evidence(
        folder,
        stamp,
        meta,
        remains,
        tuple(good),
        tuple(foreign),
        tuple(damaged),
        tuple(unreadable),
        provisional.made,
        provisional.objects,
        found,
        *_told(remains, good),
    )


def _store_id(
    remains: Remains, good: list[PackFile], bucket: Bucket, damaged: list[str]
) -> bytes | None:
    told = remains.meta.get("store_id")
    if remains.is_store and type(told) is bytes and len(told) == 16:
        return told
    counts = Counter(pack.header.store_id for pack in good)
    for file in damaged:
        try:
            counts[decode_header(bucket.read(file, 0, PACK_HEADER_BYTES), file).store_id] += 1
        except CasError:
            continue
    return counts.most_common(1)[0][0] if counts else None


def _meta(remains: Remains, store_id: bytes, good: list[PackFile], clock: Clock) -> Meta:
    """As the old catalog says, else as packs let guess. The lineage is one of its own."""
    told = remains.meta
    created = told.get("created_us")
    births = [pack.header.birth_us for pack in good]
    created_us = created if type(created) is int else min(births, default=_BIRTH_UNKNOWN)
    features = told.get("features")
    names = tuple(features.split()) if type(features) is str else (DELTAS,)
    return Meta(store_id, clock.random(16), 1, names, created_us)


def _told(remains: Remains, good: list[PackFile]) -> tuple[set[bytes] | None, set[bytes]]:
    """Ids that the old catalog names with a clear bit, None where its tables have holes; and
    those that it names with set bits alone, where it could be looked into every pack.
    """
    if not (remains.is_store and remains.packs_whole and remains.vectors_whole):
        return None, set()
    footers = {pack_name(pack.file): pack.footer for pack in good}
    live: set[bytes] = set()
    dead: set[bytes] = set()
    whole = True
    for row in remains.packs:
        footer = footers.get(row.name) if row.name is not None else None
        if row.name is None and row.footer is not None and row.body is not None:
            try:
                footer = decode_inline(row.body, row.footer, f"inline pack {row.number}")
            except CasError:
                footer = None
        if footer is None:
            whole = False
            continue
        bits = remains.vectors.get(row.number)
        for at, id in enumerate(footer.ids()):
            (dead if bit_is_set(bits, at) else live).add(id)
    return live, dead - live if whole else set()


class _Provisional:
    """A catalog in memory that names all packs, those that were made again included."""

    def __init__(
        self,
        bucket: Bucket,
        meta: Meta,
        clock: Clock,
        good: list[PackFile],
        damaged: list[str],
        remains: Remains,
    ) -> None:
        self._header = PackHeader(meta.store_id, meta.lineage_id, bytes(16), clock.wall_us())
        self._good = good
        self.made: dict[int, Built] = {}
        catalog = memory_catalog(meta, clock.random(16).hex())
        self.objects = ObjectStore(catalog, bucket, clock)
        with catalog.write() as writer:
            for number, pack in enumerate(good, start=1):
                writer.add_pack(number, pack_name(pack.file), pack.footer.body_bytes, None, None)
        self._number = len(good)
        odd: list[Odd] = []
        for file in damaged:
            found = rescue(bucket, file)
            odd += found.odd
            self._add(list(found.whole.values()))
        self._add(_inline_records(remains, odd))
        if odd:
            self._add(resolve_odd(self.objects, odd))

    def _add(self, records: list[Made]) -> None:
        if not records:
            return
        built = build_pack(self._header, records)
        self._number += 1
        self.made[self._number] = built
        body, footer_bytes, footer = built
        with self.objects.catalog.write() as writer:
            writer.add_pack(self._number, None, footer.body_bytes, footer_bytes, body)

    def sources(self) -> list[Source]:
        """Every pack, by number."""
        state = self.objects.lookup.refresh()
        footers = {at: pack.footer for at, pack in enumerate(self._good, start=1)}
        footers.update((number, built[2]) for number, built in self.made.items())
        return [Source(info, footers[number]) for number, info in sorted(state.packs.items())]


def _inline_records(remains: Remains, odd: list[Odd]) -> list[Made]:
    """Records of what lies inline in the old catalog, each id once."""
    records: dict[bytes, Made] = {}
    for row in remains.packs:
        if row.body is None:
            continue
        label = f"inline pack {row.number}"
        try:
            footer = decode_inline(row.body, row.footer or b"", label)
        except CasError:
            bucket = MemoryBucket()
            upload = bucket.create()
            upload.write(row.body)
            upload.seal(label)
            found = rescue(bucket, label)
            odd += found.odd
            records.update(found.whole)
            continue
        for id, offset, stored, raw, kind, codec, depth, flags, group in footer.rows():
            start = offset + RECORD_HEADER_BYTES
            payload = row.body[start : start + stored]
            if codec == DICTIONARY:
                odd.append((RecordHeader(kind, codec, depth, flags, group, stored, raw), payload))
            else:
                records.setdefault(id, (id, kind, codec, payload, raw, depth, group))
    return list(records.values())
