"""The room that a store keeps for collecting, and how much it needs.

Floor 3. Invariant: only a handle that writes makes it, after what it wrote was acknowledged; its
size follows that of the store, and it is given up by who collects.

A collection writes before it gives anything back: bits and rows of what it condemns, and what of
objects and journal lies in the catalog alone, which has to be in a pack before a file may go.
"""

from __future__ import annotations

from contextlib import suppress

from cas.catalog.catalog import Catalog
from cas.clock import Clock
from cas.errors import CasError
from cas.limits import (
    RESERVE_BYTES_MAX,
    RESERVE_BYTES_MIN,
    RESERVE_SHARE,
    RESERVE_STORE_BYTES_MIN,
)
from cas.objects.lookup import Lookup
from cas.storage.reserve import Reserve


class Room:
    """Of one store. Any thread."""

    def __init__(self, catalog: Catalog, lookup: Lookup, clock: Clock, cache: str | None) -> None:
        # A server has its own disk, and whoever cannot write here makes nothing.
        has_any = not (catalog.is_distant or catalog.read_only)
        self._reserve = Reserve(cache if has_any else None)
        self._lookup = lookup
        self._clock = clock

    def keep(self) -> None:
        """Make the reserve, or make it larger, where there is plenty of room. Never raises."""
        with suppress(CasError):
            lookup = self._lookup
            packs = lookup.ensure().packs.values()
            total_bytes = sum([pack.body_bytes for pack in packs])
            if total_bytes >= RESERVE_STORE_BYTES_MIN:
                wanted = total_bytes // RESERVE_SHARE + lookup.inline_bytes // 2
                size_bytes = max(RESERVE_BYTES_MIN, min(wanted, RESERVE_BYTES_MAX))
                self._reserve.keep(size_bytes, self._clock.random)

    def give_up(self) -> None:
        """Let others, and this collection above all, have it. Never raises."""
        self._reserve.give_up()

    def free_bytes(self) -> int:
        """What is free on the disk of the store."""
        with suppress(OSError):
            return self._reserve.free_bytes()
        return 0
