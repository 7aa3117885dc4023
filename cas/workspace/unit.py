"""A unit of work: aggregates of any contexts and their events, visible together or not at all.

Floor 6. Invariants: nothing is visible before `commit` returns, and leaving the block without it
rolls back; one commit is one journal entry, of one store. What others changed meanwhile is merged
by the rules of its type where this unit has written it, and refuses the commit where this unit has
only read it or made it a condition; nobody's change is lost without a conflict that says so.

It stands on the transactions of history: reads are recorded, a branch that moved is followed, and
what clashes is settled here, inside the gate after the first try, so that nobody starves. One
thread uses a unit of work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from cas.errors import AggregateExists, Invalid, TransactionReused
from cas.history.branch import BranchEdit
from cas.history.store import Store
from cas.history.transaction import Transaction
from cas.model.entry import Entry
from cas.model.ids import BlobId, CommitId
from cas.model.objects import EntryKind
from cas.trees.node import DIRECTORY
from cas.workspace.artifacts import Artifact, check_content
from cas.workspace.clashes import conflict_error
from cas.workspace.codec import from_record, to_record, typed
from cas.workspace.contexts import HOME, Context
from cas.workspace.events import encode_event
from cas.workspace.layout import (
    MAIN,
    context_branch,
    file_parts,
    file_path,
    record_parts,
    record_path,
    snapshot_of,
    stream_path,
)
from cas.workspace.links import Link, check_id, new_id
from cas.workspace.placement import Places, across_stores
from cas.workspace.quotas import quota
from cas.workspace.reading import Reader, Where, not_found
from cas.workspace.registry import Aggregate, AggregateType, type_of
from cas.workspace.settling import Condition, Settler
from cas.workspace.shapes import check_room
from cas.workspace.streams import Sourced, after, check_stated, event_path, next_event

T = TypeVar("T", bound=Aggregate)
S = TypeVar("S", bound=Sourced)
OnConflict = Literal["raise", "keep"]
"""What becomes of fields that no rule merges: the commit is refused, or a conflict is kept."""

Key = tuple[str, str]


class Asked:
    """What a unit of work was begun with."""

    def __init__(
        self,
        actor: str,
        message: str,
        key: str | None,
        branch: str,
        on_conflict: OnConflict,
        headers: Mapping[str, str],
    ) -> None:
        if on_conflict not in ("raise", "keep"):
            raise Invalid(f"on_conflict is raise or keep, not {on_conflict!r}.")
        self.actor = actor
        self.message = message
        self.key = key
        self.branch = branch
        self.on_conflict = on_conflict
        self.headers = headers


class UnitCore:
    """Begin one with `space.unit_of_work(actor=…)`; end it with `commit`."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        asked: Asked,
        declared: Mapping[str, Context],
        places: Places | None = None,
    ) -> None:
        self._store = store
        self._declared = declared
        self._places = places or Places(store)
        self._asked = asked
        self._reader = reader
        self.already: Entry | None = None
        """The entry that a unit of work with this key has made before: this one will do nothing."""
        self._edits: dict[str, tuple[BranchEdit, Settler]] = {}
        # What this unit has made of aggregates; None: removed.
        self._staged: dict[Key, Aggregate | None] = {}
        # The id that was found free last: nothing was staged since that could take its place.
        self._roomy: Key | None = None
        # Whether it has touched something of its store; until then it may go to another one, and
        # takes along the events that belong to no context.
        self._settled_in = False
        self._homeless: list[tuple[str, bytes, dict[str, str]]] = []
        self._tx = self._begin(store)

    def _begin(self, store: Store) -> Transaction:
        asked = self._asked
        if asked.key is not None and self.already is None:
            self.already = store.outcome(asked.key)
        return store.begin(author=asked.actor, message=asked.message, key=asked.key)

    def _enter(self, context: str) -> None:
        """Be in the store in which a context lives. Raises `AcrossStores`."""
        declared = self._declared.get(context)
        store = self._places.store_of(declared)
        if store is not self._store:
            if self._settled_in:
                raise across_stores(context, store, self._store)
            self._tx.rollback()
            self._store = store
            self._reader = Reader(store.core, store.view(), self._asked.branch)
            self._tx = self._begin(store)
            for event in self._homeless:
                self._tx.event(*event)
        self._settled_in = True

    @property
    def store(self) -> Store:
        """The store in which it commits: that of the first context that it touches."""
        return self._store

    @property
    def actor(self) -> str:
        """Who."""
        return self._asked.actor

    @property
    def txid(self) -> bytes:
        """The transaction's id, by which its outcome can be asked for, of `store`."""
        return self._tx.txid

    @property
    def clock(self) -> Any:
        """The store's clock."""
        return self._store.objects.clock

    @property
    def transaction(self) -> Transaction:
        """The transaction below, for what is no aggregate."""
        self._settled_in = True
        return self._tx

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rollback()

    def declared(self, context: str) -> Context | None:
        """What was declared of a context when this unit of work began."""
        return self._declared.get(context)

    def edit(self, context: str) -> BranchEdit:
        """The branch of a context, as this unit of work changes it."""
        return self._edit(context)[0]

    def settler(self, context: str) -> Settler:
        """What settles clashes in a context, for merges that a caller asks for."""
        return self._edit(context)[1]

    def _edit(self, context: str) -> tuple[BranchEdit, Settler]:
        found = self._edits.get(context)
        if found is None:
            self._enter(context)
            edit = self._tx.branch(context_branch(context, self._asked.branch))
            if edit.base is None and self._asked.branch != MAIN:
                self._places.check_branch(self._asked.branch, self._declared.values())
            settler = Settler(self._store, self._tx, edit, self._asked.on_conflict)
            edit.settle = settler
            edit.check = quota(self._store.core, self._declared.get(context))
            found = self._edits[context] = edit, settler
            if edit.base is None and self._store is self._places.home and context != HOME:
                # Nothing here that could tell of it, should the context be declared elsewhere.
                told = self._tx.branch(context_branch(HOME))
                told.entry(record_path(type_of(Context), context))
                told.settle = told.settle or Settler(self._store, self._tx, told, "raise")
        return found

    # -- reading -----------------------------------------------------------------------------

    def get(self, cls: type[T], id: str) -> T:
        """The aggregate of this id, as this unit of work sees it; the reading is recorded.

        Raises `AggregateNotFound`.
        """
        found = self.find_one(cls, id)
        if found is None:
            raise not_found(type_of(cls), id)
        return found

    def find_one(self, cls: type[T], id: str) -> T | None:
        """`get`, or None where there is none: that, too, is recorded."""
        type = type_of(cls)
        if (type.name, id) in self._staged:
            staged = self._staged[type.name, id]
            return None if staged is None else typed(staged, cls)
        found = self._stored(type, id)
        return None if found is None else typed(found, cls)

    def _stored(self, type: AggregateType, id: str) -> Aggregate | None:
        record = self._record(type, id)
        if record is None:
            return None
        return from_record(self._tx.get(record), expected=type, origin=record)

    def _record(self, type: AggregateType, id: str) -> BlobId | None:
        value = self.edit(type.context).find(record_parts(type, id))
        return None if value is None or value[0] == EntryKind.TREE else BlobId(value[1])

    def find(self, cls: type[T], where: Where | None = None, *, guard: bool = False) -> Iterator[T]:
        """The aggregates of which `where` is true, in the order of ids, with what is staged here.

        The whole collection is read. With `guard` the answer becomes a condition: the commit is
        refused if one that matches has come, changed or gone since.
        """
        type = type_of(cls)
        if guard:
            self.ensure(cls, where or _always, f"the {type.collection} that were found")
        base = self._base(type)
        own = {id: value for (name, id), value in self._staged.items() if name == type.name}
        for id, record in base.records(type):
            value = own.pop(id) if id in own else base.load(type, record)
            if value is not None and (where is None or where(value)):
                yield typed(value, cls)
        for _id, added in sorted(own.items()):
            if added is not None and (where is None or where(added)):
                yield typed(added, cls)

    def _base(self, type: AggregateType) -> Reader:
        """What the context was when this unit of work began on it."""
        edit = self.edit(type.context)
        reader = Reader(self._store.core, self._reader.view, self._asked.branch)
        commit = None if edit.base is None else CommitId(edit.base.target)
        reader.preset(type.context, snapshot_of(self._store.core, commit))
        return reader

    def ensure(self, cls: type[T], where: Where, what: str = "") -> None:
        """Commit only if nothing of which `where` is true comes, changes or goes meanwhile.

        `where` is pure and quick: it may be asked while other writers wait. `what` names the
        condition in the error, `ConditionFailed`.
        """
        if not callable(where):
            raise Invalid(f"A condition is a function of an aggregate, not {where!r}.")
        type = type_of(cls)
        edit, settler = self._edit(type.context)
        settler.conditions.append(Condition(type, where, what or f"a condition on {type.name}s"))
        edit.watch(type.collection)

    # -- writing -----------------------------------------------------------------------------

    def new_id(self) -> str:
        """A fresh id; later ones sort later."""
        return new_id(self._store.objects.clock)

    def add(self, value: T) -> T:
        """Stage a new aggregate. Raises `AggregateExists`, `InvalidRecord`, and `Invalid` for an
        event-sourced one (`emit` its first event).
        """
        check_stated(type_of(value.__class__), value.id)
        return self._add(value)

    def _add(self, value: T) -> T:
        type = type_of(value.__class__)
        if self.find_one(value.__class__, value.id) is not None:
            raise AggregateExists(
                f"There is a {type.name} {value.id!r} already; get it and save what becomes of it, "
                "or choose another id.",
                type=type.name,
                id=value.id,
            )
        return self._stage(type, value)

    def add_fresh(self, value: T) -> T:
        """`add` of an aggregate whose id was made here and that nobody can have."""
        return self._stage(type_of(value.__class__), value)

    def emit(self, value: S, type: str, data: Mapping[str, Any] | None = None) -> S:
        """Record an event of an event-sourced aggregate and apply it; gives the new state.

        The event joins the aggregate's stream and the journal (as TYPE OF AGGREGATE.TYPE), the
        state is saved with it. Raises `Invalid`, also for a value that this unit has emitted an
        event of since; what `apply` raises; and `AggregateConflict` when others have added to the
        stream: at once where the value is older, else at the commit.
        """
        kind = type_of(value.__class__)
        said = {} if data is None else data
        newest = self._staged.get((kind.name, value.id), value)
        event = next_event(value, newest, type, said, self.actor, self.clock.wall_us())
        state = self._save(after(value, event))
        self.edit(kind.context)[event_path(kind, value.id, event.number)] = event.encode()
        self.event(f"{kind.name}.{type}", event.data, about=state)
        return state

    def save(self, value: T) -> T:
        """Stage an aggregate: a new one, or what became of one that was read.

        One that was read before others changed it is merged with what stands, by the rules of its
        type. Raises `AggregateExists` for a new one whose id is taken, `AggregateConflict` where
        the rules do not bring both together, `InvalidRecord`; `Invalid` for an event-sourced one,
        whose state only events change (`emit`).
        """
        check_stated(type_of(value.__class__), value.id)
        return self._save(value)

    def _save(self, value: T) -> T:
        type = type_of(value.__class__)
        if value.origin is None:
            return value if self._is_staged(type, value) else self._add(value)
        if (type.name, value.id) in self._staged:
            return self._stage(type, value)
        current = self._record(type, value.id)
        if current != value.origin:
            if type.event_sourced:
                # What was decided on another state is decided anew, even if it looks the same.
                raise conflict_error(type, value.id, ())
            merged = self._edit(type.context)[1].merge_old(type, value, current)
            return typed(self._stage(type, merged), value.__class__)
        return self._stage(type, value)

    def _is_staged(self, type: AggregateType, value: Aggregate) -> bool:
        """Whether this unit has made the aggregate before; then it is staged anew."""
        if self._staged.get((type.name, value.id)) is None:
            return False
        self._stage(type, value)
        return True

    def check_room(self, type: AggregateType, id: str) -> None:
        """Refuse an id that is a path where another one is its folder, or in it, before anything
        is staged for it. Raises `AggregateExists`.
        """
        if self._roomy == (type.name, id):
            return
        nodes = self._store.objects.tree_nodes(DIRECTORY, self._tx.batch)
        check_room(self.edit(type.context), nodes, type, id)
        self._roomy = (type.name, id)

    def _stage(self, type: AggregateType, value: T) -> T:
        check_id(value.id, path=type.path_ids)  # A type that declares its id anew may not.
        record = to_record(value)
        context = self._declared.get(type.context)
        if context is not None:
            context.check_type(type)
            context.check_record(type, value.id, len(record))
            if isinstance(value, Artifact):
                context.check_content(value.id, value.size_bytes)
        if type.path_ids:
            self.check_room(type, value.id)
        if isinstance(value, Artifact):
            check_content(value, self.edit(type.context).find(file_parts(value.id)))
        self.edit(type.context).put_at(record_parts(type, value.id), record, EntryKind.FILE)
        self._staged[type.name, value.id] = value
        return value

    def remove(self, value: Aggregate) -> None:
        """Stage the removal of an aggregate, of an artifact with its content; its history stays.
        Raises `AggregateNotFound`.
        """
        type = type_of(value.__class__)
        if self.find_one(value.__class__, value.id) is None:
            raise not_found(type, value.id)
        edit = self.edit(type.context)
        edit.drop(record_path(type, value.id))
        if type.event_sourced:
            # Its stream ends with it: another one of this id begins anew.
            events = stream_path(type, value.id)
            if edit.entry(events) is not None:
                del edit[events]
        if isinstance(value, Artifact):
            edit.drop(file_path(value.id))
        self._staged[type.name, value.id] = None

    def event(
        self,
        type: str,
        data: Mapping[str, Any] | None = None,
        *,
        about: Aggregate | Link | None = None,
        context: str = "",
    ) -> None:
        """Record a domain event in the same commit: a type such as `sprint.closed`, plain values,
        the aggregate that it is about. Raises `Invalid`, `LimitExceeded`, and `AcrossStores` for
        one of a context that lives elsewhere.
        """
        link = about.link if isinstance(about, Aggregate) else about
        if link is not None and not isinstance(link, Link):
            raise Invalid(f"An event is about an aggregate, or a link to one, not {about!r}.")
        if context:
            context_branch(context)
        if not context and isinstance(about, Aggregate):
            context = type_of(about.__class__).context
        body, headers = encode_event(type, data or {}, link, context, self._asked.headers)
        if context:
            self._enter(context)
        elif not self._settled_in:
            self._homeless.append((type, body, headers))
        self._tx.event(type, body, headers)

    # -- ending ------------------------------------------------------------------------------

    def rollback(self) -> None:
        """Forget everything; harmless when said twice, or after a commit."""
        self._tx.rollback()

    def commit(self) -> Entry:
        """Make everything visible and durable; gives the journal entry.

        With nothing staged there is none, and the newest is given. A unit whose key has
        committed before gives that entry and does nothing. Raises `AggregateConflict`,
        `ConditionFailed`, `RefConflict`: look at both sides and do the work again
        (`space.run` does); and what a transaction raises. It is over in any case.
        """
        if self.already is not None:
            self.rollback()
            return self.already
        try:
            return self._tx.commit()
        except TransactionReused as error:
            # Somebody with the same key was faster: the work is done.
            return self._store.entry(error.seq)
        finally:
            self._staged.clear()


def _always(_value: Any) -> bool:
    return True
