"""The directory that a walk repeats as it was committed before: what stood at each path.

Floor 5. Invariant: what is given is a hint for compression and never more: a path without an
older version, or one that cannot be read, gives None. Memory follows the depth of the walk and
the nodes of the directories on the way, never the number of files. Used by one thread.

Nothing is read before it is asked for, and the walk asks only where something is new.
"""

from __future__ import annotations

from bisect import bisect_left

from cas.errors import CasError
from cas.limits import ID_BYTES
from cas.model.objects import TREE
from cas.trees.node import Node, NodeStore


class _Past:
    """One directory as it was: its nodes by level, each with the last name below it."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        # Of each level, leaves first: last names and ids, in order.
        self.levels: list[tuple[list[bytes], list[bytes]]] = []
        self._leaf: tuple[int, Node | None] = (-1, None)

    def fill(self, root: bytes, nodes: NodeStore) -> None:
        """Take in the nodes of a directory. Raises `CasError`."""
        node = nodes.load(root)
        if not node.names:
            return
        self.levels = [([], []) for _ in range(node.level + 1)]
        self.levels[node.level] = ([node.names[-1]], [root])
        if node.level == 0:
            self._leaf = (0, node)
        for level in range(node.level, 0, -1):
            names, ids = self.levels[level - 1]
            for id in self.levels[level][1]:
                above = nodes.load(id)
                names += above.names
                ids += [above.child_id(at) for at in range(len(above))]

    def find(self, name: bytes, nodes: NodeStore) -> tuple[int, bytes] | None:
        """(tag, id) of an entry. Raises `CasError`."""
        if not self.levels:
            return None
        names, ids = self.levels[0]
        at = bisect_left(names, name)
        if at == len(names):
            return None
        number, leaf = self._leaf
        if leaf is None or number != at:
            leaf = nodes.load(ids[at])
            self._leaf = (at, leaf)
        index = bisect_left(leaf.names, name)
        if index == len(leaf) or leaf.names[index] != name:
            return None
        return leaf.tags[index], leaf.ids[index * ID_BYTES : (index + 1) * ID_BYTES]

    def node(self, node: Node) -> bytes | None:
        """Id of the node that covered the last name of a new one."""
        if node.level >= len(self.levels) or not node.names:
            return None
        names, ids = self.levels[node.level]
        return ids[min(bisect_left(names, node.names[-1]), len(ids) - 1)]


class Versions:
    """Older versions of files and directory nodes below one root."""

    def __init__(self, root: bytes, nodes: NodeStore) -> None:
        self._root = root
        self._nodes = nodes
        self._stack: list[_Past] = []

    def file(self, prefix: bytes, name: bytes) -> bytes | None:
        """Id of what stood as `name` in a directory (a path with a slash behind it, or none)."""
        try:
            found = self._directory(prefix).find(name, self._nodes)
        except CasError:
            return None
        return None if found is None or found[0] == TREE else found[1]

    def node(self, prefix: bytes, node: Node) -> bytes | None:
        """Id of the node of the same directory that covered the same names."""
        return self._directory(prefix).node(node)

    def _directory(self, prefix: bytes) -> _Past:
        """A directory as it was; an empty one where there was none, or none that can be read."""
        stack = self._stack
        while stack and not prefix.startswith(stack[-1].prefix):
            stack.pop()
        if not stack:
            stack.append(self._read(b"", self._root))
        while stack[-1].prefix != prefix:
            above = stack[-1]
            end = prefix.index(b"/", len(above.prefix)) + 1
            name = prefix[len(above.prefix) : end - 1]
            try:
                found = above.find(name, self._nodes)
            except CasError:
                found = None
            root = found[1] if found is not None and found[0] == TREE else None
            stack.append(self._read(prefix[:end], root))
        return stack[-1]

    def _read(self, prefix: bytes, root: bytes | None) -> _Past:
        past = _Past(prefix)
        if root is not None:
            try:
                past.fill(root, self._nodes)
            except CasError:
                return _Past(prefix)
        return past
