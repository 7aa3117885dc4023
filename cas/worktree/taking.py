"""One file or link of a folder, read whole for somebody who keeps it.

Floor 5. Invariant: what is given as taken was read between two looks at the same unchanged file;
where it changed meanwhile nothing is given but the reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.model.names import Path, join_path, printable
from cas.model.objects import EntryKind
from cas.objects.content import Readable
from cas.worktree.below import Below
from cas.worktree.files import OPEN_FILE, Content, Fault, failure, read_file, same, special
from cas.worktree.values import Problem

Put = Callable[[bytes | Readable, EntryKind], object]
"""Takes content and what it is: file, executable, or link with its target as content."""


def take(below: Below, path: Path, put: Put) -> Problem | None:
    """Read what stands at a path into `put`; why that was not possible, or None.

    A long file that changed while it was read has been put by then: drop it.
    """
    try:
        fault = _take(below.to(path[:-1]), path[-1], put)
    except OSError as error:
        fault = failure(error)
    if fault is None:
        return None
    text = join_path(path)
    return Problem(text, fault.reason, f"{printable(text)}: {fault.message}")


def _take(fd: int, name: bytes, put: Put) -> Fault | None:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        put(os.fsencode(os.readlink(name, dir_fd=fd)), EntryKind.LINK)
        return None
    found = read_file(fd, name, WHOLE_BLOB_BYTES_MAX)
    if isinstance(found, Fault):
        return found
    if isinstance(found, Content):
        if found.torn:
            return _TORN
        put(found.data, _kind(found.status))
        return None
    file = os.open(name, OPEN_FILE, dir_fd=fd)
    with os.fdopen(file, "rb", buffering=0) as stream:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            return special(before.st_mode)
        put(stream, _kind(before))
        return None if same(before, os.fstat(file)) else _TORN


_TORN = Fault("changed-while-reading", "it changed while it was read; it is looked at again later")


def _kind(status: os.stat_result) -> EntryKind:
    return EntryKind.EXECUTABLE if status.st_mode & 0o100 else EntryKind.FILE
