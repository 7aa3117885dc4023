"""The port `Bucket`: keep immutable files. One of the two ports of the house.

Floor 2; implements docs/format.md sections 6 (file names) and 7.2 (order). Invariant: a name
that was sealed once always gives the same bytes, or none after it was deleted; it is never
overwritten. Implementations: `cas.storage.local`, `cas.storage.memory`,
`cas.storage.s3`, and `cas.storage.ranges` before that. The contract is
`cas.testing.bucket_contract`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

from cas.model.values import frozen

Part = tuple[str, int, int]
"""Some bytes of a file: its name, where they begin, how many."""


@frozen
class BucketFile:
    """A sealed file: its name, and how many bytes it has."""

    name: str
    size_bytes: int


@frozen
class UnfinishedFile:
    """A file that was begun and has no name yet. `owner` is who began it, as `create` was told."""

    name: str
    owner: str
    size_bytes: int


class Upload(Protocol):
    """A file being written. Used by one thread."""

    def write(self, data: bytes) -> None:
        """Append. Raises `StorageFull`, `StorageFailed`; after an error only `abort` is legal."""

    def read(self, start: int, length: int) -> bytes:
        """Bytes written before, read back; not durable yet."""

    def seal(self, name: str) -> None:
        """Make the bytes durable and give them their final name; `Bucket.sync` makes that
        name durable. Raises `StorageFailed` when the name is taken: it is never overwritten.
        """

    def abort(self) -> None:
        """Forget it. Never raises; harmless after `seal` and when called twice."""


class Bucket(Protocol):
    """Immutable files by name. Every method may be called from any thread."""

    def create(self, owner: str = "") -> Upload:
        """Begin a file. Nothing is visible under any name until `seal`.

        `owner` (hex digits) says whose it is, for who finds it unfinished.
        """

    def sync(self) -> None:
        """Return when every name sealed or deleted before is durable."""

    def read(self, name: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`.

        Raises `MissingPack` when there is no such file and `CorruptPack` when it ends before.
        """

    def read_all(self, name: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
        """Several parts of one file, each as `read` gives it. Raises what `read` raises."""

    far: ClassVar[bool]
    """Whether a read costs a request to somewhere else, so that `prefetch` is worth a call."""

    def prefetch(self, parts: Sequence[Part]) -> None:
        """Have these parts ready, as far as there is room: reads of them follow. What cannot be
        had because it is missing or damaged is left to the read that says so.

        Raises `StorageFailed`, `AccessDenied`, `Closed`.
        """

    def check(self, name: str, head: bytes, start: int, tail: bytes) -> bool:
        """Whether a file that was just sealed begins with `head` and ends with `tail`, which
        begins at `start`: asked of the place where it lies, never of a cache.
        """

    def forget(self) -> None:
        """Drop what is kept of files: what is read from now on comes from where they lie."""

    def size(self, name: str) -> int:
        """Bytes of the file. Raises `MissingPack`."""

    def list(self) -> Iterator[BucketFile]:
        """Every sealed file, in any order. A listing that fails raises; it is never short."""

    def unfinished(self) -> Iterator[UnfinishedFile]:
        """Every file that was begun and neither sealed nor aborted, by whomever."""

    def discard(self, name: str) -> None:
        """Remove an unfinished file; nothing happens when there is none."""

    def delete(self, name: str) -> None:
        """Remove the file; nothing happens when there is none."""

    def close(self) -> None:
        """Give up handles; reads raise `Closed` from now on. Harmless when called twice."""


def has_ends(bucket: Bucket, name: str, head: bytes, start: int, tail: bytes) -> bool:
    """`Bucket.check` of a bucket whose reads have no cache before them."""
    return (
        bucket.size(name) == start + len(tail)
        and bucket.read(name, start, len(tail)) == tail
        and bucket.read(name, 0, len(head)) == head
    )
