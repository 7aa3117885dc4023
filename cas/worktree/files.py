"""Reading one entry of a folder: opened below its directory, following nothing, read whole.

Floor 5. Invariant: content that is given as settled was read between two looks at the same
unchanged file; a FIFO, socket or device that takes a file's place is never waited for.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Final, NamedTuple

from cas.errors import CasError, Invalid, NotAllowed, NotFound, WasPurged
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.model.ids import Kind, digest_of, digest_parts
from cas.model.names import printable, to_text
from cas.model.objects import EXECUTABLE, FILE, LINK, TREE
from cas.worktree.names import is_unfinished

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a FIFO that takes a file's place would block the open for ever.
OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TRIES: Final = 3
_READ_BYTES: Final = 1 << 20

_ENCODING: Final = sys.getfilesystemencoding()
_ERRORS: Final = sys.getfilesystemencodeerrors()


class Fault(NamedTuple):
    """Why an entry cannot be saved; `reason` as in `Problem`."""

    reason: str
    message: str


class Content(NamedTuple):
    """What a file held. `torn`: it still changed at the last try, and may mix two moments."""

    data: bytes
    status: os.stat_result
    torn: bool


_PURGED: Final = Fault(
    "purged", "this content was purged and stays out; `cas put --allow-purged` takes it in again"
)


def encode_name(name: str) -> bytes:
    """`os.fsencode` without its checks."""
    return name.encode(_ENCODING, _ERRORS)


def read_file(fd: int, name: bytes, whole_max: int) -> Content | os.stat_result | Fault:
    """Content of the file `name` in directory `fd`; its status when it is over `whole_max` bytes.

    Raises `OSError`.
    """
    for _ in range(_TRIES):
        file = os.open(name, OPEN_FILE, dir_fd=fd)
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                return special(before.st_mode)
            size = before.st_size
            if size > whole_max:
                return before
            data = os.read(file, size + 1)
            if len(data) != size:
                data = _read_on(file, data, whole_max)
                if len(data) > whole_max:
                    return before
            after = os.fstat(file)
        finally:
            os.close(file)
        if len(data) == size and same(before, after):
            return Content(data, before, False)
    return Content(data, before, True)


def _read_on(file: int, data: bytes, whole_max: int) -> bytes:
    """The rest of a file that gave another number of bytes than it was said to have."""
    parts = [data]
    count = len(data)
    while count <= whole_max and (part := os.read(file, _READ_BYTES)):
        parts.append(part)
        count += len(part)
    return b"".join(parts)


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file was left alone between two looks."""
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
    )


def special(mode: int) -> Fault:
    """Why what is neither file, link nor directory is not saved."""
    if stat.S_ISFIFO(mode):
        return Fault("fifo", "a FIFO cannot be saved")
    if stat.S_ISSOCK(mode):
        return Fault("socket", "a socket cannot be saved")
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return Fault("vanished", "something else took its place while it was read")
    return Fault("device", "a device cannot be saved")


def left_out(name: bytes) -> Fault:
    """Why a name for which `is_left_out` holds is not saved."""
    if is_unfinished(name):
        return Fault("unfinished", "a restore that was killed has left it; remove it")
    return Fault("name", "other systems would take it for a store's own folder")


def failure(error: OSError | WasPurged) -> Fault:
    """What the operating system or the store said, as a fault."""
    if isinstance(error, WasPurged):
        return _PURGED
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
    return Fault("vanished" if gone else "unreadable", (error.strerror or str(error)).lower())


def no_folder(folder: bytes, error: OSError) -> CasError:
    """Why a folder cannot be read: `NotFound`, `NotAllowed` or `Invalid`."""
    shown, path = printable(folder), to_text(folder)
    if isinstance(error, FileNotFoundError):
        return NotFound(f"There is no folder {shown}.", path=path)
    if isinstance(error, PermissionError):
        return NotAllowed(f"{shown} may not be read by this user.", path=path)
    return Invalid(f"{shown} cannot be read as a folder: {error.strerror}.", path=path)


def hash_file(fd: int, name: bytes) -> bytes:
    """Blob id of a file of any size, as it is read. Raises `OSError`."""
    file = os.open(name, OPEN_FILE, dir_fd=fd)
    try:
        return digest_parts(iter(lambda: os.read(file, _READ_BYTES), b""))
    finally:
        os.close(file)


def file_id(fd: int, name: bytes) -> bytes | None:
    """Blob id of a file's content, or None when it cannot be read or does not hold still."""
    try:
        found = read_file(fd, name, WHOLE_BLOB_BYTES_MAX)
        if isinstance(found, Content):
            return None if found.torn else digest_of(Kind.BLOB, found.data)
        return hash_file(fd, name) if isinstance(found, os.stat_result) else None
    except OSError:
        return None


def link_id(fd: int, name: bytes) -> bytes | None:
    """Blob id of a link's target, or None when it cannot be read."""
    try:
        return digest_of(Kind.BLOB, os.fsencode(os.readlink(name, dir_fd=fd)))
    except OSError:
        return None


def status_of(fd: int, name: bytes) -> os.stat_result | None:
    """Status of what stands there, no link followed; None where nothing does. Raises `OSError`."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def kind_of(mode: int) -> int:
    """Whether an entry of this mode is a link, a directory, or else a file."""
    if stat.S_ISLNK(mode):
        return LINK
    return TREE if stat.S_ISDIR(mode) else FILE


def tag_of(mode: int) -> int:
    """What a leaf of this mode is in a tree: a link, an executable or a plain file."""
    if stat.S_ISLNK(mode):
        return LINK
    return EXECUTABLE if mode & 0o100 else FILE
