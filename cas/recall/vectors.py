"""Vectors of whole numbers: how they are packed, compared and found among many.

Floor 7. Invariant: a comparison of two packed vectors is exact whole-number arithmetic, so that
scores are the same in every batch and on every machine. Among many, bits of a rotated vector choose
whom to compare; what they choose depends on no order but that of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.errors import Invalid
from cas.later import Later

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.int8]
    Bits = NDArray[np.uint64]
    Numbers = NDArray[np.float64]
    Rows = NDArray[np.int64]
    Mask = NDArray[np.bool_]
else:
    np = Later("numpy", keep=True)

EXACT_ROWS_MAX: Final = 4_096
"""So many rows are all compared; of more, those whose bits are nearest."""
NEAREST_BITS: Final = 2_000
"""Rows that are compared, of those that the bits would allow; of very many one of `_NEAREST_OF`."""
_NEAREST_OF: Final = 200
_SCAN: Final = 1 << 16
"""Rows whose bits are compared at once."""
_SAMPLED: Final = 16
_TURNED: Final = 1_024
"""Rows that are rotated at once: half a megabyte, which the processor's caches hold."""
_SCALE: Final = 127
_PRODUCT_MAX: Final = 400_000
"""Multiplications that numpy's library does on the thread that asks."""


def pack_vectors(vectors: Any, dimensions: int, count: int) -> list[bytes]:
    """Each vector as whole numbers of one byte, the greatest of them 127. Raises `Invalid`."""
    array = np.asarray(vectors, dtype=np.float32)
    if array.shape != (count, dimensions):
        raise Invalid(
            f"The embedder gave an array of {array.shape} where {(count, dimensions)} was due: "
            "one vector a text, of the dimensions that it states."
        )
    if not np.isfinite(array).all():
        raise Invalid("The embedder gave a vector with a number that is not finite.")
    greatest = np.abs(array).max(axis=1, keepdims=True).astype(np.float64)
    whole = np.rint(array * (_SCALE / np.where(greatest == 0, 1.0, greatest))).astype(np.int8)
    return [row.tobytes() for row in whole]


def unpack(packed: Sequence[bytes], dimensions: int) -> Bytes:
    """Packed vectors as rows."""
    return np.frombuffer(b"".join(packed), np.int8).reshape(len(packed), dimensions)


def lengths_of(rows: Bytes) -> Numbers:
    """The length of each row; 1 for one of zeros, which is near nothing."""
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.int64)
    found: Numbers = np.sqrt(np.maximum(squares, 1).astype(np.float64))
    return found


def cosines(rows: Bytes, lengths: Numbers, query: Bytes) -> Numbers:
    """How near each row is to the query, from -1 to 1."""
    # Whole numbers below 2^24 in every sum: exact in float32, whatever the order.
    against = query.astype(np.float32)
    found = np.empty(len(rows), np.float64)
    step = max(1, _PRODUCT_MAX // max(1, len(query)))
    for start in range(0, len(rows), step):
        found[start : start + step] = rows[start : start + step].astype(np.float32) @ against
    found /= lengths * lengths_of(query[None, :])[0]
    return found


def nearness_of_all(rows: Bytes, lengths: Numbers) -> Numbers:
    """How near the rows are to each other: a number a pair."""
    values = rows.astype(np.float32)
    turned = np.ascontiguousarray(values.T)
    dots = np.empty((len(rows), len(rows)), np.float64)
    # A large product is shared out to threads, which wait for each other where the cores are
    # busy: up to fifty times longer than these small ones take.
    step = max(1, _PRODUCT_MAX // max(1, values.size))
    for start in range(0, len(rows), step):
        dots[start : start + step] = values[start : start + step] @ turned
    found: Numbers = dots / np.outer(lengths, lengths)
    return found


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
    return max(NEAREST_BITS, rows // _NEAREST_OF)


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
    kind = np.int16 if _SCALE * dimensions <= np.iinfo(np.int16).max else np.int32
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


def nearest_bits(sketches: Bits, query: Bits, allowed: Mask, count: int) -> Rows:
    """The `count` rows of a mask whose bits differ least from those of a probe; of equals those
    that came first. Sketches are told word by word.
    """
    many = int(np.count_nonzero(allowed))
    if many <= count:
        return np.flatnonzero(allowed)
    if many * 2 > len(allowed):
        return _least(_apart(sketches, query), allowed, count)
    rows = np.flatnonzero(allowed)
    apart = _apart(sketches[:, rows], query)
    return rows[_least(apart, np.ones(len(rows), np.bool_), count)]


def _least(numbers: Any, allowed: Mask, count: int) -> Rows:
    """Where the `count` least numbers behind a mask stand, in this order; of equals the first."""
    # A sample tells a number that so many are not above, or nearly all would be looked at.
    step = _SAMPLED if len(numbers) > _SCAN else 1
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


def _apart(sketches: Bits, query: Bits) -> Any:
    """How much the bits of each row differ from those of a probe."""
    signs, once, twice = query
    apart = np.zeros(sketches.shape[1], np.uint16)
    step = min(len(apart), _SCAN)
    differ, part = np.empty((2, step), np.uint64)
    ones = np.empty(step, np.uint8)
    for start in range(0, len(apart), step):
        # Room that is used again stays in the processor's caches.
        some = apart[start : start + step]
        size = len(some)
        for word, bits in enumerate(sketches[:, start : start + step]):
            np.bitwise_xor(bits, signs[word], out=differ[:size])
            for weight, worth in ((once[word], 1), (twice[word], 2)):
                np.bitwise_and(differ[:size], weight, out=part[:size])
                np.bitwise_count(part[:size], out=ones[:size])
                for _ in range(worth):
                    some += ones[:size]
    return apart
