"""Pack files: flipped bits, lost ends, zeroed sectors, records in the wrong place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from cas.errors import CorruptObject
from cas.objects.packs import read_footer
from cas.storage.codec import ZSTD, decode_payload
from cas.storage.header import PACK_HEADER_BYTES
from cas.storage.local import LocalBucket
from cas.storage.pack import (
    FOOTER_HEAD_BYTES,
    SLOT_BYTES,
    TRAILER_BYTES,
    Slot,
)
from cas.testing.stores import SteppedClock
from tests.corruption.conftest import Sample
from tests.corruption.harness import (
    Tally,
    bounded_memory,
    flipped,
    judge,
    patched,
    replaced,
)
from tests.corruption.reference import Reference, warm

CLASSES = ("header", "record header", "payload", "footer head", "slot", "edge", "trailer")
FLIPS = 220


def slots_of(pack: Path) -> list[Slot]:
    """Slots of a pack, in order of offset."""
    bucket = LocalBucket(str(pack.parent), SteppedClock(0))
    try:
        return sorted(read_footer(bucket, pack.name)[1].slots(), key=lambda slot: slot.offset)
    finally:
        bucket.close()


def regions(pack: Path) -> Iterator[tuple[str, int, int]]:
    """(class, first byte, end) of every part of a pack file."""
    slots = slots_of(pack)
    yield "header", 0, PACK_HEADER_BYTES
    for slot in slots:
        yield "record header", slot.offset, slot.payload_offset
        yield "payload", slot.payload_offset, slot.payload_offset + slot.stored_bytes
    size = pack.stat().st_size
    body = slots[-1].payload_offset + slots[-1].stored_bytes
    edges = body + FOOTER_HEAD_BYTES + SLOT_BYTES * len(slots)
    yield "footer head", body, body + FOOTER_HEAD_BYTES
    yield "slot", body + FOOTER_HEAD_BYTES, edges
    yield "edge", edges, size - TRAILER_BYTES
    yield "trailer", size - TRAILER_BYTES, size


def is_either_way(pack: Path, slots: Sequence[Slot], bit: int) -> bool:
    """Whether a bit is of a compressed frame that has the same content with it and without it: one
    that a decoder ignores, the memory that it may need, a match with the same bytes elsewhere.
    """
    data = bytearray(pack.read_bytes())
    for slot in slots:
        end = slot.payload_offset + slot.stored_bytes
        if slot.codec == ZSTD and slot.payload_offset <= bit >> 3 < end:
            content = decode_payload(ZSTD, bytes(data[slot.payload_offset : end]), slot.raw_bytes)
            data[bit >> 3] ^= 1 << (bit & 7)
            changed = bytes(data[slot.payload_offset : end])
            with suppress(CorruptObject):
                return bytes(decode_payload(ZSTD, changed, slot.raw_bytes)) == bytes(content)
    return False


def test_the_regions_cover_the_file(reference: Reference) -> None:
    """Every byte of a pack file belongs to exactly one class that is swept."""
    for pack in reference.packs:
        at = 0
        for name, start, end in regions(pack):
            assert start == at
            assert name in CLASSES
            at = end
        assert at == pack.stat().st_size
    assert len(reference.packs) == 2


@pytest.mark.parametrize("name", CLASSES)
def test_flips(name: str, reference: Reference, sample: Sample[int], tally: Tally) -> None:
    """A flipped bit of a pack file is named by fsck, and no read gives other bytes."""
    spots = [
        (pack, bit)
        for pack in reference.packs
        for found, start, end in regions(pack)
        if found == name
        for bit in range(8 * start, 8 * end)
    ]
    slots = {pack: slots_of(pack) for pack in reference.packs}
    with bounded_memory():
        for at in sample(range(len(spots)), FLIPS):
            pack, bit = spots[at]
            what = f"{name}: bit {bit & 7} of byte {bit >> 3} of {pack.name}"
            with flipped(pack, bit):
                verdict = judge(reference.folder, reference, what)
            tally.add(verdict)
            if not verdict.named:
                assert is_either_way(pack, slots[pack], bit), f"{what} was not named"
                assert verdict.failed == 0, f"{what} fails reads and was not named"


@pytest.mark.parametrize("name", ["footer head", "slot", "edge", "trailer"])
def test_flips_behind_an_index(
    name: str, reference: Reference, sample: Sample[int], tally: Tally, tmp_path: Path
) -> None:
    """With an index that spares readers the footer, a damaged footer still gives no other bytes."""
    folder = shutil.copytree(reference.folder, tmp_path / "store")
    cache = warm(folder)
    index = {path: path.read_bytes() for path in cache.iterdir()}
    spots = [
        (folder / "packs" / pack.name, bit)
        for pack in reference.packs
        for found, start, end in regions(pack)
        if found == name
        for bit in range(8 * start, 8 * end)
    ]
    with bounded_memory():
        for at in sample(range(len(spots)), FLIPS):
            pack, bit = spots[at]
            what = f"{name}: bit {bit & 7} of byte {bit >> 3} of {pack.name}, found by the index"
            with flipped(pack, bit):
                verdict = judge(folder, reference, what, cached=True)
            tally.add(verdict)
            assert verdict.named, what
            for path in cache.iterdir():
                path.unlink()
            for path, data in index.items():
                path.write_bytes(data)


def test_truncations(reference: Reference, sample: Sample[int], tally: Tally) -> None:
    """A pack file that lost its end is named, whatever its length."""
    with bounded_memory():
        for pack in reference.packs:
            whole = pack.read_bytes()
            for length in sample(range(len(whole)), 200):
                what = f"{pack.name} cut to {length} bytes"
                with replaced(pack, whole[:length]):
                    verdict = judge(reference.folder, reference, what)
                tally.add(verdict)
                assert verdict.named, what


@pytest.mark.parametrize("sector", [512, 4096])
def test_zeroed_sectors(sector: int, reference: Reference, tally: Tally) -> None:
    """A sector of zeros, as a disk gives for what it lost, is named."""
    with bounded_memory():
        for pack in reference.packs:
            size = pack.stat().st_size
            for start in range(0, size, sector):
                what = f"{pack.name}: {sector} bytes of zeros at {start}"
                with patched(pack, [(start, bytes(min(sector, size - start)))]):
                    verdict = judge(reference.folder, reference, what)
                tally.add(verdict)
                assert verdict.named, what


def _records(pack: Path) -> list[tuple[int, bytes]]:
    """(offset, whole record) of each record."""
    data = pack.read_bytes()
    return [
        (slot.offset, data[slot.offset : slot.payload_offset + slot.stored_bytes])
        for slot in slots_of(pack)
    ]


def test_swapped_records(reference: Reference, sample: Sample[int], tally: Tally) -> None:
    """Two records that changed places, headers and all, are named; so are two payloads."""
    with bounded_memory():
        for pack in reference.packs:
            records = _records(pack)
            pairs = [(a, b) for a in range(len(records)) for b in range(a)]
            for at in sample(range(len(pairs)), 60):
                first, second = (records[n] for n in sorted(pairs[at]))
                between = pack.read_bytes()[first[0] + len(first[1]) : second[0]]
                edits = [(first[0], second[1] + between + first[1])]
                if len(first[1]) == len(second[1]):
                    edits = [(first[0], second[1]), (second[0], first[1])]
                what = f"{pack.name}: records at {first[0]} and {second[0]} swapped"
                with patched(pack, edits):
                    verdict = judge(reference.folder, reference, what)
                tally.add(verdict)
                assert verdict.named, what


def test_payloads_of_one_length_swapped(reference: Reference, tally: Tally) -> None:
    """Payloads of equal length that changed places are named: a recipe copy is not misled."""
    with bounded_memory():
        for pack in reference.packs:
            slots = slots_of(pack)
            data = pack.read_bytes()
            for a in slots:
                for b in slots:
                    if a.offset >= b.offset or a.stored_bytes != b.stored_bytes:
                        continue
                    parts = [data[s.payload_offset :][: s.stored_bytes] for s in (a, b)]
                    what = f"{pack.name}: payloads at {a.offset} and {b.offset} swapped"
                    edits = [(a.payload_offset, parts[1]), (b.payload_offset, parts[0])]
                    with patched(pack, edits):
                        verdict = judge(reference.folder, reference, what)
                    tally.add(verdict)
                    assert verdict.named or parts[0] == parts[1], what


def test_records_moved_to_another_pack(
    reference: Reference, sample: Sample[int], tally: Tally
) -> None:
    """A record written over one of another pack is named, whether it fits or not."""
    first, second = reference.packs
    moves = [(r, s) for r in _records(first) for s in _records(second)]
    end = second.stat().st_size
    with bounded_memory():
        for at in sample(range(len(moves)), 80):
            (source, record), (target, _) = moves[at]
            what = f"the record at {source} of {first.name} over {target} of {second.name}"
            with patched(second, [(target, record[: end - target])]):
                verdict = judge(reference.folder, reference, what)
            tally.add(verdict)
            assert verdict.named, what


def test_a_pack_deleted(reference: Reference, tally: Tally) -> None:
    """A pack file that is not there is named as missing, with what needs it."""
    big = reference.packs[0].name
    for pack in reference.packs:
        with replaced(pack, None):
            verdict = judge(reference.folder, reference, f"{pack.name} deleted")
        tally.add(verdict)
        assert "pack-missing" in verdict.codes
        assert verdict.report is not None
        # The second file holds loose objects, which nothing names.
        needed = {name for finding in verdict.report.findings for name in finding.affected}
        expected = {"main:README.md", "v1"} if pack.name == big else set()
        assert expected <= needed
        assert bool(needed) == bool(expected)


def test_packs_exchanged(reference: Reference, tally: Tally) -> None:
    """A pack file with the content of another one, sound in itself, is named."""
    first, second = reference.packs
    for target, source in ((first, second), (second, first)):
        with replaced(target, source.read_bytes()):
            verdict = judge(reference.folder, reference, f"{source.name} in place of {target.name}")
        tally.add(verdict)
        assert "pack-row" in verdict.codes


def test_bytes_behind_the_end(reference: Reference, tally: Tally) -> None:
    """Bytes appended to a sealed pack are named."""
    for pack in reference.packs:
        with replaced(pack, pack.read_bytes() + b"tail"):
            verdict = judge(reference.folder, reference, f"{pack.name} with a tail")
        tally.add(verdict)
        assert "pack-footer" in verdict.codes
