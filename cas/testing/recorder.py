"""One log of everything a store asks the operating system to keep.

Invariant: every write, truncation, sync and change of a name that SQLite or the store's own file
layer makes (through the two layers of `cas.testing.layers`) below one folder stands in the log,
in the order in which it happened, and the folder's own content is what applying the whole log to
the base gives. What a crash may leave of it is the business of `cas.testing.crash`; making calls
fail is that of `cas.testing.faults`.

Not recorded, because nothing durable rests on them: SQLite's shared memory, the locks, the cache.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import attrs

ROOT: Final = 0
"""Number of the folder that is watched."""

UNWATCHED: Final = ("locks", "cache")
_UNWATCHED_SUFFIX: Final = "-shm"


# -- the log ---------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Write:
    """Bytes at an offset of a file; a gap before them reads as zeros."""

    file: int
    offset: int
    data: bytes


@attrs.frozen(slots=True)
class Truncate:
    """A file was cut or extended."""

    file: int
    size: int


@attrs.frozen(slots=True)
class Names:
    """Entries of one folder that changed together: name -> number, or None when it went."""

    folder: int
    changes: tuple[tuple[str, int | None], ...]


@attrs.frozen(slots=True)
class Sync:
    """A file's bytes, or a folder's names, were made durable, or (`ok` false) were not."""

    target: int
    ok: bool


@attrs.frozen(slots=True)
class Mark:
    """Something the workload says about itself: nothing of it reaches a disk."""

    value: Any


Op = Write | Truncate | Names | Sync | Mark


@attrs.frozen
class Image:
    """Folders and files by number; `ROOT` is the folder that is watched."""

    folders: Mapping[int, Mapping[str, int]]
    files: Mapping[int, bytes]

    def walk(self, folder: int = ROOT, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(path, number) of every folder and file below, a folder before what is in it."""
        for name, number in sorted(self.folders.get(folder, {}).items()):
            path = prefix + name
            yield path, number
            if number in self.folders:
                yield from self.walk(number, path + "/")

    def write_to(self, path: str) -> None:
        """Make these folders and files in an existing, empty folder."""
        for name, number in self.walk():
            target = os.path.join(path, name)
            if number in self.folders:
                os.mkdir(target)
            else:
                with open(target, "xb", buffering=0) as file:
                    file.write(self.files.get(number, b""))


def scan(path: str) -> Image:
    """The image of a folder as it stands, without what is not watched."""
    folders: dict[int, dict[str, int]] = {ROOT: {}}
    files: dict[int, bytes] = {}
    pending = [(ROOT, path)]
    while pending:
        number, place = pending.pop()
        for entry in sorted(os.scandir(place), key=lambda e: e.name):
            if entry.name.endswith(_UNWATCHED_SUFFIX):
                continue
            new = len(folders) + len(files)
            folders[number][entry.name] = new
            if entry.is_dir():
                folders[new] = {}
                if entry.name not in UNWATCHED:
                    pending.append((new, entry.path))
            else:
                with open(entry.path, "rb") as file:
                    files[new] = file.read()
    return Image(folders, files)


class Injected(Exception):
    """A call that is to fail: with what error number, after how many bytes of a write."""

    def __init__(self, errno: int, written_bytes: int = 0) -> None:
        super().__init__(os.strerror(errno))
        self.errno = errno
        self.written_bytes = written_bytes


class Hook(Protocol):
    """What looks at each call before it is made."""

    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        """`call` on `path` through `handle`. Raises `Injected` to make it fail."""


class _NoHook:
    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        return


class Recorder:
    """The log of one folder, and the two layers that write it. Any thread."""

    def __init__(
        self, root: str, hook: Hook | None = None, *, after: tuple[Recorder, int] | None = None
    ) -> None:
        """Watch a folder from now on.

        `after` = (another recorder, n): the folder holds what its first n operations gave, and
        this log begins with them: the process that made them was killed, the host went on.
        """
        self.root = os.path.abspath(root)
        self.ops: list[Op] = []
        self.hook: Hook = hook or _NoHook()
        self._lock = threading.Lock()
        if after is None:
            self.base = scan(self.root)
            self._next = len(self.base.folders) + len(self.base.files)
            self.labels = dict(_labels(self.base))
            self.folders = set(self.base.folders)
        else:
            other, count = after
            self.base, self._next = other.base, other._next
            self.labels, self.folders = dict(other.labels), set(other.folders)
            self.ops = other.ops[:count]
        self._folders = {number: dict(self.base.folders.get(number, {})) for number in self.folders}
        for op in self.ops:
            if isinstance(op, Names):
                self._apply(op)

    def _apply(self, op: Names) -> None:
        names = self._folders[op.folder]
        for name, target in op.changes:
            if target is None:
                names.pop(name, None)
            else:
                names[name] = target

    def mark(self, value: Any) -> None:
        """Note something between the operations before and after."""
        with self._lock:
            self.ops.append(Mark(value))

    def _resolve(self, path: str) -> tuple[int, str]:
        """Number of the folder that holds `path`, and the name in it."""
        parts = os.path.relpath(path, self.root).split(os.sep)
        folder = ROOT
        for name in parts[:-1]:
            folder = self._folders[folder][name]
        return folder, parts[-1]

    def watches(self, path: str) -> bool:
        """Whether operations on this path are recorded."""
        relative = os.path.relpath(path, self.root)
        parts = relative.split(os.sep)
        return (
            not relative.startswith("..")
            and not relative.endswith(_UNWATCHED_SUFFIX)
            and not any(part in UNWATCHED for part in parts[:-1])
        )

    def file_at(self, path: str) -> int | None:
        """Number of what `path` names now."""
        with self._lock:
            folder, name = self._resolve(path)
            return self._folders[folder].get(name)

    def created(self, path: str, *, folder: bool = False) -> int:
        """A new name for a new file or folder."""
        with self._lock:
            number = self._next
            self._next += 1
            if folder:
                self._folders[number] = {}
                self.folders.add(number)
            self.labels[number] = os.path.relpath(path, self.root)
            self._rename(path, number)
            return number

    def _rename(self, path: str, number: int | None, *others: tuple[str, int | None]) -> None:
        folder, name = self._resolve(path)
        op = Names(folder, ((name, number), *others))
        self._apply(op)
        self.ops.append(op)

    def linked(self, source: str, target: str) -> None:
        """A second name for a file."""
        with self._lock:
            folder, name = self._resolve(source)
            self._rename(target, self._folders[folder][name])

    def unlinked(self, path: str) -> None:
        """A name that went."""
        with self._lock:
            self._rename(path, None)

    def renamed(self, source: str, target: str) -> None:
        """A name that changed within one folder."""
        with self._lock:
            folder, name = self._resolve(source)
            assert folder == self._resolve(target)[0], "renames stay within a folder here"
            self._rename(target, self._folders[folder][name], (name, None))

    def written(self, file: int, offset: int, data: bytes) -> None:
        """Bytes of a file."""
        with self._lock:
            self.ops.append(Write(file, offset, data))

    def truncated(self, file: int, size: int) -> None:
        """A new length."""
        with self._lock:
            self.ops.append(Truncate(file, size))

    def synced(self, target: int, ok: bool = True) -> None:
        """A sync that returned, or failed."""
        with self._lock:
            self.ops.append(Sync(target, ok))

    def number_of(self, path: str) -> int:
        """Number of the file at `path`."""
        with self._lock:
            folder, name = self._resolve(path)
            return self._folders[folder][name]

    def folder_of(self, path: str) -> int:
        """Number of the folder that holds `path`."""
        with self._lock:
            return self._resolve(path)[0]


def _labels(image: Image) -> Iterator[tuple[int, str]]:
    yield ROOT, "."
    for path, number in image.walk():
        yield number, path


def label(op: Op, recorder: Recorder) -> str:
    """The kind of an operation, by what it is done to: the rows of the table of states."""
    if isinstance(op, Names):
        path = recorder.labels[op.folder]
        names = [name for name, _target in op.changes]
        return "name " + _sort(names[0] if path == "." else f"{path}/{names[0]}")
    target = op.target if isinstance(op, Sync) else op.file if not isinstance(op, Mark) else 0
    path = recorder.labels.get(target, "")
    if isinstance(op, Sync):
        if target in recorder.folders:
            return f"sync of folder {path}"
        return "sync " + _sort(path)
    return ("truncate " if isinstance(op, Truncate) else "write ") + _sort(path)


def _sort(path: str) -> str:
    for suffix, name in (
        ("-wal", "log"),
        ("-journal", "rollback journal"),
        (".sqlite", "catalog"),
        (".tmp", "pack being written"),
        (".pack", "pack"),
    ):
        if path.endswith(suffix):
            return name
    return "folder"


class Beside:
    """Does something at the first sync of a pack file, when its writer holds no gate."""

    def __init__(self, hook: Hook, act: Callable[[], None]) -> None:
        self._hook = hook
        self._act: Callable[[], None] | None = act

    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        if self._act is not None and call == "sync" and path.endswith(".tmp"):
            act, self._act = self._act, None
            act()
        self._hook.before(call, path, handle, size_bytes)
