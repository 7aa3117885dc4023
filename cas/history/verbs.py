"""What a store does with its history: merge, undo, redo, restore, each planned before it is done.

Floor 4. Invariant: a `plan_*` call writes nothing, and `apply` does what the plan says or raises
`RefConflict` because a ref has moved since. `Store` is the one class that stands on this one; it
is apart so that each can be read at one sitting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, overload

from cas.later import Later
from cas.model.ids import CommitId, ObjectId

if TYPE_CHECKING:
    from cas.history import conflicts as conflicting
    from cas.history import merge as merging
    from cas.history import picking
    from cas.history import retain as retaining
    from cas.history import undo as undoing
    from cas.history.blame import BlamedEntry, BlamedLine
    from cas.history.conflicts import MergeConflict
    from cas.history.core import Core
    from cas.history.merge import MergePlan, MergeResult
    from cas.history.retain import GivenUp, Retained, RetentionPlan
    from cas.history.retention import RetentionPolicy
    from cas.history.revision import AsOf
    from cas.history.threeway import OnConflict
    from cas.history.transaction import Transaction
    from cas.history.undo import RestorePlan, Undone, UndoPlan
    from cas.history.view import View
    from cas.model.objects import Commit
else:
    # A tenth of the start of every command, which few commands need.
    conflicting = Later("cas.history.conflicts")
    merging = Later("cas.history.merge")
    picking = Later("cas.history.picking")
    retaining = Later("cas.history.retain")
    undoing = Later("cas.history.undo")


class HistoryVerbs(ABC):
    """The part of `Store` that changes history as a whole. Any thread may use it."""

    core: Core

    @abstractmethod
    def view(self) -> View:
        """All refs and objects as of the newest entry."""

    @abstractmethod
    def at(self, seq: AsOf | None = None, *, time_us: int | None = None) -> View:
        """The whole store after an entry, or as of a time."""

    @abstractmethod
    def begin(self, *, author: str = "", message: str = "", key: str | None = None) -> Transaction:
        """Begin a transaction on the newest state."""

    def _begin(self, author: str, message: str) -> Transaction:
        return self.begin(author=author, message=message)

    @overload
    def apply(self, plan: MergePlan, *, author: str = "", message: str = "") -> MergeResult: ...

    @overload
    def apply(
        self, plan: UndoPlan | RestorePlan, *, author: str = "", message: str = ""
    ) -> Undone: ...

    @overload
    def apply(self, plan: RetentionPlan, *, author: str = "", message: str = "") -> Retained: ...

    def apply(
        self,
        plan: MergePlan | UndoPlan | RestorePlan | RetentionPlan,
        *,
        author: str = "",
        message: str = "",
    ) -> MergeResult | Undone | Retained:
        """Do what a plan says, as one entry. Raises `RefConflict` when a ref moved since."""
        # Merging is asked about last: an undo does without it, and it takes longer to load.
        if isinstance(plan, undoing.UndoPlan):
            return undoing.apply_undo(plan, self.view, self._begin, author, message)
        if isinstance(plan, undoing.RestorePlan):
            return undoing.apply_restore(plan, self.view, self._begin, author, message)
        if isinstance(plan, retaining.RetentionPlan):
            return retaining.apply_retention(
                self.core, plan, self.view, self._begin, author, message
            )
        return merging.apply_merge(self.core, plan, self.view, self._begin, author, message)

    # -- merging -----------------------------------------------------------------------------

    def plan_merge(
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
        return merging.plan_merge(
            self.core,
            self.view(),
            into,
            revision,
            on_conflict=on_conflict,
            allow_unrelated=allow_unrelated,
            fast_forward=fast_forward,
            renames=renames,
        )

    def merge(
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
        return merging.merge(
            lambda: self.plan_merge(
                into,
                revision,
                on_conflict=on_conflict,
                allow_unrelated=allow_unrelated,
                fast_forward=fast_forward,
                renames=renames,
            ),
            lambda plan: self.apply(plan, author=author, message=message),
        )

    def plan_pick(
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
        return picking.plan_pick(
            self.core,
            self.view(),
            into,
            revision,
            back=back,
            mainline=mainline,
            on_conflict=on_conflict,
            renames=renames,
        )

    def cherry_pick(
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
        return merging.merge(
            lambda: self.plan_pick(
                into, revision, mainline=mainline, on_conflict=on_conflict, renames=renames
            ),
            lambda plan: self.apply(plan, author=author, message=message),
        )

    def revert(
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
        return merging.merge(
            lambda: self.plan_pick(
                into,
                revision,
                back=True,
                mainline=mainline,
                on_conflict=on_conflict,
                renames=renames,
            ),
            lambda plan: self.apply(plan, author=author, message=message),
        )

    def conflicts(self, revision: str | ObjectId) -> tuple[MergeConflict, ...]:
        """Conflicts that a commit holds and that are still to be settled, ascending by path."""
        return conflicting.read_conflicts(self.core, self.view().commit(revision))

    def log(
        self,
        revision: str | ObjectId,
        *,
        limit: int | None = None,
        path: str | bytes = "",
        follow: bool = False,
    ) -> Iterator[tuple[CommitId, Commit]]:
        """Commits reachable from a revision or in a range, newest first."""
        return self.view().log(revision, limit=limit, path=path, follow=follow)

    def blame(self, revision: str | ObjectId, path: str | bytes) -> list[BlamedLine]:
        """The lines of a text file, each with the commit that brought it. See `View.blame`."""
        return self.view().blame(revision, path)

    def blame_entries(
        self, revision: str | ObjectId, path: str | bytes = ""
    ) -> Iterator[BlamedEntry]:
        """The entries of a directory, each with the commit that made it what it is."""
        return self.view().blame_entries(revision, path)

    # -- going back --------------------------------------------------------------------------

    def plan_undo(self, seq: int | None = None) -> UndoPlan:
        """What `undo` would do; writes nothing. Raises as `undo` does, but for `RefConflict`."""
        return undoing.plan_undo(self.core, self.view(), seq, "undo")

    def undo(self, seq: int | None = None, *, author: str = "", message: str = "") -> Undone:
        """Take back what entry `seq` did to refs, by a new entry; without `seq` the newest.

        Where a ref has moved since, nothing is done and the result names it with both sides.
        Undoing again goes further back: entries that were undone, and undos, are passed over.
        What the entry recorded (events, objects, the entry itself) stays. Raises
        `EntryNotFound`, `Invalid` for an entry that moved no ref, `RefConflict`, and what a
        commit raises.
        """
        return self.apply(self.plan_undo(seq), author=author, message=message)

    def plan_redo(self, seq: int | None = None) -> UndoPlan:
        """What `redo` would do; writes nothing. Raises as `redo` does, but for `RefConflict`."""
        return undoing.plan_undo(self.core, self.view(), seq, "redo")

    def redo(self, seq: int | None = None, *, author: str = "", message: str = "") -> Undone:
        """Take back an undo, by a new entry: that of entry `seq`, or the newest one.

        Raises as `undo` does, and `Invalid` when entry `seq` is no undo.
        """
        return self.apply(self.plan_redo(seq), author=author, message=message)

    def plan_restore(
        self,
        target: str | None = None,
        *,
        seq: int | None = None,
        time_us: int | None = None,
    ) -> RestorePlan:
        """What `restore` would do; writes nothing. Raises as `restore`, but for `RefConflict`."""
        then = self.at(seq, time_us=time_us)
        return undoing.plan_restore(self.view(), then, target)

    def restore(
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
        plan = self.plan_restore(target, seq=seq, time_us=time_us)
        return self.apply(plan, author=author, message=message)

    # -- giving up ---------------------------------------------------------------------------

    def plan_retention(self, policy: RetentionPolicy | None = None) -> RetentionPlan:
        """What a retention policy would give up, and what keeps the rest; writes nothing.

        Without `policy` that of the store. Commits that go keep their record; what a ref, a pin
        or a legal hold keeps in any state behind the horizon stays. Raises `Invalid` when the
        store has no policy, or for one that no branch can be like, and what reading raises.
        """
        return retaining.plan_retention(self.core, self.view(), policy)

    def given_up(self, plan: RetentionPlan) -> Iterator[GivenUp]:
        """The versions of paths that applying a plan gives up, newest first, lazily."""
        return retaining.given_up(self.core, plan)
