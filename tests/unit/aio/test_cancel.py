"""Cancellation at every await: committed or not, and it says which; nothing leaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import cas
import cas.aio
from cas.aio import AsyncStore, AsyncTransaction
from cas.aio.threads import Threads
from cas.history.transaction import Transaction
from tests.unit.aio.support import cancel_at, run


async def checked(store: AsyncStore, tx: AsyncTransaction) -> bool:
    """What became of a transaction: its own word, and the journal's, which must agree."""
    entry = await store.outcome(tx.txid)
    assert not tx.unknown
    assert tx.entry == entry
    return entry is not None


def test_a_commit_that_is_cancelled_anywhere_tells_how_it_ended(tmp_path: Path) -> None:
    """At any turn of the loop: the entry is there or it is not, and `tx.entry` says the same."""

    async def main() -> set[bool]:
        outcomes: set[bool] = set()
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            for ticks in range(60):
                held: list[AsyncTransaction] = []

                async def work(n: int = ticks, held: list[AsyncTransaction] = held) -> None:
                    async with store.begin(author="ada") as tx:
                        held.append(tx)
                        edit = await tx.branch("main")
                        await edit.put("n", b"%d" % n)
                        await asyncio.sleep(0.001 * (n % 3))
                        await tx.commit()

                await cancel_at(work, ticks * 2)
                if held:
                    outcomes.add(await checked(store, held[0]))
                    with pytest.raises(cas.errors.Closed):
                        held[0].sync.put(b"x")
            # The store is as good as ever.
            async with store.begin() as tx:
                await (await tx.branch("main")).put("last", b"1")
                await tx.commit()
        return outcomes

    run(main())
    with cas.open(tmp_path / "s") as store:
        assert [entry.seq for entry in store.journal()] == list(range(1, store.view().seq + 1))


class Held:
    """A commit that waits in its thread until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()
        real = Transaction.commit

        def commit(tx: Transaction) -> cas.Entry:
            if after:
                entry = real(tx)
                self.wait()
                return entry
            self.wait()
            return real(tx)

        monkeypatch.setattr(Transaction, "commit", commit)

    def wait(self) -> None:
        self.reached.set()
        assert self.go.wait(30)


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_that_runs_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """A cancelled task whose commit has begun ends when the commit has, and knows its entry."""
    held = Held(monkeypatch, after=after)

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            tx = await store.begin()
            await (await tx.branch("main")).put("a", b"1")
            task = asyncio.ensure_future(tx.commit())
            while not held.reached.is_set():
                await asyncio.sleep(0.001)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0.005)
            assert not task.done()
            held.go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await checked(store, tx)

    run(main())


def test_a_commit_that_has_not_begun_does_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that waits for a free thread is taken back at once, and its transaction too."""
    held = Held(monkeypatch, after=False)

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True, threads=1) as store:
            first, second = await store.begin(), await store.begin()
            await (await first.branch("one")).put("a", b"1")
            await (await second.branch("two")).put("a", b"1")
            one = asyncio.ensure_future(first.commit())
            while not held.reached.is_set():
                await asyncio.sleep(0.001)
            two = asyncio.ensure_future(second.commit())
            await asyncio.sleep(0.005)
            two.cancel()
            with pytest.raises(asyncio.CancelledError):
                await two
            assert second.entry is None
            held.go.set()
            await one
            assert not await checked(store, second)
            await second.rollback()
            assert [ref.short for ref in await store.branches()] == ["one"]

    run(main())


def test_what_a_cancelled_call_opened_is_given_up(tmp_path: Path) -> None:
    """A begin or an open whose caller is gone leaves no transaction and no store behind."""
    begun: list[Transaction] = []

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            real = store.sync.begin

            def slow(**how: str) -> Transaction:
                threading.Event().wait(0.02)
                begun.append(real(**how))  # type: ignore[arg-type]
                return begun[-1]

            store.sync.begin = slow  # type: ignore[method-assign, assignment]
            task = asyncio.ensure_future(store._begin("", "", None))
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (tx,) = begun
            with pytest.raises(cas.errors.Closed):
                tx.put(b"x")
        for ticks in range(12):
            cancelled, store = await cancel_at(lambda: cas.aio.open(tmp_path / "s")._make(), ticks)
            if not cancelled:
                assert isinstance(store, AsyncStore)
                await store.close()

    run(main())


@pytest.mark.parametrize("what", ["put", "edit", "batch"])
def test_a_stream_is_cut_off_with_its_caller(tmp_path: Path, what: str) -> None:
    """A source that never ends, or never goes on, ends with the task; nothing of it is stored."""

    async def endless(stop: bool) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(3600 if stop else 0)

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:

            async def work(stop: bool) -> None:
                if what == "put":
                    await store.put(endless(stop))
                elif what == "batch":
                    async with store.batch() as batch:
                        await batch.put(b"in a batch that ends early")
                        await batch.put(endless(stop))
                else:
                    async with store.begin() as tx:
                        await (await tx.branch("main")).put("x", endless(stop))
                        await tx.commit()

            for stop in (True, False):
                task = asyncio.ensure_future(work(stop))
                await asyncio.sleep(0.03)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await store.view()).seq == 0
            assert await store.put(b"still works")

    run(main())
    with cas.open(tmp_path / "s") as store:
        from cas.maintenance.fsck.check import fsck

        assert not [f for f in fsck(store).findings if f.severity.name != "NOTICE"]


def test_every_call_can_be_cancelled_at_every_turn(tmp_path: Path) -> None:
    """Reads, iterations, batches, followers: cancelled anywhere, the store goes on unharmed."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True, threads=2) as store:
            async with store.begin() as tx:
                edit = await tx.branch("main")
                for n in range(80):
                    await edit.put(f"f{n}", b"%d" % n)
                await tx.commit()

            async def reads() -> None:
                snapshot = await store.snapshot("main")
                assert [path async for path in snapshot]
                assert await snapshot["f3"] == b"3"
                async with await snapshot.open("f3") as reader:
                    assert await reader.read() == b"3"

            async def batches() -> None:
                async with store.batch() as batch:
                    await batch.put(b"1")
                    await batch.put(b"2" * 3000)

            async def follows() -> None:
                async with store.follow(0) as entries:
                    assert (await anext(entries)).seq == 1

            async def changes() -> None:
                await store.pin("main", "kept")
                await store.unpin("main")

            for work in (reads, batches, follows, changes):
                for ticks in range(0, 40, 3):
                    cancelled, result = await cancel_at(work, ticks)
                    if not cancelled and result is not None:
                        assert isinstance(result, cas.NotFound), result
            await store.pin("main")
            await reads()

    run(main())


def test_a_cancelled_wait_loses_no_item(tmp_path: Path) -> None:
    """An iteration that was cancelled goes on where it was: each item once, in order."""

    async def main() -> None:
        async with cas.aio.open(":memory:") as store:
            for n in range(150):
                async with store.begin() as tx:
                    await (await tx.branch("main")).put("n", b"%d" % n)
                    await tx.commit()
            journal = store.journal()
            got: list[int] = []
            for ticks in range(2000):
                cancelled, entry = await cancel_at(lambda: anext(journal, None), ticks % 7)
                if not cancelled:
                    if entry is None:
                        break
                    got.append(entry.seq)  # type: ignore[union-attr]
            assert got == list(range(1, 151))

    run(main())


def test_a_block_that_is_cancelled_twice_still_ends(tmp_path: Path) -> None:
    """However often a task is cancelled, its transaction is rolled back before it is gone."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True, threads=1) as store:
            held: list[AsyncTransaction] = []

            async def work() -> None:
                async with store.begin() as tx:
                    held.append(tx)
                    await (await tx.branch("main")).put("x", b"1" * 100_000)
                    await asyncio.sleep(3600)

            task = asyncio.ensure_future(work())
            while not held:
                await asyncio.sleep(0.001)
            busy = asyncio.ensure_future(store.call(lambda: threading.Event().wait(0.05)))
            await asyncio.sleep(0.01)
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0.002)
            with pytest.raises(asyncio.CancelledError):
                await task
            await busy
            with pytest.raises(cas.errors.Closed):
                held[0].sync.put(b"x")

    run(main())


def test_threads_that_are_closed_refuse() -> None:
    """A call after the end of the threads is an error, not a wait."""

    async def main() -> None:
        pool = Threads(1)
        assert await pool.run(lambda: 7) == 7
        await pool.close()
        with pytest.raises(cas.errors.Closed):
            await pool.run(lambda: 7)

    run(main())
