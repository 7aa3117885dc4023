"""A directory on the way of a walk: opened when it is first needed, from the folder downwards.

Floor 5. Invariant: a descriptor is reached through those above it, and never through a link, so
that a directory that is swapped for one while the walk runs is an error and not another place.
"""

from __future__ import annotations

import os
from typing import Final

from cas.limits import (
    ENTRY_NAME_BYTES_MAX,
    PATH_BYTES_MAX,
    PATH_DEPTH_MAX,
    WHOLE_BLOB_BYTES_MAX,
)
from cas.model.objects import FILE, LINK, TREE
from cas.worktree.files import OPEN_DIRECTORY, Content, encode_name, read_file
from cas.worktree.ignore import Rules
from cas.worktree.names import MARKER, STORE_FOLDER, is_left_out

_SPECIAL: Final = 0
ALIAS: Final = -1
"""The kind of a name that is left out as one of a store's own."""
_STORE_STARTS: Final = b".cC"


class Place:
    """One directory. `path` is absolute, `prefix` relative to the folder with a slash."""

    __slots__ = ("_fd", "depth", "name", "path", "prefix", "room", "rules", "up")

    def __init__(self, path: bytes, up: Place | None, name: bytes, fd: int = -1) -> None:
        self.path = path
        self.up = up
        self.name = name
        self.prefix: bytes = b"" if up is None else up.prefix + name + b"/"
        self.depth: int = 0 if up is None else up.depth + 1
        self.room = min(ENTRY_NAME_BYTES_MAX, PATH_BYTES_MAX - len(self.prefix))
        """Bytes that a name here may have."""
        if self.depth >= PATH_DEPTH_MAX:
            self.room = 0
        self._fd = fd
        self.rules: Rules | None = None
        """What is ignored here; None until somebody asks."""

    def fd(self) -> int:
        """Descriptor of the directory. Raises `OSError`."""
        if self._fd < 0:
            assert self.up is not None
            self._fd = os.open(self.name, OPEN_DIRECTORY, dir_fd=self.up.fd())
        return self._fd

    def close(self) -> None:
        """Give up the descriptor, if there is one."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_rules(fd: int, files: tuple[bytes, ...]) -> list[bytes]:
    """Contents of the ignore files in a directory; what is no regular file is none."""
    contents = []
    for name in files:
        try:
            found = read_file(fd, name, WHOLE_BLOB_BYTES_MAX)
        except OSError:
            continue
        if isinstance(found, Content):
            contents.append(found.data)
    return contents


def kinds_in(fd: int, own: tuple[int, int] | None) -> dict[bytes, int]:
    """Kinds by name of what a directory has, but for stores; `own` is (device, inode) of one."""
    kinds: dict[bytes, int] = {}
    own_inode = -1 if own is None else own[1]
    with os.scandir(fd) as entries:
        for entry in entries:
            name = encode_name(entry.name)
            first = name[0]
            if (first in _STORE_STARTS or first > 127) and is_left_out(name):
                if name.lower() not in (STORE_FOLDER, MARKER):
                    kinds[name] = ALIAS
                continue
            # Files first, there are most of them; it costs no look where the host says.
            if entry.is_file(follow_symlinks=False):
                kinds[name] = FILE
            elif not entry.is_dir(follow_symlinks=False):
                kinds[name] = LINK if entry.is_symlink() else _SPECIAL
            elif entry.inode() != own_inode or not _is(entry, own):
                kinds[name] = TREE
    return kinds


def _is(entry: os.DirEntry[str], own: tuple[int, int] | None) -> bool:
    status = entry.stat(follow_symlinks=False)
    return (status.st_dev, status.st_ino) == own
