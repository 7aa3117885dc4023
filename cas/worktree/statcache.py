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
import stat
from array import array
from collections import Counter
from collections.abc import Iterator
from operator import eq
from typing import Any, Final

from cas.errors import Corrupt
from cas.limits import ID_BYTES
from cas.model.encoding import decode, encode
from cas.model.ids import derive_parts
from cas.model.values import frozen
from cas.worktree.looking import (
    FIELDS,
    HEAD,
    MAGIC,
    SUFFIX,
    Paths,
    Status,
    changed,
    file_name,
    split,
)

RulesSeen = dict[bytes, list[bytes]]
"""Ids of the ignore files of each directory (path with a slash) that has any."""

_CONTEXT: Final = "cas 2026-11 stat cache v3"
_PART_BYTES: Final = 4 << 20
_KEPT: Final = 64
"""Pictures kept of different folders; the oldest goes first."""

# The clock that file systems stamp with lags by up to 10 ms (one tick at 100 Hz). Where stamps
# are whole seconds the file system may keep no finer ones (FAT: two seconds).
_TICK_NS: Final = 20_000_000
_COARSE_NS: Final = 2_100_000_000
_SECOND_NS: Final = 1_000_000_000

# No inode is negative, and this is not the one that `looking` has for what is gone.
_UNSETTLED: Final = -1


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
        return file_name(self.folder, self.options)


class Picture:
    """Entries of a folder in columns. `paths` are absolute; entry 0 is the folder itself.

    `status` holds five numbers an entry, `spans` how many entries a subtree has (1 for what is
    no directory), `ids` 32 bytes an entry, `numbers` bytes of content. Those of a picture that
    was loaded lie in its file, and are read only; `proof` is the hash of all that the file says.
    `seen` is what `changed` gives, where somebody else has looked already. `secrets` are the files,
    by their path below the folder, that are to be named whenever this is saved.
    """

    __slots__ = (
        "_copied",
        "ids",
        "numbers",
        "paths",
        "proof",
        "rules",
        "secrets",
        "seen",
        "spans",
        "status",
    )

    def __init__(self) -> None:
        self.paths = Paths()
        self.status: Any = array("q")
        self.spans: Any = array("I")
        self.ids: Any = bytearray()
        self.numbers: Any = array("Q")
        self.rules: RulesSeen = {}
        self.secrets: list[bytes] = []
        self.proof = b""
        self.seen: list[int] | None = None
        # A run of another picture that `copy` was asked for and that is not appended yet.
        self._copied: tuple[Picture, int, int] | None = None

    def __len__(self) -> int:
        self._append()
        return len(self.paths)

    # -- making one --------------------------------------------------------------------------

    def add(self, path: bytes, status: Status, id: bytes, number: int) -> int:
        """Append one entry; gives its index."""
        self._append()
        self.paths.append(path)
        self.status.extend(status)
        self.spans.append(1)
        self.ids += id
        self.numbers.append(number)
        return len(self.paths) - 1

    def finish(self, index: int, status: Status, id: bytes, number: int) -> None:
        """Complete a directory that was added before its entries; the folder itself at last."""
        self._append()
        self.status[index * FIELDS : (index + 1) * FIELDS] = array("q", status)
        self.spans[index] = len(self.paths) - index
        self.ids[index * ID_BYTES : (index + 1) * ID_BYTES] = id
        self.numbers[index] = number

    def copy(self, other: Picture, start: int, stop: int) -> None:
        """Append entries of another picture."""
        # Files of a directory come one by one, and mostly behind each other.
        if self._copied is not None and self._copied[0] is other and self._copied[2] == start:
            start = self._copied[1]
        else:
            self._append()
        self._copied = other, start, stop

    def _append(self) -> None:
        if self._copied is None:
            return
        other, start, stop = self._copied
        self._copied = None
        self.paths.copy(other.paths, start, stop)
        self.status.frombytes(other.status[start * FIELDS : stop * FIELDS].tobytes())
        self.spans.frombytes(other.spans[start:stop].tobytes())
        self.ids += other.ids[start * ID_BYTES : stop * ID_BYTES]
        self.numbers.frombytes(other.numbers[start:stop].tobytes())

    def truncate(self, length: int) -> None:
        """Drop the entries from `length` on."""
        self._append()
        self.paths.truncate(length)
        del self.status[length * FIELDS :]
        del self.spans[length:]
        del self.ids[length * ID_BYTES :]
        del self.numbers[length:]

    # -- reading one -------------------------------------------------------------------------

    def id(self, index: int) -> bytes:
        """Object of an entry: content, target of a link, tree of a directory."""
        return bytes(self.ids[index * ID_BYTES : (index + 1) * ID_BYTES])

    def mode(self, index: int) -> int:
        """Mode of an entry."""
        mode: int = self.status[index * FIELDS]
        return mode

    def status_of(self, index: int) -> Status:
        """Status of an entry."""
        mode, inode, size, mtime, ctime = self.status[index * FIELDS : (index + 1) * FIELDS]
        return mode, inode, size, mtime, ctime

    def children(self, index: int) -> Iterator[int]:
        """Indexes of what stands straight in a directory, in order of name."""
        spans = self.spans
        at, end = index + 1, index + spans[index]
        while at < end:
            yield at
            at += spans[at]

    def count(self) -> Counter[int]:
        """Entries of each kind, as `stat.S_IFMT` gives it."""
        kinds: Counter[int] = Counter()
        # A folder has few modes, and many entries.
        for mode, count in Counter(self.status[::FIELDS]).items():
            kinds[stat.S_IFMT(mode)] += count
        return kinds

    def columns(self) -> tuple[memoryview, ...]:
        """Everything but the ignore files and the secrets, as it is written."""
        self._append()
        columns = (self.status, self.spans, self.numbers, self.ids)
        return (*(memoryview(column).cast("B") for column in columns), *self.paths.columns())

    def equals(self, other: Picture | None) -> bool:
        """Whether another picture says the same."""
        if other is None or self is other:
            return self is other
        both = zip(self.columns(), other.columns(), strict=True)
        told = self.rules == other.rules and self.secrets == other.secrets
        return told and all(
            len(one) == len(two) and all(map(eq, _parts(one), _parts(two))) for one, two in both
        )

    def changed(self) -> list[int]:
        """Indexes of entries that are not as they were, ascending. Looks at every one."""
        return changed(self.paths, self.status) if self.seen is None else self.seen


def _parts(column: memoryview) -> Iterator[bytes]:
    """A column in pieces: one as large as a folder of a million files is not copied whole."""
    for start in range(0, len(column), _PART_BYTES):
        yield bytes(column[start : start + _PART_BYTES])


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
    parts = split(os.path.join(cache, key.file_name))
    if parts is None or parts.of != (key.store_id, key.lineage_id) or parts.options != key.options:
        return None
    if derive_parts(_CONTEXT, (parts.body,)) != parts.proof:
        return None
    picture = Picture()
    picture.status, picture.spans = parts.status.cast("q"), parts.spans.cast("I")
    picture.numbers, picture.ids = parts.numbers.cast("Q"), parts.ids
    picture.paths, picture.proof = parts.paths, parts.proof
    try:
        rules, picture.secrets = decode(bytes(parts.rules), verified=True)
        picture.rules = dict(rules)
    except (Corrupt, TypeError, ValueError):
        return None
    return picture if picture.paths[0] == key.folder else None


def save(cache: str, key: Key, picture: Picture, token: bytes) -> None:
    """Keep a picture; where that is impossible it is done without. `token`: random bytes."""
    columns = picture.columns()
    ruling = [[path, ids] for path, ids in sorted(picture.rules.items())]
    rules = encode([ruling, picture.secrets])
    head = HEAD.pack(
        MAGIC,
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
    names = [name for name in os.listdir(cache) if name.endswith(SUFFIX)]
    if len(names) > _KEPT:
        found = [os.path.join(cache, name) for name in names]
        for path in sorted(found, key=os.path.getmtime)[:-_KEPT]:
            _remove(path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
