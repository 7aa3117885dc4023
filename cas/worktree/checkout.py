"""Writing a snapshot, or a part of it, into a folder.

Floor 5. Invariant: nothing is written outside the folder, whatever the snapshot's names and
links say and whatever stands in the folder or is put there meanwhile; work that no object of
the store holds is never overwritten unless forced; a file that stands under its own name is
whole, whenever the process was killed.

Every call goes through the descriptor of a directory that was opened without following links,
so that a link in the place of a directory makes the restore fail instead of leading it away.
Links are made last and never followed, whatever they point to; files are made with mode 644 or
755 less the umask, never with another bit. What the snapshot does not have is left alone.
Nothing is synced: a restore that a power cut interrupts is run again.

What is written has the name `.cas-restore-` and 16 hex digits until it is whole: a new directory
with all the files below it, or in a directory that stands already, each file. A name for each
file would cost a tenth of a restore, one for each new directory costs nothing that shows. What a
kill leaves under such a name the next plan and the next snapshot tell.

Contents are read, decompressed and proved on a thread of their own while this one writes:
making a file is kernel time, and reading one is the decompressor's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from typing import Final, NoReturn

from cas.errors import (
    CasError,
    Corrupt,
    CorruptObject,
    Invalid,
    NotFound,
    Purged,
    StorageFailed,
    WouldOverwrite,
)
from cas.history.snapshot import Snapshot
from cas.history.store import Store
from cas.model.ids import Kind, wrong_kind
from cas.model.names import printable
from cas.model.objects import EXECUTABLE
from cas.model.values import frozen
from cas.objects.ahead import contents_ahead
from cas.objects.bulk import Ahead, BulkReader, Content, Found
from cas.objects.store import ObjectStore
from cas.storage.files import translate
from cas.trees.node import Value
from cas.worktree.files import OPEN_DIRECTORY, OPEN_FILE, same
from cas.worktree.names import unfinished
from cas.worktree.plan import Directory, RestorePlan, make_plan
from cas.worktree.values import OnProgress, Progress

__all__ = ["RestorePlan", "RestoreReport", "plan_restore", "restore"]


CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GROUPS_AHEAD: Final = 4
_NAMES_SHOWN: Final = 5
_CHANGED: Final = (errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)
NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system says that has no hard links, or has enough of them."""
_PROGRESS_FILES: Final = 256


@frozen
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
    leftovers: tuple[str, ...]
    """What a restore that was killed has left in the folder."""


def plan_restore(snapshot: Snapshot, path: str, folder: str | os.PathLike[str]) -> RestorePlan:
    """What `restore` would do; writes nothing but, for names that differ only by case, a probe.

    Raises `PathNotFound`, `UnsafePath`, `LimitExceeded`, `StorageFull`, `Corrupt`, and `Invalid`
    when `folder` is no folder.
    """
    place = os.path.abspath(os.fspath(folder))
    try:
        return make_plan(snapshot, path, place)
    except OSError as error:
        _failed(error, place)


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
    was written), what `plan_restore` raises, `StorageFailed`, and `CorruptObject` after
    everything else was written, when contents are damaged or missing (`paths` lists them).
    """
    plan = plan_restore(snapshot, path, folder)
    if plan.unsaved and not force:
        raise would_overwrite(plan.unsaved)
    writer = _Writer(store.objects, plan, progress)
    try:
        writer.run()
    except OSError as error:
        _failed(error, plan.folder)
    if writer.damaged:
        raise _damaged(writer.damaged)
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
        plan.leftovers,
    )


class _Writer:
    """Carries out a plan."""

    def __init__(self, objects: ObjectStore, plan: RestorePlan, progress: OnProgress) -> None:
        self._objects = objects
        self._plan = plan
        self._progress = progress
        self._way = _Way()
        # The new directory that is being filled, and the name that it will have.
        self._filling: Directory | None = None
        self._name = b""
        self.written_count = 0
        self.written_bytes = 0
        self.damaged: list[tuple[bytes, CasError]] = []

    def run(self) -> None:
        """Directory by directory, the files of each; then links. Raises `OSError`."""
        top = self._plan.top
        os.makedirs(self._plan.folder, exist_ok=True)
        directories = list(top.walk())
        ids = [value[1] for directory in directories for _, value in directory.files]
        with (
            closing(self._way),
            closing(Ahead(BulkReader(self._objects).read(ids), _GROUPS_AHEAD)) as groups,
        ):
            self._way.begin(top, self._plan.folder)
            contents = _each(groups)
            try:
                for directory in directories:
                    if self._filling is not None and directory.depth <= self._filling.depth:
                        self._finish()
                    if directory.up is not None and not directory.exists:
                        self._make(directory)
                    if directory.files or directory.modes:
                        self._files(directory, contents)
                self._finish()
            except BaseException:
                # What has been written is whole, and the next restore need not do it again.
                with suppress(OSError, CasError):
                    self._finish()
                raise
            for directory in directories:
                if directory.links:
                    self._links(directory)

    def _make(self, directory: Directory) -> None:
        up = directory.up
        assert up is not None
        fd = self._way.to(up)
        if self._filling is None:
            name = self._temporary()
            os.mkdir(name, 0o755, dir_fd=fd)
            self._filling, self._name, directory.name = directory, directory.name, name
        else:
            os.mkdir(directory.name, 0o755, dir_fd=fd)

    def _finish(self) -> None:
        """Give the directory that was filled its name."""
        directory, name = self._filling, self._name
        if directory is None:
            return
        self._filling = None
        up = directory.up
        assert up is not None
        temporary, directory.name = directory.name, name
        fd = self._way.to(up)
        try:
            if name in up.standing:
                self._check_standing(fd, up, name)
                _remove(fd, name)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            with suppress(OSError):
                _remove(fd, temporary)
            raise

    def _files(self, directory: Directory, contents: Iterator[Found]) -> None:
        fd = self._way.to(directory)
        standing = directory.standing
        for name, value in directory.files:
            found = next(contents)
            assert found.id == value[1], "contents come in the order of the files"
            mode = 0o755 if value[0] == EXECUTABLE else 0o644
            target = name if self._filling is not None else self._temporary()
            if found.content is not None and found.kind != Kind.BLOB:
                raise wrong_kind(found.id, Kind.BLOB, found.kind)
            try:
                self._file(fd, target, mode, found)
            except (Corrupt, NotFound) as error:
                self.damaged.append((directory.path + name, error))
                continue
            if name in standing:
                self._replace(fd, directory, target, name)
            elif target is not name:
                self._settle(fd, directory, target, name)
            self._count(value)
        for name, value in directory.modes:
            set_executable(fd, name, value[0] == EXECUTABLE)

    def _file(self, fd: int, name: bytes, mode: int, found: Found) -> None:
        """Write one new file; where that fails nothing of it stays."""
        file = -1
        try:
            file = os.open(name, CREATE, mode, dir_fd=fd)
            content = found.content
            if content is None:
                with closing(contents_ahead(self._objects, found.id)) as parts:
                    for part in parts:
                        write_all(file, part)
            elif os.write(file, content) != len(content):
                os.lseek(file, 0, os.SEEK_SET)
                write_all(file, content)
        except BaseException as error:
            # An interrupt may find the file made and its number not known yet.
            if file >= 0 or not isinstance(error, OSError):
                with suppress(OSError):
                    os.unlink(name, dir_fd=fd)
            raise
        finally:
            if file >= 0:
                os.close(file)

    def _links(self, directory: Directory) -> None:
        fd = self._way.to(directory)
        for name, value in directory.links:
            target = self._plan.link_targets[value[1]]
            if name in directory.standing:
                temporary = self._temporary()
                os.symlink(target, temporary, dir_fd=fd)
                self._replace(fd, directory, temporary, name)
            else:
                os.symlink(target, name, dir_fd=fd)
            self._count(value)

    def _replace(self, fd: int, directory: Directory, temporary: bytes, name: bytes) -> None:
        """Give a temporary file or link its name, over what stood there when it was planned."""
        try:
            self._check_standing(fd, directory, name)
            try:
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
            except IsADirectoryError:
                _remove(fd, name)
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=fd)
            raise

    def _settle(self, fd: int, directory: Directory, temporary: bytes, name: bytes) -> None:
        """Give a whole new file its name, over nothing that was put there meanwhile."""
        try:
            try:
                os.link(temporary, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                # No hard links here: what is put there between these two calls is lost.
                with suppress(FileNotFoundError):
                    os.stat(name, dir_fd=fd, follow_symlinks=False)
                    path = directory.path + name
                    raise _changed(path, self._plan.folder, errno.EEXIST) from error
                os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
                return
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=fd)
            raise
        os.unlink(temporary, dir_fd=fd)

    def _check_standing(self, fd: int, directory: Directory, name: bytes) -> None:
        """What was written there since, nobody has judged. Raises `StorageFailed`."""
        before = directory.standing[name]
        now = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not (os.path.samestat(now, before) and same(now, before)):
            raise _changed(directory.path + name, self._plan.folder, errno.EEXIST)

    def _temporary(self) -> bytes:
        return unfinished(self._objects.clock.random(8))

    def _count(self, value: Value) -> None:
        self.written_count += 1
        self.written_bytes += value[2]
        if self._progress is not None and self.written_count % _PROGRESS_FILES == 0:
            count, size_bytes = self.written_count, self.written_bytes
            self._progress(Progress("write", count, size_bytes, self._plan.write_count))


class _Way:
    """Descriptors of the directories from the folder down to the one that was asked for last."""

    def __init__(self) -> None:
        self._open: list[tuple[Directory, int]] = []

    def begin(self, top: Directory, folder: str) -> None:
        """Open the folder itself; a link to it is the caller's own and followed."""
        self._open.append((top, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))

    def to(self, directory: Directory) -> int:
        """Descriptor of a directory, reached without following a link. Raises `OSError`."""
        way = self._open
        depth = directory.depth
        if depth < len(way) and way[depth][0] is directory:
            return way[depth][1]
        up = directory.up
        assert up is not None
        fd = os.open(directory.name, OPEN_DIRECTORY, dir_fd=self.to(up))
        while len(way) > depth:
            os.close(way.pop()[1])
        way.append((directory, fd))
        return fd

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.pop()[1])


def _each(groups: Iterable[list[Found]]) -> Iterator[Found]:
    for group in groups:
        yield from group


# -- the calls, each below a descriptor ------------------------------------------------------


def write_all(file: int, content: Content) -> None:
    """Write all of it, however little the system takes at once. Raises `OSError`."""
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _remove(fd: int, name: bytes) -> None:
    """Remove a file, link or whole directory, following nothing."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=fd)
        return
    child = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
    try:
        for below in os.listdir(child):
            _remove(child, os.fsencode(below))
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=fd)


def set_executable(fd: int, name: bytes, executable: bool) -> None:
    """Set or clear the executable bits of those who may read."""
    file = os.open(name, OPEN_FILE, dir_fd=fd)
    try:
        mode = os.fstat(file).st_mode & 0o777
        os.fchmod(file, mode | ((mode & 0o444) >> 2) if executable else mode & ~0o111)
    finally:
        os.close(file)


# -- errors ----------------------------------------------------------------------------------


def would_overwrite(paths: tuple[str, ...]) -> WouldOverwrite:
    """The refusal that lists what would be lost."""
    return WouldOverwrite(
        f"These would be lost, because the store does not hold them: {_listed(paths)}. Nothing "
        "was written. Save them with `cas snapshot`, or restore with --force.",
        paths=list(paths),
    )


def _damaged(found: list[tuple[bytes, CasError]]) -> CasError:
    paths = [os.fsdecode(path) for path, _error in found]
    first = found[0][1]
    if all(isinstance(error, Purged) for _path, error in found):
        return Purged(
            f"The contents of these were purged: {_listed(paths)}. All the rest was written.",
            **{**first.fields, "paths": paths},
        )
    return CorruptObject(
        f"The contents of these are damaged or missing: {_listed(paths)}. All the rest was "
        "written. Run `cas fsck`.",
        id=first.fields.get("id"),
        pack=first.fields.get("pack"),
        paths=paths,
    )


def _listed(paths: tuple[str, ...] | list[str]) -> str:
    listed = ", ".join(printable(path) for path in paths[:_NAMES_SHOWN])
    more = len(paths) - _NAMES_SHOWN
    return f"{listed} and {more:,} more" if more > 0 else listed


def _changed(path: str | bytes, place: str, number: int | None) -> StorageFailed:
    return StorageFailed(
        f"{printable(path)} in {printable(place)} was changed by somebody else while it was "
        "restored; run the restore again.",
        path=place,
        errno=number,
    )


def _failed(error: OSError, place: str) -> NoReturn:
    where = error.filename if isinstance(error.filename, str | bytes) else place
    # A link that leads nowhere is there already, and no folder.
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and where in (place, os.fsencode(place)):
        raise Invalid(f"{printable(place)} is not a folder; restore into another one.") from error
    if error.errno in _CHANGED:
        raise _changed(where, place, error.errno) from error
    translate(error, place)
