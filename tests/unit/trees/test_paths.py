"""Paths over nested directories behave like a plain mapping of paths to entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import Invalid, InvalidName, LimitExceeded, WrongKind
from cas.model.objects import EntryKind, TreeEntry
from cas.trees.node import DIRECTORY, Value
from cas.trees.paths import (
    Path,
    check_levels,
    diff_paths,
    edit_path,
    edit_paths,
    leaves,
    list_directory,
    lookup,
    walk,
)
from tests.unit.trees.support import DictNodes, crafted, oracle, value_of

Files = dict[Path, Value]
PathEdits = dict[Path, Value | None]

SHORT = [b"a", b"b", b"c"]
LONG = [*SHORT, *crafted((0,), (), 300)[:40], *crafted((), (0, 1), 600)[:60]]


def oracle_tree(files: Files) -> tuple[bytes, int, dict[bytes, bytes]]:
    """Root, size and nodes of the directories that hold these files."""
    here: dict[bytes, Value] = {}
    below: dict[bytes, Files] = {}
    nodes: dict[bytes, bytes] = {}
    for path, value in files.items():
        if len(path) == 1:
            here[path[0]] = value
        else:
            below.setdefault(path[0], {})[path[1:]] = value
    for name, part in below.items():
        root, size, more = oracle_tree(part)
        here[name] = (4, root, size)
        nodes |= more
    root, more = oracle(here)
    return root, sum(value[2] for value in here.values()), nodes | more


def edited(files: Files, edits: PathEdits) -> Files | None:
    """The files after edits, shallow first; None when the edits write below a file."""
    after = dict(files)
    for path in sorted(edits, key=len):
        value = edits[path]
        if value is not None and any(path[:at] in after for at in range(1, len(path))):
            return None
        for other in [other for other in after if other[: len(path)] == path]:
            del after[other]
        if value is not None:
            after[path] = value
    return after


def plain(entry: TreeEntry | None) -> Value | None:
    """The public value as the tuple that went in."""
    return None if entry is None else (int(entry.kind), entry.id, entry.size)


@st.composite
def edit_sets(draw: st.DrawFn) -> list[PathEdits]:
    """Some rounds of edits over few names, so that paths collide."""
    names = draw(st.sampled_from([SHORT, SHORT[:2], LONG]))
    path = st.lists(st.sampled_from(names), min_size=1, max_size=4).map(tuple)
    value = st.one_of(
        st.none(), st.builds(value_of, st.integers(0, 50), st.sampled_from([1, 2, 3]))
    )
    return draw(
        st.lists(
            st.one_of(
                st.dictionaries(path, value, min_size=1, max_size=6),
                st.dictionaries(path, value, min_size=1, max_size=1),
                st.dictionaries(path, value, min_size=60, max_size=90)
                if names is LONG
                else st.dictionaries(path, value, max_size=3),
            ),
            min_size=1,
            max_size=5,
        )
    )


@given(edit_sets())
def test_edits_of_paths_give_what_the_files_ask_for(rounds: list[PathEdits]) -> None:
    """After any edits, root, size, nodes, walk, look-ups and diff are those of the files."""
    nodes = DictNodes()
    files: Files = {}
    root = DIRECTORY.empty
    for edits in rounds:
        after = edited(files, edits)
        nodes.reset()
        if after is None:
            with pytest.raises((WrongKind, InvalidName)):
                edit_paths(root, edits, nodes)
            assert nodes.saved == []
            continue
        done = edit_paths(root, edits, nodes)
        expected, size, expected_nodes = oracle_tree(after)
        assert (done.root, done.number) == (expected, size)
        assert set(nodes.saved) <= expected_nodes.keys(), "garbage was saved"
        if done.root != DIRECTORY.empty:
            assert all(nodes.data[node_id] == data for node_id, data in expected_nodes.items())
        assert [(path, plain(e)) for path, e in walk(done.root, nodes)] == sorted(after.items())
        assert [(p, plain(a), plain(b)) for p, a, b in diff_paths(root, done.root, nodes)] == [
            (path, files.get(path), after.get(path))
            for path in sorted(files.keys() | after.keys())
            if files.get(path) != after.get(path)
        ]
        for path in edits:
            found = lookup(done.root, path, nodes)
            if path in after:
                assert plain(found) == after[path]
            elif any(other[: len(path)] == path for other in after):
                assert found is not None
                assert found.is_tree
            else:
                assert found is None
        files, root = after, done.root


@given(edit_sets())
def test_files_are_counted_and_only_what_is_new_is_read(rounds: list[PathEdits]) -> None:
    """After any edits the count is that of the files; what an edit did not make is not read."""
    nodes = DictNodes()
    files: Files = {}
    root = DIRECTORY.empty
    known: dict[bytes, int] = {}
    for edits in rounds:
        after = edited(files, edits)
        if after is None:
            continue
        nodes.reset()
        root, files = edit_paths(root, edits, nodes).root, after
        made = set(nodes.saved)
        nodes.reset()
        assert leaves(root, nodes, known) == len(files)
        assert set(nodes.loaded) <= made
        nodes.reset()
        assert leaves(root, nodes, known) == len(files)
        assert nodes.loaded == []


def test_files_of_large_directories_are_counted_by_what_an_edit_made(nodes: DictNodes) -> None:
    """In a tree of many nodes, too, the count is that of the files, and a small edit reads as many
    nodes as it made.
    """
    files = {(b"d%d" % (n % 3), b"%05d" % n): value_of(n) for n in range(6_000)}
    files |= {(b"flat", b"%05d" % n): value_of(n) for n in range(4_000)}
    root = edit_paths(DIRECTORY.empty, files, nodes).root
    known: dict[bytes, int] = {}
    assert leaves(root, nodes, known) == len(files)
    assert leaves(DIRECTORY.empty, nodes, known) == 0
    nodes.reset()
    root = edit_path(root, (b"d1", b"new"), value_of(1), nodes).root
    made = set(nodes.saved)
    nodes.reset()
    assert leaves(root, nodes, known) == len(files) + 1
    assert set(nodes.loaded) <= made


@given(st.lists(st.sampled_from(SHORT), min_size=1, max_size=4).map(tuple), edit_sets())
def test_one_path_alone_and_among_others_give_one_root(path: Path, rounds: list[PathEdits]) -> None:
    """The short way of a single edit agrees with the long way of many."""
    nodes = DictNodes()
    files = edited({}, {p: v for edits in rounds for p, v in edits.items()}) or {}
    root = edit_paths(DIRECTORY.empty, files, nodes).root
    beside = (b"zz-beside",)
    for value in (value_of(3), None):
        try:
            single = edit_path(root, path, value, nodes)
        except WrongKind:
            with pytest.raises(WrongKind):
                edit_paths(root, {path: value, beside: None}, nodes)
        else:
            assert edit_paths(root, {path: value, beside: None}, nodes) == single


# -- rules, one by one ---------------------------------------------------------------------------


@pytest.fixture
def nodes() -> DictNodes:
    """An empty node store."""
    return DictNodes()


def make(nodes: DictNodes, *paths: str) -> bytes:
    """A root with files at these paths."""
    edits = {tuple(path.encode().split(b"/")): value_of(len(path)) for path in paths}
    return edit_paths(DIRECTORY.empty, edits, nodes).root


def names(root: bytes, nodes: DictNodes) -> list[str]:
    """The paths of all files."""
    return [b"/".join(path).decode() for path, _ in walk(root, nodes)]


def test_directories_come_and_go_with_their_files(nodes: DictNodes) -> None:
    """Directories on the way are made, and dropped when the last file below them goes."""
    root = make(nodes, "a/b/c/one", "a/b/two")
    entry = lookup(root, (b"a", b"b"), nodes)
    assert entry is not None
    assert (entry.kind, entry.size) == (EntryKind.TREE, value_of(9)[2] + value_of(7)[2])
    root = edit_paths(root, {(b"a", b"b", b"c", b"one"): None}, nodes).root
    assert lookup(root, (b"a", b"b", b"c"), nodes) is None
    assert names(root, nodes) == ["a/b/two"]
    root = edit_paths(root, {(b"a", b"b", b"two"): None, (b"x", b"y"): None}, nodes).root
    assert root == DIRECTORY.empty


def test_a_file_becomes_a_directory_and_back(nodes: DictNodes) -> None:
    """Deleting a file in the edits that write below it makes a directory of it; setting undoes."""
    root = make(nodes, "a", "b")
    both: PathEdits = {(b"a",): None, (b"a", b"x"): value_of(1), (b"a", b"y", b"z"): value_of(2)}
    root = edit_paths(root, both, nodes).root
    assert names(root, nodes) == ["a/x", "a/y/z", "b"]
    back: PathEdits = {(b"a",): value_of(3), (b"a", b"x"): None}
    root = edit_paths(root, back, nodes).root
    assert names(root, nodes) == ["a", "b"]


def test_a_diff_shows_a_file_that_became_a_directory(nodes: DictNodes) -> None:
    """The file goes first, then the files below come."""
    old, new = make(nodes, "a", "b"), make(nodes, "a/x", "b")
    changes = [(p, a is not None, b is not None) for p, a, b in diff_paths(old, new, nodes)]
    assert changes == [((b"a",), True, False), ((b"a", b"x"), False, True)]
    changes = [(p, a is not None, b is not None) for p, a, b in diff_paths(new, old, nodes)]
    assert changes == [((b"a",), False, True), ((b"a", b"x"), True, False)]


@pytest.mark.parametrize("also", [{}, {(b"other",): value_of(1)}])
def test_writing_below_a_file_says_what_to_do(nodes: DictNodes, also: PathEdits) -> None:
    """The error names the file, its kind and the way out, and nothing is saved."""
    root = make(nodes, "d/a")
    nodes.reset()
    with pytest.raises(WrongKind, match="delete it in the same edits") as caught:
        edit_paths(root, {(b"d", b"a", b"x", b"y"): value_of(1), **also}, nodes)
    assert caught.value.path == "d/a"
    assert (caught.value.expected, caught.value.actual) == ("tree", "file")
    assert caught.value.id == value_of(3)[1]
    assert nodes.saved == []


def test_edits_that_contradict_themselves_are_refused(nodes: DictNodes) -> None:
    """A file at `a` and a file at `a/b` in one set of edits cannot both be meant."""
    edits: PathEdits = {(b"a",): value_of(1), (b"a", b"b"): value_of(2)}
    with pytest.raises(InvalidName, match="same edits") as caught:
        edit_paths(DIRECTORY.empty, edits, nodes)
    assert caught.value.name == "a"


def test_deleting_below_a_file_or_nothing_changes_nothing(nodes: DictNodes) -> None:
    """What is not there can be deleted, on either way through."""
    root = make(nodes, "a", "d/e")
    for path in ((b"a", b"x"), (b"q", b"x"), (b"d", b"x", b"y"), (b"d", b"e", b"f")):
        assert edit_paths(root, {path: None}, nodes).root == root
        assert edit_paths(root, {path: None, (b"nothing",): None}, nodes).root == root


def test_a_directory_can_be_set_and_edited_at_once(nodes: DictNodes) -> None:
    """A tree set at a prefix is the base of the edits below it."""
    root = make(nodes, "from/one", "from/two")
    tree = lookup(root, (b"from",), nodes)
    assert tree is not None
    copy: PathEdits = {
        (b"to",): plain(tree),
        (b"to", b"one"): None,
        (b"to", b"three"): value_of(1),
    }
    root = edit_paths(root, copy, nodes).root
    assert names(root, nodes) == ["from/one", "from/two", "to/three", "to/two"]
    assert names(edit_paths(root, {(b"from",): None}, nodes).root, nodes) == [
        "to/three",
        "to/two",
    ]


def test_an_empty_directory_that_was_set_stays(nodes: DictNodes) -> None:
    """Only directories that an edit empties are dropped, not one that was stored empty."""
    empty = (4, DIRECTORY.empty, 0)
    root = edit_paths(DIRECTORY.empty, {(b"d", b"e"): empty}, nodes).root
    assert names(root, nodes) == []
    everything = [path for path, _ in walk(root, nodes, directories=True)]
    assert everything == [(b"d",), (b"d", b"e")]
    assert edit_paths(root, {(b"d", b"e", b"x"): None}, nodes).root == root
    assert edit_paths(root, {(b"d", b"e", b"x"): None, (b"z",): None}, nodes).root == root


def test_listing_and_the_root_itself(nodes: DictNodes) -> None:
    """A directory lists its entries in order; the empty path is the root."""
    root = make(nodes, "d/b", "d/a", "f")
    assert [name for name, _ in list_directory(root, (), nodes)] == [b"d", b"f"]
    assert [name for name, _ in list_directory(root, (b"d",), nodes)] == [b"a", b"b"]
    assert list(list_directory(root, (b"f",), nodes)) == []
    assert list(list_directory(root, (b"none",), nodes)) == []
    top = lookup(root, (), nodes)
    assert top is not None
    assert (top.id, top.size) == (root, sum(e.size for _, e in walk(root, nodes)))
    assert [b"/".join(p) for p, _ in walk(root, nodes, prefix=(b"at",))] == [
        b"at/d/a",
        b"at/d/b",
        b"at/f",
    ]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ((), InvalidName),
        ((b"a", b"..", b"b"), InvalidName),
        ((b"",), InvalidName),
        ((b"a", b""), InvalidName),
        ((b"a/b", b"c"), InvalidName),
        ((b"a",) * 257, LimitExceeded),
        ((b"n" * 255,) * 17, LimitExceeded),
        ((b"n" * 256,), LimitExceeded),
    ],
)
def test_illegal_paths_are_refused(nodes: DictNodes, path: Path, error: type[Invalid]) -> None:
    """Names and limits are checked on either way through."""
    for also in ({}, {(b"fine",): None}):
        with pytest.raises(error):
            edit_paths(DIRECTORY.empty, {path: value_of(1), **also}, nodes)


def test_the_deepest_path_works_and_a_deeper_tree_is_refused(nodes: DictNodes) -> None:
    """256 names are edited, walked and compared without recursion; more are an error."""
    deepest = (b"d",) * 256
    for also in ({}, {(b"fine",): value_of(2)}):
        root = edit_paths(DIRECTORY.empty, {deepest: value_of(1), **also}, nodes).root
        assert deepest in [path for path, _ in walk(root, nodes)]
        assert deepest in [path for path, *_ in diff_paths(DIRECTORY.empty, root, nodes)]
        deeper = edit_paths(DIRECTORY.empty, {(b"d",): (4, root, 1)}, nodes).root
        with pytest.raises(LimitExceeded, match="256"):
            list(walk(deeper, nodes))
        with pytest.raises(LimitExceeded, match="256"):
            list(diff_paths(DIRECTORY.empty, deeper, nodes))


def test_where_a_directory_may_stand_follows_from_its_deepest_path(nodes: DictNodes) -> None:
    """A directory is refused for exactly those places in which a path would be too long."""
    deep = edit_paths(
        DIRECTORY.empty, {(b"d",) * 200: value_of(1), (b"a", b"b"): value_of(2)}, nodes
    ).root
    beside = edit_paths(
        DIRECTORY.empty, {(b"x",): (4, deep, 1), (b"y", b"y"): (4, deep, 1)}, nodes
    ).root
    for root, levels in ((deep, 200), (beside, 202), (DIRECTORY.empty, 0)):
        check_levels(root, 256 - levels, nodes)
        if levels:
            with pytest.raises(LimitExceeded, match="256"):
                check_levels(root, 257 - levels, nodes)


def test_a_path_edit_reads_only_what_is_on_its_way(nodes: DictNodes) -> None:
    """Directories beside the path are not loaded."""
    files = {
        (b"d%02d" % d, b"f%02d" % f): value_of(100 * d + f) for d in range(40) for f in range(40)
    }
    root = edit_paths(DIRECTORY.empty, files, nodes).root
    nodes.reset()
    edit_path(root, (b"d07", b"f09"), value_of(1), nodes)
    assert len(set(nodes.loaded)) == 2
    assert len(nodes.saved) == 2
    nodes.reset()
    edit_paths(root, {(b"d07", b"f09"): value_of(1), (b"d08", b"new"): value_of(2)}, nodes)
    assert len(set(nodes.loaded)) == 3
    assert len(nodes.saved) == 3
