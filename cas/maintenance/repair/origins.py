"""Where a repair may take bytes from: another store, a backup, or a folder with files.

Floor 5. Invariant: an origin is read and never written, and what it gives is compared with the id
that was asked for by whoever asks.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Protocol

from cas.clock import Clock
from cas.errors import CasError, PathNotFound
from cas.history.store import Store
from cas.limits import STRUCTURED_BYTES_MAX, WHOLE_BLOB_BYTES_MAX
from cas.maintenance.backups.refill import rebuilt
from cas.maintenance.backups.restore import choose
from cas.maintenance.backups.vault import INCREMENTS, PACKS, open_vault
from cas.maintenance.folder import CATALOG
from cas.model.ids import Kind, digest_parts
from cas.objects.content import cut
from cas.storage.bucket import Bucket
from cas.storage.local import LocalBucket
from cas.storage.place import bucket_in

_PIECE_BYTES = 1 << 20


class Origin(Protocol):
    """One place that may have what is missing."""

    @property
    def label(self) -> str:
        """What a report calls it."""

    @property
    def packs(self) -> Bucket | None:
        """Its pack files, where it is a store."""

    def read(self, id: bytes) -> tuple[int, bytes] | None:
        """(kind, content) of an object, or None."""

    def close(self) -> None:
        """Give up what is open."""


class StoreOrigin:
    """Another store: a backup, a copy, or any that holds the same content."""

    def __init__(self, path: str, store: Store, clock: Clock) -> None:
        self.label = path
        self._store = store
        self._packs = bucket_in(path, clock)

    @property
    def packs(self) -> Bucket | None:
        """Its pack files."""
        return self._packs

    def read(self, id: bytes) -> tuple[int, bytes] | None:
        """The object, verified."""
        with suppress(CasError):
            return self._store.objects.read(id)
        return None

    def close(self) -> None:
        """Give up its handle."""
        self._packs.close()
        self._store.close()


class BackupOrigin:
    """A backup: its pack files, and what the newest of its positions that can be read has, by a
    catalog in a scratch folder.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self.label = path
        with ExitStack() as stack:
            vault = stack.enter_context(open_vault(path, clock))
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="cas-repair-"))
            image = choose(vault, accept_damage=True)
            self._objects = stack.enter_context(rebuilt(image, scratch, clock))
            self._packs = vault.packs
            self._stack = stack.pop_all()

    @property
    def packs(self) -> Bucket | None:
        """Its pack files, those of older positions too."""
        return self._packs

    def read(self, id: bytes) -> tuple[int, bytes] | None:
        """The object, verified."""
        with suppress(CasError):
            return self._objects.read(id)
        return None

    def close(self) -> None:
        """Give up its handle, and the scratch folder."""
        self._stack.close()


class FileOrigin:
    """A folder, or one file: pack files by name where they lie in it, blobs by the hash of whole
    files, and of the chunks of large ones.

    All is read once, when the first object is asked for.
    """

    packs: Bucket | None = None

    def __init__(self, path: str, clock: Clock) -> None:
        self.label = path
        if os.path.isdir(path):
            self.packs = LocalBucket(path, clock)
        self._path = path
        # id -> (path, offset, bytes).
        self._known: dict[bytes, tuple[str, int, int]] | None = None

    def read(self, id: bytes) -> tuple[int, bytes] | None:
        """The blob, as the file gives it now."""
        if self._known is None:
            self._known = {}
            self._walk()
        place = self._known.get(id)
        if place is None:
            return None
        path, offset, length = place
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return int(Kind.BLOB), file.read(length)
        except OSError:
            return None

    def _walk(self) -> None:
        if os.path.isfile(self._path):
            self._take(self._path)
            return
        for top, folders, names in os.walk(self._path):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(top, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    self._take(path)

    def _take(self, path: str) -> None:
        assert self._known is not None
        known = self._known
        try:
            size = os.path.getsize(path)
            with open(path, "rb") as file:
                if size <= STRUCTURED_BYTES_MAX:
                    data = file.read()
                    known.setdefault(digest_parts((data,)), (path, 0, len(data)))
                    file.seek(0)
                if size > WHOLE_BLOB_BYTES_MAX:
                    at = 0
                    for chunk in cut(file):
                        known.setdefault(digest_parts((chunk,)), (path, at, len(chunk)))
                        at += len(chunk)
        except OSError:
            return

    def close(self) -> None:
        """Give up what is open."""
        if self.packs is not None:
            self.packs.close()


def origin_at(path: str, clock: Clock, open_store: Callable[[str], Store]) -> Origin:
    """The origin at a path: a store where there is one, a backup, else a folder or file.

    Raises `PathNotFound`, what `open_store` raises, and what opening a backup raises.
    """
    path = os.path.abspath(path)
    if os.path.exists(os.path.join(path, CATALOG)):
        return StoreOrigin(path, open_store(path), clock)
    if os.path.isdir(os.path.join(path, INCREMENTS)) and os.path.isdir(os.path.join(path, PACKS)):
        return BackupOrigin(path, clock)
    if os.path.exists(path):
        return FileOrigin(path, clock)
    raise PathNotFound(f"There is nothing at {path} to take bytes from.", path=path)
