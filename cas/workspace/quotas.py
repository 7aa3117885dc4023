"""What a context may hold, compared with every tree that one of its branches is to have.

Floor 6. Invariant: no commit of a unit of work and no merge makes a branch of a context hold more
than was declared of it, however many write at once: the comparison is made on the tree that is
published, inside the gate where others were faster. Who is over a limit that was lowered may go on
with less, or with as much.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from cas.history.branch import Check
from cas.history.core import Core
from cas.model.names import to_text
from cas.objects.content import Readable
from cas.objects.store import ObjectStore
from cas.trees import paths
from cas.trees.node import NodeStore
from cas.workspace.contexts import Context
from cas.workspace.layout import place_of

# How many files lie below each node of a tree that was counted, of each store.
_COUNTS: Final[WeakKeyDictionary[ObjectStore, dict[bytes, int]]] = WeakKeyDictionary()
_COUNTS_MAX: Final = 100_000


def quota(core: Core, context: Context | None) -> Check | None:
    """What compares trees of a context with its limits; None where it has none of these."""
    if context is None:
        return None
    total_max, count_max = context.total_bytes_max, context.aggregate_count_max
    if total_max is None and count_max is None:
        return None

    def check(old: bytes, new: bytes, nodes: NodeStore) -> None:
        if total_max is not None:
            size_bytes = _size(new, nodes)
            if size_bytes > max(total_max, _size(old, nodes)):
                what = f"its branch would hold {size_bytes} bytes"
                raise context.too_much("total_bytes_max", size_bytes, what)
        if count_max is not None:
            count = _count(core, new, nodes)
            if count > max(count_max, _count(core, old, nodes)):
                what = f"its branch would hold {count} aggregates"
                raise context.too_much("aggregate_count_max", count, what)

    return check


def _size(root: bytes, nodes: NodeStore) -> int:
    found = paths.lookup(root, (), nodes)
    return 0 if found is None else found.size


def _count(core: Core, root: bytes, nodes: NodeStore) -> int:
    """The records of all collections of a tree."""
    known = _COUNTS.setdefault(core.objects, {})
    if len(known) > _COUNTS_MAX:
        known.clear()
    return sum(
        paths.leaves(entry.id, nodes, known)
        for name, entry in paths.list_directory(root, (), nodes)
        if entry.is_tree and place_of(f"{to_text(name)}/-").kind == "record"
    )


def bounded(context: Context | None, name: str, content: Any) -> Any:
    """The content of an artifact as it may be staged: what is too long is refused before it is, at
    the latest while it is read. Raises `LimitExceeded`.
    """
    if context is None or context.artifact_bytes_max is None:
        return content
    if isinstance(content, bytes | bytearray | memoryview):
        context.check_content(name, memoryview(content).nbytes)
    elif isinstance(content, os.PathLike):
        with suppress(OSError, ValueError):  # who opens it tells what is wrong
            context.check_content(name, os.stat(content).st_size)
    elif hasattr(content, "read") and not getattr(content, "closed", False):
        return _Bounded(content, context, name)
    return content


class _Bounded:
    """A stream that ends with an error once more than a context allows was read of it."""

    def __init__(self, stream: Readable, context: Context, name: str) -> None:
        self._stream = stream
        self._context = context
        self._name = name
        self._size_bytes = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes. Raises `LimitExceeded`."""
        data = self._stream.read(size)
        self._size_bytes += len(data or b"")
        self._context.check_content(self._name, self._size_bytes)
        return data
