"""Where the parts are put together: from a place to a store.

Floor 8, the only room that reads configuration. Invariant: a store folder appears whole or not
at all, however many processes create it at once; nothing is created unless asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cas.catalog.sqlite import memory_catalog, open_catalog
from cas.clock import Clock, SystemClock
from cas.errors import (
    Invalid,
    NotAllowed,
    NotAStore,
    StorageFull,
    StoreNotFound,
    Unsupported,
)
from cas.history.store import Store
from cas.later import Later
from cas.maintenance.folder import CACHE as CACHE
from cas.maintenance.folder import CATALOG as CATALOG
from cas.maintenance.folder import LOCKS as LOCKS
from cas.maintenance.folder import PACKS as PACKS
from cas.maintenance.folder import has_catalog, is_bereft, no_store
from cas.model.names import STORE_FOLDER as STORE_FOLDER
from cas.objects.store import ObjectStore
from cas.storage.place import address_in, bucket_in, folder_of
from cas.storage.reserve import Reserve

if TYPE_CHECKING:
    import tomllib

    from cas.catalog import adopt as adopting
    from cas.catalog import postgres_place as servers
    from cas.history.core import Core
    from cas.history.retain import RetentionPlan
    from cas.history.upkeep import BackupReport, Chore, GcPlan, GcResult, MaintenanceReport
    from cas.maintenance import hosted, newstore
    from cas.maintenance import maintain as maintaining
    from cas.maintenance.backups import make as backups
    from cas.maintenance.findings import OnProgress
    from cas.maintenance.gc import collect as gc
    from cas.maintenance.gc.collect import Collector
    from cas.maintenance.repair import plan as repairs
    from cas.maintenance.repair import salvage as salvages
    from cas.maintenance.repair.plan import RepairPlan
    from cas.maintenance.repair.salvage import SalvageReport
    from cas.storage import memory, remote
else:
    # Who opens a store that is there has no need of them.
    adopting = Later("cas.catalog.adopt")
    backups = Later("cas.maintenance.backups.make")
    gc = Later("cas.maintenance.gc.collect")
    hosted = Later("cas.maintenance.hosted")
    maintaining = Later("cas.maintenance.maintain")
    memory = Later("cas.storage.memory")
    newstore = Later("cas.maintenance.newstore")
    repairs = Later("cas.maintenance.repair.plan")
    salvages = Later("cas.maintenance.repair.salvage")
    remote = Later("cas.storage.remote")
    servers = Later("cas.catalog.postgres_place")
    tomllib = Later("tomllib")


_NAMING_BYTES_MAX = 4096
"""Of a file that names a store."""


def is_hosted(place: str) -> bool:
    """Whether a place is a server's."""
    return "://" in place and servers.is_postgres(place)


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    read_only: bool = False,
    deltas: bool = True,
    dictionaries: bool = True,
    bucket: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
) -> Store:
    """Open the store in a folder, or on a server; `create=True` makes it when there is none.

    `"postgresql://USER@HOST/DATABASE?store=NAME"` is a store whose catalog is in that database
    (docs/how-to/postgres.md).

    `bucket` is where the packs of a store that is made here lie: `s3://BUCKET/PREFIX`, a prefix
    of its own, or for a store on a server also a folder. The store remembers it; who names it
    again says that it is this one, and of a folder, where it is found from here.

    `deltas` and `dictionaries` are for a store that is made here: whether objects may be stored
    as deltas of older versions, and small ones beside a dictionary made of others, which holds
    parts of them. Both are written down in the store and hold for good.

    `":memory:"` gives a store that lives as long as its handle. Raises `StoreNotFound`,
    `NotAStore`, `NewerFormat`, `UnsafeFilesystem`, `UnsafeEngine`, `ReadOnly`, `Corrupt`,
    `Unsupported` and `AccessDenied` for a bucket, what `init` raises, and, unless `read_only`,
    `StoreMoved` for a folder that was copied or moved: `adopt` settles it.
    """
    clock = clock or SystemClock()
    place = os.fsdecode(path)
    if place == ":memory:":
        meta = newstore.new_meta(clock, deltas, dictionaries)
        catalog = memory_catalog(meta, meta.store_id.hex())
        return assemble(ObjectStore(catalog, memory.MemoryBucket(), clock), place)
    where = None if bucket is None else os.fspath(bucket)
    if is_hosted(place):
        server = hosted.parse_hosted(place)
        try:
            objects = hosted.open_hosted(server, where, clock, read_only, cache_root())
        except (StoreNotFound, NotAStore):
            if not create or read_only:
                raise
            hosted.make_hosted(server, where, newstore.new_meta(clock, deltas, dictionaries), clock)
            objects = hosted.open_hosted(server, where, clock, read_only, cache_root())
        return assemble(objects, server.shown)
    folder = folder_of(place, "A store")
    if not has_catalog(folder):
        if not create or read_only or is_bereft(folder):
            raise no_store(folder)
        init(folder, deltas=deltas, dictionaries=dictionaries, bucket=where, clock=clock)
    if where is not None:
        _refuse_other_bucket(folder, where)
    cache = os.path.join(folder, CACHE)
    files = os.path.join(folder, CATALOG), os.path.join(folder, LOCKS)
    try:
        catalog = open_catalog(*files, read_only=read_only)
    except StorageFull:
        # Where the disk is full a store can be read and collected all the same.
        if not Reserve(cache).lend():
            raise
        catalog = open_catalog(*files, read_only=read_only)
    try:
        packs = bucket_in(folder, clock)
    except BaseException:
        catalog.close()
        raise
    return assemble(ObjectStore(catalog, packs, clock, cache), folder)


def _refuse_other_bucket(folder: str, bucket: str) -> None:
    """Raise `Invalid` unless the packs of the store in a folder lie in this bucket."""
    there = address_in(folder)
    if there is None or remote.parse_address(bucket).label != remote.parse_address(there).label:
        raise Invalid(
            f"The packs of the store at {folder} lie in {there or 'the folder itself'}; where they "
            "lie is settled when a store is made. Copy it to have them elsewhere."
        )


def shown_place(place: str) -> str:
    """How a place is shown: a folder by its whole path, a URL without what may be secret."""
    return hosted.parse_hosted(place).shown if is_hosted(place) else os.path.abspath(place)


def cache_root() -> str | None:
    """The folder for caches of stores that have no folder of their own, as the environment says.

    Everything in it may be deleted at any time. None where there is no home to keep it in.
    """
    named = os.environ.get("CAS_CACHE")
    if named:
        return os.path.abspath(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "cas") if os.path.isabs(base) else None


def assemble(objects: ObjectStore, location: str) -> Store:
    """The handle over objects, with those who look after it."""
    return Store(objects, location, LaterUpkeep(objects, location))


class LaterUpkeep:
    """Upkeep that is loaded when it is first asked for: few programs collect."""

    def __init__(self, objects: ObjectStore, location: str) -> None:
        self._objects = objects
        self._location = location
        self._collector: Collector | None = None

    def _load(self) -> Collector:
        if self._collector is None:
            self._collector = gc.Collector(self._objects)
        return self._collector

    def backup(self, store: object, place: str, accept_damage: bool) -> BackupReport:
        """Into a folder."""
        assert isinstance(store, Store)
        return backups.backup(
            self._objects,
            self._location,
            place,
            stones=store.purged,
            accept_damage=accept_damage,
        )

    def plan_maintenance(self, store: object) -> tuple[Chore, ...]:
        """`Maintenance.plan`."""
        assert isinstance(store, Store)
        return maintaining.Maintenance(store, self._load()).plan()

    def maintain(
        self, store: object, budget_ms: float, stopping: Callable[[], bool] | None
    ) -> MaintenanceReport:
        """`Maintenance.run`."""
        assert isinstance(store, Store)
        return maintaining.Maintenance(store, self._load()).run(budget_ms, stopping)

    def plan_gc(self, core: Core, grace_us: int, full: bool, after: RetentionPlan | None) -> GcPlan:
        """`Collector.plan_gc`."""
        return self._load().plan_gc(core, grace_us, full, after)

    def collect(
        self,
        core: Core,
        grace_us: int,
        plan: GcPlan | None,
        mirror: Callable[[], int],
        full: bool,
    ) -> GcResult:
        """`Collector.collect`."""
        return self._load().collect(core, grace_us, plan, mirror, full)


def plan_repair(
    path: str | os.PathLike[str],
    *,
    sources: Iterable[str | os.PathLike[str]] = (),
    prefer: str = "",
    upto: int | None = None,
    keep_loose: bool | None = None,
    accept_loss: bool = False,
    rebuild: bool = False,
    clock: Clock | None = None,
    progress: OnProgress = None,
) -> RepairPlan:
    """What is wrong with the store in a folder, and what a repair would do; `apply` does it.

    Where the catalog is missing, damaged or an old one, it is made again from the packs and from
    what can be read of it; `rebuild` asks for that. Else damaged packs and objects are made good:
    from other copies, and from `sources`, stores or folders that may have the bytes.

    Where packs hold journals that disagree, `prefer` names the hash of the newest entry of the
    right one. `upto` ends the journal at an earlier entry. `keep_loose`: whether a rebuild keeps
    objects that no entry leads to; where a lost catalog leaves that open, and it is None, the plan
    is blocked. `accept_loss`: whether it goes on when something is lost for
    good, and keeps what can be read. Raises `StoreNotFound`, `NotAStore`, `NewerFormat`,
    `StorageFailed`.
    """
    _refuse_hosted(path, "is not repaired here; docs/how-to/postgres.md says what helps")
    wishes = repairs.Wishes(
        tuple(os.fspath(source) for source in sources),
        prefer,
        upto,
        keep_loose,
        accept_loss,
        rebuild or upto is not None,
    )
    return repairs.plan_repair(os.fspath(path), wishes, clock or SystemClock(), open, progress)


def salvage(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    prefer: str = "",
    clock: Clock | None = None,
) -> SalvageReport:
    """Copy everything that can be read of the store in a folder into a new store at `target`.

    The source is not changed. What could not be read stands in the report. `prefer` is that of
    `plan_repair`. Raises `StoreNotFound`, `NewerFormat`, `StorageFailed`, `CannotRepair`, and for
    `target` what `init` does.
    """
    _refuse_hosted(path, "is not salvaged: copy it with `cas copy`")
    return salvages.salvage(
        os.fspath(path), os.fspath(target), clock or SystemClock(), open, prefer=prefer
    )


def _refuse_hosted(path: str | os.PathLike[str], why: str) -> None:
    place = os.fspath(path)
    if is_hosted(place):
        raise Unsupported(f"The store at {hosted.parse_hosted(place).shown} {why}.")


def init(
    path: str | os.PathLike[str],
    *,
    deltas: bool = True,
    dictionaries: bool = True,
    bucket: str | os.PathLike[str] | None = None,
    clock: Clock | None = None,
) -> bool:
    """Make a store in a folder that is missing or empty; False when there is one already.

    `bucket` is a prefix of an object store for its packs, `s3://BUCKET/PREFIX`. The server is
    tried out first: one that overwrites what it was told not to is refused.
    Where `path` is a URL of PostgreSQL the store is made in that database, the schema with it
    where there is none or brought forward where it is older, and `bucket` is needed.

    Atomic and idempotent: it is built beside its place and renamed into it, so of many that
    try at once one makes it and the others find it. Raises `NotAStore`, `UnsafeFilesystem`, and
    for a bucket `UnsafeBucket`, `BucketTaken`, `AccessDenied`, `StorageFailed`, `Unsupported`.
    """
    clock = clock or SystemClock()
    where = None if bucket is None else os.fspath(bucket)
    if is_hosted(os.fspath(path)):
        server = hosted.parse_hosted(os.fspath(path))
        return hosted.make_hosted(
            server, where, newstore.new_meta(clock, deltas, dictionaries), clock
        )
    folder = folder_of(path, "A store")
    if os.path.exists(os.path.join(folder, CATALOG)):
        if where is not None:
            _refuse_other_bucket(folder, where)
        open(folder, read_only=True).close()
        return False
    if is_bereft(folder):
        raise no_store(folder)
    return newstore.build(folder, clock, deltas=deltas, dictionaries=dictionaries, bucket=where)


def adopt(path: str | os.PathLike[str], *, fork: bool, clock: Clock | None = None) -> bool:
    """Settle a store folder that was copied or moved, which `open` refuses with `StoreMoved`.

    `fork=False`: the store goes on here, and nowhere else; it keeps its lineage. `fork=True`: it
    is a copy, and the original may go on as well; it begins a lineage of its own, and sessions
    that were copied with it are fenced off. False when the folder lies where it is recorded:
    nothing changes then, so that it may be called again after a crash. It is for people or
    deployments to say which it is; a program that calls this whenever `open` refuses has no
    protection left. Raises what `open` does.

    A store on a server that lacks entries which were seen from here (`HistoryLost`): `fork=False`
    accepts the state that the server has. False where it lacks none.
    """
    if fork:
        _refuse_hosted(path, "was not copied with a folder; make a fork with `cas copy`")
    if is_hosted(os.fspath(path)):
        return hosted.accept_hosted(hosted.parse_hosted(os.fspath(path)), cache_root())
    folder = os.path.abspath(os.fspath(path))
    catalog = os.path.join(folder, CATALOG)
    if not os.path.exists(catalog):
        raise no_store(folder)
    if fork and (there := address_in(folder)) is not None:
        raise Invalid(
            f"The copy at {folder} and its original have their packs in one place, {there}; two "
            "stores would delete each other's. Make a fork with `cas copy`."
        )
    lineage_id = (clock or SystemClock()).random(16) if fork else None
    return adopting.adopt_catalog(catalog, os.path.join(folder, LOCKS), lineage_id)


def named_by(path: str) -> str:
    """The store that a file names: TOML with one key, `store`, a URL or a path from the file's
    folder. Any other path is a store's own. Raises `NotAStore` for a file that names none.
    """
    if not os.path.isfile(path):
        return path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, _NAMING_BYTES_MAX + 1)
        finally:
            os.close(fd)
        said = tomllib.loads(text.decode()) if len(text) <= _NAMING_BYTES_MAX else {}
    except PermissionError as error:
        raise NotAllowed(f"{path} may not be read by this user.", path=path) from error
    except (OSError, ValueError):
        said = {}
    store = said.get("store")
    if set(said) != {"store"} or not isinstance(store, str) or not store:
        raise NotAStore(
            f'{path} is a file and names no store; one that does is a line: store = "URL or path".',
            path=path,
        )
    return store if "://" in store else os.path.join(os.path.dirname(path), store)


def discover(start: str, environ: str | None) -> str:
    """The store of a command line: `environ` (CAS_STORE), else the nearest `.cas` upwards: its
    folder, or a file that names one.

    Raises `StoreNotFound` with the three ways to name one, and what `named_by` raises.
    """
    if environ:
        return environ
    folder = os.path.abspath(start)
    while True:
        candidate = os.path.join(folder, STORE_FOLDER)
        if os.path.isfile(candidate):
            return named_by(candidate)
        try:
            found = has_catalog(candidate) or is_bereft(candidate)
        except NotAllowed:
            found = True  # who opens it is told
        if found:
            return candidate
        above = os.path.dirname(folder)
        if above == folder:
            raise StoreNotFound(
                "No store was named and there is no .cas here or above. Make one with "
                "`cas init`, or name one with --store or CAS_STORE.",
                path=start,
            )
        folder = above
