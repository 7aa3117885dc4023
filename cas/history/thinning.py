"""Raising the horizon and thinning commits, and the rules of both that no writer passes by.

Floor 4; implements docs/format.md section 5.8. Invariant: inside the gate it is compared, in the
state found there, that the horizon does not fall, that no thinned commit comes back, and that no
ref points at one in any state at or behind the horizon, nor in the state that is being made.

The comparison with all states of the past is made before the gate, by `examine`, and what that
found is remembered; inside it only entries that came meanwhile are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

from cas.errors import CorruptObject, HorizonFixed, Invalid, OnHold, RefConflict
from cas.history.core import Core
from cas.history.horizon import (
    HORIZON_FILE,
    THINNED_FOLDER,
    Horizon,
    Thinning,
    encode_horizon,
    encode_thinning,
    horizon_at,
    is_thinned,
    read_horizon,
    thinned_error,
)
from cas.history.live import LiveTarget, live_targets, targets_since
from cas.history.timeline import Moment
from cas.model.entry import RefChange
from cas.model.ids import CommitId, Kind, ObjectId
from cas.model.names import HOLDS, HORIZON_REF, Path, short_ref
from cas.model.objects import FILE, Commit, Tag
from cas.model.values import frozen
from cas.objects.batch import Batch
from cas.objects.store import ObjectStore
from cas.trees.diff import diff
from cas.trees.node import DIRECTORY, Value
from cas.trees.paths import edit_paths

_TAGS_MAX: Final = 16
"""Tags of tags that are followed."""


@frozen
class _Examined:
    """A target of `policy/horizon` that was compared with all states up to entry `seq`."""

    target: bytes
    seq: int
    horizon: Horizon
    before: Horizon
    fresh: frozenset[bytes]


# What was examined last of each store, on its way to the gate. Any thread: it is replaced as a
# whole, and whoever finds that of another target examines its own.
_EXAMINED: WeakKeyDictionary[ObjectStore, _Examined] = WeakKeyDictionary()


def stage_horizon(
    core: Core,
    batch: Batch,
    before: Horizon,
    seq: int,
    fresh: Mapping[CommitId, Thinning],
    author: str,
    message: str,
) -> ObjectId:
    """Stage a horizon at `seq` with more commits thinned; the tag that `policy/horizon` gets."""
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    edits: dict[Path, Value | None] = {}
    files: dict[Thinning, Value] = {}

    def file(content: bytes) -> Value:
        return FILE, batch.put(Kind.BLOB, content), len(content)

    edits[(HORIZON_FILE,)] = file(encode_horizon(seq))
    for id, thinning in fresh.items():
        value = files.get(thinning)
        if value is None:
            value = files[thinning] = file(encode_thinning(thinning))
        edits[(THINNED_FOLDER, id.hex().encode())] = value
    root = edit_paths(before.root, edits, nodes).root
    tag = Tag(ObjectId(root), Kind.TREE, author, message, core.objects.clock.wall_us())
    return ObjectId(batch.put(Kind.TAG, tag.encode()))


def examine(core: Core, batch: Batch, moment: Moment, target: bytes) -> _Examined:
    """Compare a new horizon with every state up to `moment`; the gate then looks only behind it.

    Raises `HorizonFixed`, `Invalid`, `OnHold`, and `RefConflict` where a ref points at what is
    to be thinned.
    """
    before = horizon_at(core, moment)
    try:
        horizon = read_horizon(core, batch, target)
    except CorruptObject as error:
        raise Invalid(f"{HORIZON_REF} can lead to a horizon only.") from error
    if horizon.seq < before.seq:
        raise _fixed(f"The horizon is at entry {before.seq} and never moves back", before)
    if horizon.seq > moment.seq:
        raise Invalid(
            f"The horizon cannot be raised to entry {horizon.seq}: the newest is {moment.seq}."
        )
    fresh = _fresh(core, batch, before, horizon)
    examined = _Examined(bytes(target), moment.seq, horizon, before, fresh)
    if fresh:
        for id in fresh:
            if core.objects.staged(batch, id)[0] != Kind.COMMIT:
                raise Invalid(f"Only commits are thinned, and {id.hex()[:12]} is none.")
        _refuse(core, batch, fresh, live_targets(core, moment, horizon.seq))
    _EXAMINED[core.objects] = examined
    return examined


def _fresh(core: Core, batch: Batch, before: Horizon, after: Horizon) -> frozenset[bytes]:
    """Commits that a new horizon thins. Raises `HorizonFixed` where one would come back."""
    nodes = core.objects.tree_nodes(DIRECTORY, batch)
    fresh = set()
    for name, old, new in diff(DIRECTORY, before.thinned, after.thinned, nodes):
        if old is not None:
            raise _fixed("What was thinned stays so", before)
        try:
            id = bytes.fromhex(name.decode("ascii"))
        except ValueError:
            id = b""
        if new is None or new[0] != FILE or len(id) != 32 or id.hex().encode() != name:
            raise Invalid("Thinned commits are listed by their whole ids.")
        fresh.add(id)
    return frozenset(fresh)


def _refuse(
    core: Core, batch: Batch, fresh: frozenset[bytes], targets: Iterable[LiveTarget]
) -> None:
    """Raise where a ref of these points at one of `fresh`, or a hold lies on it."""
    known: dict[bytes, CommitId | None] = {}
    held: set[bytes] = set()
    for live in targets:
        ref, target = live.ref, live.target
        if target not in known:
            known[target] = commit_of(core, batch, live.kind, target)
        commit = known[target]
        if commit is None:
            continue
        if ref.startswith(HOLDS) and commit not in held:
            held |= _ancestry(core, batch, commit)
            for id in fresh & held:
                raise OnHold(
                    f"Commit {id.hex()[:12]} cannot be thinned: the legal hold on "
                    f"{commit.short} keeps it; `cas hold` lists the holds.",
                    id=ObjectId(id),
                    hold=commit,
                )
        elif commit in fresh:
            raise RefConflict(
                f"{short_ref(ref)} points at commit {commit.short} in a state that can still be "
                "read, so its content stays; plan again.",
                ref=ref,
                expected=None,
                actual=commit,
            )


def commit_of(core: Core, batch: Batch | None, kind: int, target: bytes) -> CommitId | None:
    """The commit that a ref leads to by way of tags; None for what leads elsewhere."""
    for _ in range(_TAGS_MAX):
        if kind == Kind.COMMIT:
            return CommitId(target)
        if kind != Kind.TAG:
            return None
        tag = Tag.decode(core.objects.staged(batch, target)[1], verified=True)
        kind, target = int(tag.target_kind), tag.target
    return None


def _ancestry(core: Core, batch: Batch, id: CommitId) -> set[bytes]:
    """A commit and all that led to it."""
    found: set[bytes] = {bytes(id)}
    stack: list[bytes] = [id]
    while stack:
        content = core.objects.staged(batch, stack.pop())[1]
        for parent in Commit.decode(content, verified=True).parents:
            if parent not in found:
                found.add(bytes(parent))
                stack.append(parent)
    return found


def _fixed(what: str, horizon: Horizon) -> HorizonFixed:
    return HorizonFixed(f"{what}; nothing was committed.", boundary=horizon.seq)


# -- inside the gate -------------------------------------------------------------------------------


def check_horizon(core: Core, batch: Batch, moment: Moment, changes: Sequence[RefChange]) -> None:
    """Raise where an entry would break a rule of the horizon. Called inside the gate, with the
    state that the changes are for.

    Raises `HorizonFixed`, `Invalid`, `OnHold`, `RefConflict`, and `Thinned` where a ref is to
    point at a commit without content.
    """
    horizon = horizon_at(core, moment)
    for change in changes:
        if change.ref == HORIZON_REF:
            horizon = _check_move(core, batch, moment, change)
    if horizon.thinned == DIRECTORY.empty:
        return
    for change in changes:
        if change.new is None or change.ref == HORIZON_REF:
            continue
        commit = commit_of(core, batch, change.kind, change.new)
        if commit is not None and is_thinned(core, horizon, commit, batch):
            raise thinned_error(core, horizon, commit, change.ref, batch)


def _check_move(core: Core, batch: Batch, moment: Moment, change: RefChange) -> Horizon:
    before = horizon_at(core, moment)
    if change.new is None:
        raise _fixed("The horizon never moves back", before)
    examined = _EXAMINED.get(core.objects)
    if examined is None or examined.target != change.new or examined.before != before:
        examined = examine(core, batch, moment, change.new)
    elif examined.seq < moment.seq and examined.fresh:
        since = targets_since(core, examined.seq, moment.seq)
        _refuse(core, batch, examined.fresh, since)
    return examined.horizon
