"""Links from one aggregate to another, and the names that aggregates go by.

Floor 6. Invariant: a link names a type and an id, which outlive every version; a pinned one also
names the record that it was made against, by its blob id.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import field, frozen

from cas.clock import Clock
from cas.errors import Invalid, InvalidName
from cas.limits import AGGREGATE_ID_BYTES_MAX
from cas.model.ids import BlobId
from cas.model.names import quoted, split_path, to_bytes

_DIGITS: Final = b"0123456789abcdefghjkmnpqrstvwxyz"
"""Those of Crockford, of five bits each."""
_PAIRS: Final = tuple(bytes((a, b)).decode() for a in _DIGITS for b in _DIGITS)
_LOW_BITS: Final = bytes(_DIGITS[byte & 31] for byte in range(256))
is_plain: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}").fullmatch
"""Whether an id is one of the simple ones, which are one name of a path; most are."""
_is_plain_path: Final = re.compile(
    r"(?=.{1,200}\Z)[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
).fullmatch
_RANDOM_DIGITS: Final = 16


@frozen(order=True)
class Link:
    """A typed reference: `type` and `id` of what is meant, `pin` the version of it, if one is."""

    type: str
    id: str
    pin: BlobId | None = field(default=None, order=False)

    def __str__(self) -> str:
        pinned = "" if self.pin is None else f"@{self.pin}"
        return f"{self.type}:{self.id}{pinned}"

    @classmethod
    def parse(cls, text: str) -> Link:
        """The link that `TYPE:ID`, or `TYPE:ID@BLOB`, stands for. Raises `Invalid`."""
        type, colon, rest = text.partition(":")
        if not colon or not type or not rest:
            raise Invalid(f"A link is written TYPE:ID, as in memory:{'x' * 4}, not {text!r}.")
        id, at, pin = rest.rpartition("@")
        if at and len(pin) == 64:
            return cls(type, id, BlobId.parse(pin))
        return cls(type, rest)

    @property
    def loose(self) -> Link:
        """The same link without its pin."""
        return self if self.pin is None else Link(self.type, self.id)


def check_id(id: object, *, path: bool = False) -> str:
    """`id` itself when an aggregate may have it. Raises `InvalidName`.

    Printable text of at most AGGREGATE_ID_BYTES_MAX bytes, without a slash unless the type
    names its aggregates by path.
    """
    if not isinstance(id, str):
        raise InvalidName(f"An id is text, not {id!r}.", name=repr(id), reason="is no text")
    if is_plain(id) or (path and _is_plain_path(id)):
        return id
    reason = _fault(id, path)
    if reason:
        raise InvalidName(f"{quoted(id)} cannot be an id: it {reason}.", name=id, reason=reason)
    return id


def _fault(id: str, path: bool) -> str | None:
    if not id:
        return "is empty"
    if not id.isprintable():
        return "contains a control character"
    if id != id.strip():
        return "begins or ends with a space"
    if not path and "/" in id:
        return "contains a slash"
    try:
        size_bytes = len(to_bytes(id))
        split_path(id)
    except Invalid as error:
        return str(error.fields.get("reason", "is too long"))
    if size_bytes > AGGREGATE_ID_BYTES_MAX:
        return f"has {size_bytes} bytes, more than {AGGREGATE_ID_BYTES_MAX}"
    return None


def new_id(clock: Clock) -> str:
    """A fresh id of 26 letters and digits; later ones sort later, so that a collection grows at
    its end, where a commit writes fewest nodes.
    """
    ms = clock.wall_us() // 1000
    stamp = "".join([_PAIRS[ms >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
    # Of each byte five bits: the others are as random, and not needed.
    return stamp + clock.random(_RANDOM_DIGITS).translate(_LOW_BITS).decode()
