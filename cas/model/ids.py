"""Object ids: 32 bytes of BLAKE3, one hash context per kind of object.

Floor 1; implements docs/format.md section 2. Invariant: an `ObjectId` is always 32 bytes, and
two objects of different kinds never share an id, because their hash contexts differ.

Ids are `bytes` underneath, so that they compare, sort, hash and travel through columns of a
tree node at the speed of C; the subclasses exist for the type checker and for `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from typing import Final, Self

from blake3 import blake3

from cas.errors import InvalidId, WrongKind
from cas.limits import ID_BYTES

ABBREVIATION_MIN: Final = 8

_HEX = re.compile(r"[0-9a-f]+")


class Kind(IntEnum):
    """Kind of an object, as records and refs state it."""

    BLOB = 1
    TREE = 2
    COMMIT = 3
    TAG = 4
    RECIPE = 5
    REFS = 6
    SEGMENT = 7


class ObjectId(bytes):
    """Name of an object by its content: 32 bytes; `str(id)` is 64 hex digits."""

    __slots__ = ()

    def __new__(cls, digest: bytes) -> Self:
        if len(digest) != ID_BYTES:
            raise InvalidId(
                f"An object id has {ID_BYTES} bytes, not {len(digest)}.", text=digest.hex()
            )
        return super().__new__(cls, digest)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that 64 hex digits spell, in either case. Raises `InvalidId`."""
        lowered = text.strip().lower()
        if len(lowered) != 2 * ID_BYTES or not _HEX.fullmatch(lowered):
            raise InvalidId(f"{text!r} is not an object id: 64 hex digits are needed.", text=text)
        return cls(bytes.fromhex(lowered))

    @property
    def short(self) -> str:
        """The first 12 hex digits, for people."""
        return self.hex()[:12]

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.short}…)"


class BlobId(ObjectId):
    """Id of a blob: what `b3sum` prints for its content."""

    __slots__ = ()


def blob_ids(digests: Iterable[bytes]) -> list[BlobId]:
    """The ids of these digests, which are known to be some."""
    return list(map(as_blob_id, digests))


class TreeId(ObjectId):
    """Id of a tree node; the id of a directory is that of its root node."""

    __slots__ = ()


class CommitId(ObjectId):
    """Id of a commit."""

    __slots__ = ()


as_blob_id: Callable[[bytes], BlobId] = partial(bytes.__new__, BlobId)
as_tree_id: Callable[[bytes], TreeId] = partial(bytes.__new__, TreeId)
as_commit_id: Callable[[bytes], CommitId] = partial(bytes.__new__, CommitId)
"""Ids of digests that were just made, or come out of a tree: nothing is looked at."""


class TagId(ObjectId):
    """Id of an annotated tag."""

    __slots__ = ()


class RecipeId(ObjectId):
    """Id of a recipe."""

    __slots__ = ()


CONTEXTS: Final[dict[int, str]] = {
    Kind.TREE: "cas 2026-11 tree node v1",
    Kind.COMMIT: "cas 2026-11 commit v1",
    Kind.TAG: "cas 2026-11 tag v1",
    Kind.RECIPE: "cas 2026-11 recipe v1",
    Kind.REFS: "cas 2026-11 refs node v1",
    Kind.SEGMENT: "cas 2026-11 journal segment v1",
}
ENTRY_CONTEXT: Final = "cas 2026-11 journal entry v1"
GENESIS_CONTEXT: Final = "cas 2026-11 journal genesis v1"
KEY_CONTEXT: Final = "cas 2026-11 transaction key v1"
REQUEST_CONTEXT: Final = "cas 2026-11 request digest v1"

# Deriving the key of a context is a hash of its own: it is done once a kind.
_HASHERS: Final = {
    int(kind): blake3(derive_key_context=context) for kind, context in CONTEXTS.items()
}

# To make a hasher anew takes a third of what a kilobyte does: one that is not in use is set back.
_SPARE: Final[list[blake3]] = []

# BLAKE3 spreads one input over threads only where that pays: below 1 MiB it costs more.
_THREADED_BYTES: Final = 1 << 20
_threads = blake3.AUTO


def _alone() -> None:
    """In a forked child: the pool of threads stayed with the parent, and would be waited for."""
    global _threads
    _threads = 1


os.register_at_fork(after_in_child=_alone)


def blob_hasher() -> blake3:
    """A hasher for content that comes in parts."""
    return blake3(max_threads=_threads)


def body_hasher() -> blake3:
    """A hasher for the body of a pack, beside threads that are busy compressing."""
    return blake3()


def digest_blob(content: bytes | memoryview) -> bytes:
    """BLAKE3-256 of `content`."""
    if len(content) >= _THREADED_BYTES:
        return blake3(content, max_threads=_threads).digest()
    try:
        hasher = _SPARE.pop()
    except IndexError:
        hasher = blake3()
    hasher.reset()
    hasher.update(content)
    digest = hasher.digest()
    _SPARE.append(hasher)
    return digest


def digest_parts(parts: Iterable[bytes | memoryview]) -> bytes:
    """BLAKE3-256 of content that comes in parts, one of which is held at a time."""
    hasher = blob_hasher()
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def digest_of(kind: int, encoded: bytes | memoryview) -> bytes:
    """Id of an object of `kind` with this content or canonical encoding, as plain bytes."""
    if kind == 1:  # Kind.BLOB; comparing with the member costs more than a short hash
        return digest_blob(encoded)
    hasher = _HASHERS[kind].copy()
    hasher.update(encoded)
    return hasher.digest()


def digests_of(kinds: Iterable[int], contents: Iterable[bytes | memoryview]) -> list[bytes]:
    """`digest_of` of many objects: one hasher a kind is set back each time, not made anew."""
    hashers: dict[int, blake3] = {}
    digests = []
    for kind, content in zip(kinds, contents, strict=True):
        if len(content) >= _THREADED_BYTES:
            digests.append(digest_of(kind, content))
            continue
        hasher = hashers.get(kind)
        if hasher is None:
            if kind == Kind.BLOB:
                hasher = blake3()
            else:
                hasher = blake3(derive_key_context=CONTEXTS[kind])
            hashers[kind] = hasher
        else:
            hasher.reset()
        hasher.update(content)
        digests.append(hasher.digest())
    return digests


def blob_digests(contents: Sequence[bytes]) -> list[bytes]:
    """`digest_blob` of many: one hasher is set back each time."""
    hasher = blake3()
    reset, update, digest = hasher.reset, hasher.update, hasher.digest
    digests = []
    if max(map(len, contents), default=0) >= _THREADED_BYTES:
        return [digest_blob(content) for content in contents]
    for content in contents:
        reset()
        update(content)
        digests.append(digest())
    return digests


def derive_parts(context: str, parts: Iterable[bytes | memoryview]) -> bytes:
    """`derive` of data that comes in parts."""
    hasher = blake3(derive_key_context=context)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def derive(context: str, data: bytes | memoryview) -> bytes:
    """BLAKE3 in derive-key mode: 32 bytes bound to `context`."""
    return blake3(data, derive_key_context=context).digest()


def wrong_kind(id: bytes, expected: Kind, actual: int) -> WrongKind:
    """The error for an object of another kind."""
    return WrongKind(
        f"Object {id.hex()} is a {Kind(actual).name.lower()}, not a {expected.name.lower()}.",
        id=id,
        expected=expected,
        actual=Kind(actual),
    )


def is_abbreviation(text: str) -> bool:
    """Whether `text` could be an id or the beginning of one: 8 to 64 hex digits."""
    return ABBREVIATION_MIN <= len(text) <= 2 * ID_BYTES and bool(_HEX.fullmatch(text))
