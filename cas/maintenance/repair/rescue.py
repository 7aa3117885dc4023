"""A pack whose header or footer is damaged: its records, found by scanning, as a pack again.

Floor 5; implements the scan of docs/format.md section 6.2. Invariant: a record comes back only with
an id that its content was hashed to; the damaged file is read and never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from attrs import frozen

from cas.errors import CasError, NotFound
from cas.limits import ID_BYTES
from cas.maintenance.scan import scan_records
from cas.model.ids import Kind, digest_of, digest_parts
from cas.objects.children import children
from cas.objects.content import read_spans
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket
from cas.storage.codec import DELTA, DICTIONARY, RECIPE, decode_payload, encode_payload
from cas.storage.delta import decode_delta
from cas.storage.header import PackHeader
from cas.storage.pack import (
    Footer,
    Made,
    decode_footer,
)
from cas.storage.packing import PackBuilder
from cas.storage.record import RECORD_HEADER_BYTES, RecordHeader

Odd = tuple[RecordHeader, bytes]
"""A record that needs others: its header and payload."""

Built = tuple[bytes, bytes, Footer]
"""A pack in memory: header and records, footer bytes, footer."""


@frozen
class Rescued:
    """Records of one damaged pack: whole ones by id, and those that need others."""

    whole: Mapping[bytes, Made]
    odd: tuple[Odd, ...]


def rescue(bucket: Bucket, file: str) -> Rescued:
    """What records a pack file holds, whatever its ends look like. Raises `MissingPack`,
    `StorageFailed`.
    """
    size = bucket.size(file)
    whole: dict[bytes, Made] = {}
    odd: list[Odd] = []
    read = bucket.read
    for offset, header in scan_records(lambda at, length: read(file, at, length), size, file):
        payload = read(file, offset + RECORD_HEADER_BYTES, header.stored_bytes)
        if header.codec in (RECIPE, DELTA, DICTIONARY):
            odd.append((header, payload))
            continue
        with suppress(CasError):
            content = decode_payload(header.codec, payload, header.raw_bytes)
            id = _id_of(header.kind, content)
            whole[id] = (id, header.kind, header.codec, payload, header.raw_bytes, 0, header.group)
    return Rescued(whole, tuple(odd))


def _id_of(kind: int, content: bytes) -> bytes:
    """The id that what a scan found would have. Raises `NotCanonical` for what is no object of its
    kind: a damaged payload hashes to something too, and no footer says that it should not.
    """
    children(kind, content, verified=False)
    return digest_of(kind, content)


def resolve_odd(objects: ObjectStore, odd: Sequence[Odd]) -> list[Made]:
    """Deltas, and what stands beside a dictionary, as whole records, and recipe copies that rebuild
    what they say; `objects` holds what they need. What cannot be had is left out.
    """
    found: dict[bytes, tuple[int, bytes]] = {}
    records: list[Made] = []
    for header, payload in sorted(odd, key=lambda item: item[0].depth):
        with suppress(CasError):
            if header.codec == RECIPE:
                records += _recipe(objects, header, payload)
                continue
            if header.codec == DICTIONARY:
                content = _beside(objects, header, payload)
                id = _id_of(header.kind, content)
                found[id] = header.kind, content
                codec, stored = encode_payload(content)
                records.append((id, header.kind, codec, stored, len(content), 0, header.group))
                continue
            base = payload[:ID_BYTES]
            _kind, below = found[base] if base in found else objects.read(base)
            content = decode_delta(memoryview(payload)[ID_BYTES:], below, header.raw_bytes)
            id = _id_of(header.kind, content)
            if id not in found:
                found[id] = header.kind, content
                codec, stored = encode_payload(content)
                records.append((id, header.kind, codec, stored, len(content), 0, header.group))
    return records


def _beside(objects: ObjectStore, header: RecordHeader, payload: bytes) -> bytes:
    """Content of a record of codec 4, from the first dictionary that gives any."""
    for dictionary in objects.dictionaries.like(payload, header.group):
        with suppress(CasError):
            return dictionary.decode(payload, header.raw_bytes)
    raise NotFound("No dictionary that begins as a record says gives its content.")


def _recipe(objects: ObjectStore, header: RecordHeader, payload: bytes) -> list[Made]:
    id, recipe = payload[:ID_BYTES], payload[ID_BYTES:]

    def part(name: bytes, kind: Kind) -> bytes:
        return objects.get(name, kind)

    found = digest_parts(part for _at, part in read_spans(recipe, header.raw_bytes, part))
    if found != id:
        raise NotFound("A recipe copy does not rebuild what it says.")
    return [(id, header.kind, RECIPE, payload, header.raw_bytes, 0, header.group)]


def build_pack(header: PackHeader, records: Iterable[Made]) -> Built:
    """A pack of these records, each id once, in memory."""
    parts: list[bytes] = []
    builder = PackBuilder(header, parts.append)
    unique = {record[0]: record for record in records}
    builder.add_many(unique.values())
    footer_bytes = builder.footer()
    footer = decode_footer(builder.header, footer_bytes, "a rescued pack")
    return b"".join(parts), footer_bytes, footer
