"""Whether a tree is the one that its entries ask for: the check for fsck and for imports.

Floor 2; checks the whole of docs/format.md section 5.1 for one tree. Invariant: a tree that
passes has, node for node, the bytes that `build` would give, so that `apply` may trust it.
"""

from __future__ import annotations

from cas.errors import Invalid, NotCanonical
from cas.trees.build import build
from cas.trees.cursor import scan
from cas.trees.node import Flavour, Node, NodeStore, check_known, id_of


class _Rebuild:
    """Loads from a store, refusing extras; saving only hashes."""

    def __init__(self, flavour: Flavour, nodes: NodeStore) -> None:
        self.flavour = flavour
        self.nodes = nodes

    def load(self, node_id: bytes) -> Node:
        return check_known(self.nodes.load(node_id))

    def save(self, node: Node) -> bytes:
        return id_of(self.flavour, node)


def verify(flavour: Flavour, root: bytes, nodes: NodeStore) -> None:
    """Read a whole tree and build it anew; memory is bounded. Directories below are not entered.

    Raises `NotCanonical` (fields `id`, `reason`) when a node states something false, an entry
    does not belong or a node ends elsewhere than the rule says; `NewerFormat` when a node has
    unknown extras, whose truth cannot be judged; and what `nodes.load` raises.
    """
    source = _Rebuild(flavour, nodes)
    try:
        rebuilt = build(flavour, scan(flavour, root, source), source).root
    except (Invalid, NotCanonical) as error:
        raise _fault(root, str(error)) from error
    if rebuilt != root:
        raise _fault(root, "its entries give another tree")


def _fault(root: bytes, reason: str) -> NotCanonical:
    return NotCanonical(f"The tree {root.hex()} is not valid: {reason}", id=root, reason=reason)
