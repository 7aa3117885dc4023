"""Tree nodes between the store and the algorithms of `cas.trees`: cached, staged, verified.

Floor 3. Invariant: a node in the cache was decoded from bytes that hashed to its id, or was
made here; nodes are never changed, so every thread may share them. The cache is bounded by
bytes; dropping it costs time and nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.errors import WrongKind
from cas.limits import LEAF_CACHE_BYTES
from cas.model.ids import Kind, digest_of
from cas.objects.quick import Loaded
from cas.trees.node import Flavour, Node, decode_node

if TYPE_CHECKING:
    from cas.objects.batch import Batch

_WARM_MIN: Final = 4
"""Fewer nodes are read one by one: a batch costs more to set up."""
_WARM_MAX: Final = 512
"""Nodes read together: about 2 MB, which the cache holds until they are loaded."""
_KEPT_BYTES: Final = 250
"""What bytes cost that are kept, beside their length."""


class NodeCache:
    """Nodes by id, least recently used out first; decoded, and others as their bytes, which take a
    fourth and have a room of their own. Thread-safe.
    """

    def __init__(self, bytes_max: int, kept_bytes_max: int = LEAF_CACHE_BYTES) -> None:
        self._bytes_max = bytes_max
        self._kept_bytes_max = kept_bytes_max
        self._bytes = self._kept_bytes = 0
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()
        # Never one that is decoded as well.
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def has_room(self) -> bool:
        """Whether half of the room for decoded ones is free."""
        return 2 * self._bytes < self._bytes_max

    def find(self, id: bytes) -> Node | bytes | None:
        """The node, or its bytes, if it is here."""
        found: Node | bytes | None = self._nodes.get(id)
        room: OrderedDict[bytes, Any] = self._nodes
        if found is None:
            room, found = self._kept, self._kept.get(id)
        if found is not None:
            try:  # noqa: SIM105 - suppress() costs a commit three microseconds
                room.move_to_end(id)
            except KeyError:
                pass  # another thread dropped it between the two lines
        return found

    def get(self, id: bytes) -> Node | None:
        """The node, if it is here; decoded now if it was not."""
        node = self._nodes.get(id)
        if node is not None:
            try:  # noqa: SIM105 - as in `find`
                self._nodes.move_to_end(id)
            except KeyError:
                pass
            return node
        data = self._kept.get(id)
        if data is None:
            # Perhaps another thread has decoded it between the two lines.
            return self._nodes.get(id)
        node = decode_node(data, 0, verified=True)
        node.id = id
        self.put(id, node)
        return node

    def data_of(self, id: bytes) -> bytes | None:
        """The bytes of a node, if it is here."""
        found = self.find(id)
        return found.data if isinstance(found, Node) else found

    def put(self, id: bytes, node: Node | bytes) -> None:
        """Keep a node, or the bytes of one. A decoded one takes the place of bytes."""
        with self._lock:
            self._put(id, node)

    def put_many(self, nodes: dict[bytes, Node]) -> None:
        """Keep nodes, the last of them longest."""
        with self._lock:
            for id, node in nodes.items():
                self._put(id, node)

    def _put(self, id: bytes, node: Node | bytes) -> None:
        nodes, kept = self._nodes, self._kept
        if id in nodes:
            return
        if isinstance(node, bytes):
            if id not in kept:
                kept[id] = node
                self._kept_bytes += len(node) + _KEPT_BYTES
                while self._kept_bytes > self._kept_bytes_max and len(kept) > 1:
                    self._kept_bytes -= len(kept.popitem(last=False)[1]) + _KEPT_BYTES
            return
        if (before := kept.pop(id, None)) is not None:
            self._kept_bytes -= len(before) + _KEPT_BYTES
        nodes[id] = node
        self._bytes += node.weight_bytes
        while self._bytes > self._bytes_max and len(nodes) > 1:
            self._bytes -= nodes.popitem(last=False)[1].weight_bytes

    def lacking(self, ids: Sequence[bytes]) -> list[bytes]:
        """Which of these are not here; those that are count as used."""
        nodes = self._nodes
        lacking = []
        for id in ids:
            try:
                nodes.move_to_end(id)
            except KeyError:
                if id not in self._kept:
                    lacking.append(id)
        return lacking

    def demote(self, ids: Sequence[bytes]) -> None:
        """These go first when room is needed."""
        nodes = self._nodes
        for id in ids:
            try:  # noqa: SIM105 - as in `find`
                nodes.move_to_end(id, last=False)
            except KeyError:
                pass


class TreeNodes:
    """The `NodeStore` of one flavour over a store and, for writing, a batch.

    `read` gives (kind, content) of an object, staged ones first; `many` those of many, as far as
    they can be had together, and `quick` one on the short way (`QuickReader`). Without a batch it
    only reads. One thread. Made by `ObjectStore.tree_nodes`.
    """

    def __init__(
        self,
        cache: NodeCache,
        read: Callable[[Batch | None, bytes], tuple[int, bytes]],
        flavour: Flavour,
        batch: Batch | None = None,
        many: Callable[[Sequence[bytes]], Iterator[Loaded]] | None = None,
        quick: Callable[[bytes, int], bytes | None] | None = None,
    ) -> None:
        self._cache = cache
        self._many = many
        # What is staged is asked for before what exists.
        self._quick = quick if batch is None else None
        self._read = read
        self._flavour = flavour
        self._kind = int(flavour.kind)
        self._batch = batch

    def load(self, node_id: bytes) -> Node:
        node = self._cache.get(node_id)
        if node is None:
            node = decode_node(self._content(node_id), self._kind, verified=True)
            node.id = node_id
            self._cache.put(node_id, node)
        return node

    def peek(self, node_id: bytes) -> Node | bytes:
        """`load`, or the bytes of a node that nobody has decoded: they are kept as they are where
        there is not room for all that is asked for.
        """
        found = self._cache.find(node_id)
        if found is not None:
            return found
        if self._cache.has_room:
            return self.load(node_id)
        content = self._content(node_id)
        self._cache.put(node_id, content)
        return content

    def _content(self, node_id: bytes) -> bytes:
        content = None if self._quick is None else self._quick(node_id, self._kind)
        if content is None:
            kind, content = self._read(self._batch, node_id)
            if kind != self._flavour.kind:
                raise WrongKind(
                    f"Object {node_id.hex()} is a {Kind(kind).name.lower()}, not a "
                    f"{self._flavour.kind.name.lower()} node.",
                    id=node_id,
                    expected=self._flavour.kind,
                    actual=Kind(kind),
                )
        return content

    def warm(self, ids: Sequence[bytes]) -> None:
        """Read nodes that will be loaded, those of them that can be had together; never raises
        for one that cannot.
        """
        if self._many is None or self._batch is not None:
            return
        missing = self._cache.lacking(ids)[:_WARM_MAX]
        if len(missing) < _WARM_MIN:
            return
        wanted = iter(missing)
        for kinds, contents in self._many(missing):
            found: dict[bytes, Node] = {}
            for kind, content, id in zip(kinds, contents, wanted):  # noqa: B905 - some at a time
                if content is not None and kind == self._kind:
                    node = found[id] = decode_node(content, kind, verified=True)
                    node.id = id
            self._cache.put_many(found)

    def pass_by(self, ids: Sequence[bytes]) -> None:
        """Nodes that nobody will want soon, such as those of states that were followed."""
        self._cache.demote(ids)

    def save(self, node: Node) -> bytes:
        assert self._batch is not None, "these nodes are read-only"
        id, kind, data = node.id, self._kind, node.data
        if not id:
            id = node.id = digest_of(kind, data)
        self._batch.add(id, kind, data, node.made)
        node.made = None
        self._cache.put(id, node)
        return id
