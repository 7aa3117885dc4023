"""Descriptors of the directories below a folder, opened one below the other.

Floor 5. Invariant: no directory is reached through a link, whatever is put into the folder
meanwhile. One thread; close it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cas.model.names import Path
from cas.worktree.files import OPEN_DIRECTORY


class Below:
    """The folder and the directories on the way to the one that was asked for last."""

    def __init__(self, folder: bytes) -> None:
        """Open the folder itself; a link to it is the caller's own and followed."""
        self._top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._way: list[tuple[bytes, int]] = []

    def to(self, parts: Path, *, make: bool = False) -> int:
        """Descriptor of a directory; with `make` what is missing on the way is made.

        Raises `OSError`.
        """
        way = self._way
        same = 0
        while same < min(len(way), len(parts)) and way[same][0] == parts[same]:
            same += 1
        self._cut(same)
        for part in parts[same:]:
            fd = way[-1][1] if way else self._top
            try:
                below = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
                below = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
            way.append((part, below))
        return way[-1][1] if way else self._top

    def prune(self, parts: Path) -> None:
        """Remove a directory and those above it, as far as they are empty."""
        for length in range(len(parts), 0, -1):
            try:
                os.rmdir(parts[length - 1], dir_fd=self.to(parts[: length - 1]))
            except OSError:
                return

    def _cut(self, length: int) -> None:
        while len(self._way) > length:
            os.close(self._way.pop()[1])

    def close(self) -> None:
        """Close all."""
        self._cut(0)
        if self._top >= 0:
            os.close(self._top)
            self._top = -1
