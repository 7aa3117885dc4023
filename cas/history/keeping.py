"""What a store does to keep things: pins, legal holds, rules that protect refs, retention.

Floor 4. Invariant: each call is one transaction that the journal shows. `Store` stands on this
class; it is apart so that each can be read at one sitting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from cas.errors import Invalid, RefNotFound, RevisionNotFound, WrongKind
from cas.later import Later
from cas.model.ids import BlobId, Kind, ObjectId, is_abbreviation
from cas.model.names import HOLDS, PINS, POLICY_REF, PURGED_REF, RETENTION_REF
from cas.model.objects import TAGGED, Tag

if TYPE_CHECKING:
    from cas.history import kept, retention
    from cas.history import policy as policies
    from cas.history import tombstones as stones
    from cas.history.core import Core
    from cas.history.kept import Hold, Pin
    from cas.history.policy import Protection, RefRule
    from cas.history.retention import RetentionPolicy
    from cas.history.tombstones import Tombstone
    from cas.history.transaction import Transaction
    from cas.history.view import View
    from cas.model.entry import Entry
    from cas.objects.batch import Batch
    from cas.objects.content import Readable
else:
    retention = Later("cas.history.retention")
    kept = Later("cas.history.kept")
    policies = Later("cas.history.policy")
    stones = Later("cas.history.tombstones")

_K = TypeVar("_K", "Pin", "Hold")
_VERBS: Final = {PINS: "pin", HOLDS: "hold"}


class Keeping(ABC):
    """The part of `Store` that keeps objects and protects refs. Any thread may use it."""

    core: Core

    @abstractmethod
    def view(self) -> View:
        """All refs and objects as of the newest entry."""

    @abstractmethod
    def begin(self, *, author: str = "", message: str = "", key: str | None = None) -> Transaction:
        """Begin a transaction on the newest state."""

    # -- pins --------------------------------------------------------------------------------

    def pin(self, what: str | ObjectId, reason: str = "", *, author: str = "") -> Pin:
        """Keep an object, and all that it names, until it is unpinned.

        `what` is a revision (its commit is pinned) or the id of a blob, directory, commit or tag.
        Pinning again changes the reason. Raises `ObjectNotFound`, `RevisionNotFound`,
        `AmbiguousRevision`, `WrongKind`, and what a commit raises.
        """
        return self._keep(kept.Pin, PINS, what, reason or "pinned", author)

    def _keep(
        self, make: type[_K], space: str, what: str | ObjectId, reason: str, author: str
    ) -> _K:
        """Point a ref that is named by an object at a tag of that object."""
        view = self.view()
        id = _named(view, what)
        kind, _size = self.core.objects.measure(None, id)
        if kind not in TAGGED:
            raise WrongKind(
                f"{id.short} is a {Kind(kind).name.lower()}, which is kept by what names it.",
                id=id,
                expected=Kind.BLOB,
                actual=Kind(kind),
            )
        with self.begin(author=author, message=f"{_VERBS[space]} {id.short}") as tx:
            clock = self.core.objects.clock
            tag = Tag(id, Kind(kind), author, reason, clock.wall_us())
            target = tx.stage(_staging(tag, id))
            tx.move(space + id.hex(), target)
            entry = tx.commit()
        return make(id, Kind(kind), tag.message, author, tag.time_us, entry.seq)

    def unpin(self, what: str | ObjectId, *, author: str = "") -> Entry:
        """Keep an object no longer. Raises `RefNotFound` when it is not pinned."""
        return self._let_go(PINS, what, author, "unpin", "is not pinned; `cas pin` lists what is.")

    def _let_go(
        self, space: str, what: str | ObjectId, author: str, verb: str, missing: str
    ) -> Entry:
        id = _named(self.view(), what)
        with self.begin(author=author, message=f"{verb} {id.short}") as tx:
            if self.view().ref(space + id.hex()) is None:
                raise RefNotFound(f"{id.short} {missing}", ref=space + id.hex())
            tx.delete(space + id.hex())
            return tx.commit()

    def pins(self) -> list[Pin]:
        """All pins, ascending by id."""
        return self._kept(kept.Pin, PINS)

    def _kept(self, make: type[_K], space: str) -> list[_K]:
        found = []
        for ref in self.view().refs(space):
            tag = Tag.decode(self.core.objects.get(ref.target, Kind.TAG), verified=True)
            found.append(
                make(tag.target, tag.target_kind, tag.message, tag.tagger, tag.time_us, ref.seq)
            )
        return found

    # -- legal holds -------------------------------------------------------------------------

    def hold(self, what: str | ObjectId, reason: str, *, author: str = "") -> Hold:
        """Put an object under a legal hold: nothing gives it up until `release`.

        A commit is held with the content of all that led to it; no retention, purge, undo or rewind
        overrides a hold. `reason`: on what ground. Raises `Invalid` without one, and as `pin` does.
        """
        if not reason.strip():
            raise Invalid("A legal hold needs a reason; say on what ground it is made.")
        return self._keep(kept.Hold, HOLDS, what, reason, author)

    def release(self, what: str | ObjectId, *, author: str = "") -> Entry:
        """Lift a legal hold. Raises `RefNotFound` when there is none on this object."""
        missing = "is under no legal hold; `cas hold` lists what is."
        return self._let_go(HOLDS, what, author, "release", missing)

    def holds(self) -> list[Hold]:
        """All legal holds, ascending by id."""
        return self._kept(kept.Hold, HOLDS)

    # -- retention ---------------------------------------------------------------------------

    def retention(self) -> RetentionPolicy | None:
        """The rules of what is kept for how long that the store holds; None where it has none."""
        return policies.retention_at(self.core, self.core.now())

    def set_retention(self, policy: RetentionPolicy | None, *, author: str = "") -> Entry:
        """Keep a retention policy in the store, or None. It does nothing by itself.

        `plan_retention` and `cas retain` go by it. Raises `Invalid`, and what a commit raises.
        """
        message = "set retention" if policy is not None else "drop retention"
        value = None if policy is None else retention.encode_retention(policy)
        return self._set_policy(RETENTION_REF, value, message, author)

    # -- what was purged ---------------------------------------------------------------------

    def purged(self) -> list[Tombstone]:
        """The tombstones of all content that was purged, ascending by id."""
        return list(stones.tombstones(self.core, self.core.now()))

    def put_purged(self, content: bytes | Readable, *, author: str = "") -> BlobId:
        """`put`, of content that may have been purged: its tombstone is then lifted by the entry.

        Raises what `put` and a commit raise.
        """
        with self.begin(author=author) as tx:
            id = tx.put(content)
            moment = self.core.timeline.now()
            if stones.tombstone_of(self.core, moment, id) is None:
                tx.message = f"put {id.short}"
            else:
                tx.message = f"put {id.short} again, which was purged"

                def lift(batch: Batch) -> ObjectId:
                    batch.allowed.add(bytes(id))
                    return stones.stage_tombstones(
                        self.core, batch, moment, {id: None}, author, tx.message
                    )

                tx.move(PURGED_REF, tx.stage(lift))
            tx.commit()
        return id

    # -- protected refs ----------------------------------------------------------------------

    def protect(
        self, pattern: str, rule: RefRule | str = "forward", *, author: str = ""
    ) -> tuple[Protection, ...]:
        """Protect the refs that are like `pattern`, now and later; gives all rules.

        A pattern is held against full names (`tags/v*`); one that says nothing else is of
        branches. `rule`: `keep` (never deleted), `forward` (nor moved but forward), `frozen`
        (nor changed at all). A transaction of anybody that breaks one raises `RefProtected`.
        Raises `Invalid`, `RefConflict`, and what a commit raises.
        """
        pattern = policies.full_pattern(pattern)
        try:
            wanted = policies.RefRule(rule)
        except ValueError as error:
            raise Invalid(f"A rule is keep, forward or frozen, not {rule!r}.") from error
        others = [known for known in self.protections() if known.pattern != pattern]
        return self._set_rules(
            [*others, policies.Protection(pattern, wanted)], f"protect {pattern}: {wanted}", author
        )

    def unprotect(self, pattern: str, *, author: str = "") -> tuple[Protection, ...]:
        """Lift the rule of exactly this pattern; gives the rules that are left.

        Raises `RefNotFound` when there is none.
        """
        pattern = policies.full_pattern(pattern)
        rules = self.protections()
        left = [rule for rule in rules if rule.pattern != pattern]
        if len(left) == len(rules):
            raise RefNotFound(
                f"No rule has the pattern {pattern!r}; `cas protect` lists the rules.", ref=pattern
            )
        return self._set_rules(left, f"unprotect {pattern}", author)

    def protections(self) -> tuple[Protection, ...]:
        """The rules that hold now, ascending by pattern."""
        return policies.rules_at(self.core, self.core.now())

    def _set_rules(
        self, rules: list[Protection], message: str, author: str
    ) -> tuple[Protection, ...]:
        data = policies.encode_policy(rules)
        self._set_policy(POLICY_REF, data if rules else None, message, author)
        return policies.decode_policy(data)

    def _set_policy(self, ref: str, data: bytes | None, message: str, author: str) -> Entry:
        """Point a ref of the store's own at a tag of these bytes, or nowhere."""
        with self.begin(author=author, message=message) as tx:
            if data is not None:
                _stage_policy(self.core, tx, ref, data, message)
            elif self.view().ref(ref) is not None:
                tx.delete(ref)
            return tx.commit()


def stage_retention(core: Core, tx: Transaction, policy: RetentionPolicy | None) -> None:
    """Let a transaction set the retention policy that the store has, or drop it.

    Raises `Invalid`, and `RefNotFound` where there is none to drop.
    """
    if policy is None:
        tx.delete(RETENTION_REF)
    else:
        _stage_policy(core, tx, RETENTION_REF, retention.encode_retention(policy), "set retention")


def _stage_policy(core: Core, tx: Transaction, ref: str, data: bytes, message: str) -> None:
    blob = tx.put(data)
    tag = Tag(blob, Kind.BLOB, tx.author, message, core.objects.clock.wall_us())
    tx.move(ref, tx.stage(_staging(tag, None)))


def _staging(tag: Tag, relied: ObjectId | None) -> Callable[[Batch], ObjectId]:
    def stage(batch: Batch) -> ObjectId:
        if relied is not None:
            batch.rely(relied)
        return ObjectId(batch.put(Kind.TAG, tag.encode()))

    return stage


def _named(view: View, what: str | ObjectId) -> ObjectId:
    """The object of an id, else the commit of a revision."""
    if isinstance(what, ObjectId):
        return what
    try:
        return ObjectId(view.resolve(what))
    except (RevisionNotFound, WrongKind):
        if not is_abbreviation(what.lower()):
            raise
        return view.find(what)
