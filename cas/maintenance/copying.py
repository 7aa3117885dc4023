"""Objects, refs and journal from one store into another that exists: only what it lacks.

Floor 5. Invariant: what comes in is read verified, its encoding checked, hashed again and stored by
the other store's own writer, so that no delta comes without its base and no byte unproved; objects
and the refs or entries that name them are one transaction.

An object that the other store has is not looked into: all that it names is there too
(docs/design/001). Commits whose content the source has given up come only together with the word
that it was: with the whole journal, or, where that is asked for, as thinned commits of the other
store, by the entry that brings them. Else it would not know that it lacks on purpose. Content
that the source has purged never comes, even where it is still there; its tombstone does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import frozen

from cas.errors import (
    BackupMismatch,
    CorruptObject,
    ObjectNotFound,
    RefConflict,
    RefNotFound,
)
from cas.history.graph import is_ancestor
from cas.history.horizon import (
    Horizon,
    Thinning,
    check_content,
    horizon_now,
    is_thinned,
    thinning_of,
)
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.history.tombstones import ids_at, purged_ids, stage_tombstones
from cas.history.transaction import Transaction
from cas.history.view import Ref
from cas.maintenance.findings import OnProgress, Progress
from cas.maintenance.purge import finish_purges
from cas.model.entry import Entry
from cas.model.ids import CommitId, Kind, ObjectId
from cas.model.names import HEADS, PURGED_REF, TAGS, short_ref
from cas.model.objects import Commit
from cas.model.segment import split_ancestry
from cas.objects.batch import Batch
from cas.objects.children import children
from cas.objects.content import put_stream
from cas.storage.codec import RECIPE
from cas.trees.node import EMPTY_DATA, REFS

_GROUP: Final = 512
"""Objects that are read at once."""


@frozen
class RefCopy:
    """A ref of the other store: where it pointed, and where it points now."""

    ref: str
    old: ObjectId | None
    new: ObjectId


@frozen
class CopyReport:
    """What a copy did: whether the store at `place` was made, the journal entry that it ends with,
    refs that moved, and how many objects, bytes of content (of packs, where it was made) and
    journal entries it lacked. `purged` is content of which tombstones came, because the source has
    purged it; `left_out` content that the store at `place` has purged, which did not come.
    """

    place: str
    created: bool
    seq: int
    refs: tuple[RefCopy, ...]
    object_count: int
    new_bytes: int
    entry_count: int
    purged: tuple[ObjectId, ...] = ()
    left_out: tuple[ObjectId, ...] = ()


class _Carrier:
    """Brings objects from one store into batches of another. One thread."""

    def __init__(
        self,
        source: Store,
        target: Store,
        progress: OnProgress,
        *,
        thinned: bool,
        without_purged: bool = False,
    ) -> None:
        """`thinned`: the other store learns what was thinned, and may lack it too.
        `without_purged`: what that has purged is left out.
        """
        self._source = source
        self._target = target
        self._progress = progress
        self._takes_thinned = thinned
        self._horizon: Horizon = horizon_now(source.core)
        self.thinned: list[CommitId] = []
        """Commits that came without their content."""
        self._purged = purged_ids(source.core)
        self.buried: set[bytes] = set()
        """What was purged, and stays away."""
        self._unwanted = purged_ids(target.core) if without_purged else frozenset()
        self.left_out: set[bytes] = set()
        """What the other store has purged."""
        self.object_count = self.content_bytes = 0

    def bring(self, batch: Batch, roots: Iterable[bytes]) -> None:
        """Stage all that the roots reach and the other store lacks."""
        waiting = list(roots)
        while waiting:
            group = list(dict.fromkeys(waiting[-_GROUP:]))
            del waiting[-_GROUP:]
            lacking = [id for id in group if not self._is_there(batch, id)]
            self.buried |= self._purged.intersection(lacking)
            self.left_out |= self._unwanted.intersection(lacking) - self._purged
            lacking = [id for id in lacking if id not in self._purged | self._unwanted]
            large = [id for id in lacking if self._is_large(id)]
            small = [id for id in lacking if id not in large]
            for id, kind, content in self._source.objects.get_many(small):
                # Foreign bytes: the whole encoding is looked at, not only the hash.
                waiting += self._below(ObjectId(id), kind, content)
                self._take(id, batch.put(kind, content), len(content))
            for id in large:
                with self._source.objects.open(id) as stream:
                    found, size = put_stream(stream, batch, self._target.objects.has)
                self._take(id, found, size)
            if self._progress is not None:
                self._progress(Progress("objects", self.object_count, self.content_bytes, 0))

    def _take(self, id: bytes, found: bytes, size_bytes: int) -> None:
        if found != id:
            raise CorruptObject(f"Object {id.hex()} of the source gives other content.", id=id)
        self.object_count += 1
        self.content_bytes += size_bytes

    def _is_there(self, batch: Batch, id: bytes) -> bool:
        if batch.holds(id):
            return True
        if self._target.objects.lookup.has(id):
            batch.rely(id)
            return True
        return False

    def _is_large(self, id: bytes) -> bool:
        copy = self._source.objects.lookup.find(id)
        return copy is not None and copy.slot.codec == RECIPE

    def _below(self, id: ObjectId, kind: int, content: bytes) -> Sequence[bytes]:
        """What has to come with an object."""
        found = children(kind, content, verified=False)
        if kind != Kind.COMMIT:
            return found
        if not self._takes_thinned:
            check_content(self._source.core, CommitId(id))
        elif is_thinned(self._source.core, self._horizon, id):
            self.thinned.append(CommitId(id))
            return Commit.decode(content, verified=True).parents
        return found


# -- branches and tags -----------------------------------------------------------------------


def copy_refs(
    source: Store,
    target: Store,
    names: Sequence[str],
    *,
    force: bool = False,
    thinned: bool = False,
    without_purged: bool = False,
    author: str = "",
    message: str = "",
    progress: OnProgress = None,
) -> CopyReport:
    """Copy branches and tags with all that they reach, as one entry.

    A branch that is there moves only forward, unless `force`; nor does a tag that is there move.
    With `thinned` commits whose content the source has given up come as their records, and are
    thinned in the other store too, by the same entry and for the reason told there; their content
    cannot come later. With `without_purged` content that the other store has purged is left out:
    its tombstone stands, and says so.

    Raises `RefNotFound`, `RefConflict`, `Thinned` where the source has given up a part of the
    history (unless `thinned`), `WasPurged` where the other store has purged a part of it (unless
    `without_purged`), and what reading and a commit raise.
    """
    wanted = [_named(source, name) for name in dict.fromkeys(names)]
    carrier = _Carrier(source, target, progress, thinned=thinned, without_purged=without_purged)
    moves: list[RefCopy] = []
    buried: set[bytes] = set()
    with target.begin(author=author, message=message or _message(source)) as tx:
        # A ref that moves between the beginning and this look is a conflict at the end.
        there = target.view()
        for ref in wanted:
            old = there.ref(ref.name)
            if old is not None and old.target == ref.target:
                continue
            if old is not None and not force:
                _refuse_sideways(source, ref, old)

            def bring(batch: Batch, id: ObjectId = ref.target) -> ObjectId:
                carrier.bring(batch, [id])
                return id

            tx.move(ref.name, tx.stage(bring))
            moves.append(RefCopy(ref.name, None if old is None else old.target, ref.target))
        if carrier.thinned:
            stage_raise(target.core, tx, 0, _thinnings(source, carrier.thinned))
        if carrier.buried:
            buried = _stage_burials(source, target, tx, carrier.buried)
        seq = tx.commit().seq if moves else there.seq
    return CopyReport(
        target.location,
        False,
        seq,
        tuple(moves),
        carrier.object_count,
        carrier.content_bytes,
        1 if moves else 0,
        tuple(map(ObjectId, sorted(buried))),
        tuple(map(ObjectId, sorted(carrier.left_out))),
    )


def _stage_burials(source: Store, target: Store, tx: Transaction, ids: set[bytes]) -> set[bytes]:
    """Stage the tombstones that the other store lacks: it would take what it lacks for lost."""
    moment = target.core.timeline.now()
    known = ids_at(target.core, moment)
    stones = {bytes(stone.id): stone for stone in source.purged() if stone.id in ids - known}

    def stage(batch: Batch) -> ObjectId:
        batch.buried |= stones.keys()
        return stage_tombstones(target.core, batch, moment, stones, tx.author, tx.message)

    if stones:
        tx.move(PURGED_REF, tx.stage(stage))
    return set(stones)


def _thinnings(source: Store, commits: Iterable[CommitId]) -> dict[CommitId, Thinning]:
    """Why the source has given up the content of these commits."""
    horizon = horizon_now(source.core)
    found = {id: thinning_of(source.core, horizon, id) for id in commits}
    return {id: thinning for id, thinning in found.items() if thinning is not None}


def _message(source: Store) -> str:
    return f"copied from store {source.id}"


def _named(source: Store, name: str) -> Ref:
    view = source.view()
    for full in (name, HEADS + name, TAGS + name):
        ref = view.ref(full)
        if ref is not None and full.startswith((HEADS, TAGS)):
            return ref
    raise RefNotFound(
        f"{name!r} is no branch or tag, and only those are copied; make one with `cas branch`.",
        ref=name,
    )


def _refuse_sideways(source: Store, ref: Ref, old: Ref) -> None:
    """Raise `RefConflict` unless a branch moves forward."""
    if ref.name.startswith(HEADS) and source.has(old.target):
        new = source.resolve(ref.target)
        if is_ancestor(source.core.commits, CommitId(old.target), new):
            return
    raise RefConflict(
        f"{short_ref(ref.name)} is at {old.target.short} there, which does not lead to "
        f"{ref.target.short}; nothing was copied. Merge there, or say that it may move.",
        ref=ref.name,
        expected=None,
        actual=old.target,
    )


# -- the whole journal -----------------------------------------------------------------------


def forward(source: Store, target: Store, *, progress: OnProgress = None) -> CopyReport:
    """Bring a store that was made as a copy of another up to it: entries, as they stand, and what
    they name.

    Raises `BackupMismatch` when the other store is no copy of this one, or has entries of its own.
    """
    first = _common(source, target)
    purged = purged_ids(target.core)
    entries = list(source.journal(first)) if first < source.view().seq else []
    carrier = _Carrier(source, target, progress, thinned=True)
    refs: dict[str, RefCopy] = {}
    if entries:
        batch = target.objects.new_batch()
        try:
            _take_tombstones(source, target, carrier, batch, entries)
            _bring_all(source, carrier, batch, entries)
            batch.buried |= carrier.buried
            _append(source, target, batch, entries)
        except BaseException as error:
            batch.abandon(error)
            raise
        for entry in entries:
            for change in entry.changes:
                known = refs.get(change.ref)
                if change.new is not None:
                    old = change.old if known is None else known.old
                    refs[change.ref] = RefCopy(change.ref, old, change.new)
    # Tombstones came for what the copy had; or a run before this one was cut short behind them.
    finish_purges(target)
    return CopyReport(
        target.location,
        False,
        first + len(entries),
        tuple(refs.values()),
        carrier.object_count,
        carrier.content_bytes,
        len(entries),
        tuple(map(ObjectId, sorted(purged_ids(target.core) - purged))),
    )


def _take_tombstones(
    source: Store, target: Store, carrier: _Carrier, batch: Batch, entries: Sequence[Entry]
) -> None:
    """See to what entries bring and lift of tombstones; they themselves come with the entries."""
    if any(change.ref == PURGED_REF for entry in entries for change in entry.changes):
        # Whoever holds an older set of tombstones has to see that there is another.
        batch.counts = True
        lifted = purged_ids(target.core) - purged_ids(source.core)
        batch.allowed |= lifted
        # What names this is there, and is not looked into.
        carrier.bring(batch, [id for id in lifted if source.has(ObjectId(id))])


def _common(source: Store, target: Store) -> int:
    """Seq of the newest entry of the other store, if the journal here begins with all of it."""
    mine, its = source.objects.meta, target.objects.meta
    lineages = [lineage for lineage, _seq in split_ancestry(its.ancestry)]
    if mine.store_id != its.store_id or mine.lineage_id not in lineages:
        raise _no_copy(target, "it was not made as a copy of this one", "lineage")
    moment = target.core.timeline.now()
    if moment.seq and source.core.entry(moment.seq) is None:
        raise _no_copy(target, "it has entries of its own", "history")
    with source.objects.catalog.read() as reader:
        row = reader.entry(moment.seq)
    if moment.seq and (row is None or row.hash != moment.hash):
        raise _no_copy(target, "it has entries of its own", "history")
    return moment.seq


def _no_copy(target: Store, why: str, reason: str) -> BackupMismatch:
    return BackupMismatch(
        f"The store at {target.location} cannot be brought up to this one: {why}. Copy into a new "
        "folder, or name the branches to copy.",
        path=target.location,
        reason=reason,
    )


def _bring_all(source: Store, carrier: _Carrier, batch: Batch, entries: Sequence[Entry]) -> None:
    """Stage what entries name, as far as the source still has it: what only states before its
    horizon had may be gone.
    """
    boundary = horizon_now(source.core).seq
    newest = {change.ref: change.new for entry in entries for change in entry.changes}
    for entry in entries:
        roots = [event.blob for event in entry.events if event.blob is not None]
        for change in entry.changes:
            if change.new is None:
                continue
            if entry.seq < boundary and newest[change.ref] != change.new:
                try:
                    source.objects.require(change.new)
                except ObjectNotFound:
                    continue
            roots.append(change.new)
        carrier.bring(batch, roots)


def _append(source: Store, target: Store, batch: Batch, entries: Sequence[Entry]) -> None:
    """Install what was staged, and append the entries, in one transaction with a checkpoint."""
    timeline = target.core.timeline
    with source.objects.catalog.read() as reader:
        rows = reader.entries(entries[0].seq - 1, len(entries))
    batch.seal()
    with target.objects.catalog.write() as writer:
        head = writer.head()
        moment = timeline.now(writer, head)
        if moment.hash != entries[0].previous:
            raise _no_copy(target, "it has entries of its own", "history")
        root = moment.root
        for entry in entries:
            root = timeline.edit(root, entry.changes, entry.seq)
        if root != entries[-1].root:
            raise CorruptObject(
                f"Entry {entries[-1].seq} of the source names another root than its changes give; "
                "run `cas fsck` there.",
                id=entries[-1].root,
            )
        if root == REFS.empty:
            nodes = [(root, int(Kind.REFS), EMPTY_DATA)]
        else:
            found = timeline.nodes_to_store(root)
            nodes = [(id, int(Kind.REFS), node.data) for id, node in found]
        batch.add_late(nodes)
        batch.install(writer, head)
        for row, entry in zip(rows, entries, strict=True):
            writer.append_entry(row.seq, row.hash, entry.txid, row.entry)
        writer.add_checkpoint(entries[-1].seq, root)
    batch.resolved()
