"""Building a tree from sorted entries.

Floor 2; implements the shape rule of docs/format.md section 5.1 together with `boundary`.
Invariant: each node is handed to `save` once, children before parents, and only when it is
certain that it belongs to the tree; memory is bounded by a batch of entries a level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import ge
from typing import Final, NamedTuple

from cas.errors import Invalid
from cas.limits import ID_BYTES, NODE_ENTRIES_MAX
from cas.trees import boundary
from cas.trees.node import (
    Flavour,
    Item,
    Node,
    NodeStore,
    Value,
    check_number,
    check_value,
    empty_node,
    encode_node,
)

_BATCH: Final = 4 * NODE_ENTRIES_MAX
"""Entries a level gathers before they are cut; bounds the memory of `build`."""


class Summary(NamedTuple):
    """A tree: id of its root node, leaf entries, and the fold of their numbers."""

    root: bytes
    entries: int
    number: int

    @property
    def entry(self) -> Value:
        """What stands for it in the node above."""
        return self.entries, self.root, self.number


class Columns:
    """Entries in order, as growing columns; `suspects` are positions that may be hits."""

    __slots__ = ("ids", "names", "numbers", "suspects", "tags")

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.tags: list[int] = []
        self.ids = bytearray()
        self.numbers: list[int] = []
        self.suspects: list[int] = []

    def append(self, name: bytes, value: Value) -> None:
        """One more entry."""
        self.names.append(name)
        self.tags.append(value[0])
        self.ids += value[1]
        self.numbers.append(value[2])

    def copy_from(self, node: Node, start: int, stop: int) -> None:
        """Entries `start:stop` of a node."""
        self.names += node.names[start:stop]
        self.tags += node.tags[start:stop]
        self.ids += node.ids[start * ID_BYTES : stop * ID_BYTES]
        self.numbers += node.numbers[start:stop]

    def cut(self, ends: Sequence[int]) -> list[Columns]:
        """The entries up to each end as columns of their own; what follows the last one stays."""
        parts = []
        start = 0
        for end in ends:
            parts.append(self._slice(start, end))
            start = end
        if start:
            rest = self._slice(start, len(self.names))
            self.names, self.tags, self.ids, self.numbers = (
                rest.names,
                rest.tags,
                rest.ids,
                rest.numbers,
            )
            self.suspects = [at - start for at in self.suspects if at >= start]
        return parts

    def _slice(self, start: int, stop: int) -> Columns:
        part = Columns()
        part.names = self.names[start:stop]
        part.tags = self.tags[start:stop]
        part.ids = self.ids[start * ID_BYTES : stop * ID_BYTES]
        part.numbers = self.numbers[start:stop]
        return part

    def encode(self, level: int) -> Node:
        """A node of all these entries."""
        tags = self.tags if level else bytes(self.tags)
        return encode_node(level, self.names, tags, bytes(self.ids), self.numbers)


def build(flavour: Flavour, entries: Iterable[Item], nodes: NodeStore) -> Summary:
    """The tree of entries given in strictly ascending order of name. Memory is bounded.

    Each node goes to `nodes.save` once, children first. Raises `Invalid` for entries out of
    order or values that do not belong, `InvalidName` and `LimitExceeded` for names.
    """
    builder = Builder(flavour, nodes)
    before = b""
    source = iter(entries)
    while batch := list(islice(source, _BATCH)):
        columns = _check_batch(flavour, before, batch)
        builder.extend(0, columns)
        before = batch[-1][0]
    return builder.finish()


def build_columns(flavour: Flavour, columns: Columns, nodes: NodeStore) -> Summary:
    """`build` of columns that are known to be legal and in order; most fit into one node."""
    if columns.names and boundary.is_single(len(columns.names)):
        return keep(flavour, columns.encode(0), nodes)
    builder = Builder(flavour, nodes)
    builder.extend(0, columns)
    return builder.finish()


def _check_batch(flavour: Flavour, before: bytes, batch: list[Item]) -> Columns:
    """Entries as columns. Raises `Invalid` when they are out of order or do not belong."""
    columns = Columns()
    names = columns.names = [flavour.check_name(name) for name, _ in batch]
    if names[0] <= before or any(map(ge, names, names[1:])):
        raise Invalid("Entries of a tree must be given in strictly ascending order of name.")
    for _, value in batch:
        check_value(flavour, value)
    columns.tags = [value[0] for _, value in batch]
    columns.ids += b"".join([value[1] for _, value in batch])
    columns.numbers = [value[2] for _, value in batch]
    return columns


class Builder:
    """Levels under construction, from `level` upwards; nodes are saved as soon as they end."""

    def __init__(
        self,
        flavour: Flavour,
        nodes: NodeStore,
        level: int = 0,
        known: Mapping[bytes, tuple[bytes, Node]] | None = None,
        save_empty: bool = True,
    ) -> None:
        self.flavour = flavour
        self.nodes = nodes
        self.level = level
        # Old nodes of the lowest level by last name, with their ids: never saved again.
        self.known = known or {}
        self.save_empty = save_empty
        # Per level: entries since the last end, and whether a node was made of earlier ones.
        self.open: list[Columns] = [Columns()]
        self.ended: list[bool] = [False]

    def extend(self, above: int, more: Columns) -> None:
        """Add entries to the level `above` levels over the lowest one."""
        pending = self.open[above]
        pending.names += more.names
        pending.tags += more.tags
        pending.ids += more.ids
        pending.numbers += more.numbers
        if len(pending.names) >= _BATCH:
            self._cut(above)

    def _cut(self, above: int) -> None:
        """Make nodes of the entries up to the last end."""
        pending = self.open[above]
        made = Columns()
        for part in pending.cut(boundary.ends(self.level + above, pending.names)):
            made.append(part.names[-1], self._keep(above, part).entry)
        self._raise(above, made)

    def _keep(self, above: int, columns: Columns) -> Summary:
        node = columns.encode(self.level + above)
        if above == 0:
            old = self.known.get(columns.names[-1])
            if old is not None and old[1].data == node.data:
                return summarize(self.flavour, *old)
        return keep(self.flavour, node, self.nodes)

    def _raise(self, above: int, made: Columns) -> None:
        if made.names:
            self.ended[above] = True
            if above + 1 == len(self.open):
                self.open.append(Columns())
                self.ended.append(False)
            self.extend(above + 1, made)

    def finish(self) -> Summary:
        """Close all levels; the first that has few enough entries is the root."""
        above = 0
        while self.ended[above] or not boundary.is_single(len(self.open[above].names)):
            self._cut(above)
            rest = self.open[above]
            if rest.names:
                made = Columns()
                made.append(rest.names[-1], self._keep(above, rest).entry)
                self._raise(above, made)
            above += 1
        columns = self.open[above]
        if not columns.names:
            if self.save_empty:
                self.nodes.save(empty_node())
            return Summary(self.flavour.empty, 0, 0)
        return self._keep(above, columns)


def summarize(flavour: Flavour, node_id: bytes, node: Node) -> Summary:
    """What a node says of the tree below it. Raises `Invalid` when a sum has no room."""
    return Summary(node_id, node.count, check_number(flavour.fold(node.numbers)))


def keep(flavour: Flavour, node: Node, nodes: NodeStore) -> Summary:
    """Save a new node; refused before, when its number has no room."""
    number = check_number(flavour.fold(node.numbers))
    return Summary(nodes.save(node), node.count, number)
