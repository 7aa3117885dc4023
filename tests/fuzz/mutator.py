"""Bytes that are almost right: mutations of well-formed inputs, from a seed.

Invariant: equal seeds and equal corpora give equal inputs, so that a number repeats a failure. Half
of the mutations know the encoding (heads of CBOR items, lengths, integers at their edges), because
bytes changed at random seldom come past the first check.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

EDGES: Final = (0, 1, 23, 24, 31, 32, 127, 128, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32)
"""Numbers at which lengths and fields change their form."""

HEADS: Final = bytes(
    major << 5 | low for major in range(8) for low in (0, 1, 2, 23, 24, 25, 26, 27, 31)
)
"""First bytes of CBOR items: every type, with short and long lengths, and those of no length."""

BYTES_MAX: Final = 4_096
"""Of an input: longer ones are cut."""


class Mutator:
    """Gives one input after another."""

    def __init__(self, seed: int | str, corpus: Sequence[bytes]) -> None:
        self._random = random.Random(f"mutator {seed}")
        self._corpus = list(corpus) or [b""]

    def next(self) -> bytes:
        """An input: one of the corpus after one to four changes."""
        draw = self._random
        data = bytearray(draw.choice(self._corpus))
        for _ in range(1 + (draw.random() < 0.4) + (draw.random() < 0.2) + (draw.random() < 0.1)):
            self._change(data)
        del data[BYTES_MAX:]
        return bytes(data)

    def _change(self, data: bytearray) -> None:
        draw = self._random
        kind = int(draw.random() * 10)
        at = int(draw.random() * len(data))
        if kind == 0 or not data:
            data.insert(at, int(draw.random() * 256))
        elif kind == 1:
            data[at] ^= 1 << int(draw.random() * 8)
        elif kind == 2:
            data[at] = int(draw.random() * 256)
        elif kind == 3:
            del data[at : at + 1 + int(draw.random() * 8)]
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            end = at + 1 + int(draw.random() * 40)
            data[at:at] = data[at:end]
        elif kind == 6:
            other = draw.choice(self._corpus)
            start = int(draw.random() * len(other)) if other else 0
            part = other[start : start + 1 + int(draw.random() * 60)]
            data[at : at + int(draw.random() * 60)] = part
        elif kind == 7:
            data[at] = HEADS[int(draw.random() * len(HEADS))]
        elif kind == 8:
            size = (1, 2, 4, 8)[int(draw.random() * 4)]
            number = draw.choice(EDGES) % (1 << 8 * size)
            data[at : at + size] = number.to_bytes(size, "little" if draw.random() < 0.5 else "big")
        else:
            # A head, with its length in one of the long forms.
            width = (1, 2, 4, 8)[int(draw.random() * 4)]
            low = {1: 24, 2: 25, 4: 26, 8: 27}[width]
            number = draw.choice(EDGES) % (1 << 8 * width)
            data[at : at + 1] = bytes(((data[at] & 0xE0) | low,)) + number.to_bytes(width, "big")
