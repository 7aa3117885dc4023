"""Looking up many paths of one directory tree: what was found on the way is remembered.

Floor 2. Invariant: what is given is what `paths.value_at` gives. One thread.
"""

from __future__ import annotations

from typing import Final

from cas.model.names import Path
from cas.model.objects import TREE
from cas.trees.cursor import get
from cas.trees.node import DIRECTORY, NodeStore, Value

_KNOWN_MAX: Final = 1024
"""Values that are remembered."""


class Known:
    """The values at paths of one root, until another one is asked: each directory on the way to
    several paths is looked up once.
    """

    __slots__ = ("_nodes", "_root", "_values")

    def __init__(self, nodes: NodeStore) -> None:
        self._nodes = nodes
        self._root = b""
        self._values: dict[Path, Value | None] = {}

    def look(self, root: bytes, parts: Path) -> Value | None:
        """The value at a path of one name or more, or None."""
        if root != self._root or len(self._values) > _KNOWN_MAX:
            self._root, self._values = root, {}
        values = self._values
        if parts in values:
            return values[parts]
        at = len(parts) - 1
        while at > 0 and parts[:at] not in values:
            at -= 1
        value: Value | None = values[parts[:at]] if at > 0 else (TREE, root, 0)
        while value is not None and at < len(parts):
            found = get(DIRECTORY, value[1], parts[at], self._nodes) if value[0] == TREE else None
            at += 1
            value = values[parts[:at]] = found
        values[parts] = value
        return value
