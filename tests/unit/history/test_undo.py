"""Undo, redo and restore: what was done is taken back by a new entry, and never unseen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import (
    AmbiguousRevision,
    EntryNotFound,
    Invalid,
    PathNotFound,
    RefConflict,
    RevisionNotFound,
)
from cas.history.store import Store
from cas.history.undo import RefClash, RefMove
from cas.history.view import Ref
from tests.unit.kit import write


def state(store: Store) -> dict[str, bytes]:
    """Where every ref points."""
    return {ref.name: ref.target for ref in store.view().refs()}


def several(store: Store) -> None:
    """Four entries: main, main and side together, a tag, the deletion of side."""
    write(store, "main", {"a": b"1"})
    with store.begin() as tx:
        tx.branch("main")["a"] = b"2"
        tx.branch("side")["b"] = b"1"
        tx.commit()
    with store.begin(message="tagged") as tx:
        tx.tag("v1", store.resolve("main"), "first")
        tx.commit()
    with store.begin(message="side is done") as tx:
        tx.delete("heads/side")
        tx.commit()


def test_undo_takes_all_refs_of_an_entry_back(memory: Store) -> None:
    """One entry that moved, made and deleted refs is reversed by one entry, which says so."""
    several(memory)
    before = state(memory)
    done = memory.undo(4, author="ada")
    assert done.entry is not None
    assert "heads/side" in state(memory)
    assert (done.entry.actor, done.entry.message) == ("ada", "undo entry 4: side is done")
    assert [(e.type, dict(e.headers)) for e in done.entry.events] == [("cas.undo", {"entry": "4"})]
    done = memory.undo(2)
    assert [move.ref for move in done.moves] == ["heads/main", "heads/side"]
    assert memory.snapshot("main")["a"] == b"1"
    assert "heads/side" not in state(memory)
    assert state(memory)["tags/v1"] == before["tags/v1"]


def test_undo_without_a_number_goes_back_step_by_step(memory: Store) -> None:
    """Each undo takes back one more entry, each redo brings the newest undone one again."""
    states = [state(memory)]
    for at in range(4):
        write(memory, "main", {"a": b"%d" % at})
        states.append(state(memory))
    for expected in (states[3], states[2], states[1]):
        assert memory.undo().clean
        assert state(memory) == expected
    assert memory.redo().clean
    assert state(memory) == states[2]
    assert memory.undo().seq == 2
    assert state(memory) == states[1]
    for expected in (states[2], states[3], states[4]):
        memory.redo()
        assert state(memory) == expected
    with pytest.raises(EntryNotFound):
        memory.redo()
    for _ in range(4):
        memory.undo()
    assert state(memory) == states[0] == {}
    with pytest.raises(EntryNotFound):
        memory.undo()


def test_an_undo_can_be_undone_by_number(memory: Store) -> None:
    """The entry of an undo is an entry like any other."""
    several(memory)
    before = state(memory)
    undone = memory.undo(3)
    assert undone.entry is not None
    memory.undo(undone.entry.seq)
    assert state(memory) == before
    assert memory.undo().seq == 4, "the tag stands again, and was not the newest"


def test_a_ref_that_moved_since_stands_against_undo(memory: Store) -> None:
    """Nothing at all is done when one ref has moved, and both sides are told."""
    several(memory)
    left, wanted = memory.resolve("main"), memory.resolve("main~1")
    write(memory, "main", {"a": b"3"})
    before, seq = state(memory), memory.view().seq
    memory.undo(4)
    done = memory.undo(2)
    assert not done.clean
    assert done.entry is None
    assert done.clashes == (RefClash("heads/main", left, memory.resolve("main"), wanted),)
    assert [move.ref for move in done.moves] == ["heads/side"]
    assert state(memory) == {**before, "heads/side": state(memory)["heads/side"]}
    assert memory.view().seq == seq + 1


def test_what_is_back_already_needs_no_entry(memory: Store) -> None:
    """An entry whose refs were set back by hand is undone by doing nothing."""
    write(memory, "main", {"a": b"1"})
    write(memory, "main", {"a": b"2"})
    with memory.begin() as tx:
        tx.move("heads/main", memory.resolve("main~1"))
        tx.commit()
    done = memory.undo(2)
    assert (done.clean, done.entry, done.moves) == (True, None, ())


def test_a_plan_is_bound_to_its_state(memory: Store) -> None:
    """A plan of undo or restore is refused when a ref of it has moved since."""
    several(memory)
    undo, whole = memory.plan_undo(3), memory.plan_restore(seq=1)
    path = memory.plan_restore("main:a", seq=1)
    with memory.begin() as tx:
        tx.branch("main")["late"] = b""
        tx.delete("tags/v1")
        tx.commit()
    before = state(memory)
    for plan in (undo, whole, path):
        with pytest.raises(RefConflict):
            memory.apply(plan)
    assert state(memory) == before


@pytest.mark.parametrize("seq", [0, 5, -1, 1 << 70])
def test_an_entry_that_is_not_there_cannot_be_undone(memory: Store, seq: int) -> None:
    """A number outside the journal is a typed error that names the newest entry."""
    several(memory)
    for call in (memory.undo, memory.redo):
        with pytest.raises(EntryNotFound):
            call(seq)


def test_what_cannot_be_undone_is_told(memory: Store) -> None:
    """An entry of events only moved nothing; an entry that is no undo cannot be redone."""
    with memory.begin() as tx:
        tx.event("noted")
        tx.commit()
    with pytest.raises(Invalid):
        memory.undo(1)
    with pytest.raises(Invalid):
        memory.redo(1)
    write(memory)
    assert memory.undo().seq == 2


ACTS = st.lists(
    st.tuples(st.sampled_from(["main", "side", "x/y"]), st.sampled_from(["a", "b", "gone"])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50)
@given(ACTS, st.data())
def test_undo_after_do_is_the_state_before(
    acts: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Undoing all entries from the newest on gives every earlier state; redoing, every later."""
    with cas.open(":memory:") as store:
        states = [state(store)]
        for number, (branch, name) in enumerate(acts):
            with store.begin() as tx:
                ref = "heads/" + branch
                if name == "gone" and store.view().ref(ref) is not None:
                    tx.delete(ref)
                else:
                    tx.branch(branch, allow_empty=True)[name] = b"%d" % (number // 2)
                tx.commit()
            states.append(state(store))
        steps = data.draw(st.integers(1, len(acts)))
        for back in range(steps):
            seq = len(acts) - back
            assert store.undo(seq).clean
            assert state(store) == states[seq - 1]
        for _ in range(steps):
            store.redo()
        assert state(store) == states[-1]
        target = data.draw(st.integers(0, len(acts)))
        store.restore(seq=target)
        assert state(store) == states[target]


def test_everything_goes_back_to_a_moment(memory: Store) -> None:
    """Restoring all refs moves, makes and deletes what differs from then, in one entry."""
    several(memory)
    then = state(memory)
    write(memory, "new", {"n": b""})
    write(memory, "main", {"a": b"9"})
    plan = memory.plan_restore(seq=4)
    assert [move.ref for move in plan.moves] == ["heads/main", "heads/new"]
    done = memory.restore(seq=4, author="ada")
    assert state(memory) == then
    assert done.entry is not None
    assert done.entry.events[0].type == "cas.restore"
    again = memory.restore(seq=4)
    assert again.entry is None
    memory.undo(done.entry.seq)
    assert memory.snapshot("main")["a"] == b"9"


def test_one_ref_goes_back_to_a_time(memory: Store) -> None:
    """A branch or tag goes back to what it was at a time; others stay."""
    several(memory)
    time_us = memory.entry(1).time_us
    memory.restore("main", time_us=time_us)
    assert memory.snapshot("main")["a"] == b"1"
    memory.restore("v1", seq=2)
    assert "tags/v1" not in state(memory)
    memory.restore("heads/side", seq=2)
    assert memory.snapshot("side")["b"] == b"1"


def test_a_path_comes_back_in_a_new_commit(memory: Store) -> None:
    """A file, a directory or its absence is restored in a branch, and history stays."""
    write(memory, "main", {"d/a": b"1", "d/b": b"1", "k": b"1"})
    write(memory, "main", {"d/a": b"2", "d/b": None, "k": b"2", "new": b""})
    head = memory.resolve("main")
    done = memory.restore("main:d", seq=1)
    assert memory.commit("main").parents == (head,)
    assert dict(memory.snapshot("main")) == {"d/a": b"1", "d/b": b"1", "k": b"2", "new": b""}
    assert done.moves == (RefMove("heads/main", head, memory.resolve("main")),)
    memory.restore("main:new", seq=1)
    assert "new" not in memory.snapshot("main")
    assert memory.restore("main:k", seq=2).entry is None


def test_what_cannot_be_restored_is_told(memory: Store) -> None:
    """Names that were never there, or could be two refs, and moments out of range are refused."""
    several(memory)
    with pytest.raises(RevisionNotFound):
        memory.restore("nothing", seq=1)
    with pytest.raises(PathNotFound):
        memory.restore("main:nothing", seq=1)
    with pytest.raises(EntryNotFound):
        memory.restore("main", seq=99)
    with pytest.raises(Invalid):
        memory.restore("main")
    with pytest.raises(Invalid):
        memory.restore("v1:a", seq=3)
    with memory.begin() as tx:
        tx.tag("main", memory.resolve("main~1"))
        tx.commit()
    with pytest.raises(AmbiguousRevision):
        memory.restore("main", seq=1)


def test_marks_that_are_no_numbers_do_not_mislead(memory: Store) -> None:
    """An event of somebody else with the same type and a strange header is passed over."""
    write(memory)
    with memory.begin() as tx:
        tx.event("cas.undo", b"", {"entry": "²"})
        tx.commit()
    assert memory.undo().seq == 1
    assert isinstance(memory.view().ref("heads/main"), Ref | None)
