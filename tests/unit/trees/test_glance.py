"""Looking for one name in the bytes of a leaf: what is found is what the decoded leaf has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import NotCanonical
from cas.trees.build import build
from cas.trees.cursor import find, get
from cas.trees.glance import UNKNOWN, glance
from cas.trees.node import DIRECTORY, Node, encode_node
from tests.unit.trees.support import DictNodes, items, value_of

# Bytes that heads are made of, so that names look like what stands between them.
BYTES = st.sampled_from([1, 0x41, 0x42, 0x43, 0x58, 0x18, 0x19, 0x1A, 0x61])
EVEN = st.integers(1, 30).flatmap(
    lambda size: st.sets(
        st.lists(BYTES, min_size=size, max_size=size).map(bytes), min_size=1, max_size=12
    )
)
MIXED = st.sets(st.lists(BYTES, min_size=1, max_size=6).map(bytes), min_size=1, max_size=12)


def leaf_of(names: set[bytes]) -> Node:
    """A leaf of these names."""
    ordered = sorted(names)
    values = [value_of(at, 1 + at % 3) for at in range(len(ordered))]
    return encode_node(
        0,
        ordered,
        bytes(value[0] for value in values),
        b"".join(value[1] for value in values),
        [value[2] for value in values],
    )


@given(EVEN | MIXED, EVEN | MIXED)
def test_a_glance_gives_what_the_leaf_has(names: set[bytes], others: set[bytes]) -> None:
    """Names of one length are found, and those that are not there are not; of others it may be
    unknown, and is never wrong.
    """
    leaf = leaf_of(names)
    for name in names | others:
        seen = glance(leaf.data, name, leaf.names[-1])
        if len(set(map(len, names))) == 1:
            assert seen is not UNKNOWN
        if seen is not UNKNOWN:
            expected = leaf.value(leaf.names.index(name))[:2] if name in names else None
            assert seen == expected


@pytest.mark.parametrize("count", [1, 23, 24, 255, 256])
@pytest.mark.parametrize("size", [3, 23, 24, 255])
def test_heads_of_every_length(count: int, size: int) -> None:
    """Few and many names, short and long ones: up to what two bytes of head say."""
    names = {b"%03d" % at + b"x" * (size - 3) for at in range(count)}
    leaf = leaf_of(names)
    for at in {0, count // 2, count - 1}:
        seen = glance(leaf.data, leaf.names[at], leaf.names[-1])
        assert seen == (leaf.value(at)[:2] if count < 256 else UNKNOWN)


def test_what_is_no_such_leaf_is_unknown() -> None:
    """Inner nodes, the empty leaf, another last name than is stated, and bytes of another kind."""
    leaf = leaf_of({b"aa", b"bb"})
    inner = encode_node(1, leaf.names, [1, 1], leaf.ids, leaf.numbers)
    assert glance(inner.data, b"aa", b"bb") is UNKNOWN
    assert glance(leaf.data, b"aa", b"bc") is UNKNOWN
    assert glance(leaf_of(set()).data, b"aa", b"") is UNKNOWN
    assert glance(b"", b"aa", b"bb") is glance(b"\x86\x00\x82", b"aa", b"bb") is UNKNOWN
    assert glance(leaf.data[:-70], b"aa", b"bb") is UNKNOWN


class Kept(DictNodes):
    """A node store that never decodes what it is asked to show."""

    def peek(self, node_id: bytes) -> bytes:
        return self.data[node_id]


@given(st.sets(st.binary(min_size=1, max_size=3).map(bytes.hex), max_size=200), st.booleans())
def test_finding_a_name_is_getting_it(texts: set[str], even: bool) -> None:
    """`find` gives kind and id as `get` does, whether a leaf is read from its bytes or not."""
    content = {text.rjust(6 * even, "_").encode(): value_of(at) for at, text in enumerate(texts)}
    nodes = Kept()
    root = build(DIRECTORY, items(content), nodes).root
    for name in (*content, b"", b"0", b"zz", b"______"):
        value = get(DIRECTORY, root, name, nodes)
        assert find(DIRECTORY, root, name, nodes) == (None if value is None else value[:2])


def test_a_leaf_in_the_wrong_place_is_refused() -> None:
    """A child that has not the last name that is stated of it is damage, read from bytes too."""
    content = {b"%06d" % at: value_of(at) for at in range(400)}
    nodes = Kept()
    root = build(DIRECTORY, items(content), nodes).root
    top = nodes.load(root)
    nodes.data[top.child_id(0)] = nodes.data[top.child_id(1)]
    with pytest.raises(NotCanonical):
        find(DIRECTORY, root, top.names[0], nodes)
