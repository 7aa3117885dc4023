"""How a transaction becomes visible: what it asks for, made into one entry inside the gate.

Floor 4; implements docs/format.md sections 7.2 and 7.3. Invariant: what is published was compared
with the newest refs inside the gate; a branch that moved meanwhile was followed only where that
touches nothing that the transaction has read or written; and a commit ends in one of three ways:
committed, not committed, or unknown, which the transaction id resolves.

All that can be made ready outside the gate is: trees, commits and bytes, against the base that
the transaction saw. A branch that moved is followed outside once, and inside after that, so that
nobody starves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from cas.catalog.catalog import CatalogReader, CatalogWriter, EntryRow, Head, PackRow
from cas.errors import (
    CasError,
    Invalid,
    LimitExceeded,
    OutcomeUnknown,
    RefConflict,
    TransactionReused,
)
from cas.history.branch import BranchEdit
from cas.history.core import Core
from cas.history.horizon import moves_horizon
from cas.history.policy import check_changes
from cas.history.timeline import Moment, RefValue, follow
from cas.history.tombstones import check_tombstones
from cas.later import Later
from cas.limits import (
    ENTRY_BYTES_MAX,
    ENTRY_CHANGES_MAX,
)
from cas.model.entry import (
    NO_REQUEST,
    Entry,
    Event,
    RefChange,
    entry_hash,
    request_digest,
)
from cas.model.ids import Kind, ObjectId, as_commit_id, as_tree_id
from cas.model.names import HOLDS, POLICIES, PURGED_REF
from cas.model.objects import Commit
from cas.objects.batch import Batch
from cas.objects.committer import Group, not_committed
from cas.storage.pack import Footer
from cas.trees.node import EMPTY_DATA, REFS

if TYPE_CHECKING:
    from cas.history import thinning
else:
    thinning = Later("cas.history.thinning")

_COMMIT: Final = int(Kind.COMMIT)


class _Plan(NamedTuple):
    """What the gate has to do: everything that could be made ready outside."""

    expected: dict[str, RefValue | None]
    targets: dict[str, tuple[int, ObjectId | None]]
    events: tuple[Event, ...]
    request: bytes
    makes_rules: bool
    """Whether it moves a ref that says what a store goes by, which no branch is."""


class _Published(NamedTuple):
    """What the gate gave, to be taken in once the catalog has said yes."""

    entry: Entry
    before: bytes
    moment: Moment
    head: Head
    rows: list[tuple[PackRow, Footer]]


class Staged:
    """What a transaction asks for. It fills this; nobody else has it. One thread."""

    __slots__ = (
        "asked",
        "author",
        "branches",
        "events",
        "expected",
        "keyed",
        "message",
        "moves",
        "puts",
        "txid",
    )

    def __init__(self, author: str, message: str, txid: bytes, keyed: bool) -> None:
        self.author = author
        self.message = message
        self.txid = txid
        self.keyed = keyed
        self.branches: dict[str, BranchEdit] = {}
        self.moves: dict[str, tuple[int, ObjectId | None]] = {}
        # For the request digest: (target, message) as the caller gave them. A tag object's own
        # id would differ on a retry, because it holds a time.
        self.asked: dict[str, tuple[ObjectId | None, str | None]] = {}
        self.puts: list[bytes] = []
        self.expected: dict[str, RefValue | None] = {}
        self.events: list[Event] = []


class Publication:
    """One attempt to commit. Used once, by the thread of the transaction."""

    def __init__(
        self,
        core: Core,
        batch: Batch,
        moment: Moment,
        staged: Staged,
        after_commit: Callable[[Entry], None],
    ) -> None:
        self._core = core
        self._objects = core.objects
        self._batch = batch
        self._moment = moment
        self._staged = staged
        self._after_commit = after_commit
        # What the batch held before trees and commits came in, so that they can be made anew.
        self._mark = batch.mark()
        self._followed = False
        # The entry that the newest attempt to install has made.
        self._made: Entry | None = None
        # Legal holds, where the transaction may bury what one covers.
        self._holds: dict[str, RefValue] = {}
        if PURGED_REF in staged.moves:
            timeline = core.timeline
            self._holds = timeline.recall(moment, lambda root: dict(timeline.list(root, HOLDS)))

    def run(self) -> Entry:
        """The entry. Raises what `Transaction.commit` raises."""
        plan = self._prepare()
        if not plan.targets and not plan.events and self._batch.is_empty:
            return self._nothing(plan)
        self._batch.seal()
        try:
            done = self._publish(plan)
            if isinstance(done, Moment):
                self._followed = True
                plan = self._follow(plan, done)
                self._batch.seal()
                done = self._publish(plan)
            assert not isinstance(done, Moment)
            return done
        except OutcomeUnknown as error:
            return self._resolve(error, plan)

    def _follow(self, plan: _Plan, moment: Moment) -> _Plan:
        """The plan anew, on the refs of a later moment. Raises `RefConflict`.

        docs/format.md section 7.3: a branch that moved is followed where what changed in it
        touches nothing that this transaction has read or written; else both sides are told.
        """
        timeline = self._core.timeline
        # Before the branches follow: what these stage anew is to stay.
        self._batch.rewind(self._mark)
        for ref, base in plan.expected.items():
            actual = timeline.value(moment, ref)
            if actual == base:
                continue
            edit = self._staged.branches.get(ref)
            if edit is None or not edit.follow(actual):
                raise _ref_conflict(ref, base, actual, plan.targets.get(ref, (0, None))[1])
            self._staged.expected[ref] = actual
        self._mark = self._batch.mark()
        return self._prepare(plan.request)

    def _nothing(self, plan: _Plan) -> Entry:
        with self._objects.catalog.read() as reader:
            self._batch.confirm(reader)
        self._batch.abandon()
        before = self._core.outcome(self._staged.txid) if self._staged.keyed else None
        if before is not None:
            # A retry finds its own work done: nothing to change, and an answer to give.
            return self._repeated(before, plan)
        self._objects.catalog.harden()
        entry = self._core.entry(self._moment.seq) if self._moment.seq else None
        if entry is None:
            raise Invalid("Nothing was staged, and the journal is empty: there is no entry.")
        return entry

    def _prepare(self, request: bytes = NO_REQUEST) -> _Plan:
        batch = self._batch
        targets = dict(self._staged.moves)
        for ref, edit in self._staged.branches.items():
            root = edit.finish()
            if root is None:
                continue
            now = self._objects.clock.wall_us()
            commit = Commit(
                as_tree_id(root),
                edit.parents,
                self._staged.author,
                self._staged.message,
                now,
                edit.extras(root),
            )
            id = as_commit_id(batch.put(_COMMIT, commit.encode(), ()))
            self._core.commits.put(id, commit)
            self._core.commits.keep_edits(id, edit.tree, edit.staged)
            targets[ref] = (_COMMIT, id)
        if len(targets) > ENTRY_CHANGES_MAX:
            raise LimitExceeded(
                f"A transaction moves at most {ENTRY_CHANGES_MAX} refs.",
                limit="ENTRY_CHANGES_MAX",
                value=len(targets),
                maximum=ENTRY_CHANGES_MAX,
            )
        events = tuple(self._staged.events)
        if self._staged.keyed and request == NO_REQUEST:
            # A generated txid cannot be presented again, so nobody could compare its digest.
            request = request_digest(
                self._staged.author,
                self._staged.message,
                [asked for edit in self._staged.branches.values() if (asked := edit.request())],
                [(ref, *asked) for ref, asked in self._staged.asked.items()],
                self._staged.puts,
                events,
            )
        moves = self._staged.moves
        rules = bool(moves) and any(ref.startswith(POLICIES) for ref in moves)
        return _Plan(dict(self._staged.expected), targets, events, request, rules)

    def _publish(self, plan: _Plan) -> Entry | Moment:
        """The one catalog transaction that makes everything visible, others' work included.

        A moment is what a branch is to be followed to first, outside the gate.
        """

        def install(writer: CatalogWriter, group: Group) -> _Published | EntryRow | Moment:
            before = self._find_key(writer) if self._staged.keyed else None
            return self._install(writer, plan, group) if before is None else before

        def finish(done: _Published | EntryRow | Moment, mark: int) -> None:
            if isinstance(done, _Published):
                self._batch.installed(done.rows, done.head)
                self._core.timeline.reached(done.moment, done.entry, done.before, mark)

        # Rules are checked against what states of the past name, which the catalog tells.
        done = self._objects.committer.run(install, finish, alone=plan.makes_rules)
        if isinstance(done, EntryRow):
            return self._repeated(self._core.timeline.decode(done), plan)
        if isinstance(done, Moment):
            return done
        assert isinstance(done, _Published)
        self._after_commit(done.entry)
        return done.entry

    def _install(self, writer: CatalogWriter, plan: _Plan, group: Group) -> _Published | Moment:
        """Inside the gate: compare the refs, build the entry, name the packs."""
        timeline = self._core.timeline
        head = writer.head()
        carried: Moment | None = group.carried
        moment = timeline.now(writer, head) if carried is None else carried
        if moment is not self._moment and self._has_moved(plan, moment):
            distant = self._objects.catalog.is_distant
            if not self._followed and (distant or not self._batch.is_small):
                # Much to make anew, or far to fetch: not while everybody waits, unless it has
                # been tried.
                return moment
            # What stood ready is taken apart, perhaps for a base that is rolled back.
            group.bound = True
            self._batch.before = group.batches
            try:
                plan = self._follow(plan, moment)
            finally:
                self._batch.before = None
        changes = self._changes(plan, moment)
        rules = plan.makes_rules
        unruled = not rules and timeline.is_unruled(moment.root)
        if not unruled:
            check_changes(self._core, self._batch, moment, changes)
            if moves_horizon(self._core, moment, changes):
                thinning.check_horizon(self._core, self._batch, moment, changes)
            check_tombstones(self._core, self._batch, moment, changes, self._holds)
        seq = head.seq + 1
        root = timeline.edit(moment.root, changes, seq)
        if unruled:
            timeline.unruled = root
        wall_us = self._objects.clock.wall_us()
        entry = Entry(
            seq,
            wall_us,
            moment.epoch,
            max(wall_us, moment.time_us + 1),
            self._staged.author,
            self._staged.message,
            self._staged.txid,
            plan.request,
            changes,
            plan.events,
            root,
            head.hash,
        )
        self._made = entry
        data = entry.encode()
        if len(data) > ENTRY_BYTES_MAX:
            raise LimitExceeded(
                f"An entry of {len(data)} bytes is too long; at most {ENTRY_BYTES_MAX} "
                "are allowed. Move fewer refs or record fewer events at once.",
                limit="ENTRY_BYTES_MAX",
                value=len(data),
                maximum=ENTRY_BYTES_MAX,
            )
        due = timeline.checkpoint_due(moment)
        if due:
            self._stage_checkpoint(root)
        rows = self._batch.install(writer, head)
        # From here on this transaction is in the hands of the engine.
        hash = entry_hash(data)
        writer.append_entry(seq, hash, self._staged.txid, data)
        if due:
            writer.add_checkpoint(seq, root)
            # The nodes of later moments are not stored with it, and must not be taken for it.
            group.closed = True
        elif rules:
            # What the next member has to read of it can be read when this transaction is over.
            group.closed = True
        group.batches.append(self._batch)
        after = group.carried = follow(moment, entry, hash, stored=due)
        return _Published(entry, moment.root, after, head, rows)

    def _has_moved(self, plan: _Plan, moment: Moment) -> bool:
        """Whether a ref is elsewhere than this transaction expects."""
        get = self._core.timeline.get
        return any(get(moment.root, ref) != base for ref, base in plan.expected.items())

    def _find_key(self, reader: CatalogReader) -> EntryRow | None:
        """The entry that this transaction's key has made before."""
        seq = reader.find_txid(self._staged.txid, None)
        return None if seq is None else reader.entry(seq)

    def _stage_checkpoint(self, root: bytes) -> None:
        if root == REFS.empty:
            nodes = [(root, int(Kind.REFS), EMPTY_DATA)]
        else:
            found = self._core.timeline.nodes_to_store(root)
            nodes = [(id, int(Kind.REFS), node.data) for id, node in found]
        self._batch.add_late(nodes)

    def _changes(self, plan: _Plan, moment: Moment) -> tuple[RefChange, ...]:
        """The ref changes of refs that are where they should be. Raises `RefExists`."""
        targets, changes = plan.targets, []
        for ref in sorted(targets, key=str.encode):
            kind, target = targets[ref]
            base = plan.expected[ref]
            old = None if base is None else base.target
            if old == target:
                continue
            if old is None:
                made = {ref for ref, (_kind, target) in targets.items() if target is not None}
                gone = targets.keys() - made
                self._core.timeline.check_new(moment.root, ref, made, gone)
            changes.append(RefChange(ref, kind, old, target))
        return tuple(changes)

    def _repeated(self, entry: Entry, plan: _Plan) -> Entry:
        """This key has committed before: once is enough."""
        self._batch.abandon()
        self._objects.confirm()
        if entry.request != plan.request:
            raise TransactionReused(
                f"This transaction key was used for another request (entry {entry.seq}); "
                "nothing was committed. Use a new key.",
                txid=self._staged.txid,
                seq=entry.seq,
            )
        return entry

    def _resolve(self, error: OutcomeUnknown, plan: _Plan) -> Entry:
        """The answer was lost: ask a fresh connection what happened, for good."""
        try:
            entry = self._core.outcome(self._staged.txid)
        except CasError as failure:
            raise OutcomeUnknown(
                "The answer of the commit was lost and the store cannot be asked "
                f"({failure}). Ask `store.outcome(txid)` later, or retry with the same key.",
                txid=self._staged.txid,
            ) from error
        if entry is None:
            self._batch.abandon()
            raise not_committed(error) from error
        if entry != self._made:
            # Not what this attempt wrote: an entry that the key had made before.
            return self._repeated(entry, plan)
        self._batch.resolved()
        self._after_commit(entry)
        return entry


def _ref_conflict(
    ref: str, base: RefValue | None, actual: RefValue | None, proposed: ObjectId | None
) -> RefConflict:
    """The error for a ref that moved, with both sides."""
    how = f"({_short(base)} -> {_short(actual)})"
    if base is not None and actual is not None and base.target == actual.target:
        how = f"(away from {_short(base)}, and back)"
    return RefConflict(
        f"{ref} moved since this transaction began {how}; "
        "nothing was committed. Begin again from the new state.",
        ref=ref,
        expected=None if base is None else base.target,
        actual=None if actual is None else actual.target,
        proposed=proposed,
    )


def _short(value: RefValue | None) -> str:
    return "nothing" if value is None else value.target.short
