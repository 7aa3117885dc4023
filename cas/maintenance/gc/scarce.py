"""A collection on a full disk: what it does without, and how it gets on.

Floor 5. Invariant: the reserve of the store is given up once in a run, at the first step that
finds no room; that step is done again, and whoever comes after it does without what only saves
work.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from cas.errors import StorageFull
from cas.limits import GC_WASTE_MIN
from cas.maintenance.gc.compact import compact
from cas.objects.store import ObjectStore

T = TypeVar("T")

_ROUNDS_MAX: Final = 64
_SPARE_BYTES: Final = 64 << 10
_SPARE_SHARE: Final = 8
"""So much of what is free, or one in so many, is left for the log and for others."""


class Scarce:
    """One run. `found`: whether the disk was full."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.found = False

    def note(self) -> None:
        """The disk is full: give up the reserve."""
        if not self.found:
            self.found = True
            self._objects.room.give_up()

    def do(self, step: Callable[[], T]) -> T:
        """Do a step, again if it was the first to find no room. Raises `StorageFull`."""
        try:
            return step()
        except StorageFull:
            if self.found:
                raise
        self.note()
        return step()

    def compact(self, bytes_max: int) -> int:
        """Write wasteful packs anew, if there is room for it; bytes moved."""
        if not self.found:
            try:
                return compact(self._objects, waste_min=GC_WASTE_MIN, bytes_max=bytes_max)
            except StorageFull:
                self.note()
        return 0

    def squeeze(self, bytes_max: int, mirror: Callable[[], int], unlink: Callable[[], None]) -> int:
        """The same where the disk was full: as much at a time as fits into what is free, which
        `unlink` makes more. Bytes moved.
        """
        objects, moved = self._objects, 0
        if self.found:
            # While there is room for it: behind the newest entry no file may go.
            with suppress(StorageFull):
                mirror()
        for _ in range(_ROUNDS_MAX if self.found else 0):
            free_bytes = objects.room.free_bytes()
            spare_bytes = max(_SPARE_BYTES, free_bytes // _SPARE_SHARE)
            part_bytes = min(free_bytes - spare_bytes, bytes_max - moved)
            done = 0
            with suppress(StorageFull):
                done = compact(objects, waste_min=GC_WASTE_MIN, bytes_max=part_bytes)
                unlink()
            if not done:
                break
            moved += done
        return moved
