"""The few calls to the operating system that the store writes files with, in one place.

Floor 2. Everything durable that is not SQLite's passes here, so that tests can record, fail or
tear each call (`cas.testing.recorder`). Errors become `StorageFull` or `StorageFailed`; a failed
sync is never tried again, because Linux marks the lost pages clean (fsyncgate).
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import NoReturn

from cas.errors import AccessDenied, ReadOnly, StorageFailed, StorageFull


def translate(error: OSError, path: str) -> NoReturn:
    """Raise the typed error for what the operating system said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageFull(
            f"No space is left for {path}; nothing was committed. Free space and try again.",
            path=path,
        ) from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise ReadOnly(f"{path} cannot be written: {error.strerror}.", path=path) from error
    raise StorageFailed(
        f"I/O failed at {path}: {error.strerror or error}.", path=path, errno=error.errno
    ) from error


def translate_read(error: OSError, path: str) -> NoReturn:
    """`translate`, for a call that only reads: who may not read is not told about writing."""
    if error.errno in (errno.EACCES, errno.EPERM):
        raise AccessDenied(f"{path} may not be read by this user.", path=path) from error
    translate(error, path)


class Files:
    """The real calls. Thread-safe: there is no state."""

    def create(self, path: str) -> int:
        """A new file, open for writing and reading back; it must not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of `data` at the end."""
        view = memoryview(data)
        while view:
            written = os.write(fd, view)
            view = view[written:]

    def sync(self, fd: int) -> None:
        """Make the file's bytes durable."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def begin_sync(self, fd: int, start: int, length: int) -> None:
        """Have the system begin to write these bytes out, where it can be told; waits for nothing,
        and promises nothing: an error of it is told by `sync`.
        """
        if hasattr(os, "posix_fadvise"):
            # Of bytes that nobody needs: Linux sets off what is dirty, and keeps it in memory,
            # because it lets go only of what lies on the disk already.
            with suppress(OSError):
                os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)

    def sync_file(self, path: str) -> None:
        """Make the bytes of a file durable that somebody else has written."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            Files.sync(self, fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        """Give up the descriptor."""
        os.close(fd)

    def link(self, source: str, target: str) -> None:
        """Give a file another name; fails when that name exists."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        """A new folder; it must not exist."""
        os.mkdir(path)

    def rename(self, source: str, target: str) -> None:
        """Give a folder another name; fails when a folder of that name holds anything."""
        os.rename(source, target)

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


OS_FILES = Files()
