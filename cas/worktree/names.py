"""Names that need care in a folder: those of stores, and those that a file system takes for one.

Floor 5. Invariant: whatever any of the file systems of Linux, macOS and Windows would take for
the folder of a store is one here, on every system.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Final

from cas.model.names import to_text

STORE_FOLDER: Final = b".cas"
MARKER: Final = b".cas-checkout"
"""The file in a folder that says which checkout it is."""

_LEFTOVER: Final = b".cas-restore-"
_LEFTOVER_BYTES: Final = len(_LEFTOVER) + 16

_STORE_NAME: Final = re.compile(rb"\.cas(?:-checkout)?[. ]*|cas~[0-9]+", re.IGNORECASE)
_CATALOG: Final = b"catalog.sqlite"
_PACKS: Final = b"packs"
_LOCKS: Final = b"locks"

# Code points that HFS+ leaves out when it compares names.
_IGNORABLE: Final = dict.fromkeys(
    (*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF)
)


def is_store_name(name: bytes) -> bool:
    """Whether a name is `.cas`, or that of a checkout's marker, to some file system.

    NTFS drops dots and spaces at the end and gives short names, HFS+ passes over code points.
    """
    if name.isascii():
        return _STORE_NAME.fullmatch(name) is not None
    text = fold(name).translate(_IGNORABLE)
    return _STORE_NAME.fullmatch(text.encode("utf-8", "surrogateescape")) is not None


def unfinished(token: bytes) -> bytes:
    """Name of what a restore has not finished yet; `token` is 8 random bytes."""
    return _LEFTOVER + token.hex().encode()


def is_unfinished(name: bytes) -> bool:
    """Whether a name is one of `unfinished`: what a restore that was killed has left."""
    return name.startswith(_LEFTOVER) and len(name) == _LEFTOVER_BYTES


def is_left_out(name: bytes) -> bool:
    """Whether a name is no part of anybody's work: that of a store, or `unfinished`."""
    return is_store_name(name) or is_unfinished(name)


def is_store(names: Collection[bytes]) -> bool:
    """Whether a directory with these names in it is the folder of a store."""
    return _CATALOG in names and _PACKS in names and _LOCKS in names


def fold(name: bytes) -> str:
    """What names share that a file system without case or normal form takes for one."""
    if name.isascii():
        return name.lower().decode()
    return unicodedata.normalize("NFC", to_text(name).casefold())


def find_twins(names: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Pairs of names of one directory that differ only by case or normal form."""
    joined = b"/".join(names)
    if joined.isascii() and len(set(joined.lower().split(b"/"))) == len(names):
        return []
    seen: dict[str, bytes] = {}
    twins = []
    for name in names:
        other = seen.setdefault(fold(name), name)
        if other is not name:
            twins.append((other, name))
    return twins


def merges(folder: bytes, token: bytes) -> bool:
    """Whether the file system of a folder (or of the nearest one above) takes such names for one.

    Tried with an empty file, named with `token` (random bytes), that is removed again. Where
    that is impossible the answer is yes: two names are not risked.
    """
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    stem = f".cas-probe-{token.hex()}-a\u00e9"
    probe = os.path.join(folder, os.fsencode(stem))
    others = [os.fsencode(other) for other in (stem.upper(), f"{stem[:-1]}e\u0301")]
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return True
    try:
        return any(os.path.lexists(os.path.join(folder, other)) for other in others)
    finally:
        os.unlink(probe)
