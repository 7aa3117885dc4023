"""What a store of objects is made of, in one value that the rooms of this floor share.

Floor 3. Invariant: the parts belong to one store and never change while its handle is open.
"""

from __future__ import annotations

from typing import Final

from attrs import field

from cas.catalog.catalog import Catalog, Meta
from cas.clock import Clock
from cas.errors import MissingPack
from cas.limits import Thresholds
from cas.model.values import frozen
from cas.objects.absent import Absent
from cas.objects.dictionaries import Dictionaries
from cas.objects.lookup import Lookup
from cas.objects.packs import Copy, PackInfo
from cas.storage.bucket import Bucket
from cas.storage.header import Letterhead

NO_SESSION: Final = bytes(16)


@frozen
class Parts:
    """The two ports, the clock, the look-up over them, when to tidy up, and the dictionaries."""

    catalog: Catalog
    bucket: Bucket
    clock: Clock
    lookup: Lookup
    thresholds: Thresholds
    absent: Absent
    dictionaries: Dictionaries
    letterhead: Letterhead = field(init=False)
    """Headers of inline packs, which no session stands behind."""

    @letterhead.default
    def _letterhead(self) -> Letterhead:
        return Letterhead(self.meta.store_id, self.meta.lineage_id, NO_SESSION)

    @property
    def meta(self) -> Meta:
        """What the store is."""
        return self.catalog.meta

    def find(self, id: bytes) -> Copy | None:
        """A copy of an object in the snapshot at hand; None may be wrong, and costs no more
        than what the copy was wanted for.
        """
        return self.lookup.find(id)

    def stored(self, pack: PackInfo, start: int, length: int) -> bytes:
        """Bytes of a pack, not verified. Any thread. Raises `MissingPack`, `CorruptPack`."""
        if pack.file is not None:
            return self.bucket.read(pack.file, start, length)
        body = self.catalog.inline_body(pack.number)
        if body is None:
            raise MissingPack(f"The {pack.label} was removed.", pack=pack.label)
        return body[start : start + length]
