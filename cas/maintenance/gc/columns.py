"""Sorted columns on disk: of beginnings of ids, a number each; for what does not fit into memory.

Floor 5. Invariant: a column is read as it was written or not at all: each block carries a digest,
and so does what says where the blocks are. Memory is bounded by a few blocks when it is read, and
by one part in 256 of it when it is written.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final

from cas.errors import Uncounted
from cas.later import Later
from cas.model.ids import digest_blob

if TYPE_CHECKING:
    import tempfile
else:
    # Of what is counted at once, little is put aside.
    tempfile = Later("tempfile")

KEY_BYTES: Final = 16
"""Of an id: nobody finds two contents of which so much is alike."""

NUMBER_MAX: Final = (1 << 32) - 1

_NUMBER_BYTES: Final = 4
_ENTRY_BYTES: Final = KEY_BYTES + _NUMBER_BYTES
_BLOCK_ENTRIES: Final = 4096
_BLOCK_BYTES: Final = _BLOCK_ENTRIES * _ENTRY_BYTES
_BLOCKS_KEPT: Final = 128
_FEW: Final = 64
"""Keys in one block that are looked for one by one."""

_MAGIC: Final = b"casCOLS1"
_TAIL: Final = struct.Struct("<8s16sQI32s")
_DIGEST_BYTES: Final = 32
_PARTS: Final = 256
_HELD_MAX: Final = 1 << 17
"""Entries that are held before they are put aside."""


class Column:
    """One column that was written. One thread."""

    def __init__(self, path: str, token: bytes) -> None:
        """Open the column of this token. Raises `Uncounted`."""
        self.token = token
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115
            size = os.fstat(self._file.fileno()).st_size
            tail = os.pread(self._file.fileno(), _TAIL.size, max(0, size - _TAIL.size))
        except OSError as error:
            raise Uncounted(f"a column of the counts cannot be read ({error.strerror})") from error
        if len(tail) < _TAIL.size:
            raise Uncounted("a column of the counts is cut short")
        magic, own, self.count, blocks, digest = _TAIL.unpack(tail)
        start, length = self.count * _ENTRY_BYTES, blocks * (KEY_BYTES + _DIGEST_BYTES)
        if magic != _MAGIC or own != token or start + length + _TAIL.size != size:
            raise Uncounted("a column of the counts is not the one that was meant")
        table = self._pread(start, length)
        if digest_blob(tail[: -len(digest)] + table) != digest:
            raise Uncounted("a column of the counts is damaged")
        step = KEY_BYTES + _DIGEST_BYTES
        self._firsts = [table[at : at + KEY_BYTES] for at in range(0, length, step)]
        self._digests = [table[at + KEY_BYTES : at + step] for at in range(0, length, step)]

    def _pread(self, start: int, length: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), length, start)
        except OSError as error:
            raise Uncounted(f"a column of the counts cannot be read ({error.strerror})") from error
        if len(data) != length:
            raise Uncounted("a column of the counts is cut short")
        return data

    def block(self, number: int) -> bytes:
        """The entries of one block. Raises `Uncounted`."""
        found = self._blocks.get(number)
        if found is None:
            start = number * _BLOCK_BYTES
            length = min(_BLOCK_BYTES, self.count * _ENTRY_BYTES - start)
            found = self._pread(start, length)
            if digest_blob(found) != self._digests[number]:
                raise Uncounted("a column of the counts is damaged")
            self._blocks[number] = found
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return found

    def blocks(self) -> Iterator[bytes]:
        """All blocks, in order."""
        return (self.block(number) for number in range(len(self._firsts)))

    def numbers(self, key: bytes) -> list[int]:
        """The numbers that stand with a key, ascending."""
        found: list[int] = []
        at = max(0, bisect_left(self._firsts, key) - 1)
        while at < len(self._firsts) and self._firsts[at] <= key:
            block = self.block(at)
            count = len(block) // _ENTRY_BYTES
            place = bisect_left(range(count), key, key=lambda n: _key(block, n))
            while place < count and _key(block, place) == key:
                found.append(_number(block, place))
                place += 1
            at += 1
        return found

    def among(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of these sorted keys that stand here. Raises `Uncounted`."""
        found: set[bytes] = set()
        at = 0
        while at < len(keys) and self._firsts:
            number = max(0, bisect_right(self._firsts, keys[at]) - 1)
            last = number + 1 >= len(self._firsts)
            stop = len(keys) if last else bisect_left(keys, self._firsts[number + 1], at)
            if stop - at < _FEW:
                found.update(key for key in keys[at:stop] if self.numbers(key))
            else:
                block = self.block(number)
                there = {
                    block[start : start + KEY_BYTES] for start in range(0, len(block), _ENTRY_BYTES)
                }
                found.update(there.intersection(keys[at:stop]))
            at = stop
        return found

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()


def _key(block: bytes, number: int) -> bytes:
    start = number * _ENTRY_BYTES
    return block[start : start + KEY_BYTES]


def _number(block: bytes, number: int) -> int:
    start = number * _ENTRY_BYTES + KEY_BYTES
    return int.from_bytes(block[start : start + _NUMBER_BYTES], "big")


def entry(key: bytes, number: int) -> bytes:
    """One entry. Raises `OverflowError` for a number that is too large."""
    return key + number.to_bytes(_NUMBER_BYTES, "big")


def entries_in(data: bytes) -> list[bytes]:
    """Entries that stand one behind the other."""
    return [data[at : at + _ENTRY_BYTES] for at in range(0, len(data), _ENTRY_BYTES)]


def split(item: bytes) -> tuple[bytes, int]:
    """Key and number of an entry."""
    return item[:KEY_BYTES], int.from_bytes(item[KEY_BYTES:], "big")


def write_column(path: str, token: bytes, parts: Iterable[Iterable[bytes]]) -> None:
    """Write a column of sorted entries that come in parts. Raises `OSError`."""
    firsts: list[bytes] = []
    count = 0
    held = b""
    part_path = f"{path}.{os.getpid()}.tmp"
    try:
        with open(part_path, "wb") as file:
            for part in parts:
                held += b"".join(part)
                while len(held) >= _BLOCK_BYTES:
                    firsts.append(_put(file, held[:_BLOCK_BYTES]))
                    count += _BLOCK_ENTRIES
                    held = held[_BLOCK_BYTES:]
            if held:
                firsts.append(_put(file, held))
                count += len(held) // _ENTRY_BYTES
            table = b"".join(firsts)
            tail = _TAIL.pack(_MAGIC, token, count, len(firsts), bytes(_DIGEST_BYTES))
            head = tail[:-_DIGEST_BYTES]
            file.write(table + head + digest_blob(head + table))
        os.replace(part_path, path)
    finally:
        with suppress(OSError):
            os.unlink(part_path)


def _put(file: IO[bytes], block: bytes) -> bytes:
    file.write(block)
    return block[:KEY_BYTES] + digest_blob(block)


class Gathering:
    """Entries that come in any order, put aside in a file while there are too many. One thread."""

    def __init__(self, folder: str, *, pairs: bool = False) -> None:
        """`pairs`: what is added are entries, each of which stands once."""
        self._folder = folder
        self._pairs = pairs
        self._file: IO[bytes] | None = None
        self._held: Counter[bytes] = Counter()
        self._runs: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]

    def add(self, ids: Iterable[bytes]) -> None:
        """Count each of these once more."""
        self._held.update(ids)
        if len(self._held) > _HELD_MAX:
            self._put_aside()

    def _put_aside(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)
        at = self._file.seek(0, os.SEEK_END)
        for number, part in enumerate(self._by_part()):
            data = b"".join(part)
            self._runs[number].append((at, len(data)))
            at += len(data)
            self._file.write(data)
        self._held = Counter()

    def parts(self) -> Iterator[list[bytes]]:
        """Sorted entries: of each beginning of an id how often it was counted."""
        for number, part in enumerate(self._by_part()):
            if self._file is None:
                yield self._merged(part)
                continue
            items = list(part)
            for at, length in self._runs[number]:
                self._file.seek(at)
                items += entries_in(self._file.read(length))
            yield self._merged(items)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def _by_part(self) -> list[list[bytes]]:
        """What is held, by the first byte of the keys."""
        parts: list[list[bytes]] = [[] for _ in range(_PARTS)]
        for id, count in self._held.items():
            parts[id[0]].append(id if self._pairs else entry(id[:KEY_BYTES], count))
        return parts

    def _merged(self, items: Iterable[bytes]) -> list[bytes]:
        if self._pairs:
            return sorted(set(items))
        sums: dict[bytes, int] = {}
        for key, number in map(split, items):
            sums[key] = sums.get(key, 0) + number
        return [entry(key, sums[key]) for key in sorted(sums)]


def merged_sums(column: Column, changed: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    """A column of counts, with others in the place of some: none of them 0."""
    keys = sorted(changed)
    at = 0
    firsts = column._firsts
    for number, block in enumerate(column.blocks()):
        last = number + 1 == len(firsts)
        stop = len(keys) if last else bisect_left(keys, firsts[number + 1])
        if at == stop:
            yield [block]
            continue
        sums = dict(map(split, entries_in(block)))
        sums.update((key, changed[key]) for key in keys[at:stop])
        at = stop
        yield [entry(key, sums[key]) for key in sorted(sums) if sums[key]]
    if not firsts:
        yield [entry(key, changed[key]) for key in keys if changed[key]]


def merged_pairs(
    column: Column | None, fresh: Iterable[bytes], alive: Iterable[int]
) -> Iterator[list[bytes]]:
    """A column of pairs with more of them, without those whose numbers are alive no more."""
    numbers = {number.to_bytes(_NUMBER_BYTES, "big") for number in alive}
    items = sorted(set(fresh))
    at = 0
    for block in column.blocks() if column is not None else ():
        found = entries_in(block)
        stop = bisect_right(items, found[-1])
        both = sorted({*found, *items[at:stop]}) if at < stop else found
        at = stop
        yield [item for item in both if item[KEY_BYTES:] in numbers]
    yield [item for item in items[at:] if item[KEY_BYTES:] in numbers]
