"""What the faces have beside the calls that are generated from the synchronous ones.

Floor 9. Invariant: a transaction has ended when its block has, also when its task was cancelled;
`entry` says what it committed, and where even that is not known, `txid` is what to ask with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, Self, TypeVar

from cas.aio.streams import Items
from cas.aio.threads import Face, Threads, to_the_end
from cas.history.branch import BranchEdit
from cas.history.core import PutBatch
from cas.history.snapshot import Snapshot
from cas.history.transaction import Transaction
from cas.history.view import View
from cas.model.entry import Entry
from cas.model.ids import CommitId, TreeId
from cas.model.objects import Commit


class Ends(Protocol):
    """What ends by a commit or a rollback."""

    @property
    def txid(self) -> bytes:
        """The transaction id."""

    def commit(self) -> Entry:
        """Make everything visible and durable."""

    def rollback(self) -> None:
        """Forget everything; harmless behind an end."""


_E = TypeVar("_E", bound=Ends)


class SnapshotParts(Face[Snapshot]):
    """`await snapshot["a/b"]`, `async for path in snapshot`, `await snapshot.size()`."""

    @property
    def tree(self) -> TreeId:
        """The directory."""
        return self.sync.tree

    @property
    def commit(self) -> Commit | None:
        """The commit, None for a directory by itself."""
        return self.sync.commit

    @property
    def id(self) -> CommitId | None:
        """The commit's id."""
        return self.sync.id

    def __getitem__(self, path: str) -> Awaitable[bytes]:
        return self._run(lambda: self.sync[path])

    def __aiter__(self) -> Items[str]:
        return Items(self._threads, lambda: iter(self.sync))

    async def get(self, path: str, /, default: bytes | None = None) -> bytes | None:
        """The content at a path, or `default` where nothing is; what is missing of the store is
        raised.
        """
        return await self._run(lambda: self.sync.get(path, default))

    async def contains(self, path: str | bytes) -> bool:
        """Whether a file or link is there."""
        return await self._run(lambda: path in self.sync)

    async def count(self) -> int:
        """How many files and links there are."""
        return await self._run(lambda: len(self.sync))

    async def size(self) -> int:
        """Bytes of all files and links."""
        return await self._run(lambda: self.sync.size)


class ViewParts(Face[View]):
    """A view is about one state."""

    @property
    def seq(self) -> int:
        """The entry this view stands after; 0 before the first."""
        return self.sync.seq


class BranchParts(Face[BranchEdit]):
    """Reading and removing files, beside `put`."""

    @property
    def ref(self) -> str:
        """Full name of the branch."""
        return self.sync.ref

    def __getitem__(self, path: str | bytes) -> Awaitable[bytes]:
        return self._run(lambda: self.sync[path])

    def __aiter__(self) -> Items[str]:
        # Made whole: a transaction may go on between two of them.
        return Items(self._threads, lambda: iter(list(self.sync)))

    async def get(self, path: str, /, default: bytes | None = None) -> bytes | None:
        """The content at a path, or `default` where nothing is; what is missing of the store is
        raised.
        """
        return await self._run(lambda: self.sync.get(path, default))

    async def contains(self, path: str | bytes) -> bool:
        """Whether a file or link is there."""
        return await self._run(lambda: path in self.sync)

    async def remove(self, path: str | bytes) -> None:
        """Stage a removal. Raises `PathNotFound`."""
        await self._run(lambda: self.sync.__delitem__(path))

    async def count(self) -> int:
        """How many files and links there are."""
        return await self._run(lambda: len(self.sync))


class BatchParts(Face[PutBatch]):
    """Puts that become durable together."""


class Ending(Face[_E]):
    """How a transaction or a unit of work ends. Its calls wait for each other; one task should use
    it.
    """

    def __init__(self, sync: _E, threads: Threads, lock: asyncio.Lock | None = None) -> None:
        super().__init__(sync, threads, lock or asyncio.Lock())
        self.entry: Entry | None = None
        """What was committed, None until then. After a cancelled `commit` it tells: an entry when
        the commit had gone through, None when it had not, unless `unknown` is set.
        """
        self.unknown = False
        """Whether the commit ended without an answer: then the outcome of `txid` tells, which the
        store is asked for that it commits in.
        """

    @property
    def txid(self) -> bytes:
        """The transaction id, 16 bytes."""
        return self.sync.txid

    async def commit(self) -> Entry:
        """Make everything visible and durable; gives the journal entry. Raises as the synchronous
        one does.

        When the task is cancelled: before a thread has begun the commit, nothing is committed and
        all is rolled back; after, it is waited for, and `entry` tells how it ended.
        """
        return await self._run(self._commit)

    def _commit(self) -> Entry:
        self.unknown = True
        try:
            self.entry = self.sync.commit()
        except BaseException as error:
            self.unknown = getattr(error, "code", "outcome-unknown") == "outcome-unknown"
            raise
        self.unknown = False
        return self.entry

    async def rollback(self) -> None:
        """Forget everything staged; harmless when said twice, or after a commit."""
        await self._run(self.sync.rollback)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Nobody else would roll back, so a cancellation does not pass before the end.
        await to_the_end(self._run(self.sync.rollback))


class TransactionParts(Ending[Transaction]):
    """What a transaction says of itself, and how it ends."""

    @property
    def author(self) -> str:
        """Who commits."""
        return self.sync.author

    @property
    def message(self) -> str:
        """What the commits and the entry say."""
        return self.sync.message
