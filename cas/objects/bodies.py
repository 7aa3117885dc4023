"""Bytes that are kept because they are asked for again: bodies of inline packs, bases of deltas.

Floor 3. Invariant: what is kept under a key never changes: a row of the catalog is not rewritten
and its number not used twice, and an id has one content. Bounded by bytes, least recently used
out first. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

_K = TypeVar("_K", int, bytes)


class BytesCache(Generic[_K]):
    """Bytes by key; one is kept even if it alone is more than `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[_K, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _K) -> bytes | None:
        """What is kept under a key."""
        found = self._kept.get(key)
        if found is not None:
            try:  # noqa: SIM105 - suppress() costs more than the read that follows
                self._kept.move_to_end(key)
            except KeyError:
                pass  # another thread dropped it between the two lines
        return found

    def put(self, key: _K, content: bytes) -> None:
        """Keep bytes under a key that has none."""
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = content
            self._bytes += len(content)
            while self._bytes > self._bytes_max and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        """Drop all of them."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
