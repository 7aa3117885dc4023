"""Which objects exist, of which kind and size: asked for every id that anything names.

Floor 5. Invariant: `get` answers for the first 16 bytes of an id, which no accident makes equal;
memory is bounded by 24 bytes an object once there are many (240 MB for ten million), where a
dict would take six times as much.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
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
_ROW: Final = _KEY + 8


def code_of(kind: int, size: int) -> int:
    """Kind and size in one number; sizes beyond an exbibyte count as one."""
    return min(size, SIZE_MAX) << KIND_BITS | kind


def split_code(code: int) -> tuple[int, int]:
    """Kind and size of a code."""
    return code & KIND_MASK, code >> KIND_BITS


class _Shard:
    """Rows of ids that begin with one byte, sorted, in three columns."""

    __slots__ = ("codes", "high", "low")

    def __init__(self, rows: bytearray) -> None:
        unique = {
            bytes(rows[at : at + _KEY]): bytes(rows[at + _KEY : at + _ROW])
            for at in range(0, len(rows), _ROW)
        }
        keys = sorted(unique)
        self.high = _column(b"".join([key[:8] for key in keys]))
        self.low = _column(b"".join([key[8:] for key in keys]))
        self.codes = _column(b"".join([unique[key] for key in keys]))

    def index(self, id: bytes) -> int:
        high = int.from_bytes(id[:8], "big")
        at = bisect_left(self.high, high)
        low = int.from_bytes(id[8:_KEY], "big")
        while at < len(self.high) and self.high[at] == high:
            if self.low[at] == low:
                return at
            at += 1
        return -1


def _column(data: bytes) -> array[int]:
    column = array("Q")
    column.frombytes(data)
    if sys.byteorder == "little":
        column.byteswap()
    return column


class Known:
    """First `add` all, then `freeze`, then ask. One thread adds; any may ask."""

    def __init__(self, dict_max: int = DICT_MAX) -> None:
        self._dict_max = dict_max
        self._codes: dict[bytes, int] = {}
        self._rows: list[bytearray] | None = None
        self._shards: list[_Shard] | None = None
        self.get: Callable[[bytes], int | None] = self._codes.get
        """Code of an object, or None when it does not exist."""

    def __len__(self) -> int:
        if self._shards is not None:
            return sum(len(shard.codes) for shard in self._shards)
        return len(self._codes)

    def codes(self) -> Iterator[int]:
        """Codes of all objects, in no order."""
        if self._shards is None:
            yield from self._codes.values()
        else:
            for shard in self._shards:
                yield from shard.codes

    def add(self, rows: list[tuple[bytes, int]]) -> None:
        """Note objects: (id, code) each; the last of several with one id counts."""
        if self._rows is None and self._shards is None:
            self._codes.update(rows)
            if len(self._codes) > self._dict_max:
                self._spread()
            return
        if self._rows is None:
            self._reopen()
        assert self._rows is not None
        for id, code in rows:
            self._rows[id[0]] += id[:_KEY] + code.to_bytes(8, "big")

    def _spread(self) -> None:
        self._rows = [bytearray() for _ in range(256)]
        for id, code in self._codes.items():
            self._rows[id[0]] += id[:_KEY] + code.to_bytes(8, "big")
        self._codes.clear()

    def _reopen(self) -> None:
        """Packs that appeared during the check are added to what was frozen before."""
        assert self._shards is not None
        self._rows = [bytearray() for _ in range(256)]
        for first, shard in enumerate(self._shards):
            for at, code in enumerate(shard.codes):
                key = shard.high[at] << 64 | shard.low[at]
                self._rows[first] += key.to_bytes(_KEY, "big") + code.to_bytes(8, "big")

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
        return None if at < 0 else shard.codes[at]

    def replace(self, id: bytes, code: int) -> None:
        """Another code for an object that exists."""
        if self._shards is None:
            self._codes[id] = code
            return
        shard = self._shards[id[0]]
        at = shard.index(id)
        if at >= 0:
            shard.codes[at] = code
