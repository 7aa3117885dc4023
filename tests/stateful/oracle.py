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
    # Paths of a branch that were read or written; None once all of it was read.
    touched: dict[str, set[str] | None] = attrs.field(factory=dict)
    events: int = 0

    def edit(self, branch: str) -> tuple[BranchEdit, dict[str, bytes]]:
        """A branch in the transaction and the files it should show."""
        name = "heads/" + branch
        if name not in self.branches:
            base = self.base.get(name)
            self.branches[name] = {} if base is None else dict(base.files)
        self.edits[name] = self.tx.branch(branch)
        self.touched.setdefault(name, set())
        return self.edits[name], self.branches[name]

    def touch(self, branch: str, path: str | None) -> None:
        """Note that a path was read or written, or all of them."""
        name = "heads/" + branch
        paths = self.touched[name]
        if path is None or paths is None:
            self.touched[name] = None
        else:
            paths.add(path)

    def changed(self, now: State) -> dict[str, Files | None]:
        """Refs that the commit should move, with the files they should show then: what others
        have left there, and the changes made here on top.
        """
        found: dict[str, Files | None] = {}
        for name, files in self.branches.items():
            before, theirs = _files(self.base, name), _files(now, name)
            if files != before:
                after = dict(theirs)
                for path in before.keys() | files.keys():
                    if files.get(path) != before.get(path):
                        after.pop(path, None)
                        if path in files:
                            after[path] = files[path]
                found[name] = after
        for name, target in self.moves.items():
            base = self.base.get(name)
            if target is None or base is None or base.target != target.target:
                found[name] = None if target is None else target.files
        return found

    def moved(self, now: State) -> set[str]:
        """Refs that somebody else has moved since, so that this transaction cannot commit."""
        return {
            name
            for name in {*self.branches, *self.moves}
            if _seq(now, name) != _seq(self.base, name)
            and (name in self.moves or self._concerned(name, now))
        }

    def _concerned(self, name: str, now: State) -> bool:
        """Whether others touched what was read or written here, or the branch is gone."""
        if name not in now:
            return True
        before, theirs = _files(self.base, name), _files(now, name)
        changed = {p for p in before.keys() | theirs.keys() if before.get(p) != theirs.get(p)}
        touched = self.touched[name]
        if touched is None:
            return bool(changed)
        return any(one == two or inside(one, two) for one in changed for two in touched)

    def collides(self, now: State) -> bool:
        """Whether a ref made by this transaction would lie inside another."""
        changed = self.changed(now)
        after = {name for name in now if name not in changed or changed[name] is not None}
        after |= {name for name, files in changed.items() if files is not None}
        made = {name for name, files in changed.items() if files is not None and name not in now}
        return any(inside(one, two) for one in made for two in after)


def inside(one: str, two: str) -> bool:
    """Whether one of two refs would be a folder of the other."""
    return two.startswith(one + "/") or one.startswith(two + "/")


def _files(state: State, name: str) -> Files:
    ref = state.get(name)
    return {} if ref is None else ref.files


def _seq(state: State, name: str) -> int:
    ref = state.get(name)
    return -1 if ref is None else ref.seq


def read_state(store: Store, seq: int) -> State:
    """Branches and tags of a store after an entry, read through the store."""
    view = store.at(seq)
    return {
        ref.name: Ref(dict(view.snapshot(ref.target)), ref.target, ref.seq)
        for ref in (*view.branches(), *view.tags())
    }
