"""Nodes in memory: decoded or as bytes, within one bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cas.model.ids import Kind
from cas.objects.nodes import NodeCache, TreeNodes
from cas.trees.node import DIRECTORY, Node, encode_node, id_of


def node_of(number: int, entries: int) -> Node:
    """A leaf, different for each number, with its id."""
    names = [b"%05d-%03d" % (number, at) for at in range(entries)]
    node = encode_node(0, names, b"\1" * entries, bytes(32) * entries, list(range(entries)))
    id_of(DIRECTORY, node)
    return node


NODES = [node_of(number, 1 + number % 9) for number in range(30)]
STEPS = st.lists(
    st.tuples(st.sampled_from(["node", "bytes", "get", "find", "data"]), st.integers(0, 29)),
    max_size=60,
)


@given(STEPS, st.integers(0, 12_000), st.integers(0, 4_000))
def test_a_cache_gives_nodes_and_stays_within_its_bounds(
    steps: list[tuple[str, int]], bytes_max: int, kept_max: int
) -> None:
    """However nodes came in, each is given whole, as a node where one is asked for; and what is
    kept decoded, or as bytes, weighs no more than the bound of each, but for a single one.
    """
    cache = NodeCache(bytes_max, kept_max)
    for what, number in steps:
        node = NODES[number]
        if what == "node":
            cache.put(node.id, node)
        elif what == "bytes":
            cache.put(node.id, node.data)
        elif what == "get":
            got = cache.get(node.id)
            assert got is None or (got.data, got.id, got.names) == (node.data, node.id, node.names)
            assert got is None or isinstance(cache.find(node.id), Node)
        elif what == "find":
            found = cache.find(node.id)
            assert found is None or node.data == (found if isinstance(found, bytes) else found.data)
        else:
            assert cache.data_of(node.id) in (None, node.data)
        kept = [each for node in NODES if (each := cache.find(node.id)) is not None]
        decoded = [each.weight_bytes for each in kept if isinstance(each, Node)]
        undecoded = [len(each) + 250 for each in kept if isinstance(each, bytes)]
        assert sum(decoded) <= bytes_max or len(decoded) == 1
        assert sum(undecoded) <= kept_max or len(undecoded) == 1
        assert cache.has_room == (2 * sum(decoded) < bytes_max)


def test_bytes_take_a_part_of_the_room_of_nodes() -> None:
    """Of leaves as a collection has them at least three times as many have room undecoded."""
    leaves = [node_of(number, 32) for number in range(400)]
    counts = []
    for form in (list(leaves), [each.data for each in leaves]):
        cache = NodeCache(200_000, 200_000)
        for leaf, each in zip(leaves, form, strict=True):
            cache.put(leaf.id, each)
        counts.append(sum(cache.find(leaf.id) is not None for leaf in leaves))
    assert counts[1] >= 3 * counts[0]


def test_peeking_decodes_while_there_is_room() -> None:
    """A look at a node keeps it decoded in a cache with room, as its bytes in one that is half
    full; loading it decodes it in either.
    """
    contents = {node.id: node.data for node in NODES}
    cache = NodeCache(6_000, 6_000)
    nodes = TreeNodes(cache, lambda _batch, id: (int(Kind.TREE), contents[id]), DIRECTORY)
    first = nodes.peek(NODES[8].id)
    assert isinstance(first, Node)
    for node in NODES[9:18]:
        nodes.load(node.id)
    assert not cache.has_room
    seen = nodes.peek(NODES[20].id)
    assert seen == NODES[20].data == nodes.peek(NODES[20].id)
    loaded = nodes.load(NODES[20].id)
    assert loaded.names == NODES[20].names
    assert nodes.peek(NODES[20].id) is loaded


def test_what_was_passed_by_goes_first() -> None:
    """A demoted node is given as before, and makes room before any other."""
    nodes = NODES[:6]
    cache = NodeCache(sum(node.weight_bytes for node in nodes))
    for node in nodes:
        cache.put(node.id, node)
    cache.demote([nodes[5].id, b"another", nodes[4].id])
    assert cache.get(nodes[5].id) is nodes[5]
    cache.put(NODES[7].id, NODES[7])
    assert cache.find(nodes[4].id) is None
    assert cache.find(nodes[5].id) is nodes[5]
