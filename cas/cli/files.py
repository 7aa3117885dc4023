"""Write a file of the user's, whole or not at all.

Floor 9. Invariant: a regular file appears under its name only when all of it is written; what
was there before stays until then.
"""

from __future__ import annotations

import os
import stat
from typing import NoReturn

from cas.clock import SystemClock
from cas.errors import Invalid, NotAllowed, NotFound, StorageFailed, StorageFull
from cas.model.names import printable, quoted
from cas.objects.content import Readable

_PART_BYTES = 1 << 20
_MODE = 0o666
_FULL = (28, 122)  # ENOSPC, EDQUOT


def write_file(name: str, content: Readable) -> None:
    """Write everything `content` gives to the file `name`.

    A file that is there keeps its mode; a device or a pipe is written to as it is. Raises
    `NotFound`, `Invalid` for a folder, `NotAllowed`, `StorageFull`, `StorageFailed`.
    """
    if not name or name.endswith("/"):
        raise Invalid(f"{quoted(name)} names no file; name one.", path=name)
    target = os.path.realpath(name)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        _fail(name, error)
    if not stat.S_ISREG(mode):
        _write(target, content, os.O_WRONLY, name)
        return
    part = f"{target}.{SystemClock().random(6).hex()}.part"
    try:
        _write(part, content, os.O_WRONLY | os.O_CREAT | os.O_EXCL, name)
        if stat.S_IMODE(mode):
            os.chmod(part, stat.S_IMODE(mode))
        os.replace(part, target)
    except BaseException as error:
        if os.path.lexists(part):
            os.unlink(part)
        if isinstance(error, OSError):
            _fail(name, error)
        raise


def _write(path: str, content: Readable, flags: int, name: str) -> None:
    try:
        with os.fdopen(os.open(path, flags | os.O_CLOEXEC, _MODE), "wb", buffering=0) as file:
            while part := content.read(_PART_BYTES):
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
    except OSError as error:
        _fail(name, error)


def _fail(name: str, error: OSError) -> NoReturn:
    shown = printable(name)
    if isinstance(error, BrokenPipeError):
        raise error
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        raise NotFound(f"There is no folder for {shown}; make it first.", path=name) from error
    if isinstance(error, IsADirectoryError):
        raise Invalid(f"{shown} is a folder; name a file in it.", path=name) from error
    if isinstance(error, PermissionError):
        raise NotAllowed(f"{shown} may not be written by this user.", path=name) from error
    if error.errno in _FULL:
        raise StorageFull(f"There is no space for {shown}.", path=name) from error
    raise StorageFailed(
        f"{shown} cannot be written: {error.strerror}.", path=name, errno=error.errno
    ) from error
