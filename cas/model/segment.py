"""Journal segments: entries of the journal as they stand, kept in packs beside what they name.

Floor 1; implements docs/format.md section 5.6. Invariant: the entries of a segment follow each
other, and it says which lineage wrote it and from which others that one came, so that a catalog
can be rebuilt from segments alone and one that an earlier lineage wrote late is known for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field

from cas.model.encoding import decode, encode, is_extras, is_uint, shape
from cas.model.entry import Entry
from cas.model.values import frozen

LINEAGE_BYTES: Final = 16
ANCESTOR_BYTES: Final = 24
"""One lineage that another came from: its id, and the seq of its last entry (big-endian)."""


@frozen
class Segment:
    """Consecutive entries from `first_seq` on, as encoded.

    `lineage` wrote it; `ancestry` is that of `meta` (docs/format.md section 7.1), empty for a
    lineage that came from none. `features` are those of the store. `extras` are what else there
    is. Only a lineage that begins before entry 1 has a segment without entries, its first.
    """

    first_seq: int
    entries: tuple[bytes, ...]
    lineage: bytes
    ancestry: bytes = b""
    features: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(factory=dict)

    @property
    def last_seq(self) -> int:
        """Seq of the last entry; one less than `first_seq` where there is none."""
        return self.first_seq + len(self.entries) - 1

    def ancestors(self) -> list[tuple[bytes, int]]:
        """(lineage, seq of its last entry) of those it came from, oldest first."""
        return split_ancestry(self.ancestry)

    def encode(self) -> bytes:
        """Canonical bytes."""
        extras: dict[str, Any] = {**self.extras, "lineage": self.lineage}
        if self.ancestry:
            extras["ancestry"] = self.ancestry
        if self.features:
            extras["features"] = " ".join(self.features)
        return encode([self.first_seq, list(self.entries), extras])

    @classmethod
    def decode(cls, data: bytes, *, verified: bool = False) -> Segment:
        """The segment of these bytes; its entries are not decoded. Raises `NotCanonical`."""
        fields = decode(data, verified=verified)
        shape(type(fields) is list and len(fields) == 3, "a journal segment is an array of three")
        first_seq, entries, extras = fields
        shape(is_uint(first_seq) and first_seq >= 1, "a segment begins at entry 1 or later")
        shape(
            type(entries) is list and all(type(entry) is bytes for entry in entries),
            "a journal segment holds encoded entries",
        )
        shape(is_extras(extras), "a segment's extras are a map")
        rest = dict(extras)
        lineage = rest.pop("lineage", None)
        shape(
            type(lineage) is bytes and len(lineage) == LINEAGE_BYTES,
            "a segment names the lineage that wrote it",
        )
        ancestry = rest.pop("ancestry", b"")
        shape(
            type(ancestry) is bytes and len(ancestry) % ANCESTOR_BYTES == 0,
            "a segment's ancestry is 24 bytes a lineage",
        )
        features = rest.pop("features", "")
        shape(
            type(features) is str and " ".join(features.split()) == features,
            "a segment's features are words with a space between two",
        )
        shape(
            # What says nothing is not written: one value, one encoding.
            all(extras.get(key, True) for key in ("ancestry", "features")),
            "a segment has no empty ancestry and no empty features",
        )
        shape(bool(entries) or first_seq == 1, "a segment without entries stands before entry 1")
        return cls(first_seq, tuple(entries), lineage, ancestry, tuple(features.split()), rest)


def split_ancestry(ancestry: bytes) -> list[tuple[bytes, int]]:
    """The links of `meta.ancestry`: (lineage, seq of its last entry), oldest first."""
    return [
        (
            ancestry[at : at + LINEAGE_BYTES],
            int.from_bytes(ancestry[at + LINEAGE_BYTES : at + ANCESTOR_BYTES], "big"),
        )
        for at in range(0, len(ancestry), ANCESTOR_BYTES)
    ]


def named_blobs(data: bytes, *, verified: bool = True) -> Sequence[bytes]:
    """Ids of the blobs that the entries of an encoded segment name. Raises `NotCanonical`."""
    return [
        event.blob
        for entry in Segment.decode(data, verified=verified).entries
        for event in Entry.decode(entry, verified=verified).events
        if event.blob is not None
    ]
