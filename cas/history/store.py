"""The store: the handle users hold.

Floor 4. Invariant: every answer of the handle itself is about the newest state when it was
asked; `at` gives a view that stays where it is. Any thread may use it; a transaction and a
batch belong to one thread; a forked child must open the store again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING

from cas.errors import (
    CasError,
    EntryNotFound,
    Invalid,
    ObjectNotFound,
    Unavailable,
    Unsupported,
)
from cas.history.automatic import AUTOMATIC, Automatic
from cas.history.core import CommitCache, Core, PutBatch, named_ids, warn
from cas.history.horizon import check_seq, horizon_now
from cas.history.keeping import Keeping
from cas.history.timeline import Timeline
from cas.history.tombstones import follow
from cas.history.verbs import HistoryVerbs
from cas.history.watch import Hooks, Watching
from cas.interrupts import deferred
from cas.later import Later
from cas.limits import GC_GRACE_US, MAINTAIN_BUDGET_MS
from cas.model.entry import Entry, txid_from_key
from cas.model.ids import BlobId, CommitId, Kind, ObjectId, blob_ids
from cas.objects.store import ObjectStore

if TYPE_CHECKING:
    from cas.history import revision as revisions
    from cas.history import transaction as transactions
    from cas.history import view as views
    from cas.history.retain import RetentionPlan
    from cas.history.revision import AsOf
    from cas.history.snapshot import Change, Snapshot
    from cas.history.transaction import Transaction
    from cas.history.upkeep import BackupReport, Chore, GcPlan, GcResult, MaintenanceReport, Upkeep
    from cas.history.view import Ref, View
    from cas.model.objects import Commit
    from cas.objects import mirror as mirrors
    from cas.objects import spill as spills
    from cas.objects.content import BlobReader, Readable
    from cas.objects.spill import Spill
else:
    # Who only reads or checks never begins a transaction, who checks or puts asks for no revision,
    # few commits begin a spill: nobody waits for what it does not need.
    mirrors = Later("cas.objects.mirror")
    revisions = Later("cas.history.revision")
    spills = Later("cas.objects.spill")
    transactions = Later("cas.history.transaction", keep=True)
    views = Later("cas.history.view")


class Store(HistoryVerbs, Keeping, Watching):
    """A versioned, content-addressed store. Open one with `cas.open`."""

    def __init__(self, objects: ObjectStore, location: str, upkeep: Upkeep | None = None) -> None:
        self.objects = objects
        self._upkeep = upkeep
        self.location = location
        self.core = Core(objects, Timeline(objects), CommitCache(objects))
        follow(self.core)
        self._get = objects.quick.get
        self._spilling: Spill | None = None
        self._spill_lock = threading.Lock()
        self._hooks = Hooks()
        self._automatic = Automatic(objects, self._maintain_by_itself)
        self._closed = False
        # Whether this handle has made entries: only then does closing look how many there are.
        self._wrote = self._grew = False

    def __repr__(self) -> str:
        return f"<Store {self.location!r}>"

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up every handle; harmless when called twice."""
        if not self._closed:
            self._closed = True
            self._hooks.close()
            self._automatic.close()
            try:
                # A forked child could wait for a lock or a thread that only its parent has.
                if self._spilling is None or not self._spilling.inherited:
                    with self._spill_lock:
                        self._tidy()
                    if self._grew:
                        self.objects.room.keep()
            finally:
                self.objects.close()

    @property
    def id(self) -> str:
        """The store's own id, 32 hex digits."""
        return self.objects.meta.store_id.hex()

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self.objects.catalog.read_only

    # -- objects -----------------------------------------------------------------------------

    def put(self, content: bytes | Readable, *, allow_purged: bool = False) -> BlobId:
        """Store bytes, the file at a path (`pathlib.Path`), or what a binary stream gives.

        Durable on return, idempotent, any size in bounded memory; `str(id)` is what `b3sum`
        prints. Content that was purged is refused (`WasPurged`), unless `allow_purged`: then its
        tombstone is lifted by an entry of the journal. Raises `Invalid`, `StorageFull`,
        `StorageFailed`, `Busy`.
        """
        if allow_purged:
            return self.put_purged(content)
        with self.objects.batch() as batch:
            id, _size = self.core.put_content(batch, content)
            batch.promise((id,))
        self._after_write()
        return BlobId(id)

    def put_many(self, contents: Iterable[bytes | Readable]) -> list[BlobId]:
        """`put` of each, durable together when this returns."""
        with self.objects.batch() as batch:
            ids = blob_ids(self.core.put_contents(batch, contents))
            batch.promise(ids)
        self._after_write()
        return ids

    @contextmanager
    def batch(self) -> Iterator[PutBatch]:
        """Puts that become durable together, and exist for others, when the block ends."""
        with self.objects.batch() as batch:
            yield PutBatch(self.core, batch)
        self._after_write()

    def get(self, id: ObjectId | str) -> bytes:
        """Content of a blob, verified. Raises `ObjectNotFound`, `WrongKind`, `Corrupt`."""
        if not isinstance(id, ObjectId):
            id = self.find(id)
        content = self._get(id)
        return self.objects.get(id, Kind.BLOB) if content is None else content

    def get_many(self, ids: Iterable[ObjectId | str]) -> Iterator[bytes]:
        """Contents of blobs in the order given, read in the order in which they lie."""
        return self.objects.blobs(ids, lambda asked: named_ids(asked, self.find))

    def open(self, id: ObjectId | str) -> BlobReader:
        """A blob as a readable, seekable stream in bounded memory."""
        return self.objects.open(self.find(id))

    def has(self, id: ObjectId | str) -> bool:
        """Whether the store holds the object. Raises `InvalidId`, `AmbiguousRevision`."""
        if not isinstance(id, ObjectId):
            try:
                id = self.find(id)
            except ObjectNotFound:
                return False
        return self.objects.has(id)

    def size(self, id: ObjectId | str) -> int:
        """Bytes of an object's content, which is not read. Raises `ObjectNotFound`, `Corrupt`."""
        return self.objects.measure(None, self.find(id))[1]

    def find(self, id: ObjectId | str) -> ObjectId:
        """The id that 64 hex digits, or an abbreviation of 8 or more, name.

        Raises `InvalidId`, `ObjectNotFound`, `AmbiguousRevision`.
        """
        return id if isinstance(id, ObjectId) else self.view().find(id)

    # -- versions ----------------------------------------------------------------------------

    def begin(self, *, author: str = "", message: str = "", key: str | None = None) -> Transaction:
        """Begin a transaction on the newest state.

        `key` is an idempotency key: a retry with the same key and the same request commits
        once, and gives the entry of the first time. Such a retry begins on the state that the
        first one began on, so that the same calls ask for the same again.
        """
        moment = None if key is None else self.core.before(key)
        if moment is None or moment.seq < horizon_now(self.core).seq:
            # What the first one has read may be gone by now; what was asked for is compared.
            moment = self.core.timeline.now()
        return transactions.Transaction(self.core, author, message, key, moment, self._after_commit)

    def view(self) -> View:
        """All refs and objects as of the newest entry; stays there."""
        return views.View(self.core, self.core.now())

    def at(self, seq: AsOf | None = None, *, time_us: int | None = None) -> View:
        """The whole store after entry `seq`, or the last one by a time: µs since 1970 UTC, as `seq`
        a datetime or text as in `main@{…}`. Raises `EntryNotFound`, `BeforeHorizon`.
        """
        timeline = self.core.timeline
        if seq is not None and time_us is None:
            seq, time_us = revisions.when_of(seq)
        with self.objects.catalog.read() as reader:
            head = reader.head()
            if (seq is None) == (time_us is None):
                raise Invalid("Give a sequence number or a time, and only one of them.")
            if seq is None:
                if not isinstance(time_us, int):
                    raise Invalid(f"`time_us` is a whole number of µs, not {time_us!r}.")
                seq = timeline.seq_at(reader, head.seq, time_us)
            assert isinstance(seq, int)
            if not 0 <= seq <= head.seq:
                raise EntryNotFound(
                    f"The journal has no entry {seq}; its newest is {head.seq}.", seq=seq
                )
            check_seq(self.core, seq)
            moment = timeline.at(reader, seq)
        self.objects.catalog.harden(reading=True)
        return views.View(self.core, moment)

    def snapshot(self, revision: str | ObjectId) -> Snapshot:
        """The files of a revision, as a read-only mapping of path to bytes."""
        return self.view().snapshot(revision)

    def resolve(self, revision: str | ObjectId) -> CommitId:
        """The commit that a revision names."""
        return self.view().resolve(revision)

    def commit(self, revision: str | ObjectId) -> Commit:
        """The commit object that a revision names."""
        return self.view().commit(revision)

    def diff(
        self,
        old: str | ObjectId | Snapshot,
        new: str | ObjectId | Snapshot,
        *,
        renames: bool = False,
    ) -> Iterator[Change]:
        """What changes from one revision to another, lazily; walks only what differs.

        With `renames` files that went and came are compared and told as one change.
        """
        return self.view().diff(old, new, renames=renames)

    def branches(self) -> list[Ref]:
        """All branches, ascending by name."""
        return self.view().branches()

    def tags(self) -> list[Ref]:
        """All tags, ascending by name."""
        return self.view().tags()

    # -- the journal -------------------------------------------------------------------------

    def journal(self, after: int = 0, *, limit: int | None = None) -> Iterator[Entry]:
        """Entries behind `after`, oldest first, each with its hash and chain checked."""
        return self.core.timeline.entries(after, limit)

    def entry(self, seq: int) -> Entry:
        """One journal entry. Raises `EntryNotFound`."""
        entry = self.core.entry(seq)
        if entry is None:
            raise EntryNotFound(f"The journal has no entry {seq}.", seq=seq)
        return entry

    def outcome(self, transaction: bytes | str) -> Entry | None:
        """What became of a transaction, by its txid (bytes) or its caller's key (text).

        Its entry, or None when it never committed. Raises `ReadOnly` where only the primary of a
        server could say that, and this handle is not on it.
        """
        txid = txid_from_key(transaction) if isinstance(transaction, str) else transaction
        return self.core.outcome(txid)

    # -- upkeep ------------------------------------------------------------------------------

    def _head_seq(self) -> int:
        return self.objects.catalog.head_seq()

    def _after_commit(self, entry: Entry) -> None:
        """What a commit leaves to be done once it stands."""
        self._wrote = True
        self._hooks.committed(entry)
        self._after_write()
        self._automatic.committed(entry.seq)

    @property
    def _spill(self) -> Spill:
        """The spill of this handle, made when one is first due. Under the lock of spills."""
        if self._spilling is None:
            self._spilling = spills.Spill(self.objects)
        return self._spilling

    @property
    def _spill_is_due(self) -> bool:
        if self._spilling is not None:
            return self._spilling.due
        limits = self.objects.thresholds
        return self.objects.lookup.outgrows(limits.spill_packs, limits.spill_bytes)

    def _after_write(self) -> None:
        """What a write leaves to be done once it was acknowledged."""
        self._grew = True
        if self._spill_is_due:
            with deferred():  # a slice takes some milliseconds, and another thread waits for none
                self._spill_a_slice()

    def _spill_a_slice(self) -> None:
        if self._spill_lock.acquire(blocking=False):
            try:
                self._spill.step()
                if not self._spill_is_due:  # a handle that stays open for months sees to it too
                    self.objects.room.keep()
            except CasError as error:
                # The commit before it was acknowledged and stands, so this is not its error.
                warn(f"a spill was put off: {error}")
            finally:
                self._spill_lock.release()

    def _maintain_by_itself(self, budget_ms: int, stopping: Callable[[], bool]) -> None:
        if self._upkeep is not None:
            self._upkeep.maintain(self, budget_ms, stopping)

    def _tidy(self) -> None:
        """At a close: end a spill that was begun; mirror the journal if much is in no pack."""
        objects = self.objects
        try:
            if self._spilling is not None:
                self._spilling.close()
            if self._wrote and mirrors.is_due(objects.catalog, objects.thresholds):
                self._spill.mirror()
        except CasError as error:
            # All that was acknowledged stands in the catalog: no error of whoever closes.
            warn(f"a spill was put off, or the journal was not mirrored: {error}")

    def mirror(self) -> int:
        """Put the journal so far into packs, with all that it names; the seq that packs reach.

        From there a lost catalog can be rebuilt (`cas repair`). It happens with every spill, and
        when a handle closes after much was committed; it is less than the newest entry's only
        where damage stands in the way. Nothing that was given up behind it may be unlinked.
        """
        with self._spill_lock:
            return self._spill.mirror()

    def plan_gc(
        self, *, grace_us: int = GC_GRACE_US, full: bool = False, after: RetentionPlan | None = None
    ) -> GcPlan:
        """What `gc` (whose words these are) would do, once `after` is applied; removes nothing.
        Raises `Corrupt` where the store is not whole: damage is never taken for garbage.
        """
        return self._keeper().plan_gc(self.core, grace_us, full, after)

    def apply_gc(self, plan: GcPlan) -> GcResult:
        """Do what a plan of this handle says, as far as it still holds: what anything leads to
        by now, and what was put since, stays. Raises `Unavailable` while another run is at it.
        """
        return self._collect(plan.grace_us, plan, False)

    def gc(self, *, grace_us: int = GC_GRACE_US, full: bool = False) -> GcResult:
        """Give back the space of what nothing leads to. Writers and readers go on meanwhile.

        What only history behind the horizon led to goes at once. What nothing ever led to goes
        once runs of gc have seen it for `grace_us` µs, each of which adds a day at the most.
        Raises as `plan_gc` and `apply_gc` do. `full`: look at all objects, and check counts.
        """
        return self._collect(grace_us, None, full)

    def _collect(self, grace_us: int, plan: GcPlan | None, full: bool) -> GcResult:
        keeper = self._keeper()
        with self.objects.catalog.elect("gc") as turn:
            if turn is None:
                raise Unavailable("Another gc is at work on this store; try again when it is done.")
            return keeper.collect(self.core, grace_us, plan, self.mirror, full)

    # -- maintenance -------------------------------------------------------------------------

    def plan_maintenance(self) -> tuple[Chore, ...]:
        """What `maintain` would do; changes nothing."""
        return self._keeper().plan_maintenance(self)

    def maintain(self, *, budget_ms: float = MAINTAIN_BUDGET_MS) -> MaintenanceReport:
        """Do what is due (`Chore`), and begin nothing when time is over. Raises `Unavailable`."""
        return self._keeper().maintain(self, budget_ms, None)

    def maintenance(self) -> int:
        """How long maintenance takes that runs by itself, in ms; 0: it does not."""
        with self.objects.catalog.read() as reader:
            return reader.cursor(AUTOMATIC) or 0

    def set_maintenance(self, budget_ms: int) -> None:
        """Let maintenance run by itself, on a thread behind commits of any handle, about every 64
        entries and for so long at the most; 0: no more. Closing waits for the chore under way.
        """
        if not 0 <= budget_ms < 1 << 40:
            raise Invalid(f"A budget is from 0 to {(1 << 40) - 1} ms, not {budget_ms}.")
        with self.objects.catalog.write() as writer:
            writer.set_cursor(AUTOMATIC, int(budget_ms))
        self._automatic.forget()

    def backup(self, place: str | PathLike[str], *, accept_damage: bool = False) -> BackupReport:
        """Back the store up into a folder, which is made where there is none: what is new there.

        One moment of the store, whoever writes meanwhile; verified on its way. Damage in the
        store is told as `CorruptPack` and nothing is recorded, unless it is accepted. What was
        purged since goes from the backup too. Raises `BackupMismatch`, `NotABackup`, `Busy`,
        `Invalid`, `CorruptBackup` where an increment is missing, and what a write raises. With
        progress: `cas.backup`; the way back: `cas.restore_store`.
        """
        return self._keeper().backup(self, fspath(place), accept_damage)

    def _keeper(self) -> Upkeep:
        if self._upkeep is None:
            raise Unsupported("This handle was put together without upkeep; use `cas.open`.")
        return self._upkeep

    def spill(self) -> int:
        """Gather inline packs into a pack file now; how many were gathered."""
        with self._spill_lock:
            count = self._spill.finish()
        self.objects.room.keep()
        return count
