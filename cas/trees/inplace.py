"""Edits that move no end of a node: one leaf becomes another, and the nodes above it follow.

Floor 2; implements the shape rule of docs/format.md section 5.1 as far as nothing is scanned for
it. Invariant: what is done here gives the nodes that the general form (`edit`) gives and no other;
where an end might move, or edits fall into several leaves, the answer is None and nothing was
saved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from cas.limits import NODE_ENTRIES_MAX, NODE_SINGLE_ENTRIES_MAX
from cas.trees import boundary
from cas.trees.build import Summary, summarize
from cas.trees.node import (
    NUMBER_END,
    Edit,
    Flavour,
    Node,
    NodeStore,
    Value,
    check_number,
    load_child,
)
from cas.trees.splice import replace_entries, replace_value, replace_values

Way = list[tuple[Node, int]]
"""The nodes above a leaf, from the root on, and the position in each."""


def descend(node: Node, name: bytes, nodes: NodeStore) -> tuple[Way, Node]:
    """The leaf that `name` falls into, with the nodes and positions on the way to it."""
    path: Way = []
    while node.level:
        names = node.names
        index = bisect_left(names, name)
        if index == len(names):
            index -= 1
        path.append((node, index))
        node = load_child(node, index, nodes)
    return path, node


def edit_one(
    flavour: Flavour,
    root_id: bytes,
    path: Way,
    node: Node,
    name: bytes,
    value: Value | None,
    nodes: NodeStore,
) -> Summary | None:
    """One edit of the leaf `node`, or None when it might move an end."""
    root = path[0][0] if path else node
    names = node.names
    count = len(names)
    index = bisect_left(names, name)
    found = index < count and names[index] == name
    last_name = None
    if value is None:
        if not found:
            return summarize(flavour, root_id, root)
        if count == 1 or (
            path
            and (
                index == count - 1
                or boundary.may_force(count, len(node.data))
                or root.count - 1 <= NODE_SINGLE_ENTRIES_MAX
            )
        ):
            return None
        node = replace_entries(node, index, index + 1, (), (), b"", ())
    elif found:
        if node.value(index) == value:
            return summarize(flavour, root_id, root)
        node = replace_value(node, index, value)
    else:
        flavour.check_name(name)
        if not path:
            if count >= NODE_SINGLE_ENTRIES_MAX:
                return None
        elif boundary.may_force(count + 1, len(node.data) + len(name)):
            return None
        elif index == count:
            # Behind everything: an open last node takes the name, and gets a new last name.
            if boundary.is_hit(0, names[-1]):
                return None
            last_name = name
        elif boundary.is_hit(0, name):
            return None
        tag, child, number = value
        node = replace_entries(node, index, index, (name,), (tag,), child, (number,))
    return _climb(flavour, node, path, len(node.names) - count, last_name, nodes)


def edit_run(
    flavour: Flavour, root_id: bytes, path: Way, node: Node, edits: Sequence[Edit], nodes: NodeStore
) -> Summary | None:
    """Several edits, in order, of which the first falls into the leaf `node`: other values in it,
    or new names that come to stand side by side, as those of a collection that grows at its end.
    None for anything else, and when an end might move.
    """
    names = node.names
    count, last = len(names), edits[-1][0]
    if count and last <= names[-1]:
        replaced = values_only(node, edits)
        if replaced is not None:
            if not replaced:
                return summarize(flavour, root_id, path[0][0] if path else node)
            return _climb(flavour, replace_values(node, replaced), path, 0, None, nodes)
    index = bisect_left(names, edits[0][0])
    if index < count and names[index] <= last:
        return None
    total = count + len(edits)
    if total >= NODE_ENTRIES_MAX if path else not boundary.is_single(total):
        return None
    made: list[bytes] = []
    tags: list[int] = []
    ids: list[bytes] = []
    numbers: list[int] = []
    for name, value in edits:
        if value is None:
            return None
        made.append(name)
        tags.append(value[0])
        ids.append(value[1])
        numbers.append(value[2])
    for name in made:
        flavour.check_name(name)
    last_name = None
    if not path:
        pass
    elif boundary.may_force(total, len(node.data) + sum(map(len, made))):
        return None
    elif index == count:
        # All but the new last name are asked; it ends its node by being the last.
        if True in boundary.hits(0, (names[-1], *made[:-1])):
            return None
        last_name = last
    elif True in boundary.hits(0, made):
        return None
    node = replace_entries(node, index, index, made, tags, b"".join(ids), numbers)
    return _climb(flavour, node, path, len(made), last_name, nodes)


def values_only(node: Node, edits: Sequence[Edit]) -> list[tuple[int, Value]] | None:
    """Positions that get another value, or None when a name comes or goes."""
    names = node.names
    count = len(names)
    replaced = []
    at = 0
    for name, value in edits:
        at = bisect_left(names, name, at)
        found = at < count and names[at] == name
        if (value is None) == found:
            return None
        if value is not None and node.value(at) != value:
            replaced.append((at, value))
    return replaced


def _climb(
    flavour: Flavour,
    node: Node,
    path: Way,
    growth: int,
    last_name: bytes | None,
    nodes: NodeStore,
) -> Summary:
    """Put a leaf that gained `growth` entries into the nodes above; with its new last name."""
    fold = flavour.fold
    number, node_id = fold(node.numbers), nodes.save(node)
    if number >= NUMBER_END:
        check_number(number)
    for parent, index in reversed(path):
        count = parent.tags[index] + growth
        if last_name is None:
            node = replace_value(parent, index, (count, node_id, number))
        else:
            node = replace_entries(
                parent, index, index + 1, (last_name,), (count,), node_id, (number,)
            )
        number, node_id = fold(node.numbers), nodes.save(node)
        if number >= NUMBER_END:
            check_number(number)
    return Summary(node_id, sum(node.tags) if node.level else len(node.names), number)
