"""Reading a tree: by name, by position, in ranges, all nodes, and what differs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.trees.build import Summary, build
from cas.trees.cursor import count, get, nodes_of, number, scan
from cas.trees.diff import diff
from cas.trees.edit import apply
from cas.trees.node import DIRECTORY, Value
from tests.unit.trees.support import DictNodes, items, oracle, pool, value_of

KINDS = ["any", "long", "each name ends a leaf and an inner node", "no name ends anything"]


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[bytes, Value], DictNodes, bytes, list[bytes]]:
    """A content, its nodes, its root, and names to ask for: some are there, some are not."""
    names = pool(*draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2, unique=True)))
    start, stride = draw(st.integers(0, 400)), draw(st.integers(1, 4))
    chosen = names[start::stride][: draw(st.sampled_from([0, 1, 40, 64, 65, 100, 300]))]
    content = {name: value_of(at) for at, name in enumerate(chosen)}
    nodes = DictNodes()
    root = build(DIRECTORY, items(content), nodes).root
    asked = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5))
    return content, nodes, root, [*asked, b"\x01", b"\xff\xff"]


@given(trees())
def test_every_name_is_found(
    tree: tuple[dict[bytes, Value], DictNodes, bytes, list[bytes]],
) -> None:
    """Look-ups by name, the count and the size agree with the content."""
    content, nodes, root, asked = tree
    for name in asked:
        assert get(DIRECTORY, root, name, nodes) == content.get(name)
    assert count(DIRECTORY, root, nodes) == len(content)
    assert number(DIRECTORY, root, nodes) == sum(value[2] for value in content.values())


@given(trees(), st.booleans(), st.integers(0, 4), st.booleans())
def test_a_scan_gives_its_range(
    tree: tuple[dict[bytes, Value], DictNodes, bytes, list[bytes]],
    reverse: bool,
    prefix_length: int,
    from_start: bool,
) -> None:
    """Any start, prefix and direction give the entries in that range, in that order."""
    content, nodes, root, asked = tree
    for name in asked:
        start = None if from_start else name
        prefix = name[:prefix_length]
        expected = [
            (key, value)
            for key, value in items(content)
            if key.startswith(prefix)
            and (start is None or (key <= start if reverse else key >= start))
        ]
        found = scan(DIRECTORY, root, nodes, start=start, prefix=prefix, reverse=reverse)
        assert list(found) == (expected[::-1] if reverse else expected)
    bounds = [b"\xff", b"\xff\xff\xff"]
    for prefix in bounds:
        assert list(scan(DIRECTORY, root, nodes, prefix=prefix, reverse=reverse)) == []


@pytest.fixture(scope="module")
def large() -> tuple[DictNodes, Summary]:
    """A directory of 30,000 entries."""
    nodes = DictNodes()
    names = (b"item-%05d" % at for at in range(30_000))
    return nodes, build(DIRECTORY, ((n, value_of(at)) for at, n in enumerate(names)), nodes)


def test_reading_loads_what_it_needs(large: tuple[DictNodes, Summary]) -> None:
    """A look-up loads one node a level, a scan only the nodes up to where it stops."""
    nodes, tree = large
    levels = nodes.load(tree.root).level + 1
    nodes.reset()
    assert get(DIRECTORY, tree.root, b"item-12345", nodes) == value_of(12345)
    assert len(nodes.loaded) == levels
    for reverse in (False, True):
        nodes.reset()
        rows = scan(DIRECTORY, tree.root, nodes, start=b"item-12345", reverse=reverse)
        assert len(list(islice(rows, 3))) == 3
        assert len(nodes.loaded) <= levels + 3
    nodes.reset()
    assert len(list(scan(DIRECTORY, tree.root, nodes, prefix=b"item-1234"))) == 10
    assert len(nodes.loaded) <= levels + 3


def test_all_nodes_are_walked_once_and_skipped_when_asked(rng: random.Random) -> None:
    """The walk meets each node once, parents first; what is skipped is not loaded."""
    content = {b"item-%05d" % at: value_of(at) for at in range(5_000)}
    nodes = DictNodes()
    root = build(DIRECTORY, items(content), nodes).root
    expected = oracle(content)[1]
    found = list(nodes_of(DIRECTORY, root, nodes))
    assert {node_id: node.data for node_id, node in found} == expected
    assert len(found) == len(expected)
    seen: set[bytes] = set()
    for node_id, node in found:
        assert node_id == root or node_id in seen
        if node.level:
            seen.update(node.child_id(at) for at in range(len(node)))
    new = apply(DIRECTORY, root, [(b"item-02500", value_of(1))], nodes).root
    nodes.reset()
    fresh = {node_id for node_id, _ in nodes_of(DIRECTORY, new, nodes, expected.__contains__)}
    assert fresh == set(nodes.loaded)
    assert fresh == oracle({**content, b"item-02500": value_of(1)})[1].keys() - expected.keys()
    assert list(nodes_of(DIRECTORY, new, nodes, lambda _: True)) == []


def test_a_diff_loads_what_differs(large: tuple[DictNodes, Summary], rng: random.Random) -> None:
    """A diff of k changes loads a few nodes a change on either side, and is lazy."""
    nodes, tree = large
    levels = nodes.load(tree.root).level + 1
    for changes in (1, 3, 30):
        edits: dict[bytes, Value | None] = {}
        for _ in range(changes):
            name = b"item-%05d%s" % (rng.randrange(30_000), rng.choice([b"", b"", b"x"]))
            edits[name] = rng.choice([None, value_of(rng.randrange(99), 2)])
        new = apply(DIRECTORY, tree.root, sorted(edits.items()), nodes).root
        nodes.reset()
        list(diff(DIRECTORY, tree.root, new, nodes))
        assert len(nodes.loaded) <= 2 * levels + 4 * levels * changes
        nodes.reset()
        next(diff(DIRECTORY, tree.root, new, nodes), None)
        assert len(nodes.loaded) <= 8 * levels
    nodes.reset()
    assert list(diff(DIRECTORY, tree.root, tree.root, nodes)) == []
    assert nodes.loaded == []


def test_a_diff_tells_what_it_will_load(
    large: tuple[DictNodes, Summary], rng: random.Random
) -> None:
    """What is told ahead is loaded later, once; little but roots is loaded without being told."""
    nodes, tree = large
    names = [b"item-%05d" % rng.randrange(30_000) for _ in range(300)]
    edits = [(name, value_of(rng.randrange(99), 2)) for name in sorted(set(names))]
    new = apply(DIRECTORY, tree.root, edits, nodes).root
    nodes.reset()
    told: list[bytes] = []

    def ahead(ids: Sequence[bytes]) -> None:
        assert not set(ids).intersection(nodes.loaded)
        told.extend(ids)

    assert len(list(diff(DIRECTORY, tree.root, new, nodes, ahead))) == len(edits)
    assert set(told) <= set(nodes.loaded)
    assert len(set(nodes.loaded) - set(told)) <= 2 + len(nodes.loaded) // 50


def test_a_diff_tells_what_it_has_left(
    large: tuple[DictNodes, Summary], rng: random.Random
) -> None:
    """Nodes that only the old tree has are told once, behind their last use, and no others; one may
    be missing where the trees come to have other levels beside each other.
    """
    nodes, tree = large
    names = {b"item-%05d" % rng.randrange(30_000) for _ in range(300)}
    edits = [(name, value_of(1, 2) if rng.random() < 0.8 else None) for name in sorted(names)]
    new = apply(DIRECTORY, tree.root, edits, nodes).root
    only = {id for id, _ in nodes_of(DIRECTORY, tree.root, nodes)}
    only -= {id for id, _ in nodes_of(DIRECTORY, new, nodes)}
    nodes.reset()
    left: list[tuple[bytes, int]] = []

    def behind(ids: Sequence[bytes]) -> None:
        left.extend((id, len(nodes.loaded)) for id in ids)

    list(diff(DIRECTORY, tree.root, new, nodes, lambda _: None, behind))
    told = {id for id, _ in left}
    assert told <= only - {tree.root}
    assert len(told) == len(left) >= len(only) - 3
    assert not any(id in nodes.loaded[at:] for id, at in left)


@given(trees(), trees())
def test_a_diff_of_unrelated_trees_is_exact(
    one: tuple[dict[bytes, Value], DictNodes, bytes, list[bytes]],
    two: tuple[dict[bytes, Value], DictNodes, bytes, list[bytes]],
) -> None:
    """Trees of any two contents and heights differ in just the names whose values differ."""
    nodes = DictNodes()
    nodes.data = {**one[1].data, **two[1].data}
    old, new = one[0], two[0]
    differences = [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    assert list(diff(DIRECTORY, one[2], two[2], nodes)) == differences
    back = [(name, b, a) for name, a, b in differences]
    assert list(diff(DIRECTORY, two[2], one[2], nodes)) == back
    edits = [(name, value) for name, _, value in differences]
    assert apply(DIRECTORY, one[2], edits, nodes).root == two[2]


@pytest.mark.parametrize("count", [1, 40, 500])
def test_a_diff_sees_each_part_of_a_value(count: int) -> None:
    """An entry that got another tag, id or number alone is a difference, wherever it stands."""
    content = {b"item-%05d" % at: value_of(1) for at in range(count)}
    nodes = DictNodes()
    root = build(DIRECTORY, items(content), nodes).root
    tag, content_id, size = value_of(1)
    others = [(tag + 1, content_id, size), (tag, b"o" * 32, size), (tag, content_id, size + 1)]
    for name in {b"item-%05d" % at for at in (0, count // 3, count - 1)}:
        for other in others:
            new = apply(DIRECTORY, root, [(name, other)], nodes).root
            assert list(diff(DIRECTORY, root, new, nodes)) == [(name, value_of(1), other)]


def test_the_empty_tree_needs_no_nodes() -> None:
    """The empty tree can be read, compared and edited without ever having been saved."""
    nodes = DictNodes()
    empty = DIRECTORY.empty
    assert get(DIRECTORY, empty, b"a", nodes) is None
    assert list(scan(DIRECTORY, empty, nodes)) == []
    assert list(scan(DIRECTORY, empty, nodes, reverse=True)) == []
    assert count(DIRECTORY, empty, nodes) == number(DIRECTORY, empty, nodes) == 0
    one = apply(DIRECTORY, empty, [(b"a", value_of(1))], nodes).root
    assert list(diff(DIRECTORY, empty, one, nodes)) == [(b"a", None, value_of(1))]
    assert list(diff(DIRECTORY, one, empty, nodes)) == [(b"a", value_of(1), None)]
