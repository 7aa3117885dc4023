"""Removing files that no pack row names any more: the last step of everything that goes.

Floor 3; implements docs/format.md section 7.2 and docs/design/001, "Files". Invariant: a file is
removed inside the gate, after a look at the catalog as it then stands: it is of this lineage, the
file is on the list, and the removal of its row is durable. Each step may be done twice, and a
missing file is fine; so whoever comes after a crash goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cas.catalog.catalog import MIRRORED, Catalog, CatalogReader
from cas.objects.packs import file_name
from cas.storage.bucket import Bucket

SLICE_FILES: Final = 16
"""Files removed in one stay at the gate: a few milliseconds where they are 64 MiB each."""


def remove_unlinked(catalog: Catalog, bucket: Bucket) -> int:
    """Remove the files on the list; how many were on it.

    Only files go that were unnamed at or before the entry that the mirror reaches: an older one
    leads to the others.
    """
    with catalog.read() as reader:
        covered = reader.cursor(MIRRORED) or 0
        names = [row.name for row in reader.unlinked() if row.seq <= covered]
    if not names:
        return 0
    # What is on the list in the state just read was taken out of the packs in that state or
    # before: from here on no power failure brings its row back.
    catalog.harden()
    lineage = catalog.meta.lineage_id
    for start in range(0, len(names), SLICE_FILES):
        wanted = names[start : start + SLICE_FILES]
        if catalog.is_distant:
            # No other catalog can be put in the place of one on a server behind its back, which
            # is what the gate is for; and nobody waits at a row for requests to a bucket.
            with catalog.read() as reader:
                going = _listed(reader, lineage, wanted)
            for name in going or ():
                bucket.delete(file_name(name))
        else:
            with catalog.write() as writer:
                going = _listed(writer, lineage, wanted)
                for name in going or ():
                    bucket.delete(file_name(name))
        if going is None:
            return 0
    bucket.sync()
    with catalog.write() as writer:
        if writer.lineage() == lineage:
            writer.drop_unlinked(names)
    return len(names)


def _listed(reader: CatalogReader, lineage: bytes, names: Sequence[bytes]) -> list[bytes] | None:
    """Those of `names` that are on the list; None in a catalog of another lineage."""
    if reader.lineage() != lineage:
        return None
    listed = {row.name for row in reader.unlinked()}
    return [name for name in names if name in listed]
