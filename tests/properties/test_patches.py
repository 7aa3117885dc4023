"""Patches: what an edit says of a node, and what a reader makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptObject
from cas.model.patch import PATCH_HEAD, apply_patch, is_patch, put_piece
from cas.trees.edit import apply
from cas.trees.node import DIRECTORY, Edit, Node, encode_node, id_of
from cas.trees.splice import replace_value, replace_values

# Around 23 bytes the head of a name grows; around 24 and 256 entries that of an array.
names = st.one_of(
    st.integers(0, 400).map(lambda number: b"item-%07d" % number),
    st.integers(0, 60).map(lambda number: b"a-much-longer-name-of-24-%03d" % number),
    st.binary(min_size=1, max_size=30).filter(lambda n: b"/" not in n and b"\0" not in n),
).filter(lambda name: name not in (b".", b".."))
values = st.tuples(
    st.sampled_from([1, 2, 3]), st.binary(min_size=32, max_size=32), st.integers(0, 1 << 40)
)
edits = st.dictionaries(names, st.one_of(st.none(), values), min_size=1, max_size=4)


class Nodes:
    """Keeps every node by id, and each patch that an edit has left on one."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Node] = {}
        self.patches: list[tuple[Node, bytes, bytes]] = []

    def load(self, node_id: bytes) -> Node:
        return self.kept[node_id]

    def save(self, node: Node) -> bytes:
        id = id_of(DIRECTORY, node)
        if node.made is not None:
            self.patches.append((node, *node.made))
            node.made = None
        self.kept.setdefault(id, node)
        return id


@given(
    st.dictionaries(names, values, max_size=300),
    st.lists(edits, min_size=1, max_size=12),
)
def test_the_patch_of_a_node_gives_its_bytes(
    start: dict[bytes, tuple[int, bytes, int]], steps: list[dict[bytes, tuple[int, bytes, int]]]
) -> None:
    """Whatever was edited: a node that says what it was made from is exactly that."""
    nodes = Nodes()
    root = apply(DIRECTORY, DIRECTORY.empty, sorted(start.items()), nodes).root
    for step in steps:
        wanted: list[Edit] = sorted(step.items())
        root = apply(DIRECTORY, root, wanted, nodes).root
    for node, base, patch in nodes.patches:
        assert is_patch(patch)
        assert apply_patch(patch, nodes.kept[base].data, len(node.data)) == node.data


@given(
    st.dictionaries(names, values, min_size=1, max_size=300),
    st.integers(0, 2),
    st.integers(0, 299),
    st.tuples(st.integers(1, 3), st.binary(min_size=32, max_size=32), st.integers(0, 1 << 40)),
    st.booleans(),
    st.booleans(),
)
def test_one_value_is_spliced_as_many_are(
    entries: dict[bytes, tuple[int, bytes, int]],
    level: int,
    index: int,
    value: tuple[int, bytes, int],
    same_tag: bool,
    same_number: bool,
) -> None:
    """What is made for one position is what the general way and an encoding anew give: columns,
    bytes and patch.
    """
    listed = sorted(entries.items())
    tags = [tag for _name, (tag, _id, _number) in listed]
    ids = b"".join([id for _name, (_tag, id, _number) in listed])
    numbers = [number for _name, (_tag, _id, number) in listed]
    kept = tags if level else bytes(tags)
    node = encode_node(level, [name for name, _value in listed], kept, ids, numbers)
    id_of(DIRECTORY, node)
    at = index % len(listed)
    tag, child, number = value
    change = (tags[at] if same_tag else tag, child, numbers[at] if same_number else number)
    one, many = replace_value(node, at, change), replace_values(node, ((at, change),))
    tags[at], numbers[at] = change[0], change[2]
    ids = ids[: 32 * at] + child + ids[32 * at + 32 :]
    anew = encode_node(level, node.names, tags if level else bytes(tags), ids, numbers)
    for made in (one, many):
        assert made.data == anew.data
        assert (list(made.tags), made.ids, made.numbers) == (list(anew.tags), ids, numbers)
        assert (made.tags_at, made.ids_at) == (anew.tags_at, anew.ids_at)
        assert made.made is not None
        assert made.made[0] == node.id
        assert apply_patch(made.made[1], node.data, len(made.data)) == made.data
    assert one.made == many.made


def test_small_edits_leave_patches() -> None:
    """A value that changes, a name that comes and one that goes each leave a patch on a node and
    on those above it, much shorter than what it gives.
    """
    nodes = Nodes()
    start = [(b"item-%07d" % number, (1, bytes(32), 1000)) for number in range(1000)]
    root = apply(DIRECTORY, DIRECTORY.empty, start, nodes).root
    assert not nodes.patches
    for edit in (
        (b"item-0000500", (1, b"\1" * 32, 1000)),
        (b"item-0000500", (1, b"\2" * 32, 70_000)),
        (b"item-0000500-new", (1, b"\3" * 32, 5)),
        (b"item-0000500-new", None),
    ):
        nodes.patches.clear()
        root = apply(DIRECTORY, root, [edit], nodes).root
        assert len(nodes.patches) >= 2
        for node, _base, patch in nodes.patches:
            assert len(patch) < len(node.data) // 2


def test_many_edits_at_once_leave_patches() -> None:
    """Names that come behind all others, and changes that lie scattered, leave a patch on each
    node that keeps most of what it had, much shorter than what it gives.
    """
    nodes = Nodes()
    start = [(b"item-%07d" % number, (1, bytes(32), 1000)) for number in range(1000)]
    root = apply(DIRECTORY, DIRECTORY.empty, start, nodes).root
    behind: list[Edit] = [(b"item-%07d" % n, (1, b"\1" * 32, 5)) for n in range(1000, 1010)]
    scattered: list[Edit] = [
        edit
        for number in range(5, 1000, 97)
        for edit in (
            (b"item-%07d" % number, None),
            (b"item-%07d-new" % number, (1, b"\2" * 32, 70_000)),
        )
    ]
    for edits, least in ((behind, 2), (scattered, 8)):
        nodes.patches.clear()
        root = apply(DIRECTORY, root, edits, nodes).root
        short = [len(patch) * 2 < len(node.data) for node, _base, patch in nodes.patches]
        assert sum(short) >= least
        for node, base, patch in nodes.patches:
            assert apply_patch(patch, nodes.kept[base].data, len(node.data)) == node.data


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 300))
def test_no_patch_gives_another_length(patch: bytes, base: bytes, size: int) -> None:
    """Bytes of any kind are refused, or give as many bytes as the record says."""
    try:
        content = apply_patch(PATCH_HEAD + patch, base, size)
    except CorruptObject:
        return
    assert len(content) == size


@pytest.mark.parametrize(
    "patch",
    [
        put_piece(0, 4, 0) + b"\0",
        put_piece(0, 5, 0),
        put_piece(1, 4, 0),
        put_piece(0xFFFFFFFF, 0xFFFFFFFF, 0),
        put_piece(0, 0, 5) + b"1234",
        put_piece(0, 3, 0),
        put_piece(0, 4, 1) + b"x",
        put_piece(0, 4, 0)[:-1],
        put_piece(0, 4, 0) * 2,
    ],
)
def test_pieces_that_lie_are_refused(patch: bytes) -> None:
    """What reaches outside the base, past the end, or beyond the stated length is damage."""
    assert apply_patch(PATCH_HEAD + put_piece(0, 4, 0), b"base", 4) == b"base"
    with pytest.raises(CorruptObject):
        apply_patch(PATCH_HEAD + patch, b"base", 4)


def test_a_node_that_was_never_named_leaves_no_patch() -> None:
    """A patch of what has no id could not say of what it is one."""
    node = encode_node(0, [b"a"], b"\1", bytes(32), [1])
    assert replace_values(node, [(0, (1, b"\1" * 32, 2))]).made is None
