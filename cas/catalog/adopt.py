"""Settling a catalog where it lies now, after its folder was copied or moved.

Floor 2; implements docs/format.md section 8.1. Invariant: the place, the lineage and the fences
change in one transaction or not at all, and doing it twice is doing it once.
"""

from __future__ import annotations

import os
from typing import cast

from cas.catalog.catalog import MIRRORED
from cas.catalog.place import ancestor, place_of, recorded, refuse_linked
from cas.catalog.sqlite import open_catalog
from cas.catalog.statements import SqliteReader, SqliteWriter


def adopt_catalog(path: str, locks: str, lineage_id: bytes | None) -> bool:
    """Record that the catalog lies where it is found; False when that is recorded already.

    With a `lineage_id` it begins a lineage of its own: whoever had a session in the old one is
    fenced off, and `meta.ancestry` tells where the new one began. Raises `StoreMoved` when the
    file has a second name, and what `open_catalog` raises.
    """
    refuse_linked(path)
    catalog = open_catalog(path, locks, anywhere=True)
    try:
        found = place_of(path)
        with catalog.read() as reader:
            if not recorded(cast("SqliteReader", reader).meta()).differs(found):
                return False
        # Whoever copied the folder may have synced nothing of it, and commits on top of it are
        # promised to last.
        os.sync()
        with catalog.write() as port:
            writer = cast("SqliteWriter", port)
            meta = writer.meta()
            # Looked at again behind the gate: of two that settle at once, one finds it done.
            if not recorded(meta).differs(found):
                return False
            writer.set_meta(found.values())
            if lineage_id is not None:
                old = ancestor(bytes(meta["lineage_id"]), writer.head().seq)
                before = bytes(meta.get("ancestry") or b"")
                writer.set_meta({"lineage_id": lineage_id, "ancestry": before + old})
                # The first segment of a lineage repeats the entry that it goes on from, so that
                # what the old one may still write into packs is known to be the older.
                mirrored = writer.cursor(MIRRORED) or 0
                writer.set_cursor(MIRRORED, max(0, min(mirrored, writer.head().seq - 1)))
                for session in writer.sessions():
                    writer.drop_session(session.id)
        return True
    finally:
        catalog.close()
