"""The C library's heap, while something large is read and written.

Floor 9: a program that uses the package keeps its own settings. Invariant: nothing but the memory
of this process changes, and where the C library has no such setting nothing does.
"""

from __future__ import annotations

import os
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h of glibc
_THRESHOLD_BYTES: Final = 512 << 10
"""As long as the longest chunk."""

LARGE_BYTES: Final = 8 << 20
"""From here on content is cut into chunks, and the heap is worth a call."""


def keep_heap_small() -> None:
    """Give blocks of half a MiB and more back to the system as soon as they are freed.

    glibc does so with blocks above a threshold, which it raises to the longest one ever freed. A
    stream frees blocks of a MiB beside chunks of 16 to 512 KiB, by several threads; in one heap
    they leave holes, and the heap grew by 10 MB with each GiB (docs/design/018).
    """
    import ctypes

    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    except (OSError, AttributeError):
        return


def is_large(file: str) -> bool:
    """Whether a file named on the command line is large, or - is read, which may be."""
    try:
        return file == "-" or os.path.getsize(file) > LARGE_BYTES
    except (OSError, ValueError):
        return False  # whoever opens it tells what is wrong
