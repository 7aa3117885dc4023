"""The two layers between a store and the operating system, watched: files and SQLite's VFS.

Invariant: a call is announced to the hook, made, and written to the log, in this order; a call
that the hook makes fail fails as the real one would, and the log says what of it was done.
Syncs are not passed on: nothing is lost before the end of a test but in a replay.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Final

import apsw

from cas.storage.files import OS_FILES, Files
from cas.testing.recorder import Injected, Recorder

# -- the store's own files -------------------------------------------------------------------


class RecordingFiles(Files):
    """The real calls, each announced to the hook and, once done, written to the log."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._open: dict[int, tuple[int, str, int]] = {}

    def _before(self, call: str, path: str, handle: object = None, size_bytes: int = 0) -> None:
        try:
            self._recorder.hook.before(call, path, handle, size_bytes)
        except Injected as fault:
            raise OSError(fault.errno, os.strerror(fault.errno), path) from fault

    def create(self, path: str) -> int:
        self._before("create", path)
        fd = OS_FILES.create(path)
        self._open[fd] = (self._recorder.created(path), path, 0)
        return fd

    def write(self, fd: int, data: bytes) -> None:
        file, path, _size = self._open[fd]
        data = bytes(data)
        try:
            self._recorder.hook.before("write", path, file, len(data))
        except Injected as fault:
            part = data[: fault.written_bytes]
            if part:
                self._write(fd, part)
            raise OSError(fault.errno, os.strerror(fault.errno), path) from fault
        self._write(fd, data)

    def _write(self, fd: int, data: bytes) -> None:
        file, path, size = self._open[fd]
        OS_FILES.write(fd, data)
        self._recorder.written(file, size, data)
        self._open[fd] = (file, path, size + len(data))

    def sync(self, fd: int) -> None:
        file, path, _size = self._open[fd]
        try:
            self._before("sync", path, file)
        except OSError:
            self._recorder.synced(file, ok=False)
            raise
        self._recorder.synced(file)

    def sync_file(self, path: str) -> None:
        file = self._recorder.number_of(path)
        try:
            self._before("sync", path, file)
        except OSError:
            self._recorder.synced(file, ok=False)
            raise
        self._recorder.synced(file)

    def close(self, fd: int) -> None:
        _file, path, _size = self._open.pop(fd)
        try:
            self._before("close", path)
        finally:
            # A close that reports an error has closed the descriptor all the same.
            OS_FILES.close(fd)

    def link(self, source: str, target: str) -> None:
        self._before("link", target)
        OS_FILES.link(source, target)
        self._recorder.linked(source, target)

    def unlink(self, path: str) -> None:
        self._before("unlink", path)
        OS_FILES.unlink(path)
        self._recorder.unlinked(path)

    def mkdir(self, path: str) -> None:
        self._before("mkdir", path)
        OS_FILES.mkdir(path)
        self._recorder.created(path, folder=True)

    def rename(self, source: str, target: str) -> None:
        self._before("rename", target)
        OS_FILES.rename(source, target)
        self._recorder.renamed(source, target)

    def sync_folder(self, path: str) -> None:
        folder = self._recorder.folder_of(os.path.join(path, "x"))
        try:
            self._before("sync folder", path, folder)
        except OSError:
            self._recorder.synced(folder, ok=False)
            raise
        self._recorder.synced(folder)


# -- SQLite's files --------------------------------------------------------------------------

_CODES: Final = {
    "open": apsw.SQLITE_CANTOPEN,
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "delete": apsw.SQLITE_IOERR_DELETE,
}
_JOURNALS: Final = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
"""Files whose first sync makes SQLite sync their folder too (os_unix.c, UNIXFILE_DIRSYNC; seen
with strace on 3.54)."""


def _engine_error(fault: Injected, call: str) -> Exception:
    code = apsw.SQLITE_FULL if fault.errno == errno.ENOSPC else _CODES[call]
    error: Exception = apsw.exception_for(code)
    error.args = (str(fault),)
    return error


class _RecordingFile(apsw.VFSFile):
    """One open file of SQLite."""

    def __init__(self, recorder: Recorder, path: str, name: Any, flags: list[int]) -> None:
        self._recorder = recorder
        self._path = path
        before = recorder.file_at(path)
        super().__init__("", name, flags)
        self._file = recorder.created(path) if before is None else before
        self._sync_folder = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & _JOURNALS)

    def _before(self, call: str, size_bytes: int = 0) -> None:
        try:
            self._recorder.hook.before(call, self._path, self, size_bytes)
        except Injected as fault:
            raise _engine_error(fault, call) from fault

    def xRead(self, amount: int, offset: int) -> bytes:
        self._before("read", amount)
        found: bytes = super().xRead(amount, offset)
        return found

    def xWrite(self, data: Any, offset: int) -> None:
        content = bytes(data)
        try:
            self._recorder.hook.before("write", self._path, self, len(content))
        except Injected as fault:
            part = content[: fault.written_bytes]
            if part:
                super().xWrite(part, offset)
                self._recorder.written(self._file, offset, part)
            raise _engine_error(fault, "write") from fault
        super().xWrite(content, offset)
        self._recorder.written(self._file, offset, content)

    def xTruncate(self, size: int) -> None:
        self._before("truncate")
        super().xTruncate(size)
        self._recorder.truncated(self._file, size)

    def xSync(self, flags: int) -> None:
        recorder = self._recorder
        try:
            self._before("sync")
        except apsw.Error:
            recorder.synced(self._file, ok=False)
            raise
        recorder.synced(self._file)
        if self._sync_folder:
            self._sync_folder = False
            recorder.synced(recorder.folder_of(self._path))


class RecordingVFS(apsw.VFS):
    """SQLite's own VFS, watched. `name` is what a connection is opened with; close it after."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.name = f"recording-{id(self)}"
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        """Open a file, a watched one so that its writes are recorded."""
        path = name if isinstance(name, str) or name is None else name.filename()
        if path is None or not self._recorder.watches(path):
            return super().xOpen(name, flags)
        try:
            self._recorder.hook.before("open", path, None, 0)
        except Injected as fault:
            raise _engine_error(fault, "open") from fault
        return _RecordingFile(self._recorder, path, name, flags)

    def xDelete(self, path: str, sync_folder: bool) -> None:
        """Remove a file, after the recorder had its say."""
        try:
            self._recorder.hook.before("delete", path, None, 0)
        except Injected as fault:
            raise _engine_error(fault, "delete") from fault
        super().xDelete(path, sync_folder)
        self._recorder.unlinked(path)
        if sync_folder:
            self._recorder.synced(self._recorder.folder_of(path))

    def close(self) -> None:
        """Forget the name; every connection through it must be closed."""
        self.unregister()
