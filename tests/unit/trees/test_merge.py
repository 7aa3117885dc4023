"""Three-way merge of directories: laws that hold for any three of them, and what each rule says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import LimitExceeded
from cas.model.names import Path
from cas.trees.build import build
from cas.trees.cursor import scan
from cas.trees.merge import Reason, TreeConflict, TreeMerge, merge_trees
from cas.trees.node import DIRECTORY, Value
from cas.trees.paths import edit_paths, lookup
from tests.unit.trees.support import DictNodes, crafted, value_of

EMPTY = DIRECTORY.empty
NO_DIRECTORY: Value = (4, EMPTY, 0)
Edits = dict[Path, Value | None]

FEW = [b"a", b"b"]
MANY = [b"a", b"b", *crafted((0,), (), 300)[:60], *crafted((), (0, 1), 600)[:80]]


def tree(nodes: DictNodes, files: Edits, base: bytes = EMPTY) -> bytes:
    """Root of a directory with these paths; prefixes that are files make way."""
    for path, value in sorted(files.items()):
        for length in range(1, len(path)):
            found = lookup(base, path[:length], nodes)
            if found is not None and not found.is_tree:
                base = edit_paths(base, {path[:length]: None}, nodes).root
        base = edit_paths(base, {path: value}, nodes).root
    return base


@st.composite
def forks(draw: st.DrawFn) -> tuple[DictNodes, bytes, bytes, bytes]:
    """A directory and two that came from it by edits over few names."""
    names = draw(st.sampled_from([FEW, FEW, MANY]))
    path = st.lists(st.sampled_from(names), min_size=1, max_size=3).map(tuple)
    leaf = st.builds(value_of, st.integers(0, 3), st.sampled_from([1, 1, 2, 3]))
    value = st.one_of(st.none(), leaf, leaf, st.just(NO_DIRECTORY))
    size = 90 if names is MANY else 6
    nodes = DictNodes()
    base = tree(nodes, draw(st.dictionaries(path, leaf, max_size=size)))
    ours = tree(nodes, draw(st.dictionaries(path, value, max_size=6)), base)
    theirs = tree(nodes, draw(st.dictionaries(path, value, max_size=6)), base)
    build(DIRECTORY, [], nodes)
    return nodes, base, ours, theirs


def result(nodes: DictNodes, ours: bytes, merge: TreeMerge) -> bytes:
    """Root after a merge."""
    return edit_paths(ours, merge.edits, nodes).root if merge.edits else ours


def turned(conflict: TreeConflict) -> TreeConflict:
    """The same conflict seen from the other side."""
    return TreeConflict(
        conflict.path, conflict.base, conflict.theirs, conflict.ours, conflict.reason
    )


@given(forks())
def test_merging_is_commutative_up_to_the_sides(
    fork: tuple[DictNodes, bytes, bytes, bytes],
) -> None:
    """Whichever side is ours: the same conflicts with sides turned, and, without any, one root."""
    nodes, base, ours, theirs = fork
    there = merge_trees(base, ours, theirs, nodes)
    back = merge_trees(base, theirs, ours, nodes)
    assert there.conflicts == tuple(map(turned, back.conflicts))
    if not there.conflicts:
        assert result(nodes, ours, there) == result(nodes, theirs, back)


@given(forks())
def test_conflicts_settled_alike_give_one_tree(
    fork: tuple[DictNodes, bytes, bytes, bytes],
) -> None:
    """With every conflict settled for the same side, both directions give the same files."""
    nodes, base, ours, theirs = fork
    there = merge_trees(base, ours, theirs, nodes)
    back = merge_trees(base, theirs, ours, nodes)
    first = edit_paths(ours, {**there.edits, **{c.path: c.ours for c in there.conflicts}}, nodes)
    second = edit_paths(theirs, {**back.edits, **{c.path: c.theirs for c in back.conflicts}}, nodes)
    assert files_of(nodes, first.root) == files_of(nodes, second.root)


def files_of(nodes: DictNodes, root: bytes, above: Path = ()) -> dict[Path, Value]:
    """Files and links below a directory, read without the code that is tested."""
    found: dict[Path, Value] = {}
    for name, value in scan(DIRECTORY, root, nodes):
        if value[0] == 4:
            found |= files_of(nodes, value[1], (*above, name))
        else:
            found[(*above, name)] = value
    return found


@given(forks())
def test_a_side_that_did_nothing_changes_nothing(
    fork: tuple[DictNodes, bytes, bytes, bytes],
) -> None:
    """Merging a side with the base, or with itself, gives that side and no conflict."""
    nodes, base, ours, theirs = fork
    for mine, other in ((ours, base), (base, theirs), (ours, ours)):
        merge = merge_trees(base, mine, other, nodes)
        assert merge.conflicts == ()
        assert result(nodes, mine, merge) == (other if mine == base else mine)


@given(forks())
def test_merging_again_does_nothing(fork: tuple[DictNodes, bytes, bytes, bytes]) -> None:
    """A merge without conflicts, merged with either side once more, stays as it is."""
    nodes, base, ours, theirs = fork
    merge = merge_trees(base, ours, theirs, nodes)
    if merge.conflicts:
        return
    merged = result(nodes, ours, merge)
    for side in (ours, theirs):
        again = merge_trees(side, merged, side, nodes)
        assert again == TreeMerge({}, ())
    assert result(nodes, merged, merge_trees(base, merged, theirs, nodes)) == merged


@given(forks())
def test_a_conflict_is_a_path_that_differs_on_all_three(
    fork: tuple[DictNodes, bytes, bytes, bytes],
) -> None:
    """Every conflict names what really stands there; a file changed on one side never is one."""
    nodes, base, ours, theirs = fork
    merge = merge_trees(base, ours, theirs, nodes)
    for conflict in merge.conflicts:
        sides = (conflict.base, conflict.ours, conflict.theirs)
        assert len(set(sides)) == 3 or conflict.base is None or conflict.base[0] == 4
        for root, value in zip((base, ours, theirs), sides, strict=True):
            found = lookup(root, conflict.path, nodes)
            assert (None if found is None else (int(found.kind), found.id, found.size)) == value
    assert [c.path for c in merge.conflicts] == sorted({c.path for c in merge.conflicts})


@given(st.data())
def test_edits_that_do_not_touch_are_done_one_after_the_other(data: st.DataObject) -> None:
    """Two sets of edits in different directories merge to what the one after the other gives."""
    nodes = DictNodes()
    path = st.lists(st.sampled_from(MANY), min_size=1, max_size=2).map(tuple)
    value = st.builds(value_of, st.integers(0, 9))
    base = tree(nodes, data.draw(st.dictionaries(path, value, max_size=80)))
    edits = st.dictionaries(path, st.one_of(st.none(), value), max_size=12)
    mine = {(b"x", *key): item for key, item in data.draw(edits).items()}
    other = {(b"y", *key): item for key, item in data.draw(edits).items()}
    ours, theirs = tree(nodes, mine, base), tree(nodes, other, base)
    merge = merge_trees(base, ours, theirs, nodes)
    assert merge.conflicts == ()
    assert result(nodes, ours, merge) == tree(nodes, other, ours) == tree(nodes, mine, theirs)


V0, V1, V2 = value_of(0), value_of(1), value_of(2)
RUN = (2, *V0[1:])
LINK = (3, *V2[1:])


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged", "reason"),
    [
        (V0, V1, V2, V1, Reason.BOTH_CHANGED),
        (None, V1, V2, V1, Reason.BOTH_ADDED),
        (None, V0, RUN, V0, Reason.MODE),
        (V0, None, V2, None, Reason.CHANGED_DELETED),
        (V0, V1, None, V1, Reason.CHANGED_DELETED),
        (V0, V1, LINK, V1, Reason.MODE),
        (V0, V1, RUN, (2, *V1[1:]), None),
        (V0, RUN, V1, (2, *V1[1:]), None),
        (V0, V1, (2, *V1[1:]), (2, *V1[1:]), None),
        (V0, V1, V1, V1, None),
        (V0, None, None, None, None),
        (None, None, V1, V1, None),
    ],
)
def test_what_becomes_of_one_file(
    base: Value | None,
    ours: Value | None,
    theirs: Value | None,
    merged: Value | None,
    reason: Reason | None,
) -> None:
    """Content and executable bit are merged each by itself; what clashes stays as ours has it."""
    nodes = DictNodes()
    roots = [tree(nodes, {(b"d", b"f"): value, (b"d", b"k"): V0}) for value in (base, ours, theirs)]
    merge = merge_trees(roots[0], roots[1], roots[2], nodes)
    found = lookup(result(nodes, roots[1], merge), (b"d", b"f"), nodes)
    assert (None if found is None else (int(found.kind), found.id, found.size)) == merged
    assert [c.reason for c in merge.conflicts] == ([] if reason is None else [reason])


def test_a_file_and_a_folder_of_one_name_are_a_conflict() -> None:
    """A file where the other side has a directory is one conflict, at that path."""
    nodes = DictNodes()
    base = tree(nodes, {(b"k",): V0})
    ours = tree(nodes, {(b"n",): V1}, base)
    theirs = tree(nodes, {(b"n", b"in"): V2}, base)
    (conflict,) = merge_trees(base, ours, theirs, nodes).conflicts
    assert (conflict.path, conflict.reason) == ((b"n",), Reason.FILE_FOLDER)
    assert conflict.theirs is not None
    assert conflict.theirs[0] == 4


def test_a_deleted_directory_clashes_only_where_it_was_changed() -> None:
    """Of a directory that one side deleted, files that the other changed are the conflicts."""
    nodes = DictNodes()
    base = tree(nodes, {(b"d", b"a"): V0, (b"d", b"b"): V0, (b"k",): V0})
    ours = tree(nodes, {(b"d",): None}, base)
    theirs = tree(nodes, {(b"d", b"a"): V1, (b"d", b"new"): V2}, base)
    merge = merge_trees(base, ours, theirs, nodes)
    assert [(c.path, c.reason) for c in merge.conflicts] == [((b"d", b"a"), Reason.CHANGED_DELETED)]
    assert files_of(nodes, result(nodes, ours, merge)) == {(b"d", b"new"): V2, (b"k",): V0}


def test_the_cost_follows_the_changes() -> None:
    """Ten changes on each side of 20,000 entries load a few nodes for each of them."""
    nodes = DictNodes()
    entries = [(b"f%06d" % at, value_of(at)) for at in range(20_000)]
    base = build(DIRECTORY, entries, nodes).root
    ours = edit_paths(base, {(b"f%06d" % (at * 1900),): V1 for at in range(1, 11)}, nodes).root
    theirs = edit_paths(base, {(b"f%06d" % (at * 1801),): V2 for at in range(1, 11)}, nodes).root
    nodes.reset()
    merge = merge_trees(base, ours, theirs, nodes)
    assert len(merge.edits) == 10
    assert len(nodes.loaded) < 150


def test_directories_nested_too_deep_are_refused() -> None:
    """Trees that no path could name are a typed error, not a crash."""
    nodes = DictNodes()
    roots = [value[1] for value in (V0, V1, V2)]
    values = [V0, V1, V2]
    for _ in range(258):
        roots = [build(DIRECTORY, [(b"d", value)], nodes).root for value in values]
        values = [(4, root, value[2]) for root, value in zip(roots, values, strict=True)]
    with pytest.raises(LimitExceeded):
        merge_trees(roots[0], roots[1], roots[2], nodes)
