"""Merging branches: what a merge gives, what it never does, and conflicts as values."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cas
from cas.errors import (
    Invalid,
    PathNotFound,
    RefConflict,
    RefNotFound,
    RevisionNotFound,
    UnrelatedHistories,
)
from cas.history.conflicts import MergeConflict, read_conflicts
from cas.history.graph import is_ancestor, merge_bases, only_in
from cas.history.merge import MergeResult
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.history.threeway import OnConflict
from cas.maintenance.fsck.check import fsck
from cas.maintenance.purge import purge
from cas.model.ids import BlobId, CommitId, TreeId, digest_blob
from cas.model.objects import Commit, EntryKind
from cas.trees.merge import Reason
from tests.unit.kit import reopened, write

Files = Mapping[str, bytes | None]


def fork(store: Store, base: Files, ours: Files, theirs: Files) -> None:
    """A branch `main` with a base and ours, and a branch `side` with theirs on the same base."""
    write(store, "main", base)
    with store.begin() as tx:
        tx.move("heads/side", store.resolve("main"))
        tx.commit()
    if ours:
        write(store, "main", ours)
    if theirs:
        write(store, "side", theirs)


def files(store: Store, revision: str = "main") -> dict[str, bytes]:
    """Contents of a revision."""
    return dict(store.snapshot(revision))


def paths_of(conflicts: tuple[MergeConflict, ...]) -> list[tuple[str, str]]:
    """Paths and reasons."""
    return [(conflict.path, str(conflict.reason)) for conflict in conflicts]


def test_a_merge_has_the_changes_of_both_sides(memory: Store) -> None:
    """A clean merge is one commit with two parents, one entry, and all changes in its files."""
    fork(memory, {"a": b"1", "b": b"1", "c": b"1"}, {"a": b"2"}, {"b": b"2", "c": None, "d/e": b""})
    ours, theirs = memory.resolve("main"), memory.resolve("side")
    seq = memory.view().seq
    done = memory.merge("main", "side", author="ada", message="both")
    assert done.clean
    assert files(memory) == {"a": b"2", "b": b"2", "d/e": b""}
    commit = memory.commit("main")
    assert (commit.parents, commit.author, commit.message) == ((ours, theirs), "ada", "both")
    assert done.commit == memory.resolve("main")
    assert done.entry is not None
    assert done.entry.seq == memory.view().seq == seq + 1
    assert commit.extras == {}
    assert files(memory, "side") == {"a": b"1", "b": b"2", "d/e": b""}


@pytest.mark.parametrize("content", [b"1\n2\n3\n", b"one\n2\n3\n", b"1\n2\nthree\n"])
def test_what_was_purged_of_a_file_makes_a_conflict(store: Store, content: bytes) -> None:
    """A text cannot be merged without one of its three contents: that is a conflict like any
    other, which can be settled, and all else is merged.
    """
    sides = ({"a": b"1\n2\n3\n"}, {"a": b"one\n2\n3\n"}, {"a": b"1\n2\nthree\n", "b": b"1"})
    fork(store, *sides)
    purge(store, BlobId(digest_blob(content)), reason="a leak")
    assert paths_of(store.merge("main", "side").conflicts) == [("a", "both-changed")]
    done = store.merge("main", "side", on_conflict="commit")
    assert paths_of(done.conflicts) == paths_of(store.conflicts("main")) == [("a", "both-changed")]
    assert store.snapshot("main")["b"] == b"1"
    assert fsck(store).ok


def test_a_branch_behind_moves_forward_without_a_commit(memory: Store) -> None:
    """Where the branch is an ancestor it moves; a commit is made when that is asked for."""
    fork(memory, {"a": b"1"}, {}, {"a": b"2"})
    plan = memory.plan_merge("main", "side", fast_forward=False)
    assert not plan.fast_forward
    done = memory.merge("main", "side")
    assert done.fast_forward
    assert memory.resolve("main") == memory.resolve("side") == done.commit
    again = memory.merge("main", "side")
    assert again.up_to_date
    assert again.entry is None
    with pytest.raises(RefConflict):
        memory.apply(plan)


def test_merging_twice_does_nothing(memory: Store) -> None:
    """What was merged is there: the same merge again makes no entry."""
    fork(memory, {"a": b"1"}, {"b": b""}, {"c": b""})
    first = memory.merge("main", "side")
    second = memory.merge("main", "side")
    assert (second.up_to_date, second.commit, second.entry) == (True, first.commit, None)


def test_conflicts_are_reported_and_nothing_is_done(memory: Store) -> None:
    """By default a clash leaves everything as it was and tells both sides of each path."""
    fork(memory, {"a": b"1", "b": b"1"}, {"a": b"2", "b": None}, {"a": b"3", "b": b"3", "c": b""})
    before = memory.view().seq
    done = memory.merge("main", "side")
    assert not done.clean
    assert (done.commit, done.entry, memory.view().seq) == (None, None, before)
    assert paths_of(done.conflicts) == [("a", "both-changed"), ("b", "changed-deleted")]
    first, second = done.conflicts
    assert [memory.get(entry.id) for entry in (first.base, first.ours, first.theirs) if entry] == [
        b"1",
        b"2",
        b"3",
    ]
    assert second.ours is None
    assert files(memory) == {"a": b"2"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("ours", {"a": b"2", "c": b""}), ("theirs", {"a": b"3", "b": b"3", "c": b""})],
)
def test_conflicts_can_be_settled_for_a_side(
    memory: Store, policy: OnConflict, expected: dict[str, bytes]
) -> None:
    """With a side chosen the clash is decided for it, and told; other changes are merged."""
    fork(memory, {"a": b"1", "b": b"1"}, {"a": b"2", "b": None}, {"a": b"3", "b": b"3", "c": b""})
    done = memory.merge("main", "side", on_conflict=policy)
    assert done.clean
    assert [conflict.path for conflict in done.settled] == ["a", "b"]
    assert files(memory) == expected
    assert memory.conflicts("main") == ()


def conflicted(store: Store) -> MergeResult:
    """A branch `main` whose newest commit holds the conflicts a, b and d."""
    fork(
        store,
        {"a": b"1", "b": b"1", "k": b"1"},
        {"a": b"2", "b": None, "d": b"file"},
        {"a": b"3", "b": b"3", "d/in": b"folder", "new": b""},
    )
    return store.merge("main", "side", on_conflict="commit", author="m")


def test_conflicts_are_committed_listed_and_settled_later(store: Store) -> None:
    """A commit keeps its conflicts through a reopen and a spill, until each one is settled."""
    done = conflicted(store)
    assert done.commit is not None
    assert store.conflicts("main") == done.conflicts
    assert files(store) == {"a": b"2", "d": b"file", "k": b"1", "new": b""}
    store.spill()
    with reopened(store) as other:
        assert other.conflicts("main") == done.conflicts
        assert [c.reason for c in other.conflicts("main")] == [
            Reason.BOTH_CHANGED,
            Reason.CHANGED_DELETED,
            Reason.FILE_FOLDER,
        ]
        with other.begin() as tx:
            main = tx.branch("main")
            main.resolve("a", b"2 and 3")
            main.resolve("d", take="theirs")
            assert [c.path for c in main.conflicts()] == ["b"]
            tx.commit()
        assert [c.path for c in other.conflicts("main")] == ["b"]
        assert files(other)["a"] == b"2 and 3"
        assert files(other)["d/in"] == b"folder"
        with other.begin() as tx:
            tx.branch("main").resolve("b", take="ours")
            tx.commit()
        assert other.conflicts("main") == ()
        assert other.commit("main").extras == {}
        assert other.conflicts("main~2") == done.conflicts


def test_a_commit_beside_a_conflict_keeps_it(memory: Store) -> None:
    """Commits to other paths carry the conflicts on; one that writes the path settles it."""
    conflicted(memory)
    root = memory.commit("main").conflicts
    write(memory, "main", {"k": b"2"})
    assert memory.commit("main").conflicts == root
    write(memory, "main", {"a": b"2"})
    assert [c.path for c in memory.conflicts("main")] == ["b", "d"], "the same content"
    write(memory, "main", {"d": None})
    assert [c.path for c in memory.conflicts("main")] == ["b"]


def test_replacing_all_files_settles_what_it_changes(memory: Store) -> None:
    """A whole new tree settles a conflict where it differs, and keeps it where it does not."""
    conflicted(memory)
    with memory.begin() as tx:
        edit = tx.branch("scratch")
        for path, content in {"a": b"new", "d": b"file"}.items():
            edit[path] = content
        tx.commit()
    with memory.begin() as tx:
        tx.branch("main").put_tree(memory.commit("scratch").tree)
        tx.commit()
    assert [c.path for c in memory.conflicts("main")] == ["b", "d"]


def test_settled_conflicts_stay_settled_through_merges(memory: Store) -> None:
    """What one branch settled is settled in the merge; what nobody settled is carried on."""
    conflicted(memory)
    with memory.begin() as tx:
        tx.move("heads/other", memory.resolve("main"))
        tx.commit()
    with memory.begin() as tx:
        tx.branch("other").resolve("b", take="theirs")
        tx.commit()
    write(memory, "main", {"k": b"3"})
    done = memory.merge("main", "other")
    assert done.clean
    assert [c.path for c in done.carried] == ["a", "d"]
    assert [c.path for c in memory.conflicts("main")] == ["a", "d"]
    assert files(memory)["b"] == b"3"


def test_the_sides_of_a_conflict_are_kept_by_the_commit(store: Store) -> None:
    """A store with committed conflicts is whole: fsck follows them like any other content."""
    conflicted(store)
    write(store, "main", {"a": b"settled"})
    store.spill()
    report = fsck(store)
    assert [f for f in report.findings if f.severity.name in ("LOSS", "DAMAGE")] == []


def test_conflicts_lie_as_the_format_says(memory: Store) -> None:
    """The directory of a commit's conflicts has an index in CBOR and an entry a side and number."""
    conflicted(memory)
    root = memory.commit("main").extras["conflicts"]
    held = dict(Snapshot(memory.objects, TreeId(root), None, None))
    assert (
        held.pop("index")
        == bytes.fromhex("830183")
        + b"".join(
            b"\x82\x41" + path + bytes((0x60 + len(reason),)) + reason
            for path, reason in (
                (b"a", b"both-changed"),
                (b"b", b"changed-deleted"),
                (b"d", b"file-folder"),
            )
        )
        + b"\xa0"
    )
    assert held == {
        "base/00000000": b"1",
        "base/00000001": b"1",
        "ours/00000000": b"2",
        "ours/00000002": b"file",
        "theirs/00000000": b"3",
        "theirs/00000001": b"3",
        "theirs/00000002/in": b"folder",
    }


def test_resolving_needs_a_conflict_and_one_answer(memory: Store) -> None:
    """A path without a conflict, an unknown side, or two answers at once are refused."""
    conflicted(memory)
    with memory.begin() as tx:
        main = tx.branch("main")
        for path in ("k", "nothing"):
            with pytest.raises(PathNotFound):
                main.resolve(path, b"")
        with pytest.raises(Invalid):
            main.resolve("a", b"", take="ours")
        with pytest.raises(Invalid):
            main.resolve("a", take="mine")  # type: ignore[arg-type]
        main.resolve("a")
        with pytest.raises(PathNotFound):
            main.resolve("a")
    assert len(memory.conflicts("main")) == 3


def test_texts_that_both_changed_are_merged_by_line(memory: Store) -> None:
    """Changes of different lines go together, mode and content each by itself; binary is not."""
    lines = [b"%d\n" % at for at in range(9)]
    mine, other = [b"0!\n", *lines[1:]], [*lines[:8], b"8!\n"]
    fork(
        memory,
        {"t": b"".join(lines), "bin": b"\0" + b"".join(lines)},
        {"t": b"".join(mine), "bin": b"\0" + b"".join(mine)},
        {"bin": b"\0" + b"".join(other)},
    )
    with memory.begin() as tx:
        tx.branch("side").put("t", b"".join(other), kind=EntryKind.EXECUTABLE)
        tx.commit()
    done = memory.merge("main", "side", on_conflict="commit")
    assert paths_of(done.conflicts) == [("bin", "both-changed")]
    assert files(memory)["t"] == b"".join([b"0!\n", *lines[1:8], b"8!\n"])
    entry = memory.snapshot("main").entry("t")
    assert entry is not None
    assert entry.kind == EntryKind.EXECUTABLE


def test_unrelated_histories_are_refused_unless_asked_for(memory: Store) -> None:
    """Two branches without a common commit merge only on request; then all of both is new."""
    write(memory, "main", {"a": b"1", "same": b"x"})
    write(memory, "alien", {"a": b"2", "b": b"2", "same": b"x"})
    with pytest.raises(UnrelatedHistories) as caught:
        memory.merge("main", "alien")
    assert caught.value.ours == memory.resolve("main")
    done = memory.merge("main", "alien", allow_unrelated=True, on_conflict="theirs")
    assert [c.reason for c in done.settled] == [Reason.BOTH_ADDED]
    assert files(memory) == {"a": b"2", "b": b"2", "same": b"x"}


def test_what_cannot_be_merged_is_told(memory: Store) -> None:
    """A branch or revision that is not there, or a policy that is none, is a typed error."""
    write(memory, "main")
    with pytest.raises(RefNotFound):
        memory.merge("nowhere", "main")
    with pytest.raises(RevisionNotFound):
        memory.merge("main", "nowhere")
    with pytest.raises(Invalid):
        memory.merge("main", "main", on_conflict="maybe")  # type: ignore[arg-type]


def test_a_plan_writes_nothing_and_is_bound_to_its_state(store: Store) -> None:
    """Planning changes no byte of the catalog; a plan of a branch that moved is refused."""
    fork(store, {"a": b"1"}, {"b": b""}, {"c": b""})
    seq, version = store.view().seq, store.objects.lookup.stamp()
    plan = store.plan_merge("main", "side")
    assert (store.view().seq, store.objects.lookup.stamp()) == (seq, version)
    assert plan.summary == "1 path of main change."
    write(store, "main", {"d": b""})
    with pytest.raises(RefConflict):
        store.apply(plan)
    assert store.apply(store.plan_merge("main", "side")).clean


def test_a_branch_that_moves_meanwhile_is_merged_again(memory: Store) -> None:
    """`merge` plans anew when somebody else commits between plan and apply."""
    fork(memory, {"a": b"1"}, {"b": b""}, {"c": b""})
    apply, others = memory.apply, [b"1", b"2"]

    def late(plan: cas.MergePlan, **how: str) -> MergeResult:
        if others:
            write(memory, "main", {"late": others.pop()})
        return apply(plan, **how)

    memory.apply = late  # type: ignore[method-assign,assignment]
    assert memory.merge("main", "side").clean
    assert files(memory) == {"a": b"1", "b": b"", "c": b"", "late": b"1"}


def test_merges_at_once_all_arrive(store: Store) -> None:
    """Threads that merge their branches into one at the same time lose nothing of each other."""
    write(store, "main", {"start": b""})
    for number in range(4):
        point(store, **{f"side{number}": store.resolve("main")})
        write(store, f"side{number}", {f"file{number}": b"%d" % number})
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda number: store.merge("main", f"side{number}"), range(4)))
    assert all(result.clean and result.commit is not None for result in done)
    assert files(store) == {"start": b"", **{f"file{at}": b"%d" % at for at in range(4)}}


# -- histories -----------------------------------------------------------------------------------


def commit_of(store: Store, content: Files, *parents: CommitId) -> CommitId:
    """A commit of these files with these parents, made by hand."""
    with store.begin() as tx:
        edit = tx.branch("scratch")
        for path in list(edit):
            del edit[path]
        for path, data in content.items():
            if data is not None:
                edit[path] = data
        tx.commit()
        tree = store.commit("scratch").tree
    return raw_commit(store, tree, *parents)


def raw_commit(store: Store, tree: TreeId, *parents: CommitId, time_us: int = 0) -> CommitId:
    """A commit object that no ref names."""
    with store.objects.batch() as batch:
        time_us = time_us or store.objects.clock.wall_us()
        return CommitId(batch.put(3, Commit(tree, parents, "", "", time_us).encode()))


def point(store: Store, **branches: CommitId) -> None:
    """Set branches."""
    with store.begin() as tx:
        for name, id in branches.items():
            tx.move("heads/" + name, id)
        tx.commit()


def test_crossed_merges_use_a_virtual_base(memory: Store) -> None:
    """Where two branches merged each other crosswise, what both have already never clashes."""
    lines = [b"%d\n" % at for at in range(20)]

    def text(**changed: bytes) -> bytes:
        return b"".join(changed.get(f"l{at}", line) for at, line in enumerate(lines))

    root = commit_of(memory, {"f": text()})
    one = commit_of(memory, {"f": text(l1=b"one\n")}, root)
    two = commit_of(memory, {"f": text(l9=b"two\n")}, root)
    both = {"l1": b"one\n", "l9": b"two\n"}
    left = commit_of(memory, {"f": text(**both)}, one, two)
    right = commit_of(memory, {"f": text(**both)}, two, one)
    left = commit_of(memory, {"f": text(**both, l4=b"left\n")}, left)
    right = commit_of(memory, {"f": text(**both, l14=b"right\n")}, right)
    point(memory, main=left, side=right)
    assert set(memory.plan_merge("main", "side").bases) == {one, two}
    done = memory.merge("main", "side")
    assert done.clean
    assert files(memory)["f"] == text(**both, l4=b"left\n", l14=b"right\n")


def test_crossed_merges_that_were_settled_differently_clash(store: Store) -> None:
    """Where each crosswise merge kept another side, neither counts as the base of the other."""
    root = commit_of(store, {"f": b"0\n", "g": b"\0"})
    one = commit_of(store, {"f": b"1\n", "g": b"\0001"}, root)
    two = commit_of(store, {"f": b"2\n", "g": b"\0002"}, root)
    left = commit_of(store, {"f": b"1\n", "g": b"\0"}, one, two)
    right = commit_of(store, {"f": b"2\n", "g": b"\0002"}, two, one)
    point(store, main=left, side=right)
    done = store.merge("main", "side", on_conflict="commit")
    assert [c.path for c in done.conflicts] == ["f", "g"]
    base = done.conflicts[0].base
    assert base is not None
    assert store.get(base.id) == (
        b"<<<<<<< one side\n1\n||||||| base\n0\n=======\n2\n>>>>>>> other side\n"
        if store.commit(done.bases[0]).tree == store.commit(one).tree
        else b"<<<<<<< one side\n2\n||||||| base\n0\n=======\n1\n>>>>>>> other side\n"
    )
    store.spill()
    assert not [f for f in fsck(store).findings if f.severity.name in ("LOSS", "DAMAGE")]


GRAPH = st.lists(st.sets(st.integers(0, 11), max_size=3), min_size=2, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(GRAPH, st.lists(st.integers(0, 30), min_size=12, max_size=12), st.data())
def test_bases_are_the_best_common_ancestors_whatever_the_clocks_say(
    memory: Store, graph: list[set[int]], times: list[int], data: st.DataObject
) -> None:
    """Merge bases, ancestors and ranges of any graph are what walking all of it gives."""
    memory.put(b"")
    with memory.begin() as tx:
        tx.branch("scratch")["x"] = b""
        tx.commit()
    tree = memory.commit("scratch").tree
    ids: list[CommitId] = []
    above: list[set[int]] = []
    for number, parents in enumerate(graph):
        real = sorted(parent for parent in parents if parent < number)
        made = raw_commit(memory, tree, *(ids[p] for p in real), time_us=number * 100 + 1)
        if data.draw(st.booleans()):
            made = raw_commit(memory, tree, *(ids[p] for p in real), time_us=times[number] + 1)
        if made in ids:
            return
        ids.append(made)
        above.append({number}.union(*(above[p] for p in real)))
    a = data.draw(st.integers(0, len(ids) - 1))
    b = data.draw(st.integers(0, len(ids) - 1))
    shared = above[a] & above[b]
    best = {x for x in shared if not any(x in above[y] and x != y for y in shared)}
    found = merge_bases(memory.core.commits, [ids[a]], [ids[b]])
    assert set(found) == {ids[x] for x in best}
    assert found == merge_bases(memory.core.commits, [ids[b]], [ids[a]])
    assert is_ancestor(memory.core.commits, ids[a], ids[b]) == (a in above[b])
    only = only_in(memory.core.commits, [ids[a]], [ids[b]])
    assert {ids[x] for x in above[a] - above[b]} <= only <= {ids[x] for x in above[a]}


CONTENT = st.one_of(st.none(), st.sampled_from([b"1\n", b"1\n2\n", b"0\n1\n", b"\0", b"x"]))
EDITS = st.dictionaries(st.sampled_from(["a", "b", "d", "d/e", "d/f"]), CONTENT, max_size=4)


def edit(store: Store, branch: str, wanted: Files) -> None:
    """Write what can be written, one commit."""
    with store.begin() as tx:
        on = tx.branch(branch, allow_empty=True)
        for path, content in sorted(wanted.items()):
            entry = on.entry(path)
            if content is None and entry is None:
                continue
            if "/" in path and on.entry("d") is not None and "d" in on:
                del on["d"]
            if content is None:
                if on.entry(path) is not None:
                    del on[path]
            else:
                on[path] = content
        tx.commit()


@settings(max_examples=60)
@given(EDITS, EDITS, EDITS)
def test_merging_is_commutative_and_done_once(base: Files, ours: Files, theirs: Files) -> None:
    """Either branch into the other gives the same files and conflicts with sides turned; and
    merging back and again changes nothing.
    """
    with cas.open(":memory:") as store:
        edit(store, "main", base)
        point(store, side=store.resolve("main"))
        edit(store, "main", ours)
        edit(store, "side", theirs)
        point(store, back=store.resolve("side"))
        there = store.merge("main", "side", on_conflict="commit", fast_forward=False)
        back = store.merge("back", "main~1", on_conflict="commit", fast_forward=False)
        assert [(c.path, c.reason, c.ours, c.theirs) for c in there.conflicts] == [
            (c.path, c.reason, c.theirs, c.ours) for c in back.conflicts
        ]
        if there.clean:
            assert store.commit("main").tree == store.commit("back").tree
        assert store.merge("main", "side").up_to_date
        assert store.merge("main", "back").clean or not there.clean


@pytest.mark.parametrize(
    "index",
    [
        None,
        b"\x83\x01\x81\x82\x41a\x61x\xa0",  # a reason that is none
        b"\x83\x01\x81\x82\x42..\x64mode\xa0",  # a path that is none
        b"\x83\x02\x80\xa0",  # another version
        b"\x83\x01\x82\x82\x41b\x64mode\x82\x41a\x64mode\xa0",  # not ascending
        b"no CBOR",
    ],
)
def test_conflicts_that_are_not_canonical_are_refused(memory: Store, index: bytes | None) -> None:
    """A commit whose conflicts have no index, or a wrong one, is an error and no empty list."""
    write(memory, "main", {"other": b""} if index is None else {"index": index})
    tree = memory.commit("main").tree
    with pytest.raises(cas.Corrupt):
        read_conflicts(memory.core, Commit(tree, (), "", "", 1, {"conflicts": bytes(tree)}))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["p", "q", "r"]), EDITS),
        st.tuples(st.sampled_from(["p", "q", "r"]), st.sampled_from(["p", "q", "r"])),
    ),
    min_size=4,
    max_size=12,
)


@settings(max_examples=40)
@given(STEPS)
def test_any_history_of_merges_is_whole(steps: list[tuple[str, Files | str]]) -> None:
    """After edits and merges in any order, crossed ones too, every file and every side of every
    conflict can be read, and fsck finds nothing missing.
    """
    with cas.open(":memory:") as store:
        write(store, "p", {"start": b"0\n"})
        point(store, q=store.resolve("p"), r=store.resolve("p"))
        for branch, what in steps:
            if isinstance(what, str):
                store.merge(branch, what, on_conflict="commit")
            else:
                edit(store, branch, what)
        for branch in "pqr":
            assert all(isinstance(content, bytes) for content in files(store, branch).values())
            for conflict in store.conflicts(branch):
                for entry in (conflict.base, conflict.ours, conflict.theirs):
                    if entry is not None and not entry.is_tree:
                        assert len(store.get(entry.id)) == entry.size
        assert not [f for f in fsck(store).findings if f.severity.name in ("LOSS", "DAMAGE")]
