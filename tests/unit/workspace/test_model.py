"""A workspace against a model: units on two handles, branches, merges, a crash, a reopening."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import cas
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate
from cas.workspace.workspace import Workspace


@aggregate("t_item", collection="t_items", context="items")
class Item(Aggregate):
    """One field of each kind of rule that a model can hold at a glance."""

    name: str = part()
    tags: frozenset[str] = part(default=frozenset(), rule="union")
    count: int = part(default=0, rule="counter")


State = dict[str, tuple[str, frozenset[str], int]]
IDS = st.sampled_from("abc")
TAGS = st.frozensets(st.sampled_from("xyz"))


def merge(base: State, ours: State, theirs: State) -> tuple[State, int]:
    """What stands after a merge that keeps conflicts, and how many there are."""
    found: State = {}
    conflicts = 0
    for id in {*base, *ours, *theirs}:
        old, mine, other = base.get(id), ours.get(id), theirs.get(id)
        if other == old:
            kept = mine
        elif mine == old:
            kept = other
        elif mine is None or other is None:
            conflicts += mine is not other
            kept = mine or other
        else:
            name, tags, count = old or (None, frozenset(), 0)
            clash = mine[0] != other[0] and name not in (mine[0], other[0])
            conflicts += clash
            merged = (mine[1] & other[1] & tags) | (mine[1] - tags) | (other[1] - tags)
            chosen = mine[0] if clash or other[0] == name else other[0]
            kept = (chosen, merged, mine[2] + other[2] - count)
        if kept is not None:
            found[id] = kept
    return found, conflicts


class WorkspaceMachine(RuleBasedStateMachine):
    """Two handles of one store, and a dictionary for each branch."""

    @initialize()
    def begin(self) -> None:
        """An empty workspace with one item."""
        self.folder = tempfile.TemporaryDirectory(prefix="cas-space-")
        place = Path(self.folder.name) / "s"
        self.stores = [cas.open(place, create=True), cas.open(place)]
        self.branches: dict[str, State] = {"main": {}}
        self.bases: dict[str, State] = {}
        self.conflicts = {"main": 0}
        self.write(0, "main", "a", "first", frozenset(), 0)

    def space(self, handle: int, branch: str) -> Workspace:
        """A branch through one of the handles."""
        return Workspace(self.stores[handle], branch=branch)

    def pick(self, branch: str) -> str:
        """That branch if it is there, else the main one."""
        return branch if branch in self.branches else "main"

    @rule(
        handle=st.integers(0, 1),
        branch=st.sampled_from(["main", "b", "c"]),
        id=IDS,
        name=st.sampled_from("pqr"),
        tags=TAGS,
        step=st.integers(-2, 2),
    )
    def write(
        self, handle: int, branch: str, id: str, name: str, tags: frozenset[str], step: int
    ) -> None:
        """Make or change an item."""
        branch = self.pick(branch)
        with self.space(handle, branch).unit_of_work("w") as uow:
            old = uow.find_one(Item, id)
            made = Item(id=id, name=name) if old is None else old.evolve(name=name)
            uow.save(made.evolve(tags=tags, count=made.count + step))
            uow.event("written", {"id": id})
            uow.commit()
        count = self.branches[branch].get(id, ("", frozenset(), 0))[2]
        self.branches[branch][id] = (name, tags, count + step)

    @rule(handle=st.integers(0, 1), branch=st.sampled_from(["main", "b"]), id=IDS)
    def remove(self, handle: int, branch: str, id: str) -> None:
        """Remove an item that is there."""
        branch = self.pick(branch)
        if id in self.branches[branch]:
            with self.space(handle, branch).unit_of_work("r") as uow:
                uow.remove(uow.get(Item, id))
                uow.commit()
            del self.branches[branch][id]

    @rule(id=IDS, one=st.integers(-2, 2), two=st.integers(-2, 2), tags=TAGS)
    def race(self, id: str, one: int, two: int, tags: frozenset[str]) -> None:
        """Two units through two handles change one item at once, in fields that merge."""
        if id not in self.branches["main"]:
            return
        name, before, count = self.branches["main"][id]
        units = [self.space(handle, "main").unit_of_work("r") for handle in (0, 1)]
        for uow, step in zip(units, (one, two), strict=True):
            old = uow.get(Item, id)
            uow.save(old.evolve(count=old.count + step, tags=old.tags | (tags if step else set())))
        for uow in units:
            uow.commit()
        added = tags if one or two else frozenset()
        self.branches["main"][id] = (name, before | added, count + one + two)

    @rule(branch=st.sampled_from(["b", "c"]), of=st.sampled_from(["main", "b"]))
    def fork(self, branch: str, of: str) -> None:
        """Make a branch."""
        if branch not in self.branches and of == "main":
            self.space(0, of).branch(branch, actor="f")
            self.branches[branch] = dict(self.branches[of])
            self.bases[branch] = dict(self.branches[of])
            self.conflicts[branch] = self.conflicts[of]

    @rule(branch=st.sampled_from(["b", "c"]), handle=st.integers(0, 1))
    def merge(self, branch: str, handle: int) -> None:
        """Merge a branch back, keeping conflicts."""
        if branch not in self.branches:
            return
        self.space(handle, "main").merge(branch, actor="m", on_conflict="keep")
        theirs = self.branches[branch]
        found, conflicts = merge(self.bases[branch], self.branches["main"], theirs)
        self.branches["main"] = found
        self.conflicts["main"] += conflicts
        self.bases[branch] = dict(theirs)

    @rule(branch=st.sampled_from(["b", "c"]))
    def drop(self, branch: str) -> None:
        """Drop a branch."""
        if branch in self.branches:
            self.space(1, "main").drop_branch(branch, actor="d")
            del self.branches[branch], self.bases[branch], self.conflicts[branch]

    @rule(handle=st.integers(0, 1), id=IDS)
    def abandon(self, handle: int, id: str) -> None:
        """Stage something, and lose the handle before the commit."""
        uow = self.space(handle, "main").unit_of_work("lost")
        if id not in self.branches["main"]:
            uow.add(Item(id=id, name="never"))
        uow.event("never")
        place = self.stores[handle].location
        self.stores[handle].close()
        self.stores[handle] = cas.open(place)

    @invariant()
    def agrees(self) -> None:
        """Every branch through either handle is what the model says."""
        for number, (branch, state) in enumerate(self.branches.items()):
            view = self.space(number % 2, branch).now()
            found: dict[str, Any] = {
                item.id: (item.name, item.tags, item.count) for item in view.collection(Item)
            }
            assert found == state, branch
        assert sum(1 for _ in self.space(0, "main").conflicts()) == self.conflicts["main"]

    def teardown(self) -> None:
        """No event of what was abandoned; the store is given back."""
        if hasattr(self, "stores"):
            assert not any(self.space(0, "main").events(types=["never"]))
            for store in self.stores:
                store.close()
            self.folder.cleanup()


@pytest.mark.slow
def test_a_workspace_does_what_the_model_says() -> None:
    """Whatever is done to a workspace through two handles, it is what a dictionary would be."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        WorkspaceMachine,
        settings=settings(max_examples=15, stateful_step_count=20, deadline=None),
    )
