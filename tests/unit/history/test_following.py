"""Merges that follow renames: a change of a file goes to where the other side has put the file."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.history import renames
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from tests.unit.history.test_merge import files, fork, paths_of

LINES = [b"line %d of a text that is long enough\n" % number for number in range(20)]
TEXT = b"".join(LINES)


def changed(*numbers: int) -> bytes:
    """The text with some of its lines changed."""
    return b"".join(
        line.upper() if number in numbers else line for number, line in enumerate(LINES)
    )


def sound(store: Store) -> bool:
    """Whether a check of everything finds neither loss nor damage."""
    return not [f for f in fsck(store).findings if f.severity.name in ("LOSS", "DAMAGE")]


def followed(result: cas.MergeResult | cas.MergePlan) -> list[tuple[str, str]]:
    """Old and new paths."""
    return [(each.origin, each.path) for each in result.followed]


@pytest.mark.parametrize("moved_by_ours", [True, False])
def test_a_change_goes_to_the_new_name(memory: Store, moved_by_ours: bool) -> None:
    """One side renames a file and changes it too, the other changes other lines: both are there."""
    sides: list[Mapping[str, bytes | None]] = [
        {"old/a.txt": None, "new/b.txt": changed(2)},
        {"old/a.txt": changed(17)},
    ]
    ours, theirs = sides if moved_by_ours else reversed(sides)
    fork(memory, {"old/a.txt": TEXT, "c": b"1"}, ours, theirs)
    result = memory.merge("main", "side")
    assert result.clean
    assert followed(result) == [("old/a.txt", "new/b.txt")]
    assert files(memory) == {"new/b.txt": changed(2, 17), "c": b"1"}
    assert sound(memory)


def test_a_directory_that_was_renamed_takes_changes_with_it(memory: Store) -> None:
    """Each changed file of a directory that the other side renamed as a whole; nothing stays."""
    base = {f"old/{name}": name.encode() + TEXT for name in "abc"}
    theirs: dict[str, bytes | None] = dict.fromkeys(base)
    theirs |= {f"new/deep/{name}": name.encode() + TEXT for name in "abc"}
    fork(memory, base, {"old/a": b"a" + changed(3), "old/c": b"c" + changed(4)}, theirs)
    result = memory.merge("main", "side")
    assert result.clean
    assert files(memory) == {
        "new/deep/a": b"a" + changed(3),
        "new/deep/b": b"b" + TEXT,
        "new/deep/c": b"c" + changed(4),
    }
    assert [name for name, _entry in memory.snapshot("main").entries()] == ["new"]


@pytest.mark.parametrize("moved_by_ours", [True, False])
def test_lines_that_clash_are_a_conflict_at_the_new_name(
    memory: Store, moved_by_ours: bool
) -> None:
    """With the old content as base; what stands there is ours, and settling it settles it."""
    moved, kept = changed(2), changed(2).replace(b"LINE 2", b"LiNe 2")
    sides: list[Mapping[str, bytes | None]] = [{"a": None, "b": moved}, {"a": kept}]
    ours, theirs = sides if moved_by_ours else reversed(sides)
    fork(memory, {"a": TEXT, "c": b"1"}, ours, theirs)
    result = memory.merge("main", "side", on_conflict="commit")
    assert paths_of(result.conflicts) == [("b", "both-changed")]
    (conflict,) = memory.conflicts("main")
    contents = [memory.get(side.id) for side in (conflict.base, conflict.ours, conflict.theirs)]  # type: ignore[union-attr]
    mine, other = (moved, kept) if moved_by_ours else (kept, moved)
    assert contents == [TEXT, mine, other]
    assert files(memory) == {"b": mine, "c": b"1"}
    with memory.begin() as tx:
        tx.branch("main").resolve("b", take="theirs")
        tx.commit()
    assert files(memory) == {"b": other, "c": b"1"}
    assert memory.conflicts("main") == ()


def test_a_side_can_be_taken_where_a_renamed_file_clashes(memory: Store) -> None:
    """For theirs the new path gets their content; the old one is gone all the same."""
    fork(memory, {"a": TEXT}, {"a": None, "b": changed(19)}, {"a": changed(19) + b"more\n"})
    result = memory.merge("main", "side", on_conflict="theirs")
    assert paths_of(result.settled) == [("b", "both-changed")]
    assert files(memory) == {"b": changed(19) + b"more\n"}


def test_what_both_renamed_alike_is_merged_with_what_it_was(memory: Store) -> None:
    """Two files of one new name have a common past, and are no strangers."""
    fork(memory, {"a": TEXT}, {"a": None, "b": changed(1)}, {"a": None, "b": changed(12)})
    result = memory.merge("main", "side")
    assert followed(result) == [("a", "b")]
    assert files(memory) == {"b": changed(1, 12)}


def test_nothing_is_followed_to_a_place_that_is_taken(memory: Store) -> None:
    """The other side has a file of its own there, or something in the way: conflicts as before."""
    for ours in ({"b": b"mine"}, {"b": b"mine", "a": changed(3)}):
        with cas.open(":memory:") as store:
            fork(store, {"a": TEXT}, {"a": changed(5), **ours}, {"a": None, "b": TEXT})
            result = store.merge("main", "side")
            assert not result.clean
            assert result.followed == ()
    fork(memory, {"a": TEXT}, {"a": changed(5), "d": b"a file"}, {"a": None, "d/b": TEXT})
    result = memory.merge("main", "side")
    assert paths_of(result.conflicts) == [("a", "changed-deleted"), ("d", "file-folder")]


def test_a_merge_need_not_follow(memory: Store) -> None:
    """Without renames a changed and a removed file are a conflict."""
    fork(memory, {"a": TEXT}, {"a": changed(1)}, {"a": None, "b": TEXT})
    result = memory.merge("main", "side", renames=False)
    assert paths_of(result.conflicts) == [("a", "changed-deleted")]


def test_the_search_is_bounded(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A side that added and removed more than is looked through is not followed."""
    monkeypatch.setattr(renames, "RENAME_CANDIDATES_MAX", 1)
    fork(memory, {"a": TEXT}, {"a": changed(1)}, {"a": None, "b": TEXT})
    assert paths_of(memory.merge("main", "side").conflicts) == [("a", "changed-deleted")]


def test_crossed_merges_follow_in_their_virtual_base(memory: Store) -> None:
    """Two bases, one of which has the new name: the merge of both has the new name too."""
    fork(memory, {"a": TEXT}, {"a": None, "b": TEXT}, {"a": changed(4)})
    main, side = memory.resolve("main"), memory.resolve("side")
    memory.merge("main", side, fast_forward=False)
    memory.merge("side", main, fast_forward=False)
    with memory.begin() as tx:
        tx.branch("main")["b"] = changed(4, 10)
        tx.commit()
    result = memory.merge("main", "side", fast_forward=False)
    assert result.clean
    assert len(result.bases) == 2
    assert files(memory) == {"b": changed(4, 10)}


def test_what_was_purged_is_no_rename(store: Store) -> None:
    """A search for similar files passes by what cannot be read."""
    fork(store, {"a": TEXT, "gone": b"x" + TEXT}, {"a": changed(1)}, {"a": None, "gone": None})
    with store.begin() as tx:
        tx.branch("side")["b"] = changed(7)
        tx.commit()
    lost = store.snapshot("main").entry("gone")
    assert lost is not None
    purge(store, lost.id, reason="a key leaked", author="ada")
    result = store.merge("main", "side")
    assert followed(result) == [("a", "b")]


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "e/f/a"])
TEXTS = st.sets(st.integers(0, 5), max_size=2).map(lambda found: changed(*found))
STEPS = st.lists(st.tuples(st.sampled_from(["move", "write", "drop"]), NAMES, NAMES, TEXTS))


def run(store: Store, branch: str, steps: list[tuple[str, str, str, bytes]]) -> None:
    """Do steps that make sense where the branch stands, each on files."""
    now = files(store, branch)
    before = dict(now)
    for what, name, other, text in steps:
        if what == "move" and name in now and other not in now:
            now[other] = now.pop(name)
        elif what == "drop":
            now.pop(name, None)
        elif what == "write":
            now[name] = text
    with store.begin() as tx:
        on = tx.branch(branch)
        for path in before.keys() - now.keys():
            del on[path]
        for path, content in now.items():
            on[path] = content
        tx.commit()


@settings(max_examples=80)
@given(STEPS, STEPS)
def test_the_direction_makes_no_difference(
    ours: list[tuple[str, str, str, bytes]], theirs: list[tuple[str, str, str, bytes]]
) -> None:
    """Files are moved, written and dropped on two branches: either way the same paths conflict,
    the same renames are followed, and clean merges are equal; what was merged is whole.
    """
    with cas.open(":memory:") as store:
        base = {"a": TEXT, "d/a": b"d" + TEXT[40:], "e/f/a": TEXT[100:]}
        fork(store, base, {}, {})
        run(store, "main", ours)
        run(store, "side", theirs)
        with store.begin() as tx:
            tx.move("heads/back", store.resolve("side"))
            tx.commit()
        mine = store.resolve("main")
        there = store.merge("main", "side", on_conflict="commit", fast_forward=False)
        back = store.merge("back", mine, on_conflict="commit", fast_forward=False)
        assert [(c.path, c.reason, c.ours, c.theirs) for c in there.conflicts] == [
            (c.path, c.reason, c.theirs, c.ours) for c in back.conflicts
        ]
        assert there.followed == back.followed
        if there.clean:
            assert store.commit("main").tree == store.commit("back").tree
        assert sound(store)
