"""Streams between an event loop and threads, in both directions.

Floor 9. Invariant: memory is bounded by what one thread reads ahead, and a stream whose other end
was cancelled ends with an error, never waits for ever.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar

from cas.aio.threads import Face, Threads
from cas.errors import Invalid
from cas.objects.content import BlobReader, Readable

_T = TypeVar("_T")

_GROUP_COUNT: Final = 64
_GROUP_BYTES: Final = 1 << 20
_PART_BYTES: Final = 1 << 20


class AsyncReadable(Protocol):
    """Anything with an awaitable `read`, as `asyncio.StreamReader` has it."""

    async def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, b"" at the end."""


AsyncSource = AsyncReadable | AsyncIterable[bytes]
"""Content that comes from the event loop."""


class Bridge:
    """Content of the event loop as a stream for a thread, part by part."""

    def __init__(self, source: AsyncSource) -> None:
        self._loop = asyncio.get_running_loop()
        self._read = source.read if hasattr(source, "read") else None
        self._parts = None if self._read is not None else aiter(source)  # type: ignore[arg-type]
        self._rest = b""
        self._cancelled = False
        self._waiting: concurrent.futures.Future[bytes] | None = None

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; called by the thread. Raises what the source raises."""
        if self._read is not None:
            return bytes(self._await(self._read(size)))
        while not self._rest:
            part = self._await(self._next())
            if part is None:
                return b""
            self._rest = part
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    async def _next(self) -> Any:
        assert self._parts is not None
        part = await anext(self._parts, None)
        if part is not None and not isinstance(part, bytes | bytearray | memoryview):
            raise Invalid(f"A stream must give bytes, not {type(part).__name__}.")
        return None if part is None else bytes(part)

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._cancelled:
            coroutine.close()
            raise _stopped()
        self._waiting = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if self._cancelled:
            self._waiting.cancel()
        try:
            return self._waiting.result()
        except concurrent.futures.CancelledError as error:
            raise _stopped() from error

    def cancel(self) -> None:
        """End the stream with an error; called in the event loop."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()


def _stopped() -> Invalid:
    return Invalid("The task that gave this content was cancelled; nothing of it was stored.")


def bridged(content: Any) -> tuple[Any, tuple[Bridge, ...]]:
    """Content as a thread can read it, and what has to be cancelled with the caller."""
    read = getattr(content, "read", None)
    if hasattr(content, "__aiter__") or asyncio.iscoroutinefunction(read):
        bridge = Bridge(content)
        return bridge, (bridge,)
    return content, ()


class Items(AsyncIterator[_T], Generic[_T]):
    """What a call gives one by one: `async for item in ...`. Made in groups, on threads.

    A cancelled wait loses nothing: what was made is given by the next one. `aclose` gives up the
    rest; leaving the loop early does so when the object is dropped.
    """

    def __init__(self, threads: Threads, make: Callable[[], Iterator[_T]]) -> None:
        self._threads = threads
        self._make = make
        self._items: Iterator[_T] | None = None
        self._made: deque[_T] = deque()
        self._over = False
        self._error: BaseException | None = None

    def __aiter__(self) -> Items[_T]:
        return self

    async def __anext__(self) -> _T:
        if not self._made and not self._over:
            await self._threads.run(self._fill)
        if self._made:
            return self._made.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration

    def _fill(self) -> None:
        size_bytes = 0
        try:
            if self._items is None:
                self._items = self._make()
            for item in self._items:
                self._made.append(item)
                size_bytes += len(item) if isinstance(item, bytes) else 0
                if len(self._made) >= _GROUP_COUNT or size_bytes >= _GROUP_BYTES:
                    return
        except BaseException as error:
            self._error = error
        self._over = True

    async def aclose(self) -> None:
        """Give up the rest."""
        self._over = True
        self._made.clear()
        close = getattr(self._items, "close", None)
        if close is not None:
            await self._threads.run(close)


class AsyncReader(Face[BlobReader], AsyncIterator[bytes]):
    """A blob as a stream: `await reader.read(n)`, or `async for part in reader`. One task."""

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self.sync.size

    def tell(self) -> int:
        """The position."""
        return self.sync.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position; nothing is read. Raises `Invalid`."""
        return self.sync.seek(offset, whence)

    async def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all that is left when negative; b"" at the end."""
        return await self._run(lambda: self.sync.read(size))

    async def __anext__(self) -> bytes:
        part = await self.read(_PART_BYTES)
        if not part:
            raise StopAsyncIteration
        return part

    def close(self) -> None:
        """Read no more."""
        self.sync.close()

    async def __aenter__(self) -> AsyncReader:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


__all__ = ["AsyncReader", "AsyncSource", "Bridge", "Items", "Readable", "bridged"]
