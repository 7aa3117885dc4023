"""The change of one commit, made once more on a branch (cherry-pick), or taken back (revert).

Floor 4. Invariant: as for a merge (`merge`), of which this is one with another base: a change is
the way from a commit's parent to it, or back. The commit that is made has one parent: histories are
not joined.
"""

from __future__ import annotations

from attrs import evolve

from cas.errors import Invalid
from cas.history.conflicts import read_conflicts
from cas.history.core import Core
from cas.history.horizon import check_content
from cas.history.merge import MergePlan, branch_to_change, conflicts_carried, with_outcome
from cas.history.threeway import OnConflict, Scratch, check_policy, merge_directories, outcome
from cas.history.view import View
from cas.model.ids import CommitId, ObjectId
from cas.model.names import short_ref
from cas.trees.node import DIRECTORY


def plan_pick(
    core: Core,
    view: View,
    into: str,
    named: str | ObjectId,
    *,
    back: bool,
    mainline: int | None,
    on_conflict: OnConflict,
    renames: bool,
) -> MergePlan:
    """What taking the change of a commit to a branch would do, or taking it back from there.

    Writes nothing. Raises `RefNotFound` without the branch, `Invalid` for a merge without
    `mainline` (the number of the parent from which its change is measured, from 1) or a parent
    that is not there, `Thinned` where content that it needs was given up, and what resolving a
    revision raises.
    """
    check_policy(on_conflict)
    ref = branch_to_change(view, into)
    ours, picked = view.resolve(ref.target), view.resolve(named)
    commit = core.commits.get(picked)
    parent = _parent(picked, commit.parents, mainline)
    for id in (picked, parent, ours):
        if id is not None:
            check_content(core, id)
    tree = core.commits.get(ours).tree
    before = DIRECTORY.empty if parent is None else core.commits.get(parent).tree
    base, theirs = (commit.tree, before) if back else (before, commit.tree)
    scratch = Scratch(core)
    found = outcome(merge_directories(base, tree, theirs, scratch, renames), on_conflict, scratch)
    ends = (picked, parent) if back else (parent, picked)
    plan = MergePlan(
        ref.name,
        ours,
        ref.seq,
        picked,
        named if isinstance(named, str) else picked.short,
        () if parent is None else (parent,),
        tree,
        on_conflict,
        (ours,),
        _message(picked, commit.message, short_ref(ref.name), back),
    )
    clashes = (*found.conflicts, *found.settled)
    bases = () if ends[0] is None else (ends[0],)
    carried = conflicts_carried(core, bases, ours, ends[1], clashes)
    # A change may be of conflicts alone: one that was committed, or settled for the branch.
    same = set(carried) == set(read_conflicts(core, core.commits.get(ours)))
    if found.tree == tree and not clashes and same:
        return evolve(plan, up_to_date=True)
    return with_outcome(plan, found, carried)


def _parent(id: CommitId, parents: tuple[CommitId, ...], mainline: int | None) -> CommitId | None:
    """The parent from which the change of a commit is measured; None for one that has none."""
    if mainline is None:
        if len(parents) > 1:
            raise Invalid(
                f"{id.short} is a merge of {len(parents)} commits; say from which of them its "
                "change is measured: `--mainline 1` (`mainline=1`) is the branch it was made on."
            )
        return parents[0] if parents else None
    if not 1 <= mainline <= len(parents):
        raise Invalid(f"{id.short} has {len(parents)} parents, and none of number {mainline}.")
    return parents[mainline - 1]


def _message(id: CommitId, message: str, branch: str, back: bool) -> str:
    """What the commit says unless the caller does: what it took, and from where."""
    if not back:
        return message or f"take {id.short} to {branch}"
    subject = message.strip().partition("\n")[0][:200]
    return f"revert {id.short}" + (f": {subject}" if subject else "")
