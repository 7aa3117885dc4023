"""Durable subscriptions on an event loop: an event takes effect once, wherever a task is ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import cas
import cas.aio
from cas.aio import AsyncUnitOfWork, AsyncWorkspace, Delivery
from cas.errors import AggregateConflict, AggregateNotFound, Busy, HistoryLost, Invalid
from cas.limits import WORK_ATTEMPTS_MAX
from tests.unit.aio.support import cancel_at, run, threads


async def say(space: AsyncWorkspace, *numbers: int) -> None:
    """Record events, one an entry."""
    for number in numbers:
        async with space.unit_of_work("ada") as uow:
            await uow.event("x.said", {"n": number})
            await uow.commit()


async def remember(event: cas.DomainEvent, uow: AsyncUnitOfWork) -> None:
    """Make a memory of an event; one that is there already would be refused."""
    await uow.memories.note("seen", id=f"m{event.data['n']}", agent="a")


async def seen(space: AsyncWorkspace) -> list[str]:
    """The memories that were made."""
    return [memory.id async for memory in space.memories]


def test_events_are_handed_out_one_by_one_and_acknowledged(tmp_path: Path) -> None:
    """Events that wait and those that come later are given in order; what a block stages and the
    position become visible together at its end, and a new subscription of the name goes on there.
    """

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            await say(space, 0, 1)
            later = asyncio.ensure_future(_later(space, 2))
            async with cas.aio.subscribe(space, "r", ["x.*"]) as events:
                assert events.name == "r"
                async for delivery in events:
                    async with delivery as uow:
                        await remember(delivery.event, uow)
                        assert len(await seen(space)) == delivery.event.data["n"]
                    assert delivery.done
                    if delivery.event.data["n"] == 2:
                        break
                assert await seen(space) == ["m0", "m1", "m2"]
                assert (await events.saved()).handled_count == 3
                position = await events.position()
            await later
            again = cas.aio.subscribe(space, "r", ["x.*"])
            assert await again.position() == position
            assert await again.poll(remember) == 0
            assert [event.cause for event in cas.Workspace(store.sync).events()] == [None] * 3

    run(main())


async def _later(space: AsyncWorkspace, *numbers: int) -> None:
    await asyncio.sleep(0.05)
    await say(space, *numbers)


def test_a_failing_block_comes_again_and_becomes_a_dead_letter(tmp_path: Path) -> None:
    """An error in a block commits nothing; after the last attempt the event is a dead letter and
    the next one follows; a retry that succeeds takes the letter away.
    """

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            await say(space, 0, 1)
            tried: list[tuple[int, int]] = []
            async with cas.aio.subscribe(space, "r", attempts_max=2) as events:
                async for delivery in events:
                    number = delivery.event.data["n"]
                    tried.append((number, delivery.attempt))
                    async with delivery as uow:
                        await remember(delivery.event, uow)
                        if number == 0:
                            raise ValueError("no")
                    if number == 1:
                        break
                assert tried == [(0, 1), (0, 2), (1, 1)]
                assert await seen(space) == ["m1"]
                (letter,) = [each async for each in events.dead_letters()]
                assert (letter.id, letter.attempts, letter.error) == ("r@1.0", 2, "ValueError: no")

                async def fails(_event: cas.DomainEvent, _uow: AsyncUnitOfWork) -> None:
                    raise KeyError

                with pytest.raises(KeyError):
                    await events.retry(letter, fails)
                with pytest.raises(Invalid, match="not of 'other'"):
                    await cas.aio.subscribe(space, "other").retry(letter, remember)
                await events.retry(letter, remember)
                with pytest.raises(AggregateNotFound):
                    await events.retry(letter, remember)
                assert await seen(space) == ["m0", "m1"]
                assert [each async for each in events.dead_letters()] == []

    run(main())


def test_poll_takes_coroutines_and_functions(tmp_path: Path) -> None:
    """A handler may be a coroutine function or a plain one; several events share a commit, one that
    fails is found among them, and the store that is busy is no fault of the event.
    """

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            await say(space, *range(5))

            async def picky(event: cas.DomainEvent, uow: AsyncUnitOfWork) -> None:
                await remember(event, uow)
                if event.data["n"] == 2:
                    raise ValueError("no")

            events = cas.aio.subscribe(space, "r")
            assert await events.poll(picky, batch_count=3, limit=4) == 4
            assert await events.poll(picky, batch_count=3) == 1
            assert await seen(space) == ["m0", "m1", "m3", "m4"]
            assert (await events.saved()).dead_count == 1
            heard: list[str] = []
            await events.rewind(0)
            assert await events.poll(lambda event, _uow: heard.append(event.id), limit=2) == 2
            assert len(heard) == 2

            def busy(_event: cas.DomainEvent, _uow: AsyncUnitOfWork) -> None:
                raise Busy("busy")

            before = await events.saved()
            with pytest.raises(Busy):
                await events.poll(busy)
            delivery = await anext(events)
            with pytest.raises(Busy):
                async with delivery:
                    raise Busy("busy")
            assert await events.saved() == before
            await events.aclose()

    run(main())


def test_a_cancelled_task_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Cancelled at whatever turn of the loop, a task that handles events leaves each of them either
    handled as a whole or still to come, and no thread behind.
    """

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            numbers = list(range(12))
            await say(space, *numbers)

            async def iterate() -> None:
                async with cas.aio.subscribe(space, "r") as events:
                    async for delivery in events:
                        async with delivery as uow:
                            await remember(delivery.event, uow)

            async def poll() -> None:
                await cas.aio.subscribe(space, "r").poll(remember)

            for ticks in range(60):
                await cancel_at(iterate if ticks % 2 else poll, ticks // 2)
                saved = await cas.aio.subscribe(space, "r").saved()
                assert len(await seen(space)) == saved.handled_count
                assert saved.dead_count == 0
            await cas.aio.subscribe(space, "r").poll(remember)
            assert len(await seen(space)) == len(numbers)

    run(main())
    assert threads() == []


def test_an_interrupted_wait_ends_and_goes_on(tmp_path: Path) -> None:
    """A wait ends with its time, with what comes (of another handle, too), when the subscription is
    closed and when the store is; it can be cancelled and said again.
    """

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            async with cas.aio.subscribe(space, "r") as events:
                assert not await events.wait(0.02)
                waiting = asyncio.ensure_future(events.wait())
                await asyncio.sleep(0.02)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                async with cas.aio.open(tmp_path / "s") as other:
                    later = asyncio.ensure_future(_later(cas.aio.workspace(other), 0))
                    assert await events.wait(30)
                    await later
                assert await events.poll(remember) == 1
                waiting = asyncio.ensure_future(events.wait())
                await asyncio.sleep(0.02)
                await events.aclose()
                assert not await waiting
                assert [each async for each in events] == []
            last = cas.aio.subscribe(space, "s", ["none"])
            ends = asyncio.ensure_future(_all(last))
            running = cas.aio.subscribe(space, "t")
            going = asyncio.ensure_future(running.run(remember))
            await asyncio.sleep(0.05)
            await running.aclose()
            assert await going == 1
        assert await ends == []

    run(main())


async def _all(events: cas.aio.AsyncSubscription) -> list[Delivery]:
    return [each async for each in events]


def test_workers_of_one_name_take_turns(tmp_path: Path) -> None:
    """Of several tasks with one subscription, through two handles, one handles each event."""

    async def main() -> None:
        async with (
            cas.aio.open(tmp_path / "s", create=True) as store,
            cas.aio.open(tmp_path / "s") as other,
        ):
            spaces = [cas.aio.workspace(each) for each in (store, other, store)]
            await say(spaces[0], *range(10))
            done: list[int] = []

            workers = [cas.aio.subscribe(each, "r") for each in spaces]

            async def work(events: cas.aio.AsyncSubscription) -> None:
                async for delivery in events:
                    await remember(delivery.event, delivery.uow)
                    if await delivery.ack():
                        done.append(delivery.event.data["n"])
                    if len(done) == 10:
                        for each in workers:
                            await each.aclose()

            await asyncio.gather(*map(work, workers))
            assert sorted(done) == list(range(10))
            assert len(await seen(spaces[0])) == 10

    run(main())


def test_a_delivery_ends_once(tmp_path: Path) -> None:
    """The next event is not given before one has ended, and none ends twice; what was neither
    acknowledged nor failed when the subscription is closed comes again.
    """

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            await say(space, 0, 1)
            async with cas.aio.subscribe(space, "r") as events:
                first = await anext(events)
                with pytest.raises(Invalid, match="neither acknowledged nor failed"):
                    await anext(events)
                async with first as uow:
                    await remember(first.event, uow)
                    assert await first.ack()
                with pytest.raises(Invalid, match="has ended"):
                    await first.ack()
                with pytest.raises(Invalid, match="has ended"):
                    await first.fail(ValueError())
                second = await anext(events)
                assert not await second.fail(ValueError("not yet"))
                second = await anext(events)
                assert second.attempt == 2
            async with cas.aio.subscribe(space, "r") as events:
                assert (await anext(events)).event.data["n"] == 1
            with pytest.raises(Invalid):
                cas.aio.subscribe(space, "r", attempts_max=0)
            with pytest.raises(Invalid):
                cas.aio.subscribe(space, "r", "x.said")

    run(main())


def test_effects_lie_in_another_store(tmp_path: Path) -> None:
    """With a target, events of one store take effect in the other, each once, and the dead letter
    of a source that was set back is told.
    """

    async def main() -> None:
        async with (
            cas.aio.open(tmp_path / "s", create=True) as store,
            cas.aio.open(tmp_path / "t", create=True) as other,
        ):
            here, there = cas.aio.workspace(store), cas.aio.workspace(other)
            await say(here, 0, 1)
            async with cas.aio.subscribe(here, "r", target=there, attempts_max=1) as events:
                async for delivery in events:
                    async with delivery as uow:
                        if delivery.event.data["n"] == 0:
                            raise ValueError("no")
                        await remember(delivery.event, uow)
                    if delivery.event.data["n"] == 1:
                        break
                assert (await seen(here), await seen(there)) == ([], ["m1"])
                (letter,) = [each async for each in events.dead_letters()]
                with pytest.raises(HistoryLost, match=r"no event x\.said at 9"):
                    await events.retry(letter.evolve(seq=9, index=-1), remember)
                await events.retry(letter, remember)
            assert await seen(there) == ["m0", "m1"]

    run(main())


def test_what_can_never_commit_becomes_a_dead_letter(tmp_path: Path) -> None:
    """A block or a handler that raises conflicts, or whose commit is refused each time because it
    changes what it has read, is not gone through for ever.
    """

    async def disturb(event: cas.DomainEvent, uow: AsyncUnitOfWork, space: AsyncWorkspace) -> None:
        if event.data["n"] % 2:
            raise AggregateConflict("no", type="t", id="i", conflicts=(), removed="")
        await uow.sprints.get("s")
        async with space.unit_of_work("b") as beside:
            sprint = await beside.sprints.get("s")
            await beside.sprints.save(sprint.note("again"))
            await beside.commit()

    async def main() -> None:
        async with cas.aio.open(tmp_path / "s", create=True) as store:
            space = cas.aio.workspace(store)
            async with space.unit_of_work("ada") as uow:
                await uow.sprints.add(cas.Sprint(id="s", name="S"))
                await uow.commit()
            await say(space, 0, 1, 2, 3, 4)
            async with cas.aio.subscribe(space, "r", ["x.*"]) as events:
                async for delivery in events:
                    async with delivery as uow:
                        if delivery.event.data["n"] == 4:
                            break
                        await disturb(delivery.event, uow, space)
                letters = [each async for each in events.dead_letters()]
                assert [each.seq for each in letters] == [2, 3, 4, 5]
            poller = cas.aio.subscribe(space, "p", ["x.*"])
            assert await poller.poll(lambda e, u: disturb(e, u, space), batch_count=2) == 5
            letters = [each async for each in poller.dead_letters()]
            assert [each.attempts for each in letters] == [WORK_ATTEMPTS_MAX] * 5

    run(main())
