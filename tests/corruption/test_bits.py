"""Bits and lengths by the hundred thousand: damage in memory, read by the real readers.

The other tests of this room open a whole store for each damage, which says all and is slow. Here
one store stays open, its packs lie in memory, and each case goes through the code that a read and
a check go through for that part alone: the record as `ObjectStore` reads it and as fsck's record
check judges it, footers, journal rows, inline packs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cas.catalog.sqlite import open_catalog
from cas.errors import CasError
from cas.history.timeline import Timeline
from cas.maintenance.findings import Findings
from cas.maintenance.fsck.groups import Group, Piece, beside_of
from cas.maintenance.fsck.known import Known
from cas.maintenance.fsck.packs import Pack, PackBytes, PackSurvey
from cas.maintenance.fsck.records import RecordCheck
from cas.objects.packs import Copy, PackInfo, read_footer
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA, DICTIONARY, ZSTD
from cas.storage.memory import MemoryBucket
from cas.storage.pack import EDGE_BASE, EDGE_RECIPE, Footer, Slot, decode_inline
from cas.storage.record import RECORD_HEADER_BYTES
from cas.testing.driver import Driver
from cas.testing.stores import SteppedClock, create, scratch
from tests.corruption.harness import Tally, WrongOutcome, no_hang

PARTS: Final = 4
FRAMES: Final = (ZSTD, DELTA, DICTIONARY)

STEPS: Final = (
    *("memories", "versions", "commit", "multi", "spill"),
    *("memories", "commit", "put many", "versions", "keyed", "spill", "commit", "tag", "mirror"),
    *("commit", "multi", "put many", "versions"),
)
"""Blobs raw, compressed, as deltas and beside a dictionary; nodes as patches; segments."""

CASES: Final = {"quick": 3_000, "deep": 10_000_000}.get(
    os.environ.get("CAS_TEST_PROFILE", "full"), 50_000
)
"""Cases of each test, where there are so many."""


class _InMemory(MemoryBucket):
    """The pack files of a folder, each a buffer that a test changes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.data = {path.name: bytearray(path.read_bytes()) for path in folder.iterdir()}

    def _file(self, name: str) -> bytes:
        return bytes(self.data[name])

    def read(self, name: str, start: int, length: int) -> bytes:
        part = bytes(self.data[name][start : start + length])
        # Its length is compared there.
        return part if len(part) == length else super().read(name, start, length)


class Bench:
    """A store whose packs lie in memory, and what each part of them gives when it is whole."""

    def __init__(self, folder: Path) -> None:
        create(str(folder), clock=SteppedClock("bits create"))
        driver = Driver(str(folder), seed="bits")
        driver.run(STEPS)
        driver.close()
        assert not driver.refused
        catalog = open_catalog(
            str(folder / "catalog.sqlite"), str(folder / "locks"), read_only=True
        )
        self.bucket = _InMemory(folder / "packs")
        self.objects = ObjectStore(catalog, self.bucket, SteppedClock("bits"))
        state = self.objects.lookup.refresh()
        self.packs = list(state.packs.values())
        self.rows: list[tuple[PackInfo, Slot]] = []
        for pack in self.packs:
            footer = self.objects.lookup.footer(pack)
            for number, slot in enumerate(footer.slots()):
                if not self.objects.lookup.is_gone(pack.number, number):
                    self.rows.append((pack, slot))
        self.content = {
            (pack.number, slot.offset): self.objects.verified(Copy(pack, slot))
            for pack, slot in self.rows
        }
        with self.objects.catalog.read() as reader:
            self.entries = list(reader.entries(0))
            self.inline = {
                number: (bytes(footer or b""), bytearray(body))
                for number, footer, body in reader.bodies(0, 1_000)
            }


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """The store of this module."""
    with scratch() as folder:
        bench = Bench(Path(folder) / "store")
        yield bench
        bench.objects.close()


class _Judge:
    """What fsck says of one record."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._bytes = PackBytes(bench.objects)
        self._survey = PackSurvey(bench.objects, Known(), Findings())
        for pack in bench.packs:
            self._survey._footers[pack.number] = bench.objects.lookup.footer(pack)

    def names(self, pack: PackInfo, slot: Slot, needs: dict[bytes, bytes]) -> bool:
        """Whether the check has anything to say of the record as it lies there now."""
        findings = Findings()
        recipes: list[tuple[bytes, bytes, int]] = []
        check = RecordCheck(
            self._bench.objects,
            self._survey,
            findings,
            lambda named: None,
            lambda id, recipe, size, pack: recipes.append((id, recipe, size)),
            lambda count, stored: None,
        )
        named = Pack(pack.number, pack.file, pack.label, pack.body_bytes)
        beside = beside_of(self._bench.objects, pack)
        piece = Piece(named, [tuple(_row(slot))], needs, set(), beside)  # type: ignore[list-item]
        group = Group()
        group.take(piece, self._bytes)
        group.decode()
        check._check_group(group)
        for deltas in check._deltas.groups(everything=True):
            check._check_group(deltas)
        return bool(check.bad) or bool(list(findings.plain()))


def _row(slot: Slot) -> Iterator[Any]:
    yield from (slot.id, slot.offset, slot.stored_bytes, slot.raw_bytes, slot.kind)
    yield from (slot.codec, slot.depth, slot.flags, slot.group)


def _needs(footer: Footer) -> dict[bytes, bytes]:
    return {
        footer.id_at(number): target
        for number, role, target in footer.edges()
        if role in (EDGE_RECIPE, EDGE_BASE)
    }


def _typed(what: str, read: Callable[[], Any], right: Any, tally: Tally) -> bool:
    """Read; False when it gave what it should, True after a typed error."""
    tally.counts["cases"] += 1
    try:
        found = read()
    except CasError:
        tally.counts["typed errors"] += 1
        return True
    except Exception as error:
        raise WrongOutcome(f"{what} raised {error!r}") from error
    if found != right:
        raise WrongOutcome(f"{what} gave something else")
    tally.counts["right reads"] += 1
    return False


def _spots(rng: random.Random, sizes: list[int], most: int = CASES) -> Iterator[tuple[int, int]]:
    """(which, bit) of some bits of buffers of these sizes in bytes; all where they are few."""
    total = 8 * sum(sizes)
    chosen = range(total) if total <= CASES else sorted(rng.sample(range(total), CASES))
    which, start = 0, 0
    for bit in chosen:
        while bit - start >= 8 * sizes[which]:
            start += 8 * sizes[which]
            which += 1
        yield which, bit - start


@pytest.mark.slow
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("part", range(PARTS))
def test_bits_of_records(part: int, bench: Bench, rng: random.Random, tally: Tally) -> None:
    """A flipped bit of a record gives the right content or a typed error, and fsck names it."""
    rows = [row for row in bench.rows if row[0].file is not None][part::PARTS]
    sizes = [RECORD_HEADER_BYTES + slot.stored_bytes for _pack, slot in rows]
    judge = _Judge(bench)
    needs = {pack.number: _needs(bench.objects.lookup.footer(pack)) for pack, _slot in rows}
    with no_hang():
        for which, bit in _spots(rng, sizes, CASES // 2):
            pack, slot = rows[which]
            assert pack.file is not None
            data, at = bench.bucket.data[pack.file], slot.offset + (bit >> 3)
            what = f"bit {bit & 7} of byte {at} of {pack.file}"
            data[at] ^= 1 << (bit & 7)
            try:
                right = bench.content[pack.number, slot.offset]
                copy = Copy(pack, slot)
                failed = _typed(what, lambda copy=copy: bench.objects.verified(copy), right, tally)
                if judge.names(pack, slot, needs[pack.number]):
                    tally.counts["named by fsck"] += 1
                else:
                    # Of a frame some bits may be either way: it decodes to the same content.
                    assert not failed, f"{what} fails reads and is not named"
                    assert slot.codec in FRAMES, f"{what} is not named"
                    assert bit >> 3 >= RECORD_HEADER_BYTES, f"{what} is not named"
                    tally.counts["changed nothing"] += 1
            finally:
                data[at] ^= 1 << (bit & 7)


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_bits_of_headers_and_footers(bench: Bench, rng: random.Random, tally: Tally) -> None:
    """A flipped bit of a pack's header or footer is a typed error: no slot is believed."""
    packs = [pack for pack in bench.packs if pack.file is not None]
    whole = {pack.file: read_footer(bench.bucket, str(pack.file)) for pack in packs}
    for pack in packs:
        file = str(pack.file)
        data = bench.bucket.data[file]
        places = [*range(32), *range(pack.body_bytes, len(data))]
        for _which, bit in _spots(rng, [len(places)]):
            at = places[bit >> 3]
            data[at] ^= 1 << (bit & 7)
            what = f"bit {bit & 7} of byte {at} of {file}"
            failed = _typed(what, lambda f=file: read_footer(bench.bucket, f), whole[file], tally)
            data[at] ^= 1 << (bit & 7)
            assert failed, f"{what} was not refused"


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_lengths_of_packs(bench: Bench, tally: Tally, rng: random.Random) -> None:
    """A pack file that lost its end, however much of it, is a typed error."""
    for file, data in bench.bucket.data.items():
        whole = bytes(data)
        lengths = range(len(whole))
        some = lengths if len(whole) <= CASES // 2 else rng.sample(lengths, CASES // 2)
        for length in some:
            bench.bucket.data[file] = bytearray(whole[:length])
            what = f"{file} cut to {length}"
            failed = _typed(what, lambda f=file: read_footer(bench.bucket, f), None, tally)
            assert failed, f"{what} was not refused"
        bench.bucket.data[file] = bytearray(whole)


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_bits_of_journal_rows(bench: Bench, rng: random.Random, tally: Tally) -> None:
    """A flipped bit of a journal entry or of its hash is a typed error."""
    import attrs

    for _which, (row, bit) in enumerate(_rows(bench, rng)):
        entry = bytearray(row.hash + row.entry)
        entry[bit >> 3] ^= 1 << (bit & 7)
        spoiled = attrs.evolve(row, hash=bytes(entry[:32]), entry=bytes(entry[32:]))
        what = f"bit {bit} of entry {row.seq}"
        failed = _typed(what, lambda r=spoiled: Timeline.decode(r), None, tally)
        assert failed, f"{what} was not refused"


def _rows(bench: Bench, rng: random.Random) -> Iterator[tuple[Any, int]]:
    sizes = [32 + len(row.entry) for row in bench.entries]
    for which, bit in _spots(rng, sizes):
        yield bench.entries[which], bit


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_bits_of_inline_packs(bench: Bench, rng: random.Random, tally: Tally) -> None:
    """A flipped bit of an inline pack's footer, header or payloads is found by whoever reads it."""
    numbers = sorted(bench.inline)
    sizes = [len(bench.inline[number][0]) + len(bench.inline[number][1]) for number in numbers]
    slots = {
        number: sorted(bench.objects.lookup.footer(p).slots(), key=lambda s: s.offset)
        for number in numbers
        for p in bench.packs
        if p.number == number
    }
    packs = {pack.number: pack for pack in bench.packs}
    for which, bit in _spots(rng, sizes):
        number = numbers[which]
        footer, body = bench.inline[number]
        if bit >> 3 < len(footer):
            spoiled = bytearray(footer)
            spoiled[bit >> 3] ^= 1 << (bit & 7)
            what = f"bit {bit} of the footer of inline pack {number}"
            read = lambda b=bytes(body), f=bytes(spoiled): decode_inline(b, f, "pack")  # noqa: E731
            assert _typed(what, read, None, tally), f"{what} was not refused"
            continue
        at = (bit >> 3) - len(footer)
        body[at] ^= 1 << (bit & 7)
        bench.objects._bodies.put(number, bytes(body))
        try:
            for slot in slots[number]:
                if slot.payload_offset <= at < slot.payload_offset + slot.stored_bytes:
                    copy = Copy(packs[number], slot)
                    right = bench.content.get((number, slot.offset))
                    if right is not None:
                        what = f"bit {bit & 7} of byte {at} of inline pack {number}"
                        _typed(what, lambda c=copy: bench.objects.verified(c), right, tally)
        finally:
            body[at] ^= 1 << (bit & 7)
            bench.objects._bodies.put(number, bytes(body))
