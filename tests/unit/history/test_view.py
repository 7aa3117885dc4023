"""Views, revisions, snapshots: what a name means, what a log gives, what a difference is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cas
from cas.errors import AmbiguousRevision, CasError, Invalid, RefNotFound, RevisionNotFound
from cas.history.revision import parse_revision, split_path
from cas.history.snapshot import ChangeKind
from cas.history.store import Store
from cas.model.ids import CommitId, Kind
from cas.model.objects import Commit, EntryKind
from tests.unit.kit import ManualClock, commits, write

# -- revisions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "steps"),
    [
        ("main", "main", []),
        ("main~", "main", [("~", 1)]),
        ("main~3", "main", [("~", 3)]),
        ("main^", "main", [("^", 1)]),
        ("main^2~3^", "main", [("^", 2), ("~", 3), ("^", 1)]),
        ("main~~", "main", [("~", 1), ("~", 1)]),
        ("main~0^0", "main", [("~", 0), ("^", 0)]),
        ("heads/a/b~999999999", "heads/a/b", [("~", 999_999_999)]),
    ],
)
def test_revisions_are_split(text: str, name: str, steps: list[tuple[str, int]]) -> None:
    """A name, then any number of `~N` and `^N`."""
    assert parse_revision(text) == (name, None, tuple(steps))


@pytest.mark.parametrize(
    "text", ["", "~1", "^", "a~b", "a~1x", "a^-1", "a~1 ", "a~٣", "a~1234567890"]
)
def test_other_texts_are_no_revisions(text: str) -> None:
    """Without a name, or with anything else behind it, the text is Invalid."""
    with pytest.raises(Invalid):
        parse_revision(text)


@given(st.text(max_size=12))
def test_any_text_is_a_revision_or_invalid(text: str) -> None:
    """Parsing ends in a value that spells the text again, or in Invalid."""
    try:
        name, _when, steps = parse_revision(text)
    except Invalid:
        return
    assert name
    assert not set("~^") & set(name)
    assert text.startswith(name)
    assert len(steps) == sum(c in "~^" for c in text)


def test_a_revision_and_a_path() -> None:
    """What stands behind the first colon is a path."""
    assert split_path("main") == ("main", "")
    assert split_path("main~2:a/b:c") == ("main~2", "a/b:c")
    assert split_path("main:/a/") == ("main", "a")


def test_steps_walk_to_parents(memory: Store) -> None:
    """`~N` follows first parents, `^N` takes the N-th; beyond the root there is nothing."""
    commits(memory, 4)
    ids = [id for id, _commit in memory.log("main")]
    assert [memory.resolve(f"main~{at}") for at in range(4)] == ids
    assert memory.resolve("main^^") == memory.resolve("main~1^") == ids[2]
    assert memory.resolve("main^0") == ids[0]
    for beyond in ("main~4", "main~999999999", "main^2", "main~3^"):
        with pytest.raises(RevisionNotFound):
            memory.resolve(beyond)


def test_names_are_tried_in_full_as_branch_tag_and_id(memory: Store) -> None:
    """A name that could mean two commits lists them; one that means one commit twice is clear."""
    commits(memory, 2)
    new, old = memory.resolve("main"), memory.resolve("main~")
    with memory.begin() as tx:
        tx.tag("same", new)
        tx.move("heads/same", new)
        tx.tag("twice", old)
        tx.move("heads/twice", new)
        tx.commit()
    assert memory.resolve("same") == new
    assert memory.resolve("tags/twice") == old
    assert memory.resolve("heads/twice~1") == old
    with pytest.raises(AmbiguousRevision) as caught:
        memory.resolve("twice")
    assert caught.value.candidates == ["heads/twice", "tags/twice"]
    for text in (str(new), str(new)[:8], str(new).upper()[:20]):
        assert memory.resolve(text) == new
    assert memory.resolve(str(old)[:12] + "^0") == old
    with pytest.raises(RefNotFound):
        memory.view().branch("absent")


def test_a_branch_may_look_like_a_number(memory: Store) -> None:
    """Digits alone are a name; as an abbreviation they count only when an object has them."""
    write(memory, "20261001")
    assert memory.resolve("20261001") == memory.resolve("heads/20261001")


# -- logs ------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[int], int]]:
    """(parents, time) of commits; each names earlier ones only."""
    made: list[tuple[list[int], int]] = []
    for at in range(draw(st.integers(1, 14))):
        count = draw(st.integers(0, min(at, 3)))
        parents = draw(st.permutations(range(at)))[:count] if at else []
        made.append((list(parents), draw(st.integers(0, 6))))
    return made


def graft(store: Store, history: list[tuple[list[int], int]]) -> list[CommitId]:
    """Store commits with any parents, as a merge or an import makes them."""
    tree = store.commit("main").tree
    ids: list[CommitId] = []
    with store.objects.batch() as batch:
        for at, (parents, time_us) in enumerate(history):
            commit = Commit(tree, tuple(ids[p] for p in parents), "", f"{at}", time_us)
            ids.append(CommitId(batch.put(Kind.COMMIT, commit.encode())))
    return ids


def reached(history: list[tuple[list[int], int]]) -> set[int]:
    """The commits that the last one leads to."""
    found: set[int] = set()
    stack = [len(history) - 1]
    while stack:
        at = stack.pop()
        if at not in found:
            found.add(at)
            stack += history[at][0]
    return found


@given(histories(), st.integers(0, 20))
def test_a_log_gives_each_commit_once_behind_a_child(
    history: list[tuple[list[int], int]], limit: int
) -> None:
    """Each commit that is reached once, behind one that names it; of those met, the newest."""
    with cas.open(":memory:") as store:
        write(store)
        ids = graft(store, history)
        found = list(store.log(ids[-1]))
        order = [ids.index(id) for id, _commit in found]
        assert order[0] == len(history) - 1
        assert sorted(order) == sorted(reached(history))
        assert all(commit.id == id for id, commit in found)
        met = {order[0]}
        for at in order:
            assert history[at][1] == max(history[other][1] for other in met)
            met = (met | set(history[at][0])) - set(order[: order.index(at) + 1])
        assert list(store.log(ids[-1], limit=limit)) == found[:limit]


@given(histories())
def test_a_log_gives_children_before_parents_where_clocks_ran_forward(
    history: list[tuple[list[int], int]],
) -> None:
    """No commit before any that names it, and times only fall."""
    forward = [(parents, 10 * at + time_us) for at, (parents, time_us) in enumerate(history)]
    with cas.open(":memory:") as store:
        write(store)
        ids = graft(store, forward)
        order = [ids.index(id) for id, _commit in store.log(ids[-1])]
        for at in order:
            assert all(order.index(parent) > order.index(at) for parent in forward[at][0])
        assert order == sorted(order, key=lambda at: -forward[at][1])


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
def test_a_log_reads_only_what_it_shows(tmp_path: Path, limit: int) -> None:
    """In a history full of merges no more is read than what is shown, and its parents."""
    ladder = [([], 0), ([0], 1)]
    ladder += [([at - 1, at - 2], at) for at in range(2, 400)]
    with cas.open(tmp_path / "store", create=True) as store:
        write(store)
        ids = graft(store, ladder)
    with cas.open(tmp_path / "store", read_only=True) as again:
        assert len(list(again.log(ids[-1], limit=limit))) == limit
        assert len(again.core.commits._commits) <= limit + 1
    with cas.open(tmp_path / "store", read_only=True) as again:
        log = again.log(ids[-1])
        for _ in range(limit):
            next(log)
        assert len(again.core.commits._commits) <= limit + 2


def test_a_log_of_a_merge(memory: Store) -> None:
    """A merge shows both sides once each, and what they share at the end."""
    write(memory)
    ids = graft(memory, [([], 1), ([0], 5), ([0], 3), ([2], 4), ([1, 3], 6), ([4], 7)])
    assert [ids.index(id) for id, _ in memory.log(ids[-1])] == [5, 4, 1, 3, 2, 0]


# -- snapshots and differences ---------------------------------------------------------------

PATHS = st.sampled_from(["a", "b", "c/x", "c/y", "c/d/z", "e/f", "é", "long" * 20])
FILES = st.dictionaries(PATHS, st.binary(max_size=3), max_size=6)


def put_all(store: Store, branch: str, files: dict[str, bytes]) -> None:
    """Make a branch hold exactly these files."""
    with store.begin() as tx:
        edit = tx.branch(branch, allow_empty=True)
        for path in list(edit):
            del edit[path]
        for path, content in files.items():
            edit[path] = content
        tx.commit()


@given(FILES, FILES)
def test_a_difference_applied_gives_the_other_side(
    old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    """Changes come in order of path, name each path that differs, and lead from old to new."""
    with cas.open(":memory:") as store:
        put_all(store, "old", old)
        put_all(store, "new", new)
        changes = list(store.diff("old", "new"))
        assert [change.path for change in changes] == sorted(
            (p for p in {*old, *new} if old.get(p) != new.get(p)),
            key=lambda path: [part.encode() for part in path.split("/")],
        )
        with store.begin() as tx:
            edit = tx.branch("old", allow_empty=True)
            for change in changes:
                if change.new is None:
                    assert change.kind == ChangeKind.REMOVED
                    del edit[change.path]
                else:
                    assert change.kind == (
                        ChangeKind.MODIFIED if change.path in old else ChangeKind.ADDED
                    )
                    edit.put_entry(change.path, change.new)
            tx.commit()
        assert dict(store.snapshot("old")) == new
        assert store.commit("old").tree == store.commit("new").tree
        assert list(store.diff("old", "new")) == []
        back = [(c.path, c.old, c.new) for c in store.diff("new", "old~1")]
        assert back == [(c.path, c.new, c.old) for c in changes]


@given(FILES)
def test_a_snapshot_is_a_mapping(files: dict[str, bytes]) -> None:
    """Length, order, membership, sizes and streams agree with the files that were put."""
    with cas.open(":memory:") as store:
        put_all(store, "main", files)
        snapshot = store.snapshot("main")
        assert dict(snapshot) == files
        assert len(snapshot) == len(files)
        assert bool(snapshot) == bool(files)
        assert list(snapshot) == sorted(files, key=lambda p: [x.encode() for x in p.split("/")])
        assert snapshot.size == sum(map(len, files.values()))
        for path, content in files.items():
            assert path in snapshot
            with snapshot.open(path) as stream:
                assert stream.read() == content
        assert "absent" not in snapshot
        assert "c" not in snapshot
        assert 7 not in snapshot
        assert snapshot == store.snapshot("main")
        assert hash(snapshot) == hash(store.snapshot("main"))
        below = {name for name in files if name.startswith("c/")}
        if below:
            assert {path for path, _ in snapshot.walk("c")} == below
            listed = {name: entry.kind for name, entry in snapshot.entries("c")}
            assert listed.keys() == {name.split("/")[1] for name in below}
            assert all((kind == EntryKind.TREE) == (name == "d") for name, kind in listed.items())
        else:
            with pytest.raises(CasError):
                list(snapshot.walk("c"))


def test_kinds_of_change(memory: Store) -> None:
    """A file that becomes executable, a link or a directory is told as what happened to it."""
    write(memory, files={"x": b"1", "l": b"target", "f": b"2", "d/a": b"3"})
    with memory.begin() as tx:
        edit = tx.branch("main")
        edit.put("x", b"1", kind=EntryKind.EXECUTABLE)
        edit.put("l", b"target", kind=EntryKind.LINK)
        del edit["f"]
        edit["f/below"] = b"2"
        del edit["d"]
        edit["d"] = b"3"
        tx.commit()
    changes = [(str(change.kind), change.path) for change in memory.diff("main~1", "main")]
    assert sorted(changes) == [
        ("added", "d"),
        ("added", "f/below"),
        ("removed", "d/a"),
        ("removed", "f"),
        ("retyped", "l"),
        ("retyped", "x"),
    ]


def test_a_wide_directory_and_its_differences(memory: Store) -> None:
    """In thousands of files one change is one change, found without reading the others."""
    rng = random.Random(3)
    files = {f"dir/{rng.randrange(10**9):09d}": b"%d" % at for at in range(3000)}
    write(memory, files=files)
    one = sorted(files)[1234]
    write(memory, files={one: b"changed", "dir/new": b"n", sorted(files)[5]: None})
    changes = {change.path: str(change.kind) for change in memory.diff("main~1", "main")}
    assert changes == {one: "modified", "dir/new": "added", sorted(files)[5]: "removed"}
    assert len(memory.snapshot("main")) == 3000


def test_commits_say_who_when_and_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Author, message, time and parents of a commit are those of its transaction."""
    clock = ManualClock(5_000)
    folder = tmp_path_factory.mktemp("said") / "store"
    with cas.open(folder, create=True, clock=clock) as store:
        write(store, author="Ada <ada@example.org>", message="first\n\nwhy")
        clock.now_us = 4_000
        write(store, files={"b": b"2"}, author="Ü", message="")
        first, second = store.commit("main~1"), store.commit("main")
        assert (first.author, first.message, first.time_us, first.parents) == (
            "Ada <ada@example.org>",
            "first\n\nwhy",
            5_000,
            (),
        )
        assert (second.author, second.time_us) == ("Ü", 4_000)
        assert second.parents == (store.resolve("main~1"),)
        assert store.entry(2).time_us == 5_001
