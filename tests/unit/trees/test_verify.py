"""A tree from elsewhere is believed only when it is the one its entries ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cas.errors import NewerFormat, NotCanonical
from cas.trees.build import build
from cas.trees.node import DIRECTORY, REFS, Node, decode_node, encode_node
from cas.trees.verify import verify
from tests.unit.trees.support import POOLS, DictNodes, items, pool, value_of

KINDS = [*POOLS, "long", "any"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 64, 65, 300])
def test_what_was_built_is_believed(kind: str, count: int) -> None:
    """Every tree that `build` makes passes, of either flavour."""
    for flavour, tag in ((DIRECTORY, 1), (REFS, 3)):
        nodes = DictNodes(flavour)
        entries = {name: value_of(at, tag) for at, name in enumerate(pool(kind)[:count])}
        verify(flavour, build(flavour, items(entries), nodes).root, nodes)


def inner(nodes: DictNodes, children: list[Node], level: int = 1) -> Node:
    """A node over others that says the truth about them."""
    return encode_node(
        level,
        [child.names[-1] for child in children],
        [child.count for child in children],
        b"".join(nodes.save(child) for child in children),
        [sum(child.numbers) for child in children],
    )


def leaf(names: list[bytes], tag: int = 1) -> Node:
    """A leaf with these names."""
    values = [value_of(at) for at in range(len(names))]
    ids = b"".join(value[1] for value in values)
    return encode_node(0, names, bytes([tag]) * len(names), ids, [value[2] for value in values])


SILENT = list(pool("no name ends anything"))


def count_off(nodes: DictNodes) -> Node:
    """An inner root that counts one entry too many."""
    good = inner(nodes, [leaf(SILENT[:100])])
    return encode_node(1, good.names, [101], good.ids, good.numbers)


def number_off(nodes: DictNodes) -> Node:
    """An inner root with a false size."""
    good = inner(nodes, [leaf(SILENT[:100])])
    return encode_node(1, good.names, good.tags, good.ids, [good.numbers[0] + 1])


FALSE: dict[str, Callable[[DictNodes], Node]] = {
    "a leaf ends without a reason": lambda n: inner(n, [leaf(SILENT[:50]), leaf(SILENT[50:100])]),
    "a small directory in two nodes": lambda n: inner(n, [leaf(SILENT[:5]), leaf(SILENT[5:9])]),
    "an inner node over a single leaf": lambda n: inner(n, [leaf(SILENT[:5])]),
    "a level too many": lambda n: inner(n, [inner(n, [leaf(SILENT[:100])])], 2),
    "leaves that overlap": lambda n: inner(n, [leaf(SILENT[:256]), leaf(SILENT[200:300])]),
    "a leaf with an unknown tag": lambda _: leaf(SILENT[:5], 9),
    "a root of 65 entries": lambda _: leaf(SILENT[:65]),
    "a false count": count_off,
    "a false size": number_off,
}


@pytest.mark.parametrize("case", FALSE)
def test_what_no_build_gives_is_refused(case: str) -> None:
    """Other ends, levels, counts or sizes than the rule gives are found, and the tree is named."""
    nodes = DictNodes()
    root = nodes.save(FALSE[case](nodes))
    with pytest.raises(NotCanonical) as caught:
        verify(DIRECTORY, root, nodes)
    assert caught.value.id == root


def test_extras_cannot_be_judged() -> None:
    """A tree with extras of a newer version is neither believed nor called broken."""
    nodes = DictNodes()
    data = leaf(SILENT[:5]).data[:-1] + b"\xa1\x65mtime\x01"
    with pytest.raises(NewerFormat):
        verify(DIRECTORY, nodes.save(decode_node(data, DIRECTORY.kind)), nodes)
