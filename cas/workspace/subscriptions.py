"""Durable subscriptions: a name, a saved position, a handler; dead letters that are seen.

Floor 6. Invariant: an event is handed out at least once, and what its handler stages in the unit of
work it is given takes effect exactly once, because the position moves in the same commit. An
event whose handler keeps failing becomes a dead letter in such a commit, and the next one follows.

Source and target may be two stores: the position lives where the effects do. That is how events are
carried to a context that lives elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Final

from cas.errors import (
    AggregateConflict,
    ConditionFailed,
    HistoryLost,
    Invalid,
    RefConflict,
    Unavailable,
)
from cas.history.store import Store
from cas.limits import HANDLER_ATTEMPTS_MAX, SUBSCRIPTION_LAG_MAX, WORK_ATTEMPTS_MAX
from cas.model.entry import entry_hash
from cas.workspace.contexts import HOME
from cas.workspace.events import CARRIED_BY, CARRIED_FROM, DomainEvent, Position, type_filter
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate
from cas.workspace.work import UnitOfWork
from cas.workspace.workspace import Workspace, to_position

Handler = Callable[[DomainEvent, UnitOfWork], object]
"""What is done about an event. What it stages in the unit of work is committed with the position;
for an effect elsewhere it must bear being called twice with one event."""


@aggregate("subscription", context=HOME)
class Saved(Aggregate):
    """Where a subscription stands; its id is its name."""

    seq: int = part(default=0)
    index: int = part(default=-1)
    source: str = part(default="")
    # Of that entry of the source: a store that was set back has another one there, or none.
    entry_hash: bytes = part(default=b"")
    # Whose move it was: two that make the same move are still two, and one of them is refused.
    turn: str = part(default="")
    handled_count: int = part(default=0, rule="counter")
    dead_count: int = part(default=0, rule="counter")

    @property
    def position(self) -> Position:
        """The position behind what was handled."""
        return Position(self.seq, self.index)


@aggregate("dead_letter", context=HOME)
class DeadLetter(Aggregate):
    """An event whose handler kept failing. Its id is SUBSCRIPTION@POSITION."""

    subscription: str = part(searchable="keyword")
    type: str = part(searchable="keyword")
    seq: int = part()
    index: int = part()
    error: str = part(searchable="text")
    attempts: int = part(default=1)


class EventSubscription:
    """A named reader of the event log. Make one with `cas.subscribe`; one thread uses it, any
    number of processes may run one of the same name.
    """

    def __init__(
        self,
        source: Workspace,
        target: Workspace,
        name: str,
        types: Collection[str] | None,
        attempts_max: int,
        where: Callable[[DomainEvent], bool] | None = None,
    ) -> None:
        if attempts_max < 1:
            raise Invalid(f"`attempts_max` is 1 or more, not {attempts_max}.")
        type_filter(types)
        self.name = name
        self._source = source
        self._target = target
        self._types = types
        self._where = where
        self._attempts_max = attempts_max
        self._actor = f"subscription {name}"
        # Where a commit was refused because others were faster, and how often.
        self._refused: tuple[Position, int] = (Position(), 0)

    @property
    def saved(self) -> Saved:
        """Where it stands, and how much it has handled."""
        found = self._target.collection(Saved).find_one(self.name)
        return self._checked(found)

    def _checked(self, found: Saved | None) -> Saved:
        saved = found or Saved(id=self.name, source=self._source.store.id)
        if saved.source != self._source.store.id:
            raise Invalid(
                f"The subscription {self.name!r} reads the store {saved.source}, not "
                f"{self._source.store.id}; choose another name."
            )
        return saved

    @property
    def position(self) -> Position:
        """The position behind what was handled."""
        return self.saved.position

    def poll(self, handler: Handler, *, limit: int | None = None, batch_count: int = 1) -> int:
        """Hand out the events that wait, each in a commit with the position; how many there were.

        With `batch_count` so many share a commit. Another process with the same name takes turns:
        each event takes effect once. A handler that raises is tried again, and then its event
        becomes a dead letter; `Unavailable` (busy, disk full) is passed on instead. So it becomes
        when others change what it read, or it does itself, each of WORK_ATTEMPTS_MAX times.
        """
        check_handler(handler)
        count = 0
        while limit is None or count < limit:
            most = batch_count if limit is None else min(batch_count, limit - count)
            position, events = self.waiting(most)
            if not events:
                return count
            count += self._handle(handler, events, position)
        return count

    def waiting(self, count: int = 1) -> tuple[Position, list[DomainEvent]]:
        """The position, and the next events behind it: at most so many. Raises `HistoryLost`."""
        position = self._where_it_was()
        events = list(islice(self._found(position), max(count, 1)))
        if not events:
            self._pass_by(position)
        return position, events

    def begin(self, position: Position, events: Sequence[DomainEvent]) -> UnitOfWork:
        """A unit of work in which the move from `position` to behind these events is staged, for
        what is to be done about them; the next step of whoever hands events out by himself.

        Raises `AggregateConflict` where another one was faster.
        """
        cause = events[0] if len(events) == 1 else None
        uow = self._target.unit_of_work(self._actor, "events", cause=cause)
        try:
            self._move(uow, position, events[-1].position, handled=len(events))
        except BaseException:
            uow.rollback()
            raise
        return uow

    def _where_it_was(self) -> Position:
        """The position, if the source still has the entry that it stands behind."""
        saved = self.saved
        newest = self._source.last_event().seq
        hash = self._hash(saved.seq) if saved.seq <= newest else b""
        if saved.seq > newest or (saved.entry_hash and hash != saved.entry_hash):
            raise HistoryLost(
                f"The subscription {self.name!r} stands behind entry {saved.seq} of the store "
                f"{self._source.store.id}, which has none or another one there (its newest is "
                f"{newest}): that store was set back. What it has recorded since would be passed "
                "by; decide what was handled, and `rewind` the subscription to where both agree.",
                seq=saved.seq,
                found=newest,
            )
        return saved.position

    def _hash(self, seq: int) -> bytes:
        """The hash of an entry of the source. Raises `EntryNotFound`."""
        return entry_hash(self._source.store.entry(seq).encode()) if seq else b""

    def _found(self, position: Position) -> Iterator[DomainEvent]:
        found = self._source.events(position, self._types)
        return found if self._where is None else filter(self._where, found)

    def _handle(self, handler: Handler, events: list[DomainEvent], position: Position) -> int:
        try:
            return self._commit(handler, events, position)
        except CONFLICTS as error:
            # Another one was faster, or what the handler read has changed: look again.
            if not self.refused(position):
                return 0
            if len(events) == 1:
                return int(self.bury(position, events[0], WORK_ATTEMPTS_MAX, error))
            return self._handle(handler, events[:1], position)
        except Unavailable:
            raise
        except Exception as error:
            if len(events) > 1:
                # One of them fails: find out which, by themselves.
                return self._handle(handler, events[:1], position)
            return self._again(handler, events[0], position, error)

    def refused(self, position: Position) -> bool:
        """Count that what was to move on from a position was refused by a conflict; whether that
        has been so too often: whoever is faster moves the position, so nobody is, and what the
        handler does can never be committed.
        """
        count = self._refused[1] + 1 if self._refused[0] == position else 1
        self._refused = position, count
        return count >= WORK_ATTEMPTS_MAX

    def _commit(self, handler: Handler, events: list[DomainEvent], position: Position) -> int:
        with self.begin(position, events) as uow:
            for event in events:
                handler(event, uow)
            uow.commit()
        return len(events)

    def _again(
        self, handler: Handler, event: DomainEvent, position: Position, error: Exception
    ) -> int:
        attempts = 1
        while attempts < self._attempts_max:
            attempts += 1
            try:
                return self._commit(handler, [event], position)
            except CONFLICTS as conflict:
                if not self.refused(position):
                    return 0
                error = conflict
                break
            except Unavailable:
                raise
            except Exception as failure:
                error = failure
        return int(self.bury(position, event, attempts, error))

    def bury(
        self, position: Position, event: DomainEvent, attempts: int, error: BaseException
    ) -> bool:
        """Make an event a dead letter, and move on; whether it is one by this."""
        try:
            with self._target.unit_of_work(self._actor, "a dead letter", cause=event) as uow:
                self._move(uow, position, event.position, dead=1)
                letter = DeadLetter(
                    id=f"{self.name}@{event.id}",
                    subscription=self.name,
                    type=event.type,
                    seq=event.position.seq,
                    index=event.position.index,
                    error=f"{type(error).__name__}: {error}"[:2000],
                    attempts=attempts,
                )
                if uow.find_one(DeadLetter, letter.id) is None:
                    uow.add(letter)
                uow.commit()
        except CONFLICTS:
            return False
        return True

    def _move(
        self, uow: UnitOfWork, before: Position, after: Position, *, handled: int = 0, dead: int = 0
    ) -> None:
        """Stage the new position, if the old one still stands. Raises `AggregateConflict`."""
        old = self._checked(uow.find_one(Saved, self.name))
        if old.position != before:
            raise AggregateConflict(
                f"The subscription {self.name!r} stands elsewhere by now.",
                type="subscription",
                id=self.name,
                conflicts=(),
                removed="",
            )
        uow.save(
            old.evolve(
                seq=after.seq,
                index=after.index,
                entry_hash=self._hash(after.seq),
                turn=uow.new_id(),
                handled_count=old.handled_count + handled,
                dead_count=old.dead_count + dead,
            )
        )

    def _pass_by(self, position: Position) -> None:
        """Save the position behind much that was of no interest, so that it is not read again."""
        newest = self._source.last_event()
        if newest.seq - position.seq < SUBSCRIPTION_LAG_MAX:
            return
        try:
            with self._target.unit_of_work(self._actor, "nothing of interest") as uow:
                self._move(uow, position, newest)
                uow.commit()
        except CONFLICTS:
            return

    def run(self, handler: Handler, *, stop: Callable[[], bool], pause_ms: float = 250) -> int:
        """Poll, wait for more, and go on until `stop()` says so; how many events were handled.

        A commit of this handle is seen at once, one of others when its wait of at most `pause_ms`
        is over.
        """
        count = 0
        with self._source.store.follow() as entries:
            while not stop():
                count += self.poll(handler)
                if not stop():
                    entries.poll(pause_ms)
        return count

    def rewind(self, to: Position | int | str = 0, *, actor: str = "") -> None:
        """Hand out again what is behind a position: replay. Also skips forward. Raises
        `EntryNotFound` for an entry that the source does not have.
        """
        position = to_position(to)
        with self._target.unit_of_work(actor or self._actor, f"to {position}") as uow:
            self._move(uow, self.position, position)
            uow.commit()

    def dead_letters(self) -> Iterator[DeadLetter]:
        """The events of this subscription that nobody could handle."""
        return self._target.collection(DeadLetter).find(lambda d: d.subscription == self.name)

    def retry(self, letter: DeadLetter, handler: Handler) -> None:
        """Hand a dead letter out once more; when that succeeds it is gone. Raises what the
        handler raises, and what `again` does.
        """
        check_handler(handler)
        event, uow = self.again(letter)
        with uow:
            handler(event, uow)
            uow.commit()

    def again(self, letter: DeadLetter) -> tuple[DomainEvent, UnitOfWork]:
        """The event of a dead letter, and a unit of work in which the letter is removed, for what
        is to be done about it.

        Raises `Invalid` for a letter of another subscription, `AggregateNotFound` for one that is
        gone, `HistoryLost` where the source no longer has the event.
        """
        if letter.subscription != self.name:
            raise Invalid(
                f"The dead letter {letter.id!r} is of the subscription {letter.subscription!r}, "
                f"not of {self.name!r}."
            )
        place = Position(letter.seq, letter.index)
        before = (
            Position(letter.seq, letter.index - 1) if letter.index else Position(letter.seq - 1)
        )
        event = next(iter(self._source.events(before, [letter.type], limit=1)), None)
        if event is None or event.position != place:
            raise HistoryLost(
                f"The store {self._source.store.id} has no event {letter.type} at {place}: it was "
                f"set back. Remove the dead letter {letter.id!r}, or restore the store.",
                seq=letter.seq,
                found=self._source.last_event().seq,
            )
        uow = self._target.unit_of_work(self._actor, "a dead letter again", cause=event)
        try:
            uow.remove(uow.get(DeadLetter, letter.id))
        except BaseException:
            uow.rollback()
            raise
        return event, uow

    @property
    def attempts_max(self) -> int:
        """How often a handler is tried before its event becomes a dead letter."""
        return self._attempts_max

    @property
    def source(self) -> Workspace:
        """The workspace whose events it reads."""
        return self._source


CONFLICTS: Final = (AggregateConflict, ConditionFailed, RefConflict)
"""What tells that another one was faster, or that what a handler read has changed: look again."""


def check_handler(handler: object) -> None:
    """Refuse what cannot be called, before an event is handed to it. Raises `Invalid`."""
    if not callable(handler):
        raise Invalid(f"A handler is a function of an event and a unit of work, not {handler!r}.")


def subscribe(
    source: Workspace,
    name: str,
    types: Collection[str] | None = None,
    *,
    target: Workspace | None = None,
    attempts_max: int = HANDLER_ATTEMPTS_MAX,
    where: Callable[[DomainEvent], bool] | None = None,
) -> EventSubscription:
    """A subscription of this name; it begins at the first event, or where it was left.

    With `target` effects and position live in another store, and each event takes effect there
    exactly once. `where` picks among the events of these types.
    """
    return EventSubscription(source, target or source, name, types, attempts_max, where)


def carry(source: Workspace, target: Workspace, name: str, types: Collection[str]) -> int:
    """Record the events of these types of one store in another, each once; how many there were.

    A carried event has its actor and place of origin in its headers (`carried-from`,
    `carried-by`). Call it again to go on; a process that ends at any moment loses and doubles none.
    """
    return bring(subscribe(source, name, types, target=target), source.store)


def bring(subscription: EventSubscription, source: Store) -> int:
    """Record what a subscription to a store gives in its target; how many events there were."""

    def record(event: DomainEvent, uow: UnitOfWork) -> None:
        headers = dict(event.headers)
        headers[CARRIED_FROM] = f"{source.id}/{event.id}"
        headers[CARRIED_BY] = event.actor
        uow.transaction.event(event.type, event.body(), headers)

    return subscription.poll(record, batch_count=_CARRIED)


_CARRIED = 64
