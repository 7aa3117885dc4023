"""A bucket in a folder: temporary file, sync, link, sync of the folder.

Floor 2; implements docs/format.md sections 7.2 and 8. Invariant: a name appears only after its
bytes are durable, and a name is never given twice (link fails where rename would overwrite).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import repeat
from typing import ClassVar

from cas.clock import Clock
from cas.errors import Closed, CorruptPack, MissingPack, StorageFailed
from cas.storage.bucket import BucketFile, Part, UnfinishedFile, has_ends
from cas.storage.files import OS_FILES, Files, translate, translate_read

_TEMPORARY = ".tmp"
_OPEN_FILES_MAX = 512
_OPEN_FILES_SHARE = 4
"""Of the descriptors that a process may have, one in so many: random reads of more packs than that
open a file for nearly each.
"""
_BUFFER_BYTES = 1 << 20
_BEGUN_BYTES = 4 << 20
"""So much of a file is set off to the disk at a time, so that the sync at its end waits for little.
"""


class LocalUpload:
    """A temporary file of a `LocalBucket`."""

    def __init__(self, folder: str, name: str, files: Files) -> None:
        self._folder = folder
        self._files = files
        self._path = os.path.join(folder, name + _TEMPORARY)
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._written_bytes = self._begun_bytes = 0
        try:
            self._fd = files.create(self._path)
        except FileNotFoundError as error:
            raise StorageFailed(
                f"The folder {folder} is missing, and nothing was committed. Put it back, or make "
                "an empty one and run `cas repair`.",
                path=folder,
                errno=error.errno,
            ) from error
        except OSError as error:
            translate(error, self._path)

    def write(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        try:
            self._files.write(self._fd, data)
        except OSError as error:
            translate(error, self._path)
        self._written_bytes += len(data)
        length = self._written_bytes - self._begun_bytes
        if length >= _BEGUN_BYTES:
            self._files.begin_sync(self._fd, self._begun_bytes, length)
            self._begun_bytes = self._written_bytes

    def read(self, start: int, length: int) -> bytes:
        if self._buffer:
            self._flush()
        try:
            return os.pread(self._fd, length, start)
        except OSError as error:
            translate(error, self._path)

    def seal(self, name: str) -> None:
        if self._buffer:
            self._flush()
        target = os.path.join(self._folder, name)
        try:
            self._files.sync(self._fd)
            self._close()
            self._files.link(self._path, target)
            self._files.unlink(self._path)
        except FileExistsError as error:
            raise StorageFailed(
                f"{target} exists and is never overwritten.", path=target, errno=error.errno
            ) from error
        except OSError as error:
            translate(error, target)

    def abort(self) -> None:
        self._buffer.clear()
        try:
            self._close()
            self._files.unlink(self._path)
        except OSError:
            pass

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._files.close(fd)


class _Open:
    """A descriptor that closes with the last one who holds it.

    A reader holds it over its call: were the number closed to make room and given to another
    file meanwhile, the read would give bytes of that file.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class LocalBucket:
    """Files in one folder. Any number of processes may share it."""

    far: ClassVar = False

    def __init__(self, folder: str, clock: Clock, files: Files = OS_FILES) -> None:
        self._folder = folder
        self._clock = clock
        self._files = files
        self._lock = threading.Lock()
        # Descriptors stay open: a pack that gc removes under a reader can still be read to its
        # end, and a read costs one system call instead of three.
        self._descriptors: OrderedDict[str, _Open] = OrderedDict()
        self._descriptors_max = min(
            _OPEN_FILES_MAX, max(0, os.sysconf("SC_OPEN_MAX")) // _OPEN_FILES_SHARE
        )
        self._closed = False

    def create(self, owner: str = "") -> LocalUpload:
        name = self._clock.random(16).hex()
        return LocalUpload(self._folder, f"{owner}-{name}" if owner else name, self._files)

    def sync(self) -> None:
        try:
            self._files.sync_folder(self._folder)
        except OSError as error:
            translate(error, self._folder)

    def read(self, name: str, start: int, length: int) -> bytes:
        opened = self._descriptors.get(name) or self._open(name)
        try:
            data = os.pread(opened.fd, length, start)
        except OSError as error:
            translate_read(error, os.path.join(self._folder, name))
        if len(data) != length:
            raise CorruptPack(
                f"The pack {name} ends before byte {start + length}; run `cas fsck`.",
                pack=name,
                offset=start,
            )
        return data

    def read_all(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        opened = self._descriptors.get(name) or self._open(name)
        try:
            found = list(map(os.pread, repeat(opened.fd), lengths, starts))
        except OSError as error:
            translate_read(error, os.path.join(self._folder, name))
        if list(map(len, found)) != list(lengths):
            # One of them raises.
            return [self.read(name, *part) for part in zip(starts, lengths, strict=True)]
        return found

    def prefetch(self, parts: Sequence[Part]) -> None:
        return

    def check(self, name: str, head: bytes, start: int, tail: bytes) -> bool:
        return has_ends(self, name, head, start, tail)

    def forget(self) -> None:
        return

    def _open(self, name: str) -> _Open:
        path = os.path.join(self._folder, name)
        if self._closed:
            raise Closed("The store is closed; open it again.")
        try:
            opened = _Open(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError as error:
            raise MissingPack(
                f"The pack file {name} is missing; run `cas fsck`.", pack=name
            ) from error
        except OSError as error:
            translate_read(error, path)
        with self._lock:
            if not self._closed:
                self._descriptors.setdefault(name, opened)
            if len(self._descriptors) > self._descriptors_max:
                self._descriptors.popitem(last=False)
        return opened

    def size(self, name: str) -> int:
        try:
            return os.stat(os.path.join(self._folder, name)).st_size
        except FileNotFoundError as error:
            raise MissingPack(
                f"The pack file {name} is missing; run `cas fsck`.", pack=name
            ) from error
        except OSError as error:
            translate_read(error, os.path.join(self._folder, name))

    def list(self) -> Iterator[BucketFile]:
        try:
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(".pack")]
        except FileNotFoundError:
            return  # of a folder that is gone every pack is missing
        except OSError as error:
            translate_read(error, self._folder)
        for name in names:
            # What was deleted since the names were read is left out, and nothing else.
            with suppress(MissingPack):
                yield BucketFile(name, self.size(name))

    def unfinished(self) -> Iterator[UnfinishedFile]:
        try:
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(_TEMPORARY)]
        except FileNotFoundError:
            return  # of a folder that is gone every pack is missing
        except OSError as error:
            translate_read(error, self._folder)
        for name in names:
            owner = name.removesuffix(_TEMPORARY).rpartition("-")[0]
            with suppress(MissingPack):
                yield UnfinishedFile(name, owner, self.size(name))

    def discard(self, name: str) -> None:
        self._unlink(name)

    def delete(self, name: str) -> None:
        with self._lock:
            self._descriptors.pop(name, None)
        self._unlink(name)

    def _unlink(self, name: str) -> None:
        try:
            self._files.unlink(os.path.join(self._folder, name))
        except FileNotFoundError:
            pass
        except OSError as error:
            translate(error, os.path.join(self._folder, name))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._descriptors.clear()
