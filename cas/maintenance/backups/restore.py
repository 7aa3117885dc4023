"""Make a store of a backup: choose a position, fill a new catalog, bring the packs.

Floor 5. Invariant: what is made shows the refs as they were after the entry that was asked for, the
whole journal up to it, and every object that the backup's state of then had; packs are verified on
their way as they were when they were backed up.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from cas.catalog.catalog import PackRow
from cas.errors import Corrupt, CorruptBackup, EntryNotFound, Gone, Invalid, MissingPack
from cas.history.horizon import read_horizon
from cas.history.store import Store
from cas.history.tombstones import Tombstone, purged_ids, stage_tombstones
from cas.maintenance.backups.carry import Damage, carry_packs
from cas.maintenance.backups.increment import Index, PackLine, State
from cas.maintenance.backups.refill import VaultImage, recheckpoint, refill
from cas.maintenance.backups.stones import stones_in
from cas.maintenance.backups.vault import Vault
from cas.maintenance.findings import OnProgress, Progress
from cas.maintenance.purge import finish_purges
from cas.model.entry import Entry
from cas.model.ids import Kind, ObjectId
from cas.model.names import HORIZON_REF, PURGED_REF, count
from cas.model.objects import Commit
from cas.objects.batch import Batch
from cas.objects.children import children
from cas.objects.packs import file_name
from cas.objects.store import ObjectStore


@frozen
class RestoreReport:
    """What was made: the increment that it was made of, the entry that it ends with, and counts.

    `purged` was purged after that entry, lay in the backup all the same, and is not in the store.
    """

    place: str
    target: str
    increment: int
    seq: int
    pack_count: int
    entry_count: int
    stored_bytes: int
    damage: tuple[Damage, ...]
    purged: tuple[bytes, ...] = ()


def choose(
    vault: Vault,
    *,
    seq: int | None = None,
    time_us: int | None = None,
    accept_damage: bool = False,
) -> VaultImage:
    """The state to make: the newest, or the first that was backed up at or behind an entry or a
    time, whose objects are the most. With `accept_damage` the newest is that of the chain that can
    be read.

    Raises `BackupNotFound`, `CorruptBackup`, `EntryNotFound` for a position outside.
    """
    if seq is not None and time_us is not None:
        raise Invalid("Give a sequence number or a time, and only one of them.")
    chain, lost = vault.left() if accept_damage else (vault.chain(), [])
    whole = [index for index in chain if index.state is not None]
    if not whole:
        raise CorruptBackup(
            f"The first backup at {vault.place} was never finished; run `cas backup` again.",
            path=vault.place,
        )
    newest = _state(whole[-1])
    if time_us is not None:
        seq = _seq_at(vault, chain, newest.seq, time_us)
    if seq is None:
        seq = newest.seq
    if not 0 <= seq <= newest.seq:
        raise EntryNotFound(
            f"The backup at {vault.place} has no entry {seq}; its newest is {newest.seq}.", seq=seq
        )
    index = next(index for index in whole if _state(index).seq >= seq)
    if seq == newest.seq:
        index = whole[-1]
    mirrored = index.extras.get("mirrored")
    return VaultImage(
        vault,
        tuple(chain),
        _state(index),
        index.origin,
        mirrored if type(mirrored) is int else 0,
        seq,
        tuple(lost),
    )


def _state(index: Index) -> State:
    assert index.state is not None
    return index.state


def _seq_at(vault: Vault, chain: Sequence[Index], last: int, time_us: int) -> int:
    """Seq of the last entry at or before a time, in the newest epoch that has one."""
    found: dict[int, int] = {}
    for seq, data in enumerate(vault.entries(chain), start=1):
        if seq > last:
            break
        entry = Entry.decode(data)
        if entry.time_us <= time_us:
            found[entry.epoch] = entry.seq
    if not found:
        raise EntryNotFound("The backup has no entry as old as that.", time_us=time_us)
    return found[max(found)]


def number_of(image: VaultImage) -> int:
    """The increment whose state an image is."""
    return next(index.number for index in image.chain if index.state is image.state)


def fill_store(
    image: VaultImage,
    objects: ObjectStore,
    *,
    accept_damage: bool = False,
    progress: OnProgress = None,
) -> RestoreReport:
    """Fill an empty store that nobody uses yet.

    Raises `CorruptBackup`, `Gone` when objects of an older position had been given up before it
    was backed up, and what a write raises.
    """
    say = progress or (lambda _progress: None)
    total = sum([line.body_bytes for line in image.state.packs])
    say(Progress("catalog", 0, 0, total))
    refill(objects.catalog, image)
    damage = [Damage(str(error.fields["path"]), (), str(error)) for error in image.lost]
    done_bytes = done = 0
    source = ObjectStore(objects.catalog, image.vault.packs, objects.clock)
    lines = {line.number: line for line in image.state.packs}
    try:
        source.lookup.refresh()
        for carried in carry_packs(
            source,
            _rows(image),
            objects.bucket,
            accept_damage=accept_damage,
            accept_missing=accept_damage,
        ):
            found = carried.damage or _exchanged(lines[carried.row.number], carried.check)
            if found is not None:
                damage.append(found)
            done_bytes += carried.stored_bytes
            done += 1
            say(Progress("packs", done, done_bytes, total))
    except MissingPack as error:
        raise CorruptBackup(
            f"The backup at {image.vault.place} lacks the pack {error.pack}; back up again while "
            "the store still has it, choose another position, or accept the damage "
            "(`--accept-damage`) to restore what is whole.",
            path=str(error.pack),
        ) from error
    if damage and not accept_damage:
        raise CorruptBackup(
            f"The backup has damage in {count(len(damage), 'pack')}, the first {damage[0].pack} "
            f"({damage[0].reason}); nothing was restored. `cas prove` tells all; to restore what "
            "is whole, accept the damage (`--accept-damage`).",
            path=damage[0].pack,
        )
    objects.bucket.sync()
    recheckpoint(objects, image)
    store = Store(objects, image.vault.place)
    settle(store, image, damaged=bool(damage))
    purged: frozenset[bytes] = frozenset()
    try:
        purged = finish_purges(store)
    except Corrupt:
        if not damage:
            raise
        # What would tell what was purged is damaged itself; the report says that.
    return RestoreReport(
        image.vault.place,
        "",
        number_of(image),
        image.seq,
        len(image.state.packs),
        image.seq,
        done_bytes,
        tuple(damage),
        tuple(sorted(purged)),
    )


def _rows(image: VaultImage) -> list[tuple[PackRow, bytes | None]]:
    return [
        (
            PackRow(line.number, line.name, line.body_bytes, None),
            None if line.vector is None else image.vault.held(line.vector.bits),
        )
        for line in image.state.packs
        if line.name is not None
    ]


def _exchanged(line: PackLine, check: bytes) -> Damage | None:
    """The damage of a pack that is whole, as far as it goes, and not the one that was backed up."""
    if line.check == check:
        return None
    assert line.name is not None
    return Damage(file_name(line.name), (), "it holds other bytes than were backed up")


def settle(store: Store, image: VaultImage, *, damaged: bool = False) -> None:
    """Say in a store what its state knew and its position did not. Of a `damaged` one nobody can
    tell what was given up from what is lost. Raises `Gone`.
    """
    if image.seq < image.state.seq:
        _keep_tombstones(store, image)
        _keep_horizon(store, image)
    _honour(store, image)
    if image.seq < image.state.seq and not damaged:
        _refuse_hollow(store, image)


def _keep_horizon(store: Store, image: VaultImage) -> None:
    """Carry a horizon that was raised between the position and its state over, as an entry of the
    new lineage: what it gave up is not in the state. Raises `Gone` for a position before it.
    """
    target = None
    for seq, data in enumerate(image.entries(), start=1):
        if image.seq < seq <= image.state.seq:
            target = Entry.decode(data).target(HORIZON_REF) or target
    if target is None:
        return
    horizon = read_horizon(store.core, None, target).seq
    if horizon > image.seq:
        raise Gone(
            f"Entry {image.seq} cannot be restored: what states before entry {horizon} had was "
            f"given up before the backup that reached entry {image.state.seq}. Choose entry "
            f"{horizon} or a later one, or one at which a backup was made.",
            seq=image.seq,
            boundary=horizon,
        )
    message = f"restored from a backup that reached entry {image.state.seq}"
    with store.begin(message=message) as tx:
        tx.move(HORIZON_REF, target)
        tx.commit()


def _keep_tombstones(store: Store, image: VaultImage) -> None:
    """Carry over what was purged between the position and its state, likewise: it is gone too."""
    found: list[ObjectId] = []
    for seq, data in enumerate(image.entries(), start=1):
        if image.seq < seq <= image.state.seq:
            change = Entry.decode(data).target(PURGED_REF)
            found += [] if change is None else [change]
    if not found:
        return
    target = found[-1]

    def carry(batch: Batch) -> ObjectId:
        batch.counts = True
        return target

    with store.begin(message=f"purged before entry {image.state.seq} of the backup") as tx:
        tx.move(PURGED_REF, tx.stage(carry))
        tx.commit()


def _honour(store: Store, image: VaultImage) -> None:
    """Carry over what was purged by the newest backup, or taken out of this state since: it may
    not come back, and what of it is missing says why.
    """
    newest = next(index for index in reversed(image.chain) if index.state is not None)
    own = next(index for index in image.chain if index.state is image.state)
    told = {bytes(stone.id): stone for index in (own, newest) for stone in stones_in(index)}
    if not told:
        return
    known = purged_ids(store.core)
    stones: dict[bytes, Tombstone | None] = {
        id: stone for id, stone in told.items() if id not in known
    }
    if not stones:
        return

    with store.begin(message="purged by the time of the newest backup") as tx:
        moment = store.core.timeline.now()

        def stage(batch: Batch) -> ObjectId:
            return stage_tombstones(store.core, batch, moment, stones, tx.author, tx.message)

        tx.move(PURGED_REF, tx.stage(stage))
        tx.commit()


def _refuse_hollow(store: Store, image: VaultImage) -> None:
    """Raise `Gone` unless what the refs name at this position is there: commits back to the
    first, and the files of each commit that a ref names.
    """
    seen: set[bytes] = set()
    for ref in store.at(image.seq).refs():
        lacking = _lacking(store.objects, ref.target, seen)
        if lacking is not None:
            raise Gone(
                f"{ref.name} as of entry {image.seq} cannot be restored: {lacking.hex()} was "
                f"given up before the backup that reached entry {image.state.seq}. Choose an entry "
                "at which a backup was made.",
                id=lacking,
                boundary=image.state.seq,
            )


def _lacking(objects: ObjectStore, target: bytes, seen: set[bytes]) -> bytes | None:
    """An object below a ref's target that is not there; None when all are."""
    # Of the commits before the one that is named the records are kept, their files not always.
    waiting = [(target, True)]
    while waiting:
        id, whole = waiting.pop()
        if id in seen:
            continue
        copy = objects.find(id)
        if copy is None and objects.absent.error(id) is not None:
            continue
        if copy is None:
            return id
        if copy.slot.kind == Kind.BLOB:
            continue
        kind, content = objects.read(id)
        seen.add(id)
        if kind == Kind.COMMIT:
            waiting += [(parent, False) for parent in Commit.decode(content).parents]
        if kind != Kind.COMMIT or whole:
            parents = {below for below, _whole in waiting}
            waiting += [(below, True) for below in children(kind, content) if below not in parents]
    return None
