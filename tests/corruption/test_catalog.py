"""The catalog: its rows, its pages, its log, old ones put back, and the index cache beside it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from cas.catalog.schema import TABLES
from cas.storage.index import load_run
from tests.corruption.conftest import Sample
from tests.corruption.harness import (
    Tally,
    Verdict,
    bounded_memory,
    flipped,
    judge,
    open_read,
    patched,
    replaced,
    without_logs,
)
from tests.corruption.reference import Reference, warm

NAMES = tuple(t.split()[2] for t in TABLES if t.startswith("CREATE TABLE"))

PROTECTED_META = {"store_id"}
"""Of the others nothing else in a store says what they should be: another value is another truth,
and one under another key is none. Where the store was made (host, device) is told to people only.
"""
UNPROTECTED_TABLES = {"vector", "removal", "session", "cursor"}

COLUMNS = (
    ("pack", "body"),
    ("pack", "footer"),
    ("pack", "name"),
    ("journal", "entry"),
    ("journal", "hash"),
    ("journal", "txid"),
    ("checkpoint", "root"),
)


@contextmanager
def changed_row(
    catalog: Path, statement: str, undo: str, values: tuple[Any, Any]
) -> Iterator[None]:
    """A row with another value, for as long as the block lasts."""
    new, old = values
    with closing(apsw.Connection(str(catalog))) as connection:
        connection.execute(statement, (new,))
    try:
        yield
    finally:
        with closing(apsw.Connection(str(catalog))) as connection:
            connection.execute(undo, (old,))


def _cells(catalog: Path, table: str, column: str) -> list[tuple[int, bytes]]:
    """(rowid, value) of every value in a column that is there."""
    with closing(apsw.Connection(str(catalog))) as connection:
        rows = connection.execute(
            f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY rowid"
        ).fetchall()
    return [(int(str(rowid)), bytes(value)) for rowid, value in rows]  # type: ignore[arg-type]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_flips_in_rows(
    table: str, column: str, reference: Reference, sample: Sample[int], tally: Tally
) -> None:
    """A flipped bit of an inline pack, a journal entry or a checkpoint is named by fsck."""
    cells = _cells(reference.catalog, table, column)
    spots = [(row, bit) for row in range(len(cells)) for bit in range(8 * len(cells[row][1]))]
    with bounded_memory():
        for at in sample(range(len(spots)), 150):
            row, bit = spots[at]
            rowid, value = cells[row]
            data = bytearray(value)
            data[bit >> 3] ^= 1 << (bit & 7)
            change = f"UPDATE {table} SET {column} = ? WHERE rowid = {rowid}"
            what = f"{table}.{column} of row {rowid}: bit {bit}"
            with changed_row(reference.catalog, change, change, (bytes(data), value)):
                verdict = judge(reference.folder, reference, what)
            tally.add(verdict)
            assert verdict.named, what


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE pack SET body_bytes = body_bytes + 1 WHERE body IS NULL", "pack-row"),
        ("UPDATE pack SET body_bytes = body_bytes - 1 WHERE body IS NOT NULL", "pack-row"),
        ("UPDATE pack SET footer = NULL WHERE body IS NOT NULL", "pack-footer"),
        ("UPDATE pack SET body = NULL WHERE body IS NOT NULL", "pack-missing"),
        ("UPDATE pack SET footer = substr(footer, 1, 70) WHERE body IS NOT NULL", "pack-footer"),
        ("DELETE FROM pack WHERE name IS NOT NULL", "object-missing"),
        ("DELETE FROM pack WHERE name IS NULL", "object-missing"),
        ("UPDATE vector SET bits = x''", "pack-row"),
        ("UPDATE vector SET bits = CAST(bits || x'00' AS BLOB)", "pack-row"),
        ("UPDATE vector SET pack = 999", "pack-row"),
        ("DELETE FROM journal WHERE seq = 1", "journal-entry"),
        ("DELETE FROM journal WHERE seq = 2", "journal-entry"),
        ("UPDATE journal SET seq = 99 WHERE seq = 4", "journal-entry"),
        ("UPDATE journal SET entry = x'' WHERE seq = 2", "journal-entry"),
        ("UPDATE journal SET txid = zeroblob(16) WHERE seq = 3", "journal-row"),
        ("UPDATE checkpoint SET seq = 77", "checkpoint"),
        ("UPDATE checkpoint SET root = zeroblob(32)", "checkpoint"),
        ("UPDATE meta SET value = zeroblob(16) WHERE key = 'store_id'", "pack-foreign"),
        ("INSERT INTO session VALUES (zeroblob(16), 1, 0, 0, 5)", "session-open"),
    ],
)
def test_rows_that_say_something_else(
    statement: str, code: str, reference: Reference, tmp_path: Path, tally: Tally
) -> None:
    """Each way in which a row can be gone or wrong is named by its own code."""
    folder = shutil.copytree(reference.folder, tmp_path / "store")
    with closing(apsw.Connection(str(folder / "catalog.sqlite"))) as connection:
        connection.execute(statement)
        assert connection.changes() > 0
    verdict = judge(folder, reference, statement, older=True)
    tally.add(verdict)
    assert code in verdict.codes


def _rows(catalog: Path) -> dict[str, list[tuple[Any, ...]]] | None:
    """Every row of every table; None where the engine cannot give them."""
    try:
        with closing(apsw.Connection(str(catalog), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            return {
                table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
                for table in NAMES
            }
    except (apsw.Error, UnicodeDecodeError):
        return None


def _protected(rows: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of which something else in the store tells what they must be."""
    return {
        table: [row for row in found if table != "meta" or row[0] in PROTECTED_META]
        for table, found in rows.items()
        if table not in UNPROTECTED_TABLES
    }


def _judge_catalog(reference: Reference, what: str, tally: Tally, before: Any) -> Verdict:
    """Judge a store whose catalog file was damaged."""
    without_logs(reference.folder)
    verdict = judge(reference.folder, reference, what, older=True)
    tally.add(verdict)
    if not verdict.named:
        without_logs(reference.folder)
        after = _rows(reference.catalog)
        assert after is not None, f"{what}: the engine cannot read a table, and nothing was named"
        assert _protected(after) == _protected(before), f"{what} was not named"
    without_logs(reference.folder)
    return verdict


def test_flips_in_pages(reference: Reference, sample: Sample[int], tally: Tally) -> None:
    """A flipped bit of the catalog's file is refused, named, or changes no row that matters."""
    without_logs(reference.folder)
    before = _rows(reference.catalog)
    bits = range(8 * reference.catalog.stat().st_size)
    with bounded_memory():
        for bit in sample(bits, 900):
            what = f"bit {bit & 7} of byte {bit >> 3} of the catalog"
            with flipped(reference.catalog, bit):
                _judge_catalog(reference, what, tally, before)


@pytest.mark.parametrize("sector", [512, 4096])
def test_zeroed_sectors(
    sector: int, reference: Reference, sample: Sample[int], tally: Tally
) -> None:
    """A sector of zeros in the catalog is refused, named, or changes no row that matters."""
    without_logs(reference.folder)
    before = _rows(reference.catalog)
    size = reference.catalog.stat().st_size
    with bounded_memory():
        for at in sample(range(size // sector), 120):
            with patched(reference.catalog, [(at * sector, bytes(sector))]):
                _judge_catalog(reference, f"{sector} zeros at {at * sector}", tally, before)


def test_truncations(reference: Reference, sample: Sample[int], tally: Tally) -> None:
    """A catalog that lost its end is refused, named, or lost no row that matters."""
    without_logs(reference.folder)
    before = _rows(reference.catalog)
    whole = reference.catalog.read_bytes()
    pages = [page * 4096 for page in range(len(whole) // 4096)]
    with bounded_memory():
        for length in sorted({*pages, *sample(range(len(whole)), 80)}):
            with replaced(reference.catalog, whole[:length]):
                _judge_catalog(reference, f"cut to {length} bytes", tally, before)


def test_the_log(
    reference: Reference, sample: Sample[int], tally: Tally, rng: random.Random
) -> None:
    """A damaged write-ahead log gives a state that was, with nothing in it wrong."""
    log = reference.crashed / "catalog.sqlite-wal"
    size = log.stat().st_size
    assert size > 40_000
    main = (reference.crashed / "catalog.sqlite").read_bytes()
    index = reference.crashed / "catalog.sqlite-shm"
    states = set()

    def look(what: str) -> None:
        # As after a crash: what the log means is found out again from the log alone.
        index.unlink(missing_ok=True)
        verdict = judge(reference.crashed, reference, what, older=True)
        tally.add(verdict)
        states.add(verdict.newest)
        assert (reference.crashed / "catalog.sqlite").read_bytes() == main

    with bounded_memory():
        for bit in sample(range(8 * size), 250):
            with flipped(log, bit):
                look(f"bit {bit} of the log")
        whole = log.read_bytes()
        for length in sample(range(size), 60):
            with replaced(log, whole[:length]):
                look(f"log cut to {length}")
        for at in sample(range(size // 4096), 20):
            with patched(log, [(at * 4096 + 32, rng.randbytes(4096)[: size - at * 4096 - 32])]):
                look(f"noise in the log at {at}")
    assert len(states) > 1
    index.unlink(missing_ok=True)


def test_an_old_catalog_put_back(reference: Reference, tmp_path: Path, tally: Tally) -> None:
    """An older catalog beside newer packs reads as that older state, and fsck says so."""
    folder = shutil.copytree(reference.folder, tmp_path / "store")
    shutil.copy(reference.earlier / "catalog.sqlite", folder / "catalog.sqlite")
    verdict = judge(folder, reference, "an old catalog", older=True)
    tally.add(verdict)
    assert verdict.newest is not None
    assert 0 < verdict.newest < len(reference.found.entries)
    assert "catalog-behind" in verdict.codes


def test_old_packs_put_back(reference: Reference, tmp_path: Path, tally: Tally) -> None:
    """The pack folder of an earlier time beside the newest catalog is named."""
    folder = shutil.copytree(reference.folder, tmp_path / "store")
    shutil.rmtree(folder / "packs")
    shutil.copytree(reference.earlier / "packs", folder / "packs")
    verdict = judge(folder, reference, "old packs", older=False)
    tally.add(verdict)
    assert "pack-missing" in verdict.codes


def test_the_index_is_only_a_cache(
    reference: Reference, sample: Sample[int], tally: Tally, tmp_path: Path
) -> None:
    """However the index files are damaged, every read is right and fsck finds nothing."""
    folder = shutil.copytree(reference.folder, tmp_path / "store")
    cache = warm(folder)
    whole = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert whole
    spots = [(name, bit) for name in sorted(whole) for bit in range(8 * len(whole[name]))]

    def look(what: str, name: str, data: bytes) -> None:
        for path in cache.iterdir():
            path.unlink()
        for other, content in whole.items():
            (cache / other).write_bytes(data if other == name else content)
        verdict = judge(folder, reference, what, cached=True)
        tally.add(verdict)
        assert verdict.failed == 0, what
        assert not verdict.named, what

    with bounded_memory():
        for at in sample(range(len(spots)), 400):
            name, bit = spots[at]
            data = bytearray(whole[name])
            data[bit >> 3] ^= 1 << (bit & 7)
            look(f"bit {bit} of {name}", name, bytes(data))
        for name, content in whole.items():
            for length in sample(range(len(content)), 40):
                look(f"{name} cut to {length}", name, content[:length])
            look(f"{name} of zeros", name, bytes(len(content)))


def test_no_damaged_entry_hides_an_abbreviation(reference: Reference, tmp_path: Path) -> None:
    """An index whose entries are out of order finds every object by how its id begins."""
    folder = shutil.copytree(reference.folder, tmp_path / "store")
    for path in warm(folder).iterdir():
        whole = path.read_bytes()
        run = load_run(str(path), whole[8:24])
        assert run is not None
        keys_at = len(whole) - run.memory_bytes
        for at in range(run.count):
            damaged = bytearray(whole)
            damaged[keys_at + 8 * at + 7] ^= 0x80
            path.unlink()
            path.write_bytes(damaged)
            with open_read(folder, cached=True) as store:
                for id in reference.blobs:
                    assert store.find(id.hex()[:16]) == id
