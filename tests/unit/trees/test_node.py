"""A node's bytes are canonical however they came about, and nothing else is taken for a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import NotCanonical
from cas.limits import TREE_LEVELS_MAX
from cas.model.encoding import encode
from cas.model.ids import Kind
from cas.trees import boundary
from cas.trees.node import (
    DIRECTORY,
    EMPTY_DATA,
    REFS,
    Flavour,
    Node,
    check_child,
    decode_node,
    encode_node,
    load_child,
    load_root,
)
from cas.trees.splice import replace_entries, replace_values
from tests.unit.trees.support import (
    DictNodes,
    crafted,
    long_names,
    oracle,
    oracle_hit,
    oracle_level,
    pool,
    value_of,
)

NAMES = st.sets(
    st.binary(min_size=1, max_size=40).filter(
        lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
    ),
    min_size=1,
    max_size=64,
)
NUMBERS = st.one_of(
    st.integers(0, 300), st.integers(0, 1 << 33), st.sampled_from([(1 << 58) - 1, 1 << 57])
)


def fields_of(node: Node) -> list[Any]:
    """The columns of a node, as they are encoded."""
    return [node.level, node.names, node.tags, node.ids, node.numbers, node.extras]


@st.composite
def any_node(draw: st.DrawFn) -> Node:
    """A leaf or an inner node of a directory, half of the time as if it had just been read."""
    names = sorted(draw(NAMES))
    level = draw(st.sampled_from([0, 0, 1, 23, 24]))
    numbers = draw(st.lists(NUMBERS, min_size=len(names), max_size=len(names)))
    ids = b"".join(value_of(at)[1] for at in range(len(names)))
    tags: Any = (
        draw(st.lists(NUMBERS.map(lambda n: n + 1), min_size=len(names), max_size=len(names)))
        if level
        else bytes(at % 4 + 1 for at in range(len(names)))
    )
    node = encode_node(level, names, tags, ids, numbers)
    return decode_node(node.data, Kind.TREE) if draw(st.booleans()) else node


@given(any_node(), st.data())
def test_a_splice_gives_the_canonical_bytes(node: Node, data: st.DataObject) -> None:
    """Putting values into kept bytes gives exactly what encoding the columns anew gives."""
    for _ in range(data.draw(st.integers(1, 4))):
        chosen = data.draw(st.sets(st.integers(0, len(node) - 1), min_size=1, max_size=5))
        changes = []
        for at in sorted(chosen):
            tag, child, number = node.value(at)
            if data.draw(st.booleans()):
                tag = data.draw(NUMBERS) + 1 if node.level else tag % 4 + 1
            if data.draw(st.booleans()):
                number = data.draw(NUMBERS)
            changes.append((at, (tag, value_of(at + 77)[1] if at % 2 else child, number)))
        old, node = node, replace_values(node, changes)
        columns = [[old.tags[at], old.child_id(at), old.numbers[at]] for at in range(len(old))]
        for at, value in changes:
            columns[at] = list(value)
        tags = [row[0] for row in columns]
        assert fields_of(node) == [
            old.level,
            old.names,
            tags if old.level else bytes(tags),
            b"".join(row[1] for row in columns),
            [row[2] for row in columns],
            {},
        ]
        assert node.data == encode(fields_of(node))
        node = decode_node(node.data, Kind.TREE) if data.draw(st.booleans()) else node


@given(any_node(), st.data())
def test_a_changed_entry_gives_the_canonical_bytes(node: Node, data: st.DataObject) -> None:
    """Adding, replacing and removing an entry encodes like the columns, and spares the old node."""
    kept = node.data
    at = data.draw(st.integers(0, len(node)))
    stop = data.draw(st.integers(at, min(at + 1, len(node))))
    name = node.names[at - 1] + b"+" if at else b"\x01"
    if at < len(node) and name >= node.names[at]:
        stop = at + 1
    added = replace_entries(node, at, stop, (name,), (2,), b"i" * 32, (7,))
    assert added.names == [*node.names[:at], name, *node.names[stop:]]
    assert added.value(at) == (2, b"i" * 32, 7)
    assert added.data == encode(fields_of(added))
    if len(node) > 1:
        at = min(at, len(node) - 1)
        removed = replace_entries(node, at, at + 1, (), (), b"", ())
        assert removed.names == [*node.names[:at], *node.names[at + 1 :]]
        assert removed.data == encode(fields_of(removed))
    assert node.data == kept == encode(fields_of(node))


@given(any_node())
def test_decoding_gives_the_columns_back(node: Node) -> None:
    """Encoding and decoding, trusted or not, are inverse."""
    for verified in (False, True):
        again = decode_node(node.data, Kind.TREE, verified=verified)
        assert fields_of(again) == fields_of(node)
        assert again.data == node.data


@given(any_node(), st.data())
def test_damage_is_refused_or_is_another_node(node: Node, data: st.DataObject) -> None:
    """A changed byte gives an error, or a node whose canonical encoding those bytes are."""
    raw = bytearray(node.data)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode_node(bytes(raw), Kind.TREE)
    except NotCanonical:
        return
    assert encode(fields_of(again)) == bytes(raw)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    """Random bytes raise `NotCanonical` and nothing else."""
    with pytest.raises(NotCanonical):
        decode_node(noise + b"\x00", Kind.TREE)


LEAF: list[Any] = [0, [b"a", b"b"], b"\1\2", b"i" * 64, [5, 6], {}]
INNER: list[Any] = [1, [b"a", b"b"], [3, 4], b"i" * 64, [5, 6], {}]


def put(base: list[Any], **changes: Any) -> list[Any]:
    """A list of fields with some of them changed."""
    order = ("level", "names", "tags", "ids", "numbers", "extras")
    return [changes.get(key, value) for key, value in zip(order, base, strict=True)]


def wide(names: list[bytes], level: int = 0) -> list[Any]:
    """Fields of a node with these names and nothing else of interest."""
    count = len(names)
    return [
        level,
        names,
        [1] * count if level else b"\1" * count,
        b"i" * 32 * count,
        [1] * count,
        {},
    ]


REFUSED: dict[str, Callable[[], Any]] = {
    "no array": lambda: {"a": 1},
    "five fields": lambda: LEAF[:5],
    "seven fields": lambda: [*LEAF, {}],
    "a negative level": lambda: put(LEAF, level=-1),
    "a level that is true": lambda: put(INNER, level=True),
    "a level too high": lambda: put(INNER, level=TREE_LEVELS_MAX + 1),
    "a level of text": lambda: put(LEAF, level="0"),
    "names that are no array": lambda: put(LEAF, names=b"ab"),
    "a name of text": lambda: put(LEAF, names=["a", b"b"]),
    "names out of order": lambda: put(LEAF, names=[b"b", b"a"]),
    "a name twice": lambda: put(LEAF, names=[b"a", b"a"]),
    "an empty name": lambda: put(LEAF, names=[b"", b"a"]),
    "a name with a slash": lambda: put(LEAF, names=[b"a", b"b/c"]),
    "a name with NUL": lambda: put(LEAF, names=[b"a", b"b\0"]),
    "the name .": lambda: put(LEAF, names=[b".", b"b"]),
    "the name ..": lambda: put(LEAF, names=[b"..", b"b"]),
    "a name of 256 bytes": lambda: put(LEAF, names=[b"a", b"b" * 256]),
    "a name less": lambda: put(LEAF, names=[b"a"]),
    "a tag less": lambda: put(LEAF, tags=b"\1"),
    "a tag more": lambda: put(LEAF, tags=b"\1\1\1"),
    "tag 0": lambda: put(LEAF, tags=b"\1\0"),
    "tag 5": lambda: put(LEAF, tags=b"\1\5"),
    "tags of a leaf as an array": lambda: put(LEAF, tags=[1, 2]),
    "counts as bytes": lambda: put(INNER, tags=b"\1\2"),
    "a count of 0": lambda: put(INNER, tags=[0, 4]),
    "a count that is true": lambda: put(INNER, tags=[True, 4]),
    "counts beyond 64 bits": lambda: put(INNER, tags=[(1 << 64) - 1, 1]),
    "half an id": lambda: put(LEAF, ids=b"i" * 48),
    "an id less": lambda: put(LEAF, ids=b"i" * 32),
    "an id more": lambda: put(LEAF, ids=b"i" * 96),
    "ids as an array": lambda: put(LEAF, ids=[b"i" * 32, b"i" * 32]),
    "a number less": lambda: put(LEAF, numbers=[5]),
    "a negative number": lambda: put(LEAF, numbers=[5, -6]),
    "a number of null": lambda: put(LEAF, numbers=[5, None]),
    "a number that is true": lambda: put(LEAF, numbers=[5, True]),
    "sizes beyond 64 bits": lambda: put(LEAF, numbers=[(1 << 64) - 1, 1]),
    "extras that are null": lambda: put(LEAF, extras=None),
    "extras that are an array": lambda: put(LEAF, extras=[]),
    "an inner node without children": lambda: [1, [], [], b"", [], {}],
    "257 entries": lambda: wide(silent(257)),
    "more than 32 KiB of names": lambda: wide(sorted(long_names(400))[:130]),
    "a node that goes on behind an end": lambda: wide(sorted([*silent(66), ending_inside()])),
}


def silent(count: int) -> list[bytes]:
    """Names without a hit on either of the lowest levels."""
    return sorted(crafted((), (0, 1), 600))[:count]


def ending_inside() -> bytes:
    """A name that ends a leaf and stands between silent ones."""
    names = silent(66)
    return next(n for n in crafted((0,), (), 300) if names[0] < n < names[-1])


@pytest.mark.parametrize("case", REFUSED)
def test_a_node_that_breaks_a_rule_is_refused(case: str) -> None:
    """Each rule that one node can break alone has its refusal."""
    with pytest.raises(NotCanonical):
        decode_node(encode(REFUSED[case]()), Kind.TREE)


@pytest.mark.parametrize("fields", [LEAF, INNER], ids=["leaf", "inner"])
def test_the_nodes_that_the_refused_ones_differ_from_are_fine(fields: list[Any]) -> None:
    """The cases above are refused for what they change, not for what they share."""
    assert fields_of(decode_node(encode(fields), Kind.TREE)) == fields
    for names in (silent(256), sorted(long_names(400))[:129]):
        assert len(decode_node(encode(wide(names)), Kind.TREE)) == len(names)


@pytest.mark.parametrize(
    "data",
    [
        EMPTY_DATA + b"\x00",
        EMPTY_DATA[:-1],
        EMPTY_DATA[:-1] + b"\xbf\xff",
        b"\x86\x18\x00" + EMPTY_DATA[2:],
        b"\xd9\xd9\xf7" + EMPTY_DATA,
        b"\x9f" + EMPTY_DATA[1:] + b"\xff",
        b"",
    ],
)
def test_other_encodings_of_a_node_are_refused(data: bytes) -> None:
    """Bytes behind, bytes missing, long heads, tags, indefinite lengths: one encoding only."""
    with pytest.raises(NotCanonical):
        decode_node(data, Kind.TREE)


def test_the_refs_tree_has_its_own_tags_names_and_kind() -> None:
    """Refs nodes hold commits and tags under names with slashes, and another hash context."""
    fields = [0, [b"heads/main", b"tags/v1"], b"\3\4", b"i" * 64, [5, 6], {}]
    node = decode_node(encode(fields), Kind.REFS)
    assert node.names == fields[1]
    with pytest.raises(NotCanonical):
        decode_node(encode(fields), Kind.TREE)
    with pytest.raises(NotCanonical):
        decode_node(encode(put(fields, tags=b"\1\2")), Kind.REFS)
    with pytest.raises(NotCanonical):
        decode_node(encode(put(fields, names=[b"a" * 256, b"b"])), Kind.REFS)
    assert DIRECTORY.empty == oracle({})[0]
    assert REFS.empty == oracle({}, 6)[0]
    assert DIRECTORY.empty != REFS.empty
    assert REFS.fold([3, 9, 2]) == 9
    assert DIRECTORY.fold([3, 9, 2]) == 14
    assert REFS.fold([]) == DIRECTORY.fold([]) == 0


def test_extras_are_kept_when_read() -> None:
    """What a newer version added is still there after reading, and in the bytes."""
    data = encode(put(LEAF, extras={"mtime": [1, 2]}))
    node = decode_node(data, Kind.TREE)
    assert node.extras == {"mtime": [1, 2]}
    assert node.data == data


# -- what a node says of others ------------------------------------------------------------------

CHILD = encode_node(0, [b"a", b"b"], b"\1\1", b"i" * 64, [5, 6])


@pytest.mark.parametrize(
    ("flavour", "level", "names", "counts", "numbers", "fine"),
    [
        (DIRECTORY, 1, [b"b", b"c"], [2, 1], [11, 1], True),
        (REFS, 1, [b"b", b"c"], [2, 1], [6, 1], True),
        (DIRECTORY, 2, [b"b", b"c"], [2, 1], [11, 1], False),
        (DIRECTORY, 1, [b"bb", b"c"], [2, 1], [11, 1], False),
        (DIRECTORY, 1, [b"b", b"c"], [3, 1], [11, 1], False),
        (DIRECTORY, 1, [b"b", b"c"], [2, 1], [12, 1], False),
        (REFS, 1, [b"b", b"c"], [2, 1], [11, 1], False),
    ],
)
def test_a_false_statement_about_a_child_is_found(
    flavour: Flavour,
    level: int,
    names: list[bytes],
    counts: list[int],
    numbers: list[int],
    fine: bool,
) -> None:
    """Level, last name, count and number of a child are compared with the child."""
    node = encode_node(level, names, counts, b"i" * 64, numbers)
    if fine:
        check_child(flavour, node, 0, CHILD)
    else:
        with pytest.raises(NotCanonical):
            check_child(flavour, node, 0, CHILD)


def test_overlapping_children_are_found() -> None:
    """A child that begins before its left neighbour ends is no child there."""
    node = encode_node(1, [b"a", b"b"], [1, 2], b"i" * 64, [1, 11])
    with pytest.raises(NotCanonical):
        check_child(DIRECTORY, node, 1, CHILD)


def test_walking_down_checks_level_and_last_name() -> None:
    """A foreign node in the place of a child is met with an error, not with wrong entries."""
    nodes = DictNodes()
    child = nodes.save(CHILD)
    other = nodes.save(encode_node(0, [b"a"], b"\1", b"i" * 32, [5]))
    for level, name, target in ((2, b"b", child), (1, b"c", child), (1, b"b", other)):
        node = encode_node(level, [name], [2], target, [11])
        with pytest.raises(NotCanonical):
            load_child(node, 0, nodes)
    assert load_child(encode_node(1, [b"b"], [2], child, [11]), 0, nodes).names == [b"a", b"b"]


def test_a_root_of_more_than_64_entries_is_refused() -> None:
    """A node from the middle of a tree cannot be passed off as a directory."""
    nodes = DictNodes()
    node = decode_node(encode(wide(silent(65))), Kind.TREE)
    root = nodes.save(node)
    with pytest.raises(NotCanonical, match="64"):
        load_root(DIRECTORY, root, nodes)


# -- the shape policy ----------------------------------------------------------------------------


@given(
    st.sampled_from([0, 1, 2, 32]),
    st.sampled_from(["any", "long", "each name ends a leaf", "no name ends anything"]),
    st.integers(0, 500),
    st.integers(65, 500),
)
def test_ends_are_those_of_the_format(level: int, kind: str, start: int, count: int) -> None:
    """The ends found equal those of the rule read word by word, with and without suspects."""
    names = list(pool(kind)[start : start + count])
    groups = oracle_level(level, names) if len(names) > 64 else []
    stops = [group[-1] + 1 for group in groups]
    found = boundary.ends(level, names)
    if len(names) > 64:
        assert found in (stops, stops[:-1])
        last = groups[-1]
        closed = oracle_hit(level, names[last[-1]]) and not (level and len(last) == 1)
        if closed:
            assert found == stops
    suspects = [at for at, name in enumerate(names) if oracle_hit(level, name)]
    assert boundary.ends(level, names, suspects) == found


def test_one_name_in_32_is_a_hit_and_levels_are_independent() -> None:
    """The hash spreads numbered names evenly, and differently on each level."""
    names = [b"file-%06d.txt" % at for at in range(32_000)]
    first, second = (boundary.hits(level, names) for level in (0, 1))
    assert 900 < sum(first) < 1100
    assert 900 < sum(second) < 1100
    assert sum(map(all, zip(first, second, strict=True))) < 60
    assert first[:500] == [oracle_hit(0, name) for name in names[:500]]
    assert first[:500] == [boundary.is_hit(0, name) for name in names[:500]]
