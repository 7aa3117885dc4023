"""Archiving as a step of workloads: entries come, then all that may go leaves the journal's rows.

Invariant: with the thresholds of `stores.SMALL` every step moves something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from cas.history.store import Store
from cas.objects.archive import archive_some


class Drives(Protocol):
    """A driver of workloads."""

    doubts: list[bytes]
    """Transactions of which nobody knows what became."""

    @property
    def store(self) -> Store:
        """The handle that the steps use."""


_D = TypeVar("_D", bound=Drives)


def archive_all(store: Store) -> int:
    """Mirror the journal, and move what may go; how many entries went."""
    store.mirror()
    count = 0
    while moved := archive_some(store.objects):
        count += moved
    return count


def archive_behind(driver: _D, *steps: Callable[[_D], None]) -> None:
    """Steps that commit, then what there is moves; nothing more where an outcome is in doubt."""
    for step in steps:
        step(driver)
        if driver.doubts:
            return
    archive_all(driver.store)
