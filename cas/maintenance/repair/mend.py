"""Mending a store whose catalog holds: damaged packs and objects, made good from what there is.

Floor 5; implements docs/design/015. Invariant: what is readable before is readable after, in every
state that a crash leaves: new copies are durable, hashed, and installed in the transaction that
gives up the damaged ones, and a pack goes only when all that could be read of it stands elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from attrs import frozen

from cas.catalog.catalog import ArchiveRow, CatalogWriter, PackRow
from cas.errors import CasError
from cas.history.store import Store
from cas.limits import ID_BYTES, STRUCTURED_BYTES_MAX
from cas.maintenance.fsck.check import Examination
from cas.maintenance.fsck.packs import Pack, is_out_of_reach
from cas.maintenance.repair.origins import Origin
from cas.maintenance.repair.rescue import Rescued, rescue, resolve_odd
from cas.model.ids import Kind, digest_of
from cas.objects.archive import lacking, renew_homes
from cas.objects.batch import Batch
from cas.objects.children import children
from cas.objects.packs import bit_is_set, file_name, read_footer
from cas.objects.pipeline import Submitted
from cas.storage.bucket import Bucket
from cas.storage.codec import RAW, decode_payload
from cas.storage.files import OS_FILES
from cas.storage.memory import MemoryBucket
from cas.storage.pack import FOOTER_HEAD_BYTES, SLOT_BYTES, Made
from cas.storage.place import PACKS
from cas.storage.record import COMMON_GROUP


@frozen
class Mend:
    """What would be made good, and from where.

    `files` are missing pack files that an origin has; `packs` damaged ones whose records are
    read; `contents` objects that get a fresh copy, with where it comes from; `left` those that
    nobody has. `absent` are packs that are missing still; `single` segments of old entries of
    which one was the second copy.
    """

    files: tuple[tuple[PackRow, Origin], ...] = ()
    packs: tuple[Pack, ...] = ()
    contents: tuple[tuple[bytes, str], ...] = ()
    left: tuple[bytes, ...] = ()
    absent: tuple[PackRow, ...] = ()
    single: tuple[ArchiveRow, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be done."""
        return not (self.files or self.packs or self.contents or self.single)


def plan_mend(store: Store, found: Examination, origins: Sequence[Origin]) -> Mend:
    """What can be made good of what was found. Writes nothing."""
    files, absent = [], []
    for row in found.absent:
        origin = next((o for o in origins if _has_pack(store, o, row)), None)
        if origin is None:
            absent.append(row)
        else:
            files.append((row, origin))
    contents: dict[bytes, str] = {}
    left: list[bytes] = []
    waiting = [*found.damaged, *found.lost, *found.missing]
    seen: set[bytes] = set()
    back = {id for row, origin in files for id in _ids_of(origin, row)}
    while waiting:
        id = waiting.pop()
        if id in seen or id in back:
            continue
        seen.add(id)
        got = content_of(store, origins, id)
        if got is None:
            left.append(id)
            continue
        kind, content, source = got
        contents[id] = source
        if kind != Kind.BLOB and source != _HERE:
            with suppress(CasError):
                waiting += [c for c in children(kind, content) if not store.objects.has(c)]
    return Mend(
        tuple(files),
        tuple(found.refused),
        tuple(contents.items()),
        tuple(left),
        tuple(absent),
        tuple(_single(store, absent)),
    )


def _single(store: Store, absent: Sequence[PackRow]) -> Iterator[ArchiveRow]:
    """Segments of old entries that lack a second copy where `absent` are gone, and have a whole
    one. Which get it back from a damaged pack is seen when that is done.
    """
    for row in lacking(store.objects, {row.number for row in absent}):
        with suppress(CasError):
            store.objects.get(row.segment, Kind.SEGMENT)
            yield row


_HERE = "another copy"


def content_of(store: Store, origins: Sequence[Origin], id: bytes) -> tuple[int, bytes, str] | None:
    """(kind, content, whose) of an object: of a whole copy here, else of the first that has it.

    Raises `StorageFailed` where the server of the store's packs does not answer.
    """
    try:
        kind, content = store.objects.read(id)
    except CasError as error:
        if is_out_of_reach(error):
            raise
    else:
        return kind, content, _HERE
    for origin in origins:
        with suppress(CasError):
            found = origin.read(id)
            if found is not None and digest_of(*found) == id:
                return *found, origin.label
    return None


def _has_pack(store: Store, origin: Origin, row: PackRow) -> bool:
    bucket = origin.packs
    if bucket is None or row.name is None:
        return False
    try:
        header, footer = read_footer(bucket, file_name(row.name))
    except CasError:
        return False
    return header.store_id == store.objects.meta.store_id and footer.body_bytes == row.body_bytes


def _ids_of(origin: Origin, row: PackRow) -> Iterable[bytes]:
    assert origin.packs is not None
    assert row.name is not None
    return read_footer(origin.packs, file_name(row.name))[1].ids()


# -- doing it ----------------------------------------------------------------------------------


def carry_out(store: Store, found: Examination, plan: Mend, origins: Sequence[Origin]) -> int:
    """Do what was planned; how many objects have a fresh copy now. Can be run again."""
    if os.path.isdir(store.location):
        with suppress(FileExistsError):  # a file of this name says which bucket has the packs
            OS_FILES.mkdir(os.path.join(store.location, PACKS))
    for row, origin in plan.files:
        _bring_back(store, row, origin)
    count = _replace(store, found, plan, origins)
    # What was given up now, or is missing, may have been a second copy of old entries.
    renew_homes(store.objects, {row.number for row in plan.absent})
    return count


def _replace(store: Store, found: Examination, plan: Mend, origins: Sequence[Origin]) -> int:
    """Fresh copies of what is damaged or lost; how many objects have one now."""
    objects = store.objects
    state = objects.lookup.refresh()
    rescued = [(pack, _rescued(store, pack)) for pack in plan.packs]
    batch = objects.new_batch()
    try:
        staged: set[bytes] = set()
        spent: list[Pack] = []
        for pack, records in rescued:
            wanted = _existing(store, records, state.vectors.get(pack.number))
            _stage(batch, (r for r in wanted if r[0] not in staged))
            staged.update(record[0] for record in wanted)
            spent.append(pack)
        for id, _source in plan.contents:
            got = None if id in staged else content_of(store, origins, id)
            if got is not None and len(got[1]) <= STRUCTURED_BYTES_MAX:
                kind, content, _whose = got
                batch.rewrite([Submitted(id, kind, content, None, len(content))])
                staged.add(id)
        if batch.is_empty and not spent:
            batch.abandon()
            return 0
        batch.seal()
        with objects.catalog.write() as writer:
            head = writer.head()
            rows = batch.install(writer, head)
            version = rows[-1][0].number if rows else head.version
            _give_up(writer, store, found, staged, version)
            gone = [pack.number for pack in spent]
            if gone or rows:
                numbers = set(writer.pack_numbers())
                writer.remove_packs(
                    [n for n in gone if n in numbers], version + 1, head.condemn_seq + 1
                )
        batch.resolved()
    except BaseException as error:
        batch.abandon(error)
        raise
    objects.lookup.refresh()
    return len(staged)


def _stage(batch: Batch, records: Iterable[Made]) -> None:
    batch.rewrite(
        Submitted(id, kind, payload, codec, raw, depth, group)
        for id, kind, codec, payload, raw, depth, group in records
    )


def _bring_back(store: Store, row: PackRow, origin: Origin) -> None:
    """A pack file that is missing, from a folder that has it; whole or not at all."""
    bucket = store.objects.bucket
    assert origin.packs is not None
    assert row.name is not None
    name = file_name(row.name)
    size = origin.packs.size(name)
    upload = bucket.create()
    try:
        for start in range(0, size, _PIECE_BYTES):
            upload.write(origin.packs.read(name, start, min(_PIECE_BYTES, size - start)))
        upload.seal(name)
    except BaseException:
        upload.abort()
        raise
    bucket.sync()


_PIECE_BYTES = 4 << 20


def _rescued(store: Store, pack: Pack) -> Rescued:
    """The records of a damaged pack, and what its footer still leads to."""
    objects = store.objects
    if pack.file is not None:
        bucket: Bucket = objects.bucket
        name = pack.file
    else:
        body = objects.catalog.inline_body(pack.number) or b""
        memory = MemoryBucket()
        upload = memory.create()
        upload.write(body)
        upload.seal(pack.label)
        bucket, name = memory, pack.label
    found = rescue(bucket, name)
    whole = dict(found.whole)
    if pack.file is not None:
        # A slot that the index leads to is read without its footer's digest, and its record
        # without its own header. Where the footer begins the catalog says: a pack without an
        # end cannot.
        listed = objects.lookup.state.packs.get(pack.number)
        body_bytes = pack.body_bytes if listed is None else listed.body_bytes
        for id in _unproved_ids(bucket, name, body_bytes):
            if id not in whole:
                with suppress(CasError):
                    kind, content = objects.read(id)
                    if len(content) <= STRUCTURED_BYTES_MAX:
                        whole[id] = (id, kind, RAW, content, len(content), 0, COMMON_GROUP)
    return Rescued(whole, found.odd)


def _unproved_ids(bucket: Bucket, file: str, body_bytes: int) -> list[bytes]:
    """Ids that a damaged footer lists, whether they are right or not: as many slots as stand
    behind the body, however much of the footer's end is gone. The index leads to each of them.
    """
    with suppress(CasError):
        start = body_bytes + FOOTER_HEAD_BYTES
        tail = bucket.read(file, start, max(0, bucket.size(file) - start))
        whole = len(tail) - len(tail) % SLOT_BYTES
        return [tail[at : at + ID_BYTES] for at in range(0, whole, SLOT_BYTES)]
    return []


def _existing(store: Store, records: Rescued, bits: bytes | None) -> list[Made]:
    """Of what was rescued, that which exists: nothing given up comes back, and no parent whose
    child is gone.
    """
    found = dict(records.whole)
    found.update((record[0], record) for record in resolve_odd(store.objects, records.odd))
    if bits is None:
        return list(found.values())
    order = sorted(found)
    if len(bits) == (len(order) + 7) // 8:
        return [found[id] for at, id in enumerate(order) if not bit_is_set(bits, at)]
    return [record for record in found.values() if _is_whole(store, record, found)]


def _is_whole(store: Store, record: Made, beside: Mapping[bytes, Made]) -> bool:
    """Whether everything that an object names is there, here or beside it."""
    id, kind = record[:2]
    if kind == Kind.BLOB:
        return True
    with suppress(CasError):
        content = decode_payload(record[2], record[3], record[4])
        return all(c in beside or store.objects.has(c) for c in children(kind, content) if c != id)
    return False


def _give_up(
    writer: CatalogWriter, store: Store, found: Examination, staged: set[bytes], version: int
) -> None:
    """Set the bits of damaged copies of which a fresh one is installed in this transaction."""
    wanted: dict[str, set[bytes]] = {}
    for id, labels in found.damaged.items():
        if id in staged:
            for label in labels:
                wanted.setdefault(label, set()).add(id)
    lookup = store.objects.lookup
    vectors = {number: bits for number, _version, bits in writer.vectors()}
    alive = set(writer.pack_numbers())
    for pack in list(lookup.state.packs.values()):
        ids = wanted.get(pack.label)
        if not ids or pack.number not in alive:
            continue
        footer = lookup.footer(pack)
        bits = bytearray(vectors.get(pack.number) or bytes((footer.count + 7) // 8))
        for id in ids:
            at = footer.find(id)
            if at >= 0:
                bits[at >> 3] |= 1 << (at & 7)
        writer.set_vector(pack.number, version + 1, bytes(bits))
