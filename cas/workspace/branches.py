"""Workspaces on branches: one for each agent that tries something, merged back or dropped.

Floor 6. Invariant: a branch of the workspace is one branch of each context that there was, made in
one entry and copying nothing; merging it back is one entry as well, in which every aggregate that
both sides changed was merged by the rules of its type, and nothing else was decided by a guess.
"""

from __future__ import annotations

from attrs import frozen

from cas.errors import Invalid, RefConflict, RefExists, RefNotFound
from cas.history.conflicts import MergeConflict
from cas.history.merge import MergePlan
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.history.view import Ref, View
from cas.limits import MERGE_ATTEMPTS_MAX
from cas.model.entry import Entry
from cas.model.ids import BlobId, CommitId, Kind
from cas.model.names import HEADS
from cas.model.objects import TreeEntry
from cas.objects.batch import Batch
from cas.trees.node import Node
from cas.workspace.layout import (
    MAIN,
    changed_records,
    context_branch,
    context_of,
    place_of,
    record_path,
    snapshot_of,
)
from cas.workspace.registry import type_in, types
from cas.workspace.settling import Settler
from cas.workspace.unit import OnConflict


@frozen
class BranchMerge:
    """What merging a branch of the workspace did; `entry` is None when there was nothing to do."""

    entry: Entry | None
    contexts: tuple[str, ...]
    merged_count: int


def branch_refs(view: View, branch: str) -> dict[str, Ref]:
    """The branches of contexts that a branch of the workspace is made of, by context."""
    found = ((context_of(ref.name), ref) for ref in view.refs(HEADS))
    return {where[0]: ref for where, ref in found if where is not None and where[1] == branch}


def branch_names(view: View) -> list[str]:
    """All branches of the workspace, ascending."""
    found = (context_of(ref.name) for ref in view.refs(HEADS))
    return sorted({where[1] for where in found if where is not None})


def create(store: Store, name: str, of: str, actor: str) -> Entry:
    """Make a branch of the workspace where another one stands. Raises `RefExists`, `RefNotFound`,
    `InvalidName`.
    """
    view = store.view()
    taken, origin = branch_refs(view, name), branch_refs(view, of)
    if name == of or taken:
        raise RefExists(
            f"The workspace has a branch {name!r} already; choose another name, or drop it.",
            ref=name,
            other=name,
        )
    if not origin:
        raise RefNotFound(f"The workspace has no branch {of!r} yet: nothing is in it.", ref=of)
    with store.begin(author=actor, message=f"branch {name} of {of}") as tx:
        for context, ref in origin.items():
            tx.move(HEADS + context_branch(context, name), ref.target)
        return tx.commit()


def drop(store: Store, name: str, actor: str) -> Entry:
    """Remove a branch of the workspace; its history stays in the journal, and undo brings it back.

    Raises `RefNotFound`, and `Invalid` for the main branch.
    """
    if name == MAIN:
        raise Invalid("The main branch of the workspace cannot be dropped.")
    refs = branch_refs(store.view(), name)
    if not refs:
        raise no_branch(name)
    with store.begin(author=actor, message=f"drop {name}") as tx:
        for ref in refs.values():
            tx.delete(ref.name)
        return tx.commit()


def no_branch(name: str) -> RefNotFound:
    """The error for a branch that is not there."""
    return RefNotFound(
        f"The workspace has no branch {name!r}; `cas workspace branches` lists them.", ref=name
    )


def merge(
    store: Store, name: str, into: str, actor: str, message: str, on_conflict: OnConflict
) -> BranchMerge:
    """Bring all that a branch of the workspace changed into another, in one entry.

    Raises `AggregateConflict` for what the rules do not merge, unless conflicts are kept;
    `RefNotFound`; `RefConflict` when others kept moving the branch.
    """
    if name == into:
        raise Invalid("A branch is merged into another one.")
    for _ in range(MERGE_ATTEMPTS_MAX - 1):
        try:
            return _merge(store, name, into, actor, message, on_conflict)
        except RefConflict:
            continue
    return _merge(store, name, into, actor, message, on_conflict)


def _merge(
    store: Store, name: str, into: str, actor: str, message: str, on_conflict: OnConflict
) -> BranchMerge:
    theirs = branch_refs(store.view(), name)
    if not theirs:
        raise no_branch(name)
    touched: list[str] = []
    count = 0
    with store.begin(author=actor, message=message or f"merge {name} into {into}") as tx:
        for context, ref in theirs.items():
            done = _merge_context(store, tx, context, ref, into, on_conflict)
            if done is not None:
                touched.append(context)
                count += done
        entry = tx.commit() if touched else None
    return BranchMerge(entry, tuple(touched), count)


def _merge_context(
    store: Store, tx: Transaction, context: str, theirs: Ref, into: str, on_conflict: OnConflict
) -> int | None:
    """Stage one context; how many aggregates were merged, None when there is nothing to do."""
    target = context_branch(context, into)
    if store.view().ref(HEADS + target) is None:
        tx.move(HEADS + target, theirs.target)
        return 0
    plan = store.plan_merge(target, theirs.target, on_conflict="ours")
    if plan.up_to_date:
        return None
    edit = tx.branch(target, on_move="conflict")
    if edit.base is None or edit.base.target != plan.ours:
        raise RefConflict(
            f"{target} moved while this merge was planned; try again.",
            ref=plan.into,
            expected=plan.ours,
            actual=None if edit.base is None else edit.base.target,
        )

    def stage(batch: Batch) -> CommitId:
        for id, made in plan.made.items():
            if isinstance(made, Node):
                batch.add(id, Kind.TREE, made.data)
            else:
                store.core.put_content(batch, made)
        return plan.ours

    tx.stage(stage)
    edit.put_tree(plan.tree)
    edit.parents = (plan.ours, plan.theirs)
    edit.allow_empty = True
    settler = Settler(store, tx, edit, on_conflict)
    _settle(settler, plan.settled)
    return len(plan.settled) + _settle_equal(store, settler, plan)


def _settle_equal(store: Store, settler: Settler, plan: MergePlan) -> int:
    """Merge aggregates whose records both sides made equal, where equal edits count twice; how
    many there were. To a merge of trees they look settled.
    """
    if len(plan.bases) != 1 or not any(each.sums for each in types()):
        return 0
    ours = snapshot_of(store.core, plan.ours)
    count = 0
    for change in changed_records(store.core, plan.into, plan.bases[0], plan.theirs):
        if change.type is None or change.new is None or not change.type.sums:
            continue
        entry = ours.entry(record_path(change.type, change.id))
        if entry is not None and entry.id == change.new:
            settler.stage_merged(change.type, change.id, change.old, change.new, change.new)
            count += 1
    return count


def _settle(settler: Settler, clashes: tuple[MergeConflict, ...]) -> None:
    """Merge each aggregate that both sides changed by the rules of its type."""
    records = {}
    for clash in clashes:
        place = place_of(clash.path)
        type = type_in(place.collection) if place.collection else None
        if place.kind == "record" and type is not None:
            sides = (_blob(clash.base), _blob(clash.ours), _blob(clash.theirs))
            settler.stage_merged(type, place.id, *sides)
            records[place.id] = type.name
    for clash in clashes:
        place = place_of(clash.path)
        type = type_in(place.collection) if place.collection else None
        settled = place.kind == "file" and records.get(place.id) == "artifact"
        if not settled and (place.kind != "record" or type is None):
            raise settler.no_rule(clash.path, place)


def _blob(entry: TreeEntry | None) -> BlobId | None:
    return None if entry is None or entry.is_tree else BlobId(entry.id)
