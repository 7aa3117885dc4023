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
    imports are. With `keep` what was asked for is not looked up again: for modules whose names
    stay what they are, and which are asked hundreds of times in one call.
    """

    def __init__(self, name: str, *, keep: bool = False) -> None:
        self._name = name
        self._keep = keep
        self._module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        module = self._module
        if module is None:
            module = self._module = import_module(self._name)
        found = getattr(module, name)
        if self._keep:
            setattr(self, name, found)
        return found
