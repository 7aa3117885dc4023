"""Calls of the store on threads of their own, awaited.

Floor 9. Invariant: when an `await` of this room ends, however it ends, no thread still works for
it. So a call that was cancelled before a thread took it up has not happened, and one that runs is
waited for before the cancellation goes on; what it did can be asked afterwards, and what it opened
is given up.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from cas.errors import Closed, Invalid

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S")

THREADS = 8
"""Threads of one store: more readers than this wait for each other; writers do so anyway."""


class Cancellable(Protocol):
    """What a running call waits for, and stops waiting for when it is cancelled."""

    def cancel(self) -> None:
        """End the wait with an error."""


class Threads:
    """The threads of one asynchronous store. Used from one event loop."""

    def __init__(self, count_max: int = THREADS) -> None:
        if count_max < 1:
            raise Invalid(f"A store needs one thread or more, not {count_max}.")
        self._pool = ThreadPoolExecutor(count_max, "cas-aio")
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether no call runs any more."""
        return self._closed

    async def run(
        self,
        call: Callable[[], _R],
        *,
        discard: Callable[[_R], object] | None = None,
        waits: Sequence[Cancellable] = (),
    ) -> _R:
        """The result of `call`, made on a thread.

        `discard` is given a result that nobody will have, because the caller was cancelled;
        `waits` are cancelled with the caller.
        """
        if self._closed:
            raise Closed("This store was closed; open it again.")
        future = self._pool.submit(call)
        waiter = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if not future.cancel():
                for wait in waits:
                    wait.cancel()
                await _ended(waiter)
                if discard is not None:
                    await self._give_up(future, discard)
            # Nobody asks for it any more; unasked, it would be told as an error of nobody.
            with suppress(BaseException):
                waiter.exception()
            raise

    async def _give_up(self, future: Future[_R], discard: Callable[[_R], object]) -> None:
        if future.exception() is None:
            result = future.result()
            with suppress(Exception):
                await _ended(asyncio.wrap_future(self._pool.submit(discard, result)))

    async def close(self) -> None:
        """End the threads, when they have done what was asked of them."""
        if not self._closed:
            self._closed = True
            # A thread of its own: those of the pool cannot wait for themselves.
            loop = asyncio.get_running_loop()
            done = loop.create_future()

            def shut() -> None:
                self._pool.shutdown()
                loop.call_soon_threadsafe(done.set_result, None)

            closing = threading.Thread(target=shut, name="cas-aio-close", daemon=True)
            closing.start()
            await _ended(done)
            closing.join()  # it has nothing left to do but to end


async def to_the_end(work: Coroutine[Any, Any, _R]) -> _R:
    """The result of work that a cancellation must not cut short; it goes on afterwards."""
    ending = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError as error:
            if ending.cancelled():
                raise
            cancelled = error
        except BaseException:
            break  # of the work itself; it is raised below
    if cancelled is not None:
        with suppress(BaseException):
            ending.exception()
        raise cancelled
    return ending.result()


async def _ended(waiter: asyncio.Future[Any]) -> None:
    """Wait for the end of a future, through any number of cancellations."""
    while not waiter.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([waiter])


class OnThreads:
    """Something whose calls run on the threads of its store.

    `_lock`: calls wait for each other (a transaction and its branches belong to one thread at a
    time); None where any number may run.
    """

    _threads: Threads
    _lock: asyncio.Lock | None = None

    async def _run(
        self,
        call: Callable[[], _R],
        *,
        discard: Callable[[_R], object] | None = None,
        waits: Sequence[Cancellable] = (),
    ) -> _R:
        if self._lock is None:
            return await self._threads.run(call, discard=discard, waits=waits)
        async with self._lock:
            return await self._threads.run(call, discard=discard, waits=waits)


class Face(OnThreads, Generic[_S]):
    """An asynchronous view of something of the store."""

    def __init__(self, sync: _S, threads: Threads, lock: asyncio.Lock | None = None) -> None:
        self.sync = sync
        """The same thing for threads; for calls that have no asynchronous form."""
        self._threads = threads
        self._lock = lock

    def __repr__(self) -> str:
        return f"<async {self.sync!r}>"
