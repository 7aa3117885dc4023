"""Transactions and batches for an event loop.

Floor 9. Written by `tools/aio.py` from the synchronous calls, whose docstrings these
are; do not edit. Invariant: a call does what the synchronous one of that name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.aio.parts import BatchParts, BranchParts, TransactionParts
from cas.aio.streams import bridged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cas.aio.streams import AsyncSource
    from cas.history.branch import OnMove, Side
    from cas.history.conflicts import MergeConflict
    from cas.model.ids import BlobId, ObjectId, TreeId
    from cas.model.objects import EntryKind, TreeEntry
    from cas.objects.batch import Batch
    from cas.objects.content import Readable


class AsyncBranch(BranchParts):
    """`BranchEdit` for an event loop."""

    async def put(
        self,
        path: str | bytes,
        content: bytes | Readable | AsyncSource,
        *,
        kind: EntryKind | None = None,
    ) -> BlobId:
        """Stage a file (or link: the content is its target) from bytes or a readable stream.

        Raises `InvalidName` beside what else is staged for a path above or below this one, where
        one of the two would have to be file and directory at once: remove the other first.
        """
        given, waits = bridged(content)
        return await self._run(
            lambda: self.sync.put(path, given, **({} if kind is None else {"kind": kind})),
            waits=waits,
        )

    async def put_entry(self, path: str | bytes, entry: TreeEntry) -> None:
        """Stage an entry whose object exists or was put in this transaction: no bytes move.

        Of a directory each directory in it is looked at, for its depth. Raises `ObjectNotFound`,
        `WrongKind`, `Invalid` when it has another size, `LimitExceeded` when paths in it would be
        longer here than a path may be, `InvalidName` as `put` does.
        """
        return await self._run(lambda: self.sync.put_entry(path, entry))

    async def put_tree(self, tree: TreeId) -> None:
        """Replace all files by those of a directory; paths staged later stand on top.

        Raises `ObjectNotFound`, `WrongKind`.
        """
        return await self._run(lambda: self.sync.put_tree(tree))

    async def clear(self) -> None:
        """Stage the removal of everything, at once."""
        return await self._run(lambda: self.sync.clear())

    async def stage_tree(self, stage: Callable[[Batch], bytes]) -> TreeId:
        """`put_tree` of the directory that `stage` puts into this transaction's batch."""
        return await self._run(lambda: self.sync.stage_tree(stage))

    async def conflicts(self) -> tuple[MergeConflict, ...]:
        """Conflicts that the branch's newest commit holds, and this transaction has not settled."""
        return await self._run(lambda: self.sync.conflicts())

    async def resolve(
        self,
        path: str | bytes,
        content: bytes | Readable | AsyncSource | None = None,
        *,
        take: Side | None = None,
    ) -> None:
        """Settle the conflict at `path`: by content, by one of its sides, or as it stands.

        Writing the path by any other call settles it too. Raises `PathNotFound` when no
        conflict stands there.
        """
        given, waits = bridged(content)
        return await self._run(lambda: self.sync.resolve(path, given, take=take), waits=waits)

    async def watch(self, path: str | bytes) -> None:
        """Tell `settle` of everything that others change below a directory, read or not."""
        return await self._run(lambda: self.sync.watch(path))

    async def unstage(self, path: str | bytes) -> None:
        """Forget what is staged at exactly this path: what others left there stands."""
        return await self._run(lambda: self.sync.unstage(path))

    async def drop(self, path: str | bytes) -> None:
        """Stage the removal of a path, whether or not something is there."""
        return await self._run(lambda: self.sync.drop(path))

    async def entry(self, path: str | bytes) -> TreeEntry | None:
        """What lies at `path`, staged edits included."""
        return await self._run(lambda: self.sync.entry(path))


class AsyncTransaction(TransactionParts):
    """`Transaction` for an event loop."""

    async def branch(
        self, name: str, *, allow_empty: bool = False, on_move: OnMove = "rebase"
    ) -> AsyncBranch:
        """The files of a branch, to read and change; a branch that is not there is made.

        `allow_empty` makes a commit even when nothing changes. If others move the branch
        meanwhile, the commit follows it where they changed nothing that was read or written
        here (its parent is then theirs, and its extra `based_on` names the commit that this
        transaction saw); with `on_move="conflict"` every move is a `RefConflict`.
        """
        made = await self._run(
            lambda: self.sync.branch(name, allow_empty=allow_empty, on_move=on_move)
        )
        return AsyncBranch(made, self._threads, self._lock)

    async def put(self, content: bytes | Readable | AsyncSource) -> BlobId:
        """Stage an object of its own; it exists when the transaction commits."""
        given, waits = bridged(content)
        return await self._run(lambda: self.sync.put(given), waits=waits)

    async def get(self, id: ObjectId) -> bytes:
        """Content of a blob, staged ones included."""
        return await self._run(lambda: self.sync.get(id))

    async def stage(self, make: Callable[[Batch], ObjectId]) -> ObjectId:
        """Let `make` put objects into this transaction's batch; gives what it gives."""
        return await self._run(lambda: self.sync.stage(make))

    async def move(self, ref: str, target: ObjectId) -> None:
        """Point a full ref name at a commit or tag that exists or is staged."""
        return await self._run(lambda: self.sync.move(ref, target))

    async def delete(self, ref: str) -> None:
        """Remove a ref by full name. Raises `RefNotFound`."""
        return await self._run(lambda: self.sync.delete(ref))

    async def tag(self, name: str, target: ObjectId, message: str = "") -> None:
        """Make a tag; with a message an annotated one, a tag object of its own."""
        return await self._run(lambda: self.sync.tag(name, target, message))

    async def event(
        self, type: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Record a domain event in the entry; a body over 256 bytes becomes a blob."""
        return await self._run(lambda: self.sync.event(type, body, headers))


class AsyncPutBatch(BatchParts):
    """`PutBatch` for an event loop."""

    async def put(self, content: bytes | Readable | AsyncSource) -> BlobId:
        """Stage a blob; it exists when the block has ended normally."""
        given, waits = bridged(content)
        return await self._run(lambda: self.sync.put(given), waits=waits)

    async def get(self, id: ObjectId) -> bytes:
        """Content of a blob, those staged here included."""
        return await self._run(lambda: self.sync.get(id))
