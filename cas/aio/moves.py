"""When to look at the journal again, for an event loop.

Floor 9. Invariant: nothing holds a thread while nothing comes; a commit of this handle wakes at
once, those of others are told by the catalog where it can, seen by a mark within 15 ms on one host,
and else looked for at intervals that grow from 5 to 250 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cas.aio.threads import Threads
from cas.errors import CasError
from cas.history.store import Store
from cas.history.watch import GLANCE_MS, POLL_MAX_MS, POLL_MIN_MS, TOLD_MS, Subscription


def soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call in the loop, unless it is over."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)


class Moves:
    """Waits until the journal may have grown: `begin` once; then `look`, look, `wait`. One task."""

    def __init__(self, store: Store, threads: Threads) -> None:
        self._store = store
        self._threads = threads
        self._moved = asyncio.Event()
        self._closed = False
        self._pause_ms = float(POLL_MIN_MS)
        # The catalog's mark at the last look.
        self._mark = 0
        self._subscription: Subscription | None = None
        self._told: Callable[[], None] | None = None

    async def begin(self) -> None:
        """Be told from now on."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            soon(loop, self._moved.set)

        self._subscription = self._store.on_commit(lambda _: wake())
        listen = self._store.objects.catalog.listen
        told = await self._threads.run(lambda: listen(wake), discard=_end)
        if self._closed:
            _end(told)
        else:
            self._told = told
        # What came before somebody listened is looked for once more.
        self._moved.set()

    def often(self) -> None:
        """Begin again with short intervals: something was found."""
        self._pause_ms = float(POLL_MIN_MS)

    def look(self) -> None:
        """What comes from now on is perhaps not seen by the look that follows."""
        self._moved.clear()
        self._mark = self._glance()

    def _glance(self) -> int:
        try:
            return self._store.objects.catalog.mark()
        except CasError:
            # Who looks will be told.
            return 0

    async def wait(self) -> None:
        """Until there may be more, or it is time to look, or `close`."""
        if self._closed:
            return
        pause_ms = self._pause_ms if self._told is None else TOLD_MS
        step_ms = pause_ms if self._store.objects.catalog.is_distant else GLANCE_MS
        while pause_ms > 0:
            try:
                async with asyncio.timeout(min(step_ms, pause_ms) / 1000):
                    await self._moved.wait()
                return
            except TimeoutError:
                pause_ms -= step_ms
            if self._glance() != self._mark:
                return
        self._pause_ms = min(2 * self._pause_ms, POLL_MAX_MS)

    def close(self) -> None:
        """Be told no more; a wait ends."""
        self._closed = True
        self._moved.set()
        if self._subscription is not None:
            self._subscription.close()
        told, self._told = self._told, None
        _end(told)


def _end(told: Callable[[], None] | None) -> None:
    if told is not None:
        told()
