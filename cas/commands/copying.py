"""Copies between stores: all of one into a new place, what is new since then, or chosen branches.

Floor 8. Invariant: ids, refs and journal of a whole copy are those of the original, and it is a
fork: the two never go on under one name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cas.catalog.catalog import Meta
from cas.catalog.postgres_place import is_postgres
from cas.clock import Clock, SystemClock
from cas.commands.backup import Place, open_new
from cas.errors import Invalid
from cas.history.store import Store
from cas.later import Later
from cas.maintenance.backups.clone import LiveImage, clone
from cas.maintenance.backups.vault import refuse_nested
from cas.maintenance.copying import CopyReport, RefCopy, copy_refs, forward
from cas.maintenance.findings import OnProgress
from cas.maintenance.folder import CATALOG
from cas.maintenance.newstore import build, refuse_taken
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket
from cas.storage.files import OS_FILES, Files
from cas.storage.place import bucket_in, folder_of

if TYPE_CHECKING:
    from cas.maintenance import hosted
else:
    hosted = Later("cas.maintenance.hosted")


def copy(
    source: Store,
    target: Store | Place,
    names: Sequence[str] = (),
    *,
    force: bool = False,
    thinned: bool = False,
    author: str = "",
    message: str = "",
    progress: OnProgress = None,
    bucket: str | None = None,
    clock: Clock | None = None,
    files: Files = OS_FILES,
) -> CopyReport:
    """Copy a store, or with `names` branches and tags of it, into another store.

    A folder that is missing or empty, or the URL of a store on a server that is not there yet
    (`postgresql://…?store=NAME`), becomes a copy of the whole store, as of one moment, in a
    lineage of its own; it appears whole or not at all; with `bucket` its packs lie there, as in
    `cas.init`. A store (an open one) that was made as such a copy, and has no entries of its own,
    is brought up to the source: objects that it lacks, and the journal's entries as they stand.
    With `names` any store takes what these reach, as one entry; branches that are there move only
    forward, unless `force`. With `thinned` commits whose content was given up come as records, and
    cannot get it later; else they are refused.

    Raises `BackupMismatch`, `RefConflict`, `RefNotFound`, `Thinned`, `NotAStore`, `Corrupt` for
    what is damaged in the source, and what a write raises.
    """
    if bucket is not None and (names or isinstance(target, Store)):
        raise Invalid("Where the packs of a store lie is settled when it is made.")
    if isinstance(target, Store):
        if target.location == source.location:
            raise Invalid("A store is not copied into itself; name another one.")
        if names:
            return copy_refs(
                source,
                target,
                names,
                force=force,
                thinned=thinned,
                without_purged=True,
                author=author,
                message=message,
                progress=progress,
            )
        return forward(source, target, progress=progress)
    if names:
        raise Invalid("Branches are copied into a store that is open; make one first.")
    if is_postgres(os.fspath(target)):
        return _whole_hosted(source, os.fspath(target), bucket, clock or SystemClock(), progress)
    folder = folder_of(target, "A store")
    refuse_nested(source.location, folder)
    refuse_taken(folder)
    return _whole(source, folder, bucket, clock or SystemClock(), files, progress)


def _whole(
    source: Store,
    folder: str,
    bucket: str | None,
    clock: Clock,
    files: Files,
    progress: OnProgress,
) -> CopyReport:
    done: list[tuple[LiveImage, int]] = []

    def fill(building: str) -> None:
        packs = bucket_in(building, clock, files)
        done.append(
            clone(
                source,
                packs,
                lambda meta: open_new(building, meta, clock, files),
                clock.random(16),
                progress=progress,
            )
        )

    if not build(folder, clock, files=files, fill=fill, bucket=bucket):
        refuse_taken(folder)
    return _report(source, folder, *done[0])


def _whole_hosted(
    source: Store, url: str, bucket: str | None, clock: Clock, progress: OnProgress
) -> CopyReport:
    place = hosted.parse_hosted(url)
    done: list[tuple[LiveImage, int]] = []

    def fill(packs: Bucket, open_new: Callable[[Meta], ObjectStore]) -> None:
        done.append(clone(source, packs, open_new, clock.random(16), progress=progress))

    if not hosted.fill_hosted(place, bucket, clock, fill):
        raise hosted.taken(place)
    return _report(source, place.shown, *done[0])


def _report(source: Store, place: str, image: LiveImage, size_bytes: int) -> CopyReport:
    view = source.at(image.seq)
    refs = tuple([RefCopy(ref.name, None, ref.target) for ref in view.refs()])
    return CopyReport(place, True, image.seq, refs, 0, size_bytes, image.seq)


def is_store(folder: Place) -> bool:
    """Whether a store lies in a folder, or at the URL of a server."""
    if is_postgres(os.fspath(folder)):
        return hosted.is_there(hosted.parse_hosted(os.fspath(folder)))
    return os.path.exists(os.path.join(os.fspath(folder), CATALOG))
