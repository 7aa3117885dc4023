"""What workspaces and their collections have beside the calls that are generated.

Floor 9. Invariant: a collection is looked at on a thread, each time anew: what stands for one here
has read nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from cas.aio.streams import Items
from cas.aio.threads import OnThreads, Threads
from cas.workspace.workspace import Workspace

_C = TypeVar("_C")


class CollectionParts(OnThreads, Generic[_C]):
    """`async for value in collection`, `await collection.contains(id)`."""

    def __init__(self, make: Callable[[], _C], threads: Threads) -> None:
        self._make = make
        self._threads = threads

    @property
    def sync(self) -> _C:
        """The same as of now, for threads: making it reads, so that it belongs on one."""
        return self._make()

    def __aiter__(self) -> Items[Any]:
        return Items(self._threads, lambda: iter(self.sync))  # type: ignore[call-overload]

    async def contains(self, id: str) -> bool:
        """Whether an aggregate of this id is there."""
        return await self._run(lambda: id in self.sync)  # type: ignore[operator]


class SpaceParts(OnThreads):
    """A workspace whose calls run on the threads of its store."""

    def __init__(self, space: Workspace, threads: Threads) -> None:
        self.space = space
        """The same for threads; its verb `sync` is a call here, and so this has another name."""
        self._threads = threads

    @property
    def threads(self) -> Threads:
        """The threads on which its calls run."""
        return self._threads

    def __repr__(self) -> str:
        return f"<async {self.space!r}>"
