"""The asyncio face: the same calls as the store's own, awaited.

`async with cas.aio.open(path) as store`. Each call of `Store`, `View`, `Snapshot`, `Transaction`
and what `tx.branch` gives has its asynchronous form here under the same name. Calls run on a
bounded number of threads; an `await` that was cancelled ends when its thread has, so that nothing
goes on behind the caller's back.
"""

from __future__ import annotations

from cas.aio.reading import AsyncSnapshot, AsyncView
from cas.aio.store import AsyncFollower, AsyncStore, open
from cas.aio.streams import AsyncReader, AsyncSource, Items
from cas.aio.writing import AsyncBranch, AsyncPutBatch, AsyncTransaction

__all__ = [
    "AsyncBranch",
    "AsyncFollower",
    "AsyncPutBatch",
    "AsyncReader",
    "AsyncSnapshot",
    "AsyncSource",
    "AsyncStore",
    "AsyncTransaction",
    "AsyncView",
    "Items",
    "open",
]
