"""Compressed streams of others, read without knowing their length: gzip and zstd, by content.

Floor 2. Invariant: memory is bounded whatever the stream says of itself, and what is damaged or
ends too early is an error, never an end.
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO, Any, Final, Protocol, cast

from cas.errors import BadArchive
from cas.limits import ZSTD_WINDOW_LOG_MAX

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_OTHERS: Final = {
    b"BZh": ("bzip2", "bzip2 -dc"),
    b"\xfd7zXZ\x00": ("xz", "xz -dc"),
    b"PK\x03\x04": ("zip", "unzip"),
}
_HEAD_BYTES: Final = 6


class Source(Protocol):
    """Anything with a `read` that gives bytes, and b"" at the end."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


class _Peeked(io.RawIOBase):
    """A stream whose beginning was read already."""

    def __init__(self, head: bytes, stream: Source) -> None:
        super().__init__()
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            wanted = len(self._head) if size < 0 else size
            part, self._head = self._head[:wanted], self._head[wanted:]
            return part
        return self._stream.read(1 << 20 if size < 0 else size)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        part = self.read(len(view))
        view[: len(part)] = part
        return len(part)


class Decompressed:
    """The content of a stream that may be compressed; plain ones pass through. One thread."""

    def __init__(self, stream: Source) -> None:
        head = b""
        while len(head) < _HEAD_BYTES and (part := stream.read(_HEAD_BYTES - len(head))):
            head += part
        for magic, (name, command) in _OTHERS.items():
            if head.startswith(magic):
                raise BadArchive(
                    f"This is a {name} file; unpack it first, with `{command}`.",
                    path=None,
                    reason="compression",
                )
        source = _Peeked(head, stream)
        self._given = False
        self._failures: tuple[type[Exception], ...] = ()
        self._stream: Source | IO[bytes] = source
        if head.startswith(_GZIP):
            self._failures = (EOFError, gzip.BadGzipFile, zlib.error)
            self._stream = gzip.GzipFile(fileobj=source, mode="rb")
        elif head.startswith(_ZSTD):
            import zstandard

            self._failures = (zstandard.ZstdError,)
            bounded = zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG_MAX)
            self._stream = bounded.stream_reader(
                cast("IO[bytes]", source), read_across_frames=True, closefd=False
            )

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end. Raises `BadArchive`."""
        try:
            part = self._stream.read(size)
        except self._failures as error:
            raise _damaged(str(error)) from error
        if not part and size and not self._given and self._failures:
            # The zstd reader takes a frame that is cut short for one that is over.
            raise _damaged("it holds nothing")
        self._given = True
        return part


def _damaged(detail: str) -> BadArchive:
    return BadArchive(
        f"The compressed stream is damaged or ends too early: {detail}.",
        path=None,
        reason="compression",
    )
