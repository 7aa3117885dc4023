"""Calls of a store for an event loop.

Floor 9. Written by `tools/aio.py` from the synchronous calls, whose docstrings these
are; do not edit. Invariant: a call does what the synchronous one of that name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cas.aio.reading import AsyncSnapshot, AsyncView
from cas.aio.streams import AsyncReader, Items, bridged
from cas.aio.verbcalls import VerbCalls

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from cas.aio.streams import AsyncSource
    from cas.history.kept import Hold, Pin
    from cas.history.policy import Protection, RefRule
    from cas.history.retain import RetentionPlan
    from cas.history.retention import RetentionPolicy
    from cas.history.revision import AsOf
    from cas.history.snapshot import Change, Snapshot
    from cas.history.tombstones import Tombstone
    from cas.history.upkeep import BackupReport, Chore, GcPlan, GcResult, MaintenanceReport
    from cas.history.view import Ref
    from cas.model.entry import Entry
    from cas.model.ids import BlobId, CommitId, ObjectId
    from cas.model.objects import Commit
    from cas.objects.content import Readable


class StoreCalls(VerbCalls):
    """`Store` for an event loop."""

    async def view(self) -> AsyncView:
        """All refs and objects as of the newest entry; stays there."""
        made = await self._run(lambda: self.sync.view())
        return AsyncView(made, self._threads, self._lock)

    async def pin(self, what: str | ObjectId, reason: str = "", *, author: str = "") -> Pin:
        """Keep an object, and all that it names, until it is unpinned.

        `what` is a revision (its commit is pinned) or the id of a blob, directory, commit or tag.
        Pinning again changes the reason. Raises `ObjectNotFound`, `RevisionNotFound`,
        `AmbiguousRevision`, `WrongKind`, and what a commit raises.
        """
        return await self._run(lambda: self.sync.pin(what, reason, author=author))

    async def unpin(self, what: str | ObjectId, *, author: str = "") -> Entry:
        """Keep an object no longer. Raises `RefNotFound` when it is not pinned."""
        return await self._run(lambda: self.sync.unpin(what, author=author))

    async def pins(self) -> list[Pin]:
        """All pins, ascending by id."""
        return await self._run(lambda: self.sync.pins())

    async def hold(self, what: str | ObjectId, reason: str, *, author: str = "") -> Hold:
        """Put an object under a legal hold: nothing gives it up until `release`.

        A commit is held with the content of all that led to it; no retention, purge, undo or rewind
        overrides a hold. `reason`: on what ground. Raises `Invalid` without one, and as `pin` does.
        """
        return await self._run(lambda: self.sync.hold(what, reason, author=author))

    async def release(self, what: str | ObjectId, *, author: str = "") -> Entry:
        """Lift a legal hold. Raises `RefNotFound` when there is none on this object."""
        return await self._run(lambda: self.sync.release(what, author=author))

    async def holds(self) -> list[Hold]:
        """All legal holds, ascending by id."""
        return await self._run(lambda: self.sync.holds())

    async def retention(self) -> RetentionPolicy | None:
        """The rules of what is kept for how long that the store holds; None where it has none."""
        return await self._run(lambda: self.sync.retention())

    async def set_retention(self, policy: RetentionPolicy | None, *, author: str = "") -> Entry:
        """Keep a retention policy in the store, or None. It does nothing by itself.

        `plan_retention` and `cas retain` go by it. Raises `Invalid`, and what a commit raises.
        """
        return await self._run(lambda: self.sync.set_retention(policy, author=author))

    async def purged(self) -> list[Tombstone]:
        """The tombstones of all content that was purged, ascending by id."""
        return await self._run(lambda: self.sync.purged())

    async def put_purged(
        self, content: bytes | Readable | AsyncSource, *, author: str = ""
    ) -> BlobId:
        """`put`, of content that may have been purged: its tombstone is then lifted by the entry.

        Raises what `put` and a commit raise.
        """
        given, waits = bridged(content)
        return await self._run(lambda: self.sync.put_purged(given, author=author), waits=waits)

    async def protect(
        self, pattern: str, rule: RefRule | str = "forward", *, author: str = ""
    ) -> tuple[Protection, ...]:
        """Protect the refs that are like `pattern`, now and later; gives all rules.

        A pattern is held against full names (`tags/v*`); one that says nothing else is of
        branches. `rule`: `keep` (never deleted), `forward` (nor moved but forward), `frozen`
        (nor changed at all). A transaction of anybody that breaks one raises `RefProtected`.
        Raises `Invalid`, `RefConflict`, and what a commit raises.
        """
        return await self._run(lambda: self.sync.protect(pattern, rule, author=author))

    async def unprotect(self, pattern: str, *, author: str = "") -> tuple[Protection, ...]:
        """Lift the rule of exactly this pattern; gives the rules that are left.

        Raises `RefNotFound` when there is none.
        """
        return await self._run(lambda: self.sync.unprotect(pattern, author=author))

    async def protections(self) -> tuple[Protection, ...]:
        """The rules that hold now, ascending by pattern."""
        return await self._run(lambda: self.sync.protections())

    async def at(self, seq: AsOf | None = None, *, time_us: int | None = None) -> AsyncView:
        """The whole store after entry `seq`, or the last one by a time: µs since 1970 UTC, as `seq`
        a datetime or text as in `main@{…}`. Raises `EntryNotFound`, `BeforeHorizon`.
        """
        made = await self._run(lambda: self.sync.at(seq, time_us=time_us))
        return AsyncView(made, self._threads, self._lock)

    async def put(
        self, content: bytes | Readable | AsyncSource, *, allow_purged: bool = False
    ) -> BlobId:
        """Store bytes, the file at a path (`pathlib.Path`), or what a binary stream gives.

        Durable on return, idempotent, any size in bounded memory; `str(id)` is what `b3sum`
        prints. Content that was purged is refused (`WasPurged`), unless `allow_purged`: then its
        tombstone is lifted by an entry of the journal. Raises `Invalid`, `StorageFull`,
        `StorageFailed`, `Busy`.
        """
        given, waits = bridged(content)
        return await self._run(lambda: self.sync.put(given, allow_purged=allow_purged), waits=waits)

    async def put_many(self, contents: Iterable[bytes | Readable]) -> list[BlobId]:
        """`put` of each, durable together when this returns."""
        return await self._run(lambda: self.sync.put_many(contents))

    async def get(self, id: ObjectId | str) -> bytes:
        """Content of a blob, verified. Raises `ObjectNotFound`, `WrongKind`, `Corrupt`."""
        return await self._run(lambda: self.sync.get(id))

    def get_many(self, ids: Iterable[ObjectId | str]) -> Items[bytes]:
        """Contents of blobs in the order given, read in the order in which they lie."""
        return Items(self._threads, lambda: self.sync.get_many(ids))

    async def open(self, id: ObjectId | str) -> AsyncReader:
        """A blob as a readable, seekable stream in bounded memory."""
        made = await self._run(lambda: self.sync.open(id))
        return AsyncReader(made, self._threads, self._lock)

    async def has(self, id: ObjectId | str) -> bool:
        """Whether the store holds the object. Raises `InvalidId`, `AmbiguousRevision`."""
        return await self._run(lambda: self.sync.has(id))

    async def size(self, id: ObjectId | str) -> int:
        """Bytes of an object's content, which is not read. Raises `ObjectNotFound`, `Corrupt`."""
        return await self._run(lambda: self.sync.size(id))

    async def find(self, id: ObjectId | str) -> ObjectId:
        """The id that 64 hex digits, or an abbreviation of 8 or more, name.

        Raises `InvalidId`, `ObjectNotFound`, `AmbiguousRevision`.
        """
        return await self._run(lambda: self.sync.find(id))

    async def snapshot(self, revision: str | ObjectId) -> AsyncSnapshot:
        """The files of a revision, as a read-only mapping of path to bytes."""
        made = await self._run(lambda: self.sync.snapshot(revision))
        return AsyncSnapshot(made, self._threads, self._lock)

    async def resolve(self, revision: str | ObjectId) -> CommitId:
        """The commit that a revision names."""
        return await self._run(lambda: self.sync.resolve(revision))

    async def commit(self, revision: str | ObjectId) -> Commit:
        """The commit object that a revision names."""
        return await self._run(lambda: self.sync.commit(revision))

    def diff(
        self,
        old: str | ObjectId | Snapshot | AsyncSnapshot,
        new: str | ObjectId | Snapshot | AsyncSnapshot,
        *,
        renames: bool = False,
    ) -> Items[Change]:
        """What changes from one revision to another, lazily; walks only what differs.

        With `renames` files that went and came are compared and told as one change.
        """
        return Items(
            self._threads,
            lambda: self.sync.diff(
                old.sync if isinstance(old, AsyncSnapshot) else old,
                new.sync if isinstance(new, AsyncSnapshot) else new,
                renames=renames,
            ),
        )

    async def branches(self) -> list[Ref]:
        """All branches, ascending by name."""
        return await self._run(lambda: self.sync.branches())

    async def tags(self) -> list[Ref]:
        """All tags, ascending by name."""
        return await self._run(lambda: self.sync.tags())

    def journal(self, after: int = 0, *, limit: int | None = None) -> Items[Entry]:
        """Entries behind `after`, oldest first, each with its hash and chain checked."""
        return Items(self._threads, lambda: self.sync.journal(after, limit=limit))

    async def entry(self, seq: int) -> Entry:
        """One journal entry. Raises `EntryNotFound`."""
        return await self._run(lambda: self.sync.entry(seq))

    async def outcome(self, transaction: bytes | str) -> Entry | None:
        """What became of a transaction, by its txid (bytes) or its caller's key (text).

        Its entry, or None when it never committed. Raises `ReadOnly` where only the primary of a
        server could say that, and this handle is not on it.
        """
        return await self._run(lambda: self.sync.outcome(transaction))

    async def mirror(self) -> int:
        """Put the journal so far into packs, with all that it names; the seq that packs reach.

        From there a lost catalog can be rebuilt (`cas repair`). It happens with every spill, and
        when a handle closes after much was committed; it is less than the newest entry's only
        where damage stands in the way. Nothing that was given up behind it may be unlinked.
        """
        return await self._run(lambda: self.sync.mirror())

    async def plan_gc(
        self,
        *,
        grace_us: int = 1209600000000,
        full: bool = False,
        after: RetentionPlan | None = None,
    ) -> GcPlan:
        """What `gc` (whose words these are) would do, once `after` is applied; removes nothing.
        Raises `Corrupt` where the store is not whole: damage is never taken for garbage.
        """
        return await self._run(lambda: self.sync.plan_gc(grace_us=grace_us, full=full, after=after))

    async def apply_gc(self, plan: GcPlan) -> GcResult:
        """Do what a plan of this handle says, as far as it still holds: what anything leads to
        by now, and what was put since, stays. Raises `Unavailable` while another run is at it.
        """
        return await self._run(lambda: self.sync.apply_gc(plan))

    async def gc(self, *, grace_us: int = 1209600000000, full: bool = False) -> GcResult:
        """Give back the space of what nothing leads to. Writers and readers go on meanwhile.

        What only history behind the horizon led to goes at once. What nothing ever led to goes
        once runs of gc have seen it for `grace_us` µs, each of which adds a day at the most.
        Raises as `plan_gc` and `apply_gc` do. `full`: look at all objects, and check counts.
        """
        return await self._run(lambda: self.sync.gc(grace_us=grace_us, full=full))

    async def plan_maintenance(self) -> tuple[Chore, ...]:
        """What `maintain` would do; changes nothing."""
        return await self._run(lambda: self.sync.plan_maintenance())

    async def maintain(self, *, budget_ms: float = 60000) -> MaintenanceReport:
        """Do what is due (`Chore`), and begin nothing when time is over. Raises `Unavailable`."""
        return await self._run(lambda: self.sync.maintain(budget_ms=budget_ms))

    async def maintenance(self) -> int:
        """How long maintenance takes that runs by itself, in ms; 0: it does not."""
        return await self._run(lambda: self.sync.maintenance())

    async def set_maintenance(self, budget_ms: int) -> None:
        """Let maintenance run by itself, on a thread behind commits of any handle, about every 64
        entries and for so long at the most; 0: no more. Closing waits for the chore under way.
        """
        return await self._run(lambda: self.sync.set_maintenance(budget_ms))

    async def backup(
        self, place: str | PathLike[str], *, accept_damage: bool = False
    ) -> BackupReport:
        """Back the store up into a folder, which is made where there is none: what is new there.

        One moment of the store, whoever writes meanwhile; verified on its way. Damage in the
        store is told as `CorruptPack` and nothing is recorded, unless it is accepted. What was
        purged since goes from the backup too. Raises `BackupMismatch`, `NotABackup`, `Busy`,
        `Invalid`, `CorruptBackup` where an increment is missing, and what a write raises. With
        progress: `cas.backup`; the way back: `cas.restore_store`.
        """
        return await self._run(lambda: self.sync.backup(place, accept_damage=accept_damage))

    async def spill(self) -> int:
        """Gather inline packs into a pack file now; how many were gathered."""
        return await self._run(lambda: self.sync.spill())
