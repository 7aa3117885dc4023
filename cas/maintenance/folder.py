"""The folder of a store: what lies in it, and what lies there that should not.

Floor 5; reads docs/format.md section 8. Invariant: files are counted and never opened: closing
one of SQLite's would drop the locks of the whole process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

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
