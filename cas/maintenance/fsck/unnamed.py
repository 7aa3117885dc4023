"""Pack files that no row of the catalog names: what a stopped writer left, or a newer catalog's.

Floor 5. Invariant: files are listed first and the catalog is read second, in one look, so that one
that was installed meanwhile is named by then, and one that was taken out is listed there or gone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from cas.catalog.catalog import CatalogReader
from cas.errors import CasError, Corrupt, MissingPack
from cas.maintenance.findings import Findings
from cas.model.entry import Entry
from cas.model.values import frozen
from cas.objects.packs import file_name
from cas.objects.store import ObjectStore
from cas.storage.bucket import Bucket
from cas.storage.header import PACK_HEADER_BYTES, PackHeader, decode_header


@frozen
class Named:
    """What the catalog says of files: those it names, those that are on their way out, sessions of
    writers; and the wall time of its newest entry.
    """

    files: frozenset[str]
    listed: frozenset[str]
    sessions: frozenset[bytes]
    newest_us: int


NOTHING_NAMED: Final = Named(frozenset(), frozenset(), frozenset(), 0)


def named_now(reader: CatalogReader) -> Named:
    """What the catalog says in this state."""
    newest = reader.entry(reader.head().seq)
    wall_us = 0
    if newest is not None:
        with suppress(Corrupt):
            wall_us = Entry.decode(newest.entry).wall_us
    return Named(
        frozenset(file_name(row.name) for row in reader.packs() if row.name is not None),
        frozenset(file_name(row.name) for row in reader.unlinked()),
        frozenset(session.id for session in reader.sessions()),
        wall_us,
    )


def list_packs(bucket: Bucket, findings: Findings) -> list[str]:
    """Names of all pack files, none where they cannot be listed, which is told."""
    try:
        return sorted(file.name for file in bucket.list())
    except CasError as error:
        findings.add(
            "pack-unreadable", "packs", f"The packs cannot be listed ({error}); check the disk."
        )
        return []


def tell_unnamed(
    objects: ObjectStore, findings: Findings, files: list[str], named: Named, seen_us: int
) -> None:
    """Tell of each of these files that no row names. `seen_us` is the newest time that the check
    has seen in what the catalog names.
    """
    newest_us = max(named.newest_us, seen_us)
    for file in files:
        if file in named.files:
            continue
        try:
            header = _header(objects.bucket, file)
        except MissingPack:
            continue  # it was on its way out
        if header is not None and header.session_id in named.sessions:
            continue  # it is being written, and the session is told of
        if header is not None and header.store_id != objects.meta.store_id:
            findings.add(
                "file-unknown",
                file,
                f"{file} is a pack of the store {header.store_id.hex()}, and no part of this one; "
                "move it to where it belongs.",
            )
        elif header is not None and header.birth_us > newest_us and file not in named.listed:
            findings.add(
                "catalog-behind",
                file,
                f"The catalog does not name {file}, which is newer than all it knows: a writer was "
                "stopped before its commit, or the catalog is an old one put back; in that case "
                "restore the newest.",
            )
        else:
            findings.add(
                "pack-unnamed",
                file,
                f"The catalog does not name {file}; gc removes it when no writer needs it.",
            )


def _header(bucket: Bucket, file: str) -> PackHeader | None:
    """Header of a pack file; None when it cannot be read. Raises `MissingPack`."""
    try:
        return decode_header(bucket.read(file, 0, PACK_HEADER_BYTES), file)
    except MissingPack:
        raise
    except CasError:
        return None
