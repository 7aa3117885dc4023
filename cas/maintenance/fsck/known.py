"""Which objects exist, of which kind and size: asked for every id that anything names.

Floor 5. Invariant: `get` answers for the first 16 bytes of an id, which no accident makes equal.
Memory is bounded: a dict while there are few; then 20 bytes an object, where a dict would take
eight times as much; and of many 4 bytes of each, the ids being put aside in a file without a name
in the cache, of which a look-up reads a block. Where no file can be written they stay in memory.
"""

from __future__ import annotations

import os
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from cas.errors import StorageFailed
from cas.later import Later
from cas.storage.files import translate_read

if TYPE_CHECKING:
    import tempfile
else:
    # Of few objects nothing is put aside.
    tempfile = Later("tempfile")

DICT_MAX: Final = 1 << 17
"""Up to here a dict is kept: a look-up costs a third of that in the columns."""

HELD_MAX: Final = 1 << 21
"""Objects whose ids are held in memory, 42 MB, before they are put aside: a look-up among these
takes twice as long.
"""

KIND_BITS: Final = 4
KIND_MASK: Final = (1 << KIND_BITS) - 1
TALL: Final = 8
"""Added to the kind of a tree node of too many entries to be a root."""

SIZE_MAX: Final = (1 << 60) - 2
UNREAD: Final = SIZE_MAX + 1
"""Size of a tree node nobody has decoded yet."""

_KEY: Final = 16
_ROW: Final = _KEY + 4
_BLOCK: Final = 32 * _KEY
"""Keys that are searched in one call: so many bytes."""
_PARTS: Final = 256
_GREAT: Final = (1 << 32) - 17
"""In place of a code that is too great for 32 bits. The sixteen above it are those of `UNREAD`,
without the upper half of their bits."""
_UPPER: Final = (1 << 64) - (1 << 32)
_UNREAD_FROM: Final = UNREAD << KIND_BITS


def code_of(kind: int, size: int) -> int:
    """Kind and size in one number; sizes beyond an exbibyte count as one."""
    return min(size, SIZE_MAX) << KIND_BITS | kind


def split_code(code: int) -> tuple[int, int]:
    """Kind and size of a code."""
    return code & KIND_MASK, code >> KIND_BITS


def _short(code: int) -> int:
    if code < _GREAT:
        return code
    return code - _UPPER if code >= _UNREAD_FROM else _GREAT


class _Aside:
    """Bytes in a file without a name. One thread puts; any may read."""

    def __init__(self, folder: str) -> None:
        """Raises `OSError`."""
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._end = 0

    def put(self, data: bytes | bytearray) -> int:
        """Where these begin from now on. Raises `OSError`, and has put nothing then."""
        start, view = self._end, memoryview(data)
        self._file.seek(start)
        while view:
            view = view[self._file.write(view) :]
        self._end += len(data)
        return start

    def read(self, start: int, length: int) -> bytes:
        """What was put. Raises `StorageFailed`."""
        try:
            data = os.pread(self._file.fileno(), length, start)
        except OSError as error:
            translate_read(error, self._folder)
        if len(data) != length:
            raise StorageFailed(f"A file in {self._folder} was cut.", path=self._folder)
        return data

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


class _Shard:
    """Objects whose ids begin with one byte: sorted keys, in memory or aside, and codes."""

    __slots__ = ("_aside", "_fences", "_keys", "_length", "_start", "codes")

    def __init__(self, rows: bytes | bytearray, aside: _Aside | None) -> None:
        unique = {
            bytes(rows[at : at + _KEY]): bytes(rows[at + _KEY : at + _ROW])
            for at in range(0, len(rows), _ROW)
        }
        keys = sorted(unique)
        self.codes = array("I")
        self.codes.frombytes(b"".join([unique[key] for key in keys]))
        if sys.byteorder == "little":
            self.codes.byteswap()
        beginnings = [int.from_bytes(key[:8], "big") for key in keys[:: _BLOCK // _KEY]]
        self._fences = array("Q", beginnings)
        self._keys, self._aside, self._start = b"".join(keys), aside, 0
        self._length = len(self._keys)
        if aside is not None:
            try:
                self._start = aside.put(self._keys)
                self._keys = b""
            except OSError:  # the disk is full
                self._aside = None

    def index(self, id: bytes) -> int:
        key, fences = id[:_KEY], self._fences
        first = int.from_bytes(id[:8], "big")
        stop = bisect_right(fences, first)
        start = stop and stop - 1
        # It lies in the last block that begins before it: or before that, if eight bytes do not
        # tell beginnings of blocks apart.
        while start and fences[start] == first:
            start -= 1
        start *= _BLOCK
        length = stop * _BLOCK - start
        if self._aside is None:
            at = self._keys.find(key, start, start + length)
            while at > 0 and at % _KEY:
                at = self._keys.find(key, at + 1, start + length)
            return at // _KEY if at >= 0 else -1
        block = self._aside.read(self._start + start, min(length, self._length - start))
        at = block.find(key)
        while at > 0 and at % _KEY:
            at = block.find(key, at + 1)
        return (start + at) // _KEY if at >= 0 else -1

    def rows(self) -> bytes:
        """All of it, as it came."""
        keys = self._keys
        if self._aside is not None:
            keys = self._aside.read(self._start, self._length)
        return b"".join(
            [
                keys[at * _KEY : (at + 1) * _KEY] + short.to_bytes(4, "big")
                for at, short in enumerate(self.codes)
            ]
        )


class _Rows:
    """Rows on their way in, by the first byte of their ids; all but the newest put aside."""

    def __init__(self, folder: str | None, held_max: int) -> None:
        self._folder = folder
        self._held_max = held_max
        self._aside: _Aside | None = None
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]
        self.parts = [bytearray() for _ in range(_PARTS)]
        self._held_count = 0

    def came(self, count: int) -> None:
        """So many were added to the parts."""
        self._held_count += count
        if self._held_count <= self._held_max or self._folder is None:
            return
        try:
            if self._aside is None:
                self._aside = _Aside(self._folder)
            for number, part in enumerate(self.parts):
                self._extents[number].append((self._aside.put(part), len(part)))
                self.parts[number] = bytearray()
        except OSError:
            self._folder = None  # full, or not ours to write: what is left stays in memory
        self._held_count = 0

    def taken(self, number: int) -> bytes:
        """All rows of a part, in the order in which they came; they are given up here."""
        part, self.parts[number] = self.parts[number], bytearray()
        if self._aside is None:
            return bytes(part)
        extents = [self._aside.read(*extent) for extent in self._extents[number]]
        return b"".join([*extents, part])

    def columns(self) -> _Aside | None:
        """A file for the ids, where so many came that rows were put aside."""
        if self._aside is None or self._folder is None:
            return None
        try:
            return _Aside(self._folder)
        except OSError:
            return None

    def close(self) -> None:
        """Give the file back."""
        if self._aside is not None:
            self._aside.close()


class Known:
    """First `add` all, then `freeze`, then ask, then `close`. One thread adds; any may ask.

    What is added behind a `freeze`, as of packs that appeared during a check, is kept beside what
    is frozen until it is much itself. `folder` is where files may be put aside, None for nowhere.
    All calls but `close` raise `StorageFailed` where what was put aside cannot be read.
    """

    def __init__(
        self, folder: str | None = None, dict_max: int = DICT_MAX, held_max: int = HELD_MAX
    ) -> None:
        self._folder = folder
        self._dict_max = dict_max
        self._held_max = held_max
        # All that is known, while it is little; what came late.
        self._codes: dict[bytes, int] = {}
        self._rows: _Rows | None = None
        self._shards: list[_Shard] | None = None
        self._aside: _Aside | None = None
        # By the part of an id that is kept.
        self._great: dict[bytes, int] = {}
        self.get: Callable[[bytes], int | None] = self._codes.get
        """Code of an object, or None when it does not exist."""

    def __len__(self) -> int:
        return len(self._codes) + sum(len(shard.codes) for shard in self._shards or ())

    def codes(self) -> Iterator[int]:
        """Codes of all objects, in no order."""
        yield from self._codes.values()
        yield from self._great.values()
        for shard in self._shards or ():
            for short in shard.codes:
                if short != _GREAT:
                    yield short if short < _GREAT else short + _UPPER

    def add(self, rows: list[tuple[bytes, int]]) -> None:
        """Note objects: (id, code) each; the last of several with one id counts."""
        if self._rows is not None:
            self._add_rows(self._rows, rows)
            return
        for id, code in rows if self._shards is not None else ():
            if not self._replace(id, code):
                self._codes[id] = code
        if self._shards is None:
            self._codes.update(rows)
        if len(self._codes) > self._dict_max:
            self._spread()

    def _add_rows(self, into: _Rows, rows: Iterable[tuple[bytes, int]]) -> None:
        parts, count = into.parts, 0
        for id, code in rows:
            short = code if code < _GREAT else self._shortened(id, code)
            parts[id[0]] += id[:_KEY] + short.to_bytes(4, "big")
            count += 1
            if self._great and short != _GREAT:
                self._great.pop(id[:_KEY], None)
        into.came(count)

    def _shortened(self, id: bytes, code: int) -> int:
        short = _short(code)
        if short == _GREAT:
            self._great[id[:_KEY]] = code
        return short

    def _spread(self) -> None:
        """From here on all goes into rows. What was frozen goes there too, a part at a time."""
        self._rows = into = _Rows(self._folder, self._held_max)
        shards, self._shards = self._shards or [], None
        for number in range(len(shards)):
            shard = shards.pop(0)
            into.parts[number] += shard.rows()
            into.came(len(shard.codes))
        if self._aside is not None:
            self._aside.close()
            self._aside = None
        self._add_rows(into, self._codes.items())
        self._codes.clear()

    def freeze(self) -> None:
        """Make ready to be asked."""
        rows = self._rows
        if rows is not None:
            self._aside = rows.columns()
            self._shards = [_Shard(rows.taken(number), self._aside) for number in range(_PARTS)]
            self._rows, self.get = None, self._find
            rows.close()

    def close(self) -> None:
        """Give the file back; nothing may be asked any more."""
        for file in (self._rows, self._aside):
            if file is not None:
                file.close()
        self._aside = None

    def _find(self, id: bytes) -> int | None:
        assert self._shards is not None
        shard = self._shards[id[0]]
        at = shard.index(id)
        if at < 0:
            return self._codes.get(id)
        short = shard.codes[at]
        if short < _GREAT:
            return short
        return self._great[id[:_KEY]] if short == _GREAT else short + _UPPER

    def replace(self, id: bytes, code: int) -> None:
        """Another code for an object that exists."""
        if not self._replace(id, code) and (self._shards is None or id in self._codes):
            self._codes[id] = code

    def _replace(self, id: bytes, code: int) -> bool:
        """Put a code in place of one that is frozen; False where there is none."""
        if self._shards is None:
            return False
        shard = self._shards[id[0]]
        at = shard.index(id)
        if at < 0:
            return False
        if shard.codes[at] == _GREAT:
            del self._great[id[:_KEY]]
        shard.codes[at] = self._shortened(id, code)
        return True
