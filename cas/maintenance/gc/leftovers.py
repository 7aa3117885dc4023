"""What stopped writers left: session rows, pack files that nothing names, unfinished files.

Floor 5; implements docs/design/001, "Orphan scan". Invariant: the bucket is listed first and the
catalog read second, so that a file whose session has no row there can be named by nobody any
more; a session is ended only where nobody holds its number; files go inside the gate, and only
while the catalog is of the lineage that was read.

A file of a session that the catalog does not know may belong to a newer catalog, in whose place
an old one was put. It stays if it is newer than all that this one knows; and all such files stay
if one of them holds entries that are not in the journal, whatever clocks say.
"""

from __future__ import annotations

from cas.catalog.catalog import CatalogReader, SessionRow
from cas.errors import CasError
from cas.model.entry import Entry
from cas.model.ids import Kind
from cas.model.segment import Segment
from cas.model.values import frozen
from cas.objects.packs import Copy, PackInfo, file_name, read_footer
from cas.objects.store import ObjectStore
from cas.objects.unlink import SLICE_FILES
from cas.storage.bucket import UnfinishedFile
from cas.storage.header import PACK_HEADER_BYTES, PackHeader, decode_header


@frozen
class Leftovers:
    """What may be removed. `sessions` are rows of writers that died."""

    lineage: bytes
    files: tuple[tuple[str, int], ...]
    unfinished: tuple[UnfinishedFile, ...]
    sessions: tuple[SessionRow, ...]

    @property
    def count(self) -> int:
        """Files."""
        return len(self.files) + len(self.unfinished)

    @property
    def size_bytes(self) -> int:
        """Bytes of the files."""
        return sum(size for _name, size in self.files) + sum(
            file.size_bytes for file in self.unfinished
        )


def find_leftovers(objects: ObjectStore) -> Leftovers:
    """Look for leftovers; nothing is changed. Raises `StorageFailed`, `CorruptCatalog`."""
    listed = [(file.name, file.size_bytes) for file in objects.bucket.list()]
    begun = list(objects.bucket.unfinished())
    with objects.catalog.read() as reader:
        lineage = reader.lineage()
        named = {file_name(row.name) for row in reader.packs() if row.name is not None}
        named |= {file_name(row.name) for row in reader.unlinked()}
        sessions = list(reader.sessions())
        newest_us = _newest_us(objects, reader)
    objects.catalog.harden(reading=True)
    dead = [row for row in sessions if objects.catalog.is_held(row.fence) is False]
    dead_ids = {row.id for row in dead}
    living = {row.id for row in sessions} - dead_ids
    files = []
    unknown = []
    for name, size_bytes in listed:
        header = None if name in named else _header(objects, name)
        if header is None or header.store_id != objects.meta.store_id:
            continue
        if header.session_id in dead_ids:
            files.append((name, size_bytes))
        elif header.session_id not in living:
            unknown.append((name, size_bytes, header.birth_us))
    if not any(_is_ahead(objects, name) for name, _size, _birth in unknown):
        files += [(name, size) for name, size, birth_us in unknown if birth_us <= newest_us]
    owners = {id.hex() for id in living}
    unfinished = [file for file in begun if file.owner not in owners and (file.owner or not living)]
    return Leftovers(lineage, tuple(files), tuple(unfinished), tuple(dead))


def _header(objects: ObjectStore, name: str) -> PackHeader | None:
    try:
        return decode_header(objects.bucket.read(name, 0, PACK_HEADER_BYTES), name)
    except CasError:
        return None  # fsck tells of it; what cannot be read is nobody's to remove


def _is_ahead(objects: ObjectStore, name: str) -> bool:
    """Whether a pack file holds entries that are not in the journal: then this is not the catalog
    that it was written for, and nothing is known of what that one names.
    """
    try:
        _header, footer = read_footer(objects.bucket, name)
        pack = PackInfo(0, name, footer.body_bytes, None)
        for slot in footer.slots():
            if slot.kind != Kind.SEGMENT:
                continue
            _kind, content = objects.verified(Copy(pack, slot))
            segment = Segment.decode(content, verified=True)
            if not segment.entries:
                continue
            with objects.catalog.read() as reader:
                row = reader.entry(segment.last_seq)
            if row is None or row.entry != segment.entries[-1]:
                return True
    except CasError:
        return True  # what cannot be read may hold anything
    return False


def _newest_us(objects: ObjectStore, reader: CatalogReader) -> int:
    """The newest time that the catalog knows of."""
    row = reader.entry(reader.head().seq)
    newest = 0 if row is None else Entry.decode(row.entry, verified=True).wall_us
    numbers = reader.pack_numbers()
    for pack in reader.packs(numbers[-1] - 1) if numbers else ():
        if pack.name is None:
            body = reader.body(pack.number) or b""
            newest = max(newest, decode_header(body[:PACK_HEADER_BYTES], "").birth_us)
        elif (header := _header(objects, file_name(pack.name))) is not None:
            newest = max(newest, header.birth_us)
    return newest


def remove_leftovers(objects: ObjectStore, found: Leftovers) -> int:
    """End the dead sessions, then remove the files; how many went."""
    catalog, bucket = objects.catalog, objects.bucket
    if found.sessions:
        with catalog.write() as writer:
            if writer.lineage() != found.lineage:
                return 0
            for session in found.sessions:
                row = writer.session(session.id)
                if row is not None and catalog.is_held(row.fence) is False:
                    writer.drop_session(session.id)
    with catalog.read() as reader:
        living = {row.id for row in reader.sessions()}
    catalog.harden()
    names = [name for name, _size in found.files]
    count = 0
    for start in range(0, len(names), SLICE_FILES):
        with catalog.write() as writer:
            if writer.lineage() != found.lineage:
                return count
            for name in names[start : start + SLICE_FILES]:
                header = _header(objects, name)
                if header is not None and header.session_id not in living:
                    bucket.delete(name)
                    count += 1
    owners = {id.hex() for id in living}
    for file in found.unfinished:
        if file.owner not in owners:
            bucket.discard(file.name)
            count += 1
    if count:
        bucket.sync()
    return count
