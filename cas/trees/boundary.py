"""Where the nodes of a tree end: the whole shape policy, with integers only.

Floor 2; implements the shape rule of docs/format.md section 5.1. Invariant: the ends on a level
are a function of the names on it, scanned left to right, and the state after an end does not
depend on what stood before it. That is why equal content has an equal root, and why a rescan
after an edit may stop at the first old end that it meets (docs/design/002).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from blake3 import blake3

from cas.limits import (
    ENTRY_NAME_BYTES_MAX,
    NODE_BOUNDARY_MEAN,
    NODE_ENTRIES_MAX,
    NODE_NAME_BYTES_MAX,
    NODE_SINGLE_ENTRIES_MAX,
    TREE_LEVELS_MAX,
)

# A hit is a little-endian number of 4 bytes below 2**32 / 32. That bound is a power of two not
# below 2**24, so the last of the 4 bytes alone decides, and no integer has to be made of them.
_THRESHOLD: Final = (1 << 32) // NODE_BOUNDARY_MEAN >> 24
assert _THRESHOLD << 24 == (1 << 32) // NODE_BOUNDARY_MEAN

_LEVELS: Final = tuple(bytes([level]) for level in range(TREE_LEVELS_MAX + 1))

_SURELY_SHORT: Final = (NODE_NAME_BYTES_MAX - 1) // ENTRY_NAME_BYTES_MAX
"""This many names cannot reach the limit of name bytes."""


def is_single(entries: int) -> bool:
    """Whether a level of this many entries is one node, and so the root."""
    return entries <= NODE_SINGLE_ENTRIES_MAX


def is_hit(level: int, name: bytes) -> bool:
    """Whether the hash of `name` asks for an end after it on this level."""
    return blake3(_LEVELS[level] + name).digest()[3] < _THRESHOLD


def hits(level: int, names: Iterable[bytes]) -> list[bool]:
    """`is_hit` of many names."""
    salt = _LEVELS[level]
    return [blake3(salt + name).digest()[3] < _THRESHOLD for name in names]


def ends(level: int, names: Sequence[bytes], suspects: Sequence[int] | None = None) -> list[int]:
    """How many names stand before each end, ascending, when `names[0]` follows an end.

    `suspects` are the positions, ascending, where a hit is possible at all; None means
    everywhere. What is left after the last end is not closed: more names may follow.
    """
    if suspects is None:
        found = [at for at, hit in enumerate(hits(level, names)) if hit]
    else:
        found = [at for at in suspects if is_hit(level, names[at])]
    result: list[int] = []
    start = 0
    for hit in found:
        start = _force(names, start, hit, result)
        # On an inner level a node of one entry would not make the tree any lower.
        if level == 0 or hit > start:
            start = hit + 1
            result.append(start)
    _force(names, start, len(names), result)
    return result


def _force(names: Sequence[bytes], start: int, stop: int, result: list[int]) -> int:
    """Add the forced ends after `names[start:stop]` to `result`; gives the last end."""
    while stop - start > _SURELY_SHORT:
        lengths = accumulate(map(len, names[start : min(stop, start + NODE_ENTRIES_MAX)]))
        sizes = list(lengths)
        at = bisect_left(sizes, NODE_NAME_BYTES_MAX)
        if at == len(sizes) < NODE_ENTRIES_MAX:
            break
        start += min(at + 1, NODE_ENTRIES_MAX)
        result.append(start)
    return start


def may_force(entries: int, encoded_bytes: int) -> bool:
    """Whether a node of this size could be ended by force; False is certain."""
    return entries >= NODE_ENTRIES_MAX or encoded_bytes >= NODE_NAME_BYTES_MAX
