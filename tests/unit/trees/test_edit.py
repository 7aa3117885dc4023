"""The history of a tree leaves no trace: what was edited equals what was built."""

from __future__ import annotations

import os
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import Invalid, InvalidName, LimitExceeded, NewerFormat
from cas.trees import boundary
from cas.trees.build import Summary, build
from cas.trees.diff import diff
from cas.trees.edit import apply
from cas.trees.inplace import descend, edit_run
from cas.trees.node import DIRECTORY, REFS, Edit, Flavour, Value, decode_node, encode_node
from tests.unit.trees.support import (
    POOLS,
    DictNodes,
    crafted,
    items,
    long_names,
    oracle,
    pool,
    value_of,
)

# Repeat with more: CAS_TEST_TREE_ORDERS=10000.
ORDERS = int(os.environ.get("CAS_TEST_TREE_ORDERS", "2500"))

Content = dict[bytes, Value]
Edits = dict[bytes, Value | None]

KINDS = [*POOLS, "long", "any"]
# Runs and combs of a pool: contiguous changes and sparse ones, and both shrink well.
RANGES = st.lists(
    st.tuples(
        st.integers(0, 900), st.sampled_from([1, 2, 5, 30, 64, 65, 130, 400]), st.integers(1, 7)
    ),
    max_size=4,
)


def take(names: tuple[bytes, ...], ranges: list[tuple[int, int, int]]) -> list[bytes]:
    """The names that ranges of (start, length, stride) choose."""
    return [name for start, length, stride in ranges for name in names[start::stride][:length]]


def applied(content: Content, edits: Edits) -> Content:
    """A content after edits."""
    after = dict(content)
    for name, value in edits.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = value
    return after


def check_apply(flavour: Flavour, content: Content, edits: Edits) -> None:
    """Everything `apply` promises, against the oracle."""
    nodes = DictNodes(flavour)
    old = build(flavour, items(content), nodes)
    old_nodes = set(nodes.saved)
    nodes.reset()
    new = apply(flavour, old.root, sorted(edits.items()), nodes)
    after = applied(content, edits)
    root, expected = oracle(after, flavour.kind)
    assert new == Summary(root, len(after), flavour.fold([v[2] for v in after.values()]))
    assert len(set(nodes.loaded)) == len(nodes.loaded), "a node was loaded twice"
    if after:
        assert len(set(nodes.saved)) == len(nodes.saved), "a node was saved twice"
        assert set(nodes.saved) == set(expected) - old_nodes, "garbage, or nodes not new"
    for node_id, data in expected.items():
        assert nodes.data[node_id] == data
        decode_node(data, flavour.kind)
    differences = [
        (name, content.get(name), after.get(name))
        for name in sorted(content.keys() | after.keys())
        if content.get(name) != after.get(name)
    ]
    assert list(diff(flavour, old.root, new.root, nodes)) == differences


@given(
    st.sampled_from([(DIRECTORY, 1), (REFS, 3)]),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True),
    RANGES,
    RANGES,
    RANGES,
    st.integers(0, 1000),
)
def test_apply_gives_what_build_gives(
    flavour_tag: tuple[Flavour, int],
    kinds: list[str],
    content: list[tuple[int, int, int]],
    sets: list[tuple[int, int, int]],
    deletes: list[tuple[int, int, int]],
    seed: int,
) -> None:
    """Any edits of any tree give the root, and save just the nodes, that the content asks for."""
    flavour, tag = flavour_tag
    names = pool(*kinds)
    before = {name: value_of(seed, tag) for name in take(names, content)}
    edits: Edits = {}
    for at, name in enumerate(take(names, sets)):
        same_tag, content_id, number = value_of(seed, tag)
        edits[name] = (
            value_of(seed + 1 + at, tag),
            (tag + 1, content_id, number),
            (same_tag, content_id, number + 1),
            value_of(seed, tag),
        )[(seed + at) % 4]
    edits |= dict.fromkeys(take(names, deletes))
    check_apply(flavour, before, edits)


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True), st.data())
def test_one_edit_gives_what_build_gives(kinds: list[str], data: st.DataObject) -> None:
    """The path of a single edit, which guesses that no end moves, is never wrong about it."""
    names = pool(*kinds)
    content = {name: value_of(at) for at, name in enumerate(take(names, data.draw(RANGES)))}
    name = data.draw(st.sampled_from(names))
    value = data.draw(st.sampled_from([None, value_of(1), value_of(2, 3), value_of(5, 4)]))
    check_apply(DIRECTORY, content, {name: value})


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True), st.data())
def test_a_run_of_edits_gives_what_build_gives(kinds: list[str], data: st.DataObject) -> None:
    """Edits of neighbours, new names or other values, guess that no end moves and are never wrong
    about it.
    """
    names = pool(*kinds)
    ranges = data.draw(RANGES)
    content = {name: value_of(at) for at, name in enumerate(take(names, ranges))}
    start = data.draw(st.sampled_from([0, len(content), *(each[0] for each in ranges)]))
    run = names[start:][: data.draw(st.sampled_from([2, 3, 5, 30, 64, 65, 260]))]
    only_new, value = data.draw(st.booleans()), data.draw(st.integers(0, 99))
    edits: Edits = {
        name: value_of(value + at)
        for at, name in enumerate(run)
        if not only_new or name not in content
    }
    check_apply(DIRECTORY, content, edits)


def test_names_behind_all_others_change_one_leaf() -> None:
    """Names that a collection gains at its end go into its last leaf without a scan, unless one of
    them, or what stood last, ends a node; many or long ones are left to the scan as well.
    """
    quiet = POOLS["no name ends anything"]
    names = crafted(*quiet[:2], 600)
    content = {b"a" + bytes([at]): value_of(at) for at in range(1, 40)}
    content |= {b"b%05d" % at: value_of(at) for at in range(500)}
    nodes = DictNodes()
    root = build(DIRECTORY, items(content), nodes).root
    top = nodes.load(root)
    hit = next(b"d-%d" % at for at in range(999) if boundary.is_hit(0, b"d-%d" % at))
    calm = sorted(b"c" + name for name in names if not boundary.is_hit(0, b"c" + name))
    done: dict[str, Summary | None] = {}
    for what, run in (
        ("calm", calm[:5]),
        ("a hit behind", [*calm[:3], hit]),
        ("a hit before", [hit, hit + b"+"]),
        ("many", calm[:260]),
    ):
        edits: list[Edit] = [(name, value_of(at)) for at, name in enumerate(run)]
        path, leaf = descend(top, run[0], nodes)
        assert not boundary.is_hit(0, leaf.names[-1]), "nothing is tried by this content"
        nodes.reset()
        made = done[what] = edit_run(DIRECTORY, root, path, leaf, edits, nodes)
        assert made is not None or not nodes.saved
        if made is not None:
            assert made.root == oracle(content | applied({}, dict(edits)))[0]
    assert {what for what, each in done.items() if each is None} == {"a hit before", "many"}


def test_random_orders_end_in_one_root(rng: random.Random) -> None:
    """Whatever order, batches and detours lead to a content, its root is the same."""
    choices = [("any",), *((name,) for name in KINDS), (KINDS[0], KINDS[2]), (KINDS[1], "any")]
    for _ in range(ORDERS):
        names = pool(*rng.choice(choices))
        window = rng.randrange(len(names))
        near = (names[window:] + names[:window])[: rng.choice([3, 66, 70, 90, 140])]
        final = {name: value_of(rng.randrange(99)) for name in near if rng.random() < 0.9}
        nodes = DictNodes()
        root = DIRECTORY.empty
        nodes.data[root] = oracle({})[1][root]
        todo: list[tuple[bytes, Value | None]] = []
        for name in near:
            if name not in final or rng.random() < 0.2:
                # A detour: it comes with another value, and is put right later.
                todo.append((name, value_of(rng.randrange(99))))
        rng.shuffle(todo)
        last: list[tuple[bytes, Value | None]] = [(name, final.get(name)) for name in near]
        rng.shuffle(last)
        todo += last
        while todo:
            size = rng.choice([1, 2, 10, 60, 200])
            batch, todo = dict(todo[:size]), todo[size:]
            root = apply(DIRECTORY, root, sorted(batch.items()), nodes).root
        assert root == oracle(final)[0]


# -- transitions, one by one -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 128, 129, 130, 255, 256, 257])
def test_each_side_of_each_threshold(kind: str, count: int) -> None:
    """At the sizes where the shape changes, one more or one less entry gives the right tree."""
    names = pool(kind)[: count + 1]
    content = {name: value_of(at) for at, name in enumerate(names[:count])}
    check_apply(DIRECTORY, content, {names[-1]: value_of(7)})
    for at in {0, count // 2, count - 1} & set(range(count)):
        check_apply(DIRECTORY, content, {names[at]: None})
        check_apply(DIRECTORY, content, {names[at]: value_of(8, 2)})
    check_apply(DIRECTORY, content, dict.fromkeys(names))


@pytest.mark.parametrize(("kind", "levels"), [("any", {0, 1}), (KINDS[1], {0, 2, 3})])
def test_a_tree_grows_and_shrinks_by_one_entry_at_a_time(kind: str, levels: set[int]) -> None:
    """Appending at the end, then deleting from either side, keeps the shape at every step."""
    names = pool(kind)[:150]
    nodes = DictNodes()
    nodes.data.update(oracle({})[1])
    root, content = DIRECTORY.empty, {}
    steps: list[tuple[bytes, Value | None]] = [(n, value_of(at)) for at, n in enumerate(names)]
    steps += [(name, None) for name in names[:60]]
    steps += [(name, None) for name in reversed(names[60:])]
    heights = set()
    for name, value in steps:
        root = apply(DIRECTORY, root, [(name, value)], nodes).root
        content = applied(content, {name: value})
        assert root == oracle(content)[0]
        heights.add(nodes.load(root).level)
    assert heights == levels
    assert root == DIRECTORY.empty


def test_the_first_hit_of_an_inner_node_counts_once_it_is_second() -> None:
    """A bug found: an inner node's first name, whose hit was ignored, was not asked again."""
    ending = crafted((0, 1), (), 280)
    silent = crafted((0,), (1,), 300)
    content = {name: value_of(at) for at, name in enumerate(sorted(ending)[:90])}
    for name in [n for n in silent if n < max(content)][:60]:
        check_apply(DIRECTORY, content, {name: value_of(1)})


def test_a_whole_leaf_behind_a_new_one_is_not_saved_again() -> None:
    """A bug found: an end inserted right before a node's first name gave that node once more."""
    names = sorted(crafted((0,), (), 140))
    content = {name: value_of(at) for at, name in enumerate(names[::2])}
    for name in names[1::2]:
        check_apply(DIRECTORY, content, {name: value_of(3)})


def test_an_old_root_that_becomes_a_leaf_is_not_saved_again() -> None:
    """Entries that all end before the old ones leave the old root whole, as a node below."""
    ends = sorted(crafted((0,), (), 300))[:40]
    old = [name for name in sorted(crafted((), (0, 1), 600)) if name > ends[-1]][:40]
    content = {name: value_of(at) for at, name in enumerate(old)}
    nodes = DictNodes()
    root = build(DIRECTORY, items(content), nodes).root
    nodes.reset()
    apply(DIRECTORY, root, [(name, value_of(1)) for name in ends], nodes)
    assert root not in nodes.saved
    check_apply(DIRECTORY, content, {name: value_of(1) for name in ends})


def test_a_leaf_that_becomes_the_root_is_not_saved_again() -> None:
    """A bug found: deleting all but one old node saved that node anew."""
    names = sorted(crafted((0,), (), 80))
    content = {name: value_of(at) for at, name in enumerate(names)}
    nodes = DictNodes()
    root = build(DIRECTORY, items(content), nodes).root
    nodes.reset()
    apply(DIRECTORY, root, [(name, None) for name in names if name != names[40]], nodes)
    assert nodes.saved == []


def test_names_of_255_bytes_end_nodes_by_their_bytes() -> None:
    """129 names of 255 bytes fill a node of 32 KiB, wherever one is inserted or deleted."""
    names = long_names(400)
    content = {name: value_of(at) for at, name in enumerate(sorted(names)[::2])}
    nodes = DictNodes()
    build(DIRECTORY, items(content), nodes)
    sizes = sorted(len(nodes.load(i)) for i in nodes.saved if nodes.load(i).level == 0)
    assert sizes == [200 - 129, 129]
    for name in sorted(names)[::23]:
        check_apply(DIRECTORY, content, {name: None if name in content else value_of(1)})


# -- what an edit costs --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> tuple[DictNodes, Summary]:
    """A directory of 20,000 entries."""
    nodes = DictNodes()
    names = (b"item-%05d" % at for at in range(20_000))
    return nodes, build(DIRECTORY, ((n, value_of(at)) for at, n in enumerate(names)), nodes)


def test_a_changed_value_costs_one_node_a_level(
    large: tuple[DictNodes, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing a value loads and saves one node a level, and asks no name for an end."""
    nodes, tree = large
    levels = nodes.load(tree.root).level + 1

    def asked(*_: object) -> None:
        raise AssertionError("a name was hashed")

    for function in ("is_hit", "hits", "ends"):
        monkeypatch.setattr(boundary, function, asked)
    for at in range(0, 20_000, 997):
        nodes.reset()
        apply(DIRECTORY, tree.root, [(b"item-%05d" % at, value_of(1, 2))], nodes)
        assert len(nodes.loaded) == len(nodes.saved) == levels


def test_an_edit_touches_few_nodes(large: tuple[DictNodes, Summary], rng: random.Random) -> None:
    """An insert or a delete loads and saves few nodes a level; a batch shares what it can."""
    nodes, tree = large
    levels = nodes.load(tree.root).level + 1
    for _ in range(200):
        name = b"item-%05d%s" % (rng.randrange(20_000), rng.choice([b"", b"+"]))
        value = None if len(name) == 10 else value_of(rng.randrange(99))
        nodes.reset()
        apply(DIRECTORY, tree.root, [(name, value)], nodes)
        assert len(nodes.loaded) <= 3 * levels
        assert len(nodes.saved) <= 3 * levels
    nodes.reset()
    few = sorted({b"item-%05d" % rng.randrange(500) for _ in range(100)})
    apply(DIRECTORY, tree.root, [(name, None) for name in few], nodes)
    assert len(nodes.loaded) < 60


def test_a_change_of_nothing_writes_nothing(large: tuple[DictNodes, Summary]) -> None:
    """Deleting what is not there and setting what is there give the same tree and save nothing."""
    nodes, tree = large
    nodes.reset()
    same = (b"item-00007", value_of(7))
    absent = (b"item-00007-", None)
    assert apply(DIRECTORY, tree.root, [same], nodes) == tree
    assert apply(DIRECTORY, tree.root, [absent], nodes) == tree
    assert apply(DIRECTORY, tree.root, [same, absent], nodes) == tree
    assert apply(DIRECTORY, tree.root, [], nodes) == tree
    assert nodes.saved == []


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(b"b", b"a"), (b"a", b"a")])
def test_entries_out_of_order_are_refused(order: tuple[bytes, bytes]) -> None:
    """Neither `build` nor `apply` guesses what was meant by an unsorted or repeated name."""
    rows = [(name, value_of(1)) for name in order]
    with pytest.raises(Invalid, match="ascending"):
        build(DIRECTORY, rows, DictNodes())
    with pytest.raises(Invalid, match="ascending"):
        apply(DIRECTORY, DIRECTORY.empty, rows, DictNodes())


@pytest.mark.parametrize(
    "value",
    [
        (0, b"i" * 32, 1),
        (5, b"i" * 32, 1),
        (1, b"i" * 31, 1),
        (1, b"i" * 32, -1),
        (1, b"i" * 32, 1 << 64),
        (1, b"i" * 32, True),
        (1, "i" * 32, 1),
    ],
)
@pytest.mark.parametrize("count", [0, 3, 100])
def test_values_that_do_not_belong_are_refused(value: Value, count: int) -> None:
    """A tag, id or number that no node may hold is refused before anything is saved."""
    nodes = DictNodes()
    content = {b"n%03d" % at: value_of(at) for at in range(count)}
    root = build(DIRECTORY, items(content), nodes).root
    nodes.reset()
    for edits in ([(b"n000", value)], [(b"n000", value), (b"n001", None)]):
        with pytest.raises(Invalid):
            apply(DIRECTORY, root, edits, nodes)
    with pytest.raises(Invalid):
        build(DIRECTORY, [(b"x", value)], nodes)
    assert nodes.saved == []


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"", InvalidName),
        (b".", InvalidName),
        (b"..", InvalidName),
        (b"a/b", InvalidName),
        (b"a\0", InvalidName),
        (b"n" * 256, LimitExceeded),
    ],
)
def test_illegal_names_are_refused(name: bytes, error: type[Exception]) -> None:
    """A name that a directory may not hold is refused by every way in."""
    nodes = DictNodes()
    nodes.data.update(oracle({})[1])
    with pytest.raises(error):
        build(DIRECTORY, [(name, value_of(1))], nodes)
    with pytest.raises(error):
        apply(DIRECTORY, DIRECTORY.empty, [(name, value_of(1))], nodes)
    with pytest.raises(error):
        apply(DIRECTORY, DIRECTORY.empty, sorted({name: value_of(1), b"z": None}.items()), nodes)


def test_sums_that_do_not_fit_are_refused() -> None:
    """Sizes that add up to more than 64 bits are an error, not another encoding."""
    huge = (1, b"i" * 32, (1 << 64) - 1)
    names = sorted(crafted((0,), (), 300))[:70]
    with pytest.raises(Invalid, match="64 bits"):
        build(DIRECTORY, [(b"a", huge), (b"b", huge)], DictNodes())
    nodes = DictNodes()
    root = build(DIRECTORY, [(name, value_of(1)) for name in names], nodes).root
    for many in (names[:1], names[:2]):
        edits = [(name, (1, b"i" * 32, (1 << 64) - 1)) for name in many]
        with pytest.raises(Invalid, match="64 bits"):
            apply(DIRECTORY, root, edits, nodes)


def test_a_node_with_unknown_extras_is_not_rewritten() -> None:
    """What a newer version put into a node is never dropped by an older one."""
    nodes = DictNodes()
    plain = encode_node(0, [b"a", b"b"], b"\1\1", b"i" * 64, [1, 2])
    data = plain.data[:-1] + b"\xa1\x65mtime\x01"
    node = decode_node(data, DIRECTORY.kind)
    root = nodes.save(node)
    for edits in (
        [(b"a", value_of(1))],
        [(b"c", value_of(1))],
        [(b"a", None), (b"c", value_of(1))],
    ):
        with pytest.raises(NewerFormat, match="mtime"):
            apply(DIRECTORY, root, edits, nodes)


@pytest.mark.parametrize("count", [1023, 1024, 1025, 1030, 1100, 2048, 3000])
@pytest.mark.parametrize("step", [1, 3])
def test_a_stream_is_cut_like_a_list(count: int, step: int) -> None:
    """Where `build` happens to cut its input into batches leaves no trace."""
    content = {b"item-%05d" % (at * step): value_of(at) for at in range(count)}
    nodes = DictNodes()
    root, expected = oracle(content)
    assert build(DIRECTORY, iter(items(content)), nodes).root == root
    assert nodes.data == expected
    assert len(nodes.saved) == len(expected)


def test_build_needs_little_memory() -> None:
    """A stream of entries is built with memory for a batch a level, not for the tree."""
    saved = 0

    class Forget:
        def load(self, node_id: bytes) -> object:
            raise AssertionError

        def save(self, node: object) -> bytes:
            nonlocal saved
            saved += 1
            return b"%032d" % saved

    entries = ((b"item-%06d" % at, (1, b"i" * 32, at)) for at in range(40_000))
    tracemalloc.start()
    try:
        tree = build(DIRECTORY, entries, Forget())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tree.entries == 40_000
    assert peak < 2 << 20
