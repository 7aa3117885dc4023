"""Where a catalog lies, so that a copy of a store is not taken for the store.

Floor 2; implements docs/format.md section 8.1. Invariant: no handle writes to a catalog that does
not lie where it says that it lies; whoever copied or moved it says which of the two it was.

What tells places apart is the inode of the catalog file, and the generation of the inode of the
folder around it: a restored copy often gets the inode number of what it replaces, never its
generation. The birth time of the file would say the same, but cannot be had from Python on Linux
without a library that costs an opening 3 ms; the generation costs 3 us. It is asked of the folder
because closing any descriptor of SQLite's own file would drop SQLite's locks. Device and host
are recorded for people and compared by nobody: containers and remounts change them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from attrs import field

from cas.errors import StoreMoved
from cas.model.segment import ANCESTOR_BYTES
from cas.model.values import frozen

_GETVERSION: Final = 0x80087601  # FS_IOC_GETVERSION where a long has 64 bits


@frozen
class Place:
    """Where a catalog lies; None is what the file system does not tell, and proves nothing."""

    inode: int | None
    generation: int | None
    device: int | None = field(default=None, eq=False)
    host: str | None = field(default=None, eq=False)

    def values(self) -> dict[str, int | str | None]:
        """Its rows of the table `meta`."""
        return {
            "inode": self.inode,
            "generation": self.generation,
            "device": self.device,
            "host": self.host,
        }

    def differs(self, other: Place) -> bool:
        """Whether both say where they are, and not the same."""
        pairs = ((self.inode, other.inode), (self.generation, other.generation))
        return any(one != two for one, two in pairs if one is not None and two is not None)


NOWHERE: Final = Place(None, None)
"""The place of what lies in no file."""


def place_of(path: str) -> Place:
    """The place of the catalog file at `path`. Raises `OSError`."""
    status = os.stat(path)
    return Place(
        _signed(status.st_ino),
        _generation(os.path.dirname(path) or "."),
        _signed(status.st_dev),
        os.uname().nodename,
    )


def recorded(meta: Mapping[str, Any]) -> Place:
    """The place that the rows of `meta` tell; what has another type is not told."""

    def number(key: str) -> int | None:
        value = meta.get(key)
        return value if isinstance(value, int) else None

    host = meta.get("host")
    return Place(
        number("inode"),
        number("generation"),
        number("device"),
        host if isinstance(host, str) else None,
    )


def refuse_moved(path: str, meta: Mapping[str, Any]) -> None:
    """Raise `StoreMoved` unless the catalog at `path` lies where its `meta` says."""
    refuse_linked(path)
    known = recorded(meta)
    if known.differs(place_of(path)):
        folder = os.path.dirname(path)
        host = f" on {known.host}" if known.host else ""
        raise StoreMoved(
            f"{folder} is not where this store was made or settled{host}: it is a copy, or was "
            f"moved. If nothing else uses the store, run `cas init --moved {folder}`; if another "
            f"copy of it goes on, run `cas init --fork {folder}`. It can be read as it is.",
            path=folder,
        )


def refuse_linked(path: str) -> None:
    """Raise `StoreMoved` when the catalog file has a second name.

    Under each name SQLite keeps another log: two writers would destroy the file for both.
    """
    if os.stat(path).st_nlink > 1:
        folder = os.path.dirname(path)
        raise StoreMoved(
            f"{path} is hard-linked to another name, and a write would change both. Copy the "
            f"folder without links (`cp -a --no-preserve=links`), then run `cas init --moved` or "
            f"`cas init --fork` on the copy; or remove the other name. It can be read as it is.",
            path=folder,
        )


def ancestor(lineage_id: bytes, seq: int) -> bytes:
    """One more link of `meta.ancestry`."""
    return lineage_id + seq.to_bytes(ANCESTOR_BYTES - len(lineage_id), "big")


def _generation(folder: str) -> int | None:
    """The generation of a folder's inode, where the file system has one."""
    if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
        return None
    import fcntl

    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The kernel writes 32 bits, whatever the size in the number of the call says.
        return int.from_bytes(fcntl.ioctl(fd, _GETVERSION, bytes(8))[:4], sys.byteorder)
    except OSError:
        return None
    finally:
        os.close(fd)


def _signed(number: int) -> int:
    """As SQLite keeps it: overlay file systems use the top bit of an inode number."""
    return number - (1 << 64) if number >> 63 else number
