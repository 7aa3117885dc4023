"""What of a crashed folder a store can see at all: one key for all images that show the same.

Invariant: two images have equal keys only if SQLite, having read the log as it does at every open,
gives the same pages of the catalog, and all other files are equal byte by byte. A store reads
through nothing else, so what it shows of one image it shows of the other. Where the engine
refuses, there is no key.

This is what makes states cheap: a log that ends in one torn frame or in another is another state,
opened and read by the real SQLite, but most of them show what one before has shown.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

import apsw
from blake3 import blake3

from cas.testing.recorder import Image

_NOISE_BYTES: Final = 32 * 1024
_BLOCK_BYTES: Final = 16 * 1024


def shown_in(folder: str, packs: str) -> bytes:
    """The key of what a store that stands in a folder shows now, while it is open elsewhere."""
    connection = apsw.Connection(
        os.path.join(folder, "catalog.sqlite"), flags=apsw.SQLITE_OPEN_READWRITE
    )
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        digest = blake3(connection.serialize("main"))
    finally:
        connection.close(True)
    for name in sorted(os.listdir(packs)):
        with open(os.path.join(packs, name), "rb") as file:
            digest.update(name.encode() + blake3(file.read()).digest())
    return digest.digest()


class Stage:
    """A folder in which one image after another is laid out; only what differs is written."""

    def __init__(self, folder: str, place: str) -> None:
        """`place` is where in the image the store lies."""
        self._folder = folder
        self._catalog = os.path.join(place, "catalog.sqlite") if place else "catalog.sqlite"
        self._there: dict[str, bytes | None] = {}
        self._digests: dict[str, tuple[bytes, bytes]] = {}

    def shown(self, image: Image, noise: bytes | None = None) -> bytes | None:
        """The key of what a store can see of this image. `noise` lies where SQLite's shared
        memory does, as what an earlier process left there.
        """
        wanted: dict[str, bytes | None] = {
            path: None if number in image.folders else image.files.get(number, b"")
            for path, number in image.walk()
        }
        self._lay_out(wanted)
        pages = self._pages(noise) if self._catalog in wanted else b""
        if self._catalog + "-journal" in wanted:
            # It was rolled back.
            for path in [path for path in self._there if path.startswith(self._catalog)]:
                del self._there[path]
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._folder, path))
        if pages is None:
            return None
        digest = blake3(pages)
        for path, content in wanted.items():
            if not pages or not path.startswith(self._catalog):
                digest.update(b"%d %s " % (len(path), path.encode()))
                digest.update(b"folder" if content is None else self._digest(path, content))
        return digest.digest()

    def _lay_out(self, wanted: dict[str, bytes | None]) -> None:
        for path in sorted(self._there.keys() - wanted.keys(), reverse=True):
            if self._there.pop(path) is None:
                os.rmdir(os.path.join(self._folder, path))
            else:
                os.unlink(os.path.join(self._folder, path))
        for path, content in wanted.items():
            if path in self._there and (content is self._there[path] or content is None):
                continue
            if content is None:
                os.mkdir(os.path.join(self._folder, path))
            elif content != self._there.get(path):
                _write(os.path.join(self._folder, path), self._there.get(path), content)
            self._there[path] = content

    def _pages(self, noise: bytes | None) -> bytes | None:
        """The catalog as SQLite reads it, its log included; that changes neither of the two."""
        path = os.path.join(self._folder, self._catalog)
        if noise is not None:
            with open(path + "-shm", "wb", buffering=0) as file:
                file.write((noise * (_NOISE_BYTES // len(noise) + 1))[:_NOISE_BYTES])
        try:
            connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                if noise is None:
                    # The index of the log is then made in memory, from the same log.
                    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                return connection.serialize("main")
            finally:
                connection.close(True)
        except apsw.Error:
            return None
        finally:
            for suffix in ("-shm", "-wal"):
                if self._catalog + suffix not in self._there:
                    with suppress(FileNotFoundError):
                        os.unlink(path + suffix)

    def _digest(self, path: str, content: bytes) -> bytes:
        known = self._digests.get(path)
        if known is None or known[0] is not content:
            known = self._digests[path] = (content, blake3(content).digest())
        return known[1]


def _write(path: str, before: bytes | None, content: bytes) -> None:
    """Make a file hold `content`, of which it holds `before`: mostly they begin alike."""
    if before is None:
        with open(path, "xb", buffering=0) as file:
            file.write(content)
        return
    at = 0
    while content[at : at + _BLOCK_BYTES] == before[at : at + _BLOCK_BYTES] != b"":
        at += _BLOCK_BYTES
    with open(path, "r+b", buffering=0) as file:
        file.seek(at)
        file.write(memoryview(content)[at:])
        file.truncate(len(content))
