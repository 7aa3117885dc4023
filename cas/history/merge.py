"""Merging one revision into a branch: plan it, look at it, do it.

Floor 4. Invariant: a plan writes nothing; applying it moves the branch from exactly the commit
that was planned on, or not at all; no change of either side is dropped unless a conflict names
it or the caller chose a side.

Where two histories have several best common ancestors, these are merged into a virtual one, as
git's `ort` does; where even they clash, the virtual file holds all sides between markers (or, if
it is no text, the ids of the sides), which equals no side, so that the clash is seen again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeVar

from attrs import field, frozen

from cas.errors import Invalid, RefConflict, RefNotFound, UnrelatedHistories
from cas.history.conflicts import (
    CONFLICTS,
    MergeConflict,
    merged,
    read_conflicts,
    save_conflicts,
    to_conflict,
)
from cas.history.core import Core
from cas.history.following import Followed, Sides, follow
from cas.history.graph import merge_bases
from cas.history.horizon import check_content
from cas.history.text import merge_contents, merge_text, with_markers
from cas.history.transaction import Begin, Transaction
from cas.history.view import Ref, View
from cas.limits import MERGE_ATTEMPTS_MAX, TEXT_MERGE_BYTES_MAX, VIRTUAL_BASES_MAX
from cas.model.encoding import encode
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind, ObjectId, TreeId, digest_of
from cas.model.names import branch_ref, short_ref
from cas.model.objects import Commit, EntryKind
from cas.objects.batch import Batch
from cas.trees.merge import (
    Path,
    Reason,
    TreeConflict,
    is_file,
    merge_trees,
    merged_tag,
    merged_value,
)
from cas.trees.node import DIRECTORY, Node, Value, id_of
from cas.trees.paths import edit_paths

_T = TypeVar("_T")
OnConflict = Literal["report", "commit", "ours", "theirs"]
"""What becomes of conflicts: only told; committed as such; settled for one side."""

_POLICIES: Final = ("report", "commit", "ours", "theirs")
_FILE: Final = int(EntryKind.FILE)


@frozen
class MergePlan:
    """What a merge would do. `ours` is the commit of the branch `into`, `theirs` what comes in.

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


class _Scratch:
    """A `NodeStore` that keeps what a plan makes in memory, and reads the rest from the store."""

    def __init__(self, core: Core) -> None:
        self._objects = core.objects
        self._stored = core.objects.tree_nodes(DIRECTORY)
        self._made: dict[bytes, bytes | Node] = {}

    def load(self, node_id: bytes) -> Node:
        made = self._made.get(node_id)
        return made if isinstance(made, Node) else self._stored.load(node_id)

    def save(self, node: Node) -> bytes:
        id = id_of(DIRECTORY, node)
        self._made[id] = node
        return id

    def blob(self, id: bytes) -> bytes:
        made = self._made.get(id)
        return made if isinstance(made, bytes) else self._objects.get(id, Kind.BLOB)

    def put(self, content: bytes) -> tuple[bytes, int]:
        id = digest_of(Kind.BLOB, content)
        self._made[id] = content
        return id, len(content)

    def below(self, ids: list[bytes]) -> dict[bytes, bytes | Node]:
        """What was made here of these objects and of all that they name."""
        found: dict[bytes, bytes | Node] = {}
        while ids:
            id = ids.pop()
            made = self._made.get(id)
            if made is not None and id not in found:
                found[id] = made
                if isinstance(made, Node):
                    ids += [made.child_id(at) for at in range(len(made))]
        return found


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
    if on_conflict not in _POLICIES:
        raise Invalid(f"on_conflict is one of {', '.join(_POLICIES)}, not {on_conflict!r}.")
    ref = _branch(view, into)
    ours, theirs = view.resolve(ref.target), view.resolve(named)
    name = named if isinstance(named, str) else theirs.short
    commits = core.commits
    bases = merge_bases(commits, [ours], [theirs])

    def plan(tree: TreeId, **more: object) -> MergePlan:
        return MergePlan(ref.name, ours, ref.seq, theirs, name, bases, tree, on_conflict, **more)  # type: ignore[arg-type]

    if theirs in bases:
        return plan(commits.get(ours).tree, up_to_date=True)
    check_content(core, theirs)
    if ours in bases and fast_forward:
        return plan(commits.get(theirs).tree, fast_forward=True)
    if not bases and not allow_unrelated:
        raise UnrelatedHistories(
            f"{short_ref(ref.name)} and {name} have no commit in common; "
            "`--allow-unrelated` (`allow_unrelated=True`) merges them all the same.",
            ours=ours,
            theirs=theirs,
        )
    scratch = _Scratch(core)
    base = _base_tree(core, bases, scratch, VIRTUAL_BASES_MAX, renames)
    merged = _merge(base, commits.get(ours).tree, commits.get(theirs).tree, scratch, renames)
    clashes = merged.clashes
    settle = {clash.path: clash.theirs for clash in clashes if on_conflict == "theirs"}
    tree = _edited(merged.tree, settle, scratch)
    conflicts = tuple(to_conflict(c.path, c.reason, c.base, c.ours, c.theirs) for c in clashes)
    settled = conflicts if on_conflict in ("ours", "theirs") else ()
    # What a conflict names of a virtual base is stored with the tree.
    bases_made = [clash.base[1] for clash in clashes if clash.base is not None]
    return plan(
        TreeId(tree),
        conflicts=() if settled else conflicts,
        settled=settled,
        carried=_carried(core, bases, ours, theirs, conflicts),
        followed=merged.followed,
        edit_count=len(merged.paths.union(settle)),
        made=scratch.below([tree, *bases_made]),
    )


def _branch(view: View, name: str) -> Ref:
    ref = view.ref(branch_ref(name))
    if ref is None:
        raise RefNotFound(
            f"There is no branch {name!r} to merge into; `cas branch` lists the branches.",
            ref=branch_ref(name),
        )
    return ref


def _carried(
    core: Core,
    bases: Sequence[CommitId],
    ours: CommitId,
    theirs: CommitId,
    found: Sequence[MergeConflict],
) -> tuple[MergeConflict, ...]:
    """Conflicts committed before that stay open, but those that this merge has met anew."""
    mine, other = (
        {c.path: c for c in read_conflicts(core, core.commits.get(id))} for id in (ours, theirs)
    )
    if not mine and not other:
        return ()
    old = {c.path: c for id in bases for c in read_conflicts(core, core.commits.get(id))}
    new = {conflict.path for conflict in found}
    return tuple(c for path, c in merged(old, mine, other).items() if path not in new)


@frozen
class _Merged:
    """Ours with the changes of theirs: the tree, the paths that differ, and what clashes."""

    tree: bytes
    paths: frozenset[Path]
    clashes: list[TreeConflict]
    followed: tuple[Followed, ...] = ()


def _merge(base: bytes, ours: bytes, theirs: bytes, scratch: _Scratch, renames: bool) -> _Merged:
    """Merge three directories; files that both changed as text, and at their new path where they
    were renamed.
    """
    found = merge_trees(base, ours, theirs, scratch)
    edits, clashes = found.edits, []
    for clash in found.conflicts:
        value = _settled(clash, scratch)
        if value is None:
            clashes.append(clash)
        else:
            edits[clash.path] = value
    tree = _edited(ours, edits, scratch)
    if not renames or not clashes:
        return _Merged(tree, frozenset(edits), clashes)
    more = follow(
        Sides(base, ours, theirs, tree),
        clashes,
        scratch,
        scratch.blob,
        lambda clash: _settled(clash, scratch),
    )
    tree = _edited(tree, more.edits, scratch)
    paths = frozenset(edits).union(more.edits)
    return _Merged(tree, paths, more.clashes, tuple(more.followed))


def _edited(tree: bytes, edits: Mapping[Path, Value | None], scratch: _Scratch) -> bytes:
    return edit_paths(tree, edits, scratch).root if edits else tree


def _settled(clash: TreeConflict, scratch: _Scratch) -> Value | None:
    """What becomes of a file that both sides changed, where that goes together."""
    base, ours, theirs = clash.base, clash.ours, clash.theirs
    if clash.reason != Reason.BOTH_CHANGED or base is None or ours is None or theirs is None:
        return None
    value = merged_value(base, ours, theirs)
    if value is None and (contents := _contents(clash, scratch)) is not None:
        text = merge_text(*contents)
        value = None if text is None else (merged_tag(base, ours, theirs), *scratch.put(text))
    return value


def _contents(clash: TreeConflict, scratch: _Scratch) -> tuple[bytes, bytes, bytes] | None:
    """What the three sides hold, where all are files short enough to be text."""
    sides = (clash.base, clash.ours, clash.theirs)
    if any(
        value is not None and (not is_file(value) or value[2] > TEXT_MERGE_BYTES_MAX)
        for value in sides
    ):
        return None
    base, ours, theirs = (b"" if value is None else scratch.blob(value[1]) for value in sides)
    return base, ours, theirs


def _base_tree(
    core: Core, bases: Sequence[CommitId], scratch: _Scratch, depth: int, renames: bool
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
        merged = _merge(start, tree, commits.get(other).tree, scratch, renames)
        stand_ins = {
            clash.path: (_FILE, *scratch.put(_all_sides(clash, scratch)))
            for clash in merged.clashes
        }
        tree = _edited(merged.tree, stand_ins, scratch)
    return tree


def _all_sides(clash: TreeConflict, scratch: _Scratch) -> bytes:
    """Content that stands for a clash of two bases, and equals neither of them."""
    contents = _contents(clash, scratch)
    parts = None if contents is None else merge_contents(*contents)
    if parts is not None and clash.ours is not None and clash.theirs is not None:
        return with_markers(parts, "one side", "other side")
    sides = (clash.base, clash.ours, clash.theirs)
    return encode([None if value is None else value[1] for value in sides])


# -- apply ---------------------------------------------------------------------------------------


def apply_merge(
    core: Core, plan: MergePlan, view: Callable[[], View], begin: Begin, author: str, message: str
) -> MergeResult:
    """Do what a plan says. Raises `RefConflict` when the branch has moved since it was made."""
    if plan.up_to_date or (plan.conflicts and plan.on_conflict == "report"):
        return _result(plan, plan.ours if plan.up_to_date else None, None)
    with begin(author, message or f"merge {plan.named} into {short_ref(plan.into)}") as tx:
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
        (plan.ours, plan.theirs),
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
