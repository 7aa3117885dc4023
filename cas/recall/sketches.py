"""Sketches of vectors, a bit a dimension: which of very many rows are worth comparing with a query.

Floor 7. Invariant: what is chosen is a function of the rows' vectors, their order, the mask and the
query, whoever compares which part of them; it is whole-number arithmetic throughout.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from cas.later import Later
from cas.recall.vectors import GREATEST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cas.recall.vectors import Bytes, Mask, Rows

    Bits = NDArray[np.uint64]
else:
    np = Later("numpy", keep=True)

NEAREST: Final = 2_000
"""Rows that are chosen; of very many one of `_NEAREST_OF`."""
_NEAREST_OF: Final = 200
_PART: Final = 1 << 16
"""Rows whose bits are compared at once."""
_THREADS_MAX: Final = 4
_ROWS_A_THREAD: Final = 1 << 18
"""Rows for which a thread is begun: 2 ms of work, and a tenth of one to begin it."""
_SAMPLED: Final = 16
_TURNED: Final = 1_024
"""Rows that are rotated at once: half a megabyte, which the processor's caches hold."""


def sketch(rows: Bytes) -> Bits:
    """A bit a dimension: the sign of the row after a rotation that spreads it evenly."""
    parts = [_signs_of(rows[at : at + _TURNED]) for at in range(0, max(1, len(rows)), _TURNED)]
    return np.concatenate(parts)


def probe(query: Bytes) -> Bits:
    """A query as sketches are compared with it: its own, and two rows of bits that say how much
    each bit counts, 0 to 3 (the second row twice as much): about as much as the query reaches into
    that dimension. Of the ten nearest among 100,000 that finds 99 of 100 where bits that all count
    the same find 96.
    """
    mixed = _rotated(query[None, :])[:, 0]
    reach = np.abs(mixed).astype(np.int64)
    whole = max(1, int(reach.sum()))
    # 1.6 times the mean is one: whole numbers, so that it is the same everywhere.
    weights = np.minimum((16 * reach * len(reach) + 5 * whole) // (10 * whole), 3)
    return _packed(np.stack([mixed > 0, weights & 1 > 0, weights & 2 > 0]))


def nearest_count(rows: int) -> int:
    """How many of so many rows are chosen by their bits."""
    return max(NEAREST, rows // _NEAREST_OF)


def choosing(sketches: Bits, query: Bits, allowed: Mask, count: int) -> Callable[[], Rows]:
    """The `count` rows of a mask whose bits differ least from those of a probe, of equals those
    that came first, once they are asked for; until then other threads are at it, if the rows are
    very many. Sketches are told word by word.
    """
    many = int(np.count_nonzero(allowed))
    if many <= count:
        return lambda: np.flatnonzero(allowed)
    if many * 2 > len(allowed):
        apart = _comparing(sketches, query)
        return lambda: _least(apart(), allowed, count)
    rows = np.flatnonzero(allowed)
    apart = _comparing(sketches[:, rows], query)
    return lambda: rows[_least(apart(), np.ones(len(rows), np.bool_), count)]


def _comparing(sketches: Bits, query: Bits) -> Callable[[], Any]:
    """How much the bits of each row differ from those of a probe, once that is asked for. Who asks
    does what is left: numpy lets go of the interpreter while it goes through a part. Where nobody
    asks the threads end by themselves, some milliseconds later.
    """
    apart = np.empty(sketches.shape[1], np.uint16)
    starts = list(range(0, len(apart), _PART))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            _compare(sketches, query, starts, apart)
        except BaseException as error:
            failures.append(error)

    threads: list[Thread] = []
    cores = min(_THREADS_MAX, os.cpu_count() or 1)
    for _ in range(min(cores, len(apart) // _ROWS_A_THREAD) - 1):
        thread = Thread(target=work, name="cas-recall-bits", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more of them
            break
        threads.append(thread)

    def finish() -> Any:
        _compare(sketches, query, starts, apart)
        for thread in threads:
            thread.join()
        for failure in failures:
            raise failure
        return apart

    return finish


def _compare(sketches: Bits, query: Bits, starts: list[int], apart: Any) -> None:
    """Fill in the parts that begin at `starts`, which other threads take from as well."""
    signs, once, twice = query
    groups = _in_bytes(once, twice)
    # Room that is used again stays in the processor's caches.
    differ, part = np.empty((2, min(len(apart), _PART)), np.uint64)
    bits, ones, twos = np.empty((3, len(part)), np.uint8)
    while True:
        try:
            start = starts.pop()
        except IndexError:  # all are taken
            return
        some = apart[start : start + _PART]
        some.fill(0)
        size = len(some)
        for words in groups:
            ones.fill(0)
            twos.fill(0)
            for word in words:
                held = sketches[word, start : start + _PART]
                np.bitwise_xor(held, signs[word], out=differ[:size])
                for weight, sums in ((once[word], ones), (twice[word], twos)):
                    np.bitwise_and(differ[:size], weight, out=part[:size])
                    np.bitwise_count(part[:size], out=bits[:size])
                    sums[:size] += bits[:size]
            some += ones[:size]
            some += twos[:size]
            some += twos[:size]


def _in_bytes(once: Any, twice: Any) -> list[list[int]]:
    """Words in groups of which no sum of bits is above 255: sums in bytes take seven eighths of
    the time.
    """
    groups: list[list[int]] = []
    count = [256, 256]
    for word, weights in enumerate(zip(once.tolist(), twice.tolist(), strict=True)):
        count = [sum_ + weight.bit_count() for sum_, weight in zip(count, weights, strict=True)]
        if max(count) > 255:
            groups.append([])
            count = [weight.bit_count() for weight in weights]
        groups[-1].append(word)
    return groups


def _packed(bits: Any) -> Bits:
    whole = np.ascontiguousarray(np.packbits(bits, axis=1, bitorder="little"))
    return whole.view(np.uint64)


def _signs_of(rows: Bytes) -> Bits:
    mixed = _rotated(rows)
    bits = (mixed > 0).view(np.uint8).reshape(len(mixed) // 8, 8, len(rows))
    packed = np.zeros((len(bits), len(rows)), np.uint8)
    for place in range(8):
        packed |= bits[:, place] << np.uint8(place)
    return np.ascontiguousarray(packed.T).view(np.uint64)


def _rotated(rows: Bytes) -> Any:
    """Rows after the rotation, dimension by dimension: each step goes along all rows at once."""
    count, dimensions = rows.shape
    width = 64
    while width < dimensions:
        width *= 2
    kind = np.int16 if GREATEST * dimensions <= np.iinfo(np.int16).max else np.int32
    mixed, turned = np.zeros((2, width, count), kind)
    np.multiply(rows.T, _signs(dimensions).astype(kind)[:, None], out=mixed[:dimensions])
    step = 1
    while step < width:
        # A Hadamard transform: sums and differences, exact.
        pairs = mixed.reshape(width // (2 * step), 2, step * count)
        made = turned.reshape(pairs.shape)
        np.add(pairs[:, 0], pairs[:, 1], out=made[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=made[:, 1])
        mixed, turned = turned, mixed
        step *= 2
    return mixed


def _signs(dimensions: int) -> Any:
    """The same signs for ever, as many ups as downs."""
    state = np.arange(1, dimensions + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    return np.where(state >> np.uint64(63), 1, -1).astype(np.int32)


def _least(numbers: Any, allowed: Mask, count: int) -> Rows:
    """Where the `count` least numbers behind a mask stand, in this order; of equals the first."""
    # A sample tells a number that so many are not above, or nearly all would be looked at.
    step = _SAMPLED if len(numbers) > _PART else 1
    some = numbers[::step][allowed[::step]]
    rows = np.flatnonzero(numbers <= _limit(some, count // step * 5 // 4 + _SAMPLED))
    rows = rows[allowed[rows]]
    if len(rows) < count:
        rows = np.flatnonzero(allowed)
    numbers = numbers[rows]
    limit = _limit(numbers, count)
    # Of those at the limit the earlier rows are taken, so that which of equals does not depend on
    # the rest.
    last = np.flatnonzero(numbers == limit)
    below = int(np.count_nonzero(numbers < limit))
    here = numbers <= limit
    here[last[max(0, count - below) :]] = False
    found: Rows = rows[here]
    return found


def _limit(numbers: Any, count: int) -> int:
    """The number that `count` are not above. Counted, not sorted: a distance is one of few."""
    return int(np.searchsorted(np.cumsum(np.bincount(numbers)), count))
