"""The zip format, written only: uncompressed, so that no library decides about the bytes.

Floor 5. Invariant: the archive depends on names, kinds and contents of its members and on nothing
else; sizes and sums stand before each content, so that it can be read as a stream.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from cas.model.objects import EntryKind

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64: Final = struct.Struct("<4sIQI")
_END: Final = struct.Struct("<4s4H2IH")
_MAX32: Final = 0xFFFFFFFF
_MAX16: Final = 0xFFFF
_UTF8: Final = 1 << 11
_DATE: Final = 0x21  # 1980-01-01, the first day there is
_MODES: Final = {
    EntryKind.FILE: stat.S_IFREG | 0o644,
    EntryKind.EXECUTABLE: stat.S_IFREG | 0o755,
    EntryKind.LINK: stat.S_IFLNK | 0o777,
    EntryKind.TREE: stat.S_IFDIR | 0o755,
}


class ZipWriter:
    """Bytes of an archive, member by member; `end` gives the directory."""

    def __init__(self) -> None:
        self._at = 0
        self._count = 0
        self._directory: list[bytes] = []

    def member(
        self, path: bytes, kind: EntryKind, size_bytes: int, parts: Callable[[], Iterator[bytes]]
    ) -> Iterator[bytes]:
        """The bytes of one member. `parts` gives its content, and is called twice."""
        name = path + b"/" if kind == EntryKind.TREE else path
        crc = 0
        for part in parts():
            crc = zlib.crc32(part, crc)
        flags = 0
        if not name.isascii():
            try:
                name.decode("utf-8")
                flags = _UTF8
            except UnicodeDecodeError:
                pass  # bytes as they are, as programs wrote them before there was a flag
        yield self._local(name, flags, crc, size_bytes)
        self._note(name, kind, flags, crc, size_bytes)
        self._at += size_bytes
        yield from parts()

    def _local(self, name: bytes, flags: int, crc: int, size_bytes: int) -> bytes:
        extra, size = b"", size_bytes
        if size_bytes >= _MAX32:
            extra, size = struct.pack("<2H2Q", 1, 16, size_bytes, size_bytes), _MAX32
        version = 45 if extra else 20
        head = _LOCAL.pack(
            b"PK\3\4", version, flags, 0, 0, _DATE, crc, size, size, len(name), len(extra)
        )
        self._start = self._at
        self._at += len(head) + len(name) + len(extra)
        return head + name + extra

    def _note(self, name: bytes, kind: EntryKind, flags: int, crc: int, size_bytes: int) -> None:
        large = b""
        size, start = size_bytes, self._start
        if size_bytes >= _MAX32:
            large += struct.pack("<2Q", size_bytes, size_bytes)
            size = _MAX32
        if self._start >= _MAX32:
            large += struct.pack("<Q", self._start)
            start = _MAX32
        extra = struct.pack("<2H", 1, len(large)) + large if large else b""
        outside = _MODES[kind] << 16 | (0x10 if kind == EntryKind.TREE else 0)
        made, version = 3 << 8 | 45, 45 if extra else 20
        self._directory.append(
            _CENTRAL.pack(
                b"PK\1\2", made, version, flags, 0, 0, _DATE, crc, size, size,
                len(name), len(extra), 0, 0, 0, outside, start,
            )
            + name
            + extra
        )  # fmt: skip
        self._count += 1

    def end(self) -> Iterator[bytes]:
        """The directory of all members, and what leads to it."""
        size_bytes = sum(map(len, self._directory))
        start, count = self._at, self._count
        yield from self._directory
        if start >= _MAX32 or size_bytes >= _MAX32 or count >= _MAX16:
            yield _END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, size_bytes, start)
            yield _LOCATOR64.pack(b"PK\6\7", 0, start + size_bytes, 1)
        few = min(count, _MAX16)
        yield _END.pack(b"PK\5\6", 0, 0, few, few, min(size_bytes, _MAX32), min(start, _MAX32), 0)
