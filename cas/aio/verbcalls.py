"""Merging, undoing, tags and what is kept, for an event loop.

Floor 9. Written by `tools/aio.py` from the synchronous calls, whose docstrings these
are; do not edit. Invariant: a call does what the synchronous one of that name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.aio.streams import Items
from cas.aio.threads import Face
from cas.history.store import Store

if TYPE_CHECKING:
    from cas.history.blame import BlamedEntry, BlamedLine
    from cas.history.conflicts import MergeConflict
    from cas.history.merge import MergePlan, MergeResult
    from cas.history.retain import GivenUp, Retained, RetentionPlan
    from cas.history.retention import RetentionPolicy
    from cas.history.threeway import OnConflict
    from cas.history.undo import RestorePlan, Undone, UndoPlan
    from cas.model.ids import CommitId, ObjectId
    from cas.model.objects import Commit


class VerbCalls(Face[Store]):
    """`HistoryVerbs` for an event loop."""

    async def apply(
        self,
        plan: MergePlan | UndoPlan | RestorePlan | RetentionPlan,
        *,
        author: str = "",
        message: str = "",
    ) -> MergeResult | Undone | Retained:
        """Do what a plan says, as one entry. Raises `RefConflict` when a ref moved since."""
        return await self._run(lambda: self.sync.apply(plan, author=author, message=message))

    async def plan_merge(
        self,
        into: str,
        revision: str | ObjectId,
        *,
        on_conflict: OnConflict = "report",
        allow_unrelated: bool = False,
        fast_forward: bool = True,
        renames: bool = True,
    ) -> MergePlan:
        """What `merge` would do; writes nothing. Raises as `merge` does, but for `RefConflict`."""
        return await self._run(
            lambda: self.sync.plan_merge(
                into,
                revision,
                on_conflict=on_conflict,
                allow_unrelated=allow_unrelated,
                fast_forward=fast_forward,
                renames=renames,
            )
        )

    async def merge(
        self,
        into: str,
        revision: str | ObjectId,
        *,
        author: str = "",
        message: str = "",
        on_conflict: OnConflict = "report",
        allow_unrelated: bool = False,
        fast_forward: bool = True,
        renames: bool = True,
    ) -> MergeResult:
        """Merge a revision into a branch: all changes since their common ancestor.

        Conflicts are values of the result. With `on_conflict="report"` they mean that nothing
        was done; `"commit"` commits them, to be settled later with `tx.branch(into).resolve`;
        `"ours"` and `"theirs"` settle each for the branch or for what comes in. Where the branch
        is an ancestor of the revision it moves there, unless `fast_forward` is False. A file that
        one side changed and the other renamed is merged at its new path (`followed` of the result
        names it), unless `renames` is False.

        Raises `RefNotFound`, `UnrelatedHistories`, `RefConflict` when others kept moving the
        branch, and what resolving a revision and committing raise.
        """
        return await self._run(
            lambda: self.sync.merge(
                into,
                revision,
                author=author,
                message=message,
                on_conflict=on_conflict,
                allow_unrelated=allow_unrelated,
                fast_forward=fast_forward,
                renames=renames,
            )
        )

    async def plan_pick(
        self,
        into: str,
        revision: str | ObjectId,
        *,
        back: bool = False,
        mainline: int | None = None,
        on_conflict: OnConflict = "report",
        renames: bool = True,
    ) -> MergePlan:
        """What `cherry_pick` would do, or with `back` what `revert` would; writes nothing. Raises
        as these do, but for `RefConflict`.
        """
        return await self._run(
            lambda: self.sync.plan_pick(
                into,
                revision,
                back=back,
                mainline=mainline,
                on_conflict=on_conflict,
                renames=renames,
            )
        )

    async def cherry_pick(
        self,
        into: str,
        revision: str | ObjectId,
        *,
        author: str = "",
        message: str = "",
        mainline: int | None = None,
        on_conflict: OnConflict = "report",
        renames: bool = True,
    ) -> MergeResult:
        """Make the change of one commit once more, on a branch, as a commit of its own.

        The change is what differs from the commit's parent; of a merge `mainline` says from which
        (1 is the first). Conflicts and renames are as in `merge`; without `message` the commit
        says what that one said. Raises `RefNotFound`, `Invalid`, `Thinned`, `RefConflict` when
        others kept moving the branch, and what resolving a revision and committing raise.
        """
        return await self._run(
            lambda: self.sync.cherry_pick(
                into,
                revision,
                author=author,
                message=message,
                mainline=mainline,
                on_conflict=on_conflict,
                renames=renames,
            )
        )

    async def revert(
        self,
        into: str,
        revision: str | ObjectId,
        *,
        author: str = "",
        message: str = "",
        mainline: int | None = None,
        on_conflict: OnConflict = "report",
        renames: bool = True,
    ) -> MergeResult:
        """Take back on a branch what one commit changed, and leave what came since.

        Where `undo` puts a branch back to where it was, this makes a commit with the opposite
        change; all else is as in `cherry_pick`. Raises as that does.
        """
        return await self._run(
            lambda: self.sync.revert(
                into,
                revision,
                author=author,
                message=message,
                mainline=mainline,
                on_conflict=on_conflict,
                renames=renames,
            )
        )

    async def conflicts(self, revision: str | ObjectId) -> tuple[MergeConflict, ...]:
        """Conflicts that a commit holds and that are still to be settled, ascending by path."""
        return await self._run(lambda: self.sync.conflicts(revision))

    def log(
        self,
        revision: str | ObjectId,
        *,
        limit: int | None = None,
        path: str | bytes = "",
        follow: bool = False,
    ) -> Items[tuple[CommitId, Commit]]:
        """Commits reachable from a revision or in a range, newest first."""
        return Items(
            self._threads, lambda: self.sync.log(revision, limit=limit, path=path, follow=follow)
        )

    async def blame(self, revision: str | ObjectId, path: str | bytes) -> list[BlamedLine]:
        """The lines of a text file, each with the commit that brought it. See `View.blame`."""
        return await self._run(lambda: self.sync.blame(revision, path))

    def blame_entries(self, revision: str | ObjectId, path: str | bytes = "") -> Items[BlamedEntry]:
        """The entries of a directory, each with the commit that made it what it is."""
        return Items(self._threads, lambda: self.sync.blame_entries(revision, path))

    async def plan_undo(self, seq: int | None = None) -> UndoPlan:
        """What `undo` would do; writes nothing. Raises as `undo` does, but for `RefConflict`."""
        return await self._run(lambda: self.sync.plan_undo(seq))

    async def undo(self, seq: int | None = None, *, author: str = "", message: str = "") -> Undone:
        """Take back what entry `seq` did to refs, by a new entry; without `seq` the newest.

        Where a ref has moved since, nothing is done and the result names it with both sides.
        Undoing again goes further back: entries that were undone, and undos, are passed over.
        What the entry recorded (events, objects, the entry itself) stays. Raises
        `EntryNotFound`, `Invalid` for an entry that moved no ref, `RefConflict`, and what a
        commit raises.
        """
        return await self._run(lambda: self.sync.undo(seq, author=author, message=message))

    async def plan_redo(self, seq: int | None = None) -> UndoPlan:
        """What `redo` would do; writes nothing. Raises as `redo` does, but for `RefConflict`."""
        return await self._run(lambda: self.sync.plan_redo(seq))

    async def redo(self, seq: int | None = None, *, author: str = "", message: str = "") -> Undone:
        """Take back an undo, by a new entry: that of entry `seq`, or the newest one.

        Raises as `undo` does, and `Invalid` when entry `seq` is no undo.
        """
        return await self._run(lambda: self.sync.redo(seq, author=author, message=message))

    async def plan_restore(
        self, target: str | None = None, *, seq: int | None = None, time_us: int | None = None
    ) -> RestorePlan:
        """What `restore` would do; writes nothing. Raises as `restore`, but for `RefConflict`."""
        return await self._run(lambda: self.sync.plan_restore(target, seq=seq, time_us=time_us))

    async def restore(
        self,
        target: str | None = None,
        *,
        seq: int | None = None,
        time_us: int | None = None,
        author: str = "",
        message: str = "",
    ) -> Undone:
        """Put a branch or tag, one path (`BRANCH:PATH`) or all refs back to what they were, pins
        and rules too.

        The moment is that after entry `seq`, or a time (µs since 1970 UTC). A path comes back
        in a new commit of its branch; refs that did not exist then are deleted. Raises
        `EntryNotFound`, `RevisionNotFound`, `AmbiguousRevision`, `PathNotFound`, `RefConflict`,
        and what a commit raises.
        """
        return await self._run(
            lambda: self.sync.restore(
                target, seq=seq, time_us=time_us, author=author, message=message
            )
        )

    async def plan_retention(self, policy: RetentionPolicy | None = None) -> RetentionPlan:
        """What a retention policy would give up, and what keeps the rest; writes nothing.

        Without `policy` that of the store. Commits that go keep their record; what a ref, a pin
        or a legal hold keeps in any state behind the horizon stays. Raises `Invalid` when the
        store has no policy, or for one that no branch can be like, and what reading raises.
        """
        return await self._run(lambda: self.sync.plan_retention(policy))

    def given_up(self, plan: RetentionPlan) -> Items[GivenUp]:
        """The versions of paths that applying a plan gives up, newest first, lazily."""
        return Items(self._threads, lambda: self.sync.given_up(plan))
