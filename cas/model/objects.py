"""Commits, tags, recipes and directory entries as frozen values that validate themselves.

Floor 1; implements docs/format.md sections 5.2-5.4. Invariant: `decode_x(encode_x(value)) ==
value`, and decoding refuses every byte sequence that encoding does not give. Tree nodes are
columns rather than values and live in `cas.trees.node`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from attrs import field

from cas.errors import Invalid, LimitExceeded
from cas.limits import (
    ACTOR_BYTES_MAX,
    COMMIT_PARENTS_MAX,
    ID_BYTES,
    MESSAGE_BYTES_MAX,
    RECIPE_LEVEL_MAX,
    RECIPE_SPANS_MAX,
)
from cas.model.encoding import (
    ARRAY,
    EMPTY_MAP,
    ID_HEAD,
    decode,
    encode,
    head,
    is_extras,
    is_id,
    is_uint,
    plain_map,
    put_text,
    put_uint,
    shape,
)
from cas.model.ids import CommitId, Kind, ObjectId, TreeId, digest_of
from cas.model.names import quoted
from cas.model.values import frozen


class EntryKind(IntEnum):
    """What a directory entry is."""

    FILE = 1
    EXECUTABLE = 2
    LINK = 3
    TREE = 4


FILE: Final = int(EntryKind.FILE)
EXECUTABLE: Final = int(EntryKind.EXECUTABLE)
LINK: Final = int(EntryKind.LINK)
TREE: Final = int(EntryKind.TREE)
"""The same as plain numbers, as nodes of trees hold them: to compare with these costs a fifth of
comparing with a member.
"""


@frozen
class TreeEntry:
    """One entry of a directory: what it is, which object, how many bytes of content."""

    kind: EntryKind
    id: ObjectId
    size: int

    @property
    def is_tree(self) -> bool:
        """Whether the entry is a directory."""
        return self.kind == EntryKind.TREE


def check_text(value: str, limit: str, maximum_bytes: int) -> str:
    """`value` itself when it is UTF-8 of at most `maximum_bytes`. Raises `LimitExceeded`,
    `Invalid`.
    """
    if type(value) is str and len(value) <= maximum_bytes and value.isascii():
        return value
    if not isinstance(value, str):
        raise Invalid(f"Authors and messages are text, not {type(value).__name__}.")
    try:
        size_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise Invalid(f"This text cannot be stored as UTF-8: {quoted(value[:40])}.") from error
    if size_bytes > maximum_bytes:
        raise LimitExceeded(
            f"A text of {size_bytes} bytes is too long; at most {maximum_bytes} are allowed.",
            limit=limit,
            value=size_bytes,
            maximum=maximum_bytes,
        )
    return value


def check_actor(value: str) -> str:
    """An author or actor: at most 1 KiB of text."""
    return check_text(value, "ACTOR_BYTES_MAX", ACTOR_BYTES_MAX)


def check_message(value: str) -> str:
    """A message: at most 64 KiB of text."""
    return check_text(value, "MESSAGE_BYTES_MAX", MESSAGE_BYTES_MAX)


def check_time(value_us: int) -> int:
    """A wall time, µs since 1970 UTC. Raises `Invalid`: what lies before cannot be stored."""
    if not (type(value_us) is int and 0 <= value_us < _TIME_END):
        raise Invalid(f"The time {value_us} µs cannot be stored; set the clock of this host.")
    return value_us


_TIME_END: Final = 1 << 64
_COMMIT_HEAD: Final = head(ARRAY, 6) + ID_HEAD
_PARENTS_HEADS: Final = (
    head(ARRAY, 0),
    *(head(ARRAY, count) + ID_HEAD for count in range(1, COMMIT_PARENTS_MAX + 1)),
)

TAGGED: Final = (Kind.BLOB, Kind.TREE, Kind.COMMIT, Kind.TAG)
"""Kinds of object that a tag may name."""


@frozen
class Commit:
    """A version of a tree. `time_us` is wall time, microseconds since 1970 UTC."""

    tree: TreeId
    parents: tuple[CommitId, ...]
    author: str
    message: str
    time_us: int
    extras: Mapping[str, Any] = field(factory=dict)

    def encode(self) -> bytes:
        """Canonical bytes. Raises `LimitExceeded`, `Invalid`."""
        if len(self.parents) > COMMIT_PARENTS_MAX:
            raise LimitExceeded(
                f"A commit has at most {COMMIT_PARENTS_MAX} parents.",
                limit="COMMIT_PARENTS_MAX",
                value=len(self.parents),
                maximum=COMMIT_PARENTS_MAX,
            )
        check_text(self.author, "ACTOR_BYTES_MAX", ACTOR_BYTES_MAX)
        check_text(self.message, "MESSAGE_BYTES_MAX", MESSAGE_BYTES_MAX)
        # Put together by hand: each small durable commit makes one, and an encoder looks at every
        # item of it to find out what it is.
        return b"".join(
            (
                _COMMIT_HEAD,
                self.tree,
                _PARENTS_HEADS[len(self.parents)],
                ID_HEAD.join(self.parents),
                put_text(self.author),
                put_text(self.message),
                put_uint(check_time(self.time_us)),
                encode(plain_map(self.extras)) if self.extras else EMPTY_MAP,
            )
        )

    @classmethod
    def decode(cls, data: bytes, *, verified: bool = False) -> Commit:
        """The commit of these bytes. Raises `NotCanonical`."""
        fields = decode(data, verified=verified)
        shape(type(fields) is list and len(fields) == 6, "a commit is an array of 6")
        tree, parents, author, message, time_us, extras = fields
        shape(is_id(tree), "a commit's tree is an id")
        shape(
            type(parents) is list
            and len(parents) <= COMMIT_PARENTS_MAX
            and all(is_id(p) for p in parents),
            "a commit's parents are ids",
        )
        shape(_is_text(author, ACTOR_BYTES_MAX), "a commit's author is text")
        shape(_is_text(message, MESSAGE_BYTES_MAX), "a commit's message is text")
        shape(is_uint(time_us), "a commit's time is a number")
        shape(is_extras(extras), "a commit's extras are a map")
        return cls(
            TreeId(tree), tuple(CommitId(p) for p in parents), author, message, time_us, extras
        )

    @property
    def conflicts(self) -> TreeId | None:
        """The directory that holds the conflicts of this commit, if it has any."""
        root = self.extras.get("conflicts")
        return TreeId(root) if root is not None and is_id(root) else None

    @property
    def id(self) -> CommitId:
        """Id of this commit; encodes and hashes at each call."""
        return CommitId(digest_of(Kind.COMMIT, self.encode()))


@frozen
class Tag:
    """A name with a message for another object."""

    target: ObjectId
    target_kind: Kind
    tagger: str
    message: str
    time_us: int
    extras: Mapping[str, Any] = field(factory=dict)

    def encode(self) -> bytes:
        """Canonical bytes. Raises `LimitExceeded`, `Invalid`."""
        check_actor(self.tagger)
        check_message(self.message)
        check_time(self.time_us)
        if self.target_kind not in TAGGED:
            raise Invalid(
                f"A tag names a blob, a directory, a commit or a tag, not a "
                f"{Kind(self.target_kind).name.lower()}."
            )
        return encode(
            [
                self.target,
                int(self.target_kind),
                self.tagger,
                self.message,
                self.time_us,
                plain_map(self.extras),
            ]
        )

    @classmethod
    def decode(cls, data: bytes, *, verified: bool = False) -> Tag:
        """The tag of these bytes. Raises `NotCanonical`."""
        fields = decode(data, verified=verified)
        shape(type(fields) is list and len(fields) == 6, "a tag is an array of 6")
        target, kind, tagger, message, time_us, extras = fields
        shape(is_id(target), "a tag's target is an id")
        shape(
            is_uint(kind) and kind in TAGGED,
            "a tag's target kind is 1-4",
        )
        shape(_is_text(tagger, ACTOR_BYTES_MAX), "a tag's tagger is text")
        shape(_is_text(message, MESSAGE_BYTES_MAX), "a tag's message is text")
        shape(is_uint(time_us), "a tag's time is a number")
        shape(is_extras(extras), "a tag's extras are a map")
        return cls(ObjectId(target), Kind(kind), tagger, message, time_us, extras)


@frozen
class Recipe:
    """How to rebuild content: spans in order. Level 0 spans are chunks, others are recipes.

    `ids` is 32 bytes a span, `sizes` the bytes of content each span gives.
    """

    level: int
    ids: bytes
    sizes: tuple[int, ...]
    extras: Mapping[str, Any] = field(factory=dict)

    @property
    def size(self) -> int:
        """Bytes of content all spans give."""
        return sum(self.sizes)

    def span(self, index: int) -> bytes:
        """Id of one span."""
        return self.ids[index * ID_BYTES : (index + 1) * ID_BYTES]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return encode([self.level, self.ids, list(self.sizes), plain_map(self.extras)])

    @classmethod
    def decode(cls, data: bytes, *, verified: bool = False) -> Recipe:
        """The recipe of these bytes. Raises `NotCanonical`."""
        fields = decode(data, verified=verified)
        shape(type(fields) is list and len(fields) == 4, "a recipe is an array of 4")
        level, ids, sizes, extras = fields
        shape(is_uint(level) and level <= RECIPE_LEVEL_MAX, "a recipe's level is 0, 1 or 2")
        shape(
            type(sizes) is list
            and 1 <= len(sizes) <= RECIPE_SPANS_MAX
            and all(is_uint(s) and s >= 1 for s in sizes),
            "a recipe has 1 to 1,024 spans of 1 byte or more",
        )
        shape(
            type(ids) is bytes and len(ids) == ID_BYTES * len(sizes),
            "a recipe has one id for each span",
        )
        shape(is_extras(extras), "a recipe's extras are a map")
        return cls(level, ids, tuple(sizes), extras)


def _is_text(value: Any, maximum_bytes: int) -> bool:
    return type(value) is str and len(value.encode("utf-8")) <= maximum_bytes
