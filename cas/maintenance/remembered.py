"""What upkeep remembers between runs: small JSON files in the cache folder of a store.

Floor 5. Invariant: all of it is a cache. What cannot be read was never there, what cannot be
written is forgotten with the process, and a file is there whole or not at all, however many
processes write it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Remembered:
    """One file; `folder` None: there is none. One thread."""

    def __init__(self, folder: str | None, name: str) -> None:
        self._path: Final = None if folder is None else os.path.join(folder, name)

    @property
    def lasts(self) -> bool:
        """Whether there is a place for it."""
        return self._path is not None

    def load(self, read: Callable[[Any], T], otherwise: T) -> T:
        """`read` of what was saved; `otherwise` where that is nothing, or `read` cannot take it."""
        if self._path is not None:
            odd = OSError, ValueError, TypeError, KeyError, AttributeError
            with suppress(*odd), open(self._path, "rb") as file:
                return read(json.load(file))
        return otherwise

    def save(self, value: object) -> None:
        """Replace it. Never raises for what the file system says."""
        if self._path is None:
            return
        part = f"{self._path}.{os.getpid()}.tmp"
        with suppress(OSError):
            with open(part, "w", encoding="utf-8") as file:
                json.dump(value, file, separators=(",", ":"))
            os.replace(part, self._path)
