"""The folder of a store: what lies in it, and what lies there that should not.

Floor 5; reads docs/format.md section 8. Invariant: files are counted and never opened: closing
one of SQLite's would drop the locks of the whole process.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from cas.errors import CasError, CorruptCatalog, NotAllowed, NotAStore, StoreNotFound
from cas.model.names import CACHE as CACHE
from cas.storage import place

CATALOG: Final = "catalog.sqlite"
PACKS: Final = place.PACKS
LOCKS: Final = "locks"
ASIDE: Final = "catalog.damaged-"
"""What the name of a catalog begins with that a repair put aside. It may be deleted when nobody
misses anything; until then it holds what it held.
"""

_PACK = re.compile(r"[0-9a-f]{32}\.pack")
_TEMPORARY: Final = ".tmp"


def files(folder: str, prefix: str = "") -> Iterator[tuple[str, int]]:
    """(path, bytes) of each file below a folder. Files that vanish meanwhile are left out."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from files(entry.path, name + os.sep)
                else:
                    try:
                        yield name, entry.stat(follow_symlinks=False).st_size
                    except OSError:
                        continue
    except OSError:
        return


def strangers(location: str) -> list[tuple[str, bool]]:
    """(path, is temporary) of files below the folder that are no part of a store, sorted.

    What lies in the cache or beside the locks is nobody's business.
    """
    found = []
    for name, _size in files(location):
        top, slash, rest = name.partition(os.sep)
        if top in (CACHE, LOCKS) and slash:
            continue
        if top == PACKS and slash:
            if not _PACK.fullmatch(rest):
                found.append((name, rest.endswith(_TEMPORARY)))
        elif name not in (CATALOG, CATALOG + "-wal", CATALOG + "-shm", PACKS):
            found.append((name, False))
    return sorted(found)


def has_catalog(folder: str) -> bool:
    """Whether a folder holds a catalog. Raises `NotAllowed` where this user may not look, and
    `NotAStore` where it is no file: to open a pipe would wait for who writes into it.
    """
    path = os.path.join(folder, CATALOG)
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise NotAllowed(
            f"The store at {folder} may not be opened by this user.", path=folder
        ) from error
    except OSError:
        return False
    if not stat.S_ISREG(mode):
        raise NotAStore(f"{path} is no file, so that {folder} is no store.", path=folder)
    return True


def is_bereft(folder: str) -> bool:
    """Whether a folder is a store but for its catalog."""
    return all(os.path.exists(os.path.join(folder, name)) for name in (PACKS, LOCKS))


def no_store(folder: str) -> CasError:
    """The error for a folder that holds no catalog: what it is, and what to do about it."""
    if is_bereft(folder):
        return CorruptCatalog(
            f"The catalog of the store at {folder} is missing; put it back, or let `cas repair` "
            "make it from the packs.",
            detail="missing",
        )
    if os.path.isdir(folder) and os.listdir(folder):
        return NotAStore(
            f"{folder} is not a store; make one elsewhere with `cas init PATH`.", path=folder
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        return StoreNotFound(f"{folder} is a file, and a store is a folder; name one.", path=folder)
    return StoreNotFound(
        f"There is no store at {folder}; make one with `cas init {folder}`.", path=folder
    )
