"""Rules that protect refs, pins and holds that keep objects, rules of retention as they stand.

Floor 4; implements docs/format.md section 5.7. Invariant: a rule is compared inside the gate, in
the state that a transaction meets there, so that no writer of any process passes one by; rules
and pins are refs themselves, so that the journal says who set or lifted them, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

from cas.errors import CasError, CorruptObject, Invalid, NotCanonical, RefProtected
from cas.history.core import Core
from cas.history.timeline import Moment
from cas.later import Later
from cas.limits import ENTRY_CHANGES_MAX
from cas.model.encoding import decode, encode, shape
from cas.model.entry import RefChange
from cas.model.ids import Kind
from cas.model.names import HEADS, HOLDS, PINS, POLICY_REF, RETENTION_REF, TAGS
from cas.model.objects import Commit, Tag
from cas.model.values import frozen
from cas.objects.store import ObjectStore

if TYPE_CHECKING:
    from cas.history import retention
    from cas.history.retention import RetentionPolicy
    from cas.objects.batch import Batch
else:
    retention = Later("cas.history.retention")

_T = TypeVar("_T")

_SPACES: Final = (HEADS, TAGS, PINS, HOLDS)
_STEPS_MAX: Final = 100_000
"""Commits that are read under the gate to see whether a move leads forward."""


class RefRule(Enum):
    """What a rule forbids. The value is its name in the format and on the command line."""

    KEEP = "keep"
    """The ref may move, and is never deleted."""
    FORWARD = "forward"
    """Nor moved to a commit that does not follow on the one it is at."""
    FROZEN = "frozen"
    """Neither moved nor deleted, nor made where it is not."""

    def __str__(self) -> str:
        return self.value


@frozen
class Protection:
    """A rule for the refs whose full names are like `pattern`, in which `*` goes over slashes."""

    pattern: str
    rule: RefRule


def full_pattern(pattern: str) -> str:
    """A pattern of full ref names; one that says nothing else is of branches. Raises `Invalid`."""
    if not pattern or not pattern.isprintable() or len(pattern) > 255:
        raise Invalid(f"{pattern!r} is no pattern of refs; write one like release/*.")
    return pattern if pattern.startswith(_SPACES) else HEADS + pattern


def encode_policy(rules: Iterable[Protection]) -> bytes:
    """Canonical bytes of a list of rules."""
    listed = sorted((rule.pattern, rule.rule.value) for rule in rules)
    return encode([1, [list(row) for row in listed], {}])


def decode_policy(data: bytes) -> tuple[Protection, ...]:
    """The rules of these bytes. Raises `NotCanonical`."""
    fields = decode(data)
    shape(type(fields) is list and len(fields) == 3 and fields[0] == 1, "a policy is of version 1")
    shape(
        type(fields[1]) is list
        and all(type(row) is list and len(row) == 2 for row in fields[1])
        and all(type(text) is str for row in fields[1] for text in row),
        "a policy lists patterns and rules",
    )
    names = {rule.value for rule in RefRule}
    shape(all(row[1] in names for row in fields[1]), "a policy has the rules keep, forward, frozen")
    return tuple(Protection(pattern, RefRule(rule)) for pattern, rule in fields[1])


# What was read last of each store: a commit must not read two objects for it. Any thread: it is
# replaced as a whole.
_KNOWN: WeakKeyDictionary[ObjectStore, tuple[bytes, tuple[Protection, ...]]] = WeakKeyDictionary()


def rules_at(core: Core, moment: Moment) -> tuple[Protection, ...]:
    """The rules that hold in a state of the store. Raises `Corrupt`."""
    value = core.timeline.known_value(moment.root, POLICY_REF)
    if value is None:
        return ()
    known = _KNOWN.get(core.objects)
    if known is not None and known[0] == value.target:
        return known[1]
    rules = _read(core, None, value.target)
    _KNOWN[core.objects] = (bytes(value.target), rules)
    return rules


def retention_at(core: Core, moment: Moment) -> RetentionPolicy | None:
    """The retention policy in a state of the store, if it has one. Raises `Corrupt`."""
    value = core.timeline.value(moment, RETENTION_REF)
    return None if value is None else _read_retention(core, None, value.target)


def _read(core: Core, batch: Batch | None, target: bytes) -> tuple[Protection, ...]:
    """The rules that a tag names. Raises `CorruptObject` where it is none."""
    return _parsed(core, batch, target, "The rules that protect refs", decode_policy)


def _read_retention(core: Core, batch: Batch | None, target: bytes) -> RetentionPolicy:
    return _parsed(core, batch, target, "The rules of retention", retention.decode_retention)


def _parsed(
    core: Core, batch: Batch | None, target: bytes, what: str, parse: Callable[[bytes], _T]
) -> _T:
    """What the blob says that a tag names. Raises `CorruptObject` where it says nothing."""
    try:
        kind, content = core.objects.staged(batch, target)
        shape(kind == Kind.TAG, "a policy is named by a tag")
        tag = Tag.decode(content, verified=True)
        shape(tag.target_kind == Kind.BLOB, "a policy is a blob")
        return parse(core.objects.staged(batch, tag.target)[1])
    except (NotCanonical, Invalid) as error:
        raise CorruptObject(
            f"{what} cannot be read ({error}); run `cas fsck`.", id=target
        ) from error


def check_changes(core: Core, batch: Batch, moment: Moment, changes: Sequence[RefChange]) -> None:
    """Raise `RefProtected` where a rule forbids a change, `Invalid` where one sets no rules.

    Called inside the gate, with the state that the changes are for.
    """
    rules = rules_at(core, moment)
    for change in changes:
        if change.ref == POLICY_REF and change.new is not None:
            try:
                _read(core, batch, change.new)
            except CorruptObject as error:
                raise Invalid("What is to protect refs is no list of rules.") from error
        if change.ref == RETENTION_REF and change.new is not None:
            try:
                _read_retention(core, batch, change.new)
            except CorruptObject as error:
                raise Invalid("What is to say how long things are kept is no policy.") from error
        for rule in rules:
            if fnmatchcase(change.ref, rule.pattern):
                _check(core, batch, change, rule)


def _check(core: Core, batch: Batch, change: RefChange, rule: Protection) -> None:
    if rule.rule == RefRule.FROZEN:
        what = "changed" if change.old is not None else "made"
    elif change.new is None:
        what = "deleted"
    elif rule.rule == RefRule.FORWARD and not _leads_on(core, batch, change):
        what = "moved to what does not follow on it"
    else:
        return
    raise RefProtected(
        f"{change.ref} is protected ({rule.pattern} is {rule.rule}) and cannot be {what}; "
        "nothing was committed. `cas protect -d` lifts the rule.",
        ref=change.ref,
        pattern=rule.pattern,
        rule=rule.rule.value,
    )


def _leads_on(core: Core, batch: Batch, change: RefChange) -> bool:
    """Whether the new commit of a ref has the old one among its ancestors."""
    if change.old is None or change.new is None:
        return True
    seen: set[bytes] = set()
    level: list[bytes] = [change.new]
    while level and len(seen) < _STEPS_MAX:
        below: list[bytes] = []
        for id in level:
            if id == change.old:
                return True
            try:
                kind, content = core.objects.staged(batch, id)
            except CasError:
                continue  # given up, or not there: nothing leads on through it
            if kind == Kind.COMMIT:
                parents = Commit.decode(content, verified=True).parents
                below += [parent for parent in parents if parent not in seen]
                seen.update(parents)
        level = below
    return False


assert ENTRY_CHANGES_MAX <= 100_000, "each change of an entry is held against each rule"
