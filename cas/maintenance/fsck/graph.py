"""What objects name, and what they say of it: the closure of the store.

Floor 5; checks docs/format.md section 5 (structured objects) and the invariants of section 7.2.
Invariant: each structured object is decoded once, in the order in which it lies; what can only
be judged later (a child that lies behind its parent, an inner node) waits in a compact form, so
that memory follows the work that waits and not the store.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, compress, count
from operator import ge
from typing import Any, Final

from cas.errors import CasError, NotCanonical
from cas.limits import ENTRY_NAME_BYTES_MAX, ID_BYTES, NODE_SINGLE_ENTRIES_MAX
from cas.maintenance.findings import Findings
from cas.maintenance.fsck.known import KIND_BITS, KIND_MASK, SIZE_MAX, TALL, UNREAD, Known, code_of
from cas.maintenance.fsck.packs import IDS_KEPT_MAX
from cas.model.encoding import decode_columns, decode_many
from cas.model.ids import Kind
from cas.model.objects import EXECUTABLE, FILE, LINK, TREE, Commit, Recipe, Tag
from cas.objects.children import children
from cas.trees import boundary
from cas.trees.node import FLAVOURS, Node, check_child, decode_node

_NODES_KEPT_BYTES: Final = 16 << 20
_WAITING: Final = struct.Struct("<32s32sQ")

_KIND_OF_TAG: Final = {
    FILE: int(Kind.BLOB),
    EXECUTABLE: int(Kind.BLOB),
    LINK: int(Kind.BLOB),
    TREE: int(Kind.TREE),
}
_KINDS: Final = bytes(_KIND_OF_TAG.get(tag, 0) for tag in range(256))
_NO_NAMES: Final = frozenset((b"", b".", b".."))
_TAGS: Final = frozenset(_KIND_OF_TAG)
_SURELY_WHOLE: Final = 8
"""Of nodes this small few are a part of a large directory; the others are not kept."""


class Graph:
    """Follows what objects name. `known` must be complete before the first `add`."""

    def __init__(
        self,
        known: Known,
        findings: Findings,
        load: Callable[[bytes], tuple[int, bytes]],
        thinned: Callable[[bytes], bool] = lambda _id: False,
    ) -> None:
        self._known = known
        self._findings = findings
        self._load = load
        self._thinned = thinned
        # id -> what names it.
        self.missing: dict[bytes, str] = {}
        self._waiting = bytearray()
        self._inner: list[bytes] = []
        self._nodes: dict[bytes, Node] = {}
        self._nodes_kept_bytes = 0

    # -- what is named -----------------------------------------------------------------------

    def expect(self, id: bytes, kind: int, by: str) -> bool:
        """Whether an object exists and has a kind; tells of it if not. `by` names it."""
        code = self._known.get(id)
        if code is None:
            self._miss(id, by)
            return False
        if code & KIND_MASK != kind:
            self._wrong_kind(id, code, kind, by)
            return False
        return True

    def _miss(self, id: bytes, by: str) -> None:
        if len(self.missing) < IDS_KEPT_MAX:
            self.missing.setdefault(id, by)

    def _wrong_kind(self, id: bytes, code: int, kind: int, by: str) -> None:
        found = code & KIND_MASK
        if found & ~TALL == kind:
            message = f"{by} names {id.hex()} as a directory, which is a part of one only"
        else:
            message = (
                f"{by} names {id.hex()} as a {Kind(kind).name.lower()}, which is a "
                f"{Kind(found & ~TALL).name.lower()}"
            )
        self._findings.add("object-kind", id.hex(), f"{message}; save it again from its source.")

    # -- objects -----------------------------------------------------------------------------

    def add_many(self, objects: Sequence[tuple[bytes, int, bytes]]) -> None:
        """Judge structured objects (id, kind, content), whose bytes hash to their ids.

        Nearly all are leaves of directories, and most of these are tiny: they are judged
        together, a column of all of them at a time.
        """
        leaves = []
        trees = [content for _id, kind, content in objects if kind == Kind.TREE]
        decoded = iter(decode_many(trees) or map(decode_columns, trees))
        for id, kind, content in objects:
            if kind == Kind.TREE:
                fields = next(decoded)
                if _may_be_leaf(fields):
                    leaves.append((id, fields, content))
                    continue
            self.add(id, kind, content)
        if leaves and not self._add_leaves(leaves):
            for id, _fields, content in leaves:
                self.add(id, Kind.TREE, content)

    def add(self, id: bytes, kind: int, content: bytes) -> None:
        """Judge one structured object, whose bytes hash to its id."""
        try:
            if kind == Kind.TREE:
                self._add_tree(id, content)
            elif kind == Kind.REFS:
                self._add_refs(id, content)
            elif kind == Kind.COMMIT:
                commit = Commit.decode(content)
                by = f"commit {id.hex()}"
                for root in (commit.tree, commit.conflicts):
                    if root is None or (self._known.get(root) is None and self._thinned(id)):
                        continue  # what a thinned commit names may be there or not
                    if self.expect(root, Kind.TREE, by):
                        self._waiting += _WAITING.pack(root, id, UNREAD)
                for parent in commit.parents:
                    self.expect(parent, Kind.COMMIT, by)
            elif kind == Kind.TAG:
                tag = Tag.decode(content)
                self.expect(tag.target, tag.target_kind, f"tag {id.hex()}")
            elif kind == Kind.RECIPE:
                self._add_recipe(id, Recipe.decode(content))
            else:
                for child in children(kind, content, verified=False):
                    self.expect(child, Kind.BLOB, f"journal segment {id.hex()}")
        except NotCanonical as error:
            self._findings.add(
                "not-canonical",
                id.hex(),
                f"Object {id.hex()} is no {Kind(kind).name.lower()} of the format ({error}); it "
                "was written by a faulty program: save its content again.",
                (id,),
            )

    def _add_leaves(self, leaves: Sequence[tuple[bytes, list[Any], bytes]]) -> bool:
        """Judge leaves of directories; False, and nothing done, if one of them is none."""
        levels, names, tags, ids, numbers, _extras = zip(*[leaf[1] for leaf in leaves], strict=True)
        if not _are_good_leaves(levels, names, tags, ids, numbers):
            return False
        replace = self._known.replace
        for (id, fields, content), size in zip(leaves, map(sum, numbers), strict=True):
            replace(id, size << KIND_BITS | 2)
            if len(fields[1]) > _SURELY_WHOLE:
                self._keep(id, _leaf(fields, content))
        get, column = self._known.get, b"".join(ids)
        found = [get(column[at : at + ID_BYTES]) for at in range(0, len(column), ID_BYTES)]
        kinds = b"".join(tags).translate(_KINDS)
        stated = [n << KIND_BITS | k for n, k in zip(chain(*numbers), kinds, strict=True)]
        if found != stated:
            at = 0
            for id, fields, content in leaves:
                first, at = at, at + len(fields[1])
                if found[first:at] != stated[first:at]:
                    self._judge_children(id, _leaf(fields, content), found[first:at])
        return True

    def _add_tree(self, id: bytes, content: bytes) -> None:
        node = decode_node(content, Kind.TREE)
        tall = TALL if len(node) > NODE_SINGLE_ENTRIES_MAX else 0
        self._known.replace(id, code_of(Kind.TREE | tall, sum(node.numbers)))
        self._keep(id, node)
        if node.level:
            self._inner.append(id)
        get, ids = self._known.get, node.ids
        found = [get(ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES)]
        stated = zip(node.numbers, _kinds_below(node), strict=True)
        if found != [n << KIND_BITS | k for n, k in stated]:
            self._judge_children(id, node, found)

    def _judge_children(self, id: bytes, node: Node, found: list[int | None]) -> None:
        """The entries of a node one by one, because not all of them are as it says."""
        kinds = _kinds_below(node)
        by = f"tree {id.hex()}"
        for index, code in enumerate(found):
            child = node.child_id(index)
            kind, number = kinds[index], node.numbers[index]
            if code is None:
                self._miss(child, by)
                continue
            if code >> KIND_BITS == UNREAD and kind == code & KIND_MASK:
                self._waiting += _WAITING.pack(child, id, number)
                continue
            if code & KIND_MASK != kind and not (node.level and code & ~TALL & KIND_MASK == kind):
                self._wrong_kind(child, code, kind, by)
            elif code >> KIND_BITS != min(number, SIZE_MAX):
                self._false_size(id, child, number, code >> KIND_BITS)

    def _false_size(self, id: bytes, child: bytes, stated: int, found: int) -> None:
        self._findings.add(
            "tree-statement",
            id.hex(),
            f"Tree {id.hex()} says that {child.hex()} has {stated} bytes, and it has {found}; "
            "save the folder again from its source.",
        )

    def _add_refs(self, id: bytes, content: bytes) -> None:
        node = decode_node(content, Kind.REFS)
        self._keep(id, node)
        if node.level:
            self._inner.append(id)
        by = f"refs node {id.hex()}"
        for index in range(len(node)):
            kind = int(Kind.REFS) if node.level else node.tags[index]
            self.expect(node.child_id(index), kind, by)

    def _add_recipe(self, id: bytes, recipe: Recipe) -> None:
        kind = Kind.RECIPE if recipe.level else Kind.BLOB
        for index, size in enumerate(recipe.sizes):
            span = recipe.span(index)
            if self.expect(span, kind, f"recipe {id.hex()}") and not recipe.level:
                code = self._known.get(span)
                if code != code_of(Kind.BLOB, size):
                    self._findings.add(
                        "recipe-statement",
                        id.hex(),
                        f"Recipe {id.hex()} says that the chunk {span.hex()} has {size} bytes, "
                        "which is not so; put the whole content again.",
                    )

    def _keep(self, id: bytes, node: Node) -> None:
        if self._nodes_kept_bytes < _NODES_KEPT_BYTES:
            self._nodes[id] = node
            self._nodes_kept_bytes += node.weight_bytes

    # -- what had to wait --------------------------------------------------------------------

    def finish(self) -> None:
        """Judge what could not be judged when it came."""
        for child, parent, number in _WAITING.iter_unpack(self._waiting):
            code = self._known.get(child)
            # A child that is still unread is damaged, which was told of.
            if code is None or code >> KIND_BITS == UNREAD:
                continue
            if number != UNREAD and code >> KIND_BITS != min(number, SIZE_MAX):
                self._false_size(parent, child, number, code >> KIND_BITS)
            elif code & TALL and (number == UNREAD or not self._is_inner(parent)):
                self._wrong_kind(child, code, Kind.TREE, parent.hex())
        for id in self._inner:
            self._judge_inner(id)
        self._waiting.clear()
        self._inner.clear()

    def _is_inner(self, id: bytes) -> bool:
        node = self._node(id)
        return node is None or node.level > 0

    def _node(self, id: bytes) -> Node | None:
        """A node once more; None when it cannot be had, which was told of."""
        node = self._nodes.get(id)
        if node is None:
            try:
                kind, content = self._load(id)
                node = decode_node(content, kind, verified=True) if kind in FLAVOURS else None
            except CasError:
                return None
        return node

    def _judge_inner(self, id: bytes) -> None:
        """What an inner node says of its children, and whether they end where they must."""
        node = self._node(id)
        if node is None:
            return
        code = self._known.get(id)
        kind = Kind.REFS if code is not None and code & KIND_MASK == Kind.REFS else Kind.TREE
        for index in range(len(node)):
            child = self._node(node.child_id(index))
            if child is None:
                continue
            try:
                check_child(FLAVOURS[kind], node, index, child)
                _check_end(child, is_last=index == len(node) - 1)
            except NotCanonical as error:
                self._findings.add(
                    "tree-statement",
                    id.hex(),
                    f"Tree node {id.hex()} does not fit {node.child_id(index).hex()} below it "
                    f"({error}); save the folder again from its source.",
                )


def _check_end(node: Node, *, is_last: bool) -> None:
    """Whether a node below another ends where its names say; the last of a level may be open."""
    ends = boundary.ends(node.level, node.names)
    if ends != [len(node)] and not (is_last and not ends):
        reason = "a node ends elsewhere than its names ask for"
        raise NotCanonical(f"Not a valid tree: {reason}.", reason=reason)


def _kinds_below(node: Node) -> bytes:
    """Kind of the object in each entry of a directory node."""
    return bytes([Kind.TREE]) * len(node) if node.level else bytes(node.tags).translate(_KINDS)


def _leaf(fields: list[Any], content: bytes) -> Node:
    level, names, tags, ids, numbers, _extras = fields
    return Node(level, names, tags, ids, numbers, content)


def _may_be_leaf(fields: Any) -> bool:
    """Whether decoded columns look like a directory's leaf that is its root."""
    return (
        type(fields) is list
        and len(fields) == 6
        and not fields[0]
        and type(fields[1]) is list
        and len(fields[1]) <= NODE_SINGLE_ENTRIES_MAX
        and fields[5] == {}
    )


def _are_good_leaves(
    levels: Sequence[Any],
    names: Sequence[Any],
    tags: Sequence[Any],
    ids: Sequence[Any],
    numbers: Sequence[Any],
) -> bool:
    """Whether columns of several nodes, each as `_may_be_leaf` wants it, are certainly leaves.

    False says nothing: `decode_node` then judges each name by name, which takes far longer.
    """
    if not (
        _all_are(int, levels)
        and _all_are(bytes, tags)
        and _all_are(bytes, ids)
        and _all_are(list, numbers)
    ):
        return False
    counts = list(map(len, names))
    sizes, all_names = list(chain(*numbers)), list(chain(*names))
    if not (
        counts == list(map(len, tags)) == list(map(len, numbers))
        and [ID_BYTES * count for count in counts] == list(map(len, ids))
        and _all_are(int, sizes)
        and _all_are(bytes, all_names)
        and _TAGS.issuperset(b"".join(tags))
        and min(sizes, default=0) >= 0
        and max(map(sum, numbers)) <= SIZE_MAX
        and _NO_NAMES.isdisjoint(all_names)
        and max(map(len, all_names), default=0) <= ENTRY_NAME_BYTES_MAX
    ):
        return False
    joined = b"/".join(all_names)
    falls = compress(count(1), map(ge, all_names, all_names[1:]))
    return (
        b"\0" not in joined
        and joined.count(b"/") == max(len(all_names) - 1, 0)
        # Names ascend, but from one node to the next.
        and set(accumulate(counts)).issuperset(falls)
    )


def _all_are(kind: type, values: Iterable[Any]) -> bool:
    """Whether all values are of just this type."""
    return {kind}.issuperset(map(type, values))
