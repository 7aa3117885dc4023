"""The place of a bucket of a store on a server: begun, and given back where no store came of it.

Floor 5; implements docs/format.md sections 8.3 and 9.1. Invariant: a place belongs to one store: it
is claimed before a row names it, by a file that appears under its name or not at all, and only
what was claimed here is ever cleared.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import frozen

from cas.clock import Clock
from cas.errors import BucketTaken, CasError, NotAStore
from cas.later import Later
from cas.maintenance.newstore import make_folders
from cas.model.names import CLAIM
from cas.storage.address import is_address
from cas.storage.files import OS_FILES, translate
from cas.storage.local import LocalBucket

if TYPE_CHECKING:
    from cas.storage import remote
    from cas.storage.remote import BucketRecord
else:
    # Who keeps packs in a folder has no need of it.
    remote = Later("cas.storage.remote")

_PART: Final = ".claim"
"""Ends the name of a claim that is being written, or that a kill has left; it means nothing."""


@frozen
class Begun:
    """A place that is claimed for a store; `where` is how the catalog names it."""

    where: str
    mark: str
    record: BucketRecord | None = None

    def release(self, clock: Clock) -> None:
        """Clear it: it is certain that no store came of it. Never raises."""
        if self.record is not None:
            remote.release(self.record, clock)
        elif self._is_ours():
            with suppress(CasError):
                bucket = LocalBucket(self.where, clock)
                for packed in list(bucket.list()):
                    bucket.delete(packed.name)
                for begun in list(bucket.unfinished()):
                    bucket.discard(begun.name)
            self.let_go(clock)

    def let_go(self, clock: Clock) -> None:
        """Take the claim back, if nothing else is there. Never raises."""
        if self.record is not None:
            remote.release(self.record, clock, packs=False)
        with suppress(OSError):
            if self._is_ours() and os.listdir(self.where) == [CLAIM]:
                OS_FILES.unlink(os.path.join(self.where, CLAIM))

    def _is_ours(self) -> bool:
        if self.record is not None:
            return False
        return claim_of(self.where) == self.mark


def claim_of(folder: str) -> str | None:
    """The mark of the claim in a folder; None where there is none that can be read."""
    try:
        with open(os.path.join(folder, CLAIM), "rb") as file:
            return str(json.loads(file.read())["claim"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin(where: str, clock: Clock) -> Begun:
    """Make the place of a bucket, durably, and claim it.

    Raises `BucketTaken` for one of another store, `NotAStore` for a folder that holds anything
    else: its files would be taken for leftovers; and what claiming a prefix of an object store
    does.
    """
    if is_address(where):
        record = remote.claim(remote.parse_address(where), clock)
        return Begun(record.address.url, record.claim, record)
    folder = os.path.abspath(where)
    mark = clock.random(16).hex()
    try:
        make_folders(folder, OS_FILES)
        _refuse_used(folder)
        _claim(folder, mark)
        _refuse_used(folder, CLAIM)
    except OSError as error:
        translate(error, folder)
    return Begun(folder, mark)


def _refuse_used(folder: str, *own: str) -> None:
    names = {name for name in os.listdir(folder) if not name.endswith(_PART)} - {*own}
    if CLAIM in names:
        raise _taken(folder)
    if names:
        raise NotAStore(
            f"{folder} is not empty; a bucket begins in a folder of its own.", path=folder
        )


def _claim(folder: str, mark: str) -> None:
    """Put the claim there, by a link: of two one fails, and nobody finds half of it."""
    path = os.path.join(folder, CLAIM)
    part = os.path.join(folder, mark + _PART)
    document = {"schema": "cas.bucket", "claim": mark}
    fd = OS_FILES.create(part)
    try:
        OS_FILES.write(fd, json.dumps(document).encode() + b"\n")
        OS_FILES.sync(fd)
        OS_FILES.link(part, path)
        OS_FILES.sync_folder(folder)
    except FileExistsError as error:
        raise _taken(folder) from error
    finally:
        OS_FILES.close(fd)
        OS_FILES.unlink(part)


def _taken(folder: str) -> BucketTaken:
    return BucketTaken(
        f"{folder} belongs to another store ({CLAIM} says so); take a folder of its own.",
        path=folder,
    )
