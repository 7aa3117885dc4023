"""Where the parts are put together: from a place to a store.

Floor 8, the only room that reads configuration. Invariant: a store folder appears whole or not
at all, however many processes create it at once; nothing is created unless asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cas.catalog.adopt import adopt_catalog
from cas.catalog.sqlite import memory_catalog, open_catalog
from cas.clock import Clock, SystemClock
from cas.errors import NotAStore, StoreNotFound
from cas.history.later import Later
from cas.history.store import Store
from cas.maintenance.folder import CACHE as CACHE
from cas.maintenance.folder import CATALOG as CATALOG
from cas.maintenance.folder import LOCKS as LOCKS
from cas.maintenance.folder import PACKS as PACKS
from cas.maintenance.newstore import build as build
from cas.maintenance.newstore import new_meta
from cas.objects.store import ObjectStore
from cas.storage.local import LocalBucket
from cas.storage.memory import MemoryBucket

if TYPE_CHECKING:
    from cas.history.core import Core
    from cas.history.upkeep import GcPlan, GcResult
    from cas.maintenance import gc
    from cas.maintenance.gc import Collector
else:
    gc = Later("cas.maintenance.gc")

STORE_FOLDER: Final = ".cas"


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    read_only: bool = False,
    deltas: bool = True,
    clock: Clock | None = None,
) -> Store:
    """Open the store in a folder; `create=True` makes it when there is none.

    `deltas` is for a store that is made here: whether objects may be stored as deltas of older
    versions. It is written down in the store and holds for good.

    `":memory:"` gives a store that lives as long as its handle. Raises `StoreNotFound`,
    `NotAStore`, `NewerFormat`, `UnsafeFilesystem`, `UnsafeEngine`, `ReadOnly`, `Corrupt`, and,
    unless `read_only`, `StoreMoved` for a folder that was copied or moved: `adopt` settles it.
    """
    clock = clock or SystemClock()
    place = os.fspath(path)
    if place == ":memory:":
        meta = new_meta(clock, deltas)
        catalog = memory_catalog(meta, meta.store_id.hex())
        return assemble(ObjectStore(catalog, MemoryBucket(), clock), place)
    folder = os.path.abspath(place)
    if not os.path.exists(os.path.join(folder, CATALOG)):
        if not create or read_only:
            raise _no_store(folder)
        init(folder, deltas=deltas, clock=clock)
    catalog = open_catalog(
        os.path.join(folder, CATALOG), os.path.join(folder, LOCKS), read_only=read_only
    )
    bucket = LocalBucket(os.path.join(folder, PACKS), clock)
    cache = os.path.join(folder, CACHE)
    return assemble(ObjectStore(catalog, bucket, clock, cache), folder)


def assemble(objects: ObjectStore, location: str) -> Store:
    """The handle over objects, with those who look after it."""
    return Store(objects, location, LaterUpkeep(objects))


class LaterUpkeep:
    """Upkeep that is loaded when it is first asked for: few programs collect."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._collector: Collector | None = None

    def _load(self) -> Collector:
        if self._collector is None:
            self._collector = gc.Collector(self._objects)
        return self._collector

    def plan_gc(self, core: Core, grace_us: int) -> GcPlan:
        """`Collector.plan_gc`."""
        return self._load().plan_gc(core, grace_us)

    def collect(
        self, core: Core, grace_us: int, plan: GcPlan | None, mirror: Callable[[], int]
    ) -> GcResult:
        """`Collector.collect`."""
        return self._load().collect(core, grace_us, plan, mirror)


def _no_store(folder: str) -> StoreNotFound | NotAStore:
    if os.path.isdir(folder) and os.listdir(folder):
        return NotAStore(
            f"{folder} is not a store; make one elsewhere with `cas init PATH`.", path=folder
        )
    return StoreNotFound(
        f"There is no store at {folder}; make one with `cas init {folder}`.", path=folder
    )


def init(path: str | os.PathLike[str], *, deltas: bool = True, clock: Clock | None = None) -> bool:
    """Make a store in a folder that is missing or empty; False when there is one already.

    Atomic and idempotent: it is built beside its place and renamed into it, so of many that
    try at once one makes it and the others find it. Raises `NotAStore`, `UnsafeFilesystem`.
    """
    folder = os.path.abspath(os.fspath(path))
    if os.path.exists(os.path.join(folder, CATALOG)):
        open(folder, read_only=True).close()
        return False
    return build(folder, clock or SystemClock(), deltas=deltas)


def adopt(path: str | os.PathLike[str], *, fork: bool, clock: Clock | None = None) -> bool:
    """Settle a store folder that was copied or moved, which `open` refuses with `StoreMoved`.

    `fork=False`: the store goes on here, and nowhere else; it keeps its lineage. `fork=True`: it
    is a copy, and the original may go on as well; it begins a lineage of its own, and sessions
    that were copied with it are fenced off. False when the folder lies where it is recorded:
    nothing changes then, so that it may be called again after a crash. It is for people or
    deployments to say which it is; a program that calls this whenever `open` refuses has no
    protection left. Raises what `open` does.
    """
    folder = os.path.abspath(os.fspath(path))
    catalog = os.path.join(folder, CATALOG)
    if not os.path.exists(catalog):
        raise _no_store(folder)
    lineage_id = (clock or SystemClock()).random(16) if fork else None
    return adopt_catalog(catalog, os.path.join(folder, LOCKS), lineage_id)


def discover(start: str, environ: str | None) -> str:
    """The store of a command line: `environ` (CAS_STORE), else the nearest `.cas` upwards.

    Raises `StoreNotFound` with the three ways to name one.
    """
    if environ:
        return environ
    folder = os.path.abspath(start)
    while True:
        candidate = os.path.join(folder, STORE_FOLDER)
        if os.path.exists(os.path.join(candidate, CATALOG)):
            return candidate
        above = os.path.dirname(folder)
        if above == folder:
            raise StoreNotFound(
                "No store was named and there is no .cas folder here or above. Make one with "
                "`cas init`, or name one with --store or CAS_STORE.",
                path=start,
            )
        folder = above
