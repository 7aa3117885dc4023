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

import mmap
import os
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, eq
from typing import Any, Final

from cas.errors import Corrupt
from cas.limits import ID_BYTES
from cas.model.encoding import decode, encode
from cas.model.ids import derive_parts, digest_blob
from cas.model.values import frozen

Status = tuple[int, int, int, int, int]
"""(mode, inode, size, mtime, ctime) of an entry; times in ns since 1970."""

RulesSeen = dict[bytes, list[bytes]]
"""Ids of the ignore files of each directory (path with a slash) that has any."""

_KIND_MASK: Final = 0o170000
_FIELDS: Final = 5
_STATUS_BYTES: Final = 8 * _FIELDS
_CHUNK: Final = 2048
_MAGIC: Final = b"casSTAT2"
_CONTEXT: Final = "cas 2026-11 stat cache v2"
_HEAD: Final = struct.Struct("=8s16s16s4Q")
_PART_BYTES: Final = 4 << 20
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


class Picture:
    """Entries of a folder in columns. `paths` are absolute; entry 0 is the folder itself.

    `status` holds five numbers an entry, `spans` how many entries a subtree has (1 for what is
    no directory), `ids` 32 bytes an entry, `numbers` bytes of content. Those of a picture that
    was loaded lie in its file, and are read only; `proof` is the hash of all that the file says.
    `seen` is what `changed` gives, where somebody else has looked already.
    """

    __slots__ = ("ids", "numbers", "paths", "proof", "rules", "seen", "spans", "status")

    def __init__(self) -> None:
        self.paths = Paths()
        self.status: Any = array("q")
        self.spans: Any = array("I")
        self.ids: Any = bytearray()
        self.numbers: Any = array("Q")
        self.rules: RulesSeen = {}
        self.proof = b""
        self.seen: list[int] | None = None

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
        self.paths.copy(other.paths, start, stop)
        self.status.frombytes(other.status[start * _FIELDS : stop * _FIELDS].tobytes())
        self.spans.frombytes(other.spans[start:stop].tobytes())
        self.ids += other.ids[start * ID_BYTES : stop * ID_BYTES]
        self.numbers.frombytes(other.numbers[start:stop].tobytes())

    def truncate(self, length: int) -> None:
        """Drop the entries from `length` on."""
        self.paths.truncate(length)
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
        mode: int = self.status[index * _FIELDS]
        return mode

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
        # A folder has few modes, and many entries.
        modes = Counter(self.status[::_FIELDS])
        return sum([count for mode, count in modes.items() if mode & _KIND_MASK == kind])

    def columns(self) -> tuple[memoryview, ...]:
        """Everything but the ignore files, as it is written."""
        columns = (self.status, self.spans, self.numbers, self.ids)
        return (*(memoryview(column).cast("B") for column in columns), *self.paths.columns())

    def equals(self, other: Picture | None) -> bool:
        """Whether another picture says the same."""
        if other is None or self is other:
            return self is other
        both = zip(self.columns(), other.columns(), strict=True)
        return self.rules == other.rules and all(
            len(one) == len(two) and all(map(eq, _parts(one), _parts(two))) for one, two in both
        )

    def changed(self) -> list[int]:
        """Indexes of entries that are not as they were, ascending. Looks at every one."""
        if self.seen is not None:
            return self.seen
        found: list[int] = []
        paths = self.paths
        for start in range(0, len(paths), _CHUNK):
            part = paths.part(start, min(len(paths), start + _CHUNK))
            try:
                now = array("q", chain.from_iterable(map(_fields_of, map(os.lstat, part))))
            except (OSError, OverflowError):
                now = array("q", chain.from_iterable(map(_look, part)))
            before = self.status[start * _FIELDS : (start + len(part)) * _FIELDS].tobytes()
            if now.tobytes() != before:
                found += _differing(before, now.tobytes(), start)
        return found


def _parts(column: memoryview) -> Iterator[bytes]:
    """A column in pieces: one as large as a folder of a million files is not copied whole."""
    for start in range(0, len(column), _PART_BYTES):
        yield bytes(column[start : start + _PART_BYTES])


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
    """The picture of a folder, or None when there is none, or none to be trusted.

    It lies in its file, mapped: a later picture takes the file's name and not its place.
    """
    found = _read(cache, key)
    return None if found is None or found[1] != (key.store_id, key.lineage_id) else found[0]


def look(cache: str, folder: bytes, options: bytes) -> tuple[bytes, list[int]] | None:
    """What of a folder is not as its picture has it, and the proof of that picture, whichever
    store's it is; None where `load` would find none.
    """
    found = _read(cache, Key(b"", b"", folder, options))
    return None if found is None else (found[0].proof, found[0].changed())


def _read(cache: str, key: Key) -> tuple[Picture, tuple[bytes, bytes]] | None:
    """A picture, and the store and lineage that it is of, which is not looked at here."""
    try:
        with open(os.path.join(cache, key.file_name), "rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        return None
    body, digest = data[:-ID_BYTES], data[-ID_BYTES:]
    if len(body) < _HEAD.size or derive_parts(_CONTEXT, (body,)) != digest:
        return None
    magic, store_id, lineage_id, count, *lengths = _HEAD.unpack_from(body)
    if magic != _MAGIC:
        return None
    at = _HEAD.size
    parts: list[memoryview] = []
    columns = (_STATUS_BYTES * count, 4 * count, 8 * count, ID_BYTES * count, lengths[0])
    for length in (*columns, 8 * count, *lengths[1:]):
        parts.append(body[at : at + length])
        at += length
    status, spans, numbers, ids, text, starts, rules, options = parts
    if at != len(body) or options != key.options or not count:
        return None
    picture = Picture()
    picture.status, picture.spans = status.cast("q"), spans.cast("I")
    picture.numbers, picture.ids = numbers.cast("Q"), ids
    picture.paths, picture.proof = Paths.of(text, starts), bytes(digest)
    try:
        picture.rules = dict(decode(bytes(rules), verified=True))
    except (Corrupt, TypeError, ValueError):
        return None
    return (picture, (store_id, lineage_id)) if picture.paths[0] == key.folder else None


def save(cache: str, key: Key, picture: Picture, token: bytes) -> None:
    """Keep a picture; where that is impossible it is done without. `token`: random bytes."""
    columns = picture.columns()
    rules = encode([[path, ids] for path, ids in sorted(picture.rules.items())])
    head = _HEAD.pack(
        _MAGIC,
        key.store_id,
        key.lineage_id,
        len(picture),
        len(columns[4]),
        len(rules),
        len(key.options),
    )
    parts: tuple[bytes | memoryview, ...] = (head, *columns, rules, key.options)
    path = os.path.join(cache, key.file_name)
    temporary = f"{path}.{token.hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.writelines((*parts, derive_parts(_CONTEXT, parts)))
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
