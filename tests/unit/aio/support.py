"""Shared by the tests of the asyncio face: running, cancelling at every step, what is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end within a minute; nothing may be left of it."""

    async def bounded() -> _T:
        async with asyncio.timeout(60):
            return await main

    result = asyncio.run(bounded(), debug=True)
    assert threads() == []
    return result


def threads() -> list[str]:
    """Names of the threads of asynchronous stores that are alive."""
    return [t.name for t in threading.enumerate() if t.name.startswith("cas-aio")]


async def cancel_at(
    work: Callable[[], Awaitable[_T]], ticks: int
) -> tuple[bool, _T | BaseException | None]:
    """Run `work` as a task and cancel it after so many turns of the loop.

    Gives whether it was cancelled, and its result or error.
    """
    task = asyncio.ensure_future(work())
    for _ in range(ticks):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    try:
        return False, await task
    except asyncio.CancelledError:
        return True, None
    except Exception as error:
        return False, error
