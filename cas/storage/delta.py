"""Deltas: a zstd frame that has another content as its raw-content dictionary, or a patch.

Floor 2; implements docs/format.md section 6.2 (codec 3). Invariant: `decode_delta` gives exactly
the bytes that `encode_delta` was given with the same base, or raises `CorruptObject`; what it
allocates is bounded by base and stated raw length, never by what the frame says of itself.

A delta is decoded without a dictionary: the base is put in front of the frame's blocks as blocks
of type raw, which is what a raw-content dictionary means (RFC 8878 section 5: history that
precedes the frame, no tables, the same first repeat offsets). So one decompressor serves every
base, and many deltas are decoded in one call that holds no GIL; a context made for each took a
quarter longer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.errors import CorruptObject
from cas.limits import DELTA_BYTES_MAX, ID_BYTES, ZSTD_LEVEL
from cas.model.patch import apply_patch, is_patch
from cas.storage.codec import SIZED_FROM, decompressor, frame_head, is_plain

if TYPE_CHECKING:
    import zstandard

_WINDOW_LOG_MIN: Final = 10
_TABLE_SHIFT: Final = 3
_FAST_WINDOW_LOG: Final = 18
_FAST_LEVEL: Final = 1
"""Content and base of 128 KiB and more: a fifth less time for a twelfth more bytes."""
_BLOCK_BYTES: Final = 128 * 1024
_PROVED_BYTES: Final = 256 * 1024
"""Decoded in one call: the memory of larger ones is new each time."""

_PARAMETERS: dict[int, zstandard.ZstdCompressionParameters] = {}


def _window_log(total_bytes: int) -> int:
    """The smallest window that holds base and content: matches may then lie anywhere."""
    return max(_WINDOW_LOG_MIN, (total_bytes - 1).bit_length())


def _parameters(window_log: int) -> zstandard.ZstdCompressionParameters:
    found = _PARAMETERS.get(window_log)
    if found is None:
        import zstandard

        # Tables as for a content of both lengths: those for the content alone lose 2 %. Levels
        # from 6 on are slower and worse, they have no table of long matches.
        level = ZSTD_LEVEL if window_log < _FAST_WINDOW_LOG else _FAST_LEVEL
        make = zstandard.ZstdCompressionParameters.from_level
        tables = make(level, source_size=1 << window_log)
        found = make(
            level,
            source_size=1 << window_log,
            window_log=window_log,
            # Where nothing repeats, a base of megabytes is found again only by enough of it.
            hash_log=max(tables.hash_log, window_log - _TABLE_SHIFT),
            chain_log=max(tables.chain_log, window_log - _TABLE_SHIFT - 1),
            write_content_size=0,
            write_checksum=0,
            write_dict_id=0,
        )
        _PARAMETERS[window_log] = found
    return found


def encode_delta(content: bytes, base: bytes) -> bytes | None:
    """A frame that gives `content` with `base` beside it; None when it would not.

    Both hold at most `DELTA_BYTES_MAX` bytes. Releases the GIL while it compresses. The frame
    was decoded again and compared.
    """
    (frame,) = encode_deltas([content], [base])
    return frame


def encode_deltas(contents: Sequence[bytes], bases: Sequence[bytes]) -> list[bytes | None]:
    """`encode_delta` of each. The frames are decoded again in few calls: a thread that wants the
    interpreter back after each of them waits for it each time.
    """
    frames = [_frame(*each) for each in zip(contents, bases, strict=True)]
    found: list[bytes | None] = []
    first = size_bytes = 0
    for at, (content, base) in enumerate(zip(contents, bases, strict=True), 1):
        size_bytes += len(content) + len(base)
        if size_bytes >= _PROVED_BYTES or at == len(frames):
            part = slice(first, at)
            found += _proved(frames[part], bases[part], contents[part])
            first, size_bytes = at, 0
    return found


def _frame(content: bytes, base: bytes) -> bytes:
    import zstandard

    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    compressor = zstandard.ZstdCompressor(
        dict_data=dictionary,
        compression_params=_parameters(_window_log(len(base) + len(content))),
    )
    return compressor.compress(content)


def _proved(
    frames: Sequence[bytes], bases: Sequence[bytes], contents: Sequence[bytes]
) -> list[bytes | None]:
    """Frames that give their contents; None in place of one that does not."""
    decoded = decode_deltas(frames, bases, [len(content) for content in contents])
    if decoded is not None:
        return [
            frame if bytes(again) == content else None
            for frame, again, content in zip(frames, decoded, contents, strict=True)
        ]
    if len(frames) == 1:
        return [None]
    middle = len(frames) // 2
    return [
        *_proved(frames[:middle], bases[:middle], contents[:middle]),
        *_proved(frames[middle:], bases[middle:], contents[middle:]),
    ]


def decode_delta(frame: bytes | memoryview, base: Any, raw_bytes: int) -> bytes:
    """The content of a delta of either form, given its base. Raises `CorruptObject`."""
    total_bytes = len(base) + raw_bytes
    if not _fits(frame, base, raw_bytes):
        raise CorruptObject(
            f"A delta of {raw_bytes} bytes on {len(base)} is none that a writer makes; "
            "run `cas fsck`."
        )
    if is_patch(frame):
        return apply_patch(frame, base, raw_bytes)
    import zstandard

    try:
        joined = decompressor().decompress(
            _spliced(frame, base, total_bytes), max_output_size=total_bytes
        )
    except (zstandard.ZstdError, MemoryError) as error:
        raise CorruptObject(f"A delta does not decode ({error}); run `cas fsck`.") from error
    if len(joined) != total_bytes:
        raise CorruptObject(
            f"A delta gives {len(joined) - len(base)} bytes where its record says {raw_bytes}; "
            "run `cas fsck`."
        )
    return joined[len(base) :]


def decode_deltas(
    frames: Sequence[bytes | memoryview], bases: Sequence[Any], raw_bytes: Sequence[int]
) -> list[memoryview] | None:
    """Contents of many deltas, in one call that holds no GIL; None when one does not decode.

    After None `decode_delta` of each tells which. Allocates twice the sum of all lengths; the
    caller bounds it.
    """
    if not all(map(_fits, frames, bases, raw_bytes)):
        return None
    if any(map(is_patch, frames)):
        return _decode_mixed(frames, bases, raw_bytes)
    import zstandard

    totals = [len(base) + size for base, size in zip(bases, raw_bytes, strict=True)]
    spliced = [_spliced(*each) for each in zip(frames, bases, totals, strict=True)]
    multiple: Any = decompressor()
    try:
        decoded = multiple.multi_decompress_to_buffer(
            spliced, decompressed_sizes=struct.pack(f"={len(totals)}Q", *totals), threads=1
        )
    except (zstandard.ZstdError, MemoryError):
        return None
    return [memoryview(joined)[len(base) :] for joined, base in zip(decoded, bases, strict=True)]


def _decode_mixed(
    frames: Sequence[bytes | memoryview], bases: Sequence[Any], raw_bytes: Sequence[int]
) -> list[memoryview] | None:
    """`decode_deltas` where some are patches: these one by one, the frames together."""
    framed = [at for at, frame in enumerate(frames) if not is_patch(frame)]
    contents: dict[int, memoryview] = {}
    if framed:
        found = decode_deltas(
            [frames[at] for at in framed],
            [bases[at] for at in framed],
            [raw_bytes[at] for at in framed],
        )
        if found is None:
            return None
        contents.update(zip(framed, found, strict=True))
    try:
        for at, frame in enumerate(frames):
            if is_patch(frame):
                contents[at] = memoryview(apply_patch(frame, bases[at], raw_bytes[at]))
    except CorruptObject:
        return None
    return [contents[at] for at in range(len(frames))]


def delta_base(payload: bytes | memoryview) -> bytes:
    """Id of the base of a delta's payload. Raises `CorruptObject`."""
    if len(payload) <= ID_BYTES:
        raise CorruptObject("A delta is too short to name its base; run `cas fsck`.")
    return bytes(payload[:ID_BYTES])


def _fits(frame: bytes | memoryview, base: Any, raw_bytes: int) -> bool:
    """Whether lengths are those of a delta, and the frame one of the encoder's.

    Nothing empty is ever a delta or a base; to zstandard a bound of 0 would mean none.
    """
    lengths_fit = 0 < raw_bytes <= DELTA_BYTES_MAX and 0 < len(base) <= DELTA_BYTES_MAX
    return lengths_fit and (is_plain(frame) or is_patch(frame))


def _spliced(frame: bytes | memoryview, base: Any, total_bytes: int) -> bytes:
    """One frame of base and content: the base in raw blocks, then the frame's own.

    It states its length, so that the library decodes it in one step into the result: else both
    go through a window of its own first, which took twice as long.
    """
    parts: list[Any] = [frame_head(total_bytes)]
    view = memoryview(base)
    for start in range(0, len(view), _BLOCK_BYTES):
        block = view[start : start + _BLOCK_BYTES]
        # Three bytes: not the last block (bit 0), type raw (bits 1 and 2), then its length.
        parts.append((len(block) << 3).to_bytes(3, "little"))
        parts.append(block)
    parts.append(memoryview(frame)[SIZED_FROM:])
    return b"".join(parts)
