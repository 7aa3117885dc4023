"""Dictionaries: what small contents of a store have in common, kept once and beside all of them.

Floor 2; implements docs/format.md sections 6.2 (codec 4) and 6.5. Invariant: `decode` gives
exactly the bytes that were encoded with the same dictionary or raises `CorruptObject`; what it
allocates is bounded by the raw length that a record states. A dictionary is content like any
other: it counts only when it was proved by its id, and what is no dictionary is refused.

A payload is the frame with its magic number replaced by the first four bytes of the dictionary's
id: no longer than a frame alone.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from cas.errors import CorruptObject
from cas.limits import (
    DICTIONARY_BYTES_MAX,
    DICTIONARY_CONTENT_BYTES_MAX,
    STRUCTURED_BYTES_MAX,
    ZSTD_WINDOW_LOG_MAX,
)
from cas.storage.codec import decode_steps, is_plain, sized_frame, undecoded
from cas.storage.record import TAG_BYTES

if TYPE_CHECKING:
    import zstandard

DICTIONARY_CONTENT_BYTES_MIN: Final = 32
"""Nothing shorter gets smaller."""

_FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_MAGIC: Final = b"\x37\xa4\x30\xec"

_LEVEL: Final = 3
_HASH_LOG: Final = 18
_CHAIN_LOG: Final = 17
_MATCH_MIN: Final = 5
"""Level 3 for what is long, with tables that hold all of a dictionary: half the time of what the
library would choose for inputs this small, and 3 % more bytes."""

_SEGMENT_BYTES: Final = 1000
_DMER_BYTES: Final = 8
"""How training cuts samples up. Given, it takes a quarter of the time of finding them out, for
dictionaries that are as good within 0.2 %."""


class Dictionary:
    """One dictionary, ready to be used by any thread. Its content was proved by its id.

    Contexts are kept and handed out: they are not thread-safe, and making one takes longer than
    what is done with it.
    """

    __slots__ = (
        "_compressors",
        "_data",
        "_decompressors",
        "_lock",
        "_tables",
        "content",
        "id",
        "tag",
    )

    def __init__(self, id: bytes, content: bytes) -> None:
        """Raises `CorruptObject` for what is no dictionary."""
        import zstandard

        if not content.startswith(_MAGIC) or len(content) > DICTIONARY_BYTES_MAX:
            raise _none(id)
        self.id = id
        self.tag = id[:TAG_BYTES]
        self.content = content
        self._data = zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_FULLDICT)
        self._lock = threading.Lock()
        self._tables: zstandard.ZstdCompressionParameters | None = None
        self._compressors: list[zstandard.ZstdCompressor] = []
        self._decompressors: list[zstandard.ZstdDecompressor] = []
        try:
            # The library looks at the tables in front of a dictionary when it is first used.
            self._decompressors.append(self._decompressor())
        except (zstandard.ZstdError, ValueError, MemoryError) as error:
            raise _none(id) from error

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        try:
            return self._decompressors.pop()
        except IndexError:
            import zstandard

            return zstandard.ZstdDecompressor(
                dict_data=self._data, max_window_size=1 << ZSTD_WINDOW_LOG_MAX
            )

    def _compressor(self) -> zstandard.ZstdCompressor:
        try:
            return self._compressors.pop()
        except IndexError:
            import zstandard

            return zstandard.ZstdCompressor(
                dict_data=self._data, compression_params=self._parameters()
            )

    def _parameters(self) -> zstandard.ZstdCompressionParameters:
        """Those of every frame. The dictionary's tables for them are made once, here: each call
        for many would make them anew, which takes as long as 200 frames; and twice is an error
        that the library does not tell of.
        """
        with self._lock:
            if self._tables is None:
                import zstandard

                self._tables = zstandard.ZstdCompressionParameters.from_level(
                    _LEVEL,
                    source_size=DICTIONARY_CONTENT_BYTES_MAX // 16,
                    dict_size=len(self.content),
                    strategy=zstandard.STRATEGY_DFAST,
                    hash_log=_HASH_LOG,
                    chain_log=_CHAIN_LOG,
                    search_log=1,
                    min_match=_MATCH_MIN,
                    write_content_size=0,
                    write_checksum=0,
                    write_dict_id=0,
                )
                self._data.precompute_compress(compression_params=self._tables)
            return self._tables

    def encode(self, contents: Sequence[bytes], threads: int = 1) -> list[bytes | None]:
        """The payload of each content; None where the content as it is takes no more.

        In two calls that hold no GIL. Each frame was decoded again and compared.
        """
        if not contents:
            return []
        sizes = list(map(len, contents))
        compressor: Any = self._compressor()
        collected = compressor.multi_compress_to_buffer(contents, threads=threads)
        frames = [segment.tobytes() for segment in collected]
        self._compressors.append(compressor)
        multiple: Any = self._decompressor()
        again = multiple.multi_decompress_to_buffer(
            frames, decompressed_sizes=struct.pack(f"={len(sizes)}Q", *sizes), threads=threads
        )
        self._decompressors.append(multiple)
        tag = self.tag
        payloads = [
            tag + frame[TAG_BYTES:] if len(frame) < size - (size >> 4) else None
            for frame, size in zip(frames, sizes, strict=True)
        ]
        # All in one comparison; where it fails, each tells for itself.
        if list(map(len, again)) != sizes or b"".join(again) != b"".join(contents):
            same = [part.tobytes() == own for part, own in zip(again, contents, strict=True)]
            return [p if is_same else None for p, is_same in zip(payloads, same, strict=True)]
        return payloads

    def decode(self, payload: bytes, raw_bytes: int) -> bytes:
        """The content of one payload. Raises `CorruptObject`."""
        # Nothing empty is ever compressed, and a bound of 0 means none to zstandard.
        if not (0 < raw_bytes <= STRUCTURED_BYTES_MAX and is_plain(payload)):
            raise CorruptObject(
                f"A payload for {raw_bytes} bytes beside a dictionary is none that a writer "
                "makes; run `cas fsck`."
            )
        decompressor = self._decompressor()
        try:
            content = decompressor.decompress(
                _FRAME_MAGIC + payload[TAG_BYTES:], max_output_size=raw_bytes
            )
        except Exception as error:
            import zstandard

            if not isinstance(error, zstandard.ZstdError | MemoryError):
                raise
            raise CorruptObject(
                f"An object does not decode beside its dictionary ({error}); run `cas fsck`."
            ) from error
        self._decompressors.append(decompressor)
        if len(content) != raw_bytes:
            raise CorruptObject(
                f"An object has {len(content)} bytes where its record says {raw_bytes}; "
                "run `cas fsck`."
            )
        return content

    def decode_sized(self, payload: bytes, raw_bytes: int) -> bytes:
        """The content of a payload that is about to be hashed, as `codec.decode_sized` gives it.

        Raises `CorruptObject`.
        """
        return self.decode_frame(sized_frame(payload, raw_bytes))

    def decode_frame(self, frame: bytes) -> bytes:
        """The content of a sized frame. Raises `CorruptObject`."""
        try:
            decompressor = self._decompressors.pop()
        except IndexError:
            decompressor = self._decompressor()
        try:
            content = decompressor.decompress(frame)
        except Exception as error:
            raise undecoded(error) from error
        self._decompressors.append(decompressor)
        return content

    def decode_sized_many(
        self, frames: Sequence[bytes], raw_bytes: Sequence[int], threads: int = 1
    ) -> list[bytes] | None:
        """`codec.decode_sized_many` beside this dictionary."""
        decompressor = self._decompressor()
        found = decode_steps(decompressor, frames, raw_bytes, threads)
        if found is not None:
            self._decompressors.append(decompressor)
        return found

    def decode_many(self, payloads: Sequence[Any], raw_bytes: Sequence[int]) -> Any:
        """Contents of many payloads in one call that holds no GIL; None when one is not plain.

        As `decode_frames`: each content is a buffer, and after None `decode` of each tells which.
        """
        frames = []
        for payload, size_bytes in zip(payloads, raw_bytes, strict=True):
            if not 0 < size_bytes <= STRUCTURED_BYTES_MAX or not is_plain(payload):
                return None
            frames.append(_FRAME_MAGIC + payload[TAG_BYTES:])
        import zstandard

        multiple: Any = self._decompressor()
        try:
            found = multiple.multi_decompress_to_buffer(
                frames, decompressed_sizes=struct.pack(f"={len(frames)}Q", *raw_bytes), threads=1
            )
        except (zstandard.ZstdError, MemoryError):
            return None
        self._decompressors.append(multiple)
        return found


def _none(id: bytes) -> CorruptObject:
    return CorruptObject(
        f"Object {id.hex()} is named as a dictionary and is none; run `cas fsck`.", id=id
    )


def train(samples: Sequence[bytes], size_bytes: int) -> bytes | None:
    """The content of a dictionary of about `size_bytes` made from samples; None where they
    have too little in common, or are too few. Holds no GIL while it looks for it.
    """
    import zstandard

    try:
        segment_bytes = min(_SEGMENT_BYTES, size_bytes // 4)
        found = zstandard.train_dictionary(
            size_bytes, list(samples), k=segment_bytes, d=_DMER_BYTES
        )
    except (zstandard.ZstdError, ValueError, MemoryError):
        return None
    content = found.as_bytes()
    return content if content.startswith(_MAGIC) else None


def all_take_dictionary(contents: Sequence[bytes]) -> bool:
    """Whether each of these blobs is stored beside a dictionary where there is one."""
    sizes = list(map(len, contents))
    return (
        min(sizes, default=0) > DICTIONARY_CONTENT_BYTES_MIN
        and max(sizes) <= DICTIONARY_CONTENT_BYTES_MAX
        and not any(map(bytes.startswith, contents, repeat(_MAGIC)))
    )


def takes_dictionary(kind: int, content: bytes) -> bool:
    """Whether an object is stored beside a dictionary where there is one: a small blob that is
    none itself.
    """
    return (
        kind == 1
        and DICTIONARY_CONTENT_BYTES_MIN < len(content) <= DICTIONARY_CONTENT_BYTES_MAX
        and not content.startswith(_MAGIC)
    )
