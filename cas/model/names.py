"""The grammar of entry names, paths and ref names.

Floor 1; implements docs/format.md section 4. Invariant: what these functions accept is what a
tree node or the refs tree may hold, and nothing else is. Names are bytes inside the store and
`str` with surrogateescape outside, so that every name a file system gives survives the trip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from cas.errors import InvalidName, LimitExceeded
from cas.limits import (
    ENTRY_NAME_BYTES_MAX,
    PATH_BYTES_MAX,
    PATH_DEPTH_MAX,
    REF_NAME_BYTES_MAX,
)

Path = tuple[bytes, ...]
"""A path, as the names of its entries, from the top down."""

STORE_FOLDER: Final = ".cas"
"""The folder of a store that lies in the folder that it keeps."""
CACHE: Final = "cache"
"""What may be deleted at any time, in the folder of a store."""
INDEXES: Final = "recall"
"""Where search indexes lie, in the cache: the one thing there that has texts in it."""
CLAIM: Final = "cas-store.json"
"""Says which store a prefix of an object store, or a folder of packs, belongs to."""

MAIN: Final = "main"
"""The branch that is meant where none is named."""

HEADS: Final = "heads/"
TAGS: Final = "tags/"
PINS: Final = "pins/"
"""Before the id of an object that is kept."""
HOLDS: Final = "holds/"
"""Before the id of an object that is under a legal hold."""
POLICIES: Final = "policy/"
"""Before the names of the refs that lead to what a store goes by."""
POLICY_REF: Final = "policy/refs"
"""The ref that leads to the rules which protect refs."""
RETENTION_REF: Final = "policy/retention"
"""The ref that leads to the rules of what is kept for how long."""
PURGED_REF: Final = "policy/purged"
"""The ref that leads to the tombstones of what was purged."""
HORIZON_REF: Final = "policy/horizon"
"""The ref that leads to how far back the store can be read, and what was thinned."""

_REF_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|@\{|\.\.")
# Most names, told in one call; the others are looked at one rule at a time.
_PLAIN_NAME = re.compile(rb"[^/\0.][^/\0]{0,254}").fullmatch
_PLAIN_PATH = re.compile(rb"(?:[^/\0.][^/\0]{0,254}/){1,15}[^/\0.][^/\0]{0,254}").fullmatch
_KEPT = re.compile(r"(?:pins|holds)/[0-9a-f]{64}")
_POLICY_REFS: Final = frozenset((POLICY_REF, RETENTION_REF, HORIZON_REF, PURGED_REF))
_LOOKS_LIKE_ID = re.compile(r"(?=.*[a-fA-F])[0-9a-fA-F]{8,64}")


def check_entry_name(name: bytes) -> bytes:
    """`name` itself when it may stand in a directory. Raises `InvalidName`, `LimitExceeded`."""
    if _PLAIN_NAME(name):
        return name
    if len(name) > ENTRY_NAME_BYTES_MAX:
        raise LimitExceeded(
            f"The name {to_text(name)[:40]!r}… has {len(name)} bytes; "
            f"at most {ENTRY_NAME_BYTES_MAX} are allowed.",
            limit="ENTRY_NAME_BYTES_MAX",
            value=len(name),
            maximum=ENTRY_NAME_BYTES_MAX,
        )
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        reason = (
            "is empty"
            if not name
            else "contains a NUL byte"
            if b"\0" in name
            else "contains a slash"
            if b"/" in name
            else "names a directory itself or its parent"
        )
        raise InvalidName(
            f"{quoted(name)} cannot be a name: it {reason}.", name=to_text(name), reason=reason
        )
    return name


def split_path(path: str | bytes) -> Path:
    """The entry names of a path, one or more. Raises `InvalidName`, `LimitExceeded`."""
    raw = path.encode() if type(path) is str and path.isascii() else to_bytes(path)
    if _PLAIN_NAME(raw):
        return (raw,)
    if _PLAIN_PATH(raw):
        return tuple(raw.split(b"/"))
    if len(raw) > PATH_BYTES_MAX:
        raise LimitExceeded(
            f"A path of {len(raw)} bytes is too long; at most {PATH_BYTES_MAX} are allowed.",
            limit="PATH_BYTES_MAX",
            value=len(raw),
            maximum=PATH_BYTES_MAX,
        )
    parts = tuple(raw.split(b"/"))
    if len(parts) > PATH_DEPTH_MAX:
        raise LimitExceeded(
            f"A path of {len(parts)} names is too deep; at most {PATH_DEPTH_MAX} are allowed.",
            limit="PATH_DEPTH_MAX",
            value=len(parts),
            maximum=PATH_DEPTH_MAX,
        )
    for part in parts:
        if not part and len(parts) > 1:
            raise InvalidName(
                f"{quoted(raw)} cannot be a path: one slash stands between two names, none at an "
                "end.",
                name=to_text(raw),
                reason="has an empty name",
            )
        check_entry_name(part)
    return parts


def to_bytes(name: str | bytes) -> bytes:
    """The bytes a name stands for; lone surrogates give back the bytes they were made of."""
    if isinstance(name, bytes):
        return name
    if not isinstance(name, str):
        raise InvalidName(
            f"A name or path is text or bytes, not {name!r}.", name=repr(name), reason="no text"
        )
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidName(
            f"{name!r} cannot be a name: it holds a surrogate that stands for no byte.",
            name=name,
            reason="lone surrogate",
        ) from error


def to_text(name: bytes) -> str:
    """A name for people and for `str` paths; bytes that are not UTF-8 become surrogates."""
    return name.decode("utf-8", "surrogateescape")


def join_path(parts: Iterable[bytes]) -> str:
    """What `split_path` gave, as a path for people and programs; "" for no names."""
    return b"/".join(parts).decode("utf-8", "surrogateescape")


def count(number: int, one: str, many: str = "") -> str:
    """`1 file`, `14,422 files`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def printable(name: str | bytes) -> str:
    """A name that can be written to any terminal: control bytes and surrogates are escaped."""
    text = to_text(name) if isinstance(name, bytes) else name
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def quoted(name: str | bytes) -> str:
    """A name in quotes, for a message: what cannot be printed is escaped once, and as in lists."""
    return f"'{printable(name)}'"


def _escape(char: str) -> str:
    point = ord(char)
    if 0xDC80 <= point <= 0xDCFF:
        return f"\\x{point - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


@lru_cache(maxsize=1024)
def check_ref_name(name: str) -> str:
    """`name` itself when it may be a full ref name. Raises `InvalidName`."""
    reason = _ref_fault(name)
    if reason:
        raise InvalidName(f"{quoted(name)} cannot be a ref: it {reason}.", name=name, reason=reason)
    return name


def _ref_fault(name: str) -> str | None:
    """Why `name` is no ref name, or None."""
    try:
        size_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid text"
    if size_bytes > REF_NAME_BYTES_MAX:
        return f"has {size_bytes} bytes, more than {REF_NAME_BYTES_MAX}"
    root, slash, rest = name.partition("/")
    if name in _POLICY_REFS or _KEPT.fullmatch(name):
        return None
    if not slash or root + slash not in (HEADS, TAGS):
        return f"does not begin with {HEADS} or {TAGS}"
    if _REF_BAD.search(name):
        return "contains a space, a control character, '..', '@{' or one of ~ ^ : ? * [ \\"
    for part in rest.split("/"):
        if not part:
            return "has an empty component"
        if part[0] in ".-" or part.endswith((".", ".lock")) or part == "@":
            return f"has the component {part!r}"
    if _LOOKS_LIKE_ID.fullmatch(rest):
        return "looks like an object id"
    return None


def branch_ref(branch: str) -> str:
    """Full ref name of a branch; a name that is full already is kept. Raises `InvalidName`."""
    if not isinstance(branch, str):
        raise InvalidName(f"A branch is text, not {branch!r}.", name=repr(branch), reason="no text")
    if branch.startswith(TAGS):
        raise _other_kind(branch, "branch", "tag")
    return check_ref_name(branch if branch.startswith(HEADS) else HEADS + branch)


def tag_ref(tag: str) -> str:
    """Full ref name of a tag; a name that is full already is kept. Raises `InvalidName`."""
    if tag.startswith(HEADS):
        raise _other_kind(tag, "tag", "branch")
    return check_ref_name(tag if tag.startswith(TAGS) else TAGS + tag)


def _other_kind(name: str, kind: str, other: str) -> InvalidName:
    return InvalidName(
        f"{name!r} cannot be a {kind}: it is how a {other} is called.", name=name, reason=other
    )


def short_ref(ref: str) -> str:
    """A ref without `heads/` or `tags/`, for people."""
    return ref.split("/", 1)[1] if ref.startswith((HEADS, TAGS)) else ref
