"""What a store of objects is made of, in one value that the rooms of this floor share.

Floor 3. Invariant: the parts belong to one store and never change while its handle is open.
"""

from __future__ import annotations

import attrs

from cas.catalog.catalog import Catalog, Meta
from cas.clock import Clock
from cas.limits import Thresholds
from cas.objects.lookup import Lookup
from cas.storage.bucket import Bucket


@attrs.frozen
class Parts:
    """The two ports, the clock, the look-up over them, and when to tidy up."""

    catalog: Catalog
    bucket: Bucket
    clock: Clock
    lookup: Lookup
    thresholds: Thresholds

    @property
    def meta(self) -> Meta:
        """What the store is."""
        return self.catalog.meta
