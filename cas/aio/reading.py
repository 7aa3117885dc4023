"""Views and snapshots for an event loop.

Floor 9. Written by `tools/aio.py` from the synchronous calls, whose docstrings these
are; do not edit. Invariant: a call does what the synchronous one of that name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.aio.parts import SnapshotParts, ViewParts
from cas.aio.streams import AsyncReader, Items

if TYPE_CHECKING:
    from cas.history.blame import BlamedEntry, BlamedLine
    from cas.history.horizon import Thinning
    from cas.history.snapshot import Change, Snapshot
    from cas.history.view import Ref
    from cas.model.ids import CommitId, ObjectId
    from cas.model.objects import Commit, Tag, TreeEntry


class AsyncSnapshot(SnapshotParts):
    """`Snapshot` for an event loop."""

    async def entry(self, path: str | bytes) -> TreeEntry | None:
        """What lies at `path`: file, link or directory; None when nothing. "" is the root."""
        return await self._run(lambda: self.sync.entry(path))

    def entries(self, path: str | bytes = "") -> Items[tuple[str, TreeEntry]]:
        """(name, entry) of the directory at `path`, in order. Raises `PathNotFound`."""
        return Items(self._threads, lambda: self.sync.entries(path))

    def walk(
        self, path: str | bytes = "", *, directories: bool = False
    ) -> Items[tuple[str, TreeEntry]]:
        """(path, entry) of every file and link below `path`, in order, lazily.

        With `directories=True` each directory comes before what is in it.
        """
        return Items(self._threads, lambda: self.sync.walk(path, directories=directories))

    async def read(self, path: str | bytes) -> bytes:
        """Content of the file, or target of the link, at `path`. Raises `PathNotFound`."""
        return await self._run(lambda: self.sync.read(path))

    async def open(self, path: str | bytes) -> AsyncReader:
        """The file at `path` as a seekable stream. Raises `PathNotFound`."""
        made = await self._run(lambda: self.sync.open(path))
        return AsyncReader(made, self._threads, self._lock)

    def diff(self, other: Snapshot | AsyncSnapshot) -> Items[Change]:
        """What changes from this snapshot to `other`, in order of path, lazily."""
        return Items(
            self._threads,
            lambda: self.sync.diff(other.sync if isinstance(other, AsyncSnapshot) else other),
        )


class AsyncView(ViewParts):
    """`View` for an event loop."""

    async def ref(self, name: str) -> Ref | None:
        """The ref of this full name, or None."""
        return await self._run(lambda: self.sync.ref(name))

    async def refs(self, prefix: str = "") -> list[Ref]:
        """Refs whose full names begin with `prefix`, ascending."""
        return await self._run(lambda: self.sync.refs(prefix))

    async def branches(self) -> list[Ref]:
        """All branches, ascending by name."""
        return await self._run(lambda: self.sync.branches())

    async def tags(self) -> list[Ref]:
        """All tags, ascending by name."""
        return await self._run(lambda: self.sync.tags())

    async def resolve(self, revision: str | ObjectId) -> CommitId:
        """The commit that a revision names.

        Raises `RevisionNotFound`, `AmbiguousRevision`, `Invalid`, and `WrongKind` for an id of
        something that is no commit.
        """
        return await self._run(lambda: self.sync.resolve(revision))

    async def find(self, text: str) -> ObjectId:
        """The object that an id or an abbreviation of 8 digits or more names.

        Raises `InvalidId`, `ObjectNotFound`, `AmbiguousRevision`.
        """
        return await self._run(lambda: self.sync.find(text))

    async def commit(self, revision: str | ObjectId) -> Commit:
        """The commit that a revision names."""
        return await self._run(lambda: self.sync.commit(revision))

    async def snapshot(self, revision: str | ObjectId) -> AsyncSnapshot:
        """The files of a revision. Raises as `resolve` does, and `Thinned` for a commit whose
        content was given up.
        """
        made = await self._run(lambda: self.sync.snapshot(revision))
        return AsyncSnapshot(made, self._threads, self._lock)

    async def thinning(self, revision: str | ObjectId) -> Thinning | None:
        """Why and when the content of a commit was given up; None where it was not."""
        return await self._run(lambda: self.sync.thinning(revision))

    async def horizon(self) -> int:
        """The oldest state that can be read, as of this one: `store.at` is answered from it on."""
        return await self._run(lambda: self.sync.horizon())

    def diff(
        self,
        old: str | ObjectId | Snapshot | AsyncSnapshot,
        new: str | ObjectId | Snapshot | AsyncSnapshot,
        *,
        renames: bool = False,
    ) -> Items[Change]:
        """What changes from one revision to another, lazily; walks only what differs.

        With `renames` files that went and files that came are compared, by content and by
        similarity, and told as one change; all changes are then found before the first is given.
        """
        return Items(
            self._threads,
            lambda: self.sync.diff(
                old.sync if isinstance(old, AsyncSnapshot) else old,
                new.sync if isinstance(new, AsyncSnapshot) else new,
                renames=renames,
            ),
        )

    async def blame(self, revision: str | ObjectId, path: str | bytes) -> list[BlamedLine]:
        """The lines of a text file, each with the commit that brought it, in order.

        Raises `PathNotFound`, `WrongKind` for what is no file, `Invalid` for what is no text,
        and as `resolve` does.
        """
        return await self._run(lambda: self.sync.blame(revision, path))

    def blame_entries(self, revision: str | ObjectId, path: str | bytes = "") -> Items[BlamedEntry]:
        """The entries of a directory, each with the commit that made it what it is, by name.

        Raises `PathNotFound`, `WrongKind` for a file, and as `resolve` does, at once.
        """
        return Items(self._threads, lambda: self.sync.blame_entries(revision, path))

    def log(
        self,
        revision: str | ObjectId,
        *,
        limit: int | None = None,
        path: str | bytes = "",
        follow: bool = False,
    ) -> Items[tuple[CommitId, Commit]]:
        """Commits reachable from a revision, newest first, read as they are asked for.

        A commit comes behind the child through which it was met, and behind all of its children
        where no commit is dated before its parent. `A..B` gives what B has and A has not,
        `A...B` what only one of them has. With `path` only commits that changed what lies
        there; of a merge that took it from one parent, only that parent is followed. With
        `follow` the history of a file that was renamed goes on under its older name. Raises as
        `resolve` does, and `Invalid` for `follow` without a path, at once.
        """
        return Items(
            self._threads, lambda: self.sync.log(revision, limit=limit, path=path, follow=follow)
        )

    async def annotation(self, ref: Ref) -> Tag | None:
        """The annotated tag that a ref points at; None for a branch or a plain tag."""
        return await self._run(lambda: self.sync.annotation(ref))

    async def branch(self, name: str) -> Ref:
        """A branch by short or full name. Raises `RefNotFound`."""
        return await self._run(lambda: self.sync.branch(name))
