"""Transactions that follow a branch which others have moved meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.errors import RefConflict
from cas.history import branch as room
from cas.history.branch import BranchEdit
from cas.history.store import Store
from tests.unit.kit import write

NAMES = ["a", "b", "d/x", "d/y", "d/e/z", "w/1"]


def test_other_files_of_one_branch_are_no_conflict(store: Store) -> None:
    """Who wrote other files follows: parent is what is there, `based_on` what was seen."""
    write(store, files={"a": b"1", "b": b"1"})
    base = store.resolve("main")
    tx = store.begin()
    tx.branch("main")["mine"] = b"m"
    write(store, files={"theirs": b"t", "b": None})
    theirs = store.resolve("main")
    tx.commit()
    assert dict(store.snapshot("main")) == {"a": b"1", "mine": b"m", "theirs": b"t"}
    commit = store.commit("main")
    assert commit.parents == (theirs,)
    assert commit.extras["based_on"] == base
    assert [id for id, _commit in store.log("main")][-1] == base


@pytest.mark.parametrize(
    ("read", "theirs", "conflict"),
    [
        (lambda e: e["a"], {"a": b"2"}, True),
        (lambda e: e["a"], {"b": b"2"}, False),
        (lambda e: e.get("none"), {"none": b"2"}, True),
        (lambda e: e.entry("d"), {"d/new": b"2"}, True),
        (lambda e: e.entry("d"), {"b": b"2"}, False),
        (lambda e: "d/x" in e, {"d/x": None}, True),
        (lambda e: e["d/x"], {"d/y": b"2"}, False),
        (list, {"unrelated": b"2"}, True),
        (len, {"unrelated": b"2"}, True),
        (lambda e: e.get("b/below"), {"b": b"2"}, True),
    ],
)
def test_what_was_read_must_still_hold(
    store: Store,
    read: Callable[[BranchEdit], object],
    theirs: dict[str, bytes | None],
    conflict: bool,
) -> None:
    """A file, a missing file, a directory, or all names: a change of it is a conflict."""
    write(store, files={"a": b"1", "b": b"1", "d/x": b"1", "d/y": b"1"})
    tx = store.begin()
    edit = tx.branch("main")
    read(edit)
    edit["result"] = b"r"
    write(store, files=theirs)
    if conflict:
        with pytest.raises(RefConflict) as caught:
            tx.commit()
        assert caught.value.actual == store.resolve("main")
        assert "result" not in store.snapshot("main")
    else:
        tx.commit()
        assert store.snapshot("main")["result"] == b"r"


def test_writes_over_one_another_conflict(store: Store) -> None:
    """The same file, a file where the other made a directory, and the other way round."""
    for mine, theirs in (("f", "f"), ("f/below", "f"), ("f", "f/below")):
        with cas.open(":memory:") as memory:
            write(memory, files={"keep": b"1"})
            tx = memory.begin()
            tx.branch("main")[mine] = b"mine"
            write(memory, files={theirs: b"theirs"})
            with pytest.raises(RefConflict):
                tx.commit()


def test_a_branch_that_was_only_opened_may_move(store: Store) -> None:
    """A branch of which nothing was read or written holds nothing up; one that was read does."""
    write(store, "one")
    write(store, "two")
    tx = store.begin()
    tx.branch("one")
    tx.branch("two")["more"] = b"2"
    write(store, "one", {"file": b"2"})
    tx.commit()
    assert store.snapshot("two")["more"] == b"2"


def test_conflict_on_every_move_where_that_is_asked_for(store: Store) -> None:
    """`on_move="conflict"` refuses what would be followed."""
    write(store)
    tx = store.begin()
    tx.branch("main", on_move="conflict")["mine"] = b"1"
    write(store, files={"other": b"2"})
    with pytest.raises(RefConflict):
        tx.commit()


def test_a_branch_that_is_gone_or_replaced_is_a_conflict(store: Store) -> None:
    """There is nothing to follow a deleted branch to, and a whole tree touches everything."""
    write(store)
    tx = store.begin()
    tx.branch("main")["mine"] = b"1"
    with store.begin() as other:
        other.delete("heads/main")
        other.commit()
    with pytest.raises(RefConflict):
        tx.commit()
    write(store, "next")
    whole = store.begin()
    whole.branch("next").put_tree(store.commit("next").tree)
    whole.branch("next")["more"] = b"1"
    write(store, "next", {"other": b"2"})
    with pytest.raises(RefConflict):
        whole.commit()


def test_a_branch_that_others_made_meanwhile_is_followed(store: Store) -> None:
    """Two that make one branch at once with different files both succeed."""
    write(store, "elsewhere")
    tx = store.begin()
    tx.branch("new")["mine"] = b"1"
    write(store, "new", {"theirs": b"2"})
    tx.commit()
    assert dict(store.snapshot("new")) == {"mine": b"1", "theirs": b"2"}
    assert "based_on" not in store.commit("new").extras


def test_a_change_that_is_too_long_to_look_through_is_a_conflict(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits at the gate for a comparison without end."""
    monkeypatch.setattr(room, "FOLLOW_CHANGES_MAX", 3)
    write(store)
    tx = store.begin()
    tx.branch("main")["mine"] = b"1"
    write(store, files={f"f{n}": b"2" for n in range(4)})
    with pytest.raises(RefConflict):
        tx.commit()


def test_large_work_follows_outside_the_gate(store: Store) -> None:
    """A transaction with pack files follows too, and what it staged exists once."""
    write(store)
    large = os.urandom(300_000)
    tx = store.begin()
    tx.branch("main")["large"] = large
    write(store, files={"other": b"2"})
    tx.commit()
    assert store.snapshot("main")["large"] == large
    assert store.snapshot("main")["other"] == b"2"
    assert list(store.journal())[-1].seq == 3


def test_nothing_of_the_first_try_is_stored(store: Store) -> None:
    """Trees and commits that were made for the old base do not travel with the new ones."""
    write(store, files={f"f{n:03}": b"%d" % n for n in range(100)})
    tx = store.begin()
    tx.branch("main")["mine"] = b"m"
    write(store, files={"other": b"2"})
    before = len(store.objects.lookup._inline)
    tx.commit()
    # The blob, a leaf, the root and the commit; not those of the first try.
    assert len(store.objects.lookup._inline) - before <= 4


def test_writers_of_one_branch_all_succeed(store: Store) -> None:
    """Threads that write different files of one branch never see a conflict."""
    write(store)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(25):
                with store.begin() as tx:
                    tx.branch("main")[f"w{number}/f{turn}"] = b"x"
                    tx.commit()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.snapshot("main")) == 151
    assert len(list(store.log("main"))) == 151


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=5),
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=5),
    st.lists(st.sampled_from(NAMES), max_size=3),
)
def test_what_commits_is_as_if_one_had_come_after_the_other(
    mine: list[tuple[str, bool]], theirs: list[tuple[str, bool]], reads: list[str]
) -> None:
    """The result equals running mine after theirs, reads included; else it is a conflict."""
    with cas.open(":memory:") as store:
        write(store, files=dict.fromkeys(NAMES, b"0"))
        tx = store.begin()
        edit = tx.branch("main")
        seen = {name: edit.get(name) for name in reads}
        model = dict(store.snapshot("main"))
        for name, keep in mine:
            if keep:
                edit[name] = b"mine"
            elif name in edit:
                del edit[name]
        changes: dict[str, bytes | None] = {
            name: b"theirs" if keep else None for name, keep in theirs
        }
        write(store, files={name: c for name, c in changes.items() if c or name in model})
        newest = len(list(store.journal()))
        after = dict(store.snapshot("main"))
        try:
            entry = tx.commit()
        except RefConflict:
            touched = {name for name, _keep in mine} | set(reads)
            assert any(after.get(name) != b"0" for name in touched)
            return
        if entry.seq <= newest:
            return  # nothing was changed, so that nothing had to hold
        assert seen == {name: after.get(name) for name in reads}
        for name, keep in mine:
            if keep:
                after[name] = b"mine"
            else:
                after.pop(name, None)
        assert dict(store.snapshot("main")) == after
