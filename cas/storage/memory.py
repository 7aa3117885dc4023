"""A bucket in memory: the reference implementation, for tests and throw-away stores.

Floor 2. Invariant: behaves as `cas.storage.local` does, with nothing to make durable.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import ClassVar

from cas.errors import Closed, CorruptPack, MissingPack, StorageFailed
from cas.storage.bucket import BucketFile, Part, UnfinishedFile, has_ends


class MemoryUpload:
    """Bytes that have no name yet."""

    def __init__(self, files: dict[str, list[bytes]]) -> None:
        self._files = files
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))

    def read(self, start: int, length: int) -> bytes:
        self._parts = [b"".join(self._parts)]
        return self._parts[0][start : start + length]

    def seal(self, name: str) -> None:
        # setdefault is one step under the GIL: of two threads that seal one name one wins. The
        # list tells equal content, even the same object, from the one that was put here.
        sealed = [b"".join(self._parts)]
        if self._files.setdefault(name, sealed) is not sealed:
            raise StorageFailed(
                f"{name} exists and is never overwritten.", path=name, errno=errno.EEXIST
            )
        self._parts = []

    def abort(self) -> None:
        self._parts = []


class MemoryBucket:
    """A dict of files."""

    far: ClassVar = False

    def __init__(self) -> None:
        self._files: dict[str, list[bytes]] = {}
        self._closed = False

    def create(self, owner: str = "") -> MemoryUpload:
        return MemoryUpload(self._files)

    def sync(self) -> None:
        return

    def read(self, name: str, start: int, length: int) -> bytes:
        data = self._file(name)[start : start + length]
        if len(data) != length:
            raise CorruptPack(
                f"The pack {name} ends before byte {start + length}; run `cas fsck`.",
                pack=name,
                offset=start,
            )
        return data

    def read_all(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        return [self.read(name, *part) for part in zip(starts, lengths, strict=True)]

    def prefetch(self, parts: Sequence[Part]) -> None:
        return

    def check(self, name: str, head: bytes, start: int, tail: bytes) -> bool:
        return has_ends(self, name, head, start, tail)

    def forget(self) -> None:
        return

    def _file(self, name: str) -> bytes:
        if self._closed:
            raise Closed("The store is closed; open it again.")
        try:
            return self._files[name][0]
        except KeyError:
            raise MissingPack(
                f"The pack file {name} is missing; run `cas fsck`.", pack=name
            ) from None

    def size(self, name: str) -> int:
        return len(self._file(name))

    def list(self) -> Iterator[BucketFile]:
        for name, sealed in list(self._files.items()):
            yield BucketFile(name, len(sealed[0]))

    def unfinished(self) -> Iterator[UnfinishedFile]:
        # What was begun here is gone with whoever held it.
        return iter(())

    def discard(self, name: str) -> None:
        return

    def delete(self, name: str) -> None:
        self._files.pop(name, None)

    def close(self) -> None:
        self._closed = True
