"""What differs between two trees, by walking only the nodes that differ.

Floor 2; reads the trees of docs/format.md section 5.1. Invariant: the walk gives exactly the
names whose values differ, ascending, and loads O(changes * levels) nodes: where both sides
stand before a subtree of the same id, both step over it.
"""

from __future__ import annotations

from collections.abc import Iterator

from cas.limits import ID_BYTES
from cas.trees.node import Flavour, Node, NodeStore, Value, load_child, load_root

Difference = tuple[bytes, Value | None, Value | None]
"""(name, old value or None, new value or None); the two are never equal."""


class _Side:
    """A position in one tree: an entry of a node, with the way back up.

    `node` is None behind the last entry. Everything before the position was dealt with, so an
    entry of an inner node stands for its whole subtree.
    """

    __slots__ = ("index", "node", "nodes", "path")

    def __init__(self, root: Node, nodes: NodeStore) -> None:
        self.nodes = nodes
        self.path: list[tuple[Node, int]] = []
        self.node: Node | None = root
        self.index = 0
        self._settle()

    def step(self, entries: int = 1) -> None:
        """Behind the current entry, or behind several of the same node."""
        self.index += entries
        self._settle()

    def _settle(self) -> None:
        while self.node is not None and self.index == len(self.node.names):
            if self.path:
                self.node, self.index = self.path.pop()
            else:
                self.node = None

    def enter(self, node: Node) -> None:
        """To the first entry of the child that the current entry of `node` names."""
        self.path.append((node, self.index + 1))
        self.node = load_child(node, self.index, self.nodes)
        self.index = 0


def diff(
    flavour: Flavour, old_root: bytes, new_root: bytes, nodes: NodeStore
) -> Iterator[Difference]:
    """The differences from `old_root` to `new_root` in order of name, lazily."""
    if old_root == new_root:
        return
    old = _Side(load_root(flavour, old_root, nodes), nodes)
    new = _Side(load_root(flavour, new_root, nodes), nodes)
    while (before := old.node) is not None and (after := new.node) is not None:
        if before.level > after.level:
            old.enter(before)
        elif before.level < after.level:
            new.enter(after)
        elif alike := _alike(before, old.index, after, new.index):
            old.step(alike)
            new.step(alike)
        elif before.level:
            old.enter(before)
            new.enter(after)
        else:
            name, other = before.names[old.index], after.names[new.index]
            if name == other:
                yield name, before.value(old.index), after.value(new.index)
                old.step()
                new.step()
            elif name < other:
                yield name, before.value(old.index), None
                old.step()
            else:
                yield other, None, after.value(new.index)
                new.step()
    for name, value in _rest(old):
        yield name, value, None
    for name, value in _rest(new):
        yield name, None, value


def _alike(old: Node, old_at: int, new: Node, new_at: int) -> int:
    """How many entries are equal from two positions on, in nodes of one level.

    Columns are compared in strides, at the speed of C, and more finely where they differ. On an
    inner level the ids alone decide: equal ids are equal subtrees, last names included.
    """
    limit = min(len(old.names) - old_at, len(new.names) - new_at)
    done = 0
    stride = 16
    while done < limit:
        width = min(stride, limit - done)
        i, j = old_at + done, new_at + done
        if old.ids[i * ID_BYTES : (i + width) * ID_BYTES] == new.ids[
            j * ID_BYTES : (j + width) * ID_BYTES
        ] and (
            old.level
            or (
                old.names[i : i + width] == new.names[j : j + width]
                and old.numbers[i : i + width] == new.numbers[j : j + width]
                and old.tags[i : i + width] == new.tags[j : j + width]
            )
        ):
            done += width
        elif width == 1:
            break
        else:
            stride = width // 4 or 1
    return done


def _rest(side: _Side) -> Iterator[tuple[bytes, Value]]:
    while (node := side.node) is not None:
        if node.level:
            side.enter(node)
        else:
            yield node.names[side.index], node.value(side.index)
            side.step()
