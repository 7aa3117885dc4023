"""Pack files into another bucket: whole, and only what was verified on the way.

Floor 5. Invariant: a file that is sealed in the other bucket has the bytes that its writer wrote,
or each of its records that exists was decoded and hashed, or its damaged objects were told of.

The digest of the body that a footer states is compared while the bytes pass, at the speed of BLAKE3
and without decoding. A pack that states none (its records were moved as they lay), or another one,
is read record by record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from attrs import frozen

from cas.catalog.catalog import PackRow
from cas.errors import CasError, Corrupt, MissingPack
from cas.history.upkeep import Damage as Damage
from cas.limits import ID_BYTES, MIB
from cas.maintenance.fsck.groups import Group, Piece, beside_of, parts
from cas.maintenance.fsck.packs import Pack, PackBytes, is_out_of_reach
from cas.model.ids import body_hasher, digest_blob, digest_of
from cas.objects.packs import Copy, PackInfo, bit_is_set, file_name, read_footer
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket
from cas.storage.codec import RAW, RECIPE, ZSTD, decode_payload
from cas.storage.pack import Footer, Row, Slot, decode_inline
from cas.storage.record import RECIPE_PAYLOAD_BYTES

_PART_BYTES: Final = 1 * MIB
_WORKERS: Final = 4
"""Files under way at once: some are hashed while others wait for the disk."""


@frozen
class Carried:
    """A pack file that was looked at: its check, its damage if there is any, and how many bytes
    the other bucket has of it now.
    """

    row: PackRow
    check: bytes
    stored_bytes: int
    damage: Damage | None


def carry_packs(
    objects: ObjectStore,
    rows: Iterable[tuple[PackRow, bytes | None]],
    target: Bucket,
    *,
    accept_damage: bool,
    accept_missing: bool = False,
) -> Iterator[Carried]:
    """Carry pack files, (row, deletion vector) each; answers come in the order of the rows.

    The names in the target bucket are not synced yet. What is damaged is carried only where the
    caller accepts that. One that is there already goes when the whole pack is at hand.
    Raises `MissingPack` when a file is not there, unless that is accepted as damage of it, and
    what the buckets do.
    """
    there = {file.name for file in target.list()}
    with ThreadPoolExecutor(_WORKERS) as pool:
        futures = [
            (row, pool.submit(_carry, objects, row, bits, target, accept_damage, there))
            for row, bits in rows
        ]
        try:
            for row, future in futures:
                try:
                    carried = future.result()
                except MissingPack as error:
                    if not accept_missing:
                        raise
                    carried = Carried(row, b"", 0, Damage(str(error.pack), (), "it is missing"))
                yield carried
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _carry(
    objects: ObjectStore,
    row: PackRow,
    bits: bytes | None,
    target: Bucket,
    accept_damage: bool,
    there: Collection[str],
) -> Carried:
    assert row.name is not None
    file = file_name(row.name)
    upload = target.create()
    try:
        looked = look_through(objects.bucket, file, upload.write)
        damage = looked.damage
        footer = looked.footer
        if footer is not None and footer.body_digest != looked.body_digest:
            pack = PackInfo(row.number, file, footer.body_bytes, None)
            ids = tuple(damaged_in(objects, pack, footer, bits))
            if ids:
                damage = Damage(file, ids, "objects do not give their content")
        stored_bytes = 0
        if damage is None or (accept_damage and file not in there):
            if file in there:
                target.delete(file)
            upload.seal(file)
            stored_bytes = looked.size_bytes
    finally:
        upload.abort()
    return Carried(row, looked.check, stored_bytes, damage)


@frozen
class Looked:
    """What reading a pack file once has shown. `check` covers every byte of it: it is the BLAKE3
    of the digest of the body and, behind it, the footer; of the digest of all where the footer
    cannot be read.
    """

    footer: Footer | None
    size_bytes: int
    body_digest: bytes
    check: bytes
    damage: Damage | None


def look_through(bucket: Bucket, file: str, take: Callable[[bytes], object]) -> Looked:
    """Read a pack file from front to back; `take` is given its bytes in parts.

    Raises `MissingPack`, and what reading and `take` raise.
    """
    size = bucket.size(file)
    footer: Footer | None = None
    damage: Damage | None = None
    try:
        _header, footer = read_footer(bucket, file)
    except MissingPack:
        raise
    except Corrupt as error:
        damage = Damage(file, (), str(error))
    body_bytes = size if footer is None else footer.body_bytes
    hasher = body_hasher()
    behind: list[bytes] = []
    for start in range(0, size, _PART_BYTES):
        part = bucket.read(file, start, min(_PART_BYTES, size - start))
        take(part)
        left = body_bytes - start
        if left >= len(part):
            hasher.update(part)
        else:
            hasher.update(part[: max(left, 0)])
            behind.append(part[max(left, 0) :])
    digest = hasher.digest()
    return Looked(footer, size, digest, digest_blob(b"".join((digest, *behind))), damage)


def check_file(bucket: Bucket, file: str) -> bytes:
    """`Looked.check` of a pack file. Raises `MissingPack`, and what reading raises."""
    return look_through(bucket, file, len).check


def damaged_in(
    objects: ObjectStore, pack: PackInfo, footer: Footer, bits: bytes | None
) -> Iterator[bytes]:
    """Ids of the copies in a pack file that exist and do not give their content.

    Raises `MissingPack` when the file is gone.
    """
    source, place = PackBytes(objects), Pack(pack.number, pack.file, pack.label, footer.body_bytes)
    beside = beside_of(objects, PackInfo(pack.number, pack.file, footer.body_bytes, footer))
    gone = {id for number, id in enumerate(footer.ids()) if bit_is_set(bits, number)}
    for rows in parts(footer):
        piece = Piece(place, [row for row in rows if row[0] not in gone], {}, gone, beside)
        group = Group()
        group.take(piece, source)
        group.decode()
        found = zip(piece.rows, piece.contents, strict=True)
        odd = [row for row, content in found if not _hashes(row, content)]
        for row in (*odd, *(row for row, _payload in (*piece.copies, *piece.deltas))):
            # What could not be had with the others is tried alone, and so is what needs others.
            if not _is_whole(objects, Copy(pack, Slot._make(row))):
                yield row[0]


def _hashes(row: Row, content: bytes | None) -> bool:
    return content is not None and digest_of(row[4], content) == row[0]


def _is_whole(objects: ObjectStore, copy: Copy) -> bool:
    """Whether one copy gives its content: what could not be had with others is tried alone."""
    for again in (False, True):
        try:
            objects.verified(copy)
        except MissingPack:
            raise
        except CasError as error:
            if is_out_of_reach(error):
                raise
            if again:
                return False
            # Its base may have moved meanwhile.
            objects.lookup.refresh()
        else:
            break
    return True


def damaged_inline(
    objects: ObjectStore, number: int, body: bytes, footer_bytes: bytes, bits: bytes | None
) -> Damage | None:
    """What is wrong with an inline pack."""
    label = f"inline pack {number}"
    try:
        footer = decode_inline(body, footer_bytes, label)
    except Corrupt as error:
        return Damage(label, (), str(error))
    pack = PackInfo(number, None, len(body), footer)
    ids = tuple(
        slot.id
        for at, slot in enumerate(footer.slots())
        if not bit_is_set(bits, at) and not _gives(objects, Copy(pack, slot), body)
    )
    return Damage(label, ids, "objects do not give their content") if ids else None


def _gives(objects: ObjectStore, copy: Copy, body: bytes) -> bool:
    slot = copy.slot
    payload = body[slot.payload_offset : slot.payload_offset + slot.stored_bytes]
    if slot.codec == RECIPE:
        return len(payload) == RECIPE_PAYLOAD_BYTES and payload[:ID_BYTES] == slot.id
    if slot.codec not in (RAW, ZSTD):
        # It needs others to be decoded; the store knows how.
        return _is_whole(objects, copy)
    try:
        content = decode_payload(slot.codec, payload, slot.raw_bytes)
    except Corrupt:
        return False
    return digest_of(slot.kind, content) == slot.id
