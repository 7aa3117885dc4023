"""Taking back what an entry did, and going back to a moment, by a new entry.

Floor 4. Invariant: nothing is removed from the journal; a ref is put back only from where the
entry left it, so that nobody's later work is undone unseen; a plan writes nothing.

An undo records the event `cas.undo` with the header `entry`, a redo `cas.redo` with the entry of
the undo that it took back, a restore `cas.restore` with the header `to`: with them, "the newest
entry that can be undone" is found by reading the journal backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal

from attrs import frozen

from cas.errors import (
    AmbiguousRevision,
    EntryNotFound,
    HorizonFixed,
    Invalid,
    OnHold,
    PathNotFound,
    RefConflict,
    RevisionNotFound,
    UndoBeforeHorizon,
)
from cas.history.core import Core
from cas.history.horizon import horizon_now
from cas.history.revision import split_path
from cas.history.transaction import Begin, Transaction
from cas.history.view import View
from cas.limits import UNDO_SCAN_ENTRIES_MAX
from cas.model.entry import Entry, Event
from cas.model.ids import ObjectId
from cas.model.names import HEADS, HOLDS, HORIZON_REF, PURGED_REF, TAGS, quoted, short_ref
from cas.model.objects import TreeEntry

Verb = Literal["undo", "redo"]

UNDO: Final = "cas.undo"
REDO: Final = "cas.redo"
RESTORE: Final = "cas.restore"
_ENTRY: Final = "entry"
_GROUP: Final = 256
"""Entries that the search for what to undo reads at a time."""


@frozen
class RefMove:
    """A ref that goes from `old` to `new`; None where it does not exist."""

    ref: str
    old: ObjectId | None
    new: ObjectId | None


@frozen
class RefClash:
    """A ref that has moved since the entry: it left it at `left`, now it is at `actual`.

    `wanted` is where it was before the entry. None where it does not exist.
    """

    ref: str
    left: ObjectId | None
    actual: ObjectId | None
    wanted: ObjectId | None


@frozen
class UndoPlan:
    """What undoing (or redoing) entry `seq` would do. With clashes nothing would be done."""

    verb: Verb
    seq: int
    moves: tuple[RefMove, ...]
    clashes: tuple[RefClash, ...]
    about: str
    """Message of the entry."""

    @property
    def clean(self) -> bool:
        """Whether every ref is where the entry left it, or back already."""
        return not self.clashes


@frozen
class RestorePlan:
    """What going back to the moment `seq` would do.

    Either refs move, or (for a path) the branch gets a commit in which `path` is `entry` again.
    """

    seq: int
    target: str | None
    moves: tuple[RefMove, ...] = ()
    branch: str | None = None
    head: ObjectId | None = None
    path: str = ""
    current: TreeEntry | None = None
    entry: TreeEntry | None = None

    @property
    def is_empty(self) -> bool:
        """Whether everything is as it was then."""
        return not self.moves and self.current == self.entry


@frozen
class Undone:
    """What an undo, redo or restore did: `entry` is None where there was nothing to do, or where
    clashes stood against it.
    """

    seq: int
    entry: Entry | None
    moves: tuple[RefMove, ...]
    clashes: tuple[RefClash, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing stood against it."""
        return not self.clashes


# -- undo and redo -------------------------------------------------------------------------------


def plan_undo(core: Core, view: View, seq: int | None, verb: Verb) -> UndoPlan:
    """What taking back one entry would do, as of a view.

    Without `seq` the newest entry that was not undone yet; to redo, the newest undo that was not
    redone. Raises `EntryNotFound`, `Invalid` for an entry that moved no ref, or that is no undo
    though it should be redone, `UndoBeforeHorizon`, and `HorizonFixed` or `OnHold` for one that
    raised the horizon or set a hold.
    """
    if seq is None:
        seq = _newest(core, view.seq, verb)
    entry = core.entry(seq)
    if entry is None or seq > view.seq:
        raise EntryNotFound(f"The journal has no entry {seq}; its newest is {view.seq}.", seq=seq)
    _check_undo(core, entry, verb)
    if verb == "redo" and _mark(entry, UNDO) is None:
        raise Invalid(
            f"Entry {seq} is no undo, so there is nothing to redo; `cas undo` takes it back."
        )
    if not entry.changes:
        raise Invalid(
            f"Entry {seq} moved no branch or tag, so there is nothing to {verb}; events that were "
            "recorded stay recorded."
        )
    moves, clashes = [], []
    for change in entry.changes:
        found = view.ref(change.ref)
        actual = None if found is None else found.target
        if actual == change.new:
            moves.append(RefMove(change.ref, actual, change.old))
        elif actual != change.old:
            clashes.append(RefClash(change.ref, change.new, actual, change.old))
    return UndoPlan(verb, seq, tuple(moves), tuple(clashes), entry.message)


def _check_undo(core: Core, entry: Entry, verb: Verb) -> None:
    """Raise where an entry cannot be taken back, whatever it did: what was there before it was
    given up, or it did what only another command lifts.
    """
    horizon = horizon_now(core)
    if entry.seq <= horizon.seq:
        raise UndoBeforeHorizon(
            f"Entry {entry.seq} cannot be {verb}ne: what was there before it was given up. "
            f"Entries behind {horizon.seq} can be.",
            seq=entry.seq,
            boundary=horizon.seq,
        )
    for change in entry.changes:
        if change.ref in (HORIZON_REF, PURGED_REF):
            raise HorizonFixed(
                f"Entry {entry.seq} gave up content (retention or purge), which cannot be "
                f"{verb}ne.",
                boundary=horizon.seq,
            )
        if change.ref.startswith(HOLDS):
            raise OnHold(
                f"Entry {entry.seq} set or lifted a legal hold, which cannot be {verb}ne; "
                "`cas hold` sets one, `cas hold -d` lifts it.",
                id=ObjectId(bytes.fromhex(change.ref[len(HOLDS) :])),
                hold=None,
            )


def apply_undo(
    plan: UndoPlan, view: Callable[[], View], begin: Begin, author: str, message: str
) -> Undone:
    """Do what a plan says, as one entry. Raises `RefConflict` when a ref moved since then."""
    if plan.clashes or not plan.moves:
        return Undone(plan.seq, None, plan.moves, plan.clashes)
    about = plan.about.partition("\n")[0][:200]
    with begin(author, message or f"{plan.verb} entry {plan.seq}: {about}".rstrip(": ")) as tx:
        _move(tx, plan.moves, view())
        kind = UNDO if plan.verb == "undo" else REDO
        tx.event(kind, b"", {_ENTRY: str(plan.seq)})
        entry = tx.commit()
    return Undone(plan.seq, entry, plan.moves)


def _move(tx: Transaction, moves: tuple[RefMove, ...], view: View) -> None:
    """Stage moves whose refs are where the plan saw them.

    A move between the beginning of `tx` and `view` is seen here, a later one by the commit.
    """
    for move in moves:
        found = view.ref(move.ref)
        actual = None if found is None else found.target
        if actual != move.old:
            raise RefConflict(
                f"{short_ref(move.ref)} moved since this was planned; plan it again.",
                ref=move.ref,
                expected=move.old,
                actual=actual,
            )
        if move.new is None:
            tx.delete(move.ref)
        else:
            tx.move(move.ref, move.new)


def _mark(entry: Entry, type: str) -> int | None:
    """The entry that this one has undone or redone, or None."""
    for event in entry.events:
        if event.type == type:
            return _number(event)
    return None


def _number(event: Event) -> int | None:
    text = event.headers.get(_ENTRY, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _newest(core: Core, head: int, verb: Verb) -> int:
    """The newest entry that can be undone, or the newest undo that can be redone."""
    taken_back: set[int] = set()
    for entry in _backwards(core, head):
        undone, redone = _mark(entry, UNDO), _mark(entry, REDO)
        if entry.seq in taken_back:
            continue
        if redone is not None:
            taken_back.add(redone)
        elif undone is not None:
            if verb == "redo":
                return entry.seq
            taken_back.add(undone)
        elif verb == "undo" and any(_can_go_back(change.ref) for change in entry.changes):
            return entry.seq
    raise EntryNotFound(
        f"There is nothing to {verb} in the newest {UNDO_SCAN_ENTRIES_MAX:,} entries; name one, "
        "as `cas journal` shows them.",
        seq=head,
    )


def _backwards(core: Core, head: int) -> Iterator[Entry]:
    """Entries from the newest on, as far back as a search goes."""
    oldest = max(0, head - UNDO_SCAN_ENTRIES_MAX)
    while head > oldest:
        start = max(oldest, head - _GROUP)
        yield from reversed(list(core.timeline.entries(start, head - start)))
        head = start


# -- restore -------------------------------------------------------------------------------------


def plan_restore(view: View, then: View, target: str | None) -> RestorePlan:
    """What going back to the moment of `then` would do.

    `target` is a branch or tag, `BRANCH:PATH`, or None for all refs. Raises `RevisionNotFound`,
    `AmbiguousRevision`, and `PathNotFound` for a path that is there neither now nor then.
    """
    if target is None:
        return RestorePlan(then.seq, None, _moves(view, then, lambda _name: True))
    name, path = split_path(target)
    ref = _named(view, then, name)
    if not path:
        return RestorePlan(then.seq, target, _moves(view, then, lambda other: other == ref))
    if not ref.startswith(HEADS):
        raise Invalid(f"A path is restored in a branch; {name!r} is a tag.")
    head = view.ref(ref)
    current = None if head is None else view.snapshot(head.target).entry(path)
    past = then.ref(ref)
    entry = None if past is None else then.snapshot(past.target).entry(path)
    if current is None and entry is None:
        raise PathNotFound(
            f"There is no {quoted(path)} in {name}, neither now nor after entry {then.seq}.",
            path=path,
        )
    return RestorePlan(
        then.seq,
        target,
        branch=ref,
        head=None if head is None else head.target,
        path=path,
        current=current,
        entry=entry,
    )


def _can_go_back(ref: str) -> bool:
    """Whether a ref is put back with others: horizon, tombstones and legal holds never are."""
    return ref not in (HORIZON_REF, PURGED_REF) and not ref.startswith(HOLDS)


def _moves(view: View, then: View, wanted: Callable[[str], bool]) -> tuple[RefMove, ...]:
    now = {ref.name: ref.target for ref in view.refs()}
    past = {ref.name: ref.target for ref in then.refs()}
    return tuple(
        RefMove(name, now.get(name), past.get(name))
        for name in sorted(now.keys() | past.keys())
        if wanted(name) and _can_go_back(name) and now.get(name) != past.get(name)
    )


def _named(view: View, then: View, name: str) -> str:
    """The one ref of this name that is there now or was then."""
    wanted = [name] if name.startswith((HEADS, TAGS)) else [HEADS + name, TAGS + name]
    found = [ref for ref in wanted if view.ref(ref) is not None or then.ref(ref) is not None]
    if not found:
        raise RevisionNotFound(
            f"{name!r} is no branch or tag, neither now nor after entry {then.seq}.", revision=name
        )
    if len(found) > 1:
        raise AmbiguousRevision(
            f"{name!r} could be any of: {', '.join(found)}. Use one of these in full.",
            revision=name,
            candidates=found,
        )
    return found[0]


def apply_restore(
    plan: RestorePlan, view: Callable[[], View], begin: Begin, author: str, message: str
) -> Undone:
    """Do what a plan says, as one entry. Raises `RefConflict` when a ref moved since then."""
    if plan.is_empty:
        return Undone(plan.seq, None, ())
    what = "everything" if plan.target is None else plan.target
    with begin(author, message or f"restore {what} as of entry {plan.seq}") as tx:
        if plan.branch is None:
            _move(tx, plan.moves, view())
            moves = plan.moves
        else:
            edit = tx.branch(plan.branch)
            actual = None if edit.base is None else edit.base.target
            if actual != plan.head:
                raise RefConflict(
                    f"{short_ref(plan.branch)} moved since this was planned; plan it again.",
                    ref=plan.branch,
                    expected=plan.head,
                    actual=actual,
                )
            if plan.entry is None:
                del edit[plan.path]
            else:
                edit.put_entry(plan.path, plan.entry)
        tx.event(RESTORE, b"", {"to": str(plan.seq), "target": plan.target or ""})
        entry = tx.commit()
        if plan.branch is not None:
            moves = tuple(RefMove(c.ref, c.old, c.new) for c in entry.changes)
    return Undone(plan.seq, entry, moves)
