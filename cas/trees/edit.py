"""Changing an existing tree.

Floor 2; implements the shape rule of docs/format.md section 5.1 together with `boundary`.
Invariant: `apply` gives the root that `build` gives for the same final entries, whatever the
tree looked like before, and hands each node to `save` that the new tree has and the old one had
not, children first, and no other. It trusts that the old tree has the right shape.

An edit works level by level upwards: the entries that change on a level are an ascending list
of edits, exactly like the caller's on the leaves. On each level the nodes concerned are scanned
anew from the end before the first change to the first old end that the scan meets; those old
nodes then leave, and the new ones enter, the level above as edits. Whether a level still has
more than 64 entries is settled before any of its nodes is saved, because otherwise it is the
root and the new nodes would be garbage.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import ge

from attrs import define, field

from cas.errors import Invalid
from cas.limits import NODE_SINGLE_ENTRIES_MAX
from cas.trees import boundary
from cas.trees.build import Builder, Columns, Summary, keep, summarize
from cas.trees.inplace import descend, edit_one, edit_run, values_only
from cas.trees.node import (
    Edit,
    Flavour,
    Node,
    NodeStore,
    Value,
    check_known,
    check_value,
    load_child,
    load_root,
)
from cas.trees.splice import derive, replace_values


def apply(
    flavour: Flavour,
    root: bytes,
    edits: Iterable[Edit],
    nodes: NodeStore,
    *,
    save_empty: bool = True,
) -> Summary:
    """The tree `root` after `edits`, given in strictly ascending order of name.

    Deleting what is not there, and setting what is there already, change nothing. An emptied
    tree is the empty leaf, which is not saved when `save_empty` is False. Raises `Invalid`,
    `InvalidName`, `LimitExceeded` for edits that can never work, `NewerFormat` when a node
    concerned has unknown extras, and what `nodes.load` raises.
    """
    wanted = list(edits)
    if len(wanted) == 1:
        name, value = wanted[0]
        return apply_one(flavour, root, name, value, nodes, save_empty=save_empty)
    for _, value in wanted:
        if value is not None:
            check_value(flavour, value)
    names = [name for name, _ in wanted]
    if any(map(ge, names, names[1:])):
        raise Invalid("Edits of a tree must be given in strictly ascending order of name.")
    top = load_root(flavour, root, nodes)
    if not wanted:
        return summarize(flavour, root, top)
    path, leaf = descend(top, names[0], nodes)
    done = edit_run(flavour, root, path, leaf, wanted, nodes)
    if done is None:
        general = _Edit(flavour, root, top, nodes, save_empty)
        general.remember(path, leaf)
        done = general.run(wanted)
    return done


def apply_one(
    flavour: Flavour,
    root: bytes,
    name: bytes,
    value: Value | None,
    nodes: NodeStore,
    *,
    save_empty: bool = True,
) -> Summary:
    """`apply` of one edit: most move no end, and then nothing is scanned."""
    if value is not None:
        check_value(flavour, value)
    top = load_root(flavour, root, nodes)
    path, leaf = descend(top, name, nodes)
    done = edit_one(flavour, root, path, leaf, name, value, nodes)
    if done is None:
        general = _Edit(flavour, root, top, nodes, save_empty)
        general.remember(path, leaf)
        done = general.run([(name, value)])
    return done


class _Place:
    """A node of the old tree, with the way back up. Children are loaded once an edit."""

    __slots__ = ("below", "index", "node", "up")

    def __init__(self, node: Node, up: _Place | None, index: int) -> None:
        self.node = node
        self.up = up
        self.index = index
        self.below: dict[int, _Place] = {}

    def child(self, index: int, nodes: NodeStore) -> _Place:
        place = self.below.get(index)
        if place is None:
            place = _Place(load_child(self.node, index, nodes), self, index)
            self.below[index] = place
        return place

    def after(self, nodes: NodeStore) -> _Place | None:
        """The next node on the same level."""
        if self.up is None:
            return None
        if self.index + 1 < len(self.up.node.names):
            return self.up.child(self.index + 1, nodes)
        beyond = self.up.after(nodes)
        return None if beyond is None else beyond.child(0, nodes)

    def is_last(self) -> bool:
        """Whether no node follows on the same level."""
        place: _Place = self
        while place.up is not None:
            if place.index + 1 < len(place.up.node.names):
                return False
            place = place.up
        return True


@define
class _Change:
    """What one level becomes: nodes that enter, and by last name those that leave."""

    made: list[Node] = field(factory=list)
    gone: dict[bytes, Node] = field(factory=dict)
    growth: int = 0
    """Entries gained or lost on this level."""


class _Edit:
    """One run of `apply` in its general form."""

    def __init__(
        self, flavour: Flavour, root_id: bytes, root: Node, nodes: NodeStore, save_empty: bool
    ) -> None:
        self.flavour = flavour
        self.root_id = root_id
        self.top = _Place(root, None, 0)
        self.nodes = nodes
        self.save_empty = save_empty

    def remember(self, path: list[tuple[Node, int]], leaf: Node) -> None:
        """Take over nodes that were loaded already."""
        place = self.top
        below = [*(node for node, _ in path[1:]), leaf]
        for node, (_, index) in zip(below, path, strict=False):
            up, place = place, _Place(node, place, index)
            up.below[index] = place

    def run(self, edits: list[Edit]) -> Summary:
        """Level by level upwards until the level of the old root, or until one is small."""
        for level in range(self.top.node.level):
            change = self._change_level(level, edits)
            if not change.gone:
                return summarize(self.flavour, self.root_id, self.top.node)
            if not self._stays_large(level, change.growth):
                return self._collapse(level, edits)
            edits = self._save(change)
        root = self.top.node
        replaced = values_only(root, edits)
        if replaced is None:
            entries = Columns()
            self._merge(root, edits, entries)
            if entries.names and boundary.is_single(len(entries.names)):
                return self._replace_root(derive(entries.encode(root.level), root, edits))
            return self._finish(root.level, entries, [self.top])
        if not replaced:
            return summarize(self.flavour, self.root_id, root)
        return keep(self.flavour, replace_values(root, replaced), self.nodes)

    def _replace_root(self, node: Node) -> Summary:
        """A root of other entries; nothing is saved where they are the same."""
        root = self.top.node
        if node.data == root.data:
            return summarize(self.flavour, self.root_id, root)
        return keep(self.flavour, node, self.nodes)

    def _collapse(self, level: int, edits: list[Edit]) -> Summary:
        """Make one root of the few entries that a level below the old root still has."""
        whole = Columns()
        places = list(self._places(level))
        at = 0
        for place in places:
            stop = self._share_end(edits, at, place)
            self._merge(place.node, edits[at:stop], whole)
            at = stop
        return self._finish(level, whole, places)

    def _finish(self, level: int, entries: Columns, places: list[_Place]) -> Summary:
        """Make a whole level, and what may come above it, anew."""
        known = {
            place.node.names[-1]: (self._id_of(place), place.node)
            for place in places
            if place.node.names
        }
        builder = Builder(self.flavour, self.nodes, level, known, self.save_empty)
        builder.extend(0, entries)
        return builder.finish()

    def _id_of(self, place: _Place) -> bytes:
        return self.root_id if place.up is None else place.up.node.child_id(place.index)

    def _share_end(self, edits: list[Edit], at: int, place: _Place) -> int:
        if place.is_last():
            return len(edits)
        return bisect_right(edits, place.node.names[-1], at, key=_name_of)

    def _places(self, level: int) -> Iterator[_Place]:
        """All nodes of a level of the old tree, loaded as they are asked for."""
        place: _Place | None = self.top
        while place is not None and place.node.level > level:
            place = place.child(0, self.nodes)
        while place is not None:
            yield place
            place = place.after(self.nodes)

    def _find(self, level: int, name: bytes) -> _Place:
        """The node of a level that `name` falls into; the last one takes all beyond."""
        place = self.top
        while place.node.level > level:
            names = place.node.names
            index = min(bisect_left(names, name), len(names) - 1)
            place = place.child(index, self.nodes)
        return place

    def _change_level(self, level: int, edits: list[Edit]) -> _Change:
        """Scan anew around each edit; nothing is saved yet."""
        change = _Change()
        at = 0
        while at < len(edits):
            place: _Place | None = self._find(level, edits[at][0])
            pending = Columns()
            # The old node that the entries at hand begin with, and the edits that touch it.
            first: tuple[Node, list[Edit]] | None = None
            while place is not None:
                stop = self._share_end(edits, at, place)
                part = edits[at:stop]
                at = stop
                node = place.node
                if not pending.names and (replaced := values_only(node, part)) is not None:
                    if replaced:
                        change.gone[node.names[-1]] = node
                        change.made.append(replace_values(node, replaced))
                    break
                change.gone[node.names[-1]] = node
                change.growth += self._merge(node, part, pending)
                ends = boundary.ends(level, pending.names, pending.suspects)
                for columns in pending.cut(ends):
                    change.made.append(derive(columns.encode(level), *(first or (node, part))))
                    first = None
                if not pending.names:
                    break
                first = first or (node, part)
                place = place.after(self.nodes)
            else:
                assert first is not None
                change.made.append(derive(pending.encode(level), *first))
        return change

    def _merge(self, node: Node, edits: Sequence[Edit], out: Columns) -> int:
        """Append a node's entries with `edits` applied to `out`; gives how many were gained.

        Marks as suspects the names that may be hits: new ones, the last of the node, and on an
        inner level its first, whose hit did not count. Others would have ended the node.
        """
        check_known(node)
        names = node.names
        count = len(names)
        at = 0
        base = len(out.names)
        suspects = set()
        for name, value in edits:
            index = bisect_left(names, name, at)
            found = index < count and names[index] == name
            if value is None and not found:
                continue
            out.copy_from(node, at, index)
            at = index + found
            if value is not None:
                if not found:
                    if node.level == 0:
                        self.flavour.check_name(name)
                    suspects.add(len(out.names))
                out.append(name, value)
        out.copy_from(node, at, count)
        for name in (names[0], names[-1]) if node.level else names[-1:]:
            position = bisect_left(out.names, name, base)
            if position < len(out.names) and out.names[position] == name:
                suspects.add(position)
        out.suspects += sorted(suspects)
        return len(out.names) - base - count

    def _stays_large(self, level: int, growth: int) -> bool:
        """Whether a level below the old root has more than 64 entries after an edit.

        It had more before. The leaves are counted in the root. On an inner level all nodes but
        the last have two entries or more, and the level above, unless it is the root's, has
        more than 64 itself; where that does not settle it, nodes are loaded and counted.
        """
        if growth >= 0:
            return True
        needed = NODE_SINGLE_ENTRIES_MAX - growth
        if level == 0:
            return self.top.node.count > needed
        above = (
            len(self.top.node.names)
            if level + 1 == self.top.node.level
            else NODE_SINGLE_ENTRIES_MAX + 1
        )
        if 2 * above - 1 > needed:
            return True
        total = 0
        for place in self._places(level):
            total += len(place.node.names)
            if total > needed:
                return True
        return False

    def _save(self, change: _Change) -> list[Edit]:
        """Save the new nodes of a level; gives the edits of the level above."""
        above: dict[bytes, Value | None] = dict.fromkeys(change.gone)
        for node in change.made:
            old = change.gone.get(node.names[-1])
            if old is not None and old.data == node.data:
                # New entries came to stand before a whole node, which is as it was.
                del above[node.names[-1]]
                continue
            above[node.names[-1]] = keep(self.flavour, node, self.nodes).entry
        return sorted(above.items(), key=_name_of)


def _name_of(edit: Edit) -> bytes:
    return edit[0]
