"""Payloads: zstd where it helps, raw where it does not, always decoded again before they count.

Floor 2; implements docs/format.md section 6.2 (codecs). Invariant: `decode_payload` gives
exactly the bytes that were encoded or raises `CorruptObject`, and never allocates more than the
raw length the record states. zstandard ignores a bound on output when a frame declares its own
size, so frames are written without one and frames that declare another are refused.

One compressor serves one thread (they are not thread-safe).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cas.errors import CorruptObject, LimitExceeded
from cas.limits import STRUCTURED_BYTES_MAX, ZSTD_LEVEL, ZSTD_WINDOW_LOG_MAX

if TYPE_CHECKING:
    import zstandard

RAW: Final = 0
ZSTD: Final = 1
RECIPE: Final = 2
DELTA: Final = 3
DICTIONARY: Final = 4

AS_THEY_LIE: Final = (RAW, ZSTD, RECIPE, DELTA)
"""Codecs of records that are as good in one pack as in another."""

_SMALL_BYTES: Final = 64
"""Nothing shorter gets smaller by a frame of its own."""

_WINDOW_BYTE_MAX: Final = ZSTD_WINDOW_LOG_MAX - 10 << 3
"""The byte that says a window of just the limit: exponent above 10, then 3 bits of mantissa."""


_FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
SIZED_FROM: Final = 6
"""Of a frame as the encoder writes it: magic number, flags, window."""

SIZED_BYTES_MAX: Final = 1 << 20
"""What is decoded in one step, at the word of a slot that was not checked."""
SIZED_HEADS: dict[int, bytes] = {}
_HEADS_MAX: Final = 1 << 12


class _Local(threading.local):
    compressor: zstandard.ZstdCompressor | None
    decompressor: zstandard.ZstdDecompressor | None

    def __init__(self) -> None:
        self.compressor = None
        self.decompressor = None


_LOCAL = _Local()


def zstd_version() -> str:
    """Version of the zstd library in use."""
    import zstandard

    return ".".join(str(part) for part in zstandard.ZSTD_VERSION)


def _compressor() -> zstandard.ZstdCompressor:
    found = _LOCAL.compressor
    if found is None:
        import zstandard

        found = zstandard.ZstdCompressor(
            level=ZSTD_LEVEL, write_content_size=False, write_checksum=False
        )
        _LOCAL.compressor = found
    return found


def decompressor() -> zstandard.ZstdDecompressor:
    """This thread's decompressor for frames that need nothing beside themselves."""
    found = _LOCAL.decompressor
    if found is None:
        import zstandard

        found = zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG_MAX)
        _LOCAL.decompressor = found
    return found


def encode_payload(content: bytes) -> tuple[int, bytes]:
    """(codec, payload) for `content`: zstd when that is smaller and decodes to the same.

    Releases the GIL while it compresses. A frame that does not decode to `content` (it would be
    a bug of the library; other stores met one) is not used. Raises `LimitExceeded`.
    """
    size_bytes = len(content)
    if size_bytes <= _SMALL_BYTES:
        return RAW, content
    _check_size(size_bytes)
    frame = _compressor().compress(content)
    if len(frame) >= size_bytes - size_bytes // 64:
        return RAW, content
    if decompressor().decompress(frame, max_output_size=size_bytes) != content:
        return RAW, content
    return ZSTD, frame


def _check_size(size_bytes: int) -> None:
    """Refuse what no reader takes from one record: its whole pack would count as damaged."""
    if size_bytes > STRUCTURED_BYTES_MAX:
        raise LimitExceeded(
            f"{size_bytes:,} bytes are more than one record holds; put content as a blob, which "
            "is cut into chunks.",
            limit="STRUCTURED_BYTES_MAX",
            value=size_bytes,
            maximum=STRUCTURED_BYTES_MAX,
        )


def encode_payloads(contents: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """`encode_payload` of each, in two calls that hold no GIL instead of two for each."""
    worth = [content for content in contents if len(content) > _SMALL_BYTES]
    if not worth:
        return [(RAW, content) for content in contents]
    _check_size(max(map(len, worth)))
    # The stubs of zstandard know neither list[bytes] as input nor the result as iterable.
    compressor: Any = _compressor()
    multiple: Any = decompressor()
    frames = [
        segment.tobytes() for segment in compressor.multi_compress_to_buffer(worth, threads=1)
    ]
    again = multiple.multi_decompress_to_buffer(
        frames,
        decompressed_sizes=struct.pack(f"={len(worth)}Q", *map(len, worth)),
        threads=1,
    )
    encoded = iter(zip(worth, frames, again, strict=True))
    result: list[tuple[int, bytes]] = []
    for content in contents:
        size_bytes = len(content)
        if size_bytes <= _SMALL_BYTES:
            result.append((RAW, content))
            continue
        _content, frame, decoded = next(encoded)
        if len(frame) >= size_bytes - size_bytes // 64 or decoded.tobytes() != content:
            result.append((RAW, content))
        else:
            result.append((ZSTD, frame))
    return result


def compressed_sizes(contents: Sequence[bytes]) -> list[int]:
    """How long the frame of each would be, to compare with; nothing is decoded again."""
    compressor: Any = _compressor()
    if not contents or not all(contents):
        return [len(compressor.compress(content)) for content in contents]
    return list(map(len, compressor.multi_compress_to_buffer(list(contents), threads=1)))


def decode_frames(frames: Sequence[bytes | memoryview], raw_bytes: Sequence[int]) -> Any:
    """Contents of many zstd payloads, in one call that holds no GIL; None when one is not plain.

    Each content gives its bytes as a buffer. After None `decode_payload` of each tells which.
    Allocates the sum of `raw_bytes` and no more; the caller bounds it.
    """
    for frame, size_bytes in zip(frames, raw_bytes, strict=True):
        if size_bytes == 0 or not is_plain(frame):
            return None
    import zstandard

    multiple: Any = decompressor()
    try:
        return multiple.multi_decompress_to_buffer(
            frames, decompressed_sizes=struct.pack(f"={len(frames)}Q", *raw_bytes), threads=1
        )
    except (zstandard.ZstdError, MemoryError):
        return None


def is_plain(frame: bytes | memoryview) -> bool:
    """Whether a frame is as the encoder makes them: no flags, a window that fits, one frame.

    In a call for many the library would take a larger window, and bytes behind the frame, that
    it refuses in a call for one (RFC 8878 section 3.1.1).
    """
    end = len(frame)
    # Flags, window, and the head of the first block, which mostly is the last one.
    head = int.from_bytes(frame[4:9], "little")
    if end < 9 or head & 0xFF or head >> 8 & 0xFF > _WINDOW_BYTE_MAX:
        return False
    at, block = 6, head >> 16
    while True:
        # Block type 1 is one byte that repeats; its size is that of the content.
        at += 4 if block & 6 == 2 else 3 + (block >> 3)
        if block & 1:
            return at == end
        if at + 3 > end:
            return False
        block = int.from_bytes(frame[at : at + 3], "little")


def sized_frame(payload: bytes, raw_bytes: int) -> bytes:
    """The frame of a payload under a head that states `raw_bytes`, and no window beside it.

    The library then decodes it in one step, into just that many bytes, in a call for many as in
    a call for one; a frame that holds another number is refused. The six bytes in front that the
    encoder writes (RFC 8878 section 3.1.1) say nothing more. Raises `CorruptObject` beyond
    `SIZED_BYTES_MAX`.
    """
    head = SIZED_HEADS.get(raw_bytes)
    if head is None:
        head = sized_head(raw_bytes)
    return head + payload[SIZED_FROM:]


def sized_head(raw_bytes: int) -> bytes:
    """What stands in front of a sized frame. Raises `CorruptObject`."""
    if not 0 < raw_bytes <= SIZED_BYTES_MAX:
        raise CorruptObject(f"A frame of {raw_bytes} bytes is not decoded in one step.")
    head = frame_head(raw_bytes)
    if len(SIZED_HEADS) < _HEADS_MAX:
        SIZED_HEADS[raw_bytes] = head
    return head


def frame_head(content_bytes: int) -> bytes:
    """The head of one frame that states the length of its content, below 4 GiB, and no window
    beside it (RFC 8878 section 3.1.1).
    """
    if content_bytes < 256:
        return _FRAME_MAGIC + b"\x20" + content_bytes.to_bytes(1, "little")
    if content_bytes < 256 + (1 << 16):
        return _FRAME_MAGIC + b"\x60" + (content_bytes - 256).to_bytes(2, "little")
    return _FRAME_MAGIC + b"\xa0" + content_bytes.to_bytes(4, "little")


def decode_sized(payload: bytes, raw_bytes: int) -> bytes:
    """The content of a zstd payload that is about to be hashed. Raises `CorruptObject`.

    Less is looked at than in `decode_payload`: bytes behind the frame are not seen.
    """
    frame = sized_frame(payload, raw_bytes)
    try:
        return decompressor().decompress(frame)
    except Exception as error:
        raise undecoded(error) from error


def undecoded(error: Exception) -> Exception:
    """What to raise when the library could not decode a frame; any other error as it is."""
    import zstandard

    if not isinstance(error, zstandard.ZstdError | MemoryError):
        return error
    return CorruptObject(f"A frame does not decode ({error}); run `cas fsck`.")


def decode_sized_many(
    frames: Sequence[bytes], raw_bytes: Sequence[int], threads: int = 1
) -> list[bytes] | None:
    """Contents of many sized frames, in one call that holds no GIL; None if one does not decode."""
    return decode_steps(decompressor(), frames, raw_bytes, threads)


def decode_steps(
    with_: Any, frames: Sequence[bytes], raw_bytes: Sequence[int], threads: int
) -> list[bytes] | None:
    """`decode_sized_many` with a decompressor of one's own."""
    if not frames:
        return []
    try:
        found = with_.multi_decompress_to_buffer(
            frames,
            decompressed_sizes=struct.pack(f"={len(frames)}Q", *raw_bytes),
            threads=threads,
        )
    except Exception as error:
        if not isinstance(undecoded(error), CorruptObject):
            raise
        return None
    return [segment.tobytes() for segment in found]


def decode_payload(codec: int, payload: bytes, raw_bytes: int) -> bytes:
    """The content of a whole record (codec raw or zstd). Raises `CorruptObject`."""
    if raw_bytes > STRUCTURED_BYTES_MAX:
        # Asked for that much, the library overflows, or takes the memory before it looks.
        raise CorruptObject(f"A record says that it holds {raw_bytes} bytes; run `cas fsck`.")
    if codec == ZSTD:
        import zstandard

        try:
            declared = zstandard.frame_content_size(payload)
            # A bound of 0 means no bound to zstandard; nothing empty is ever compressed.
            if declared not in (-1, raw_bytes) or raw_bytes == 0:
                raise CorruptObject(
                    f"A frame declares {declared} bytes and its record {raw_bytes}; run `cas fsck`."
                )
            content = decompressor().decompress(
                payload, max_output_size=raw_bytes, allow_extra_data=False
            )
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptObject(
                f"A compressed object does not decode ({error}); run `cas fsck`."
            ) from error
    elif codec == RAW:
        content = payload
    else:
        raise CorruptObject(f"A record has the unknown codec {codec}; run `cas fsck`.")
    if len(content) != raw_bytes:
        raise CorruptObject(
            f"An object has {len(content)} bytes where its record says {raw_bytes}; run `cas fsck`."
        )
    return content
