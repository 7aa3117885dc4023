"""Rooms that are loaded when they are first used, because few programs use them.

Floor 0. Invariant: what is loaded later is also imported for the type checker, so that it counts
as an import like any other: strictly down, and in no ring.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Later:
    """A module that is imported when one of its names is first asked for. Thread-safe, as
    imports are.
    """

    __slots__ = ("_module", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        module = self._module
        if module is None:
            module = self._module = import_module(self._name)
        return getattr(module, name)
