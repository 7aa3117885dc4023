"""A transaction: any number of branches, refs and events, visible together or not at all.

Floor 4; implements docs/format.md sections 7.2 and 7.3. Invariant: nothing staged is visible to
anybody else before `commit` returns, and a commit ends in one of three ways: committed, not
committed, or unknown, which the transaction id resolves.

The work is done outside the gate: trees, commits and bytes are made ready against the base that
the transaction saw. Inside the gate the refs are compared, the entry is built, and one catalog
transaction installs everything. One thread uses a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple

import attrs

from cas.catalog.catalog import CatalogReader, CatalogWriter, EntryRow, Head, PackRow
from cas.errors import (
    CasError,
    Closed,
    Invalid,
    LimitExceeded,
    OutcomeUnknown,
    RefNotFound,
    TransactionReused,
    WrongKind,
)
from cas.history.branch import BranchEdit
from cas.history.core import Core
from cas.history.policy import check_changes
from cas.history.timeline import Moment, RefValue, follow, ref_conflict
from cas.limits import (
    ENTRY_BYTES_MAX,
    ENTRY_CHANGES_MAX,
    EVENT_INLINE_BYTES_MAX,
    EVENTS_MAX,
)
from cas.model.entry import (
    NO_REQUEST,
    Entry,
    Event,
    RefChange,
    check_event,
    entry_hash,
    generate_txid,
    request_digest,
    txid_from_key,
)
from cas.model.ids import BlobId, CommitId, Kind, ObjectId, TreeId
from cas.model.names import branch_ref, check_ref_name, tag_ref
from cas.model.objects import Commit, Tag, check_actor, check_message
from cas.objects.batch import Batch, not_committed
from cas.objects.committer import Group
from cas.objects.content import Readable
from cas.storage.pack import Footer
from cas.trees.node import EMPTY_DATA, REFS


@attrs.frozen(slots=True)
class _Plan:
    """What the gate has to do: everything that could be made ready outside."""

    expected: dict[str, RefValue | None]
    targets: dict[str, tuple[int, ObjectId | None]]
    events: tuple[Event, ...]
    request: bytes


class _Published(NamedTuple):
    """What the gate gave, to be taken in once the catalog has said yes."""

    entry: Entry
    before: bytes
    moment: Moment
    head: Head
    rows: list[tuple[PackRow, Footer]]


class Transaction:
    """Begin one with `store.begin`; leaving the block without `commit` rolls back."""

    def __init__(
        self,
        core: Core,
        author: str,
        message: str,
        key: str | None,
        moment: Moment,
        after_commit: Callable[[Entry], None],
    ) -> None:
        self._core = core
        self._objects = core.objects
        self._after_commit = after_commit
        self.author = check_actor(author)
        self.message = check_message(message)
        self._moment = moment
        self._batch = core.objects.new_batch()
        self._branches: dict[str, BranchEdit] = {}
        self._moves: dict[str, tuple[int, ObjectId | None]] = {}
        # For the request digest: (target, message) as the caller gave them. A tag object's own
        # id would differ on a retry, because it holds a time.
        self._asked: dict[str, tuple[ObjectId | None, str | None]] = {}
        self._puts: list[bytes] = []
        self._expected: dict[str, RefValue | None] = {}
        self._events: list[Event] = []
        self._open = True
        if key is None:
            self.txid = generate_txid(moment.seq, core.objects.clock.random(8))
        else:
            self.txid = txid_from_key(key)
        self.keyed = key is not None

    def __repr__(self) -> str:
        return f"<Transaction {self.txid.hex()} by {self.author!r}>"

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open:
            self.rollback()

    def _check_open(self) -> None:
        if not self._open:
            raise Closed("This transaction has ended; begin another.")

    # -- staging -----------------------------------------------------------------------------

    def branch(self, name: str, *, allow_empty: bool = False) -> BranchEdit:
        """The files of a branch, to read and change; a branch that is not there is made.

        `allow_empty` makes a commit even when nothing changes.
        """
        self._check_open()
        ref = branch_ref(name)
        edit = self._branches.get(ref)
        if edit is None:
            if ref in self._moves:
                raise Invalid(f"{ref} is moved in this transaction and cannot be edited as well.")
            base = self._ref(ref)
            edit = BranchEdit(self._core, self._batch, ref, base, allow_empty)
            self._branches[ref] = edit
            self._expected[ref] = base
        edit.allow_empty = edit.allow_empty or allow_empty
        return edit

    def _ref(self, ref: str) -> RefValue | None:
        """Where a ref pointed when this transaction began."""
        return self._core.timeline.value(self._moment, ref)

    def put(self, content: bytes | Readable) -> BlobId:
        """Stage an object of its own; it exists when the transaction commits."""
        self._check_open()
        id, _size = self._core.put_content(self._batch, content)
        self._puts.append(id)
        return BlobId(id)

    def get(self, id: ObjectId) -> bytes:
        """Content of a blob, staged ones included."""
        self._check_open()
        return self._core.staged_blob(self._batch, id)

    def _rely(self, id: bytes) -> None:
        self._check_open()
        if not self._batch.holds(id):
            self._objects.require(id)
            self._batch.rely(id)

    def stage(self, make: Callable[[Batch], ObjectId]) -> ObjectId:
        """Let `make` put objects into this transaction's batch; gives what it gives."""
        return make(self._batch)

    def move(self, ref: str, target: ObjectId) -> None:
        """Point a full ref name at a commit or tag that exists or is staged."""
        self._check_open()
        check_ref_name(ref)
        kind, _content = self._objects.staged(self._batch, target)
        if kind not in (Kind.COMMIT, Kind.TAG):
            raise WrongKind(
                f"A ref points at a commit or a tag; {target.short} is a "
                f"{Kind(kind).name.lower()}.",
                id=target,
                expected=Kind.COMMIT,
                actual=Kind(kind),
            )
        self._rely(target)
        self._set_move(ref, int(kind), target)

    def delete(self, ref: str) -> None:
        """Remove a ref by full name. Raises `RefNotFound`."""
        self._check_open()
        check_ref_name(ref)
        if self._ref(ref) is None:
            raise RefNotFound(f"There is no ref {ref!r} to delete.", ref=ref)
        self._set_move(ref, 0, None)

    def _set_move(self, ref: str, kind: int, target: ObjectId | None) -> None:
        if ref in self._branches:
            raise Invalid(f"{ref} is edited in this transaction and cannot be moved as well.")
        if ref not in self._expected:
            self._expected[ref] = self._ref(ref)
        self._moves[ref] = (kind, target)
        self._asked[ref] = (target, None)

    def tag(self, name: str, target: ObjectId, message: str = "") -> None:
        """Make a tag; with a message an annotated one, a tag object of its own."""
        ref = tag_ref(name)
        asked = target
        if message:
            self._check_open()
            kind, _content = self._objects.staged(self._batch, target)
            self._rely(target)
            value = Tag(target, Kind(kind), self.author, message, self._objects.clock.wall_us())
            target = ObjectId(self._batch.put(Kind.TAG, value.encode()))
        self.move(ref, target)
        self._asked[ref] = (asked, message or None)

    def event(self, type: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Record a domain event in the entry; a body over 256 bytes becomes a blob."""
        self._check_open()
        check_event(type, headers or {})
        if not isinstance(body, bytes | bytearray | memoryview):
            raise Invalid(f"An event's body is bytes, not {body.__class__.__name__}; encode it.")
        body = bytes(body)
        if len(self._events) >= EVENTS_MAX:
            raise LimitExceeded(
                f"A transaction records at most {EVENTS_MAX} events.",
                limit="EVENTS_MAX",
                value=len(self._events) + 1,
                maximum=EVENTS_MAX,
            )
        if len(body) > EVENT_INLINE_BYTES_MAX:
            blob = ObjectId(self._batch.put(Kind.BLOB, body))
            self._events.append(Event(type, None, dict(headers or {}), blob))
        else:
            self._events.append(Event(type, body, dict(headers or {})))

    # -- ending ------------------------------------------------------------------------------

    def rollback(self) -> None:
        """Forget everything staged."""
        if self._open:
            self._open = False
            self._batch.abandon()

    def commit(self) -> Entry:
        """Make everything visible and durable; gives the journal entry.

        With nothing staged that changes anything there is no entry, and the newest one is
        given. Raises `RefConflict` (a ref moved: both sides in its fields), `RefExists`,
        `TransactionReused`, `SessionExpired`, `Busy`, `StorageFull`, `StorageFailed`: not
        committed. Raises `OutcomeUnknown` when even the transaction id could not resolve a
        lost answer. The transaction is over in any case.
        """
        self._check_open()
        try:
            plan = self._prepare()
            if not plan.targets and not plan.events and self._batch.is_empty:
                return self._nothing(plan)
            self._batch.seal()
            try:
                return self._publish(plan)
            except OutcomeUnknown as error:
                return self._resolve(error)
        except BaseException as error:
            self._batch.abandon(error)
            raise
        finally:
            self._open = False

    def _nothing(self, plan: _Plan) -> Entry:
        with self._objects.catalog.read() as reader:
            self._batch.confirm(reader)
        self._batch.abandon()
        before = self._core.outcome(self.txid) if self.keyed else None
        if before is not None:
            # A retry finds its own work done: nothing to change, and an answer to give.
            return self._repeated(before, plan)
        self._objects.catalog.harden()
        entry = self._core.entry(self._moment.seq) if self._moment.seq else None
        if entry is None:
            raise Invalid("Nothing was staged, and the journal is empty: there is no entry.")
        return entry

    def _prepare(self) -> _Plan:
        batch = self._batch
        targets = dict(self._moves)
        for ref, edit in self._branches.items():
            root = edit.finish()
            if root is None:
                continue
            now = self._objects.clock.wall_us()
            commit = Commit(
                TreeId(root), edit.parents, self.author, self.message, now, edit.extras(root)
            )
            id = CommitId(batch.put(Kind.COMMIT, commit.encode()))
            self._core.commits.put(id, commit)
            targets[ref] = (int(Kind.COMMIT), id)
        if len(targets) > ENTRY_CHANGES_MAX:
            raise LimitExceeded(
                f"A transaction moves at most {ENTRY_CHANGES_MAX} refs.",
                limit="ENTRY_CHANGES_MAX",
                value=len(targets),
                maximum=ENTRY_CHANGES_MAX,
            )
        events = tuple(self._events)
        request = NO_REQUEST
        if self.keyed:
            # A generated txid cannot be presented again, so nobody could compare its digest.
            request = request_digest(
                self.author,
                self.message,
                [asked for edit in self._branches.values() if (asked := edit.request())],
                [(ref, *asked) for ref, asked in self._asked.items()],
                self._puts,
                events,
            )
        return _Plan(dict(self._expected), targets, events, request)

    def _publish(self, plan: _Plan) -> Entry:
        """The one catalog transaction that makes everything visible, others' work included."""

        def install(writer: CatalogWriter, group: Group) -> _Published | EntryRow:
            before = self._find_key(writer)
            return self._install(writer, plan, group) if before is None else before

        def finish(done: _Published | EntryRow, mark: int) -> None:
            if isinstance(done, _Published):
                self._batch.installed(done.rows, done.head)
                self._core.timeline.reached(done.moment, done.entry, done.before, mark)

        done = self._objects.committer.run(install, finish)
        if isinstance(done, EntryRow):
            return self._repeated(self._core.timeline.decode(done), plan)
        assert isinstance(done, _Published)
        self._after_commit(done.entry)
        return done.entry

    def _install(self, writer: CatalogWriter, plan: _Plan, group: Group) -> _Published:
        """Inside the gate: compare the refs, build the entry, name the packs."""
        timeline = self._core.timeline
        head = writer.head()
        carried: Moment | None = group.carried
        moment = timeline.now(writer, head) if carried is None else carried
        changes = self._changes(plan, moment)
        check_changes(self._core, self._batch, moment, changes)
        seq = head.seq + 1
        root = timeline.edit(moment.root, changes, seq)
        wall_us = self._objects.clock.wall_us()
        entry = Entry(
            seq,
            wall_us,
            moment.epoch,
            max(wall_us, moment.time_us + 1),
            self.author,
            self.message,
            self.txid,
            plan.request,
            changes,
            plan.events,
            root,
            head.hash,
        )
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
        writer.append_entry(seq, hash, self.txid, data)
        if due:
            writer.add_checkpoint(seq, root)
            # The nodes of later moments are not stored with it, and must not be taken for it.
            group.closed = True
        after = group.carried = follow(moment, entry, hash, stored=due)
        return _Published(entry, moment.root, after, head, rows)

    def _find_key(self, reader: CatalogReader) -> EntryRow | None:
        """The entry that this transaction's key has made before."""
        seq = reader.find_txid(self.txid, None) if self.keyed else None
        return None if seq is None else reader.entry(seq)

    def _stage_checkpoint(self, root: bytes) -> None:
        if root == REFS.empty:
            nodes = [(root, int(Kind.REFS), EMPTY_DATA)]
        else:
            found = self._core.timeline.nodes_to_store(root)
            nodes = [(id, int(Kind.REFS), node.data) for id, node in found]
        self._batch.add_late(nodes)

    def _changes(self, plan: _Plan, moment: Moment) -> tuple[RefChange, ...]:
        """The ref changes, or a conflict with both sides. Raises `RefConflict`, `RefExists`."""
        timeline = self._core.timeline
        changes = []
        for ref, base in plan.expected.items():
            actual = base if moment is self._moment else timeline.get(moment.root, ref)
            if actual != base:
                raise ref_conflict(ref, base, actual, plan.targets.get(ref, (0, None))[1])
        made = {ref for ref, (_kind, target) in plan.targets.items() if target is not None}
        gone = plan.targets.keys() - made
        for ref, (kind, target) in sorted(plan.targets.items(), key=_by_ref):
            base = plan.expected[ref]
            old = None if base is None else base.target
            if old == target:
                continue
            if old is None:
                timeline.check_new(moment.root, ref, made, gone)
            changes.append(RefChange(ref, kind, old, target))
        return tuple(changes)

    def _repeated(self, entry: Entry, plan: _Plan) -> Entry:
        """This key has committed before: once is enough."""
        self._batch.abandon()
        self._objects.catalog.harden()
        if entry.request != plan.request:
            raise TransactionReused(
                f"This transaction key was used for another request (entry {entry.seq}); "
                "nothing was committed. Use a new key.",
                txid=self.txid,
                seq=entry.seq,
            )
        return entry

    def _resolve(self, error: OutcomeUnknown) -> Entry:
        """The answer was lost: ask a fresh connection what happened, for good."""
        try:
            entry = self._core.outcome(self.txid)
        except CasError as failure:
            raise OutcomeUnknown(
                "The answer of the commit was lost and the store cannot be asked "
                f"({failure}). Ask `store.outcome(txid)` later, or retry with the same key.",
                txid=self.txid,
            ) from error
        if entry is None:
            self._batch.abandon()
            raise not_committed(error) from error
        self._batch.resolved()
        self._after_commit(entry)
        return entry


def _by_ref(item: tuple[str, object]) -> bytes:
    return item[0].encode()
