"""Room that is kept for when there is none: a file that is given up where the disk is full.

Floor 2. Invariant: it is a file of the cache, which may be deleted at any time; nothing fails for
want of it, and it is never made of the last room that there is, nor while there is much of it.

Its bytes are random, because a file system may store none of those that it can compress.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cas.limits import RESERVE_FREE_BYTES_MAX

NAME: Final = "reserve"
LENT_BYTES: Final = 64 << 10
"""What one who only opens a store is given of it."""
_PLENTY: Final = 4
"""It is made where so many times as much is free."""
_PIECE_BYTES: Final = 1 << 20


class Reserve:
    """The reserve of one store; `folder` None: there is none. Any number of processes."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._path: Final = None if folder is None else os.path.join(folder, NAME)

    def keep(self, size_bytes: int, random: Callable[[int], bytes]) -> None:
        """See to it that it has so many bytes, where a full disk is not far and there is room for
        them. Never raises.
        """
        with suppress(OSError):
            self._keep(size_bytes, random)

    def _keep(self, size_bytes: int, random: Callable[[int], bytes]) -> None:
        if self._path is None or size_bytes <= 0:
            return
        try:
            have = os.stat(self._path).st_size
        except FileNotFoundError:
            have = 0
        if have >= size_bytes:
            return
        if not _PLENTY * (size_bytes - have) <= self.free_bytes() < RESERVE_FREE_BYTES_MAX:
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            at = have
            while at < size_bytes:
                # Where others make it too, all write the same places.
                at += os.pwrite(fd, random(min(_PIECE_BYTES, size_bytes - at)), at)
        except OSError:
            os.ftruncate(fd, have)
        finally:
            os.close(fd)

    def lend(self) -> bool:
        """Give up a little of it; whether there was any."""
        if self._path is None:
            return False
        try:
            have = os.stat(self._path).st_size
            os.truncate(self._path, max(0, have - LENT_BYTES))
        except OSError:
            return False
        return have > 0

    def give_up(self) -> None:
        """Give up all of it. Another may have just done so. Never raises."""
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)

    def free_bytes(self) -> int:
        """What is free where it lies, for this user. Raises `OSError`."""
        if self._folder is None:
            return 1 << 62
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize
