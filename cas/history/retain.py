"""What a retention policy gives up, planned and then done in one entry.

Floor 4; implements docs/format.md sections 5.7 and 5.8. Invariant: a plan writes nothing; what
`apply` gives up is what was planned, planned anew on the newest state, and is compared once more
inside the gate with every state that can still be read. A commit that any rule, ref, pin or hold
keeps goes for no other.

Commits are thinned, never removed: what goes is content. Refs are left where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import evolve, frozen

from cas.errors import EntryNotFound, Invalid, RefConflict
from cas.history.core import Core
from cas.history.horizon import Horizon, Thinning, horizon_at, thinned_commits
from cas.history.live import live_targets
from cas.history.policy import retention_at
from cas.history.retention import Candidate, KeepRule, RetentionPolicy, check_policy, decide
from cas.history.thinning import commit_of, examine, stage_horizon
from cas.history.timeline import Moment
from cas.history.transaction import Begin, Transaction
from cas.history.view import Ref, View
from cas.limits import RETENTION_TRIES
from cas.model.entry import Entry
from cas.model.ids import CommitId, ObjectId, TreeId
from cas.model.names import HEADS, HOLDS, HORIZON_REF, PINS, TAGS, Path, count, join_path, short_ref
from cas.model.objects import Commit, TreeEntry
from cas.objects.batch import Batch
from cas.trees import paths
from cas.trees.node import DIRECTORY


@frozen
class Going:
    """A commit that would give up its content. `refs`: the branches in whose history it is."""

    id: CommitId
    commit: Commit
    refs: tuple[str, ...]
    reason: str


@frozen
class Kept:
    """A commit that keeps its content, and what keeps it: every rule that asks for it."""

    id: CommitId
    reasons: tuple[str, ...]


@frozen
class RetentionPlan:
    """What applying a policy would do. It is about the state after entry `seq`.

    The horizon would go from `horizon_before` to `horizon`. Both lists are newest first; `kept`
    has the commits of the branches that a rule is about.
    """

    seq: int
    policy: RetentionPolicy
    horizon_before: int
    horizon: int
    going: tuple[Going, ...]
    kept: tuple[Kept, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.going and self.horizon == self.horizon_before


@frozen
class GivenUp:
    """A version of a path that could be read in a commit and in no commit next to it that stays."""

    id: CommitId
    path: str
    entry: TreeEntry


@frozen
class Retained:
    """What was done: `entry` is None where there was nothing to do."""

    plan: RetentionPlan
    entry: Entry | None


# -- the graph -------------------------------------------------------------------------------------


@frozen
class _Node:
    """A commit of the histories that are looked at; `order`: its place, children before parents."""

    id: CommitId
    time_us: int
    parents: tuple[CommitId, ...]
    order: int


def _histories(core: Core, starts: Iterable[CommitId]) -> dict[CommitId, _Node]:
    """Every commit that is reached from some, children before their parents."""
    found: dict[CommitId, tuple[int, tuple[CommitId, ...]]] = {}
    children: dict[CommitId, int] = {}
    stack = list(dict.fromkeys(starts))
    heads = list(stack)
    while stack:
        id = stack.pop()
        if id in found:
            continue
        commit = core.commits.get(id)
        found[id] = commit.time_us, commit.parents
        for parent in set(commit.parents):
            children[parent] = children.get(parent, 0) + 1
            stack.append(parent)
    ready = [id for id in reversed(heads) if id not in children]
    nodes: dict[CommitId, _Node] = {}
    while ready:
        id = ready.pop()
        time_us, parents = found[id]
        nodes[id] = _Node(id, time_us, parents, len(nodes))
        for parent in reversed(dict.fromkeys(parents)):
            children[parent] -= 1
            if not children[parent]:
                ready.append(parent)
    return nodes


def _reach(nodes: Mapping[CommitId, _Node], start: CommitId) -> list[_Node]:
    """The history of one commit, children before parents."""
    seen = {start}
    stack = [start]
    while stack:
        for parent in nodes[stack.pop()].parents:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted((nodes[id] for id in seen), key=lambda node: node.order)


def _forks(nodes: Mapping[CommitId, _Node], heads: Mapping[str, CommitId]) -> set[CommitId]:
    """Commits where branches meet: whoever merges them needs their content.

    A commit that is the newest common ancestor of two branches is reached by both, and none of
    its children is reached by all that reach it. Those of which this is true are a few more.
    """
    masks: dict[CommitId, int] = {}
    for bit, start in enumerate(heads.values()):
        masks[start] = masks.get(start, 0) | 1 << bit
    from_children: dict[CommitId, set[int]] = {}
    found = set()
    for node in nodes.values():
        mask = masks.get(node.id, 0)
        if mask & (mask - 1) and mask not in from_children.pop(node.id, ()):
            found.add(node.id)
        for parent in node.parents:
            masks[parent] = masks.get(parent, 0) | mask
            from_children.setdefault(parent, set()).add(mask)
    return found


# -- the plan --------------------------------------------------------------------------------------


def plan_retention(core: Core, view: View, policy: RetentionPolicy | None) -> RetentionPlan:
    """What a policy, or that of the store, would give up, as of a view. Writes nothing.

    Raises `Invalid` where the store has none, for one that no branch can be like, and what reading
    raises.
    """
    if policy is None:
        policy = retention_at(core, view.moment)
        if policy is None:
            raise Invalid(
                "The store has no retention policy; give rules (`cas retain --keep-daily 7`), and "
                "keep them in the store with `--save` (`store.set_retention`)."
            )
    check_policy(policy)
    before = horizon_at(core, view.moment)
    horizon = max(before.seq, _horizon_seq(core, view.moment, policy))
    refs = view.refs()
    # A tag without a rule keeps what it points at, as every ref does, and not what led there.
    starts = {
        ref.name: commit
        for ref in refs
        if (ref.name.startswith((HEADS, HOLDS)) or policy.rule_for(ref.name) is not None)
        and (commit := commit_of(core, None, int(ref.kind), ref.target)) is not None
    }
    nodes = _histories(core, starts.values())
    thinned = set(thinned_commits(core, before))
    reasons = _Reasons()
    governed: dict[CommitId, dict[str, KeepRule]] = {}
    for ref, start in starts.items():
        rule = None if ref.startswith(HOLDS) else policy.rule_for(ref)
        history = [node for node in _reach(nodes, start) if node.id not in thinned]
        if rule is None:
            why = "legal hold" if ref.startswith(HOLDS) else f"{short_ref(ref)} has no rule"
            reasons.add_all((node.id for node in history), why)
            continue
        for node in history:
            governed.setdefault(node.id, {})[short_ref(ref)] = rule
        kept = decide((Candidate(node.id, node.time_us) for node in history), rule)
        for id, names in kept.items():
            for name in names:
                reasons.add(CommitId(id), f"{name} of {short_ref(ref)}")
    if governed:
        _add_targets(core, view.moment, horizon, refs, reasons)
        heads = {ref: start for ref, start in starts.items() if ref.startswith(HEADS)}
        for id in _forks(nodes, heads):
            reasons.add(id, "branches meet here")
    ordered = sorted(governed, key=lambda id: nodes[id].order)
    return RetentionPlan(
        view.seq,
        policy,
        before.seq,
        horizon,
        tuple(
            Going(id, core.commits.get(id), tuple(sorted(governed[id])), _why(governed[id]))
            for id in ordered
            if id not in reasons
        ),
        tuple(Kept(id, reasons.of(id)) for id in ordered if id in reasons),
    )


class _Reasons:
    """What keeps which commit."""

    def __init__(self) -> None:
        self._reasons: dict[CommitId, list[str]] = {}

    def __contains__(self, id: CommitId) -> bool:
        return id in self._reasons

    def add(self, id: CommitId, why: str) -> None:
        known = self._reasons.setdefault(id, [])
        if why not in known:
            known.append(why)

    def add_all(self, ids: Iterable[CommitId], why: str) -> None:
        for id in ids:
            self.add(id, why)

    def of(self, id: CommitId) -> tuple[str, ...]:
        return tuple(self._reasons[id])


def _why(rules: Mapping[str, KeepRule]) -> str:
    """Why a commit goes: what the rules of its branches keep instead."""
    shown = [f"{ref} keeps {rule}" for ref, rule in sorted(rules.items())]
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return "; ".join(shown[:3]) + more


def _add_targets(
    core: Core, moment: Moment, horizon: int, refs: Iterable[Ref], reasons: _Reasons
) -> None:
    """What refs point at, now and in every state that can still be read, is never thinned."""
    now = {ref.name: ref.target for ref in refs}
    known: dict[ObjectId, CommitId | None] = {}
    for live in live_targets(core, moment, horizon):
        if live.target not in known:
            known[live.target] = commit_of(core, None, live.kind, live.target)
        id = known[live.target]
        if id is None:
            continue
        if now.get(live.ref) != live.target:
            reasons.add(id, f"undo back to entry {horizon}")
        elif live.ref.startswith(PINS):
            reasons.add(id, "pinned")
        elif live.ref.startswith(TAGS):
            reasons.add(id, f"tag {short_ref(live.ref)}")
        elif live.ref.startswith(HEADS):
            reasons.add(id, f"head of {short_ref(live.ref)}")


def _horizon_seq(core: Core, moment: Moment, policy: RetentionPolicy) -> int:
    """The oldest state that a policy wants to be readable."""
    by_count = max(0, moment.seq - policy.horizon.entries)
    if not by_count:
        return 0
    time_us = policy.horizon.within.before(moment.time_us)
    try:
        with core.objects.catalog.read() as reader:
            by_time = core.timeline.seq_at(reader, moment.seq, time_us)
    except EntryNotFound:
        return 0
    return min(by_count, by_time)


# -- what goes, by path ----------------------------------------------------------------------------


def given_up(core: Core, plan: RetentionPlan) -> Iterator[GivenUp]:
    """The versions of paths that a plan gives up, each once, newest commit first, lazily.

    A version counts as kept where the nearest commit that stays, on either side, has it at the
    same path; the same content may also stand elsewhere. Raises what reading directories does.
    """
    going = {item.id: item.commit for item in plan.going}
    nodes = core.objects.tree_nodes(DIRECTORY)
    child = _nearest_children(core, plan)
    told: set[tuple[Path, ObjectId]] = set()
    for item in plan.going:
        sides = [child.get(item.id), _nearest_parent(core, going, item.commit)]
        trees = [core.commits.get(side).tree for side in sides if side is not None]
        gone: dict[Path, TreeEntry] | None = None
        for tree in trees or [TreeId(DIRECTORY.empty)]:
            differs = {
                path: new
                for path, _old, new in paths.diff_paths(tree, item.commit.tree, nodes)
                if new is not None
            }
            gone = differs if gone is None else {p: e for p, e in gone.items() if p in differs}
        for path, entry in sorted((gone or {}).items(), key=lambda pair: pair[0]):
            if (path, entry.id) not in told:
                told.add((path, entry.id))
                yield GivenUp(item.id, join_path(path), entry)


def _nearest_children(core: Core, plan: RetentionPlan) -> dict[CommitId, CommitId]:
    """For each commit that goes, the nearest one behind it that stays, along one line of work."""
    found: dict[CommitId, CommitId] = {}
    going = {item.id for item in plan.going}
    ordered = [kept.id for kept in plan.kept] + [item.id for item in plan.going]
    for id in ordered:
        stays = found.get(id) if id in going else id
        if stays is not None:
            for parent in core.commits.get(id).parents:
                if parent in going:
                    found.setdefault(parent, stays)
    return found


def _nearest_parent(
    core: Core, going: Mapping[CommitId, Commit], commit: Commit
) -> CommitId | None:
    """The nearest commit before one that stays, along first parents."""
    horizon = horizon_at(core, core.timeline.now())
    thinned = set(thinned_commits(core, horizon)) if horizon.thinned != DIRECTORY.empty else set()
    parents = commit.parents
    while parents:
        id = parents[0]
        if id not in going and id not in thinned:
            return id
        parents = core.commits.get(id).parents
    return None


# -- apply -----------------------------------------------------------------------------------------


def apply_retention(
    core: Core,
    plan: RetentionPlan,
    view: Callable[[], View],
    begin: Begin,
    author: str,
    message: str,
) -> Retained:
    """Do what a plan says, as one entry. Raises `RefConflict` when less of it would go by now."""
    for attempt in range(RETENTION_TRIES):
        found = plan_retention(core, view(), plan.policy)
        if attempt == 0 and {item.id for item in plan.going} - {item.id for item in found.going}:
            raise RefConflict(
                "Commits that were planned to give up their content are kept by now; plan again.",
                ref=HORIZON_REF,
                expected=None,
                actual=None,
            )
        wanted = {item.id for item in plan.going}
        fresh = {
            item.id: Thinning(item.reason, author, core.objects.clock.wall_us())
            for item in found.going
            if item.id in wanted
        }
        horizon = min(plan.horizon, found.horizon)
        if not fresh and horizon <= found.horizon_before:
            return Retained(plan, None)
        about = message or _about(len(fresh), horizon, found.horizon_before)
        try:
            with begin(author, about) as tx:
                stage_raise(core, tx, horizon, _one_time(fresh))
                return Retained(plan, tx.commit())
        except RefConflict:
            if attempt == RETENTION_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _one_time(fresh: Mapping[CommitId, Thinning]) -> Mapping[CommitId, Thinning]:
    """All at one moment, so that commits that go for one reason share one object."""
    time_us = max((thinning.time_us for thinning in fresh.values()), default=0)
    return {id: evolve(thinning, time_us=time_us) for id, thinning in fresh.items()}


def _about(number: int, horizon: int, before: int) -> str:
    parts = [f"thin {count(number, 'commit')}"] if number else []
    parts += [f"raise the horizon to entry {horizon}"] if horizon > before else []
    return "retain: " + ", ".join(parts)


def stage_raise(core: Core, tx: Transaction, seq: int, fresh: Mapping[CommitId, Thinning]) -> None:
    """Let a transaction raise the horizon to `seq`, where it is below, and thin commits.

    Raises what `examine` raises; the commit raises it again where others were faster.
    """
    moment = core.timeline.now()
    before: Horizon = horizon_at(core, moment)

    def stage(batch: Batch) -> ObjectId:
        at = max(seq, before.seq)
        target = stage_horizon(core, batch, before, at, fresh, tx.author, tx.message)
        examine(core, batch, moment, target)
        return target

    tx.move(HORIZON_REF, tx.stage(stage))
