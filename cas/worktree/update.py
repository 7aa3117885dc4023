"""Bringing single paths of a folder to what they shall be, each only if it still is what it was.

Floor 5. Invariant: a file is replaced or removed only while it holds exactly what the caller says
it holds, proved by its hash; anything else stays where it is and is told. Nothing is followed,
nothing outside the folder is touched, and a file under its own name is whole whenever the
process is killed. What is told as done is on the disk: a caller notes it, and after a power cut
a file that was noted and not there would look like somebody's work.

A file that is replaced keeps a second name until the new one stands, and is hashed again then:
what somebody wrote into it meanwhile goes back under its name. What remains is a program that
holds the file open and writes after that, and one that renames another file onto it between two
system calls.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import Final

from attrs import frozen

from cas.errors import Corrupt, NotFound
from cas.limits import LINK_TARGET_BYTES_MAX, WHOLE_BLOB_BYTES_MAX
from cas.model.ids import Kind
from cas.model.names import Path, join_path, printable
from cas.model.objects import EntryKind, TreeEntry
from cas.objects.ahead import contents_ahead
from cas.objects.store import ObjectStore
from cas.storage.files import translate
from cas.worktree.below import Below
from cas.worktree.checkout import CREATE, NO_LINKS, set_executable, write_all
from cas.worktree.files import file_id, link_id, status_of
from cas.worktree.names import is_left_out, unfinished
from cas.worktree.values import Problem

_FATAL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
_EACH_MAX: Final = 128
"""Steps of which each is synced by itself; for more the whole system is, once."""


@frozen
class Step:
    """What is to become of a path: `old` must stand there, `new` shall. None: nothing does."""

    path: Path
    old: TreeEntry | None
    new: TreeEntry | None

    @property
    def text(self) -> str:
        """The path for people and programs."""
        return join_path(self.path)


@frozen
class Updated:
    """What was done, and what was left alone because something else stands there."""

    done: tuple[Step, ...]
    left: tuple[Problem, ...]


def update(objects: ObjectStore, folder: bytes, steps: Iterable[Step]) -> Updated:
    """Do steps in a folder, a real path: removals first, then what is to be written.

    Raises `StorageFull`, `StorageFailed`, `ReadOnly`; what was done by then is whole.
    """
    every = sorted(steps, key=lambda step: step.path)
    gone = [step for step in reversed(every) if step.new is None]
    done: list[Step] = []
    left: list[Problem] = []
    shown = os.fsdecode(folder)
    try:
        with closing(_Update(objects, folder, each=len(every) <= _EACH_MAX)) as work:
            for step in (*gone, *(step for step in every if step.new is not None)):
                problem = work.do(step)
                if problem is None:
                    done.append(step)
                else:
                    left.append(problem)
            work.sync()
    except OSError as error:
        translate(error, shown)
    return Updated(tuple(done), tuple(left))


class _Update:
    def __init__(self, objects: ObjectStore, folder: bytes, *, each: bool) -> None:
        self._objects = objects
        self._below = Below(folder)
        self._each = each
        # Directories in which names came or went.
        self._touched: dict[Path, None] = {}

    def close(self) -> None:
        self._below.close()

    def sync(self) -> None:
        """Have on the disk what was done."""
        if not self._each:
            os.sync()
            return
        for parts in sorted(self._touched):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.fsync(self._below.to(parts))

    def _touch(self, parts: Path) -> None:
        for length in range(len(parts), -1, -1):
            self._touched[parts[:length]] = None

    def do(self, step: Step) -> Problem | None:
        """One step; why it was not done, or None. Raises `OSError` for what ends all of them."""
        if any(map(is_left_out, step.path)):
            return _left(step, "name", "would be taken for a store's own")
        try:
            if step.new is not None and step.new.kind == EntryKind.LINK:
                target = self._objects.get(step.new.id, Kind.BLOB)
                if not target or b"\0" in target or len(target) > LINK_TARGET_BYTES_MAX:
                    return _left(step, "link", "no link can have this target")
            is_done = self._remove(step) if step.new is None else self._write(step, step.new)
        except OSError as error:
            if error.errno in _FATAL:
                raise
            return _left(step, "changed", (error.strerror or str(error)).lower())
        except (Corrupt, NotFound) as error:
            return _left(step, "damaged", f"the store cannot give its content: {error}")
        if is_done:
            self._touch(step.path[:-1])
        return None if is_done else _left(step, "changed", "something else stands there; it stays")

    def _write(self, step: Step, new: TreeEntry) -> bool:
        fd = self._below.to(step.path[:-1], make=True)
        name, old = step.path[-1], step.old
        if (status_of(fd, name) is None) is not (old is None):
            return _is(fd, name, new)
        if old is not None and old.id == new.id and EntryKind.LINK not in (old.kind, new.kind):
            if not _is(fd, name, old):
                return False
            set_executable(fd, name, new.kind == EntryKind.EXECUTABLE)
            return True
        made = self._make(fd, new)
        try:
            if old is None:
                return _settle(fd, made, name)
            return self._replace(fd, made, name, old)
        finally:
            with suppress(OSError):
                os.unlink(made, dir_fd=fd)

    def _make(self, fd: int, entry: TreeEntry) -> bytes:
        """A file or link of this content under a name of its own."""
        name = self._name()
        if entry.kind == EntryKind.LINK:
            os.symlink(self._objects.get(entry.id, Kind.BLOB), name, dir_fd=fd)
            return name
        mode = 0o755 if entry.kind == EntryKind.EXECUTABLE else 0o644
        file = os.open(name, CREATE, mode, dir_fd=fd)
        try:
            if entry.size <= WHOLE_BLOB_BYTES_MAX:
                write_all(file, self._objects.get(entry.id, Kind.BLOB))
            else:
                with closing(contents_ahead(self._objects, entry.id)) as parts:
                    for part in parts:
                        write_all(file, part)
            if self._each:
                os.fsync(file)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=fd)
            raise
        finally:
            os.close(file)
        return name

    def _replace(self, fd: int, made: bytes, name: bytes, old: TreeEntry) -> bool:
        """Put what was made in the place of a file that still is `old`."""
        kept = self._name()
        try:
            os.link(name, kept, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # No hard links here: what is written between these two calls is lost.
            if not _is(fd, name, old):
                return False
            os.rename(made, name, src_dir_fd=fd, dst_dir_fd=fd)
            return True
        ours = os.stat(made, dir_fd=fd, follow_symlinks=False)
        back = False
        try:
            if not _is(fd, kept, old) or not _same(fd, kept, name):
                return False
            os.rename(made, name, src_dir_fd=fd, dst_dir_fd=fd)
            if _is(fd, kept, old):
                return True
            back = True
        finally:
            if not back:
                os.unlink(kept, dir_fd=fd)
        now = status_of(fd, name)
        if now is not None and os.path.samestat(now, ours):
            os.rename(kept, name, src_dir_fd=fd, dst_dir_fd=fd)
        return False

    def _remove(self, step: Step) -> bool:
        fd = self._below.to(step.path[:-1])
        name, old = step.path[-1], step.old
        status = status_of(fd, name)
        if status is None:
            return True
        if old is None or stat.S_ISDIR(status.st_mode):
            return False
        kept = self._name()
        os.rename(name, kept, src_dir_fd=fd, dst_dir_fd=fd)
        if not _is(fd, kept, old):
            if _settle(fd, kept, name):
                with suppress(FileNotFoundError):
                    os.unlink(kept, dir_fd=fd)
            return False
        os.unlink(kept, dir_fd=fd)
        self._below.prune(step.path[:-1])
        return True

    def _name(self) -> bytes:
        return unfinished(self._objects.clock.random(8))


def _settle(fd: int, made: bytes, name: bytes) -> bool:
    """Give a file or link its name, over nothing that was put there meanwhile."""
    try:
        os.link(made, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if status_of(fd, name) is not None:
            return False
        os.rename(made, name, src_dir_fd=fd, dst_dir_fd=fd)
    return True


def _same(fd: int, one: bytes, other: bytes) -> bool:
    first, second = status_of(fd, one), status_of(fd, other)
    return first is not None and second is not None and os.path.samestat(first, second)


def _is(fd: int, name: bytes, entry: TreeEntry) -> bool:
    """Whether what stands there is exactly this file or link."""
    status = status_of(fd, name)
    if status is None:
        return False
    if stat.S_ISLNK(status.st_mode):
        return entry.kind == EntryKind.LINK and link_id(fd, name) == entry.id
    if not stat.S_ISREG(status.st_mode) or entry.kind == EntryKind.LINK:
        return False
    if bool(status.st_mode & 0o100) != (entry.kind == EntryKind.EXECUTABLE):
        return False
    return status.st_size == entry.size and file_id(fd, name) == entry.id


def _left(step: Step, reason: str, message: str) -> Problem:
    return Problem(step.text, reason, f"{printable(step.text)}: {message}")
