"""Merging one revision into a branch: plan it, look at it, do it.

Floor 4. Invariant: a plan writes nothing; applying it moves the branch from exactly the commit
that was planned on, or not at all; no change of either side is dropped unless a conflict names
it or the caller chose a side.

Where two histories have several best common ancestors, these are merged into a virtual one, as
git's `ort` does; where even they clash, the virtual file holds all sides between markers (or, if
it is no text, the ids of the sides), which equals no side, so that the clash is seen again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import evolve, field, frozen

from cas.errors import RefConflict, RefNotFound, UnrelatedHistories
from cas.history.conflicts import (
    CONFLICTS,
    MergeConflict,
    merged,
    read_conflicts,
    save_conflicts,
)
from cas.history.core import Core
from cas.history.following import Followed
from cas.history.graph import merge_bases
from cas.history.horizon import check_content
from cas.history.threeway import (
    OnConflict,
    Outcome,
    Scratch,
    check_policy,
    edited,
    merge_directories,
    outcome,
    stand_in,
)
from cas.history.transaction import Begin, Transaction
from cas.history.view import Ref, View
from cas.limits import MERGE_ATTEMPTS_MAX, VIRTUAL_BASES_MAX
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind, ObjectId, TreeId
from cas.model.names import branch_ref, short_ref
from cas.model.objects import Commit
from cas.objects.batch import Batch
from cas.trees.node import DIRECTORY, Node

_T = TypeVar("_T")


@frozen
class MergePlan:
    """What a merge would do. `ours` is the commit of the branch `into`, `theirs` what comes in.

    Of a cherry-pick or a revert `theirs` is the commit whose change is meant and `bases` its
    parent. `parents` and `message` are those of the commit that applying it makes.

    `tree` is the directory that would result; in it each of `conflicts` stands as ours has it.
    `settled` are conflicts that `on_conflict` has decided; `carried` are those that the two
    sides have committed before and nobody has settled. `followed` are files that one side renamed
    and the other changed, merged at the new path.
    """

    into: str
    ours: CommitId
    ours_seq: int
    theirs: CommitId
    named: str
    bases: tuple[CommitId, ...]
    tree: TreeId
    on_conflict: OnConflict
    parents: tuple[CommitId, ...]
    message: str
    conflicts: tuple[MergeConflict, ...] = ()
    settled: tuple[MergeConflict, ...] = ()
    carried: tuple[MergeConflict, ...] = ()
    followed: tuple[Followed, ...] = ()
    fast_forward: bool = False
    up_to_date: bool = False
    edit_count: int = 0
    made: dict[bytes, bytes | Node] = field(factory=dict, repr=False, eq=False)
    """Blobs and tree nodes that the merge made, by id."""

    @property
    def clean(self) -> bool:
        """Whether the two sides go together."""
        return not self.conflicts

    @property
    def summary(self) -> str:
        """One sentence for people."""
        into = short_ref(self.into)
        if self.up_to_date and len(self.parents) == 1:
            return f"There is nothing to do: {into} is as it would be."
        if self.up_to_date:
            return f"{into} has all of {self.named} already."
        if self.fast_forward:
            return f"{into} moves forward to {self.theirs.short}."
        count = len(self.conflicts)
        clash = f", {count} conflict{'s' * (count != 1)}" if count else ""
        return f"{self.edit_count} path{'s' * (self.edit_count != 1)} of {into} change{clash}."


@frozen
class MergeResult:
    """What a merge did. `commit` is where the branch stands now, None when nothing was done.

    With `on_conflict="report"` conflicts mean that nothing was done; with `"commit"` they are
    part of `commit`. `entry` is None when no journal entry was needed.
    """

    into: str
    commit: CommitId | None
    entry: Entry | None
    bases: tuple[CommitId, ...]
    conflicts: tuple[MergeConflict, ...]
    settled: tuple[MergeConflict, ...]
    carried: tuple[MergeConflict, ...]
    followed: tuple[Followed, ...]
    fast_forward: bool
    up_to_date: bool

    @property
    def clean(self) -> bool:
        """Whether the two sides went together."""
        return not self.conflicts


# -- plan ----------------------------------------------------------------------------------------


def plan_merge(
    core: Core,
    view: View,
    into: str,
    named: str | ObjectId,
    *,
    on_conflict: OnConflict,
    allow_unrelated: bool,
    fast_forward: bool,
    renames: bool,
) -> MergePlan:
    """What merging a revision into a branch would do, as of one view. Writes nothing.

    Raises `RefNotFound` without the branch, `UnrelatedHistories`, `Invalid`, `Thinned` where a
    commit that it needs has given up its content, and what resolving a revision raises.
    """
    check_policy(on_conflict)
    ref = branch_to_change(view, into)
    ours, theirs = view.resolve(ref.target), view.resolve(named)
    name = named if isinstance(named, str) else theirs.short
    commits = core.commits
    bases = merge_bases(commits, [ours], [theirs])

    plan = MergePlan(
        ref.name,
        ours,
        ref.seq,
        theirs,
        name,
        bases,
        commits.get(ours).tree,
        on_conflict,
        (ours, theirs),
        f"merge {name} into {short_ref(ref.name)}",
    )
    if theirs in bases:
        return evolve(plan, up_to_date=True)
    check_content(core, theirs)
    if ours in bases and fast_forward:
        return evolve(plan, tree=commits.get(theirs).tree, fast_forward=True)
    if not bases and not allow_unrelated:
        raise UnrelatedHistories(
            f"{short_ref(ref.name)} and {name} have no commit in common; "
            "`--allow-unrelated` (`allow_unrelated=True`) merges them all the same.",
            ours=ours,
            theirs=theirs,
        )
    scratch = Scratch(core)
    base = _base_tree(core, bases, scratch, VIRTUAL_BASES_MAX, renames)
    merged = merge_directories(
        base, commits.get(ours).tree, commits.get(theirs).tree, scratch, renames
    )
    found = outcome(merged, on_conflict, scratch)
    carried = conflicts_carried(core, bases, ours, theirs, (*found.conflicts, *found.settled))
    return with_outcome(plan, found, carried)


def with_outcome(plan: MergePlan, found: Outcome, carried: tuple[MergeConflict, ...]) -> MergePlan:
    """A plan that does what a merge of directories came to."""
    return evolve(
        plan,
        tree=found.tree,
        conflicts=found.conflicts,
        settled=found.settled,
        carried=carried,
        followed=found.followed,
        edit_count=found.edit_count,
        made=found.made,
    )


def branch_to_change(view: View, name: str) -> Ref:
    """The branch of a name. Raises `RefNotFound`."""
    ref = view.ref(branch_ref(name))
    if ref is None:
        raise RefNotFound(
            f"There is no branch {name!r} to change; `cas branch` lists the branches.",
            ref=branch_ref(name),
        )
    return ref


def conflicts_carried(
    core: Core,
    bases: Sequence[CommitId],
    ours: CommitId,
    theirs: CommitId | None,
    found: Sequence[MergeConflict],
) -> tuple[MergeConflict, ...]:
    """Conflicts committed before that stay open, but those that this merge has met anew."""
    mine, other = (
        {} if id is None else {c.path: c for c in read_conflicts(core, core.commits.get(id))}
        for id in (ours, theirs)
    )
    if not mine and not other:
        return ()
    old = {c.path: c for id in bases for c in read_conflicts(core, core.commits.get(id))}
    new = {conflict.path for conflict in found}
    return tuple(c for path, c in merged(old, mine, other).items() if path not in new)


def _base_tree(
    core: Core, bases: Sequence[CommitId], scratch: Scratch, depth: int, renames: bool
) -> bytes:
    """Directory to merge from: that of the one base, or of a virtual merge of several.

    Beyond VIRTUAL_BASES_MAX levels of crossed merges the newest base is taken as it is.
    """
    if not bases:
        return DIRECTORY.empty
    commits = core.commits
    for id in bases:
        check_content(core, id)
    tree: bytes = commits.get(bases[0]).tree
    if depth == 0:
        return tree
    for number, other in enumerate(bases[1:], 1):
        below = merge_bases(commits, bases[:number], [other])
        start = _base_tree(core, below, scratch, depth - 1, renames)
        merged = merge_directories(start, tree, commits.get(other).tree, scratch, renames)
        stand_ins = {clash.path: stand_in(clash, scratch) for clash in merged.clashes}
        tree = edited(merged.tree, stand_ins, scratch)
    return tree


# -- apply ---------------------------------------------------------------------------------------


def apply_merge(
    core: Core, plan: MergePlan, view: Callable[[], View], begin: Begin, author: str, message: str
) -> MergeResult:
    """Do what a plan says. Raises `RefConflict` when the branch has moved since it was made."""
    if plan.up_to_date or (plan.conflicts and plan.on_conflict == "report"):
        return _result(plan, plan.ours if plan.up_to_date else None, None)
    with begin(author, message or plan.message) as tx:
        # A move between the two lines is seen by the view, one after them by the commit.
        found = view().ref(plan.into)
        if found is None or (found.target, found.seq) != (plan.ours, plan.ours_seq):
            raise RefConflict(
                f"{short_ref(plan.into)} moved since this merge was planned; plan it again.",
                ref=plan.into,
                expected=plan.ours,
                actual=None if found is None else found.target,
            )
        target = plan.theirs
        if not plan.fast_forward:
            target = CommitId(tx.stage(lambda batch: _stage(core, batch, plan, tx)))
        tx.move(plan.into, target)
        entry = tx.commit()
    return _result(plan, target, entry)


def _stage(core: Core, batch: Batch, plan: MergePlan, tx: Transaction) -> ObjectId:
    """Stage the merge commit and all that it needs."""
    for id, made in plan.made.items():
        if isinstance(made, Node):
            batch.add(id, Kind.TREE, made.data)
        else:
            core.put_content(batch, made)
    open_ones = {c.path: c for c in (*plan.carried, *plan.conflicts)}
    extras: dict[str, bytes] = {}
    if open_ones:
        extras[CONFLICTS] = bytes(save_conflicts(core, batch, open_ones.values()))
    commit = Commit(
        plan.tree,
        plan.parents,
        tx.author,
        tx.message,
        core.objects.clock.wall_us(),
        extras,
    )
    id = CommitId(batch.put(Kind.COMMIT, commit.encode()))
    core.commits.put(id, commit)
    return id


def _result(plan: MergePlan, commit: CommitId | None, entry: Entry | None) -> MergeResult:
    return MergeResult(
        plan.into,
        commit,
        entry,
        plan.bases,
        plan.conflicts,
        plan.settled,
        plan.carried,
        plan.followed,
        plan.fast_forward,
        plan.up_to_date,
    )


def until_still(attempt: Callable[[], _T]) -> _T:
    """What an attempt gives; again from the new state while others move a branch in between.

    Raises `RefConflict` when they were faster `MERGE_ATTEMPTS_MAX` times.
    """
    for _ in range(MERGE_ATTEMPTS_MAX - 1):
        try:
            return attempt()
        except RefConflict:
            continue
    return attempt()


def merge(plan: Callable[[], MergePlan], apply: Callable[[MergePlan], MergeResult]) -> MergeResult:
    """Plan and apply, `until_still`."""
    return until_still(lambda: apply(plan()))
