"""A store in a folder that had none: it appears whole, or not at all.

Floor 5; implements docs/format.md section 8. Invariant: it is built beside its place and renamed
into it once it is durable, so of many that try at once one makes it and the others find it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from cas.catalog.catalog import DELTAS, DICTIONARIES, Meta
from cas.catalog.host import check_filesystem
from cas.catalog.schema import FORMAT_VERSION
from cas.catalog.sqlite import create_catalog
from cas.clock import Clock
from cas.errors import NotAStore
from cas.later import Later
from cas.maintenance.folder import CACHE, CATALOG, LOCKS, PACKS
from cas.storage.files import OS_FILES, Files, translate, translate_read

if TYPE_CHECKING:
    from cas.storage import remote
    from cas.storage.remote import BucketRecord
else:
    remote = Later("cas.storage.remote")


def build(
    folder: str,
    clock: Clock,
    *,
    files: Files = OS_FILES,
    vfs: str | None = None,
    deltas: bool = True,
    dictionaries: bool = True,
    fill: Callable[[str], None] | None = None,
    bucket: str | None = None,
) -> bool:
    """`init` where no store was found, with the calls to the system passed in: tests do that.

    `fill` is given the folder before it has its name, and makes the catalog and what else it
    begins with; without it the store is empty. `bucket` is the address of a prefix for the packs,
    which is claimed for the store. Raises as `remote.claim` does where it cannot be.
    """
    address = None if bucket is None else remote.parse_address(bucket)
    parent = os.path.dirname(folder)
    _refuse_inside(folder)
    building = os.path.join(parent, f".{os.path.basename(folder)}.{clock.random(8).hex()}.new")
    try:
        make_folders(parent, files)
        check_filesystem(parent)
        files.mkdir(building)
    except OSError as error:
        translate(error, folder)
    claimed: BucketRecord | None = None
    try:
        for name in (LOCKS, CACHE):
            files.mkdir(os.path.join(building, name))
        if address is None:
            files.mkdir(os.path.join(building, PACKS))
        else:
            claimed = remote.claim(address, clock)
            remote.write_record(os.path.join(building, PACKS), claimed, files)
        if fill is None:
            made = new_meta(clock, deltas, dictionaries)
            create_catalog(os.path.join(building, CATALOG), made, vfs=vfs)
        else:
            fill(building)
        files.sync_folder(building)
        files.rename(building, folder)
        files.sync_folder(parent)
    except OSError as error:
        _remove(building, claimed, clock)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            if os.path.exists(os.path.join(folder, CATALOG)):
                return False
            raise NotAStore(
                f"{folder} exists and is not an empty folder; choose another place.", path=folder
            ) from error
        translate(error, folder)
    except BaseException:
        _remove(building, claimed, clock)
        raise
    return True


def refuse_taken(folder: str) -> None:
    """Raise `NotAStore` unless a folder is missing or empty."""
    try:
        taken = os.path.lexists(folder) and bool(os.listdir(folder))
    except NotADirectoryError:
        taken = True
    except OSError as error:
        translate_read(error, folder)
    if taken:
        raise NotAStore(
            f"{folder} exists and is not an empty folder; name another place.", path=folder
        )


def _refuse_inside(folder: str) -> None:
    """Raise `NotAStore` where no folder can be, or where another store would have it in its own."""
    above = os.path.dirname(folder)
    while True:
        if os.path.exists(os.path.join(above, CATALOG)):
            raise NotAStore(
                f"{folder} lies in the folder of the store {above}; choose another place.",
                path=folder,
            )
        if os.path.lexists(above) and not os.path.isdir(above):
            raise NotAStore(f"{above} is no folder; choose another place.", path=folder)
        if above == os.path.dirname(above):
            return
        above = os.path.dirname(above)


def _remove(folder: str, claimed: BucketRecord | None, clock: Clock) -> None:
    if claimed is not None:
        remote.release(claimed, clock)
    # Loaded here: it brings three compression libraries, and this is the rare case.
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def new_meta(clock: Clock, deltas: bool, dictionaries: bool) -> Meta:
    """What a store that is made now says of itself."""
    features = (DELTAS,) * deltas + (DICTIONARIES,) * dictionaries
    return Meta(clock.random(16), clock.random(16), FORMAT_VERSION, features, clock.wall_us())


def make_folders(path: str, files: Files) -> None:
    """Make a folder and those above it, each durable: what lies in a lost one is lost too."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with suppress(FileExistsError):
            files.mkdir(folder)
        files.sync_folder(os.path.dirname(folder))
