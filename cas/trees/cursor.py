"""Reading one tree: one entry by name or position, a range of entries, all nodes.

Floor 2; implements reading for docs/format.md section 5.1. Invariant: a look-up loads one node
a level; a scan loads the nodes that its range touches, each once, when it gets there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Protocol

from cas.limits import ID_BYTES
from cas.trees.glance import UNKNOWN, glance
from cas.trees.node import Flavour, Item, Node, NodeStore, Value, load_child, load_root


def get(flavour: Flavour, root: bytes, name: bytes, nodes: NodeStore) -> Value | None:
    """The value of `name`, or None."""
    node = load_root(flavour, root, nodes)
    index = bisect_left(node.names, name)
    while node.level:
        if index == len(node.names):
            return None
        node = load_child(node, index, nodes)
        index = bisect_left(node.names, name)
    if index < len(node.names) and node.names[index] == name:
        return node.value(index)
    return None


class Peeking(NodeStore, Protocol):
    """A node store that keeps some nodes as their bytes."""

    def peek(self, node_id: bytes) -> Node | bytes:
        """The node of this id, or its bytes. Raises as `load`."""


def find(flavour: Flavour, root: bytes, name: bytes, nodes: Peeking) -> tuple[int, bytes] | None:
    """Tag and id of `name`, or None: `get`, which need not decode the leaf."""
    node = load_root(flavour, root, nodes)
    index = bisect_left(node.names, name)
    while node.level:
        if index == len(node.names):
            return None
        if node.level == 1:
            leaf = nodes.peek(node.child_id(index))
            if isinstance(leaf, bytes):
                found = glance(leaf, name, node.names[index])
                if found is not UNKNOWN:
                    return found
        node = load_child(node, index, nodes)
        index = bisect_left(node.names, name)
    if index < len(node.names) and node.names[index] == name:
        return node.value(index)[:2]
    return None


def count(flavour: Flavour, root: bytes, nodes: NodeStore) -> int:
    """Entries of the tree; loads its root only."""
    return load_root(flavour, root, nodes).count


def number(flavour: Flavour, root: bytes, nodes: NodeStore) -> int:
    """Fold of all numbers (a directory's size in bytes); loads its root only."""
    return flavour.fold(load_root(flavour, root, nodes).numbers)


def scan(
    flavour: Flavour,
    root: bytes,
    nodes: NodeStore,
    *,
    start: bytes | None = None,
    prefix: bytes = b"",
    reverse: bool = False,
) -> Iterator[Item]:
    """Entries in order of name, lazily, of names that begin with `prefix`.

    `start` is the name to begin with, or the nearest one after it in the direction of the scan.
    """
    if reverse:
        end = _prefix_end(prefix)
        if start is not None and (end is None or start + b"\0" < end):
            end = start + b"\0"
        return _backward(load_root(flavour, root, nodes), end, prefix, nodes)
    first = prefix if start is None else max(start, prefix)
    return _forward(load_root(flavour, root, nodes), first, prefix, nodes)


def _prefix_end(prefix: bytes) -> bytes | None:
    """The least name above all that begin with `prefix`; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def _forward(node: Node, first: bytes, prefix: bytes, nodes: NodeStore) -> Iterator[Item]:
    path: list[tuple[Node, int]] = []
    index = bisect_left(node.names, first)
    while True:
        while node.level and index < len(node.names):
            path.append((node, index + 1))
            node = load_child(node, index, nodes)
            index = bisect_left(node.names, first)
        if node.level == 0:
            names, tags, ids, numbers = node.names, node.tags, node.ids, node.numbers
            for at in range(index, len(names)):
                name = names[at]
                if not name.startswith(prefix):
                    return
                yield name, (tags[at], ids[at * ID_BYTES : (at + 1) * ID_BYTES], numbers[at])
        if not path:
            return
        node, index = path.pop()


def _backward(node: Node, end: bytes | None, prefix: bytes, nodes: NodeStore) -> Iterator[Item]:
    path: list[tuple[Node, int]] = []
    index = _last_before(node, end)
    while True:
        while node.level and index >= 0:
            path.append((node, index - 1))
            node = load_child(node, index, nodes)
            index = _last_before(node, end)
        if node.level == 0:
            for at in range(index, -1, -1):
                if not node.names[at].startswith(prefix):
                    return
                yield node.names[at], node.value(at)
        if not path:
            return
        node, index = path.pop()


def _last_before(node: Node, end: bytes | None) -> int:
    """Index of the last name below `end`; of an inner node, the child where it may be."""
    if end is None:
        return len(node.names) - 1
    index = bisect_left(node.names, end)
    return min(index, len(node.names) - 1) if node.level else index - 1


def nodes_of(
    flavour: Flavour,
    root: bytes,
    nodes: NodeStore,
    skip: Callable[[bytes], bool] = lambda _: False,
) -> Iterator[tuple[bytes, Node]]:
    """Each node of the tree once with its id, parents first, lazily.

    `skip(id)` is asked before a node is loaded; where it says True, the node and all below it
    are left out. Other trees that entries name are not entered.
    """
    if skip(root):
        return
    top = load_root(flavour, root, nodes)
    yield root, top
    path: list[tuple[Node, int]] = [(top, 0)]
    while path:
        node, index = path.pop()
        if node.level == 0 or index == len(node.names):
            continue
        path.append((node, index + 1))
        child_id = node.child_id(index)
        if not skip(child_id):
            child = load_child(node, index, nodes)
            yield child_id, child
            path.append((child, 0))
