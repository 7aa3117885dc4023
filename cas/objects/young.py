"""What a batch that stayed in memory becomes: an inline pack, or a small pack file of its own.

Floor 3; implements docs/format.md sections 6 and 7.2. Invariant: a record is stored beside a
dictionary only after it was decoded again and compared, and only where the store has the feature;
what lies in a pack file is durable before it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from cas.catalog.catalog import DICTIONARIES, SessionRow
from cas.errors import CasError
from cas.objects.parts import Parts
from cas.objects.writer import SealedPack, read_back, write_file
from cas.storage.codec import DICTIONARY, RAW
from cas.storage.dictionary import Dictionary, takes_dictionary
from cas.storage.header import PACK_HEADER_BYTES, PackHeader
from cas.storage.pack import Record
from cas.storage.packing import NO_DEPTHS, build_inline
from cas.storage.record import COMMON_GROUP

NO_SESSION: Final = bytes(16)

_ENCODED_FROM: Final = 16
"""Small blobs of one batch that are worth a call of the compressor: 50 us, and 4 us each."""

_THREADS: Final = 2
_THREADED_FROM: Final = 256
"""Contents that are worth a second thread: the library starts it anew in each call."""


class Mark(NamedTuple):
    """How far a batch had come."""

    records: int
    small_bytes: int
    structured: int
    hits: set[bytes]


class Young:
    """What small blobs of one batch are written with, and the pack that they become."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._beside: dict[int, Dictionary | None] = {}
        # Payloads by id of what was encoded: a batch may be sealed again, with more in it.
        self._payloads: dict[bytes, bytes | None] = {}
        self.needs: bytes | None = None
        """The dictionary that the pack needs, once there is one."""

    def beside(self, group: int) -> Dictionary | None:
        """The dictionary that small blobs of a group are written with; the same for all of a
        batch, which relies on it. None: there is none, or the store does not have the feature.
        """
        if group not in self._beside:
            parts = self._parts
            may = DICTIONARIES in parts.meta.features
            self._beside[group] = parts.dictionaries.current(group) if may else None
        return self._beside[group]

    def use(self, dictionary: Dictionary, group: int) -> None:
        """Write small blobs of a group with this dictionary."""
        self._beside[group] = dictionary

    def pack(
        self,
        small: Mapping[bytes, Record],
        depths: Mapping[bytes, int],
        session: Callable[[], SessionRow] | None,
    ) -> SealedPack:
        """All that a batch has in memory, as one pack; a file where that pays and `session`
        gives one to write it under. `depths` are those of deltas.
        """
        records: Sequence[Record] = list(small.values())
        dictionary = self.beside(COMMON_GROUP) if len(records) >= _ENCODED_FROM else None
        if dictionary is not None:
            records = self._encoded(records, dictionary)
            self.needs = dictionary.id if any(self._payloads.values()) else None
        stored_bytes = sum([len(record[3]) for record in records])
        if session is None or stored_bytes < self._parts.thresholds.direct_bytes:
            return inline_pack(self._parts, records, self.needs, depths)
        return direct_pack(self._parts, session().id, records, self.needs, depths)

    def _encoded(self, records: Sequence[Record], dictionary: Dictionary) -> list[Record]:
        """The records, small blobs among them beside the dictionary."""
        known = self._payloads
        todo = [
            record
            for record in records
            if record[2] == RAW
            and record[0] not in known
            and takes_dictionary(record[1], record[3])
        ]
        threads = _THREADS if len(todo) >= _THREADED_FROM else 1
        payloads = dictionary.encode([record[3] for record in todo], threads)
        known.update(zip([record[0] for record in todo], payloads, strict=True))
        get = known.get
        return [
            record
            if (payload := get(record[0])) is None
            else (record[0], record[1], DICTIONARY, payload, record[4])
            for record in records
        ]


def inline_pack(
    parts: Parts,
    records: Iterable[Record],
    dictionary: bytes | None = None,
    depths: Mapping[bytes, int] = NO_DEPTHS,
) -> SealedPack:
    """A pack whose bytes are to be a row of the catalog."""
    meta = parts.meta
    header = PackHeader(meta.store_id, meta.lineage_id, NO_SESSION, parts.clock.wall_us())
    body, footer_bytes, footer = build_inline(header, records, dictionary, depths)
    return SealedPack(None, footer.body_bytes, footer, footer_bytes, body)


def direct_pack(
    parts: Parts,
    session_id: bytes,
    records: Iterable[Record],
    dictionary: bytes | None,
    depths: Mapping[bytes, int],
) -> SealedPack:
    """A pack file of its own, durable when this returns; nothing names it yet."""
    meta, bucket = parts.meta, parts.bucket
    header = PackHeader(meta.store_id, meta.lineage_id, session_id, parts.clock.wall_us())
    body, footer_bytes, footer = build_inline(header, records, dictionary, depths)
    name = parts.clock.random(16)
    file = write_file(bucket, name, body, footer_bytes)
    try:
        found = read_back(bucket, file, body[:PACK_HEADER_BYTES], footer.body_bytes, footer_bytes)
        bucket.sync()
    except BaseException:
        with suppress(CasError):
            bucket.delete(file)
        raise
    return SealedPack(name, footer.body_bytes, found, None, None)
