"""A store whose packs lie in a bucket: the file that says so, the claim of a prefix, its release.

Floor 2; implements docs/format.md section 8.3. Invariant: a prefix of a bucket belongs to one
store: it is claimed by a conditional put before the store exists, and only what was claimed is
ever cleared. A version of this package that knows no buckets finds a file where it expects a
folder, and stops.
"""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from typing import Any, Final

from attrs import asdict, frozen

from cas.clock import Clock
from cas.errors import BucketTaken, CasError, CorruptCatalog, NewerFormat, StorageFailed
from cas.model.names import CLAIM
from cas.storage.address import BucketAddress
from cas.storage.address import parse_address as parse_address
from cas.storage.connect import connect
from cas.storage.files import Files, translate, translate_read
from cas.storage.probe import Probe, probe
from cas.storage.ranges import CachedBucket
from cas.storage.s3 import S3Bucket

_SCHEMA: Final = "cas.bucket"
_VERSION: Final = 1


@frozen
class BucketRecord:
    """What the file says: the address, the mark of the claim, and what the probe has found."""

    address: BucketAddress
    claim: str
    probe: dict[str, Any]

    def encode(self) -> bytes:
        """The bytes of the file."""
        document = {
            "schema": _SCHEMA,
            "version": _VERSION,
            "url": self.address.url,
            "claim": self.claim,
            "probe": self.probe,
        }
        return json.dumps(document, indent=1).encode() + b"\n"


def open_cached(address: BucketAddress, clock: Clock, cache: str | None) -> CachedBucket:
    """The bucket at an address, with a cache in a folder or in memory. Raises as `connect` does."""
    return CachedBucket(connect(address, clock), cache)


def read_record(path: str) -> BucketRecord:
    """What the file says. Raises `CorruptCatalog`, `NewerFormat`, `StorageFailed`."""
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 16)
    except OSError as error:
        translate_read(error, path)
    try:
        document = json.loads(data)
        version = int(document["version"]) if document["schema"] == _SCHEMA else 0
        if version == _VERSION:
            claim, found = str(document["claim"]), dict(document["probe"])
            return BucketRecord(parse_address(document["url"]), claim, found)
        if version > _VERSION:
            raise NewerFormat(
                f"{path} has version {version}; install a newer version of this package.",
                needs=f"bucket file {version}",
                known=f"bucket file {_VERSION}",
            )
    except (ValueError, KeyError, TypeError):
        pass  # told below
    raise CorruptCatalog(
        f"{path} does not say where the packs lie; bring the file back from a copy of the folder.",
        detail="packs",
    )


def write_record(path: str, record: BucketRecord, files: Files) -> None:
    """Write the file of a store that is being made; its name is made durable with the folder."""
    try:
        fd = files.create(path)
        try:
            files.write(fd, record.encode())
            files.sync(fd)
        finally:
            files.close(fd)
    except OSError as error:
        translate(error, path)


def claim(address: BucketAddress, clock: Clock) -> BucketRecord:
    """Make sure of the server, and take the prefix for a store.

    Raises `UnsafeBucket`, `BucketTaken`, `StorageFailed`, `AccessDenied`, `Unsupported`.
    """
    # The probe is patient, and all of its requests would wait for a server that is not there.
    asking = connect(address, clock, first=True)
    try:
        asking.ask(CLAIM)
    finally:
        asking.close()
    bucket = connect(address, clock)
    try:
        found = probe(bucket)
        return BucketRecord(address, _claim(bucket), _recorded(found, clock))
    finally:
        bucket.close()


def _recorded(found: Probe, clock: Clock) -> dict[str, Any]:
    return {**asdict(found), "wall_us": clock.wall_us()}


def _claim(bucket: S3Bucket) -> str:
    mark = bucket.clock.random(16).hex()
    try:
        bucket.put(CLAIM, json.dumps({"schema": _SCHEMA, "claim": mark}).encode(), mark)
        taken = next(bucket.list(), None) is not None
        if taken:
            bucket.delete(CLAIM)
    except StorageFailed as error:
        if error.fields.get("errno") != errno.EEXIST:
            raise
        taken = True
    if taken:
        raise BucketTaken(
            f"{bucket.label} belongs to another store; take a prefix of its own. If a call that "
            f"was stopped left it (no folder of a store names it), remove {CLAIM} and the packs.",
            path=bucket.label,
        )
    return mark


def release(record: BucketRecord, clock: Clock, *, packs: bool = True) -> None:
    """Clear a prefix that was claimed for a store that never came to be; without `packs` only one
    that holds nothing but the claim. Never raises.
    """
    with suppress(CasError):
        bucket = connect(record.address, clock)
        found = bucket.mark_of(CLAIM)
        if found is not None and found[1] == record.claim:
            for file in bucket.list():
                if not packs:
                    return
                bucket.delete(file.name)
            bucket.delete(CLAIM)
        bucket.close()
