"""Where the nodes of refs trees are: stored at checkpoints, and in memory between them.

Floor 4; implements docs/format.md section 5.5. Invariant: what is not stored can be made again from
the entries behind the last checkpoint, so that dropping it costs a replay and nothing else.
"""

from __future__ import annotations

from cas.objects.store import ObjectStore
from cas.trees.node import REFS, Node, id_of

_PAST_NODES = 4096
"""Nodes of replays kept: about 20 MB."""


class RefNodes:
    """Nodes of refs trees: those of checkpoints are stored, the others live here.

    Every node since the last checkpoint can be made again from the entries. `rotate` after a
    checkpoint bounds the memory; the generation before it stays for readers of moments that
    have just passed, and an older moment is replayed when somebody asks again. What such a
    replay makes is kept apart, in `past`: no checkpoint has to store it, and a handle that only
    looks back never sees one.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._stored = objects.tree_nodes(REFS)
        self._young: dict[bytes, Node] = {}
        self._old: dict[bytes, Node] = {}
        self.past = PastNodes(self)

    def __len__(self) -> int:
        """Nodes held."""
        return len(self._young) + len(self._old) + len(self.past)

    def load(self, node_id: bytes) -> Node:
        # Compared with None: to ask a node whether it is true is to ask for its length.
        if (node := self._young.get(node_id)) is not None:
            return node
        if (node := self._old.get(node_id)) is not None:
            return node
        node = self.past.get(node_id)
        return self._stored.load(node_id) if node is None else node

    def save(self, node: Node) -> bytes:
        id = id_of(REFS, node)
        self._young[id] = node
        return id

    def is_young(self, id: bytes) -> bool:
        """Whether no checkpoint is known to hold this node."""
        return id in self._young

    def rotate(self) -> None:
        """A checkpoint has stored every node of the newest tree."""
        self._old = self._young
        self._young = {}


class PastNodes:
    """The `NodeStore` of replays of moments long gone: two generations of bounded size."""

    def __init__(self, nodes: RefNodes) -> None:
        self._nodes = nodes
        self._new: dict[bytes, Node] = {}
        self._old: dict[bytes, Node] = {}

    def __len__(self) -> int:
        """Nodes held."""
        return len(self._new) + len(self._old)

    def get(self, node_id: bytes) -> Node | None:
        """The node, if it is here."""
        node = self._new.get(node_id)
        return self._old.get(node_id) if node is None else node

    def begin(self) -> None:
        """Make room for a replay; never in the middle of one, which needs what it made."""
        if len(self._new) > _PAST_NODES:
            self._old, self._new = self._new, {}

    def load(self, node_id: bytes) -> Node:
        return self._nodes.load(node_id)

    def save(self, node: Node) -> bytes:
        id = id_of(REFS, node)
        self._new[id] = node
        return id
