"""What a folder looked like when it was saved last, so that only what changed is read again.

Floor 5. A picture is a folder in columns: each directory before what is in it. It is kept in
the store's cache folder, one file a folder. Invariant: a picture that cannot be proved whole and
made by this store is no picture; an entry whose object the store does not hold counts as
changed; so a lost, old or damaged picture costs time and nothing else.

Racy-clean rule: a change is seen by its time stamps, and a change in the same tick of the file
system's clock as the last look is not. An entry whose stamps are not clearly older than the
walk that read it is therefore kept with an inode that no file has, and is read again.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import Final

from cas.errors import Corrupt
from cas.limits import ID_BYTES
from cas.model.encoding import decode, encode
from cas.model.ids import derive, digest_blob
from cas.model.values import frozen

Status = tuple[int, int, int, int, int]
"""(mode, inode, size, mtime, ctime) of an entry; times in ns since 1970."""

RulesSeen = dict[bytes, list[bytes]]
"""Ids of the ignore files of each directory (path with a slash) that has any."""

_KIND_MASK: Final = 0o170000
_FIELDS: Final = 5
_STATUS_BYTES: Final = 8 * _FIELDS
_CHUNK: Final = 2048
_MAGIC: Final = b"casSTAT1"
_CONTEXT: Final = "cas 2026-11 stat cache v1"
_HEAD: Final = struct.Struct("=8s16s16s4Q")
_SUFFIX: Final = ".stat"
_KEPT: Final = 64
"""Pictures kept of different folders; the oldest goes first."""

# The clock that file systems stamp with lags by up to 10 ms (one tick at 100 Hz). Where stamps
# are whole seconds the file system may keep no finer ones (FAT: two seconds).
_TICK_NS: Final = 20_000_000
_COARSE_NS: Final = 2_100_000_000
_SECOND_NS: Final = 1_000_000_000
_INT_END: Final = 1 << 63

# No inode is negative, and the two differ, so that neither is ever equal to what is there.
_UNSETTLED: Final = -1
_UNSEEN: Final = -2

_fields_of = attrgetter("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


@frozen
class Key:
    """What a picture belongs to: a store's lineage, a folder, and the options of the walk."""

    store_id: bytes
    lineage_id: bytes
    folder: bytes
    options: bytes

    @property
    def file_name(self) -> str:
        """Name of the picture's file."""
        return digest_blob(self.options + b"\0" + self.folder)[:16].hex() + _SUFFIX


class Picture:
    """Entries of a folder in columns. `paths` are absolute; entry 0 is the folder itself.

    `status` holds five numbers an entry, `spans` how many entries a subtree has (1 for what is
    no directory), `ids` 32 bytes an entry, `numbers` bytes of content.
    """

    __slots__ = ("ids", "numbers", "paths", "rules", "spans", "status")

    def __init__(self) -> None:
        self.paths: list[bytes] = []
        self.status = array("q")
        self.spans = array("Q")
        self.ids = bytearray()
        self.numbers = array("Q")
        self.rules: RulesSeen = {}

    def __len__(self) -> int:
        return len(self.paths)

    # -- making one --------------------------------------------------------------------------

    def add(self, path: bytes, status: Status, id: bytes, number: int) -> int:
        """Append one entry; gives its index."""
        self.paths.append(path)
        self.status.extend(status)
        self.spans.append(1)
        self.ids += id
        self.numbers.append(number)
        return len(self.paths) - 1

    def finish(self, index: int, status: Status, id: bytes, number: int) -> None:
        """Complete a directory that was added before its entries."""
        self.status[index * _FIELDS : (index + 1) * _FIELDS] = array("q", status)
        self.spans[index] = len(self.paths) - index
        self.ids[index * ID_BYTES : (index + 1) * ID_BYTES] = id
        self.numbers[index] = number

    def copy(self, other: Picture, start: int, stop: int) -> None:
        """Append entries of another picture."""
        self.paths += other.paths[start:stop]
        self.status += other.status[start * _FIELDS : stop * _FIELDS]
        self.spans += other.spans[start:stop]
        self.ids += other.ids[start * ID_BYTES : stop * ID_BYTES]
        self.numbers += other.numbers[start:stop]

    def truncate(self, length: int) -> None:
        """Drop the entries from `length` on."""
        del self.paths[length:]
        del self.status[length * _FIELDS :]
        del self.spans[length:]
        del self.ids[length * ID_BYTES :]
        del self.numbers[length:]

    # -- reading one -------------------------------------------------------------------------

    def id(self, index: int) -> bytes:
        """Object of an entry: content, target of a link, tree of a directory."""
        return bytes(self.ids[index * ID_BYTES : (index + 1) * ID_BYTES])

    def mode(self, index: int) -> int:
        """Mode of an entry."""
        return self.status[index * _FIELDS]

    def status_of(self, index: int) -> Status:
        """Status of an entry."""
        mode, inode, size, mtime, ctime = self.status[index * _FIELDS : (index + 1) * _FIELDS]
        return mode, inode, size, mtime, ctime

    def children(self, index: int) -> Iterator[int]:
        """Indexes of what stands straight in a directory, in order of name."""
        spans = self.spans
        at, end = index + 1, index + spans[index]
        while at < end:
            yield at
            at += spans[at]

    def count(self, kind: int) -> int:
        """Entries of a kind, as `stat.S_IFMT` gives it."""
        return sum([mode & _KIND_MASK == kind for mode in self.status[::_FIELDS]])

    def equals(self, other: Picture | None) -> bool:
        """Whether another picture says the same."""
        return self is other or (
            other is not None
            and self.status == other.status
            and self.ids == other.ids
            and self.paths == other.paths
            and self.rules == other.rules
        )

    def changed(self) -> list[int]:
        """Indexes of entries that are not as they were, ascending. Looks at every one."""
        found: list[int] = []
        paths = self.paths
        for start in range(0, len(paths), _CHUNK):
            part = paths[start : start + _CHUNK]
            try:
                now = array("q", chain.from_iterable(map(_fields_of, map(os.lstat, part))))
            except (OSError, OverflowError):
                now = array("q", chain.from_iterable(map(_look, part)))
            before = self.status[start * _FIELDS : (start + len(part)) * _FIELDS]
            if now != before:
                found += _differing(before.tobytes(), now.tobytes(), start)
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


def settled(status: Status, started_ns: int) -> Status:
    """`status` when a later change is sure to show, else what counts as changed at once."""
    mtime, ctime = status[3:]
    margin = _TICK_NS if ctime % _SECOND_NS else _COARSE_NS
    if status[1] >= 0 and max(mtime, ctime) + margin < started_ns:
        return status
    return unsettled(status)


def unsettled(status: Status) -> Status:
    """A status that counts as changed at the next look."""
    return (status[0], _UNSETTLED, *status[2:])


# -- the file --------------------------------------------------------------------------------


def load(cache: str, key: Key) -> Picture | None:
    """The picture of a folder, or None when there is none, or none to be trusted."""
    try:
        with open(os.path.join(cache, key.file_name), "rb") as file:
            data = file.read()
    except OSError:
        return None
    body, digest = memoryview(data)[:-ID_BYTES], data[-ID_BYTES:]
    if len(body) < _HEAD.size or derive(_CONTEXT, body) != digest:
        return None
    magic, store_id, lineage_id, count, *lengths = _HEAD.unpack_from(body)
    if (magic, store_id, lineage_id) != (_MAGIC, key.store_id, key.lineage_id):
        return None
    at = _HEAD.size
    parts: list[memoryview] = []
    for length in (_STATUS_BYTES * count, 8 * count, 8 * count, ID_BYTES * count, *lengths):
        parts.append(body[at : at + length])
        at += length
    status, spans, numbers, ids, paths, rules, options = parts
    if at != len(body) or options != key.options:
        return None
    picture = Picture()
    picture.status.frombytes(status)
    picture.spans.frombytes(spans)
    picture.numbers.frombytes(numbers)
    picture.ids = bytearray(ids)
    picture.paths = bytes(paths).split(b"\0")
    try:
        picture.rules = dict(decode(bytes(rules), verified=True))
    except (Corrupt, TypeError, ValueError):
        return None
    if len(picture.paths) != count or picture.paths[0] != key.folder:
        return None
    return picture


def save(cache: str, key: Key, picture: Picture, token: bytes) -> None:
    """Keep a picture; where that is impossible it is done without. `token`: random bytes."""
    paths = b"\0".join(picture.paths)
    rules = encode([[path, ids] for path, ids in sorted(picture.rules.items())])
    head = _HEAD.pack(
        _MAGIC,
        key.store_id,
        key.lineage_id,
        len(picture),
        len(paths),
        len(rules),
        len(key.options),
    )
    columns = (picture.status, picture.spans, picture.numbers, picture.ids)
    body = b"".join((head, *columns, paths, rules, key.options))
    path = os.path.join(cache, key.file_name)
    temporary = f"{path}.{token.hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.writelines((body, derive(_CONTEXT, body)))
        os.rename(temporary, path)
        _prune(cache)
    except OSError:
        _remove(temporary)


def _prune(cache: str) -> None:
    names = [name for name in os.listdir(cache) if name.endswith(_SUFFIX)]
    if len(names) > _KEPT:
        found = [os.path.join(cache, name) for name in names]
        for path in sorted(found, key=os.path.getmtime)[:-_KEPT]:
            _remove(path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
