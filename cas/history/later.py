"""Rooms that are loaded when they are first used, because few programs use them.

Floor 4. Invariant: what is loaded later is also imported for the type checker, so that it counts
as an import like any other: strictly down, and in no ring.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """A module that is imported when one of its names is first asked for. Thread-safe, as
    imports are.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)
