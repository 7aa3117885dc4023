"""A store in a folder that had none: it appears whole, or not at all.

Floor 5; implements docs/format.md section 8. Invariant: it is built beside its place and renamed
into it once it is durable, so of many that try at once one makes it and the others find it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from cas.catalog.catalog import DELTAS, DICTIONARIES, Meta
from cas.catalog.host import check_filesystem
from cas.catalog.sqlite import FORMAT_VERSION, create_catalog
from cas.clock import Clock
from cas.errors import NotAStore
from cas.maintenance.folder import CACHE, CATALOG, LOCKS, PACKS
from cas.storage.files import OS_FILES, Files, translate


def build(
    folder: str,
    clock: Clock,
    *,
    files: Files = OS_FILES,
    vfs: str | None = None,
    deltas: bool = True,
    dictionaries: bool = True,
    fill: Callable[[str], None] | None = None,
) -> bool:
    """`init` where no store was found, with the calls to the system passed in: tests do that.

    `fill` is given the folder before it has its name, and makes the catalog and what else it
    begins with; without it the store is empty.
    """
    parent = os.path.dirname(folder)
    building = os.path.join(parent, f".{os.path.basename(folder)}.{clock.random(8).hex()}.new")
    try:
        _make_folders(parent, files)
        check_filesystem(parent)
        files.mkdir(building)
    except OSError as error:
        translate(error, folder)
    try:
        for name in (PACKS, LOCKS, CACHE):
            files.mkdir(os.path.join(building, name))
        if fill is None:
            made = new_meta(clock, deltas, dictionaries)
            create_catalog(os.path.join(building, CATALOG), made, vfs=vfs)
        else:
            fill(building)
        files.sync_folder(building)
        files.rename(building, folder)
        files.sync_folder(parent)
    except OSError as error:
        _remove(building)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            if os.path.exists(os.path.join(folder, CATALOG)):
                return False
            raise NotAStore(
                f"{folder} exists and is not an empty folder; choose another place.", path=folder
            ) from error
        translate(error, folder)
    except BaseException:
        _remove(building)
        raise
    return True


def _remove(folder: str) -> None:
    # Loaded here: it brings three compression libraries, and this is the rare case.
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def new_meta(clock: Clock, deltas: bool, dictionaries: bool) -> Meta:
    """What a store that is made now says of itself."""
    features = (DELTAS,) * deltas + (DICTIONARIES,) * dictionaries
    return Meta(clock.random(16), clock.random(16), FORMAT_VERSION, features, clock.wall_us())


def _make_folders(path: str, files: Files) -> None:
    """Make a folder and those above it, each durable: what lies in a lost one is lost too."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with suppress(FileExistsError):
            files.mkdir(folder)
        files.sync_folder(os.path.dirname(folder))
