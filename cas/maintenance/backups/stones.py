"""Tombstones in an increment: what was purged by then, whichever state a store is made of.

Floor 5; implements docs/format.md section 13.4. Invariant: an index has the tombstones that its
store had when it was made, and those of all that was taken out of its state since.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cas.errors import CorruptBackup, NotCanonical
from cas.history.tombstones import Tombstone, decode_tombstone, encode_tombstone
from cas.maintenance.backups.increment import Index
from cas.model.ids import digest_blob

STONES: Final = "tombstones"
"""In the extras of an index: id and tombstone each."""


def stone_rows(stones: Iterable[Tombstone]) -> list[list[bytes]]:
    """Tombstones as an index has them, ascending by id."""
    return [[bytes(s.id), encode_tombstone(s)] for s in sorted(stones, key=lambda s: bytes(s.id))]


def stones_in(index: Index) -> list[Tombstone]:
    """The tombstones that an index tells of. Raises `CorruptBackup`."""
    rows: Any = index.extras.get(STONES, [])
    try:
        return [decode_tombstone(id, data) for id, data in rows]
    except (NotCanonical, TypeError, ValueError) as error:
        raise CorruptBackup(
            f"The tombstones of increment {index.number} are damaged.", path=str(index.number)
        ) from error


def digest_of_stones(stones: Iterable[Tombstone]) -> bytes:
    """What `Index.purged` is, once none of these is left."""
    return digest_blob(b"".join(sorted(bytes(stone.id) for stone in stones)))
