"""Where a store and its packs lie: in a folder, or in a bucket that a file in it names.

Floor 2; implements docs/format.md sections 8 and 8.3. Invariant: whoever opens the packs of a
store comes through here. What only buckets need is loaded where there is one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cas.clock import Clock
from cas.errors import Invalid
from cas.later import Later
from cas.model.names import CACHE
from cas.storage.bucket import Bucket
from cas.storage.files import OS_FILES, Files
from cas.storage.local import LocalBucket

if TYPE_CHECKING:
    from cas.storage import address as addresses
    from cas.storage import remote
else:
    addresses = Later("cas.storage.address")
    remote = Later("cas.storage.remote")

PACKS: Final = "packs"
"""A folder of pack files, or a file that says in which bucket they lie."""

_RANGES: Final = "ranges"


def folder_of(place: str | os.PathLike[str], what: str) -> str:
    """The whole path of the folder that `place` names; `what` lies there, for the message.

    Raises `Invalid` for an empty name, which a path would take for the folder one stands in, and
    for an address, which it would take for a folder of that name.
    """
    text = os.fspath(place)
    if not text:
        raise Invalid(f"{what} is a folder, and its name is empty; name it (. is the one here).")
    if "\0" in text:
        raise Invalid(f"{what} is a folder, and no name of one has a NUL byte; name another.")
    scheme, colon, _ = text.partition("://")
    if colon and "/" not in scheme:
        raise Invalid(
            f"{what} is a folder, not a place by {scheme}://; packs in an object store are asked "
            "for with a bucket (`cas init PATH --bucket s3://BUCKET/PREFIX`)."
        )
    return os.path.abspath(text)


def bucket_in(folder: str, clock: Clock, files: Files = OS_FILES) -> Bucket:
    """The bucket of the store in a folder.

    Raises `Unsupported`, `AccessDenied`, `CorruptCatalog`, `NewerFormat`, `StorageFailed`.
    """
    path = os.path.join(folder, PACKS)
    if os.path.isfile(path):
        address = remote.read_record(path).address
        return remote.open_cached(address, clock, os.path.join(folder, CACHE, _RANGES))
    return LocalBucket(path, clock, files)


def bucket_at(
    where: str, clock: Clock, cache: str | None = None, files: Files = OS_FILES
) -> Bucket:
    """The bucket at a place, as a catalog on a server names it; `cache` is a folder for caches,
    None keeps them in memory. Raises as `bucket_in` does.
    """
    if addresses.is_address(where):
        ranges = None if cache is None else os.path.join(cache, _RANGES)
        return remote.open_cached(remote.parse_address(where), clock, ranges)
    return LocalBucket(where, clock, files)


def address_in(folder: str) -> str | None:
    """The address of the bucket of the store in a folder; None where its packs lie there."""
    path = os.path.join(folder, PACKS)
    return remote.read_record(path).address.url if os.path.isfile(path) else None
