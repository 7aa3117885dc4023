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
GREATEST: Final = 127
"""Of the whole numbers of a packed vector."""
_PRODUCT_MAX: Final = 400_000
"""Multiplications that numpy's library does on the thread that asks."""


def pack_vectors(vectors: Any, dimensions: int, count: int) -> list[bytes]:
    """Each vector as whole numbers of one byte, the greatest of them 127. Raises `Invalid`."""
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise Invalid(f"The embedder gave no array of numbers: {error}.") from error
    if array.shape != (count, dimensions):
        raise Invalid(
            f"The embedder gave an array of {array.shape} where {(count, dimensions)} was due: "
            "one vector a text, of the dimensions that it states."
        )
    if not np.isfinite(array).all():
        raise Invalid("The embedder gave a vector with a number that is not finite.")
    greatest = np.abs(array).max(axis=1, keepdims=True).astype(np.float64)
    whole = np.rint(array * (GREATEST / np.where(greatest == 0, 1.0, greatest))).astype(np.int8)
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
