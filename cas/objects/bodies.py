"""Bodies of inline packs that were read: kept, because the catalog gives a body only whole.

Floor 3. Invariant: a body is what the catalog's row held; rows are never changed, and their
numbers never used twice. Bounded by bytes, least recently used out first. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict


class BodyCache:
    """Bodies by number of their pack; one is kept even if it alone is more than `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._bodies: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int) -> bytes | None:
        """The body, if it is here."""
        body = self._bodies.get(number)
        if body is not None:
            try:  # noqa: SIM105 - suppress() costs more than the read that follows
                self._bodies.move_to_end(number)
            except KeyError:
                pass  # another thread dropped it between the two lines
        return body

    def put(self, number: int, body: bytes) -> None:
        """Keep a body."""
        with self._lock:
            if number in self._bodies:
                return
            self._bodies[number] = body
            self._bytes += len(body)
            while self._bytes > self._bytes_max and len(self._bodies) > 1:
                self._bytes -= len(self._bodies.popitem(last=False)[1])

    def clear(self) -> None:
        """Drop all of them."""
        with self._lock:
            self._bodies.clear()
            self._bytes = 0
