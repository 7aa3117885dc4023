"""Purge: content is removed from all history, although commits go on naming it.

Floor 5; implements docs/format.md section 5.9. Invariant: success is told only when no file of the
store holds the content any more; until then running the same purge again goes on where the one
before stopped. All else that the packs concerned held exists throughout.

In this order: an entry with the tombstone, from which on nobody puts the content again; one
transaction that installs new copies of everything else and takes the old packs out; the mirror;
the old files; search indexes; the catalog file, written anew, and its log, cut; a look at every
file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from attrs import frozen

from cas.errors import (
    Busy,
    Corrupt,
    CorruptCatalog,
    Invalid,
    OnHold,
    RefConflict,
    StorageFull,
    Unavailable,
    WrongKind,
)
from cas.history.core import Core
from cas.history.store import Store
from cas.history.timeline import Moment
from cas.history.tombstones import Tombstone, purged_ids, stage_tombstones, tombstone_of
from cas.limits import PURGE_TRIES, PURGE_WAIT_MS
from cas.maintenance.entangled import dictionaries_of, parts_of, used_elsewhere
from cas.maintenance.folder import ASIDE
from cas.maintenance.gc.leftovers import find_leftovers, remove_leftovers
from cas.maintenance.takeout import survey, take_out
from cas.maintenance.why import held
from cas.model.entry import Entry
from cas.model.ids import Kind, ObjectId
from cas.model.names import HOLDS, INDEXES, PURGED_REF
from cas.objects.batch import Batch
from cas.objects.packs import read_footer
from cas.objects.store import ObjectStore
from cas.objects.unlink import remove_unlinked
from cas.storage.files import translate

EVENT: Final = "cas.purge"
"""Type of the event in the entry of a purge; its headers are `id` and `reason`."""


@frozen
class PurgePlan:
    """What purging content would do. `size_bytes`: of the content.

    `part_ids` are the chunks of large content that nothing else uses, and the recipe: they go
    with it. `shared_ids` are chunks that other content has too: they stay. `pack_count` packs
    would be written anew, and `dependent_count` objects that are stored as deltas of it.
    """

    id: ObjectId
    size_bytes: int
    part_ids: tuple[ObjectId, ...]
    shared_ids: tuple[ObjectId, ...]
    pack_count: int
    dependent_count: int


@frozen
class PurgeResult:
    """What a purge has done: the plan it went by, and the tombstone that stays.

    `entry` is None where the tombstone was there before, and this run has gone on.
    """

    plan: PurgePlan
    tombstone: Tombstone
    entry: Entry | None


def plan_purge(store: Store, id: ObjectId) -> PurgePlan:
    """What `purge` would do; writes nothing.

    Raises `ObjectNotFound`, `WrongKind` for what is no blob, `OnHold`, and what reading raises.
    """
    core, objects = store.core, store.objects
    moment = store.view().moment
    stone = tombstone_of(core, moment, id)
    if stone is None or objects.has(id):
        kind, size_bytes = objects.measure(None, id)
        if kind != Kind.BLOB:
            raise WrongKind(
                f"{id.short} is a {Kind(kind).name.lower()}; content is purged, so name the blob "
                "of a file.",
                id=id,
                expected=Kind.BLOB,
                actual=Kind(kind),
            )
    else:
        size_bytes = stone.size_bytes
    _refuse_held(core, moment, id)
    parts, shared = _parts(core, id)
    scene = survey(objects, {bytes(id), *map(bytes, parts)})
    return PurgePlan(id, size_bytes, parts, shared, len(scene.packs), len(scene.dependants))


def _refuse_held(core: Core, moment: Moment, id: ObjectId) -> None:
    hold = held(core, moment, id)
    if hold is not None:
        raise OnHold(
            f"{id.short} cannot be purged: {hold.text}. Lift the legal hold first (`cas hold -d`).",
            id=id,
            hold=hold.ref,
        )


def purge(store: Store, id: ObjectId, *, reason: str, author: str = "") -> PurgeResult:
    """Remove content from all history. Hashes and journal still verify; reads raise `Purged`.

    When this returns no file of the store holds it. Run it again after an error: it goes on.
    Raises `Invalid` without a reason, `AccessDenied` without the rights for all of it (nothing was
    done then), what `plan_purge` and a commit raise, `Busy` where a reader of an older state keeps
    the log for too long, and `Unavailable` where others write faster, or still write what has to
    go, or where an old catalog that a repair put aside may hold it.
    """
    if not reason.strip():
        raise Invalid("A purge needs a reason; say why the content has to go.")
    core, objects = store.core, store.objects
    plan = plan_purge(store, id)
    stone = tombstone_of(core, store.view().moment, id)
    entry = None
    # Before anything is gone: who may not end it does not begin it.
    objects.catalog.refuse_scrub()
    if stone is None:
        clock = objects.clock
        stone = Tombstone(id, Kind.BLOB, plan.size_bytes, reason, author, clock.wall_us())
        entry = _bury(store, stone)
    try:
        # With what a purge before, which was cut short, has left.
        _remove(store, {bytes(id), *map(bytes, plan.part_ids), *purged_ids(core)})
    except StorageFull as error:
        raise StorageFull(
            f"{id.short} has its tombstone and is still in the store: no space is left to write "
            "its packs anew. Free space and run this purge again.",
            path=error.fields["path"],
        ) from error
    return PurgeResult(plan, stone, entry)


def unfinished_purges(store: Store) -> frozenset[bytes]:
    """Ids that have a tombstone and are there all the same. Raises `Corrupt`."""
    core = store.core
    return frozenset(id for id in purged_ids(core) if core.objects.has(id))


def finish_purges(store: Store) -> frozenset[bytes]:
    """Remove what has a tombstone and is there all the same; the ids of it.

    As after a purge that was cut short, or in a store that was made of an older state. Raises
    what `purge` raises.
    """
    core = store.core
    found = unfinished_purges(store)
    goes = set(found)
    for id in found:
        goes.update(_parts(core, ObjectId(id))[0])
    if found:
        _remove(store, goes)
    return found


def _remove(store: Store, goes: set[bytes]) -> None:
    """Leave none of it in any file."""
    objects = store.objects
    goes |= dictionaries_of(objects, goes)
    for _ in range(PURGE_TRIES):
        if take_out(objects, survey(objects, goes), goes):
            break
    else:
        raise Unavailable("The store is written to faster than purge can follow; run it again.")
    _unlink(store)
    _drop_indexes(objects.cache)
    _scrub(objects)
    _prove(objects, goes)
    _refuse_aside(store)


def _bury(store: Store, stone: Tombstone) -> Entry:
    """The entry that says so. From here on nobody puts it again. Raises `OnHold`."""
    for _ in range(PURGE_TRIES):
        try:
            return _try_to_bury(store, stone)
        except RefConflict as error:
            if not error.ref.startswith(HOLDS):
                raise
            conflict = error
    raise conflict


def _try_to_bury(store: Store, stone: Tombstone) -> Entry:
    core, id = store.core, stone.id
    with store.begin(author=stone.author, message=f"purge {id.short}: {stone.reason}") as tx:
        # A hold that comes behind this look is a conflict: the gate knows those of the beginning.
        _refuse_held(core, core.timeline.now(), id)
        moment = core.timeline.now()

        def stage(batch: Batch) -> ObjectId:
            return stage_tombstones(core, batch, moment, {id: stone}, tx.author, tx.message)

        tx.move(PURGED_REF, tx.stage(stage))
        tx.event(EVENT, b"", {"id": id.hex(), "reason": stone.reason})
        return tx.commit()


def _parts(core: Core, id: ObjectId) -> tuple[tuple[ObjectId, ...], tuple[ObjectId, ...]]:
    """(parts of large content that nothing else uses, parts that something else uses)."""
    objects = core.objects
    mine = parts_of(objects, id)
    if not mine:
        return (), ()
    named = {
        bytes(event.blob)
        for entry in core.timeline.entries(0)
        for event in entry.events
        if event.blob is not None
    }
    shared = used_elsewhere(objects, [id], mine, named)
    going = sorted(ObjectId(part) for part in mine - shared)
    return tuple(going), tuple(sorted(ObjectId(part) for part in shared))


# -- files -----------------------------------------------------------------------------------------


def _unlink(store: Store) -> None:
    """Remove every file that no pack row names any more."""
    objects = store.objects
    with objects.catalog.read() as reader:
        listed = [row.seq for row in reader.unlinked()]
    if listed and store.mirror() < max(listed):
        raise CorruptCatalog(
            "The content is out of the packs, and its old files stay: damage stands in the way of "
            "the mirror. Run `cas fsck`, then this purge again.",
            detail="mirror",
        )
    remove_unlinked(objects.catalog, objects.bucket)
    remove_leftovers(objects, find_leftovers(objects))


def _drop_indexes(cache: str | None) -> None:
    """Remove the search indexes, which hold texts. They are made again; who has one open goes on
    with what it has, until it comes to the entry of the purge.
    """
    folder = os.path.join(cache or "", INDEXES)
    if cache is None or not os.path.isdir(folder):
        return
    try:
        # A log goes before what it belongs to.
        for name in sorted(os.listdir(folder), reverse=True):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
    except OSError as error:
        translate(error, folder)


def _scrub(objects: ObjectStore) -> None:
    """Leave nothing in the catalog's files of what was deleted."""
    clock = objects.clock
    end_ms = clock.monotonic_ms() + PURGE_WAIT_MS
    done = objects.catalog.scrub(rewrite=True)
    while not done:
        if clock.monotonic_ms() > end_ms:
            raise Busy(
                "The content is gone from packs and catalog, but not from the catalog's log: a "
                "reader holds an older state. Run this purge again when it has ended.",
                waited_ms=PURGE_WAIT_MS,
            )
        clock.sleep_ms(20)
        done = objects.catalog.scrub(rewrite=False)


def _refuse_aside(store: Store) -> None:
    """Raise `Unavailable` where old catalogs lie that a repair put aside. They may hold it in any
    page, and may be all that is left of something else: whoever kept them decides.
    """
    if os.path.isdir(store.location):
        aside = sorted(name for name in os.listdir(store.location) if name.startswith(ASIDE))
        if aside:
            raise Unavailable(
                "The content is gone from the store, but may be in the old catalog that a repair "
                f"put aside in {store.location}. Delete {', '.join(aside)} if nobody needs it, and "
                "run this purge again."
            )


def _prove(objects: ObjectStore, goes: set[bytes]) -> None:
    """Look at every file that is there. Raises `Unavailable` where one still has it, or cannot be
    read now: that proves nothing.
    """
    scene = survey(objects, goes)
    if scene.packs or scene.deltas:
        raise Unavailable("The content came back while it was purged; run the purge again.")
    named = {pack.file for pack in objects.lookup.ensure().packs.values()}
    for file in objects.bucket.list():
        if file.name in named:
            continue
        try:
            _header, footer = read_footer(objects.bucket, file.name)
        except Corrupt:
            continue  # no pack, or none that is whole: fsck tells of it
        if not goes.isdisjoint(footer.ids()):
            raise Unavailable(
                f"A writer at work has the content in {file.name}; it will be refused. Run this "
                "purge again when it has ended."
            )
