"""One node of a tree: columns in memory, canonical bytes on disk.

Floor 2; implements the layout of docs/format.md section 5.1. Invariant: `node.data` is always
the canonical encoding of the columns, whether it was decoded, encoded or spliced (`splice`).

`Node` is a plain class with slots because an attrs frozen class takes four times as long to
make; by convention nobody changes a node or its lists after it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import ge
from typing import Any, Final, Protocol

from attrs import field

from cas.errors import Invalid, InvalidName, LimitExceeded, NewerFormat, NotCanonical
from cas.limits import (
    ID_BYTES,
    NODE_BYTES_MAX,
    NODE_ENTRIES_MAX,
    NODE_NAME_BYTES_MAX,
    NODE_SINGLE_ENTRIES_MAX,
    REF_NAME_BYTES_MAX,
    TREE_LEVELS_MAX,
)
from cas.model.encoding import (
    ARRAY,
    EMPTY_MAP,
    STRING,
    decode,
    encode_plain,
    head,
    is_extras,
    is_uint,
    put_uint,
    shape,
)
from cas.model.ids import Kind, digest_of
from cas.model.names import check_entry_name, printable
from cas.model.objects import EntryKind
from cas.model.values import frozen
from cas.trees import boundary

Value = tuple[int, bytes, int]
"""(tag, id, number) of a leaf entry; (leaf entries, id, number) of an inner one."""

Item = tuple[bytes, Value]
"""An entry: its name and its value."""

Edit = tuple[bytes, Value | None]
"""A name and its new value; None deletes it."""

Made = tuple[bytes, bytes]
"""The id of the node before an edit, and a patch of it (`cas.model.patch`) that gives this one."""

NO_EXTRAS: Final[dict[str, Any]] = {}

# A node is an array of 6; its level comes first.
LEVEL_HEADS: Final = tuple(head(ARRAY, 6) + put_uint(level) for level in range(TREE_LEVELS_MAX + 1))
NUMBER_END: Final = 1 << 64


def _check_ref_key(name: bytes) -> bytes:
    if not 1 <= len(name) <= REF_NAME_BYTES_MAX:
        raise InvalidName(
            f"A ref name has 1 to {REF_NAME_BYTES_MAX} bytes, not {len(name)}.",
            name=printable(name),
            reason="length",
        )
    return name


def _largest(numbers: Sequence[int]) -> int:
    return max(numbers, default=0)


@frozen(eq=False)
class Flavour:
    """What differs between the trees of directories and the refs tree.

    `fold` makes the number of an inner entry from the numbers of its child; `check_name`
    gives the name back or raises `InvalidName` or `LimitExceeded`.
    """

    kind: Kind
    tags: frozenset[int]
    fold: Callable[[Sequence[int]], int]
    check_name: Callable[[bytes], bytes]
    empty: bytes = field(init=False)
    """Root of the empty tree, known without a look-up."""

    @empty.default
    def _empty(self) -> bytes:
        return digest_of(self.kind, EMPTY_DATA)


class Node:
    """A node. `data` is its encoding, `id` its id or b"" while nobody asked.

    `names`: list of bytes, ascending. `tags`: bytes of a leaf, list of counts of an inner node.
    `ids`: 32 bytes an entry. `numbers`: list of int. Not to be changed; threads may share it.
    `made`: what it was made from, for the store that is to keep it, which forgets it then.
    """

    __slots__ = (
        "data",
        "extras",
        "id",
        "ids",
        "ids_at",
        "level",
        "made",
        "names",
        "numbers",
        "tags",
        "tags_at",
    )

    def __init__(
        self,
        level: int,
        names: list[bytes],
        tags: Sequence[int],
        ids: bytes,
        numbers: list[int],
        data: bytes,
        tags_at: int = 0,
        ids_at: int = 0,
    ) -> None:
        self.level = level
        self.names = names
        self.tags = tags
        self.ids = ids
        self.numbers = numbers
        self.data = data
        # Where the tags column and the 32-byte ids begin in `data`; 0 while unknown, so that
        # nodes that are only read never pay for it.
        self.tags_at = tags_at
        self.ids_at = ids_at
        self.extras = NO_EXTRAS
        self.id = b""
        self.made: Made | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Node(level={self.level}, entries={len(self.names)}, bytes={len(self.data)})"

    def child_id(self, index: int) -> bytes:
        """Id in entry `index`."""
        return self.ids[index * ID_BYTES : (index + 1) * ID_BYTES]

    def value(self, index: int) -> Value:
        """Value of entry `index`."""
        at = index * ID_BYTES
        return self.tags[index], self.ids[at : at + ID_BYTES], self.numbers[index]

    @property
    def count(self) -> int:
        """Leaf entries at or below this node."""
        return sum(self.tags) if self.level else len(self.names)

    @property
    def weight_bytes(self) -> int:
        """About what a decoded node takes in memory, for the budget of a cache."""
        return 2 * len(self.data) + 112 * len(self.names) + 400


class NodeStore(Protocol):
    """Where nodes come from and go to. Callers own caching, kinds and durability."""

    def load(self, node_id: bytes) -> Node:
        """The node of this id. Raises `ObjectNotFound` and `Corrupt` errors."""

    def save(self, node: Node) -> bytes:
        """Take a new node; gives its id (see `id_of`)."""


def encode_node(
    level: int, names: list[bytes], tags: Sequence[int], ids: bytes, numbers: list[int]
) -> Node:
    """A node of these columns with its canonical bytes. The columns must be legal."""
    return assemble(level, names, encode_plain(names), tags, ids, numbers)


def assemble(
    level: int,
    names: list[bytes],
    names_column: bytes,
    tags: Sequence[int],
    ids: bytes,
    numbers: list[int],
) -> Node:
    """`encode_node` with the names encoded already; for `splice`."""
    start = LEVEL_HEADS[level]
    tags_at = len(start) + len(names_column)
    tags_column = encode_plain(tags) if level else head(STRING, len(tags)) + bytes(tags)
    ids_head = head(STRING, len(ids))
    data = b"".join(
        (
            start,
            names_column,
            tags_column,
            ids_head,
            ids,
            encode_plain(numbers),
            EMPTY_MAP,
        )
    )
    ids_at = tags_at + len(tags_column) + len(ids_head)
    return Node(level, names, tags, ids, numbers, data, tags_at, ids_at)


EMPTY_DATA: Final = encode_node(0, [], b"", b"", []).data

DIRECTORY: Final = Flavour(Kind.TREE, frozenset(map(int, EntryKind)), sum, check_entry_name)
REFS: Final = Flavour(
    Kind.REFS, frozenset((int(Kind.COMMIT), int(Kind.TAG))), _largest, _check_ref_key
)
FLAVOURS: Final[dict[int, Flavour]] = {Kind.TREE: DIRECTORY, Kind.REFS: REFS}


def empty_node() -> Node:
    """The leaf of no entries."""
    return Node(0, [], b"", b"", [], EMPTY_DATA)


def id_of(flavour: Flavour, node: Node) -> bytes:
    """Id of a node, hashed once and remembered in it."""
    if not node.id:
        node.id = digest_of(flavour.kind, node.data)
    return node.id


def check_known(node: Node) -> Node:
    """`node` itself when it may be rewritten. Raises `NewerFormat`."""
    if node.extras:
        raise foreign_extras(node)
    return node


def foreign_extras(node: Node) -> NewerFormat:
    """The error for a node that this version may read and not rewrite."""
    return NewerFormat(
        "A tree node carries extras that this version does not know and may not drop: "
        f"{', '.join(sorted(node.extras))}. Use a newer version to change this directory.",
        needs=sorted(node.extras),
        known=[],
    )


# -- reading ---------------------------------------------------------------------------------


def decode_node(data: bytes, kind: int, *, verified: bool = False) -> Node:
    """The node of these bytes; `kind` is `Kind.TREE` or `Kind.REFS`. Raises `NotCanonical`.

    `verified=True` is for bytes that hash to an id which this store made or checked before: it
    trusts them. Otherwise everything that one node can show is checked; what a node says of its
    children is checked by `load_child` and `check_child`.
    """
    fields = decode(data, verified=verified)
    shape(type(fields) is list and len(fields) == 6, "a tree node is an array of 6")
    level, names, tags, ids, numbers, extras = fields
    if not verified:
        _check_fields(data, FLAVOURS[kind], level, names, tags, ids, numbers, extras)
    node = Node(level, names, tags, ids, numbers, data)
    if extras:
        node.extras = extras
    return node


def _check_fields(
    data: bytes,
    flavour: Flavour,
    level: Any,
    names: Any,
    tags: Any,
    ids: Any,
    numbers: Any,
    extras: Any,
) -> None:
    """Every rule that one node can break on its own. Raises `NotCanonical`."""
    shape(len(data) <= NODE_BYTES_MAX, f"a tree node has at most {NODE_BYTES_MAX} bytes")
    shape(is_uint(level) and level <= TREE_LEVELS_MAX, "a node's level is a small number")
    shape(is_extras(extras), "a node's extras are a map")
    shape(type(names) is list, "a node's names are an array")
    count = len(names)
    shape(count <= NODE_ENTRIES_MAX, f"a node has at most {NODE_ENTRIES_MAX} entries")
    shape(count > 0 or level == 0, "an inner node has a child")
    shape(all(type(name) is bytes for name in names), "a node's names are byte strings")
    shape(not any(map(ge, names, names[1:])), "a node's names ascend strictly")
    try:
        for name in names:
            flavour.check_name(name)
    except (InvalidName, LimitExceeded) as error:
        raise NotCanonical(f"Not a valid tree node: {error}", reason=str(error)) from error
    shape(
        sum(map(len, names[:-1])) < NODE_NAME_BYTES_MAX,
        f"a node ends when its names reach {NODE_NAME_BYTES_MAX} bytes",
    )
    if level:
        shape(
            type(tags) is list and all(is_uint(c) and c >= 1 for c in tags),
            "an inner node counts the entries below each child",
        )
        shape(sum(tags) < NUMBER_END, "a node's counts add up to 64 bits")
    else:
        shape(
            type(tags) is bytes and flavour.tags.issuperset(tags),
            "a leaf has a known tag for each entry",
        )
    shape(len(tags) == count, "a node has one tag for each name")
    shape(type(ids) is bytes and len(ids) == ID_BYTES * count, "a node has one id for each name")
    shape(
        type(numbers) is list and len(numbers) == count and all(map(is_uint, numbers)),
        "a node has one number for each name",
    )
    shape(flavour.fold(numbers) < NUMBER_END, "a node's numbers add up to 64 bits")
    if count > NODE_SINGLE_ENTRIES_MAX:
        # Such a node is no root, so that it must have ended at the first end.
        shape(
            boundary.ends(level, names) in ([], [count]),
            "a node ends at the first end that its names ask for",
        )


def load_root(flavour: Flavour, root: bytes, nodes: NodeStore) -> Node:
    """The root node of a tree; the empty tree is known without loading."""
    if root == flavour.empty:
        return empty_node()
    node = nodes.load(root)
    if len(node.names) > NODE_SINGLE_ENTRIES_MAX:
        reason = f"the root of a tree has at most {NODE_SINGLE_ENTRIES_MAX} entries"
        raise NotCanonical(f"Not a valid tree: {reason}.", reason=reason, id=root)
    return node


def load_child(node: Node, index: int, nodes: NodeStore) -> Node:
    """The child in entry `index` of an inner node; its level and last name are checked."""
    at = index * ID_BYTES
    child_id = node.ids[at : at + ID_BYTES]
    child = nodes.load(child_id)
    if child.level != node.level - 1 or not child.names or child.names[-1] != node.names[index]:
        reason = "an inner node states another level or last name than its child has"
        raise NotCanonical(f"Not a valid tree: {reason}.", reason=reason, id=child_id)
    return child


def check_child(flavour: Flavour, node: Node, index: int, child: Node) -> None:
    """Everything an inner node states of a child. Raises `NotCanonical`. For fsck and import."""
    shape(child.level == node.level - 1, "a child's level is one below")
    shape(len(child) > 0 and child.names[-1] == node.names[index], "a child's last name is stated")
    shape(index == 0 or child.names[0] > node.names[index - 1], "children do not overlap")
    shape(child.count == node.tags[index], "a child's count of entries is stated")
    shape(flavour.fold(child.numbers) == node.numbers[index], "a child's number is stated")


# -- what callers pass in ----------------------------------------------------------------------


def check_value(flavour: Flavour, value: Value) -> None:
    """Refuse a leaf value that has no place in a tree of this flavour. Raises `Invalid`."""
    tag, child, number = value
    if tag not in flavour.tags:
        raise Invalid(f"{tag} is no tag of a {flavour.kind.name.lower()} node.")
    if not isinstance(child, bytes) or len(child) != ID_BYTES:
        raise Invalid(f"An entry's id is {ID_BYTES} bytes, not {child!r}.")
    if type(number) is not int:
        # True would be encoded as a truth value, and equal 1 all the same.
        raise Invalid(f"An entry's size or sequence number is an integer, not {number!r}.")
    if not 0 <= number < NUMBER_END:
        check_number(number)


def check_number(number: int) -> int:
    """`number` itself when it fits 64 bits. Raises `Invalid`."""
    if not 0 <= number < NUMBER_END:
        raise Invalid(f"The size or sequence number {number} does not fit 64 bits.")
    return number
