"""What a bucket's server does with conditional puts: asked once, when a store is made in it.

Floor 2; the reasons are in docs/design/020. Invariant: what the probe writes it removes, under
names that nobody else has.

No object is ever overwritten on purpose: names of packs are random. That the server refuses to
overwrite is the wall behind that, and what makes a repeated request harmless.
"""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from attrs import frozen

from cas.errors import CasError, StorageFailed, UnsafeBucket
from cas.storage.s3 import S3Bucket

_RACERS: Final = 8


@frozen
class Probe:
    """What was found. `stale`: what came of a put that was to replace a version that is not there:
    `refused`, or `unsupported` where the server does not know such puts; none is used.
    """

    create: bool
    winners: int
    stale: str


def probe(bucket: S3Bucket) -> Probe:
    """Try it. Raises `UnsafeBucket` where a put that should have failed did not, and
    `StorageFailed`, `AccessDenied`.
    """
    name = f"probe-{bucket.clock.random(8).hex()}"
    names = (name, name + "-race")
    try:
        return Probe(_creates(bucket, names[0]), _race(bucket, names[1]), _stale(bucket, names[0]))
    finally:
        for each in names:
            with suppress(CasError):
                bucket.delete(each)


def _creates(bucket: S3Bucket, name: str) -> bool:
    bucket.put(name, b"first", "first")
    if bucket.mark_of(name) != (5, "first"):
        raise _unsafe(bucket, "metadata that was put with a file is not kept")
    try:
        bucket.put(name, b"second", "second")
        taken = True
    except StorageFailed as error:
        _refuse_other(error)
        taken = False
    if taken or bucket.read(name, 0, 5) != b"first":
        raise _unsafe(bucket, "a second put with If-None-Match replaced the first one")
    return True


def _race(bucket: S3Bucket, name: str) -> int:
    def put(number: int) -> bool:
        try:
            bucket.put(name, b"%d" % number, f"racer-{number}")
        except StorageFailed as error:
            _refuse_other(error)
            return False
        return True

    with ThreadPoolExecutor(_RACERS) as threads:
        winners = sum(threads.map(put, range(_RACERS)))
    if winners != 1:
        raise _unsafe(bucket, f"of {_RACERS} puts of one name at once {winners} were accepted")
    return winners


def _stale(bucket: S3Bucket, name: str) -> str:
    outcome = bucket.replace(name, b"stale", f'"{"0" * 32}"')
    if outcome == "replaced":
        raise _unsafe(bucket, "a put with a stale If-Match replaced what was there")
    return outcome


def _refuse_other(error: StorageFailed) -> None:
    """Pass on an error that says something else than that the name is taken."""
    if error.fields.get("errno") != errno.EEXIST:
        raise error


def _unsafe(bucket: S3Bucket, what: str) -> UnsafeBucket:
    return UnsafeBucket(
        f"The server of {bucket.label} does not honour conditional puts: {what}. Use another "
        "server, or a version of it that does.",
        path=bucket.label,
        reason=what,
    )
