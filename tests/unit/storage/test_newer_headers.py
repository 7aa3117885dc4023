"""The header of a pack from a later version is told from a damaged one."""

from __future__ import annotations

import zlib

import pytest

from cas.errors import CorruptPack, NewerFormat
from cas.storage.header import PACK_HEADER_BYTES, PackHeader, decode_header


def _header(version: int, reserved: int) -> bytes:
    data = bytearray(PackHeader(bytes(16), bytes(16), bytes(16), 1).encode())
    data[8:10] = version.to_bytes(2, "little")
    data[12:16] = reserved.to_bytes(4, "little")
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    assert len(data) == PACK_HEADER_BYTES
    return bytes(data)


def test_what_a_later_version_puts_into_reserved_bytes_is_newer_not_damaged() -> None:
    """Version 2 with reserved bytes in use asks for an update; version 1 with them is damage."""
    with pytest.raises(NewerFormat):
        decode_header(_header(2, 7), "p")
    with pytest.raises(CorruptPack):
        decode_header(_header(1, 7), "p")
