"""The walk of a folder: every file read once, every directory made a tree, bottom up.

Floor 5. Invariant: the walk stays below the folder's own descriptor and follows no link, so
that what is swapped under it can make it fail but never lead it outside. What cannot be saved
becomes a `Problem`, and the rest is saved. Used by one thread.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from cas.errors import Invalid
from cas.limits import (
    ENTRY_NAME_BYTES_MAX,
    PATH_BYTES_MAX,
    PATH_DEPTH_MAX,
    WHOLE_BLOB_BYTES_MAX,
)
from cas.model.names import printable, to_text
from cas.model.objects import EntryKind
from cas.objects.content import Readable
from cas.trees.build import build
from cas.trees.node import DIRECTORY, Item, NodeStore
from cas.worktree.ignore import CASIGNORE, GITIGNORE, Rules
from cas.worktree.secrets import is_private_key, is_secret_name
from cas.worktree.values import ImportOptions, Problem, Progress

STORE_FOLDER: Final = b".cas"

_FILE: Final = int(EntryKind.FILE)
_EXECUTABLE: Final = int(EntryKind.EXECUTABLE)
_LINK: Final = int(EntryKind.LINK)
_TREE: Final = int(EntryKind.TREE)

_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a FIFO that takes a file's place would block the open for ever.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TRIES: Final = 3
_PROGRESS_FILES: Final = 256


class Sink(Protocol):
    """Where content goes; gives ids."""

    def blob(self, content: bytes) -> bytes:
        """Take content of at most 8 MiB."""

    def stream(self, stream: Readable) -> tuple[bytes, int]:
        """Take content of any size; (blob id, bytes)."""

    @property
    def nodes(self) -> NodeStore:
        """Where directory nodes go."""


@attrs.define(slots=True)
class Tally:
    """What a walk met."""

    file_count: int = 0
    link_count: int = 0
    directory_count: int = 0
    content_bytes: int = 0
    problems: list[Problem] = attrs.field(factory=list)
    secrets: list[str] = attrs.field(factory=list)
    twins: list[tuple[str, str]] = attrs.field(factory=list)


class _Skip(Exception):  # never leaves this module
    """One entry cannot be saved."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Walk:
    """One walk of one folder. `own` is (device, inode) of the store's folder, left out."""

    def __init__(
        self,
        folder: str,
        sink: Sink,
        options: ImportOptions,
        own: tuple[int, int] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._folder = os.fsencode(folder)
        self._sink = sink
        self._options = options
        self._own = own
        self._progress = progress
        self._rule_files = (GITIGNORE, CASIGNORE) if options.gitignore else (CASIGNORE,)
        self.tally = Tally()

    def run(self) -> tuple[bytes, int]:
        """(root id, bytes) of the folder. Raises `Invalid` when it is no readable folder."""
        try:
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Invalid(
                f"{to_text(self._folder)} cannot be read as a folder: {error.strerror}."
            ) from error
        try:
            return self._directory(fd, b"", 0, Rules())
        finally:
            os.close(fd)

    # -- directories -------------------------------------------------------------------------

    def _directory(self, fd: int, prefix: bytes, depth: int, rules: Rules) -> tuple[bytes, int]:
        """Save the directory open as `fd`, whose path with a slash is `prefix`."""
        with os.scandir(fd) as found:
            entries = sorted((os.fsencode(e.name), e) for e in found)
        names = [name for name, _ in entries]
        rules = self._extend(rules, fd, prefix, names)
        items: list[Item] = []
        below: list[tuple[bytes, os.DirEntry[str]]] = []
        for name, entry in entries:
            if name.lower() == STORE_FOLDER:
                continue
            directory = entry.is_dir(follow_symlinks=False)
            if rules and rules.leaves_out(prefix + name, directory):
                continue
            try:
                self._check(prefix + name, name, depth)
                if directory:
                    below.append((name, entry))
                elif (item := self._entry(fd, prefix, name)) is not None:
                    items.append(item)
            except _Skip as skip:
                self._problem(prefix + name, skip.reason, skip.message)
            except OSError as error:
                self._failed(prefix + name, error)
        for name, entry in below:
            try:
                child = os.open(entry.name, _OPEN_DIRECTORY, dir_fd=fd)
            except OSError as error:
                self._failed(prefix + name, error)
                continue
            try:
                if not self._is_own(child):
                    root, size = self._directory(child, prefix + name + b"/", depth + 1, rules)
                    items.append((name, (_TREE, root, size)))
                    self.tally.directory_count += 1
            except OSError as error:
                self._failed(prefix + name, error)
            finally:
                os.close(child)
        items.sort()
        self._find_twins(prefix, [name for name, _ in items])
        done = build(DIRECTORY, items, self._sink.nodes)
        return done.root, done.number

    def _is_own(self, fd: int) -> bool:
        if self._own is None:
            return False
        found = os.fstat(fd)
        return (found.st_dev, found.st_ino) == self._own

    def _check(self, path: bytes, name: bytes, depth: int) -> None:
        if len(name) > ENTRY_NAME_BYTES_MAX:
            raise _Skip("name", f"the name has {len(name)} bytes, more than 255")
        if len(path) > PATH_BYTES_MAX or depth >= PATH_DEPTH_MAX:
            raise _Skip("name", "the path is too long or too deep to be saved")

    def _extend(self, rules: Rules, fd: int, prefix: bytes, names: list[bytes]) -> Rules:
        contents = []
        for name in self._rule_files:
            if name in names:
                try:
                    contents.append(self._read(fd, name)[0])
                except (OSError, _Skip):
                    continue  # reported where the entry itself is saved
        return rules.below(prefix, contents) if contents else rules

    def _find_twins(self, prefix: bytes, names: list[bytes]) -> None:
        seen: dict[str, bytes] = {}
        for name in names:
            other = seen.setdefault(fold(name), name)
            if other is not name:
                self.tally.twins.append((to_text(prefix + other), to_text(prefix + name)))

    # -- entries -----------------------------------------------------------------------------

    def _entry(self, fd: int, prefix: bytes, name: bytes) -> Item | None:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISLNK(mode):
            target = os.fsencode(os.readlink(name, dir_fd=fd))
            self.tally.link_count += 1
            self.tally.content_bytes += len(target)
            return name, (_LINK, self._sink.blob(target), len(target))
        if not stat.S_ISREG(mode):
            raise _Skip(*special(mode))
        return self._file(fd, prefix, name, status)

    def _file(self, fd: int, prefix: bytes, name: bytes, status: os.stat_result) -> Item | None:
        tag = _EXECUTABLE if status.st_mode & 0o100 else _FILE
        secret = is_secret_name(name)
        if status.st_size > WHOLE_BLOB_BYTES_MAX:
            if secret and self._note_secret(prefix + name):
                return None
            id, size = self._stream(fd, name)
        else:
            content, torn = self._read(fd, name)
            secret = secret or is_private_key(content)
            if secret and self._note_secret(prefix + name):
                return None
            id, size = self._sink.blob(content), len(content)
            if torn:
                self._problem(
                    prefix + name, "changed-while-reading", "it changed each time it was read"
                )
        self._count(size)
        return name, (tag, id, size)

    def _note_secret(self, path: bytes) -> bool:
        """Name a secret in the notice; whether it is to be left out."""
        self.tally.secrets.append(to_text(path))
        return self._options.skip_secrets

    def _read(self, fd: int, name: bytes) -> tuple[bytes, bool]:
        """(content, whether it still changed at the last try) of a regular file."""
        content = b""
        for _ in range(_TRIES):
            file = os.open(name, _OPEN_FILE, dir_fd=fd)
            try:
                before = os.fstat(file)
                if not stat.S_ISREG(before.st_mode):
                    raise _Skip(*special(before.st_mode))
                parts = []
                while part := os.read(file, max(before.st_size + 1, 4096)):
                    parts.append(part)
                content = b"".join(parts)
                after = os.fstat(file)
            finally:
                os.close(file)
            if len(content) == after.st_size and same(before, after):
                return content, False
        return content, True

    def _stream(self, fd: int, name: bytes) -> tuple[bytes, int]:
        file = os.open(name, _OPEN_FILE, dir_fd=fd)
        with os.fdopen(file, "rb", buffering=0) as stream:
            return self._sink.stream(stream)

    def _count(self, size: int) -> None:
        tally = self.tally
        tally.file_count += 1
        tally.content_bytes += size
        if self._progress is not None and tally.file_count % _PROGRESS_FILES == 0:
            self._progress(Progress("read", tally.file_count, tally.content_bytes))

    # -- problems ----------------------------------------------------------------------------

    def _problem(self, path: bytes, reason: str, message: str) -> None:
        text = to_text(path)
        self.tally.problems.append(Problem(text, reason, f"{printable(text)}: {message}"))

    def _failed(self, path: bytes, error: OSError) -> None:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        reason = "vanished" if gone else "unreadable"
        self._problem(path, reason, (error.strerror or str(error)).lower())


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file was left alone between two looks."""
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
    )


def special(mode: int) -> tuple[str, str]:
    """(reason, message) for what is neither file, link nor directory."""
    if stat.S_ISFIFO(mode):
        return "fifo", "a FIFO cannot be saved"
    if stat.S_ISSOCK(mode):
        return "socket", "a socket cannot be saved"
    return "device", "a device cannot be saved"


def fold(name: bytes) -> str:
    """What names share that a file system without case or normal form takes for one."""
    if name.isascii():
        return name.lower().decode()
    return unicodedata.normalize("NFC", to_text(name).casefold())
