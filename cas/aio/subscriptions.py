"""Durable subscriptions for an event loop: events with their units of work, acknowledged.

Floor 9. Invariant: an event takes effect exactly once, because the position moves in the commit of
its unit of work; a task that is cancelled before that commit has done nothing, and the event comes
again. Nothing holds a thread while nothing comes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from cas.aio.moves import Moves
from cas.aio.spaces import AsyncUnitOfWork, AsyncWorkspace
from cas.aio.streams import Items
from cas.aio.threads import Face, to_the_end
from cas.errors import Closed, Invalid, Unavailable
from cas.limits import HANDLER_ATTEMPTS_MAX, WORK_ATTEMPTS_MAX
from cas.workspace.events import DomainEvent, Position
from cas.workspace.subscriptions import (
    CONFLICTS,
    DeadLetter,
    EventSubscription,
    Saved,
    check_handler,
)
from cas.workspace.subscriptions import subscribe as subscribe_on_threads
from cas.workspace.work import UnitOfWork

AsyncHandler = Callable[[DomainEvent, AsyncUnitOfWork], Awaitable[object] | object]
"""What is done about an event, a coroutine function or a plain one. What it stages in the unit of
work is committed with the position; for an effect elsewhere it must bear being called twice."""


_Taken = tuple[Position, DomainEvent, UnitOfWork]


def _drop(taken: _Taken | None) -> None:
    if taken is not None:
        taken[2].rollback()


class Delivery:
    """An event that was handed out, with the unit of work that takes it off. One task.

    `async with delivery as uow` acknowledges it at the end of the block; a block that ends with an
    error counts as an attempt, and the event comes again, or becomes a dead letter after the last.
    Otherwise say `ack` or `fail`.
    """

    def __init__(
        self,
        owner: AsyncSubscription,
        before: Position,
        event: DomainEvent,
        uow: AsyncUnitOfWork,
        attempt: int,
    ) -> None:
        self.before = before
        """Where the subscription stood."""
        self.event = event
        self.uow = uow
        self.attempt = attempt
        """1 when it is handed out for the first time by this subscription."""
        self.done = False
        """Whether it took effect, or became a dead letter, by this delivery."""
        self._owner = owner
        self._given_up = False

    def __repr__(self) -> str:
        return f"<Delivery {self.event.id} {self.event.type}, attempt {self.attempt}>"

    async def ack(self) -> bool:
        """Commit what was staged, and move on; whether it took effect.

        False when another one was faster, or when what was read has changed: then what waits now
        comes next; and when the subscription was closed meanwhile. Raises what a commit raises.
        """
        if self._given_up:
            return False
        self._owner.ends(self)
        try:
            await self.uow.commit()
        except CONFLICTS as error:
            refused = error
        else:
            return True
        finally:
            # After a cancellation, too, the entry tells whether the commit had gone through.
            self.done = self.uow.entry is not None
            await to_the_end(self.uow.rollback())
        self.done = await self._owner.refused(self.before, self.event, refused)
        return False

    async def fail(self, error: BaseException) -> bool:
        """Nothing of it is committed; whether the event is a dead letter now, because this was the
        last attempt. Else it comes again.
        """
        if self._given_up:
            return False
        self._owner.ends(self)
        await to_the_end(self.uow.rollback())
        self.done = await self._owner.failed(self, error)
        return self.done

    async def give_up(self) -> None:
        """Commit nothing: the event comes again."""
        self._given_up = True
        await to_the_end(self.uow.rollback())

    async def __aenter__(self) -> AsyncUnitOfWork:
        return self.uow

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not self._owner.holds(self):
            return False  # ended in the block
        if error is None:
            try:
                await self.ack()
            except Exception as failure:
                if isinstance(failure, Unavailable | Closed):
                    raise
                # As if the block had ended with it: a unit of work that can never commit.
                self.done = await self._owner.failed(self, failure)
            return False
        if isinstance(error, Exception) and not isinstance(error, Unavailable | Closed):
            if isinstance(error, CONFLICTS):
                self._owner.ends(self)
                await to_the_end(self.uow.rollback())
                self.done = await self._owner.refused(self.before, self.event, error)
            else:
                await self.fail(error)
            return True
        self._owner.ends(self)
        await to_the_end(self.uow.rollback())
        return False


class AsyncSubscription(Face[EventSubscription], AsyncIterator[Delivery]):
    """A named reader of the event log. Make one with `cas.aio.subscribe`; one task uses it, any
    number of tasks and processes may have one of the same name.

    `async for delivery in subscription` gives the events that wait and those to come, one at a
    time; it ends when the subscription or its store is closed.
    """

    def __init__(self, sync: EventSubscription, space: AsyncWorkspace) -> None:
        super().__init__(sync, space.threads)
        self._moves: Moves | None = None
        self._closed = False
        self._open: Delivery | None = None
        # Where a handler has failed, and how often.
        self._failed: tuple[Position, int] = (Position(), 0)

    @property
    def name(self) -> str:
        """Its name."""
        return self.sync.name

    async def saved(self) -> Saved:
        """Where it stands, and how much it has handled."""
        return await self._run(lambda: self.sync.saved)

    async def position(self) -> Position:
        """The position behind what was handled."""
        return await self._run(lambda: self.sync.position)

    # -- one by one --------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        if self._open is not None:
            raise Invalid(
                f"The event {self._open.event.id} was neither acknowledged nor failed; use `async "
                "with delivery`, or say `await delivery.ack()`, before the next is asked for."
            )
        try:
            moves = await self._listening()
            while not self._closed:
                moves.look()
                delivery = await self._deliver()
                if delivery is not None:
                    self._open = delivery
                    return delivery
                await moves.wait()
        except Closed:
            pass  # its store was closed, perhaps while this look was under way
        await self.aclose()
        raise StopAsyncIteration

    async def _listening(self) -> Moves:
        if self._moves is None:
            self._moves = Moves(self.sync.source.store, self._threads)
            await self._moves.begin()
        self._moves.often()
        return self._moves

    async def _deliver(self) -> Delivery | None:
        """The next event, in the hands of a new unit of work; None where none waits."""
        made = await self._run(self._take, discard=_drop)
        if made is None:
            return None
        before, event, uow = made
        known = self._failed[1] if self._failed[0] == event.position else 0
        return Delivery(self, before, event, AsyncUnitOfWork(uow, self._threads), known + 1)

    def _take(self) -> _Taken | None:
        while True:
            before, events = self.sync.waiting()
            if not events:
                return None
            try:
                return before, events[0], self.sync.begin(before, events)
            except CONFLICTS:
                continue  # another one was faster, so that something else waits

    def holds(self, delivery: Delivery) -> bool:
        """Whether this delivery still waits for its end."""
        return self._open is delivery

    def ends(self, delivery: Delivery) -> None:
        """Hand out others from now on. Raises `Invalid` for a delivery that has ended."""
        if self._open is not delivery:
            raise Invalid(f"The delivery of {delivery.event.id} has ended; ask for the next one.")
        self._open = None

    async def failed(self, delivery: Delivery, error: BaseException) -> bool:
        """Count an attempt; whether it was the last, and the event a dead letter by it."""
        attempt = delivery.attempt
        self._failed = (delivery.event.position, attempt)
        if attempt < self.sync.attempts_max:
            return False
        bury = partial(self.sync.bury, delivery.before, delivery.event, attempt, error)
        return await self._run(bury)

    async def refused(self, before: Position, event: DomainEvent, error: BaseException) -> bool:
        """Count a conflict; whether it was one too many, and the event is a dead letter by it."""
        if not self.sync.refused(before):
            return False
        bury = partial(self.sync.bury, before, event, WORK_ATTEMPTS_MAX, error)
        return await self._run(bury)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until an event is there to be handled; whether one is. False when the time is over
        (None: any time), or the subscription was closed. Raises `Closed` with its store.
        """
        loop = asyncio.get_running_loop()
        end_s = None if timeout_s is None else loop.time() + timeout_s
        moves = await self._listening()
        while not self._closed:
            moves.look()
            if (await self._run(self.sync.waiting))[1]:
                return True
            try:
                async with asyncio.timeout_at(end_s):
                    await moves.wait()
            except TimeoutError:
                return False
        return False

    # -- many --------------------------------------------------------------------------------

    async def poll(
        self, handler: AsyncHandler, *, limit: int | None = None, batch_count: int = 1
    ) -> int:
        """Hand out the events that wait, each in a commit with the position; how many there were.

        With `batch_count` so many share a commit. A handler that raises is tried again, and then
        its event becomes a dead letter; `Unavailable` (busy, disk full) is passed on instead. When
        the task is cancelled, the event that its handler is at is not handled, or all of it is.
        """
        check_handler(handler)
        count = 0
        while limit is None or count < limit:
            most = batch_count if limit is None else min(batch_count, limit - count)
            position, events = await self._run(partial(self.sync.waiting, most))
            if not events:
                return count
            count += await self._handle(handler, events, position)
        return count

    async def _handle(
        self, handler: AsyncHandler, events: Sequence[DomainEvent], position: Position
    ) -> int:
        attempts = 0
        while True:
            attempts += 1
            try:
                return await self._commit(handler, events, position)
            except CONFLICTS as error:
                # Another one was faster, or what the handler read has changed: look again.
                if len(events) == 1:
                    return int(await self.refused(position, events[0], error))
                if not self.sync.refused(position):
                    return 0
                events = events[:1]
            except (Unavailable, Closed):
                raise
            except Exception as error:
                if len(events) > 1:
                    # One of them fails: find out which, by themselves.
                    events, attempts = events[:1], 0
                elif attempts >= self.sync.attempts_max:
                    bury = partial(self.sync.bury, position, events[0], attempts, error)
                    return int(await self._run(bury))

    async def _commit(
        self, handler: AsyncHandler, events: Sequence[DomainEvent], position: Position
    ) -> int:
        begin = partial(self.sync.begin, position, events)
        made = await self._run(begin, discard=lambda uow: uow.rollback())
        async with AsyncUnitOfWork(made, self._threads) as uow:
            for event in events:
                await _called(handler, event, uow)
            await uow.commit()
        return len(events)

    async def run(self, handler: AsyncHandler) -> int:
        """Poll, wait for more, and go on until the subscription is closed or the task cancelled;
        how many events were handled.
        """
        check_handler(handler)
        count = 0
        while await self.wait():
            count += await self.poll(handler)
        return count

    # -- what failed -------------------------------------------------------------------------

    def dead_letters(self) -> Items[DeadLetter]:
        """The events of this subscription that nobody could handle."""
        return Items(self._threads, self.sync.dead_letters)

    async def retry(self, letter: DeadLetter, handler: AsyncHandler) -> None:
        """Hand a dead letter out once more; when that succeeds it is gone. Raises what the handler
        raises; `Invalid`, `AggregateNotFound`, `HistoryLost`.
        """
        check_handler(handler)
        made = await self._run(
            lambda: self.sync.again(letter), discard=lambda found: found[1].rollback()
        )
        event, unit = made
        async with AsyncUnitOfWork(unit, self._threads) as uow:
            await _called(handler, event, uow)
            await uow.commit()

    async def rewind(self, to: Position | int | str = 0, *, actor: str = "") -> None:
        """Hand out again what is behind a position: replay. Also skips forward. Raises
        `EntryNotFound` for an entry that the source does not have.
        """
        await self._run(lambda: self.sync.rewind(to, actor=actor))

    async def aclose(self) -> None:
        """Wait no more; an iteration ends. What was handed out and not acknowledged comes again."""
        self._closed = True
        if self._moves is not None:
            self._moves.close()
        delivery, self._open = self._open, None
        if delivery is not None and not self._threads.closed:
            await delivery.give_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def _called(handler: AsyncHandler, event: DomainEvent, uow: AsyncUnitOfWork) -> None:
    result = handler(event, uow)
    if inspect.isawaitable(result):
        await result


def subscribe(
    source: AsyncWorkspace,
    name: str,
    types: Collection[str] | None = None,
    *,
    target: AsyncWorkspace | None = None,
    attempts_max: int = HANDLER_ATTEMPTS_MAX,
    where: Callable[[DomainEvent], bool] | None = None,
) -> AsyncSubscription:
    """A subscription of this name; it begins at the first event, or where it was left.

    All as in `cas.subscribe`: a position belongs to the name, whether it is read here or there.
    `where` is called on a thread.
    """
    sync = subscribe_on_threads(
        source.space,
        name,
        types,
        target=None if target is None else target.space,
        attempts_max=attempts_max,
        where=where,
    )
    return AsyncSubscription(sync, source if target is None else target)
