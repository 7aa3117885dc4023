"""What a store does to keep things: pins, and rules that protect refs.

Floor 4. Invariant: each call is one transaction that the journal shows. `Store` stands on this
class; it is apart so that each can be read at one sitting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from cas.errors import Invalid, RefNotFound, RevisionNotFound, WrongKind
from cas.history.core import Core
from cas.history.policy import (
    Pin,
    Protection,
    RefRule,
    decode_policy,
    encode_policy,
    full_pattern,
    rules_at,
)
from cas.history.view import View
from cas.model.entry import Entry
from cas.model.ids import Kind, ObjectId, is_abbreviation
from cas.model.names import PINS, POLICY_REF
from cas.model.objects import TAGGED, Tag
from cas.objects.batch import Batch

if TYPE_CHECKING:
    from cas.history.transaction import Transaction


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
        with self.begin(author=author, message=f"pin {id.short}") as tx:
            clock = self.core.objects.clock
            tag = Tag(id, Kind(kind), author, reason or "pinned", clock.wall_us())
            target = tx.stage(_staging(tag, id))
            tx.move(_pin_ref(id), target)
            entry = tx.commit()
        return Pin(id, Kind(kind), tag.message, author, tag.time_us, entry.seq)

    def unpin(self, what: str | ObjectId, *, author: str = "") -> Entry:
        """Keep an object no longer. Raises `RefNotFound` when it is not pinned."""
        id = _named(self.view(), what)
        with self.begin(author=author, message=f"unpin {id.short}") as tx:
            if self.view().ref(_pin_ref(id)) is None:
                raise RefNotFound(
                    f"{id.short} is not pinned; `cas pin` lists what is.", ref=_pin_ref(id)
                )
            tx.delete(_pin_ref(id))
            return tx.commit()

    def pins(self) -> list[Pin]:
        """All pins, ascending by id."""
        found = []
        for ref in self.view().refs(PINS):
            tag = Tag.decode(self.core.objects.get(ref.target, Kind.TAG), verified=True)
            pin = Pin(tag.target, tag.target_kind, tag.message, tag.tagger, tag.time_us, ref.seq)
            found.append(pin)
        return found

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
        pattern = full_pattern(pattern)
        try:
            wanted = RefRule(rule)
        except ValueError as error:
            raise Invalid(f"A rule is keep, forward or frozen, not {rule!r}.") from error
        others = [known for known in self.protections() if known.pattern != pattern]
        return self._set_rules(
            [*others, Protection(pattern, wanted)], f"protect {pattern}: {wanted}", author
        )

    def unprotect(self, pattern: str, *, author: str = "") -> tuple[Protection, ...]:
        """Lift the rule of exactly this pattern; gives the rules that are left.

        Raises `RefNotFound` when there is none.
        """
        pattern = full_pattern(pattern)
        rules = self.protections()
        left = [rule for rule in rules if rule.pattern != pattern]
        if len(left) == len(rules):
            raise RefNotFound(
                f"No rule has the pattern {pattern!r}; `cas protect` lists the rules.", ref=pattern
            )
        return self._set_rules(left, f"unprotect {pattern}", author)

    def protections(self) -> tuple[Protection, ...]:
        """The rules that hold now, ascending by pattern."""
        return rules_at(self.core, self.view().moment)

    def _set_rules(
        self, rules: list[Protection], message: str, author: str
    ) -> tuple[Protection, ...]:
        data = encode_policy(rules)
        with self.begin(author=author, message=message) as tx:
            if rules:
                blob = tx.put(data)
                clock = self.core.objects.clock
                tag = Tag(blob, Kind.BLOB, author, message, clock.wall_us())
                tx.move(POLICY_REF, tx.stage(_staging(tag, None)))
            else:
                tx.delete(POLICY_REF)
            tx.commit()
        return decode_policy(data)


def _staging(tag: Tag, relied: ObjectId | None) -> Callable[[Batch], ObjectId]:
    def stage(batch: Batch) -> ObjectId:
        if relied is not None:
            batch.rely(relied)
        return ObjectId(batch.put(Kind.TAG, tag.encode()))

    return stage


def _pin_ref(id: ObjectId) -> str:
    return PINS + id.hex()


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
