"""A look at every entry of a folder that was saved before: which are not as its picture has them.

Floor 5; the columns of a picture as they lie in its file. Invariant: little is loaded for it. A
command that saves a folder forks for this look before it loads anything else, and all that is
loaded here comes before that (`cas.worktree.glance`). Nothing is proved here: who believes a
picture has compared its hash (`cas.worktree.statcache`).
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from collections.abc import Iterator
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any, Final, NamedTuple

from cas.limits import ID_BYTES
from cas.model.ids import digest_blob

Status = tuple[int, int, int, int, int]
"""(mode, inode, size, mtime, ctime) of an entry; times in ns since 1970."""

FIELDS: Final = 5
_STATUS_BYTES: Final = 8 * FIELDS
_CHUNK: Final = 2048
HEAD: Final = struct.Struct("=8s16s16s4Q")
MAGIC: Final = b"casSTAT3"
SUFFIX: Final = ".stat"
_INT_END: Final = 1 << 63
_UNSEEN: Final = -2  # no inode is negative

_fields_of = attrgetter("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


class Paths:
    """Absolute paths in order, each with a NUL behind it: a million take 50 MB and not 90."""

    __slots__ = ("_starts", "_text")

    def __init__(self) -> None:
        self._text: bytearray | memoryview = bytearray()
        self._starts: array[int] | memoryview = array("Q")

    @classmethod
    def of(cls, text: memoryview, starts: memoryview) -> Paths:
        """Those of a file that was proved whole; not to be added to."""
        paths = cls()
        paths._text, paths._starts = text, starts.cast("Q")
        return paths

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._text[self._starts[index] : self._start(index + 1) - 1])

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self), _CHUNK):
            yield from self.part(start, min(len(self), start + _CHUNK))

    def part(self, start: int, stop: int) -> list[bytes]:
        """Some that lie behind each other, at least one."""
        return bytes(self._text[self._starts[start] : self._start(stop) - 1]).split(b"\0")

    def _start(self, index: int) -> int:
        return self._starts[index] if index < len(self._starts) else len(self._text)

    def append(self, path: bytes) -> None:
        """One more."""
        assert isinstance(self._text, bytearray)
        assert isinstance(self._starts, array)
        self._starts.append(len(self._text))
        self._text += path
        self._text.append(0)

    def copy(self, other: Paths, start: int, stop: int) -> None:
        """Append some of another folder's, at least one."""
        assert isinstance(self._text, bytearray)
        assert isinstance(self._starts, array)
        by = len(self._text) - other._starts[start]
        self._text += other._text[other._starts[start] : other._start(stop)]
        if by:
            self._starts.extend([at + by for at in other._starts[start:stop]])
        else:
            self._starts.frombytes(other._starts[start:stop].tobytes())

    def truncate(self, length: int) -> None:
        """Drop those from `length` on."""
        assert isinstance(self._text, bytearray)
        assert isinstance(self._starts, array)
        del self._text[self._start(length) :]
        del self._starts[length:]

    def columns(self) -> tuple[memoryview, memoryview]:
        """Text and starts, as they are written."""
        return memoryview(self._text), memoryview(self._starts).cast("B")


class Parts(NamedTuple):
    """The file of a picture, in pieces of its mapping. `body` is what `proof` is the hash of; the
    store and the lineage in `of` are 16 bytes each, columns are as `Picture` has them.
    """

    body: memoryview
    proof: bytes
    of: tuple[bytes, bytes]
    status: memoryview
    spans: memoryview
    numbers: memoryview
    ids: memoryview
    paths: Paths
    rules: memoryview
    options: memoryview


def file_name(folder: bytes, options: bytes) -> str:
    """Name of the file of a picture."""
    return digest_blob(options + b"\0" + folder)[:16].hex() + SUFFIX


def split(path: str) -> Parts | None:
    """What the file at `path` has, mapped; None where it is no picture. Proves nothing."""
    try:
        with open(path, "rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        return None
    body, proof = data[:-ID_BYTES], bytes(data[-ID_BYTES:])
    if len(body) < HEAD.size:
        return None
    magic, store_id, lineage_id, count, *lengths = HEAD.unpack_from(body)
    columns = (_STATUS_BYTES * count, 4 * count, 8 * count, ID_BYTES * count, lengths[0])
    ends = list(accumulate((*columns, 8 * count, *lengths[1:]), initial=HEAD.size))
    if magic != MAGIC or ends[-1] != len(body) or not count:
        return None
    pieces = [body[start:end] for start, end in pairwise(ends)]
    status, spans, numbers, ids, text, starts, rules, options = pieces
    paths = Paths.of(text, starts)
    of = store_id, lineage_id
    return Parts(body, proof, of, status, spans, numbers, ids, paths, rules, options)


def look(cache: str, folder: bytes, options: bytes) -> tuple[bytes, list[int]] | None:
    """What of a folder is not as its picture has it, and the proof of that picture, whichever
    store's it is and whether it holds or not; None where there is none.
    """
    parts = split(os.path.join(cache, file_name(folder, options)))
    return None if parts is None else (parts.proof, changed(parts.paths, parts.status.cast("q")))


def changed(paths: Paths, status: Any) -> list[int]:
    """Indexes of entries that are not as they were, ascending. Looks at every one."""
    found: list[int] = []
    for start in range(0, len(paths), _CHUNK):
        part = paths.part(start, min(len(paths), start + _CHUNK))
        try:
            now = array("q", chain.from_iterable(map(_fields_of, map(os.lstat, part))))
        except (OSError, OverflowError):
            now = array("q", chain.from_iterable(map(_look, part)))
        before = status[start * FIELDS : (start + len(part)) * FIELDS].tobytes()
        if now.tobytes() != before:
            found += _differing(before, now.tobytes(), start)
    return found


def _look(path: bytes) -> Status:
    """Status of a path, or one that nothing has."""
    try:
        return status_of(os.lstat(path))
    except OSError:
        return (0, _UNSEEN, 0, 0, 0)


def _differing(before: bytes, now: bytes, start: int) -> list[int]:
    return [
        start + at // _STATUS_BYTES
        for at in range(0, len(before), _STATUS_BYTES)
        if before[at : at + _STATUS_BYTES] != now[at : at + _STATUS_BYTES]
    ]


def status_of(status: os.stat_result) -> Status:
    """The fields that tell a change."""
    fields: Status = _fields_of(status)
    # A few file systems number inodes up to 2^64; such an entry is never taken for unchanged.
    return fields if max(fields) < _INT_END else (fields[0], _UNSEEN, 0, 0, 0)
