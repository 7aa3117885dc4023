"""The part of the catalog contract that is about its tables; see `cas.testing.catalog_contract`.

Packs and their deletion vectors, the journal, checkpoints, sessions, cursors: what is put comes
back, in the order promised, and what may stand once cannot stand twice. Needs pytest.
"""

from __future__ import annotations

from typing import Final

import pytest

from cas.catalog.catalog import (
    Catalog,
    CatalogWriter,
    Checkpoint,
    EntryRow,
    Meta,
    PackRow,
    SessionRow,
)
from cas.errors import CorruptCatalog
from cas.model.entry import generate_txid, txid_from_key

META: Final = Meta(b"S" * 16, b"L" * 16, 1, (), 1_700_000_000_000_000)
WAIT_S: Final = 30
"""How long a test waits for what must come, before it says that it never came."""


def hash_of(seq: int) -> bytes:
    """A stand-in for the hash of an entry."""
    return seq.to_bytes(32, "big")


def append(writer: CatalogWriter, seq: int, txid: bytes | None = None) -> None:
    """Append an entry that a test recognises."""
    txid = generate_txid(seq - 1, seq.to_bytes(8, "big")) if txid is None else txid
    writer.append_entry(seq, hash_of(seq), txid, b"entry %d" % seq)


def row_of(seq: int) -> EntryRow:
    """What `append` stored."""
    return EntryRow(seq, hash_of(seq), b"entry %d" % seq)


def add_inline(writer: CatalogWriter, number: int) -> None:
    """Install an inline pack that a test recognises."""
    body = b"body %d" % number
    writer.add_pack(number, None, len(body), b"footer %d" % number, body)


class CatalogTables:
    """The promises of the tables; the class that inherits gives the fixture `catalog`."""

    # -- packs, vectors, versions ------------------------------------------------------------

    def test_packs_inline_and_in_files(self, catalog: Catalog) -> None:
        """Rows ascend by number; only inline ones have a footer and a body."""
        with catalog.write() as writer:
            add_inline(writer, 1)
            writer.add_pack(2, b"N" * 16, 1000, None, None)
            add_inline(writer, 3)
        inline = [PackRow(n, None, 6, b"footer %d" % n) for n in (1, 3)]
        with catalog.read() as reader:
            assert list(reader.packs()) == [
                inline[0],
                PackRow(2, b"N" * 16, 1000, None),
                inline[1],
            ]
            assert list(reader.packs(2)) == [inline[1]]
            assert list(reader.packs(99)) == []
            assert list(reader.pack_numbers()) == [1, 2, 3]
            assert list(reader.pack_numbers(2, 3)) == [2, 3]
            assert list(reader.pack_numbers(0, 1)) == [1]
            assert [reader.body(n) for n in (1, 2, 3, 4)] == [b"body 1", None, b"body 3", None]
            bodies = [(n, b"footer %d" % n, b"body %d" % n) for n in (1, 3)]
            assert list(reader.bodies(0, 10)) == bodies
            assert list(reader.bodies(0, 1)) == bodies[:1]
            assert list(reader.bodies(1, 10)) == bodies[1:]
        assert [catalog.inline_body(n) for n in (1, 2, 4)] == [b"body 1", None, None]

    def test_numbers_of_every_size(self, catalog: Catalog) -> None:
        """Sizes and numbers of any magnitude come back, whatever was put before them."""
        sizes = [1, 40_000, 3_000_000_000, 2**40, 2]
        for number, size in enumerate(sizes, start=1):
            with catalog.write() as writer:
                writer.add_pack(number, b"%16d" % number, size, None, None)
        with catalog.write() as writer:
            writer.remove_packs([2, 3_000_000_000], 2**41, 2**33)
        with catalog.read() as reader:
            assert [row.body_bytes for row in reader.packs()] == [1, 3_000_000_000, 2**40, 2]
            assert reader.head().version == 2**41

    def test_a_pack_number_is_given_once(self, catalog: Catalog) -> None:
        """Installing a second pack under a number fails and takes its transaction along."""
        with catalog.write() as writer:
            add_inline(writer, 1)

        def again() -> None:
            with catalog.write() as writer:
                append(writer, 1)
                writer.add_pack(1, None, 5, b"f", b"other")

        with pytest.raises(CorruptCatalog):
            again()
        assert catalog.inline_body(1) == b"body 1"
        assert catalog.head_seq() == 0

    def test_versions_rise_and_are_never_reused(self, catalog: Catalog) -> None:
        """The version is the largest number ever given, also after the newest pack is gone."""
        with catalog.write() as writer:
            for number in (1, 2, 3):
                add_inline(writer, number)
            assert writer.head().version == 3
        with catalog.write() as writer:
            writer.remove_packs([2, 3], 4, 0)
        with catalog.read() as reader:
            head = reader.head()
            assert (head.version, head.removal_version, head.condemn_seq) == (4, 4, 0)
            assert list(reader.pack_numbers()) == [1]
        with catalog.write() as writer:
            writer.record_removal(5, 1)
            add_inline(writer, 6)
        with catalog.read() as reader:
            head = reader.head()
            assert (head.version, head.removal_version, head.condemn_seq) == (6, 5, 1)

    @pytest.mark.parametrize("gone", [[], [7], [3, 4, 5], [9, 1, 5], list(range(1, 11)), [2, 20]])
    def test_packs_are_removed_as_named(self, catalog: Catalog, gone: list[int]) -> None:
        """Whatever numbers are named, in whatever order, those and no others go."""
        with catalog.write() as writer:
            for number in range(1, 11):
                add_inline(writer, number)
                writer.set_vector(number, number, b"\1")
        with catalog.write() as writer:
            writer.remove_packs(gone, 11, 0)
        with catalog.read() as reader:
            left = [number for number in range(1, 11) if number not in gone]
            assert list(reader.pack_numbers()) == left
            assert [number for number, _version, _bits in reader.vectors()] == left
            assert reader.head().version == 11

    def test_vectors_are_found_by_the_version_of_their_change(self, catalog: Catalog) -> None:
        """A vector is replaced whole; `vectors(after)` gives those changed since."""
        with catalog.write() as writer:
            for number in (1, 2, 3):
                add_inline(writer, number)
            writer.set_vector(1, 3, b"\1")
            writer.set_vector(3, 3, b"\2")
        with catalog.write() as writer:
            writer.record_removal(4, 1)
            writer.set_vector(1, 4, b"\3")
        with catalog.read() as reader:
            assert list(reader.vectors()) == [(1, 4, b"\3"), (3, 3, b"\2")]
            assert list(reader.vectors(3)) == [(1, 4, b"\3")]
            assert list(reader.vectors(4)) == []

    # -- the journal -------------------------------------------------------------------------

    def test_entries_in_order(self, catalog: Catalog) -> None:
        """Entries come ascending, behind a position, at most as many as asked for."""
        with catalog.write() as writer:
            for seq in range(1, 6):
                append(writer, seq)
        with catalog.read() as reader:
            assert list(reader.entries(0)) == [row_of(seq) for seq in range(1, 6)]
            assert list(reader.entries(2, 2)) == [row_of(3), row_of(4)]
            assert list(reader.entries(5)) == list(reader.entries(0, 0)) == []
            assert (reader.entry(3), reader.entry(0), reader.entry(6)) == (row_of(3), None, None)
            assert reader.head().hash == hash_of(5)
            weight = sum(len(row_of(seq).entry) for seq in (4, 5))
            assert (reader.weigh_entries(3), reader.weigh_entries(5)) == ((2, weight), (0, 0))

    def test_a_sequence_number_is_given_once(self, catalog: Catalog) -> None:
        """A second entry of one number fails, and the first stays."""
        with catalog.write() as writer:
            append(writer, 1)

        def again() -> None:
            with catalog.write() as writer:
                writer.append_entry(1, bytes(32), generate_txid(0, b"other..."), b"other")

        with pytest.raises(CorruptCatalog):
            again()
        with catalog.read() as reader:
            assert list(reader.entries(0)) == [row_of(1)]

    def test_transaction_ids_are_found(self, catalog: Catalog) -> None:
        """A keyed id is found wherever it stands, a generated one behind the head it saw."""
        keyed, other = txid_from_key("key"), txid_from_key("other")
        made = generate_txid(1, b"r" * 8)
        with catalog.write() as writer:
            append(writer, 1, keyed)
            append(writer, 2, made)
            append(writer, 3)
        with catalog.read() as reader:
            assert reader.find_txid(keyed, None) == 1
            assert reader.find_txid(other, None) is None
            assert reader.find_txid(made, 1) == 2
            assert reader.find_txid(made, 2) is None
            assert reader.find_txid(generate_txid(1, b"s" * 8), 1) is None

    def test_a_key_is_used_once(self, catalog: Catalog) -> None:
        """Two entries with one keyed transaction id cannot both be there."""
        keyed = txid_from_key("key")
        with catalog.write() as writer:
            append(writer, 1, keyed)

        def again() -> None:
            with catalog.write() as writer:
                append(writer, 2, keyed)

        with pytest.raises(CorruptCatalog):
            again()
        assert catalog.head_seq() == 1

    def test_checkpoints(self, catalog: Catalog) -> None:
        """The newest checkpoint at or before a position is given."""
        with catalog.write() as writer:
            for seq in (3, 6):
                writer.add_checkpoint(seq, hash_of(seq))
        with catalog.read() as reader:
            found = [reader.checkpoint(seq) for seq in (2, 3, 5, 6, 100)]
        third, sixth = Checkpoint(3, hash_of(3)), Checkpoint(6, hash_of(6))
        assert found == [None, third, third, sixth, sixth]

    # -- sessions, cursors, elections --------------------------------------------------------

    def test_sessions_and_cursors(self, catalog: Catalog) -> None:
        """Sessions and cursors are put, replaced, and dropped; absent ones are None."""
        one, two = SessionRow(b"1" * 16, 2**47, 3, 4, 5), SessionRow(b"2" * 16, 1, 0, 0, 6)
        changed = SessionRow(b"1" * 16, 8, 9, 10, 11)
        with catalog.write() as writer:
            writer.put_session(two)
            writer.put_session(one)
            writer.set_cursor("a", 0)
            writer.set_cursor("b", 2**60)
        with catalog.read() as reader:
            assert sorted(reader.sessions(), key=lambda row: row.id) == [one, two]
            assert (reader.session(one.id), reader.session(b"3" * 16)) == (one, None)
            assert [reader.cursor(name) for name in "abc"] == [0, 2**60, None]
        with catalog.write() as writer:
            writer.put_session(changed)
            writer.drop_session(two.id)
            writer.drop_session(b"3" * 16)
            writer.set_cursor("a", 7)
        with catalog.read() as reader:
            assert list(reader.sessions()) == [changed]
            assert reader.cursor("a") == 7

    def test_an_election_never_waits(self, catalog: Catalog) -> None:
        """A task is given to somebody at once, different tasks at once, and again when it ends."""
        for _ in range(2):
            with catalog.elect("spill") as first, catalog.elect("other") as second:
                assert first is not None
                assert second is not None
