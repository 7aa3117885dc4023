"""One SQLite connection: how it is opened, set up, and how its errors are told.

Floor 2. Invariant: no connection of a store is used with other pragmas than these, and no
error of the engine leaves the catalog untyped.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NoReturn

from cas.catalog.forks import disinherit, note
from cas.errors import (
    AccessDenied,
    Busy,
    CorruptCatalog,
    ReadOnly,
    StorageFailed,
    StorageFull,
)
from cas.limits import CATALOG_CACHE_KIB

if TYPE_CHECKING:
    import apsw

BUSY_MS: Final = 10_000
LOG_BYTES: Final = 1 << 26
"""What a log that begins anew is cut to."""

_PRAGMAS: Final = (
    "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;"
    # This build overwrites what it frees by default, which would send every page that a spill
    # gives back through the log once more. A purge asks for it where it is meant.
    "PRAGMA secure_delete=OFF;"
    f"PRAGMA cache_size=-{CATALOG_CACHE_KIB};"
)
# The log is synced by `cas.catalog.log`, outside the gate.
_WRITING: Final = (
    "PRAGMA synchronous=NORMAL; PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON;"
    f"PRAGMA wal_autocheckpoint=1000; PRAGMA journal_size_limit={LOG_BYTES};"
)

Seal = tuple[int, int, int]
"""What a file that was closed cleanly looked like: inode, bytes, time of its last change (ns)."""


def connect(
    path: str, *, read_only: bool = False, sealed: bool = False, vfs: str | None = None
) -> apsw.Connection:
    """Open an existing catalog file. `path` may be a `file:` URI. Raises the engine's errors.

    `sealed`: read it as a file that nobody changes, without log and locks; see `seal_of`.
    """
    import apsw

    disinherit(path)
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
    name = path
    if name.startswith("file:"):
        flags |= apsw.SQLITE_OPEN_URI
    elif sealed:
        name = "file:" + _uri(path) + "?immutable=1"
        flags |= apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(name, flags=flags, vfs=vfs)
    note(connection, path)
    try:
        _configure(connection, read_only)
    except BaseException:
        connection.close(True)
        raise
    return connection


def seal_of(path: str) -> Seal | None:
    """The seal of a file that has to be read without a log; None where there is no need.

    It was closed cleanly, and this user cannot make the files beside it that SQLite would need.
    Another user may: then it has another seal, or none, and has to be opened again.
    """
    if path.startswith("file:") or os.access(os.path.dirname(path), os.W_OK):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    if os.path.exists(path + "-wal"):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _uri(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _configure(connection: apsw.Connection, read_only: bool) -> None:
    import apsw

    connection.set_busy_timeout(BUSY_MS)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    # The last connection to close would take the log away as it is (`cas.catalog.log`).
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    # In one call: each of its own costs as much again as what it does.
    connection.execute(_PRAGMAS if read_only else _PRAGMAS + _WRITING).fetchall()


def _is_closed_to_us(path: str) -> bool:
    # Not by opening it: to close a file again would give up every lock that SQLite has on it.
    effective = os.access in os.supports_effective_ids
    return os.path.exists(path) and not os.access(path, os.R_OK, effective_ids=effective)


def is_full(error: BaseException) -> bool:
    """Whether the engine said this for want of room, in a file or in what processes share."""
    import apsw

    return isinstance(error, apsw.FullError) or cannot_share(error)


def cannot_share(error: BaseException) -> bool:
    """Whether the memory that processes share, a file as well, could not be made longer."""
    import apsw

    code = getattr(error, "extendedresult", 0)  # not in the stubs of the package
    return isinstance(error, apsw.IOError) and code == apsw.SQLITE_IOERR_SHMSIZE


def reraise(error: BaseException, path: str) -> None:
    """Raise the typed error for one of the engine's; leave every other as it is."""
    import apsw

    if isinstance(error, apsw.Error | UnicodeDecodeError):
        translate(error, path)


def typed(error: Exception, path: str) -> Exception:
    """The typed error for what the engine said, as a value."""
    try:
        translate(error, path)
    except Exception as found:
        return found


def translate(error: BaseException, path: str) -> NoReturn:
    """Raise the typed error for what the engine said."""
    import apsw

    if isinstance(error, apsw.BusyError | apsw.LockedError):
        raise Busy(
            f"{path} is locked by another program; nothing was committed. Try again.",
            waited_ms=BUSY_MS,
        ) from error
    if is_full(error):
        raise StorageFull(
            f"No space is left for {path}; nothing was committed. Free space and try again.",
            path=path,
        ) from error
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        raise ReadOnly(f"{path} cannot be written: {error}.", path=path) from error
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | UnicodeDecodeError):
        raise CorruptCatalog(
            f"The catalog {path} is damaged ({error}); nothing was changed. Restore a backup, "
            "or rebuild it from the packs.",
            detail=str(error),
        ) from error
    if isinstance(error, apsw.CantOpenError) and _is_closed_to_us(path):
        raise AccessDenied(f"{path} may not be read by this user.", path=path) from error
    if isinstance(error, apsw.IOError | apsw.CantOpenError):
        raise StorageFailed(f"I/O failed at {path}: {error}.", path=path, errno=None) from error
    if isinstance(error, apsw.ConstraintError | apsw.SQLError):
        raise CorruptCatalog(
            f"The catalog {path} contradicts itself: {error}.", detail=str(error)
        ) from error
    if isinstance(error, apsw.Error):
        raise StorageFailed(f"SQLite failed at {path}: {error}.", path=path, errno=None) from error
    raise error
