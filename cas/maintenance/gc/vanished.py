"""What a mark does not find: moved meanwhile, or lost.

Floor 5; part of docs/design/001. Invariant: a run that misses anything collects nothing; what is
told as lost is in no pack of the newest state.
"""

from __future__ import annotations

from cas.errors import CasError, CorruptObject, Unavailable
from cas.objects.store import ObjectStore


def absence(objects: ObjectStore, version: int, id: bytes, by: str) -> CasError:
    """Why no pack up to `version` has an object: its pack went since, or it is lost."""
    lookup = objects.lookup
    lookup.refresh()
    if any(copy.pack.number > version for copy in lookup.copies(id)):
        return moved()
    return CorruptObject(
        f"Object {id.hex()}, which {by} names, is not there; nothing was collected. Run "
        "`cas fsck`, and collect when the store is whole.",
        id=id,
    )


def moved() -> Unavailable:
    """Others took packs away that a run was looking at."""
    return Unavailable(
        "Packs were moved while gc looked at them; nothing was collected. Try again later."
    )


def is_named(objects: ObjectStore, number: int) -> bool:
    """Whether the catalog names a pack in its newest state."""
    with objects.catalog.read() as reader:
        return number in set(reader.pack_numbers())
