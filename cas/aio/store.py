"""A store for an event loop.

Floor 9. Invariant: what is open is given up when its block ends, however it ends, and no thread is
left behind by a store that was closed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from cas.aio.calls import StoreCalls
from cas.aio.moves import Moves, soon
from cas.aio.threads import THREADS, Threads, to_the_end
from cas.aio.writing import AsyncPutBatch, AsyncTransaction
from cas.assembly import open as open_store
from cas.clock import Clock
from cas.errors import Invalid
from cas.history.core import warn
from cas.history.store import Store
from cas.history.watch import Follower, Subscription
from cas.model.entry import Entry

_R = TypeVar("_R")
_T = TypeVar("_T", bound="_Block")


class _Block(Protocol):
    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Opening(Generic[_T]):
    """What is opened by `await`, or by `async with` and then closed at the end of the block."""

    def __init__(self, make: Callable[[], Awaitable[_T]]) -> None:
        self._make = make
        self._made: _T | None = None

    def __await__(self) -> Generator[Any, None, _T]:
        return self._make().__await__()

    async def __aenter__(self) -> _T:
        self._made = await self._make()
        await self._made.__aenter__()
        return self._made

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._made is not None
        await self._made.__aexit__(kind, error, trace)


class AsyncFollower(AsyncIterator[Entry]):
    """Entries of everybody as they come: `async for entry in store.follow()`. One task.

    Nothing holds a thread while nothing comes. Ends when it or its store is closed.
    """

    def __init__(self, store: AsyncStore, after: int | None) -> None:
        self._store = store
        self._after = after
        self._follower: Follower | None = None
        self._moves = Moves(store.sync, store.threads)
        self._closed = False

    def __aiter__(self) -> AsyncFollower:
        return self

    async def __anext__(self) -> Entry:
        self._moves.often()
        while not self._closed and not self._store.closed:
            if self._follower is None:
                self._follower = await self._store.call(
                    partial(self._store.sync.follow, self._after)
                )
                await self._moves.begin()
                continue
            self._moves.look()
            entry = await self._store.call(partial(self._follower.poll, 0))
            if entry is not None:
                return entry
            await self._moves.wait()
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Follow no more; an iteration that waits ends."""
        self._closed = True
        self._moves.close()
        if self._follower is not None:
            self._follower.close()

    async def __aenter__(self) -> AsyncFollower:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncStore(StoreCalls):
    """A store for one event loop. Open one with `cas.aio.open`."""

    def __init__(self, sync: Store, threads: Threads) -> None:
        super().__init__(sync, threads)
        self.closed = False
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def id(self) -> str:
        """The store's own id, 32 hex digits."""
        return self.sync.id

    @property
    def location(self) -> str:
        """Where it is."""
        return self.sync.location

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self.sync.read_only

    @property
    def threads(self) -> Threads:
        """The threads on which its calls run."""
        return self._threads

    async def call(self, work: Callable[[], _R]) -> _R:
        """Run anything on a thread of the store: `await store.call(lambda: f(store.sync))`."""
        return await self._run(work)

    def begin(
        self, *, author: str = "", message: str = "", key: str | None = None
    ) -> Opening[AsyncTransaction]:
        """Begin a transaction on the newest state: `async with store.begin() as tx`.

        `key` is an idempotency key: a retry with the same key and the same request commits once,
        and gives the entry of the first time. After a cancelled `commit` ask `tx.entry`, or a
        later process `await store.outcome(txid)`.
        """
        return Opening(lambda: self._begin(author, message, key))

    async def _begin(self, author: str, message: str, key: str | None) -> AsyncTransaction:
        made = await self._threads.run(
            lambda: self.sync.begin(author=author, message=message, key=key),
            discard=lambda tx: tx.rollback(),
        )
        return AsyncTransaction(made, self._threads, None)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[AsyncPutBatch]:
        """Puts that become durable together, and exist for others, when the block ends."""
        manager = self.sync.batch()
        batch = await self._threads.run(
            manager.__enter__,
            discard=lambda _: manager.__exit__(*_as_left(asyncio.CancelledError())),
        )
        try:
            yield AsyncPutBatch(batch, self._threads, asyncio.Lock())
        except BaseException as error:
            left = _as_left(error)
            await to_the_end(self._threads.run(lambda: manager.__exit__(*left)))
            raise
        else:
            await to_the_end(self._threads.run(lambda: manager.__exit__(None, None, None)))

    def on_commit(self, callback: Callable[[Entry], object]) -> Subscription:
        """Call `callback(entry)` in this event loop after each entry that this store committed.

        A coroutine function is started as a task. What it raises is logged and changes nothing.
        Call it from the loop.
        """
        loop = asyncio.get_running_loop()
        if not callable(callback):
            raise Invalid(f"A callback is a function of an entry, not {callback!r}.")
        return self.sync.on_commit(lambda entry: soon(loop, lambda: self._told(callback, entry)))

    def _told(self, callback: Callable[[Entry], object], entry: Entry) -> None:
        try:
            result = callback(entry)
            if asyncio.iscoroutine(result):
                task = asyncio.ensure_future(result)
                self._tasks.add(task)
                task.add_done_callback(lambda done: self._ended(done, entry))
        except Exception as error:
            warn(f"a callback failed after entry {entry.seq}: {error!r}")

    def _ended(self, task: asyncio.Future[Any], entry: Entry) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            warn(f"a callback failed after entry {entry.seq}: {error!r}")

    def follow(self, after: int | None = None) -> AsyncFollower:
        """Entries behind `after` (behind the newest one unless said), and then those to come.

        Those of everybody: other handles, other processes.
        """
        return AsyncFollower(self, after)

    async def close(self) -> None:
        """Give up every handle and every thread; harmless when called twice."""
        if not self.closed:
            self.closed = True
            await to_the_end(self._close())

    async def _close(self) -> None:
        try:
            await self._threads.run(self.sync.close)
        finally:
            await self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _as_left(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    return type(error), error, error.__traceback__


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    read_only: bool = False,
    bucket: str | None = None,
    clock: Clock | None = None,
    threads: int = THREADS,
) -> Opening[AsyncStore]:
    """Open the store in a folder: `async with cas.aio.open(path) as store`.

    At most `threads` calls run at a time, others wait. The rest as in `cas.open`.
    """

    async def make() -> AsyncStore:
        pool = Threads(threads)
        try:
            sync = await pool.run(
                lambda: open_store(
                    path, create=create, read_only=read_only, bucket=bucket, clock=clock
                ),
                discard=lambda store: store.close(),
            )
        except BaseException:
            await to_the_end(pool.close())
            raise
        return AsyncStore(sync, pool)

    return Opening(make)
