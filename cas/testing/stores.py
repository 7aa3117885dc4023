"""Stores put together from parts, so that a test can pass its own clock, files, VFS and limits.

Invariant: what is built here is what `cas.open` builds, from the same rooms; only the outermost
calls (time, randomness, the operating system) and the moments of tidying up are the caller's.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import apsw

from cas import assembly
from cas.catalog.catalog import Catalog
from cas.catalog.engine import connect
from cas.catalog.postgres import open_postgres
from cas.catalog.postgres_place import is_postgres, parse
from cas.catalog.sqlite import open_catalog
from cas.catalog.trim import Trims
from cas.clock import Clock
from cas.errors import CasError
from cas.history.store import Store
from cas.limits import KIB, MIB, THRESHOLDS, Thresholds
from cas.maintenance import hosted, newstore
from cas.maintenance.newstore import new_meta
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket
from cas.storage.files import OS_FILES, Files
from cas.storage.place import bucket_at, bucket_in

SMALL: Final = Thresholds(
    pack_bytes=128 * KIB,
    spill_packs=6,
    spill_bytes=1 * MIB,
    spill_small_pack_bytes=256 * KIB,
    checkpoint_entries=3,
    checkpoint_bytes=64 * KIB,
    mirror_entries=4,
    mirror_bytes=64 * KIB,
    direct_bytes=8 * KIB,
    dictionary_samples_bytes=32 * KIB,
    dictionary_batch_bytes=64 * KIB,
    journal_rows=1,
    archive_entries=1,
)
"""Thresholds that a handful of steps crosses."""


class SteppedClock:
    """A clock that moves by itself and draws from a seed: equal seeds, equal bytes. One thread.

    Two openings of one store need different seeds, or they would draw the same pack names.
    """

    def __init__(self, seed: int | str, start_us: int = 1_800_000_000_000_000) -> None:
        self._random = random.Random(f"clock {seed}")
        self._wall_us = start_us

    def wall_us(self) -> int:
        self._wall_us += 1_000
        return self._wall_us

    def monotonic_ms(self) -> float:
        return self._wall_us / 1_000

    def sleep_ms(self, duration_ms: float) -> None:
        self._wall_us += int(duration_ms * 1_000)

    def random(self, count: int) -> bytes:
        return self._random.randbytes(count)


def create(folder: str, *, clock: Clock, files: Files = OS_FILES, vfs: str | None = None) -> bool:
    """Make the folder of a store where there is none, as `cas.init` does; or a store at a URL."""
    if is_postgres(folder):
        return hosted.make_hosted(parse(folder), None, new_meta(clock, True, True), clock)
    return newstore.build(folder, clock, files=files, vfs=vfs)


def build(
    folder: str,
    *,
    clock: Clock,
    files: Files = OS_FILES,
    vfs: str | None = None,
    thresholds: Thresholds = THRESHOLDS,
    cached: bool = False,
) -> Store:
    """Open the store in a folder or at a URL, as `cas.open` does.

    `cached` keeps index runs and hot ranges in files, those of a URL below `CAS_CACHE`.
    """
    cache = os.path.join(folder, assembly.CACHE) if cached else None
    if cache is not None and is_postgres(folder):
        cache = os.path.join(assembly.cache_root() or "", parse(folder).store)
        os.makedirs(cache, exist_ok=True)
    catalog, bucket = parts(folder, clock, files=files, vfs=vfs, cache=cache)
    objects = ObjectStore(catalog, bucket, clock, cache, thresholds=thresholds)
    return assembly.assemble(objects, folder)


def parts(
    folder: str,
    clock: Clock,
    *,
    files: Files = OS_FILES,
    vfs: str | None = None,
    cache: str | None = None,
) -> tuple[Catalog, Bucket]:
    """The catalog and the bucket of a store in a folder, or at a URL that names its bucket.

    `cache` is the folder for caches of a store at a URL.
    """
    if is_postgres(folder):
        place = parse(folder)
        assert place.bucket is not None
        return open_postgres(place), bucket_at(place.bucket, clock, cache, files)
    catalog = open_catalog(
        os.path.join(folder, assembly.CATALOG),
        os.path.join(folder, assembly.LOCKS),
        vfs=vfs,
        # Tests write to copies and to images of crashed folders all the time.
        anywhere=True,
    )
    return catalog, bucket_in(folder, clock, files)


def copy_the_log(store: Store, vfs: str | None) -> None:
    """What SQLite does by itself behind many commits; where a call fails, or it is busy, nothing
    is done.
    """
    with suppress(apsw.Error):
        connection = connect(os.path.join(store.location, assembly.CATALOG), vfs=vfs)
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            connection.close(True)


def cut_the_log(store: Store) -> None:
    """Cut the log; where a call fails it stays as it is."""
    catalog = store.objects.catalog
    assert isinstance(catalog, Trims)
    with suppress(CasError):
        catalog.trim()


class Template:
    """A folder as it stands, to be laid out anew again and again. Any thread.

    A store that was made and filled once is there in a third of the time that copying its folder
    takes; who writes to one has not written to the next.
    """

    def __init__(self, folder: str) -> None:
        self._folders: list[str] = []
        self._files: list[tuple[str, bytes]] = []
        for place, _folders, names in os.walk(folder):
            below = os.path.relpath(place, folder)
            self._folders.append("" if below == "." else below)
            for name in names:
                with open(os.path.join(place, name), "rb") as file:
                    self._files.append((os.path.normpath(os.path.join(below, name)), file.read()))

    def lay_out(self, place: str) -> None:
        """Make the folder at a place where nothing is."""
        for name in self._folders:
            os.mkdir(os.path.join(place, name))
        for name, content in self._files:
            with open(os.path.join(place, name), "xb", buffering=0) as file:
                file.write(content)


@contextmanager
def scratch() -> Iterator[str]:
    """A folder that is gone afterwards, in memory where the host has such a file system."""
    memory = "/dev/shm"
    usable = os.path.isdir(memory) and os.access(memory, os.W_OK)
    folder = tempfile.mkdtemp(prefix="cas-test-", dir=memory if usable else None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
