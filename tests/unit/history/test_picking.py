"""Cherry-pick and revert: one change, made again somewhere else, or taken back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import Invalid, RefConflict, RefNotFound, RevisionNotFound
from cas.history.store import Store
from tests.unit.history.test_following import TEXT, changed, sound
from tests.unit.history.test_merge import Files, edit, files, fork, paths_of
from tests.unit.kit import write


def test_a_change_in_the_middle_is_taken_back(memory: Store) -> None:
    """What came since stays, in the same file too; the commit has one parent, and says why."""
    write(memory, "main", {"a": TEXT, "k": b"1"})
    write(memory, "main", {"a": changed(2), "bad": b"", "k": None}, message="a mistake\n\nlong")
    mistake = memory.resolve("main")
    write(memory, "main", {"a": changed(2, 15), "new": b"2"})
    result = memory.revert("main", mistake, author="ada")
    assert result.clean
    assert files(memory) == {"a": changed(15), "k": b"1", "new": b"2"}
    commit = memory.commit("main")
    assert (len(commit.parents), commit.author) == (1, "ada")
    assert commit.message == f"revert {mistake.short}: a mistake"
    again = memory.revert("main", mistake)
    assert (again.up_to_date, again.entry, again.commit) == (True, None, memory.resolve("main"))
    memory.revert("main", "main")
    assert files(memory) == {"a": changed(2, 15), "bad": b"", "new": b"2"}
    assert sound(memory)


def test_a_change_is_made_on_another_branch(memory: Store) -> None:
    """Of one commit, and not of those before it; also where the file has another name there."""
    fork(memory, {"a": TEXT}, {"a": None, "b": changed(9)}, {"a": changed(3), "x": b""})
    write(memory, "side", {"a": changed(3, 14)}, message="the fix")
    result = memory.cherry_pick("main", "side")
    assert [(each.origin, each.path) for each in result.followed] == [("a", "b")]
    assert files(memory) == {"b": changed(9, 14)}
    assert (memory.commit("main").message, len(memory.commit("main").parents)) == ("the fix", 1)
    with pytest.raises(Invalid):
        memory.cherry_pick("main", "side", on_conflict="maybe")  # type: ignore[arg-type]


def test_the_first_commit_is_a_change_of_nothing(memory: Store) -> None:
    """It can be taken to another history, and taken back."""
    write(memory, "main", {"a": b"1"})
    write(memory, "other", {"b": b"2"})
    memory.cherry_pick("main", "other")
    assert files(memory) == {"a": b"1", "b": b"2"}
    memory.revert("main", "main~1")
    assert files(memory) == {"b": b"2"}


@pytest.mark.parametrize("policy", ["report", "commit", "ours", "theirs"])
def test_conflicts_are_those_of_a_merge(memory: Store, policy: str) -> None:
    """Told, committed with the three contents, or settled for a side."""
    for content in (b"1\n", b"2\n", b"3\n"):
        write(memory, "main", {"a": content})
    result = memory.revert("main", "main~1", on_conflict=policy)  # type: ignore[arg-type]
    clash = [("a", "both-changed")]
    assert paths_of((*result.conflicts, *result.settled)) == clash
    assert result.clean == (policy in ("ours", "theirs"))
    assert (result.entry is None) == (policy == "report")
    assert files(memory) == {"a": b"1\n" if policy == "theirs" else b"3\n"}
    if policy == "commit":
        (kept,) = memory.conflicts("main")
        sides = [memory.get(side.id) for side in (kept.base, kept.ours, kept.theirs)]  # type: ignore[union-attr]
        assert sides == [b"2\n", b"3\n", b"1\n"]
        assert sound(memory)


def test_of_a_merge_the_parent_must_be_named(memory: Store) -> None:
    """Else nobody knows what its change is; a number that is none is told."""
    fork(memory, {"a": b"1"}, {"b": b"1"}, {"c": b"1"})
    memory.merge("main", "side")
    with pytest.raises(Invalid, match="merge of 2"):
        memory.revert("main", "main")
    with pytest.raises(Invalid, match="none of number 3"):
        memory.plan_pick("main", "main", mainline=3)
    memory.revert("main", "main", mainline=1)
    assert files(memory) == {"a": b"1", "b": b"1"}


def test_conflicts_that_stood_are_carried(memory: Store) -> None:
    """A revert of something else leaves an open conflict open."""
    fork(memory, {"a": b"1", "k": b"1"}, {"a": b"2"}, {"a": b"3"})
    memory.merge("main", "side", on_conflict="commit")
    write(memory, "main", {"k": b"2"})
    result = memory.revert("main", "main")
    assert paths_of(result.carried) == [("a", "both-changed")]
    assert paths_of(memory.conflicts("main")) == [("a", "both-changed")]


def test_a_change_of_conflicts_alone_is_one(memory: Store) -> None:
    """A commit that left a conflict, or settled it with what the branch had, changes no file: taken
    back, the conflict is gone, or open again, and made once more it is settled.
    """
    fork(memory, {"a": b"1"}, {"a": b"2"}, {"a": b"3"})
    memory.merge("main", "side", on_conflict="commit")
    left = memory.resolve("main")
    with memory.begin() as tx:
        tx.move("heads/other", left)
        tx.commit()
    with memory.begin() as tx:
        tx.branch("main").resolve("a", take="ours")
        tx.commit()
    settled = memory.resolve("main")
    clash = [("a", "both-changed")]
    assert not memory.cherry_pick("other", settled).up_to_date
    assert paths_of(memory.conflicts("other")) == []
    assert paths_of(memory.revert("main", settled).carried) == clash
    assert paths_of(memory.conflicts("main")) == clash
    memory.revert("main", left, mainline=1)
    assert paths_of(memory.conflicts("main")) == []
    assert memory.revert("main", left, mainline=1).up_to_date
    assert files(memory) == files(memory, "other") == {"a": b"2"}


def test_a_plan_writes_nothing_and_is_bound_to_its_state(store: Store) -> None:
    """Nothing is stored before it is applied, and that only where the branch stands as it did."""
    write(store, "main", {"a": b"1"})
    write(store, "main", {"a": b"2"})
    before = store.view().seq
    plan = store.plan_pick("main", "main", back=True)
    assert (plan.edit_count, plan.parents) == (1, (store.resolve("main"),))
    assert store.view().seq == before
    write(store, "main", {"b": b""})
    with pytest.raises(RefConflict):
        store.apply(plan)
    with pytest.raises(RefNotFound):
        store.revert("none", "main")
    with pytest.raises(RevisionNotFound):
        store.revert("main", "none")


CHANGES = st.dictionaries(
    st.sampled_from(["a", "b", "d/e", "d/f"]),
    st.one_of(st.none(), st.sampled_from([b"1\n", b"1\n2\n", TEXT, changed(4)])),
    max_size=3,
)


@settings(max_examples=60)
@given(CHANGES, CHANGES)
def test_taking_back_and_making_again_changes_nothing(first: Files, second: Files) -> None:
    """The newest change taken back gives the tree before it, to the root; and that taken back the
    tree behind it. Made on the tree before, it gives the tree behind.
    """
    with cas.open(":memory:") as store:
        edit(store, "main", {"k": b"", **dict(first)})
        edit(store, "main", second)
        before, after = (store.commit(name).tree for name in ("main~1", "main"))
        with store.begin() as tx:
            tx.move("heads/pick", store.resolve("main~1"))
            tx.commit()
        changed_tree = before != after
        assert store.revert("main", "main").up_to_date is not changed_tree
        assert store.commit("main").tree == before
        if changed_tree:
            store.revert("main", "main")
            assert store.commit("main").tree == after
        store.cherry_pick("pick", "main~2" if changed_tree else "main")
        assert store.commit("pick").tree == after
