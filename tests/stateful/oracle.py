"""What a store should be, as plain dictionaries: every state there ever was, and open work."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from cas.history.branch import BranchEdit
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.model.ids import ObjectId

Files = Mapping[str, bytes]


@attrs.frozen
class Ref:
    """Where a ref points: the files there, the id, and the entry that moved it last."""

    files: Files
    target: ObjectId
    seq: int


State = dict[str, Ref]


@attrs.define
class Work:
    """A transaction under way, beside what it should see and do."""

    store: Store
    tx: Transaction
    base: State
    base_seq: int
    branches: dict[str, dict[str, bytes]] = attrs.field(factory=dict)
    edits: dict[str, BranchEdit] = attrs.field(factory=dict)
    moves: dict[str, Ref | None] = attrs.field(factory=dict)
    events: int = 0

    def edit(self, branch: str) -> tuple[BranchEdit, dict[str, bytes]]:
        """A branch in the transaction and the files it should show."""
        name = "heads/" + branch
        if name not in self.branches:
            base = self.base.get(name)
            self.branches[name] = {} if base is None else dict(base.files)
        self.edits[name] = self.tx.branch(branch)
        return self.edits[name], self.branches[name]

    def changed(self) -> dict[str, Files | None]:
        """Refs that the commit should move, with the files they should show then."""
        found: dict[str, Files | None] = {}
        for name, files in self.branches.items():
            base = self.base.get(name)
            if files != ({} if base is None else base.files):
                found[name] = files
        for name, target in self.moves.items():
            base = self.base.get(name)
            if target is None or base is None or base.target != target.target:
                found[name] = None if target is None else target.files
        return found

    def moved(self, now: State) -> set[str]:
        """Refs that this transaction looked at and that somebody else has moved since."""
        looked = {*self.branches, *self.moves}
        return {name for name in looked if _seq(now, name) != _seq(self.base, name)}

    def collides(self, now: State) -> bool:
        """Whether a ref made by this transaction would lie inside another."""
        changed = self.changed()
        after = {name for name in now if name not in changed or changed[name] is not None}
        after |= {name for name, files in changed.items() if files is not None}
        made = {name for name, files in changed.items() if files is not None and name not in now}
        return any(inside(one, two) for one in made for two in after)


def inside(one: str, two: str) -> bool:
    """Whether one of two refs would be a folder of the other."""
    return two.startswith(one + "/") or one.startswith(two + "/")


def _seq(state: State, name: str) -> int:
    ref = state.get(name)
    return -1 if ref is None else ref.seq


def read_state(store: Store, seq: int) -> State:
    """The refs of a store after an entry, read through the store."""
    view = store.at(seq)
    return {
        ref.name: Ref(dict(view.snapshot(ref.target)), ref.target, ref.seq) for ref in view.refs()
    }
