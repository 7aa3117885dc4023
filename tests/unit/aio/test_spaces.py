"""The workspace on an event loop: what the synchronous one does, and cancelled anywhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import cas
import cas.aio
from cas.aio import AsyncUnitOfWork, AsyncWorkspace
from cas.errors import AcrossStores, AggregateConflict, AggregateNotFound, Closed
from cas.workspace.folders import FolderReport
from tests.unit.aio.support import cancel_at, run

SPRINT = cas.Sprint(id="s1", name="One")


async def parts() -> AsyncIterator[bytes]:
    """Content that comes from the loop."""
    for number in range(3):
        await asyncio.sleep(0)
        yield b"%d" % number


async def note(space: AsyncWorkspace, id: str, text: str = "text") -> cas.Entry:
    """Remember something."""
    async with space.unit_of_work("ada") as uow:
        await uow.memories.note(text, id=id)
        return await uow.commit()


def test_a_round_through_the_workspace(tmp_path: Path) -> None:
    """Units of work, collections, views, events, links and branches, all awaited."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            async with space.unit_of_work("ada", "begin") as uow:
                sprint = await uow.sprints.add(SPRINT)
                await uow.sprints.save(sprint.start(datetime(2026, 9, 1, tzinfo=UTC)))
                report = await uow.artifacts.put("a.txt", parts(), cites=[sprint])
                await uow.memories.note("remember", id="m1", source=report)
                await uow.event("sprint.started", {"id": "s1"}, about=sprint)
                assert [each.id async for each in uow.sprints.find()] == ["s1"]
                entry = await uow.commit()
            assert uow.entry == entry
            assert (await space.sprints.get("s1")).state == "active"
            assert await space.artifacts.read("a.txt") == b"012"
            async with await space.artifacts.open("a.txt") as stream:
                assert await stream.read() == b"012"
            assert [memory.id async for memory in space.memories] == ["m1"]
            assert [id async for id in space.memories.ids()] == ["m1"]
            assert await space.memories.contains("m1")
            assert [event.type async for event in space.events()] == ["sprint.started"]
            (link,) = (await space.artifacts.get("a.txt")).made_from
            assert (await space.resolve(link.loose)).id == "s1"
            then = await space.now()
            await note(space, "m2")
            assert [id async for id in then.memories.ids()] == ["m1"]
            at = await space.at(entry.seq)
            assert (at.seq, await at.memories.contains("m2")) == (entry.seq, False)
            assert [v.author async for v in space.sprints.history("s1")] == ["ada"]
            mine = await space.branch("try/a", actor="ada")
            await note(mine, "m3")
            assert not await space.memories.contains("m3")
            await space.merge("try/a", actor="ada")
            assert await space.memories.contains("m3")
            with pytest.raises(AggregateNotFound):
                await space.sprints.get("none")

            def work(uow: cas.UnitOfWork) -> str:
                return uow.memories.note("by run", id="m4").id

            assert await space.run(work, "ada") == "m4"

    run(main())


def test_a_unit_that_is_left_rolls_back_and_conflicts_are_raised(tmp_path: Path) -> None:
    """Leaving the block without a commit leaves nothing; two edits that no rule merges are told."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            async with space.unit_of_work("ada") as uow:
                await uow.sprints.add(SPRINT)
            assert uow.entry is None
            assert not await space.sprints.contains("s1")
            async with space.unit_of_work("ada") as uow:
                await uow.save(SPRINT)
                await uow.commit()
            one, two = await space.unit_of_work("ada"), await space.unit_of_work("bob")
            for uow, name in ((one, "a"), (two, "b")):
                await uow.sprints.save((await uow.sprints.get("s1")).evolve(name=name))
            await one.commit()
            with pytest.raises(AggregateConflict):
                await two.commit()
            assert (two.entry, two.unknown) == (None, False)

    run(main())


def test_a_unit_that_is_cancelled_anywhere_tells_how_it_ended(tmp_path: Path) -> None:
    """At any turn of the loop: the entry is there or it is not, `uow.entry` says the same, and
    the unit has ended.
    """

    async def main() -> set[bool]:
        outcomes: set[bool] = set()
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            for ticks in range(60):
                held: list[AsyncUnitOfWork] = []

                async def work(n: int = ticks, held: list[AsyncUnitOfWork] = held) -> None:
                    async with space.unit_of_work("ada") as uow:
                        held.append(uow)
                        await uow.memories.note("text", id=f"m{n}")
                        await asyncio.sleep(0.001 * (n % 3))
                        await uow.commit()

                await cancel_at(work, ticks * 2)
                there = await space.memories.contains(f"m{ticks}")
                if not held:
                    assert not there
                    continue
                assert not held[0].unknown
                assert held[0].entry == await store.outcome(held[0].txid)
                assert there == (held[0].entry is not None)
                outcomes.add(there)
                with pytest.raises(Closed):
                    held[0].sync.memories.note("x")
            await note(space, "last")
        return outcomes

    assert run(main()) == {True, False}


def test_contexts_of_other_stores_are_reached(tmp_path: Path) -> None:
    """A context that lives elsewhere is read and written by the same face, and closed with it."""
    cas.open(tmp_path / "far", create=True).close()
    opened: list[cas.Store] = []

    def places(address: str) -> cas.Store:
        opened.append(cas.open(address))
        return opened[-1]

    async def main() -> None:
        async with (
            cas.aio.open(tmp_path / "s", create=True) as store,
            cas.aio.workspace(store, places=places) as space,
        ):
            await space.declare(cas.Context(id="memory", place="far"), "ada")
            await note(space, "m1")
            assert await space.memories.contains("m1")
            there = await space.place("memory")
            assert there.space.store is opened[0]
            async with space.unit_of_work("ada") as uow:
                await uow.sprints.add(SPRINT)
                with pytest.raises(AcrossStores):
                    await uow.memories.note("x")

    run(main())
    with pytest.raises(Closed):
        opened[0].view()


def test_a_watch_ends_with_its_task(tmp_path: Path) -> None:
    """Reports come in the loop; a task that is cancelled ends the watch, and no thread is left."""

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            await space.checkout(tmp_path / "work", actor="ada")
            loop, heard = asyncio.get_running_loop(), asyncio.Event()
            stop = threading.Event()

            def told(report: FolderReport) -> None:
                assert asyncio.get_running_loop() is loop
                heard.set()

            how: dict[str, Any] = {"actor": "ada", "on_report": told, "stop": stop}
            watching = asyncio.ensure_future(space.watch(tmp_path / "work", interval_ms=10, **how))
            (tmp_path / "work" / "a.txt").write_bytes(b"outside")
            await heard.wait()
            assert await space.artifacts.read("a.txt") == b"outside"
            watching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watching
            assert stop.is_set()
            assert (await space.status(tmp_path / "work")).clean

    run(main())
