"""Packs in the making: a batch that is packed column by column is packed as record by record."""

from __future__ import annotations

import random

import pytest

from cas.model.ids import Kind, blob_ids, digest_blob
from cas.storage import packing as module
from cas.storage.codec import DELTA, RAW, RECIPE, ZSTD
from cas.storage.header import PackHeader
from cas.storage.pack import Record, decode_inline
from cas.storage.packing import PackBuilder, build_inline
from cas.storage.record import COMMON_GROUP, encode_record_header, encode_record_headers

HEADER = PackHeader(b"s" * 16, b"l" * 16, bytes(16), 5)


def _records(rng: random.Random, count: int) -> tuple[list[Record], dict[bytes, int]]:
    records: list[Record] = []
    depths: dict[bytes, int] = {}
    for _ in range(count):
        id, raw = rng.randbytes(32), rng.randrange(1, 900)
        codec = rng.choice((RAW, RAW, ZSTD, DELTA, RECIPE))
        kind = int(Kind.BLOB) if codec == RECIPE else rng.choice((1, 2, 2, 6))
        stored = {RAW: raw, RECIPE: 64}.get(codec, rng.randrange(33, 90))
        if codec == DELTA:
            depths[id] = rng.randrange(1, 4)
        records.append((id, kind, codec, rng.randbytes(stored), raw))
    return records, depths


@pytest.mark.parametrize("count", [1, 31, 32, 500])
def test_both_ways_make_the_same_pack(
    count: int, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Body, footer and edges are the same bytes, whichever way a pack is made; it is read back."""
    records, depths = _records(rng, count)
    dictionary = rng.choice((None, rng.randbytes(32)))
    monkeypatch.setattr(module, "_MANY", 1)
    many = build_inline(HEADER.encode(), records, dictionary, depths)
    monkeypatch.setattr(module, "_MANY", 10_000)
    each = build_inline(HEADER.encode(), records, dictionary, depths)
    assert many[:2] == each[:2]
    footer = decode_inline(many[0], many[1], "here")
    assert footer.stands_in(each[1])
    assert {slot.id: slot.depth for slot in footer.slots()} == {
        record[0]: depths.get(record[0], 0) for record in records
    }


def test_a_file_holds_what_a_row_would(rng: random.Random) -> None:
    """Records that come in several calls lie as in a pack that is made at once."""
    records, depths = _records(rng, 300)
    body, footer_bytes, _footer = build_inline(HEADER.encode(), records, None, depths)
    parts: list[bytes] = []
    builder = PackBuilder(HEADER, parts.append)
    made = [(*record, depths.get(record[0], 0), COMMON_GROUP) for record in records]
    for start, stop in ((0, 1), (1, 1), (1, 40), (40, 299), (299, 300)):
        builder.add_many(iter(made[start:stop]))
    assert b"".join(parts) == body
    assert builder.footer() == footer_bytes
    assert builder.body_bytes == len(body)


def test_headers_of_many_are_those_of_each(rng: random.Random) -> None:
    """What stands in front of a record does not depend on how many were made with it."""
    rows = [
        (rng.choice((1, 2, 6)), rng.randrange(5), rng.randrange(5), rng.randrange(1 << 20), 7 * at)
        for at in range(50)
    ]
    kinds, codecs, depths, stored, raw = zip(*rows, strict=True)
    groups = [rng.randrange(3) for _ in rows]
    found = list(encode_record_headers(kinds, codecs, depths, groups, stored, raw))
    assert found == [
        encode_record_header(k, c, d, group, s, r)
        for group, (k, c, d, s, r) in zip(groups, rows, strict=True)
    ]


def test_ids_of_many_are_ids(rng: random.Random) -> None:
    """Digests become ids of blobs that print as `b3sum` does."""
    (id,) = blob_ids([digest_blob(b"hello")])
    assert str(id) == digest_blob(b"hello").hex()
    assert type(id).__name__ == "BlobId"
