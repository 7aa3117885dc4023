"""What differs between two trees, by walking only the nodes that differ.

Floor 2; reads the trees of docs/format.md section 5.1. Invariant: the walk gives exactly the
names whose values differ, ascending, and loads O(changes * levels) nodes: where both sides
stand before a subtree of the same id, both step over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import compress, count
from operator import ne
from typing import Final

from cas.limits import ID_BYTES
from cas.trees.node import Flavour, Node, NodeStore, Value, load_child, load_root

Difference = tuple[bytes, Value | None, Value | None]
"""(name, old value or None, new value or None); the two are never equal."""

Ahead = Callable[[Sequence[bytes]], None]
"""Told the ids of nodes, such as those that will be loaded soon, to read them together."""

_WINDOW: Final = 64
"""Entries that are compared at a time."""


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
    flavour: Flavour,
    old_root: bytes,
    new_root: bytes,
    nodes: NodeStore,
    ahead: Ahead | None = None,
    behind: Ahead | None = None,
) -> Iterator[Difference]:
    """The differences from `old_root` to `new_root` in order of name, lazily.

    `ahead` is told of nodes that will be loaded, `behind` of those that only the old tree has, once
    the walk has left them.
    """
    if old_root == new_root:
        return
    # By level: of which nodes the children were told, and which of these are still to be left.
    told: dict[int, tuple[Node, Node]] = {}
    past: dict[int, list[bytes]] = {}
    old = _Side(load_root(flavour, old_root, nodes), nodes)
    new = _Side(load_root(flavour, new_root, nodes), nodes)
    while (before := old.node) is not None and (after := new.node) is not None:
        if before.level > after.level:
            old.enter(before)
        elif before.level < after.level:
            new.enter(after)
        elif not before.level:
            found, *ends = _leaves(before, old.index, after, new.index)
            yield from found
            old.step(ends[0] - old.index)
            new.step(ends[1] - new.index)
        elif alike := _alike(before, old.index, after, new.index):
            old.step(alike)
            new.step(alike)
        else:
            level = before.level
            if ahead is not None and told.get(level) != (before, after):
                told[level] = before, after
                gone = _tell(before, old.index, after, new.index, ahead)
                if behind is not None:
                    behind(past.get(level, ()))
                    past[level] = gone
            old.enter(before)
            new.enter(after)
    for name, value in _rest(old):
        yield name, value, None
    for name, value in _rest(new):
        yield name, None, value
    if behind is not None:
        for gone in past.values():
            behind(gone)


def _alike(old: Node, old_at: int, new: Node, new_at: int) -> int:
    """How many children are equal from two positions on, in inner nodes of one level.

    The ids of a window are compared at once; the first that differ are found by taking one
    window from the other as numbers. The ids alone decide: equal ids are equal subtrees, last
    names included.
    """
    if (
        old.ids[old_at * ID_BYTES : (old_at + 1) * ID_BYTES]
        != (new.ids[new_at * ID_BYTES : (new_at + 1) * ID_BYTES])
    ):
        return 0
    count = min(_WINDOW, len(old.names) - old_at, len(new.names) - new_at)
    mine = old.ids[old_at * ID_BYTES : (old_at + count) * ID_BYTES]
    theirs = new.ids[new_at * ID_BYTES : (new_at + count) * ID_BYTES]
    if mine != theirs:
        apart = int.from_bytes(mine, "big") ^ int.from_bytes(theirs, "big")
        count = (len(mine) - (apart.bit_length() + 7) // 8) // ID_BYTES
    return count


def _leaves(old: Node, i: int, new: Node, j: int) -> tuple[list[Difference], int, int]:
    """What differs between two leaves from two positions on until one of them ends, and where
    each of them is then.
    """
    found: list[Difference] = []
    names, others = old.names, new.names
    end, stop = len(names), len(others)
    while i < end and j < stop:
        # As far as the names are the same ones, without a step of Python for each.
        apart = map(ne, names[i:] if i else names, others[j:] if j else others)
        to = i + next(compress(count(), apart), min(end - i, stop - j))
        upto = j + to - i
        if to > i:
            found += _changed(old, i, to, new, j)
            i, j = to, upto
            continue
        name, other = names[i], others[j]
        if name < other:
            found.append((name, old.value(i), None))
            i += 1
        else:
            found.append((other, None, new.value(j)))
            j += 1
    return found, i, j


def _changed(old: Node, i: int, to: int, new: Node, j: int) -> Iterator[Difference]:
    """Entries that have other values, of a run with the same names: in halves, as few differ."""
    upto = j + to - i
    if (
        old.ids[i * ID_BYTES : to * ID_BYTES] == new.ids[j * ID_BYTES : upto * ID_BYTES]
        and old.numbers[i:to] == new.numbers[j:upto]
        and old.tags[i:to] == new.tags[j:upto]
    ):
        return
    if to - i == 1:
        yield old.names[i], old.value(i), new.value(j)
        return
    half = (to - i) // 2
    yield from _changed(old, i, i + half, new, j)
    yield from _changed(old, i + half, to, new, j + half)


def _tell(old: Node, old_at: int, new: Node, new_at: int, ahead: Ahead) -> list[bytes]:
    """Children of two inner nodes of one level that only one of them has; gives those of the old
    one.
    """
    if old.ids[(old_at + 1) * ID_BYTES :] == new.ids[(new_at + 1) * ID_BYTES :]:
        # One each, as after a small edit.
        return [old.child_id(old_at)]
    ours, theirs = _children(old, old_at), _children(new, new_at)
    same = set(ours).intersection(theirs)
    gone = [id for id in ours if id not in same]
    ahead([*gone, *(id for id in theirs if id not in same)])
    return gone


def _children(node: Node, at: int) -> list[bytes]:
    ids = node.ids
    return [ids[i : i + ID_BYTES] for i in range(at * ID_BYTES, len(ids), ID_BYTES)]


def _rest(side: _Side) -> Iterator[tuple[bytes, Value]]:
    while (node := side.node) is not None:
        if node.level:
            side.enter(node)
        else:
            yield node.names[side.index], node.value(side.index)
            side.step()
