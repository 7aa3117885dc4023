"""A transaction: any number of branches, refs and events, visible together or not at all.

Floor 4; implements docs/format.md sections 7.2 and 7.3. Invariant: nothing staged is visible to
anybody else before `commit` returns, and a commit ends in one of three ways: committed, not
committed, or unknown, which the transaction id resolves.

Here is what a transaction is asked for; `publication` makes it visible. One thread uses a
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType

from cas.errors import (
    Closed,
    Invalid,
    LimitExceeded,
    RefNotFound,
    WrongKind,
)
from cas.history.branch import BranchEdit, OnMove
from cas.history.core import Core
from cas.history.publication import Publication, Staged
from cas.history.timeline import Moment, RefValue
from cas.limits import (
    EVENT_INLINE_BYTES_MAX,
    EVENTS_MAX,
)
from cas.model.entry import (
    Entry,
    Event,
    check_event,
    generate_txid,
    txid_from_key,
)
from cas.model.ids import BlobId, Kind, ObjectId
from cas.model.names import branch_ref, check_ref_name, tag_ref
from cas.model.objects import Tag, check_actor, check_message
from cas.objects.batch import Batch
from cas.objects.content import Readable


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
        check_actor(author)
        check_message(message)
        self._moment = moment
        self._batch = core.objects.new_batch()
        if key is None:
            txid = generate_txid(moment.seq, core.objects.clock.random(8))
        else:
            txid = txid_from_key(key)
        self._staged = Staged(author, message, txid, key is not None)
        self._open = True

    @property
    def author(self) -> str:
        """Who."""
        return self._staged.author

    @property
    def message(self) -> str:
        """Why; may be set until the commit. Raises `LimitExceeded`, `Invalid`."""
        return self._staged.message

    @message.setter
    def message(self, text: str) -> None:
        self._staged.message = check_message(text)

    @property
    def txid(self) -> bytes:
        """The transaction's id, by which its outcome can be asked for."""
        return self._staged.txid

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

    def branch(
        self, name: str, *, allow_empty: bool = False, on_move: OnMove = "rebase"
    ) -> BranchEdit:
        """The files of a branch, to read and change; a branch that is not there is made.

        `allow_empty` makes a commit even when nothing changes. If others move the branch
        meanwhile, the commit follows it where they changed nothing that was read or written
        here (its parent is then theirs, and its extra `based_on` names the commit that this
        transaction saw); with `on_move="conflict"` every move is a `RefConflict`.
        """
        self._check_open()
        ref = branch_ref(name)
        edit = self._staged.branches.get(ref)
        if edit is None:
            if ref in self._staged.moves:
                raise Invalid(f"{ref} is moved in this transaction and cannot be edited as well.")
            base = self._ref(ref)
            edit = BranchEdit(self._core, self._batch, ref, base, allow_empty, on_move)
            self._staged.branches[ref] = edit
            self._staged.expected[ref] = base
        edit.allow_empty = edit.allow_empty or allow_empty
        if on_move == "conflict":
            edit.on_move = on_move
        return edit

    def _ref(self, ref: str) -> RefValue | None:
        """Where a ref pointed when this transaction began."""
        return self._core.timeline.value(self._moment, ref)

    def put(self, content: bytes | Readable) -> BlobId:
        """Stage an object of its own; it exists when the transaction commits."""
        self._check_open()
        id, _size = self._core.put_content(self._batch, content)
        self._staged.puts.append(id)
        return BlobId(id)

    def get(self, id: ObjectId) -> bytes:
        """Content of a blob, staged ones included."""
        self._check_open()
        return self._core.staged_blob(self._batch, id)

    @property
    def batch(self) -> Batch:
        """The objects that are staged here."""
        return self._batch

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
        if ref in self._staged.branches:
            raise Invalid(f"{ref} is edited in this transaction and cannot be moved as well.")
        if ref not in self._staged.expected:
            self._staged.expected[ref] = self._ref(ref)
        self._staged.moves[ref] = (kind, target)
        self._staged.asked[ref] = (target, None)

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
        self._staged.asked[ref] = (asked, message or None)

    def event(self, type: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Record a domain event in the entry; a body over 256 bytes becomes a blob."""
        self._check_open()
        check_event(type, headers or {})
        if not type:
            raise Invalid("An event has a type, such as review.started.")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise Invalid(f"An event's body is bytes, not {body.__class__.__name__}; encode it.")
        body = bytes(body)
        if len(self._staged.events) >= EVENTS_MAX:
            raise LimitExceeded(
                f"A transaction records at most {EVENTS_MAX} events.",
                limit="EVENTS_MAX",
                value=len(self._staged.events) + 1,
                maximum=EVENTS_MAX,
            )
        if len(body) > EVENT_INLINE_BYTES_MAX:
            blob = ObjectId(self._core.put_content(self._batch, body)[0])
            self._staged.events.append(Event(type, None, dict(headers or {}), blob))
        else:
            self._staged.events.append(Event(type, body, dict(headers or {})))

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
        `TransactionReused`, `SessionExpired`, `Condemned` (a collection took what this rested on:
        put it again and begin again), `Busy`, `StorageFull`, `StorageFailed`: not
        committed. Raises `OutcomeUnknown` when even the transaction id could not resolve a
        lost answer. The transaction is over in any case.
        """
        self._check_open()
        try:
            return Publication(
                self._core, self._batch, self._moment, self._staged, self._after_commit
            ).run()
        except BaseException as error:
            self._batch.abandon(error)
            raise
        finally:
            self._open = False


Begin = Callable[[str, str], Transaction]
"""Begins a transaction for an author and a message."""
