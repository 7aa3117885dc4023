"""The contract of the port `Catalog`, as tests that any implementation can run.

Subclass `CatalogContract` in a test module, say how a catalog is opened, and pytest does the rest:

    class TestMyCatalog(CatalogContract):
        def open_catalog(self, folder: Path, meta: Meta) -> Catalog:
            return MyCatalog(...)

`open_catalog` is called with a fresh folder and the meta of a new store for each test; it makes
the catalog where there is none. Called again with the same folder it gives another handle on
the same catalog; implementations that cannot do that set `reopens = False`. The promises stand
in `cas.catalog.catalog`; each test names the one it checks. Needs pytest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from cas.catalog.catalog import Catalog, Head, Meta, SessionRow
from cas.errors import Busy, CasError, Closed
from cas.model.entry import genesis_hash
from cas.testing.catalog_archive import CatalogArchive
from cas.testing.catalog_tables import (
    META,
    WAIT_S,
    CatalogTables,
    add_inline,
    append,
    hash_of,
    row_of,
)


def until_closed(catalog: Catalog) -> None:
    """Return when another thread has begun to close the catalog, which waits for the writer."""
    give_up = threading.Event()
    timer = threading.Timer(WAIT_S, give_up.set)
    timer.start()
    try:
        while not give_up.is_set():
            with suppress(Busy):
                catalog.inline_body(1)
        raise AssertionError("nobody closed the catalog")
    except Closed:
        return
    finally:
        timer.cancel()


class CatalogContract(CatalogTables, CatalogArchive):
    """The promises of a catalog. See the head of this module for how to use it."""

    reopens: ClassVar[bool] = True
    """Whether a second handle on the same folder sees the same catalog."""

    readers_never_block: ClassVar[bool] = True
    """Whether a reader and a writer may be open at once; only a throw-away catalog may say no."""

    def open_catalog(self, folder: Path, meta: Meta) -> Catalog:
        """A handle on the catalog of this test."""
        raise NotImplementedError

    @pytest.fixture
    def catalog(self, tmp_path: Path) -> Iterator[Catalog]:
        """The catalog under test, new."""
        opened = self.open_catalog(tmp_path, META)
        yield opened
        opened.close()

    # -- transactions ------------------------------------------------------------------------

    def test_a_new_catalog_is_empty(self, catalog: Catalog) -> None:
        """Before the first entry: sequence 0, the genesis hash of the store, no versions."""
        assert catalog.meta == META
        assert not catalog.read_only
        with catalog.read() as reader:
            assert reader.head() == Head(0, genesis_hash(META.store_id), 0, 0, 0)
            assert (list(reader.entries(0)), list(reader.packs()), list(reader.sessions())) == (
                [],
                [],
                [],
            )
            assert reader.checkpoint(10) is None
        assert catalog.head_seq() == 0
        assert list(catalog.check()) == []

    def test_a_write_is_seen_when_its_block_has_ended(self, catalog: Catalog) -> None:
        """What a block wrote is readable inside it, and by everybody once it ended normally."""
        with catalog.write() as writer:
            append(writer, 1)
            add_inline(writer, 1)
            assert writer.entry(1) == row_of(1)
            assert writer.head().seq == 1
        with catalog.read() as reader:
            assert reader.head() == Head(1, hash_of(1), 1, 0, 0)
            assert list(reader.entries(0)) == [row_of(1)]
        assert catalog.head_seq() == 1

    def test_an_exception_rolls_back_and_goes_on(self, catalog: Catalog) -> None:
        """A block that raises leaves no trace in any table, and its exception comes out."""

        def fail() -> None:
            with catalog.write() as writer:
                add_inline(writer, 1)
                append(writer, 1)
                writer.add_checkpoint(1, bytes(32))
                writer.put_session(SessionRow(b"s" * 16, 1, 0, 0, 5))
                writer.set_cursor("search", 7)
                writer.set_vector(1, 1, b"\1")
                writer.record_removal(2, 1)
                print(1 // 0)

        with pytest.raises(ZeroDivisionError):
            fail()
        with catalog.read() as reader:
            assert reader.head() == Head(0, genesis_hash(META.store_id), 0, 0, 0)
            assert not any((reader.packs(), reader.vectors(), reader.sessions()))
            assert (reader.checkpoint(1), reader.cursor("search")) == (None, None)
        with catalog.write() as writer:
            append(writer, 1)
        assert catalog.head_seq() == 1

    def test_a_block_that_writes_nothing_is_nothing(self, catalog: Catalog) -> None:
        """An empty write transaction changes no version."""
        with catalog.write():
            pass
        with catalog.read() as reader:
            assert reader.head().version == 0

    def test_a_reader_sees_one_state(self, catalog: Catalog) -> None:
        """While a block of reading lasts, commits of others do not show in it."""
        if not self.readers_never_block:
            pytest.skip("readers of this catalog block its writers (readers_never_block = False)")
        with catalog.write() as writer:
            append(writer, 1)
        with catalog.read() as reader:
            before = reader.head()
            with catalog.write() as writer:
                append(writer, 2)
                add_inline(writer, 1)
            assert reader.head() == before
            assert list(reader.entries(0)) == [row_of(1)]
            assert list(reader.packs()) == []
        with catalog.read() as reader:
            assert reader.head().seq == 2

    def test_a_reader_is_not_held_up_by_a_writer(self, catalog: Catalog) -> None:
        """While a write transaction is open, readers see the state before it, at once."""
        if not self.readers_never_block:
            pytest.skip("writers of this catalog block its readers (readers_never_block = False)")
        with catalog.write() as writer:
            append(writer, 1)
        with catalog.write() as writer:
            append(writer, 2)
            seen: list[int] = []
            thread = threading.Thread(target=lambda: seen.append(catalog.head_seq()))
            thread.start()
            thread.join(WAIT_S)
            assert seen == [1]
        assert catalog.head_seq() == 2

    def test_writes_of_threads_are_in_a_row(self, catalog: Catalog) -> None:
        """Transactions that read and write from many threads lose no update."""

        def work() -> None:
            for _ in range(20):
                with catalog.write() as writer:
                    append(writer, writer.head().seq + 1)
                    writer.set_cursor("n", (writer.cursor("n") or 0) + 1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with catalog.read() as reader:
            assert reader.cursor("n") == 80
            assert [row.seq for row in reader.entries(0)] == list(range(1, 81))

    def test_readers_beside_a_writer_see_whole_transactions(self, catalog: Catalog) -> None:
        """Readers in other threads never see half of a transaction."""
        if not self.readers_never_block:
            pytest.skip("readers of this catalog block its writers (readers_never_block = False)")
        stop = threading.Event()
        torn: list[object] = []

        def watch() -> None:
            try:
                while not stop.is_set():
                    with catalog.read() as reader:
                        seq, count = reader.head().seq, reader.cursor("n") or 0
                        if seq != count or len(list(reader.packs())) != seq:
                            torn.append((seq, count))
            except BaseException as error:
                torn.append(error)

        threads = [threading.Thread(target=watch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for seq in range(1, 101):
            with catalog.write() as writer:
                writer.set_cursor("n", seq)
                add_inline(writer, seq)
                append(writer, seq)
        stop.set()
        for thread in threads:
            thread.join()
        assert torn == []

    # -- handles -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "use",
        [
            lambda catalog: catalog.read().__enter__(),
            lambda catalog: catalog.write().__enter__(),
            lambda catalog: catalog.inline_body(1),
            lambda catalog: catalog.head_seq(),
        ],
    )
    def test_a_closed_catalog_refuses(
        self, catalog: Catalog, use: Callable[[Catalog], object]
    ) -> None:
        """After close, which may be called twice, everything says Closed."""
        catalog.close()
        catalog.close()
        with pytest.raises(Closed):
            use(catalog)

    def test_closing_beside_writers_is_told(self, catalog: Catalog) -> None:
        """Writers that wait their turn while the catalog is closed are told Closed."""
        ends: list[str] = []
        inside, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with catalog.write() as writer:
                writer.set_cursor("held", 1)
                inside.set()
                leave.wait(WAIT_S)

        def wait() -> None:
            try:
                with catalog.write() as writer:
                    writer.set_cursor("waited", 1)
                ends.append("wrote")
            except BaseException as error:
                ends.append(type(error).__name__)

        holder = threading.Thread(target=hold)
        holder.start()
        assert inside.wait(WAIT_S)
        threads = [threading.Thread(target=wait) for _ in range(3)]
        threads.append(threading.Thread(target=catalog.close))
        for thread in threads:
            thread.start()
        until_closed(catalog)
        leave.set()
        for thread in (holder, *threads):
            thread.join(WAIT_S)
        assert ends == ["Closed"] * 3

    def test_another_handle_sees_the_same(self, catalog: Catalog, tmp_path: Path) -> None:
        """What one handle committed another one sees; a task elected by one is not the other's."""
        if not self.reopens:
            pytest.skip("this catalog lives in one handle (reopens = False)")
        with catalog.write() as writer:
            append(writer, 1)
            add_inline(writer, 1)
        other = self.open_catalog(tmp_path, META)
        try:
            assert other.meta == META
            assert (other.head_seq(), other.inline_body(1)) == (1, b"body 1")
            with other.write() as writer:
                append(writer, 2)
            assert catalog.head_seq() == 2
            with catalog.elect("spill") as mine, other.elect("spill") as theirs:
                assert mine is not None
                assert theirs is None
                mine.leave(b"a note")
            with other.elect("spill") as theirs:
                assert theirs is not None
                assert theirs.note == b"a note"
                theirs.leave(b"")
            with catalog.elect("spill") as mine:
                assert mine is not None
                assert mine.note == b""
        finally:
            other.close()
        catalog.close()
        again = self.open_catalog(tmp_path, META)
        assert again.head_seq() == 2
        assert list(again.check()) == []
        again.close()

    def test_a_number_is_held_until_it_is_given_up(self, catalog: Catalog, tmp_path: Path) -> None:
        """`hold`: others see it as long as it is held, and not while its handle lives on."""
        if not self.reopens:
            pytest.skip("this catalog lives in one handle (reopens = False)")
        other = self.open_catalog(tmp_path, META)
        first, second = catalog.hold(7), catalog.hold(8)
        assert (other.is_held(7), other.is_held(8), other.is_held(9)) == (True, True, False)
        first()
        assert (other.is_held(7), other.is_held(8)) == (False, True)
        second()
        assert other.is_held(8) is False
        other.close()

    def test_two_handles_write_in_turn(self, catalog: Catalog, tmp_path: Path) -> None:
        """Writers of two handles never lose an update to each other."""
        if not self.reopens:
            pytest.skip("this catalog lives in one handle (reopens = False)")
        other = self.open_catalog(tmp_path, META)
        odd: list[CasError] = []

        def work(handle: Catalog) -> None:
            try:
                for _ in range(40):
                    with handle.write() as writer:
                        writer.set_cursor("n", (writer.cursor("n") or 0) + 1)
            except CasError as error:
                odd.append(error)

        threads = [threading.Thread(target=work, args=(h,)) for h in (catalog, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with other.read() as reader:
            assert (odd, reader.cursor("n")) == ([], 80)
        other.close()
