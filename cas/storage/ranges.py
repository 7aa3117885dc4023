"""A bucket with a cache before it: blocks of pack files, in memory and in a folder of the host.

Floor 2. Invariant: a block that is given has the bytes that the bucket gave once; files never
change, so nothing grows old. What lies in the folder is bounded, carries a checksum, is shared by
every process of the host, and may be deleted at any time. Reads of what is large pass by.

What is lacking is asked for in runs: blocks that lie near each other in one request, and several
requests beside each other. Any thread.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import ClassVar, Final
from zlib import crc32

from cas.errors import CasError, Corrupt, CorruptPack
from cas.limits import KIB, MIB, RANGE_CACHE_BYTES, RANGE_MEMORY_BYTES
from cas.storage.bucket import BucketFile, Part, UnfinishedFile
from cas.storage.s3 import S3Bucket, S3Upload, cut_short

BLOCK_BYTES: Final = 32 * KIB
_LARGE_BYTES: Final = 4 * MIB
"""A read of more than that is no hot range: it is a pack on its way to somewhere else. The footer
of a pack is less.
"""
_GAP_BLOCKS: Final = 3
"""Blocks between two that are wanted and that are brought along: less work than another request."""
_RUN_BLOCKS: Final = 128
_SWEEP_BLOCKS: Final = 1024
"""One block in so many, drawn by lot, makes the folder be looked at: no process counts for all."""
_SUM_BYTES: Final = 4

_Block = tuple[str, int]


class CachedBucket:
    """`inner`, with blocks of it kept in `folder`; None keeps them in memory alone."""

    far: ClassVar = True

    def __init__(
        self, inner: S3Bucket, folder: str | None, bytes_max: int = RANGE_CACHE_BYTES
    ) -> None:
        self.inner = inner
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Block, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._sizes: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"CachedBucket({self.inner!r})"

    # -- reading -----------------------------------------------------------------------------

    def read(self, name: str, start: int, length: int) -> bytes:
        if not 0 < length <= _LARGE_BYTES:
            return self.inner.read(name, start, length)
        found = self.read_many([(name, start, length)])[0]
        if isinstance(found, CasError):
            raise found
        return found

    def read_all(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        return [self.read(name, *part) for part in zip(starts, lengths, strict=True)]

    def prefetch(self, parts: Sequence[Part]) -> None:
        for found in self.read_many(parts):
            if isinstance(found, CasError) and not isinstance(found, Corrupt):
                raise found

    def read_many(self, parts: Sequence[Part]) -> list[bytes | CasError]:
        """Each part as `read` gives it, or the error that it raises."""
        self.inner.refuse_closed()
        wanted: dict[_Block, bytes | CasError] = {}
        lacking: list[_Block] = []
        for name, start, length in parts:
            for number in _numbers(start, length):
                block = name, number
                if block not in wanted:
                    found = self._get(block)
                    if found is None:
                        lacking.append(block)
                        found = b""
                    wanted[block] = found
        if lacking:
            lacking.sort()
            self._fetch(lacking, wanted)
        return [self._cut(part, wanted) for part in parts]

    def _cut(self, part: Part, blocks: dict[_Block, bytes | CasError]) -> bytes | CasError:
        """The bytes of one read, from whole blocks."""
        name, start, length = part
        if not 0 < length <= _LARGE_BYTES:
            try:
                return self.inner.read(name, start, length)
            except CasError as error:
                return error
        numbers = _numbers(start, length)
        pieces: list[bytes] = []
        for number in numbers:
            piece = blocks[name, number]
            if isinstance(piece, CasError):
                return piece
            pieces.append(piece)
        at = start - numbers[0] * BLOCK_BYTES
        data = (
            b"".join(pieces)[at : at + length] if len(pieces) > 1 else pieces[0][at : at + length]
        )
        return data if len(data) == length else cut_short(name, start, length)

    def _fetch(self, lacking: list[_Block], wanted: dict[_Block, bytes | CasError]) -> None:
        """Bring blocks, ascending, into `wanted` and the cache."""
        runs = list(_runs(lacking))
        asked = [(name, first * BLOCK_BYTES, count * BLOCK_BYTES) for name, first, count in runs]
        for (name, first, count), found in zip(runs, self.inner.fetch_many(asked), strict=True):
            for number in range(first, first + count):
                block = name, number
                if isinstance(found, CasError):
                    if block in wanted and not isinstance(found, CorruptPack):
                        wanted[block] = found
                    continue
                at = (number - first) * BLOCK_BYTES
                data = found[at : at + BLOCK_BYTES]
                if data:
                    self._put(block, data)
                if block in wanted:
                    wanted[block] = data

    # -- what is kept ------------------------------------------------------------------------

    def _get(self, block: _Block) -> bytes | None:
        with self._lock:
            found = self._kept.get(block)
            if found is not None:
                self._kept.move_to_end(block)
                return found
        if self._folder is None:
            return None
        path = self._path(block)
        try:
            with open(path, "rb") as file:
                kept = file.read(BLOCK_BYTES + _SUM_BYTES + 1)
            os.utime(path)
        except OSError:
            return None
        data = kept[_SUM_BYTES:]
        if not 0 < len(data) <= BLOCK_BYTES or kept[:_SUM_BYTES] != _sum(block, data):
            return None  # torn by a power failure, damaged, or another's: it is fetched again
        self._remember(block, data)
        return data

    def _remember(self, block: _Block, data: bytes) -> None:
        with self._lock:
            if block not in self._kept:
                self._kept[block] = data
                self._kept_bytes += len(data)
            while self._kept_bytes > RANGE_MEMORY_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _put(self, block: _Block, data: bytes) -> None:
        self._remember(block, data)
        if self._folder is None:
            return
        path = self._path(block)
        temporary = f"{path}.{self.inner.clock.random(8).hex()}"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(temporary, "xb") as file:
                file.write(_sum(block, data) + data)
            os.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            return
        if int.from_bytes(self.inner.clock.random(4)) % _SWEEP_BLOCKS == 0:
            sweep(self._folder, self._bytes_max)

    def _path(self, block: _Block) -> str:
        assert self._folder is not None
        name, number = block
        return os.path.join(self._folder, name[:2], f"{name.removesuffix('.pack')}-{number:x}")

    def forget(self) -> None:
        """Drop what is kept of every file."""
        with self._lock:
            self._kept.clear()
            self._kept_bytes = 0
            self._sizes.clear()
        if self._folder is not None:
            sweep(self._folder, 0)

    # -- all else as it is -------------------------------------------------------------------

    def create(self, owner: str = "") -> S3Upload:
        return self.inner.create(owner)

    def sync(self) -> None:
        self.inner.sync()

    def check(self, name: str, head: bytes, start: int, tail: bytes) -> bool:
        return self.inner.check(name, head, start, tail)

    def size(self, name: str) -> int:
        found = self._sizes.get(name)
        if found is None:
            found = self._sizes[name] = self.inner.size(name)
        return found

    def list(self) -> Iterator[BucketFile]:
        return self.inner.list()

    def unfinished(self) -> Iterator[UnfinishedFile]:
        return self.inner.unfinished()

    def discard(self, name: str) -> None:
        self.inner.discard(name)

    def delete(self, name: str) -> None:
        with self._lock:
            self._sizes.pop(name, None)
            for block in [block for block in self._kept if block[0] == name]:
                self._kept_bytes -= len(self._kept.pop(block))
        self.inner.delete(name)
        if self._folder is not None:
            _drop(os.path.join(self._folder, name[:2]), name.removesuffix(".pack") + "-")

    def close(self) -> None:
        with self._lock:
            self._kept.clear()
            self._kept_bytes = 0
        self.inner.close()


def _numbers(start: int, length: int) -> range:
    """Numbers of the blocks that a read touches; none for one that passes by."""
    if not 0 < length <= _LARGE_BYTES:
        return range(0)
    return range(start // BLOCK_BYTES, (start + length - 1) // BLOCK_BYTES + 1)


def _runs(blocks: Sequence[_Block]) -> Iterator[tuple[str, int, int]]:
    """(name, first block, blocks) of the requests that bring these blocks, which ascend."""
    name, first, last = blocks[0][0], blocks[0][1], blocks[0][1]
    for block in blocks[1:]:
        near = block[1] - last <= 1 + _GAP_BLOCKS and block[1] - first < _RUN_BLOCKS
        if block[0] != name or not near:
            yield name, first, last - first + 1
            name, first = block
        last = block[1]
    yield name, first, last - first + 1


def _sum(block: _Block, data: bytes) -> bytes:
    """The checksum of a block: of its place too, so that the file of another is none."""
    return crc32(data, crc32(repr(block).encode())).to_bytes(_SUM_BYTES, "little")


def _drop(folder: str, beginning: str) -> None:
    """Remove the blocks of one file."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(beginning)]
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))


def sweep(folder: str, bytes_max: int) -> int:
    """Remove what was not used for longest until three quarters of the bound are left; the bytes
    that are. Others may do the same meanwhile.
    """
    found: list[tuple[int, int, str]] = []
    for top, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            with suppress(OSError):
                status = os.stat(path)
                found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _time, size, _path in found)
    if total > bytes_max:
        for _time, size, path in sorted(found):
            if total <= bytes_max * 3 // 4:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size
    return total
