"""Workspaces on branches: one for each agent that tries something, merged back or dropped.

Floor 6. Invariant: a branch of the workspace is one branch of each context that there was, made in
one entry and copying nothing; merging it back is one entry as well, in which every aggregate that
both sides changed was merged by the rules of its type, and nothing else was decided by a guess.
Where contexts live in other stores this holds for each store; that of the workspace comes last, so
that what was cut short is gone on with when it is asked for again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from attrs import frozen

from cas.errors import Invalid, RefConflict, RefExists, RefNotFound
from cas.history.conflicts import MergeConflict
from cas.history.merge import MergePlan, until_still
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.history.view import Ref, View
from cas.model.entry import Entry
from cas.model.ids import BlobId, CommitId, Kind
from cas.model.names import HEADS
from cas.model.objects import TreeEntry
from cas.objects.batch import Batch
from cas.trees.node import Node
from cas.workspace.clashes import shape_error
from cas.workspace.contexts import Context
from cas.workspace.layout import (
    MAIN,
    changed_records,
    context_branch,
    context_of,
    no_branch,
    place_of,
    record_path,
    snapshot_of,
)
from cas.workspace.quotas import quota
from cas.workspace.registry import type_in, types
from cas.workspace.settling import Settler
from cas.workspace.unit import OnConflict


@frozen
class BranchMerge:
    """What merging a branch of the workspace did; `entry` is that of its own store, None when
    there was nothing to do there.
    """

    entry: Entry | None
    contexts: tuple[str, ...]
    merged_count: int


def branch_refs(view: View, branch: str) -> dict[str, Ref]:
    """The branches of contexts that a branch of the workspace is made of, by context."""
    found = ((context_of(ref.name), ref) for ref in view.refs(HEADS))
    return {where[0]: ref for where, ref in found if where is not None and where[1] == branch}


Elsewhere = tuple[tuple[Store, Collection[str]], ...]
"""Other stores, and the contexts of the workspace that live there."""


def create(store: Store, name: str, of: str, actor: str, elsewhere: Elsewhere = ()) -> Entry:
    """Make a branch of the workspace where another one stands. Raises `RefExists`, `RefNotFound`,
    `InvalidName`.
    """
    view = store.view()
    if name == of or branch_refs(view, name):
        raise _taken(name)
    origin = branch_refs(view, of)
    placed = [(each, _only(each, of, contexts)) for each, contexts in elsewhere]
    if not origin and not any(refs for _each, refs in placed):
        raise RefNotFound(f"The workspace has no branch {of!r} yet: nothing is in it.", ref=of)
    for each, refs in placed:
        there = _only(each, name, refs)
        if {context: ref.target for context, ref in there.items()} == {
            context: ref.target for context, ref in refs.items()
        }:
            continue
        if there:
            raise _taken(name)
        _branch_off(each, refs, name, of, actor)
    return _branch_off(store, origin, name, of, actor)


def _only(store: Store, branch: str, contexts: Collection[str]) -> dict[str, Ref]:
    found = branch_refs(store.view(), branch)
    return {context: ref for context, ref in found.items() if context in contexts}


def _branch_off(store: Store, refs: dict[str, Ref], name: str, of: str, actor: str) -> Entry:
    with store.begin(author=actor, message=f"branch {name} of {of}") as tx:
        for context, ref in refs.items():
            tx.move(HEADS + context_branch(context, name), ref.target)
        return tx.commit()


def _taken(name: str) -> RefExists:
    return RefExists(
        f"The workspace has a branch {name!r} already; choose another name"
        f"{'' if name == MAIN else ', or drop it'}.",
        ref=name,
        other=name,
    )


def drop(store: Store, name: str, actor: str, elsewhere: Elsewhere = ()) -> Entry:
    """Remove a branch of the workspace; its history stays in the journal, and undo brings it back.

    Raises `RefNotFound`, and `Invalid` for the main branch.
    """
    if name == MAIN:
        raise Invalid("The main branch of the workspace cannot be dropped.")
    refs = branch_refs(store.view(), name)
    placed = [(each, _only(each, name, contexts)) for each, contexts in elsewhere]
    if not refs and not any(there for _each, there in placed):
        raise no_branch(name)
    for each, there in (*placed, (store, refs)):
        if there or each is store:
            with each.begin(author=actor, message=f"drop {name}") as tx:
                for ref in there.values():
                    tx.delete(ref.name)
                entry = tx.commit()
    return entry


def merge(
    store: Store,
    name: str,
    into: str,
    actor: str,
    message: str,
    on_conflict: OnConflict,
    declared: Mapping[str, Context],
    elsewhere: Elsewhere = (),
) -> BranchMerge:
    """Bring all that a branch of the workspace changed into another, in one entry a store.

    Raises `AggregateConflict` for what the rules do not merge, unless conflicts are kept;
    `LimitExceeded` for more than a context allows; `RefNotFound`; `RefConflict` when others kept
    moving the branch.
    """
    if name == into:
        raise Invalid("A branch is merged into another one.")
    every = [(each, _only(each, name, contexts)) for each, contexts in elsewhere]
    every.append((store, branch_refs(store.view(), name)))
    if not any(theirs for _each, theirs in every):
        raise no_branch(name)
    message = message or f"merge {name} into {into}"
    done = [
        until_still(partial(_merge, each, theirs, into, actor, message, on_conflict, declared))
        for each, theirs in every
    ]
    return BranchMerge(
        done[-1].entry,
        tuple(sorted(context for each in done for context in each.contexts)),
        sum(each.merged_count for each in done),
    )


def _merge(
    store: Store,
    theirs: dict[str, Ref],
    into: str,
    actor: str,
    message: str,
    on_conflict: OnConflict,
    declared: Mapping[str, Context],
) -> BranchMerge:
    touched: list[str] = []
    count = 0
    with store.begin(author=actor, message=message) as tx:
        for context, ref in theirs.items():
            allowed = declared.get(context)
            done = _merge_context(store, tx, context, ref, into, on_conflict, allowed)
            if done is not None:
                touched.append(context)
                count += done
        entry = tx.commit() if touched else None
    return BranchMerge(entry, tuple(touched), count)


def _merge_context(
    store: Store,
    tx: Transaction,
    context: str,
    theirs: Ref,
    into: str,
    on_conflict: OnConflict,
    declared: Context | None,
) -> int | None:
    """Stage one context; how many aggregates were merged, None when there is nothing to do."""
    target = context_branch(context, into)
    if store.view().ref(HEADS + target) is None:
        tx.move(HEADS + target, theirs.target)
        return 0
    # A context that began on both branches has no common past: its base is empty.
    # Records are what their id says, however alike two of them are: none is a renamed one.
    plan = store.plan_merge(
        target, theirs.target, on_conflict="ours", allow_unrelated=True, renames=False
    )
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
    edit.check = quota(store.core, declared)
    edit.put_tree(plan.tree)
    edit.parents = (plan.ours, plan.theirs)
    edit.allow_empty = True
    settler = Settler(store, tx, edit, on_conflict)
    settler.ours = snapshot_of(store.core, plan.ours)
    _settle(settler, plan.settled)
    return len(plan.settled) + _settle_equal(store, settler, plan)


def _settle_equal(store: Store, settler: Settler, plan: MergePlan) -> int:
    """Merge aggregates whose records both sides made equal, where equal edits count twice; how
    many there were. To a merge of trees they look settled.
    """
    if len(plan.bases) > 1 or not any(each.sums for each in types()):
        return 0
    base = plan.bases[0] if plan.bases else None
    ours = settler.ours or snapshot_of(store.core, plan.ours)
    count = 0
    for change in changed_records(store.core, plan.into, base, plan.theirs):
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
            every = (clash.base, clash.ours, clash.theirs)
            if any(side is not None and side.is_tree for side in every):
                # A name on one side, a folder of names on the other: neither may take the place.
                raise shape_error(type, place.id)
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
