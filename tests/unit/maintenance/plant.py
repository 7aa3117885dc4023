"""Plant damage in a store: packs put together by hand, rows changed, bytes flipped."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from cas.history.store import Store
from cas.maintenance.findings import FsckReport
from cas.maintenance.fsck.check import fsck
from cas.model.entry import Entry, entry_hash
from cas.model.ids import Kind, digest_of
from cas.storage.header import PackHeader
from cas.storage.pack import WHOLE_PACK, Edge, encode_footer, encode_slot
from cas.storage.record import encode_record_header


class Made(NamedTuple):
    """A record made by hand. `head` replaces the bytes before the payload, `gap` follows it."""

    id: bytes
    kind: int
    payload: bytes
    codec: int = 0
    raw_bytes: int | None = None
    depth: int = 0
    head: bytes | None = None
    gap: bytes = b""


def blob(content: bytes, **how: Any) -> Made:
    """A record of a blob as it stands."""
    return Made(digest_of(Kind.BLOB, content), int(Kind.BLOB), content, **how)


def install(
    store: Store,
    records: Sequence[Made],
    edges: Sequence[tuple[bytes, int, bytes]] = (),
    header: PackHeader | None = None,
    name: bytes | None = None,
) -> int:
    """Install a pack of these records, whatever they say; gives its number.

    `edges` are (id of the copy, role, id it needs); without an id it is of the whole pack. With
    a name (16 bytes) it is a file.
    """
    meta = store.objects.meta
    head = (header or PackHeader(meta.store_id, meta.lineage_id, bytes(16), 1)).encode()
    body = head
    slots = []
    for made in records:
        raw = len(made.payload) if made.raw_bytes is None else made.raw_bytes
        stored = len(made.payload)
        first = made.head or encode_record_header(made.kind, made.codec, made.depth, 1, stored, raw)
        flags = int(made.kind != Kind.BLOB)
        slots.append((made.id, len(body), stored, raw, made.kind, made.codec, made.depth, flags, 1))
        body += first + made.payload + made.gap
    slots.sort()
    numbers = {slot[0]: number for number, slot in enumerate(slots)}
    numbers[b""] = WHOLE_PACK
    needs = sorted(Edge(numbers[id], role, target) for id, role, target in edges)
    footer = encode_footer(head, [encode_slot(*slot) for slot in slots], needs, len(body))
    with store.objects.catalog.write() as writer:
        number = writer.head().version + 1
        if name is None:
            writer.add_pack(number, None, len(body), footer, body)
        else:
            Path(store.location, "packs", f"{name.hex()}.pack").write_bytes(body + footer)
            writer.add_pack(number, name, len(body), None, None)
    return number


def put(store: Store, kind: Kind, content: bytes) -> bytes:
    """Store an object whatever its content says."""
    with store.objects.batch() as batch:
        return batch.put(kind, content)


def append(store: Store, **fields: Any) -> Entry:
    """Append an entry like the newest one, but for some fields."""
    last = store.entry(store.view().seq)
    with store.objects.catalog.write() as writer:
        head = writer.head()
        entry = attrs.evolve(
            last,
            **{
                "seq": head.seq + 1,
                "previous": head.hash,
                "wall_us": last.wall_us + 1,
                "time_us": last.time_us + 1,
                "txid": head.seq.to_bytes(8, "big") + bytes(8),
                "changes": (),
                **fields,
            },
        )
        data = entry.encode()
        writer.append_entry(head.seq + 1, entry_hash(data), entry.txid, data)
    return entry


def flip(file: Path, at: int) -> None:
    """Flip the lowest bit of a byte; counted from the end when negative."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def pack_file(store: Store) -> Path:
    """The one pack file of a store, which is spilled for it."""
    store.spill()
    (file,) = Path(store.location, "packs").glob("*.pack")
    return file


def rewrite_header(file: Path, **fields: Any) -> None:
    """Other fields in a pack file's header, with a good checksum; the footer no longer fits."""
    data = bytearray(file.read_bytes())
    if "birth_us" in fields:
        data[64:72] = fields["birth_us"].to_bytes(8, "little")
    data[76:80] = zlib.crc32(data[:76]).to_bytes(4, "little")
    file.write_bytes(data)


def check(store: Store) -> FsckReport:
    """Check a store, whose reader may have been told of an earlier state."""
    return fsck(store)


def codes(report: FsckReport) -> list[str]:
    """Codes of all findings, the worst first."""
    return [finding.code for finding in report.findings]
