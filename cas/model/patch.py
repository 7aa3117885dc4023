"""Patches: a content as pieces of an older one and what is new between them.

Floor 1; implements docs/format.md section 6.4 (the second form of a delta). Invariant:
`apply_patch` gives what the pieces say and as many bytes as the record does, or raises
`CorruptObject`; what it allocates is bounded by the stated length, never by what the pieces say.

Who edits a tree node knows what changed and says it in a microsecond; a compressor would have to
find it in fifty. So small commits write patches, and imports frames (`cas.storage.delta`).
"""

from __future__ import annotations

import struct
from typing import Any, Final

from cas.errors import CorruptObject

PATCH_MAGIC: Final = 0
"""First byte of a patch; a zstd frame begins with 0x28."""

PIECE: Final = struct.Struct("<III")
PIECE_BYTES: Final = PIECE.size
PATCH_HEAD: Final = bytes((PATCH_MAGIC,))
put_piece: Final = PIECE.pack
"""The head of a piece: where it begins in the base, how many bytes are taken from there, and how
many new ones follow, which stand behind this head. A patch is `PATCH_HEAD` and its pieces.
"""


def is_patch(frame: bytes | memoryview) -> bool:
    """Whether what follows a base's id is a patch and no frame."""
    return len(frame) > 0 and frame[0] == PATCH_MAGIC


def apply_patch(patch: bytes | memoryview, base: Any, raw_bytes: int) -> bytes:
    """The content of a patch, given its base (any buffer). Raises `CorruptObject`."""
    base, patch = memoryview(base), memoryview(patch)
    end, room, at = len(patch), raw_bytes, 1
    parts: list[memoryview] = []
    while at < end:
        if at + PIECE_BYTES > end:
            raise _wrong("ends in the middle of a piece")
        start, length, literal = PIECE.unpack_from(patch, at)
        at += PIECE_BYTES
        room -= length + literal
        if start + length > len(base) or at + literal > end or room < 0:
            raise _wrong("names bytes that are not there")
        parts.append(base[start : start + length])
        parts.append(patch[at : at + literal])
        at += literal
    if room:
        raise _wrong("gives another number of bytes than its record says")
    return b"".join(parts)


def _wrong(what: str) -> CorruptObject:
    return CorruptObject(f"A delta {what}; run `cas fsck`.")
