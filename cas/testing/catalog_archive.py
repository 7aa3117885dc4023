"""The part of the catalog contract that is about archived entries; see
`cas.testing.catalog_contract`.

Entries that were moved out of the journal's rows are given as before, by number, by transaction id
and in order; the move is one transaction. Needs pytest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pytest

from cas.catalog.catalog import ArchiveRow, Catalog, CatalogReader, EntryRow
from cas.errors import CorruptJournal
from cas.model.entry import Entry, entry_hash, generate_txid, txid_from_key

COUNT: Final = 20
FIRST: Final = ArchiveRow(1, 6, 0, 100, b"a" * 32, 1, 2)
SECOND: Final = ArchiveRow(7, 9, 0, 700, b"b" * 32, 1, 2)


def _entry(seq: int) -> Entry:
    txid = txid_from_key(f"key {seq}") if seq % 4 == 0 else generate_txid(seq - 1, bytes([seq] * 8))
    root = bytes(32)
    return Entry(
        seq, seq * 100, 0, seq * 100, "a", f"message {seq}", txid, root, (), (), root, root
    )


ENTRIES: Final = [_entry(seq) for seq in range(1, COUNT + 1)]
ROWS: Final = [EntryRow(entry.seq, entry_hash(entry.encode()), entry.encode()) for entry in ENTRIES]
SEGMENTS: Final[Mapping[bytes, Sequence[bytes]]] = {
    row.segment: [row_.entry for row_ in ROWS[row.first_seq - 1 : row.last_seq]]
    for row in (FIRST, SECOND)
}


def _nothing(id: bytes) -> Sequence[bytes]:
    raise AssertionError(f"{id.hex()} was asked for, and nothing is archived")


def _fill(catalog: Catalog) -> None:
    catalog.serve_archive(SEGMENTS.__getitem__)
    with catalog.write() as writer:
        for entry, row in zip(ENTRIES, ROWS, strict=True):
            writer.append_entry(row.seq, row.hash, entry.txid, row.entry)


def _moved(catalog: Catalog, *rows: ArchiveRow) -> None:
    with catalog.write() as writer:
        for row in rows:
            writer.archive(row)


class CatalogArchive:
    """The promises about archived entries; the class that inherits gives `catalog`."""

    def test_archived_entries_are_given_as_before(self, catalog: Catalog) -> None:
        """Whoever reads entries cannot tell which of them are rows."""
        _fill(catalog)
        assert catalog.may_archive()
        with catalog.read() as reader:
            assert list(reader.archived()) == []
        for rows in ((FIRST,), (SECOND,)):
            _moved(catalog, *rows)
            with catalog.read() as reader:
                self._all_there(reader)
            assert catalog.head_seq() == COUNT
            for after in range(COUNT + 1):
                assert list(catalog.newer(after, 5)) == ROWS[after : after + 5]
        with catalog.read() as reader:
            assert list(reader.archived()) == [FIRST, SECOND]
            assert list(reader.archived(6)) == [SECOND]
            assert list(reader.archived(0, 1)) == [FIRST]
            assert list(reader.archived(9)) == []
            rest = ROWS[9:]
            assert reader.weigh_entries(0) == (len(rest), sum(len(row.entry) for row in rest))
        assert list(catalog.check()) == []

    @staticmethod
    def _all_there(reader: CatalogReader) -> None:
        assert list(reader.entries(0)) == ROWS
        for after in range(COUNT + 2):
            for limit in (0, 1, 2, 5, 30):
                assert list(reader.entries(after, limit)) == ROWS[after : after + limit]
            assert reader.entry(after) == (ROWS[after - 1] if 0 < after <= COUNT else None)
        for entry in ENTRIES:
            keyed = entry.txid[0] & 0x80
            assert reader.find_txid(entry.txid, None if keyed else entry.seq - 1) == entry.seq
            assert reader.find_txid(entry.txid, None if keyed else 0) == entry.seq
            if not keyed:
                assert reader.find_txid(entry.txid, entry.seq) is None
        assert reader.find_txid(txid_from_key("never"), None) is None
        assert reader.find_txid(generate_txid(0, bytes(8)), 0) is None
        assert reader.head().seq == COUNT

    def test_a_move_into_the_archive_is_seen_in_its_own_block(self, catalog: Catalog) -> None:
        """Inside the transaction that archives them, entries are given as well."""
        _fill(catalog)
        with catalog.write() as writer:
            writer.archive(FIRST)
            assert list(writer.archived()) == [FIRST]
            self._all_there(writer)

    def test_a_move_into_the_archive_is_whole_or_not_at_all(self, catalog: Catalog) -> None:
        """A block that fails leaves the rows of the journal, their keys and the features."""
        _fill(catalog)

        def fail() -> None:
            with catalog.write() as writer:
                writer.archive(FIRST)
                assert list(writer.archived()) == [FIRST]
                print(1 // 0)

        with pytest.raises(ZeroDivisionError):
            fail()
        catalog.serve_archive(_nothing)
        with catalog.read() as reader:
            assert list(reader.archived()) == []
            self._all_there(reader)
            assert reader.weigh_entries(0)[0] == COUNT

    def test_an_archive_row_is_replaced(self, catalog: Catalog) -> None:
        """A row for the same entries takes the place of the one before; keys stay."""
        _fill(catalog)
        _moved(catalog, FIRST)
        other = FIRST._replace(pack=7, other=8)
        _moved(catalog, other)
        with catalog.read() as reader:
            assert list(reader.archived()) == [other]
            self._all_there(reader)

    def test_a_segment_that_is_not_what_the_row_says_is_told(self, catalog: Catalog) -> None:
        """Fewer, more or other entries than a row stands for are damage, and never given."""
        _fill(catalog)
        _moved(catalog, FIRST)
        good = list(SEGMENTS[FIRST.segment])
        for bad in (good[:-1], [*good, good[-1]], list(reversed(good)), [b"no entry"] * 6):
            catalog.serve_archive(lambda _id, bad=bad: bad)  # type: ignore[misc]
            with catalog.read() as reader, pytest.raises(CorruptJournal):
                reader.entry(3)
            with catalog.read() as reader, pytest.raises(CorruptJournal):
                reader.entries(2, 30)
