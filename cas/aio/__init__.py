"""The asyncio face: the same calls as the store's own, awaited.

`async with cas.aio.open(path) as store`. Each call of `Store`, `View`, `Snapshot`, `Transaction`
and what `tx.branch` gives has its asynchronous form here under the same name. Calls run on a
bounded number of threads; an `await` that was cancelled ends when its thread has, so that nothing
goes on behind the caller's back.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cas.aio.reading import AsyncSnapshot, AsyncView
from cas.aio.store import AsyncFollower, AsyncStore, open
from cas.aio.streams import AsyncReader, AsyncSource, Items
from cas.aio.writing import AsyncBranch, AsyncPutBatch, AsyncTransaction

if TYPE_CHECKING:
    from cas.aio.spaces import (
        AsyncUnitOfWork,
        AsyncWorkspace,
        AsyncWorkspaceView,
        workspace,
    )
    from cas.aio.subscriptions import AsyncSubscription, Delivery, subscribe
    from cas.aio.unitcalls import (
        AsyncArtifacts,
        AsyncCollection,
        AsyncUnitArtifacts,
        AsyncUnitCollection,
        AsyncUnitMemories,
    )

# Who has no workspace need not load one.
_LATER = {
    **dict.fromkeys(
        (
            "AsyncArtifacts",
            "AsyncCollection",
            "AsyncUnitArtifacts",
            "AsyncUnitCollection",
            "AsyncUnitMemories",
        ),
        "unitcalls",
    ),
    **dict.fromkeys(
        ("AsyncUnitOfWork", "AsyncWorkspace", "AsyncWorkspaceView", "workspace"), "spaces"
    ),
    **dict.fromkeys(("AsyncSubscription", "Delivery", "subscribe"), "subscriptions"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'cas.aio' has no attribute {name!r}")
    value = getattr(import_module(f"cas.aio.{_LATER[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "AsyncArtifacts",
    "AsyncBranch",
    "AsyncCollection",
    "AsyncFollower",
    "AsyncPutBatch",
    "AsyncReader",
    "AsyncSnapshot",
    "AsyncSource",
    "AsyncStore",
    "AsyncSubscription",
    "AsyncTransaction",
    "AsyncUnitArtifacts",
    "AsyncUnitCollection",
    "AsyncUnitMemories",
    "AsyncUnitOfWork",
    "AsyncView",
    "AsyncWorkspace",
    "AsyncWorkspaceView",
    "Delivery",
    "Items",
    "open",
    "subscribe",
    "workspace",
]
