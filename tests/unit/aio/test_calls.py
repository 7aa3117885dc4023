"""The asyncio face does what the synchronous calls do, and streams both ways."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import cas.aio
from cas.aio import AsyncFollower, AsyncStore
from cas.errors import Closed, Invalid, ObjectNotFound, PathNotFound, RefConflict, StoreNotFound
from cas.model.entry import Entry
from tests.unit.aio.support import run, threads

BIG = bytes(range(256)) * 60_000


async def commit(store: AsyncStore, branch: str = "main", **files: bytes) -> Entry:
    """Commit files to a branch."""
    async with store.begin(author="ada") as tx:
        edit = await tx.branch(branch)
        for name, content in files.items():
            await edit.put(name, content)
        return await tx.commit()


def test_a_round_through_the_store(tmp_path: Path) -> None:
    """Objects, commits, views, history and the journal, all awaited."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            blob = await store.put(b"hello")
            assert await store.get(blob) == b"hello"
            assert await store.has(blob)
            await commit(store, a=b"1", b=b"2")
            entry = await commit(store, a=b"3")
            snapshot = await store.snapshot("main")
            assert await snapshot["a"] == b"3"
            found = await snapshot.get("a"), await snapshot.get("nowhere", b"no")
            assert found == (b"3", b"no")
            assert [path async for path in snapshot] == ["a", "b"]
            assert (await snapshot.count(), await snapshot.contains("c")) == (2, False)
            assert await snapshot.size() == 2
            old = await store.snapshot("main~1")
            changes = [change async for change in store.diff(old, snapshot)]
            assert [(str(c.kind), c.path) for c in changes] == [("modified", "a")]
            assert [c.path async for c in old.diff(snapshot)] == ["a"]
            assert len([c async for c in store.log("main")]) == 2
            assert [e.seq async for e in store.journal()] == [1, entry.seq]
            view = await store.at(1)
            assert await (await view.snapshot("main"))["a"] == b"1"
            assert view.seq == 1
            assert (await store.outcome(entry.txid)) == entry
            assert [ref.short for ref in await store.branches()] == ["main"]
            assert (store.read_only, len(store.id)) == (False, 32)
            with pytest.raises(ObjectNotFound):
                await store.get("ab" * 32)
            with pytest.raises(PathNotFound):
                await snapshot["nowhere"]

    run(main())


def test_a_branch_in_a_transaction(tmp_path: Path) -> None:
    """Staged files are read, listed and removed before anybody else sees them."""

    async def main() -> None:
        async with cas.aio.open(":memory:") as store:
            await commit(store, a=b"1", b=b"2")
            async with store.begin() as tx:
                edit = await tx.branch("main")
                await edit.put("c", b"3")
                await edit.remove("a")
                assert [path async for path in edit] == ["b", "c"]
                assert await edit["c"] == b"3"
                assert (await edit.contains("a"), await edit.count()) == (False, 2)
                assert edit.ref == "heads/main"
            assert await (await store.snapshot("main")).count() == 2
            async with store.begin(message="m") as tx:
                await (await tx.branch("main")).put("d", b"4")
                await tx.event("made", b"body")
                assert (tx.message, tx.author, len(tx.txid)) == ("m", "", 16)
                assert tx.entry is None
                assert tx.entry == await tx.commit() or tx.entry is not None
            with pytest.raises(Closed):
                await tx.commit()

    run(main())


def test_streams_go_in_from_the_loop(tmp_path: Path) -> None:
    """Async generators, asyncio's own readers and plain files are taken in part by part."""

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(BIG), 100_003):
            await asyncio.sleep(0)
            yield BIG[at : at + 100_003]

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            wanted = await store.put(BIG)
            assert await store.put(parts()) == wanted
            reader = asyncio.StreamReader()
            reader.feed_data(BIG)
            reader.feed_eof()
            assert await store.put(reader) == wanted
            assert await store.put(io.BytesIO(BIG)) == wanted
            async with store.begin() as tx:
                await (await tx.branch("main")).put("big", parts())
                await tx.commit()
            entry = await (await store.snapshot("main")).entry("big")
            assert entry is not None
            assert entry.id == wanted

    run(main())


def test_a_source_that_fails_is_an_error_of_the_call(tmp_path: Path) -> None:
    """What a source raises comes out of the call, and nothing of it is stored."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise RuntimeError("torn")

    async def wrong() -> AsyncIterator[object]:
        yield "text"

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            with pytest.raises(RuntimeError, match="torn"):
                await store.put(broken())
            with pytest.raises(Invalid):
                await store.put(wrong())  # type: ignore[arg-type]
            async with store.batch() as batch:
                good = await batch.put(b"good")
            assert await store.get(good) == b"good"

    run(main())


def test_streams_come_out_to_the_loop(tmp_path: Path) -> None:
    """A blob is read in parts, from any position, while other calls go on."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            id = await store.put(BIG)
            async with await store.open(id) as reader:
                assert (reader.size, reader.tell()) == (len(BIG), 0)
                assert await reader.read(10) == BIG[:10]
                assert b"".join([part async for part in reader]) == BIG[10:]
                reader.seek(5)
                assert await reader.read() == BIG[5:]
            ids = [await store.put(b"%d" % n) for n in range(300)]
            assert [c async for c in store.get_many(ids)] == [b"%d" % n for n in range(300)]

    run(main())


def test_many_tasks_share_a_store(tmp_path: Path) -> None:
    """Tasks commit and read beside each other, on no more threads than were allowed."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True, threads=3) as store:

            async def work(number: int) -> None:
                for n in range(5):
                    await commit(store, f"b{number}", n=b"%d" % n)
                    assert await (await store.snapshot(f"b{number}"))["n"] == b"%d" % n

            seen = 0
            tasks = [asyncio.ensure_future(work(number)) for number in range(10)]
            while not all(task.done() for task in tasks):
                seen = max(seen, len(threads()))
                await asyncio.sleep(0.001)
            await asyncio.gather(*tasks)
            assert 1 < seen <= 3
            assert len(await store.branches()) == 10

    run(main())


def test_calls_of_one_transaction_wait_for_each_other(tmp_path: Path) -> None:
    """Tasks that share a transaction do not break it: its calls never run at once."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            async with store.begin() as tx:
                edit = await tx.branch("main")
                await asyncio.gather(*(edit.put(f"f{n}", b"%d" % n * 1000) for n in range(100)))
                await tx.commit()
            assert await (await store.snapshot("main")).count() == 100

    run(main())


def test_conflicts_are_raised(tmp_path: Path) -> None:
    """A ref that moved is the same typed error as ever."""

    async def main() -> None:
        async with cas.aio.open(":memory:") as store:
            await commit(store, a=b"1")
            first = await store.resolve("main")
            await commit(store, a=b"2")
            async with store.begin() as tx:
                await tx.move("heads/main", first)
                await commit(store, a=b"3")
                with pytest.raises(RefConflict):
                    await tx.commit()
                assert (tx.entry, tx.unknown) == (None, False)

    run(main())


def test_callbacks_come_in_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Functions and coroutine functions hear of commits in the loop; their errors are logged."""

    async def main() -> None:
        heard: list[tuple[str, int, bool]] = []
        done = asyncio.Event()
        here = threading.get_ident()

        def plain(entry: Entry) -> None:
            heard.append(("plain", entry.seq, threading.get_ident() == here))

        async def slow(entry: Entry) -> None:
            await asyncio.sleep(0)
            heard.append(("slow", entry.seq, threading.get_ident() == here))
            done.set()
            raise RuntimeError("late")

        def broken(entry: Entry) -> None:
            raise RuntimeError("early")

        async with cas.aio.open(":memory:") as store:
            for callback in (broken, plain, slow):
                store.on_commit(callback)
            with pytest.raises(Invalid):
                store.on_commit(None)  # type: ignore[arg-type]
            await commit(store, a=b"1")
            await done.wait()
            await asyncio.sleep(0)
        assert sorted(heard) == [("plain", 1, True), ("slow", 1, True)]

    with caplog.at_level(logging.WARNING, logger="cas"):
        run(main())
    assert "early" in caplog.text
    assert "late" in caplog.text


def test_followers_hold_no_thread(tmp_path: Path) -> None:
    """More followers than threads wait at once, and each hears of every entry."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True, threads=2) as store:
            await commit(store, a=b"0")

            followers: list[AsyncFollower] = []

            async def listen(after: int | None) -> list[int]:
                got: list[int] = []
                async with store.follow(after) as entries:
                    followers.append(entries)
                    async for entry in entries:
                        got.append(entry.seq)
                        if entry.seq == 4:
                            return got
                return got

            tasks = [asyncio.ensure_future(listen(n % 2 or None)) for n in range(10)]
            # One that begins later follows from a later entry on.
            while sum(follower._moves._subscription is not None for follower in followers) < 10:
                await asyncio.sleep(0.001)
            for n in range(3):
                await commit(store, a=b"%d" % (n + 1))
            assert await asyncio.gather(*tasks) == [[2, 3, 4]] * 10
            last = store.follow()
            task = asyncio.ensure_future(anext(last, None))
            await asyncio.sleep(0.05)
            await last.aclose()
            assert await task is None

    run(main())


def test_a_closed_store_refuses_and_holds_nothing(tmp_path: Path) -> None:
    """After `close` calls are refused, followers end, no thread is left; closing twice is fine."""

    async def main() -> None:
        store = await cas.aio.open(tmp_path / "s", create=True)
        follower = store.follow()
        task = asyncio.ensure_future(anext(follower, None))
        await asyncio.sleep(0.02)
        await store.close()
        await store.close()
        assert await task is None
        with pytest.raises(Closed):
            await store.branches()
        with pytest.raises(StoreNotFound):
            await cas.aio.open(tmp_path / "nowhere")
        with pytest.raises(Invalid):
            await cas.aio.open(":memory:", threads=0)

    run(main())


def test_iteration_can_be_left(tmp_path: Path) -> None:
    """An iterator that is closed gives no more; an error of the call comes at the first item."""

    async def main() -> None:
        async with cas.aio.open(":memory:") as store:
            for n in range(100):
                await commit(store, n=b"%d" % n)
            log = store.log("main")
            await anext(log)
            await log.aclose()
            assert await anext(log, None) is None
            with pytest.raises(cas.NotFound):
                await anext(store.log("nowhere"))

    run(main())
