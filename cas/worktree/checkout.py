"""Writing a snapshot, or a part of it, into a folder.

Floor 5. Invariant: nothing is written outside the folder, whatever the snapshot's names and
links say and whatever stands in the folder; work that no object of the store holds is never
overwritten unless forced; a file that stands under its own name afterwards is whole.

Every call goes through the descriptor of a directory that was opened without following links,
so that a link in the place of a directory makes the restore fail instead of leading it away.
Links are made last and never followed, whatever they point to; files are made with mode 644 or
755 less the umask, never with another bit. What the snapshot does not have is left alone.
Nothing is synced: a restore that a power cut interrupts is run again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import attrs

from cas.errors import Invalid, PathNotFound, StorageFailed, UnsafePath, WouldOverwrite
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.model.ids import Kind
from cas.model.names import printable, split_path, to_text
from cas.model.objects import EntryKind
from cas.objects.content import BlobReader
from cas.objects.store import ObjectStore
from cas.storage.files import translate
from cas.trees.cursor import scan
from cas.trees.node import DIRECTORY, Item, NodeStore, Value
from cas.worktree.scan import STORE_FOLDER, fold
from cas.worktree.values import OnProgress, Progress

__all__ = ["RestorePlan", "RestoreReport", "plan_restore", "restore"]

_EXECUTABLE: Final = int(EntryKind.EXECUTABLE)
_LINK: Final = int(EntryKind.LINK)
_TREE: Final = int(EntryKind.TREE)

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NAMES_SHOWN: Final = 5

# Code points that HFS+ leaves out when it compares names.
_IGNORABLE: Final = dict.fromkeys(
    (*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF)
)


@attrs.frozen(slots=True)
class RestorePlan:
    """What a restore would do. Paths are relative to the folder."""

    folder: str
    file_count: int
    link_count: int
    directory_count: int
    content_bytes: int
    write_count: int
    """Files and links to be written; the others stand there already."""
    replaced: tuple[str, ...]
    """What is written over: its content is in the store."""
    unsaved: tuple[str, ...]
    """What would be lost: only written over with `force`."""
    outside_links: tuple[str, ...]
    """Links whose targets lie outside the folder; they are made and not followed."""
    directories: tuple[_Directory, ...] = attrs.field(repr=False)


@attrs.frozen(slots=True)
class RestoreReport:
    """What a restore did. Counts of files, links and directories are those of the snapshot."""

    folder: str
    file_count: int
    link_count: int
    directory_count: int
    content_bytes: int
    written_count: int
    written_bytes: int
    replaced: tuple[str, ...]
    outside_links: tuple[str, ...]


@attrs.define(slots=True)
class _Directory:
    """One directory of a plan: what is to be written straight into it."""

    path: bytes
    """With a slash behind it; empty for the folder itself."""
    exists: bool
    files: list[Item] = attrs.field(factory=list)
    links: list[Item] = attrs.field(factory=list)
    standing: dict[bytes, os.stat_result] = attrs.field(factory=dict)
    """What stands where something is to be written."""
    modes: list[Item] = attrs.field(factory=list)
    """Files of which only the executable bit differs."""


class _Planner:
    def __init__(self, objects: ObjectStore, folder: bytes) -> None:
        self.objects = objects
        self.nodes: NodeStore = objects.tree_nodes(DIRECTORY)
        self.folder = folder
        self.directories: list[_Directory] = []
        self.counts = {"file": 0, "link": 0, "directory": 0, "bytes": 0, "write": 0}
        self.replaced: list[bytes] = []
        self.unsaved: list[bytes] = []
        self.outside: list[bytes] = []
        self.twins: list[tuple[bytes, bytes]] = []

    def directory(self, fd: int | None, path: bytes, items: list[Item]) -> None:
        """Plan one directory; `fd` is the one that stands there, or None."""
        here = _Directory(path, fd is not None)
        self.directories.append(here)
        self._check_names(path, items)
        below: list[tuple[bytes, Value, int | None]] = []
        for name, value in items:
            status = None if fd is None else _stat(fd, name)
            if value[0] == _TREE:
                self.counts["directory"] += 1
                child = None
                if status is not None and stat.S_ISDIR(status.st_mode):
                    assert fd is not None
                    child = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
                elif status is not None:
                    assert fd is not None
                    here.standing[name] = status
                    self._judge(fd, path + name, name, status)
                below.append((name, value, child))
            else:
                self._leaf(here, fd, path + name, name, value, status)
        for name, value, child in below:
            try:
                found = list(scan(DIRECTORY, value[1], self.nodes))
                self.directory(child, path + name + b"/", found)
            finally:
                if child is not None:
                    os.close(child)

    def _leaf(
        self,
        here: _Directory,
        fd: int | None,
        path: bytes,
        name: bytes,
        value: Value,
        status: os.stat_result | None,
    ) -> None:
        tag, id, size = value
        self.counts["link" if tag == _LINK else "file"] += 1
        self.counts["bytes"] += size
        if tag == _LINK and leads_outside(path, self.objects.get(id, Kind.BLOB)):
            self.outside.append(path)
        if status is not None:
            assert fd is not None
            if self._equal(fd, name, value, status):
                if tag != _LINK and bool(status.st_mode & 0o100) != (tag == _EXECUTABLE):
                    here.modes.append((name, value))
                return
            here.standing[name] = status
            self._judge(fd, path, name, status)
        self.counts["write"] += 1
        (here.links if tag == _LINK else here.files).append((name, value))

    def _equal(self, fd: int, name: bytes, value: Value, status: os.stat_result) -> bool:
        tag, id, size = value
        if tag == _LINK:
            return stat.S_ISLNK(status.st_mode) and _link_id(fd, name) == id
        return (
            stat.S_ISREG(status.st_mode) and status.st_size == size and _content_id(fd, name) == id
        )

    def _judge(self, fd: int, path: bytes, name: bytes, status: os.stat_result) -> None:
        """Whether what stands in the way is saved."""
        mode = status.st_mode
        saved = False
        if stat.S_ISREG(mode):
            id = _content_id(fd, name)
            saved = id is not None and self.objects.has(id)
        elif stat.S_ISLNK(mode):
            id = _link_id(fd, name)
            saved = id is not None and self.objects.has(id)
        elif stat.S_ISDIR(mode):
            child = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
            try:
                saved = not os.listdir(child)
            finally:
                os.close(child)
        (self.replaced if saved else self.unsaved).append(path)

    def _check_names(self, path: bytes, items: list[Item]) -> None:
        folded: dict[str, bytes] = {}
        for name, _value in items:
            check_restorable(path, name)
            other = folded.setdefault(fold(name), name)
            if other is not name:
                self.twins.append((path + other, path + name))


def check_restorable(path: bytes, name: bytes) -> None:
    """Refuse a name that would plant a store in the folder. Raises `UnsafePath`."""
    plain = to_text(name).translate(_IGNORABLE).casefold() if not name.isascii() else ""
    if name.lower() in (STORE_FOLDER, b"cas~1") or plain == ".cas":
        shown = printable(path + name)
        raise UnsafePath(
            f"{shown} would be taken for a store's own folder; nothing was written. Restore the "
            "other paths one by one.",
            path=to_text(path + name),
            reason="the name of a store's folder",
        )


def leads_outside(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` has a target that is absolute or climbs out of the folder."""
    if target.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def plan_restore(snapshot: Snapshot, path: str, folder: str | os.PathLike[str]) -> RestorePlan:
    """What `restore` would do; writes nothing but, for names that differ only by case, a probe.

    Raises `PathNotFound`, `UnsafePath`, `Invalid` when `folder` is no folder.
    """
    place = os.path.abspath(os.fspath(folder))
    planner = _Planner(snapshot.objects, os.fsencode(place))
    items = _items(snapshot, path, planner.nodes)
    fd: int | None = None
    with suppress(FileNotFoundError):
        fd = _open_folder(place)
    try:
        planner.directory(fd, b"", items)
        if planner.twins and _merges(place):
            listed = ", ".join(printable(name) for name in planner.twins[0])
            raise UnsafePath(
                f"{listed}: these names are one to the file system of {place}; nothing was "
                "written. Restore elsewhere.",
                path=to_text(planner.twins[0][0]),
                reason="names that differ only by case or normal form",
            )
    except OSError as error:
        _failed(error, place)
    finally:
        if fd is not None:
            os.close(fd)
    counts = planner.counts
    return RestorePlan(
        place,
        counts["file"],
        counts["link"],
        counts["directory"],
        counts["bytes"],
        counts["write"],
        tuple(map(to_text, planner.replaced)),
        tuple(map(to_text, planner.unsaved)),
        tuple(map(to_text, planner.outside)),
        tuple(planner.directories),
    )


def _items(snapshot: Snapshot, path: str, nodes: NodeStore) -> list[Item]:
    """Entries to put into the folder: those of a directory, or the one file at `path`."""
    entry = snapshot.entry(path)
    if entry is None:
        raise PathNotFound(f"There is no {path!r} in {snapshot!r}.", path=path)
    if entry.is_tree:
        return list(scan(DIRECTORY, entry.id, nodes))
    return [(split_path(path)[-1], (int(entry.kind), bytes(entry.id), entry.size))]


def restore(
    store: Store,
    snapshot: Snapshot,
    path: str,
    folder: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: OnProgress = None,
) -> RestoreReport:
    """Write what lies at `path` of a snapshot ("" for all of it) into a folder.

    A directory's entries go into the folder, a file or link under its own name. What stands
    there and is equal is left alone; other files are written over when the store holds their
    content, or with `force`. Raises `WouldOverwrite` (`paths` lists what would be lost; nothing
    was written), `UnsafePath`, `PathNotFound`, `Corrupt`, `StorageFull`, `StorageFailed`.
    """
    plan = plan_restore(snapshot, path, folder)
    if plan.unsaved and not force:
        raise would_overwrite(plan.unsaved)
    writer = _Writer(store.objects, plan, progress)
    try:
        writer.run()
    except OSError as error:
        _failed(error, plan.folder)
    return RestoreReport(
        plan.folder,
        plan.file_count,
        plan.link_count,
        plan.directory_count,
        plan.content_bytes,
        writer.written_count,
        writer.written_bytes,
        plan.replaced + plan.unsaved,
        plan.outside_links,
    )


def would_overwrite(paths: tuple[str, ...]) -> WouldOverwrite:
    """The refusal that lists what would be lost."""
    listed = ", ".join(printable(path) for path in paths[:_NAMES_SHOWN])
    more = f" and {len(paths) - _NAMES_SHOWN} more" if len(paths) > _NAMES_SHOWN else ""
    return WouldOverwrite(
        f"These would be lost, because the store does not hold them: {listed}{more}. Nothing was "
        "written. Save them with `cas snapshot`, or restore with --force.",
        paths=list(paths),
    )


class _Writer:
    """Carries out a plan."""

    def __init__(self, objects: ObjectStore, plan: RestorePlan, progress: OnProgress) -> None:
        self.objects = objects
        self.plan = plan
        self.progress = progress
        self.written_count = 0
        self.written_bytes = 0

    def run(self) -> None:
        os.makedirs(self.plan.folder, exist_ok=True)
        root = _open_folder(self.plan.folder)
        try:
            for directory in self.plan.directories:
                with _below(root, directory.path, make=True) as fd:
                    self._files(fd, directory)
            for directory in self.plan.directories:
                if directory.links:
                    with _below(root, directory.path, make=False) as fd:
                        self._links(fd, directory)
        finally:
            os.close(root)

    def _files(self, fd: int, directory: _Directory) -> None:
        for name, value in directory.modes:
            _set_executable(fd, name, value[0] == _EXECUTABLE)
        for name in directory.standing:
            if not any(name == leaf for leaf, _ in (*directory.files, *directory.links)):
                _remove(fd, name)  # a file or link where a directory has to stand
        small = [item for item in directory.files if item[1][2] <= WHOLE_BLOB_BYTES_MAX]
        contents = self.objects.get_many([value[1] for _, value in small])
        for (name, value), (_id, _kind, content) in zip(small, contents, strict=True):
            self._file(fd, directory, name, value, [content])
        for name, value in directory.files:
            if value[2] > WHOLE_BLOB_BYTES_MAX:
                stream = self.objects.open(value[1])
                self._file(fd, directory, name, value, _parts(stream))

    def _file(
        self,
        fd: int,
        directory: _Directory,
        name: bytes,
        value: Value,
        parts: list[bytes] | Iterator[bytes],
    ) -> None:
        mode = 0o755 if value[0] == _EXECUTABLE else 0o644
        replace = name in directory.standing
        target = _temporary() if replace else name
        file = os.open(target, _CREATE, mode, dir_fd=fd)
        try:
            try:
                for part in parts:
                    view = memoryview(part)
                    while view:
                        view = view[os.write(file, view) :]
            finally:
                os.close(file)
            if replace:
                _replace(fd, target, name)
        except BaseException:
            os.unlink(target, dir_fd=fd)
            raise
        self._count(value[2])

    def _links(self, fd: int, directory: _Directory) -> None:
        for name, value in directory.links:
            content = self.objects.get(value[1], Kind.BLOB)
            if name in directory.standing:
                target = _temporary()
                os.symlink(content, target, dir_fd=fd)
                _replace(fd, target, name)
            else:
                os.symlink(content, name, dir_fd=fd)
            self._count(value[2])

    def _count(self, size: int) -> None:
        self.written_count += 1
        self.written_bytes += size
        if self.progress is not None and self.written_count % 256 == 0:
            self.progress(
                Progress(
                    "write", self.written_count, self.written_bytes, self.plan.write_count, None
                )
            )


# -- the calls, each below a descriptor ------------------------------------------------------


def _open_folder(place: str) -> int:
    try:
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise Invalid(f"{place} is not a folder.") from error


@contextmanager
def _below(root: int, path: bytes, *, make: bool) -> Iterator[int]:
    """Descriptor of a directory below the folder, reached without following a link."""
    fd = os.dup(root)
    try:
        for name in path.split(b"/")[:-1]:
            try:
                child = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
                os.mkdir(name, 0o755, dir_fd=fd)
                child = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = child
        yield fd
    finally:
        os.close(fd)


def _parts(stream: BlobReader) -> Iterator[bytes]:
    while part := stream.read(1 << 20):
        yield part


def _stat(fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _content_id(fd: int, name: bytes) -> bytes | None:
    """Blob id of a file's content, or None when it cannot be read."""
    from blake3 import blake3

    hasher = blake3()
    try:
        file = os.open(name, _READ, dir_fd=fd)
        try:
            while part := os.read(file, 1 << 20):
                hasher.update(part)
        finally:
            os.close(file)
    except OSError:
        return None
    return hasher.digest()


def _link_id(fd: int, name: bytes) -> bytes | None:
    from cas.model.ids import digest_of

    try:
        return digest_of(Kind.BLOB, os.fsencode(os.readlink(name, dir_fd=fd)))
    except OSError:
        return None


def _temporary() -> bytes:
    return b".cas-restore-" + os.urandom(8).hex().encode()


def _replace(fd: int, temporary: bytes, name: bytes) -> None:
    """Give a temporary file its name, over what stands there."""
    try:
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
    except (IsADirectoryError, NotADirectoryError, FileExistsError):
        _remove(fd, name)
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)


def _remove(fd: int, name: bytes) -> None:
    """Remove a file, link or whole directory, following nothing."""
    try:
        os.unlink(name, dir_fd=fd)
    except (IsADirectoryError, PermissionError):
        child = os.open(name, _DIRECTORY_FLAGS, dir_fd=fd)
        try:
            for below in os.listdir(child):
                _remove(child, os.fsencode(below))
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=fd)


def _set_executable(fd: int, name: bytes, executable: bool) -> None:
    file = os.open(name, _READ, dir_fd=fd)
    try:
        mode = stat.S_IMODE(os.fstat(file).st_mode) & 0o777
        os.fchmod(file, mode | ((mode & 0o444) >> 2) if executable else mode & ~0o111)
    finally:
        os.close(file)


def _merges(place: str) -> bool:
    """Whether the file system takes names for one that differ by case or normal form."""
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    stem = f".cas-probe-{os.urandom(8).hex()}-a\u00e9"
    probe = os.path.join(place, stem)
    try:
        os.close(os.open(probe, _CREATE, 0o600))
    except OSError:
        return True  # where nothing can be found out, two names are not risked
    try:
        others = (stem.upper(), f"{stem[:-1]}e\u0301")
        return any(os.path.lexists(os.path.join(place, other)) for other in others)
    finally:
        os.unlink(probe)


def _failed(error: OSError, place: str) -> NoReturn:
    where = error.filename if error.filename is not None else place
    shown = printable(os.fsdecode(where)) if isinstance(where, str | bytes) else place
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST):
        raise StorageFailed(
            f"{shown} in {place} changed while it was restored; run the restore again.",
            path=shown,
            errno=error.errno,
        ) from error
    translate(error, place)
