"""Journal entries: what one transaction did, chained by hash to the one before.

Floor 1; implements docs/format.md section 5.5. Invariant: an entry's bytes are canonical and
its hash covers the hash of the entry before, so that no entry can change unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from attrs import field

from cas.errors import Invalid
from cas.limits import ENTRY_BYTES_MAX, ENTRY_CHANGES_MAX, EVENTS_MAX
from cas.model.encoding import (
    ARRAY,
    EMPTY_MAP,
    ID_HEAD,
    NULL,
    STRING,
    decode,
    encode,
    encode_plain,
    head,
    is_extras,
    is_id,
    is_uint,
    plain_map,
    put_text,
    put_uint,
    shape,
)
from cas.model.ids import (
    ENTRY_CONTEXT,
    GENESIS_CONTEXT,
    KEY_CONTEXT,
    REQUEST_CONTEXT,
    ObjectId,
    derive,
)
from cas.model.names import quoted
from cas.model.objects import check_time
from cas.model.values import frozen

TXID_BYTES: Final = 16
_ENTRY_HEAD: Final = head(ARRAY, 13)
_CHANGE_HEAD: Final = head(ARRAY, 4)
_TXID_HEAD: Final = head(STRING, TXID_BYTES)
_NO_EVENTS: Final = head(ARRAY, 0)
NO_REQUEST: Final = bytes(32)
"""Request digest of an entry whose txid was generated."""


@frozen
class RefChange:
    """One ref moved from `old` to `new`; None means that it did not or does not exist.

    `kind` is the kind of object `new` names (3 commit, 4 tag), 0 for a delete.
    """

    ref: str
    kind: int
    old: ObjectId | None
    new: ObjectId | None


@frozen
class Event:
    """A domain event as the store sees it: a type, headers, and an opaque body.

    Exactly one of `body` and `blob` is set; a long body is a blob of its own.
    """

    type: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(factory=dict)
    blob: ObjectId | None = None

    def fields(self) -> list[Any]:
        """As it stands in an entry."""
        if self.blob is not None:
            return [self.type, dict(self.headers), 1, self.blob]
        return [self.type, dict(self.headers), 0, self.body or b""]


@frozen
class Entry:
    """One transaction. Times are microseconds since 1970 UTC; `previous` is a hash."""

    seq: int
    wall_us: int
    epoch: int
    time_us: int
    actor: str
    message: str
    txid: bytes
    request: bytes
    changes: tuple[RefChange, ...]
    events: tuple[Event, ...]
    root: bytes
    previous: bytes
    extras: Mapping[str, Any] = field(factory=dict)

    def target(self, ref: str) -> ObjectId | None:
        """Where this entry moved `ref`; None when it deleted it or left it alone."""
        for change in self.changes:
            if change.ref == ref:
                return change.new
        return None

    def encode(self) -> bytes:
        """Canonical bytes. Raises `Invalid`."""
        # Put together by hand, as commits are: each transaction makes one.
        changes = [head(ARRAY, len(self.changes))]
        for change in self.changes:
            old, new = change.old, change.new
            changes += (
                _CHANGE_HEAD,
                put_text(change.ref),
                put_uint(change.kind),
                NULL if old is None else ID_HEAD + old,
                NULL if new is None else ID_HEAD + new,
            )
        return b"".join(
            (
                _ENTRY_HEAD,
                put_uint(self.seq),
                put_uint(check_time(self.wall_us)),
                put_uint(self.epoch),
                put_uint(self.time_us),
                put_text(self.actor),
                put_text(self.message),
                _TXID_HEAD,
                self.txid,
                ID_HEAD,
                self.request,
                *changes,
                encode([e.fields() for e in self.events]) if self.events else _NO_EVENTS,
                ID_HEAD,
                self.root,
                ID_HEAD,
                self.previous,
                encode(plain_map(self.extras)) if self.extras else EMPTY_MAP,
            )
        )

    @classmethod
    def decode(cls, data: bytes, *, verified: bool = False) -> Entry:
        """The entry of these bytes. Raises `NotCanonical`."""
        shape(len(data) <= ENTRY_BYTES_MAX, f"an entry has at most {ENTRY_BYTES_MAX} bytes")
        fields = decode(data, verified=verified)
        shape(type(fields) is list and len(fields) == 13, "an entry is an array of 13")
        seq, wall, epoch, time, actor, message, txid, request, changes, events = fields[:10]
        root, previous, extras = fields[10:]
        if not (
            # All at once: a writer that finds the entries of three others comes here in the gate.
            tuple(map(type, fields)) == _TYPES
            and 1 <= seq < _END > epoch >= 0 <= wall < _END > time >= 0
            and len(txid) == TXID_BYTES
            and len(request) == len(root) == len(previous) == 32
            and not extras
        ):
            _check_fields(fields)
        return cls(
            seq,
            wall,
            epoch,
            time,
            actor,
            message,
            txid,
            request,
            _changes(changes),
            _events(events),
            root,
            previous,
            extras,
        )


_TYPES: Final = (int, int, int, int, str, str, bytes, bytes, list, list, bytes, bytes, dict)
_END: Final = 1 << 64


def _check_fields(fields: list[Any]) -> None:
    """Say which field of an entry is wrong, if one is. Raises `NotCanonical`."""
    seq, wall, epoch, time, actor, message, txid, request, _changes, _events = fields[:10]
    root, previous, extras = fields[10:]
    for number in (seq, wall, epoch, time):
        shape(is_uint(number), "an entry's seq, times and epoch are numbers")
    shape(seq >= 1, "an entry's seq is 1 or more")
    shape(type(actor) is str and type(message) is str, "actor and message are text")
    shape(type(txid) is bytes and len(txid) == TXID_BYTES, "a txid is 16 bytes")
    for digest in (request, root, previous):
        shape(is_id(digest), "an entry's digests are 32 bytes")
    shape(is_extras(extras), "an entry's extras are a map")


def _changes(fields: Any) -> tuple[RefChange, ...]:
    shape(type(fields) is list and len(fields) <= ENTRY_CHANGES_MAX, "changes are an array")
    changes = []
    before = ""
    for row in fields:
        shape(type(row) is list and len(row) == 4, "a change is an array of 4")
        ref, kind, old, new = row
        if not (
            # A branch moved from commit to commit, which most changes are.
            tuple(map(type, row)) == _MOVE
            and kind == 3
            and len(old) == len(new) == 32
            and old != new
            and not before
            and ref
        ):
            _check_change(row, before)
        changes.append(
            RefChange(
                ref,
                kind,
                None if old is None else ObjectId(old),
                None if new is None else ObjectId(new),
            )
        )
        before = ref
    return tuple(changes)


_MOVE: Final = (str, int, bytes, bytes)


def _check_change(row: list[Any], before: str) -> None:
    """Say what of a change is wrong, if something is. Raises `NotCanonical`."""
    ref, kind, old, new = row
    shape(type(ref) is str and ref.encode() > before.encode(), "changes ascend by ref")
    shape(old is None or is_id(old), "a change's old target is an id or null")
    shape(new is None or is_id(new), "a change's new target is an id or null")
    shape(old != new, "a change changes something")
    shape(is_uint(kind) and kind in ((0,) if new is None else (3, 4)), "a change has a kind")


def _events(fields: Any) -> tuple[Event, ...]:
    shape(type(fields) is list and len(fields) <= EVENTS_MAX, "events are an array")
    events = []
    for row in fields:
        if not (
            # An event whose body is inline, which most are.
            type(row) is list
            and tuple(map(type, row)) == _INLINE
            and row[2] == 0
            and _TEXT.issuperset(map(type, row[1]))
            and _TEXT.issuperset(map(type, row[1].values()))
        ):
            _check_event(row)
        kind, headers, form, body = row
        if form:
            events.append(Event(kind, None, headers, ObjectId(body)))
        else:
            events.append(Event(kind, body, headers))
    return tuple(events)


_INLINE: Final = (str, dict, int, bytes)
_TEXT: Final = frozenset((str,))


def _check_event(row: Any) -> None:
    """Say what of an event is wrong, if something is. Raises `NotCanonical`."""
    shape(type(row) is list and len(row) == 4, "an event is an array of 4")
    kind, headers, form, body = row
    shape(type(kind) is str, "an event's type is text")
    shape(
        is_extras(headers) and all(type(v) is str for v in headers.values()),
        "an event's headers map text to text",
    )
    shape(is_uint(form) and form in (0, 1), "an event's body is inline or a blob")
    shape(type(body) is bytes and (form == 0 or len(body) == 32), "an event's body is bytes")


def check_event(type: str, headers: Mapping[str, str]) -> None:
    """Refuse a type or headers that no reader would take from an entry. Raises `Invalid`.

    An entry that readers refuse would close the whole journal, so nothing unchecked gets in.
    """
    texts: list[object] = [type, *headers.keys(), *headers.values()]
    try:
        for text in texts:
            if not isinstance(text, str):
                raise Invalid(f"An event's type and headers are text, not {text!r}.")
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Invalid(
            f"This text cannot be stored as UTF-8: {quoted(error.object[:40])}."
        ) from error


BranchRequest = tuple[str, bool, Sequence[tuple[bytes, int, bytes | None]]]
"""A full ref name, and (path, kind, id) of what is staged; kind 0 and None for a delete."""


def request_digest(
    author: str,
    message: str,
    branches: Iterable[BranchRequest],
    moves: Iterable[tuple[str, bytes | None, str | None]],
    puts: Iterable[bytes],
    events: Sequence[Event],
) -> bytes:
    """What was asked for, in one hash that the order of asking does not change.

    docs/format.md section 7.3. Paths and refs stand once each, so sorting looks at them alone.
    A move is (ref, target or None, message of an annotated tag or None).
    """
    value = [
        author,
        message,
        [[ref, empty, sorted(map(list, staged))] for ref, empty, staged in sorted(branches)],
        sorted(map(list, moves), key=itemgetter(0)),
        sorted(set(puts)),
        [event.fields() for event in events],
        {},
    ]
    return derive(REQUEST_CONTEXT, (encode if events else encode_plain)(value))


def entry_hash(encoded: bytes) -> bytes:
    """Hash of an entry's bytes, which the next entry carries as `previous`."""
    return derive(ENTRY_CONTEXT, encoded)


def genesis_hash(store_id: bytes) -> bytes:
    """What entry 1 carries as `previous`."""
    return derive(GENESIS_CONTEXT, store_id)


def txid_from_key(key: str) -> bytes:
    """The transaction id of a caller's idempotency key; its top bit is set. Raises `Invalid`."""
    try:
        encoded = key.encode("utf-8")
    except (UnicodeEncodeError, AttributeError) as error:
        raise Invalid(f"A transaction key is text, not {key!r}.") from error
    digest = derive(KEY_CONTEXT, encoded)
    return bytes([digest[0] | 0x80]) + digest[1:TXID_BYTES]


def generate_txid(head_seq: int, random: bytes) -> bytes:
    """A fresh transaction id: the head that its maker saw, then 8 random bytes.

    Because the commit can only follow that head, the entry is found by reading the entries
    after it, and the catalog needs no index of random keys (one page less in each commit).
    """
    return head_seq.to_bytes(8, "big") + random[:8]


def txid_floor(txid: bytes) -> int | None:
    """The seq after which a generated txid must stand, or None when it came from a key.

    Raises `Invalid` for what is no txid.
    """
    if not isinstance(txid, bytes) or len(txid) != TXID_BYTES:
        raise Invalid(f"A transaction id is {TXID_BYTES} bytes, as `Entry.txid` gives them.")
    return None if txid[0] & 0x80 else int.from_bytes(txid[:8], "big")
