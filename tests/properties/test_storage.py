"""Payloads, records, packs, footers, index runs: what was written, or a typed error."""

from __future__ import annotations

import os
import tracemalloc
from bisect import bisect_left, bisect_right
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import Corrupt, CorruptObject, CorruptPack, LimitExceeded
from cas.limits import DELTA_BYTES_MAX, ID_BYTES, STRUCTURED_BYTES_MAX, ZSTD_WINDOW_LOG_MAX
from cas.model.ids import Kind
from cas.objects.packs import bit_is_set, flags_of, live_slots
from cas.storage import pack as pack_room
from cas.storage.codec import (
    DELTA,
    DICTIONARY,
    RAW,
    RECIPE,
    ZSTD,
    decode_frames,
    decode_payload,
    encode_payload,
    encode_payloads,
)
from cas.storage.header import PACK_HEADER_BYTES, Letterhead, PackHeader, decode_header
from cas.storage.index import (
    Run,
    keys_of,
    load_run,
    load_runs,
    place_bits,
    save_run,
)
from cas.storage.merging import MERGE_RATIO, Merge, due_merge, merge_runs
from cas.storage.pack import (
    FOOTER_HEAD_BYTES,
    TRAILER_BYTES,
    Footer,
    Record,
    check_footer,
    decode_inline,
    encode_footer,
    encode_slot,
    footer_length,
)
from cas.storage.packing import PackBuilder, build_inline
from cas.storage.record import (
    RECORD_HEADER_BYTES,
    RecordHeader,
    decode_record_header,
    encode_record_header,
)
from cas.storage.slots import CODEC_AT, KIND_AT, column, offsets_of, picked, placed, shifted

CONTENTS = st.binary(max_size=300) | st.builds(
    lambda unit, count: unit * count, st.binary(min_size=1, max_size=9), st.integers(0, 5000)
)

# -- payloads --------------------------------------------------------------------------------


@given(st.lists(CONTENTS, max_size=12))
def test_payloads_decode_to_the_content(contents: list[bytes]) -> None:
    """Alone or in groups, a payload gives its content back and is never longer."""
    grouped = encode_payloads(contents)
    alone = [encode_payload(content) for content in contents]
    for content, *ways in zip(contents, grouped, alone, strict=True):
        for codec, payload in ways:
            assert codec in (RAW, ZSTD)
            assert len(payload) <= len(content)
            assert decode_payload(codec, payload, len(content)) == content
            if codec == ZSTD:
                assert zstandard.frame_content_size(payload) == -1


@given(CONTENTS, st.integers(-5, 400))
def test_another_length_is_refused(content: bytes, change: int) -> None:
    """A record that states another length than its payload has gives an error, never bytes."""
    codec, payload = encode_payload(content)
    stated = len(content) + change
    if change == 0 or stated < 0:
        return
    with pytest.raises(CorruptObject):
        decode_payload(codec, payload, stated)


@given(st.binary(max_size=200), st.integers(0, 1000), st.integers(0, 6))
def test_any_bytes_as_payload(payload: bytes, raw_bytes: int, codec: int) -> None:
    """Bytes from anywhere decode to content of the stated length or to a typed error."""
    try:
        content = decode_payload(codec, payload, raw_bytes)
    except CorruptObject:
        return
    assert len(content) == raw_bytes


@given(st.binary(min_size=100, max_size=3000), st.data())
def test_damaged_frames(noise: bytes, draw: st.DataObject) -> None:
    """A frame with a byte changed or cut off never gives more than the stated bytes."""
    content = noise[:100] * 30
    codec, payload = encode_payload(content)
    assert codec == ZSTD
    damaged = bytearray(payload)
    damaged[draw.draw(st.integers(0, len(payload) - 1))] ^= draw.draw(st.integers(1, 255))
    for bad in (bytes(damaged), payload[: draw.draw(st.integers(0, len(payload) - 1))]):
        try:
            assert len(decode_payload(ZSTD, bad, len(content))) == len(content)
        except CorruptObject:
            continue


def _frame(content: bytes, **how: object) -> bytes:
    return zstandard.ZstdCompressor(**how).compress(content)  # type: ignore[arg-type]


WIDE = zstandard.ZstdCompressionParameters(window_log=ZSTD_WINDOW_LOG_MAX + 1, compression_level=3)


@pytest.mark.parametrize(
    ("frame", "raw_bytes"),
    [
        (_frame(bytes(1000), write_content_size=True), 999),
        (_frame(bytes(1000), write_content_size=True), 1 << 24),
        (_frame(bytes(1 << 24), write_content_size=False), 100),
        (_frame(bytes(1000), write_content_size=False) + b"more", 1000),
        (_frame(bytes(10), write_content_size=False) * 2, 20),
        (_frame(b"", write_content_size=False), 0),
        (b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip", 4),
        (b"", 0),
        (b"", 5),
    ],
    ids=["declares", "more", "bomb", "extra", "two", "empty", "skippable", "none", "nothing"],
)
def test_frames_that_lie(frame: bytes, raw_bytes: int) -> None:
    """A frame that declares another size, has a second one behind it, or is none, is refused."""
    with pytest.raises(CorruptObject):
        decode_payload(ZSTD, frame, raw_bytes)


def test_a_bomb_costs_no_memory() -> None:
    """16 MiB in a few hundred bytes cost what the record states and no more."""
    frame = _frame(bytes(STRUCTURED_BYTES_MAX), write_content_size=False)
    assert len(frame) < 4096
    tracemalloc.start()
    try:
        with pytest.raises(CorruptObject):
            decode_payload(ZSTD, frame, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_window_beyond_the_limit_is_refused() -> None:
    """A frame that asks for more than 128 MiB of window is not decoded."""
    chunks = zstandard.ZstdCompressor(compression_params=WIDE).compressobj()
    frame = chunks.compress(os.urandom(1000)) + chunks.flush()
    with pytest.raises(CorruptObject):
        decode_payload(ZSTD, frame, 1000)


@given(st.lists(CONTENTS.filter(lambda content: len(content) > 200), max_size=6), st.data())
def test_many_frames_at_once_are_each_alone(contents: list[bytes], draw: st.DataObject) -> None:
    """Decoding in bulk gives what decoding one by one gives, or leaves it to that."""
    pairs = [(encode_payload(content), content) for content in contents]
    frames = [payload for (codec, payload), _content in pairs if codec == ZSTD]
    sizes = [len(content) for (codec, _payload), content in pairs if codec == ZSTD]
    if frames and draw.draw(st.booleans()):
        at = draw.draw(st.integers(0, len(frames) - 1))
        bad = bytearray(frames[at])
        bad[draw.draw(st.integers(0, len(bad) - 1))] ^= draw.draw(st.integers(1, 255))
        frames[at] = bytes(bad)
    found = decode_frames(frames, sizes) if frames else None
    if found is None:
        return
    for frame, size, content in zip(frames, sizes, found, strict=True):
        try:
            assert decode_payload(ZSTD, frame, size) == bytes(content)
        except CorruptObject:
            assert len(bytes(content)) != size


# -- records and packs -----------------------------------------------------------------------


@given(
    st.integers(1, 7),
    st.sampled_from([RAW, ZSTD]),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, STRUCTURED_BYTES_MAX),
)
def test_record_headers_round_trip(kind: int, codec: int, group: int, size: int) -> None:
    """Every legal header comes back; every flipped bit and every cut is refused."""
    data = encode_record_header(kind, codec, 0, group, size, size)
    expected = RecordHeader(kind, codec, 0, int(kind != 1), group, size, size)
    assert decode_record_header(b"??" + data, 2, "p") == expected
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(CorruptPack):
            decode_record_header(bytes(damaged), 0, "p")
    for end in range(len(data)):
        with pytest.raises(CorruptPack):
            decode_record_header(data[:end], 0, "p")


@st.composite
def packs(draw: st.DrawFn) -> tuple[PackHeader, list[Record]]:
    """A header and records of any kind and codec with ids of their own."""
    records: list[Record] = []
    for id in draw(st.sets(st.binary(min_size=32, max_size=32), max_size=6)):
        codec = draw(st.sampled_from([RAW, ZSTD, RECIPE]))
        if codec == RECIPE:
            payload = id + draw(st.binary(min_size=32, max_size=32))
            records.append((id, 1, RECIPE, payload, draw(st.integers(0, 1 << 40))))
            continue
        payload = draw(st.binary(max_size=60))
        raw = len(payload) if codec == RAW else draw(st.integers(0, STRUCTURED_BYTES_MAX))
        records.append((id, draw(st.integers(1, 7)), codec, payload, raw))
    ids = st.binary(min_size=16, max_size=16)
    header = PackHeader(draw(ids), draw(ids), draw(ids), draw(st.integers(0, (1 << 64) - 1)))
    return header, records


@given(packs())
def test_packs_round_trip(made: tuple[PackHeader, list[Record]]) -> None:
    """A footer finds each record where it lies, and says of it what its own header says."""
    header, records = made
    body, footer_bytes, footer = build_inline(header.encode(), records)
    assert decode_header(body, "p") == header
    again = decode_inline(body, footer_bytes, "p")
    for found in (footer, again):
        assert found.ids() == sorted(record[0] for record in records)
        for id, kind, codec, payload, raw in records:
            slot = found.slot(found.find(id))
            assert (slot.id, slot.kind, slot.codec, slot.raw_bytes) == (id, kind, codec, raw)
            assert body[slot.payload_offset :][: slot.stored_bytes] == payload
            assert decode_record_header(body, slot.offset, "p") == slot.header
        recipes = {id: payload[32:] for id, _k, codec, payload, _r in records if codec == RECIPE}
        assert {found.id_at(e.slot): e.id for e in found.edges()} == recipes
        assert found.find(b"\0" * 31 + b"\1") == -1
    assert (
        len(footer_bytes)
        == FOOTER_HEAD_BYTES + 56 * len(records) + 40 * len(recipes) + TRAILER_BYTES
    )


@given(st.lists(packs(), min_size=1, max_size=5))
def test_packs_copied_together_say_what_each_said(
    made: list[tuple[PackHeader, list[Record]]],
) -> None:
    """A pack of whole packs, one behind the other, is what writing all records makes."""
    seen: set[bytes] = set()
    every: list[Record] = []
    parts: list[bytes] = []
    builder = PackBuilder(made[0][0], parts.append)
    for header, records in made:
        fresh = [record for record in records if record[0] not in seen]
        seen.update(record[0] for record in fresh)
        every += fresh
        body, _footer_bytes, footer = build_inline(header.encode(), fresh)
        builder.copy(body, footer)
    assert {builder.slot(number).id for number in range(len(builder))} == seen
    copied = builder.footer()
    _body, _footer_bytes, footer = build_inline(made[0][0].encode(), every)
    again = decode_inline(b"".join(parts), copied, "p")
    assert again.ids() == footer.ids()
    assert again.edges() == footer.edges()
    for slot in again.slots():
        record = next(record for record in every if record[0] == slot.id)
        assert (slot.kind, slot.codec, slot.raw_bytes) == (record[1], record[2], record[4])
        assert b"".join(parts)[slot.payload_offset :][: slot.stored_bytes] == record[3]
        assert decode_record_header(b"".join(parts), slot.offset, "p") == slot.header


def test_offsets_that_no_longer_fit_are_refused() -> None:
    """Slots are never shifted past what four bytes hold."""
    header = PackHeader(bytes(16), bytes(16), bytes(16), 1)
    _body, _footer_bytes, footer = build_inline(header.encode(), [(bytes(32), 1, RAW, b"x", 1)])
    assert shifted(b"", 5) == []
    (moved,) = shifted(footer.table, 1 << 31)
    assert moved == footer.table[:32] + (80 + (1 << 31)).to_bytes(4, "little") + footer.table[36:]
    with pytest.raises(LimitExceeded):
        shifted(footer.table, (1 << 32) - 80)


@given(packs(), st.binary(min_size=32, max_size=32))
def test_a_digest_of_the_body_is_stated_or_not(
    made: tuple[PackHeader, list[Record]], digest: bytes
) -> None:
    """A footer with a digest of its body gives it back, one without gives none; any other
    length is refused, and so is every bit of it that turns.
    """
    header, records = made
    body, footer_bytes, footer = build_inline(header.encode(), records)
    assert decode_inline(body, footer_bytes, "p").body_digest == b""
    slots = [encode_slot(*slot) for slot in footer.slots()]
    stated = encode_footer(header.encode(), slots, footer.edges(), len(body), digest)
    assert decode_inline(body, stated, "p").body_digest == digest
    assert footer_length(stated[-TRAILER_BYTES:], "p") == len(stated) == len(footer_bytes) + 32
    at = len(stated) - TRAILER_BYTES - 1
    with pytest.raises(CorruptPack):
        decode_inline(body, stated[:at] + bytes([stated[at] ^ 1]) + stated[at + 1 :], "p")
    short = encode_footer(header.encode(), slots, footer.edges(), len(body), digest[:-1])
    with pytest.raises(CorruptPack):
        decode_inline(body, short, "p")


@given(packs())
def test_every_flip_and_cut_of_a_footer_is_refused(made: tuple[PackHeader, list[Record]]) -> None:
    """One bit changed anywhere in a footer or a header, or bytes cut off, never passes."""
    header, records = made
    body, footer_bytes, _footer = build_inline(header.encode(), records[:2])
    for at in range(len(footer_bytes)):
        damaged = bytearray(footer_bytes)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(CorruptPack):
            decode_inline(body, bytes(damaged), "p")
        with pytest.raises(CorruptPack):
            decode_inline(body, footer_bytes[:at], "p")
    for at in range(PACK_HEADER_BYTES):
        damaged = bytearray(body)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(CorruptPack):
            decode_inline(bytes(damaged), footer_bytes, "p")
    for end in range(len(body)):
        with pytest.raises(CorruptPack):
            decode_inline(body[:end], footer_bytes, "p")


SLOTS = st.tuples(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 400) | st.integers(0, (1 << 32) - 1),
    st.integers(0, 60) | st.just(STRUCTURED_BYTES_MAX + 1),
    st.integers(0, 60) | st.sampled_from([STRUCTURED_BYTES_MAX + 1, 1 << 32, (1 << 32) + 5]),
    st.integers(0, 9),
    st.integers(0, 5),
    st.integers(0, 1),
    st.integers(0, 2),
    st.integers(0, 2),
)
PLAIN = st.builds(
    lambda id, at, size, more, kind, codec, group: (
        id,
        PACK_HEADER_BYTES + at,
        size,
        size + more * (codec > RAW),
        kind,
        codec,
        0,
        int(kind != 1),
        group,
    ),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 300),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(1, 7),
    st.sampled_from((RAW, ZSTD, DICTIONARY)),
    st.integers(0, 1),
)

DELTAS = st.builds(
    lambda id, at, size, raw, kind, depth, group: (
        id,
        PACK_HEADER_BYTES + at,
        ID_BYTES + 1 + size,
        raw,
        kind,
        DELTA,
        depth,
        int(kind != 1),
        group,
    ),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 300),
    st.integers(-1, 60),
    st.integers(1, 60) | st.sampled_from([0, DELTA_BYTES_MAX + 1, 1 << 32]),
    st.sampled_from([1, 1, 2, 6, 3]),
    st.integers(1, 4) | st.sampled_from([0, 5]),
    st.integers(1, 2) | st.just(0),
)


@given(st.lists(PLAIN | DELTAS, max_size=8), st.lists(SLOTS, max_size=1), st.integers(80, 900))
def test_slots_are_judged_together_as_each_alone(
    plain: list[tuple[object, ...]], odd: list[tuple[object, ...]], body_bytes: int
) -> None:
    """The look at a whole table lets nothing pass that the look at each slot refuses."""
    table = b"".join([encode_slot(*slot) for slot in [*plain, *odd]])
    footer = Footer(len(plain) + len(odd), 0, body_bytes, table, b"")

    def faults() -> str:
        try:
            check_footer(footer, "a pack")
        except CorruptPack as error:
            return error.message
        return ""

    together = faults()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_room, "_are_usual", lambda *_words: False)
        assert together == faults()


@given(st.lists(PLAIN, min_size=1, max_size=8), st.data())
def test_slots_that_move_say_what_they_said(
    plain: list[tuple[object, ...]], data: st.DataObject
) -> None:
    """Slots that are picked and placed anew differ in their offsets alone."""
    table = b"".join([encode_slot(*slot) for slot in plain])
    numbers = data.draw(st.lists(st.sampled_from(range(len(plain))), unique=True))
    offsets = data.draw(
        st.lists(st.integers(0, (1 << 32) - 1), min_size=len(numbers), max_size=len(numbers))
    )
    moved = placed(picked(table, numbers), offsets)
    assert moved == b"".join(
        [
            encode_slot(plain[at][0], offset, *plain[at][2:])
            for at, offset in zip(numbers, offsets, strict=True)
        ]
    )
    assert list(offsets_of(moved)) == offsets
    assert list(column(table, KIND_AT)) == [slot[4] for slot in plain]
    assert list(column(table, CODEC_AT)) == [slot[5] for slot in plain]


@given(st.none() | st.binary(max_size=5), st.integers(0, 50))
def test_bits_are_read_together_as_each_alone(bits: bytes | None, count: int) -> None:
    """A deletion vector says of all slots at once what it says of each, also where it is short."""
    alone = [bit_is_set(bits, at) for at in range(count)]
    assert list(map(bool, flags_of(bits, count))) == alone
    order = list(reversed(range(count)))
    assert live_slots(bits, order, count) == [at for at in order if not alone[at]]


@given(st.binary(min_size=48, max_size=48), st.integers(0, (1 << 64) - 1))
def test_a_letterhead_writes_the_header(ids: bytes, birth_us: int) -> None:
    """Headers that differ in their time alone are what they would be one by one."""
    parts = ids[:16], ids[16:32], ids[32:]
    head = Letterhead(*parts).encode(birth_us)
    assert head == PackHeader(*parts, birth_us).encode()
    assert decode_header(head, "p") == PackHeader(*parts, birth_us)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_footer(data: bytes) -> None:
    """Bytes from anywhere are no footer and no header, and say so."""
    header = PackHeader(b"s" * 16, b"l" * 16, bytes(16), 1)
    body, _footer_bytes, _footer = build_inline(header.encode(), [])
    with pytest.raises(Corrupt):
        decode_inline(body, data, "p")
    with pytest.raises(Corrupt):
        decode_header(data, "p")


# -- index runs ------------------------------------------------------------------------------

Entries = dict[int, list[tuple[int, int]]]


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Run], Entries]:
    """Runs over packs of their own, and what they hold as a plain dict."""
    made: list[Run] = []
    entries: Entries = {}
    prefixes = st.sampled_from([0, 1, 5, 1 << 63, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)
    for number in range(1, draw(st.integers(1, 6)) + 1):
        found = sorted(draw(st.lists(prefixes, max_size=8)))
        for slot, prefix in enumerate(found):
            entries.setdefault(prefix, []).append((number, slot))
        made.append(_run(number, found))
    return made, entries


def _run(number: int, prefixes: list[int]) -> Run:
    """The run of one pack."""
    bits = place_bits([len(prefixes)])
    keys = keys_of(prefixes, bits)
    return Run([number], [bytes([number] * 16)], [len(prefixes)], keys, bits)


def _seen(prefix: int, bits: int) -> int:
    """What a run of so many bits for its places keeps of a prefix."""
    return prefix >> bits << bits


@given(runs(), st.sets(st.integers(1, 6)))
def test_merged_runs_hold_what_lives(made: tuple[list[Run], Entries], live: set[int]) -> None:
    """A merge keeps every entry of a living pack and no other, once, in order."""
    parts, entries = made
    merged = merge_runs(parts, live)
    expected = {
        prefix: [place for place in places if place[0] in live]
        for prefix, places in entries.items()
    }
    seen: Entries = {}
    for prefix, places in expected.items():
        seen.setdefault(_seen(prefix, merged.bits), []).extend(places)
    for prefix in expected:
        assert sorted(merged.find(prefix)) == sorted(seen[_seen(prefix, merged.bits)])
    assert merged.count == sum(map(len, expected.values()))
    assert set(merged.packs) == {run.packs[0] for run in parts} & live
    listed = [prefix for prefix, _pack, _slot in merged.entries()]
    assert listed == sorted(listed)


@given(runs(), st.lists(st.integers(0, (1 << 64) - 1)))
def test_asking_for_many_is_asking_for_each(made: tuple[list[Run], Entries], no: list[int]) -> None:
    """`among` names the prefixes for which `find` has a place, and no other; who searches in a
    loop of their own finds the same.
    """
    parts, entries = made
    for run in (*parts, merge_runs(parts, range(10))):
        asked = [*entries, *no]
        assert run.among(asked) == {prefix for prefix in asked if run.find(prefix)}
        keys, fences, shift, clear, mask, bounds = run.search()
        for prefix in asked:
            sought, at = prefix & clear, prefix >> shift
            place = bisect_left(keys, sought, fences[at], fences[at + 1])
            number = keys[place] - sought
            pack = bisect_right(bounds, number) - 1
            # An id of ones alone meets the entry behind the last one, whose pack there is not.
            none = number > mask or pack == len(run.packs)
            found = () if none else (run.packs[pack], number - bounds[pack])
            assert found == next(iter(run.find(prefix)), ())


@given(runs(), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_ranges_are_whole(made: tuple[list[Run], Entries], one: int, two: int) -> None:
    """A range gives every entry between its ends, both included."""
    parts, entries = made
    merged = merge_runs(parts, range(10))
    low, high = sorted((one, two))
    bits = merged.bits
    # An entry holds no whole prefix: those that begin like an end are given too.
    expected = [
        place
        for prefix, places in entries.items()
        if _seen(low, bits) <= _seen(prefix, bits) <= high
        for place in places
    ]
    assert sorted(merged.find_range(low, high)) == sorted(expected)
    everything = [place for places in entries.values() for place in places]
    assert sorted(merged.find_range(0, (1 << 64) - 1)) == sorted(everything)


def test_saved_runs_come_back(tmp_path: Path) -> None:
    """A run on disk finds what it found in memory; that of another lineage is not taken."""
    prefixes = sorted(int.from_bytes(os.urandom(8), "big") for _ in range(500))
    bits = place_bits([300, 200])
    run = Run([7, 9], [b"a" * 16, b"b" * 16], [300, 200], keys_of(prefixes, bits), bits)
    lineage = os.urandom(16)
    saved = save_run(run, str(tmp_path), "one", lineage)
    assert saved.path is not None
    loaded = load_run(saved.path, lineage)
    assert loaded is not None
    assert loaded.is_whole()
    assert (loaded.packs, loaded.names) == (run.packs, run.names)
    for slot, prefix in enumerate(prefixes):
        place = (7, slot) if slot < 300 else (9, slot - 300)
        assert list(loaded.find(prefix)) == [place]
    assert list(loaded.entries()) == list(saved.entries()) == list(run.entries())
    assert load_run(saved.path, bytes(16)) is None
    assert [found.count for found in load_runs(str(tmp_path), lineage)] == [500]
    assert load_runs(str(tmp_path), bytes(16)) == load_runs(str(tmp_path / "no"), lineage) == []


def test_long_merges_go_slice_by_slice(tmp_path: Path) -> None:
    """A merge of many entries, some packs gone, written or in memory, finds what lives."""
    made: list[Run] = []
    placed: dict[int, tuple[int, int]] = {}
    for number in range(1, 5):
        prefixes = sorted(int.from_bytes(os.urandom(8), "big") for _ in range(40_000))
        made.append(_run(number, prefixes))
        placed.update((prefix, (number, slot)) for slot, prefix in enumerate(prefixes))
    both = merge_runs(made[:2], {1, 2})
    merge = Merge([both, *made[2:]], {2, 3, 4})
    assert len(list(merge.parts())) > 1
    saved, held = merge.save(str(tmp_path), "all", bytes(16)), merge.run()
    assert saved.path is not None
    assert saved.is_whole()
    assert list(saved.keys) == list(held.keys)
    for prefix, place in placed.items():
        assert list(saved.find(prefix)) == ([] if place[0] == 1 else [place])
    blocked = merge.save(str(tmp_path / "no folder"), "all", bytes(16))
    assert blocked.path is None
    assert list(blocked.keys) == list(held.keys)


def test_cut_or_changed_runs_are_told(tmp_path: Path) -> None:
    """A run file cut anywhere is not taken; one with a changed byte is not whole."""
    run = _run(7, [5, 1 << 40, 3 << 62])
    saved = save_run(run, str(tmp_path), "one", bytes(16))
    assert saved.path is not None
    data = Path(saved.path).read_bytes()
    other = tmp_path / "two.run"
    for end in range(len(data)):
        other.write_bytes(data[:end])
        assert load_run(str(other), bytes(16)) is None
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        other.write_bytes(bytes(damaged))
        found = load_run(str(other), bytes(16))
        assert found is None or not found.is_whole()
        if found is not None:
            for prefix in (0, 5, 1 << 40, 3 << 62, (1 << 64) - 1):
                list(found.find(prefix))


@given(st.lists(st.integers(0, 300), max_size=60))
def test_merging_ends_with_few_runs(counts: list[int]) -> None:
    """What is due is merged in one go; then each run has more than `MERGE_RATIO` times the entries
    of all smaller ones, and none is lost.
    """
    left = [_run(at, [0] * count) for at, count in enumerate(counts)]
    due = due_merge(left)
    assert len(due) != 1
    if due:
        left = [run for run in left if run not in due] + [merge_runs(due, range(100))]
    sizes = sorted(run.count for run in left)
    assert sum(sizes) == sum(counts)
    for at, size in enumerate(sizes[1:], 1):
        assert size > MERGE_RATIO * sum(sizes[:at])
    assert not due_merge(left)


def test_a_long_run_is_merged_when_much_has_come() -> None:
    """What came is merged alone, and with what is longer once it is half of that."""
    left = [_run(1, [0] * 300), _run(2, [0] * 60), _run(3, [0] * 30)]
    assert due_merge(left[:2]) == []
    assert due_merge(left) == [left[2], left[1]]
    assert set(due_merge([*left, _run(4, [0] * 60)])) >= set(left)


def test_kinds_and_codecs_have_the_numbers_of_the_format() -> None:
    """What stands in files is fixed by docs/format.md, not by the order of a class."""
    assert [int(kind) for kind in Kind] == [1, 2, 3, 4, 5, 6, 7]
    assert (RAW, ZSTD, RECIPE, RECORD_HEADER_BYTES, PACK_HEADER_BYTES) == (0, 1, 2, 28, 80)
