"""Which objects exist, of which kind and size: asked for every id that anything names.

Floor 5. Invariant: `get` answers for the first 16 bytes of an id, which no accident makes equal;
memory is bounded by 20 bytes an object once there are many (200 MB for ten million), where a
dict would take eight times as much: most codes fit into 32 bits, the others lie in a dict.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

DICT_MAX: Final = 1 << 17
"""Up to here a dict is kept: a look-up costs a tenth of that in the arrays."""

KIND_BITS: Final = 4
KIND_MASK: Final = (1 << KIND_BITS) - 1
TALL: Final = 8
"""Added to the kind of a tree node of too many entries to be a root."""

SIZE_MAX: Final = (1 << 60) - 2
UNREAD: Final = SIZE_MAX + 1
"""Size of a tree node nobody has decoded yet."""

_KEY: Final = 16
_ROW: Final = _KEY + 4
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


class _Shard:
    """Rows of ids that begin with one byte, sorted, in three columns."""

    __slots__ = ("codes", "high", "low")

    def __init__(self, rows: bytearray) -> None:
        unique = {
            bytes(rows[at : at + _KEY]): bytes(rows[at + _KEY : at + _ROW])
            for at in range(0, len(rows), _ROW)
        }
        keys = sorted(unique)
        self.high = _column("Q", b"".join([key[:8] for key in keys]))
        self.low = _column("Q", b"".join([key[8:] for key in keys]))
        self.codes = _column("I", b"".join([unique[key] for key in keys]))

    def index(self, id: bytes) -> int:
        high = int.from_bytes(id[:8], "big")
        at = bisect_left(self.high, high)
        low = int.from_bytes(id[8:_KEY], "big")
        while at < len(self.high) and self.high[at] == high:
            if self.low[at] == low:
                return at
            at += 1
        return -1

    def keys(self) -> Iterator[bytes]:
        for high, low in zip(self.high, self.low, strict=True):
            yield (high << 64 | low).to_bytes(_KEY, "big")


def _column(type: str, data: bytes) -> array[int]:
    column = array(type)
    column.frombytes(data)
    if sys.byteorder == "little":
        column.byteswap()
    # A copy has just the room that it needs.
    return column[:]


class Known:
    """First `add` all, then `freeze`, then ask. One thread adds; any may ask.

    What is added behind a `freeze`, as of packs that appeared during a check, is kept beside what
    is frozen until it is much itself.
    """

    def __init__(self, dict_max: int = DICT_MAX) -> None:
        self._dict_max = dict_max
        # All that is known, while it is little; what came late.
        self._codes: dict[bytes, int] = {}
        self._rows: list[bytearray] | None = None
        self._shards: list[_Shard] | None = None
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
            self._add_rows(rows)
            return
        for id, code in rows if self._shards is not None else ():
            if not self._replace(id, code):
                self._codes[id] = code
        if self._shards is None:
            self._codes.update(rows)
        if len(self._codes) > self._dict_max:
            self._spread()

    def _add_rows(self, rows: Iterable[tuple[bytes, int]]) -> None:
        assert self._rows is not None
        for id, code in rows:
            short = code if code < _GREAT else self._shortened(id, code)
            self._rows[id[0]] += id[:_KEY] + short.to_bytes(4, "big")
            if self._great and short != _GREAT:
                self._great.pop(id[:_KEY], None)

    def _shortened(self, id: bytes, code: int) -> int:
        short = _short(code)
        if short == _GREAT:
            self._great[id[:_KEY]] = code
        return short

    def _spread(self) -> None:
        """From here on all goes into rows. What was frozen goes there too, a part at a time."""
        self._rows = [bytearray() for _ in range(256)]
        shards, self._shards = self._shards or [], None
        for rows in self._rows if shards else ():
            shard = shards.pop(0)
            for key, short in zip(shard.keys(), shard.codes, strict=True):
                rows += key + short.to_bytes(4, "big")
        self._add_rows(self._codes.items())
        self._codes.clear()

    def freeze(self) -> None:
        """Make ready to be asked."""
        rows, self._rows = self._rows, None
        if rows is not None:
            shards = []
            for at in range(256):
                shards.append(_Shard(rows[at]))
                rows[at] = bytearray()
            self._shards = shards
            self.get = self._find

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
