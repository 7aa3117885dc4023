"""What a batch that stayed in memory becomes: an inline pack, or a small pack file of its own.

Floor 3; implements docs/format.md sections 6 and 7.2. Invariant: a record is stored beside a
dictionary only after it was decoded again and compared, and only where the store has the feature;
what lies in a pack file is durable before it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any, Final, NamedTuple

from cas.catalog.catalog import DICTIONARIES, SessionRow
from cas.errors import CasError
from cas.model.ids import Kind
from cas.objects.lessons import COPIES, SAMPLE_BYTES_MAX, propose
from cas.objects.parts import Parts
from cas.objects.writer import SealedPack, read_back, write_file
from cas.storage.codec import DICTIONARY, RAW, encode_payload
from cas.storage.dictionary import Dictionary, all_take_dictionary, takes_dictionary
from cas.storage.header import PACK_HEADER_BYTES, PackHeader
from cas.storage.pack import Record
from cas.storage.packing import NO_DEPTHS, build_inline
from cas.storage.record import COMMON_GROUP

ENCODED_FROM: Final = 16
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


class _Begun(NamedTuple):
    """Blobs that a thread encodes, and what it has found when it is joined."""

    ids: frozenset[bytes]
    found: dict[bytes, bytes | None]
    thread: threading.Thread


class Young:
    """What small blobs of one batch are written with, and the pack that they become."""

    def __init__(self, parts: Parts, condemn_seq: int) -> None:
        self._parts = parts
        self._condemn_seq = condemn_seq
        self._beside: dict[int, Dictionary | None] = {}
        # Payloads by id of what was encoded: a batch may be sealed again, with more in it.
        self._payloads: dict[bytes, bytes | None] = {}
        self._begun: _Begun | None = None
        self._made: Dictionary | None = None
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

    def use(self, dictionary: Dictionary, group: int) -> Record:
        """Write small blobs of a group with this dictionary; gives a copy of it to be staged."""
        self._beside[group] = dictionary
        return _copy_of(dictionary)

    def learn(self, small: dict[bytes, Record]) -> None:
        """Stage a dictionary made of what a batch has in memory, beside it: where there is none,
        and it pays.
        """
        parts = self._parts
        if len(small) < ENCODED_FROM or DICTIONARIES not in parts.meta.features:
            return
        if self.beside(COMMON_GROUP) is not None:
            return
        samples = [
            payload
            for _id, kind, codec, payload, raw_bytes in small.values()
            if codec == RAW and raw_bytes <= SAMPLE_BYTES_MAX and takes_dictionary(kind, payload)
        ]
        enough = sum(map(len, samples)) >= parts.thresholds.dictionary_batch_bytes
        if not enough or not parts.dictionaries.rest.is_over():
            return
        made = propose(samples, None)
        if made is not None and made.id in parts.absent.ids(self._condemn_seq):
            made = None  # It was purged: it comes back only when somebody asks for it.
        parts.dictionaries.rest.begin(found=made is not None)
        if made is not None:
            self._made = made
            small[made.id] = self.use(made, COMMON_GROUP)

    def installed(self) -> None:
        """The pack is part of the store, and so is the dictionary that it brought."""
        if self._made is not None:
            self._parts.dictionaries.use(self._made, COMMON_GROUP)

    def pack(
        self,
        small: dict[bytes, Record],
        depths: Mapping[bytes, int],
        session: Callable[[], SessionRow] | None,
    ) -> SealedPack:
        """All that a batch has in memory, as one pack; a file where that pays and `session`
        gives one to write it under. `depths` are those of deltas. A new dictionary is staged too.
        """
        if session is not None:
            self.learn(small)
        records: Sequence[Record] = list(small.values())
        dictionary = self.beside(COMMON_GROUP) if len(records) >= ENCODED_FROM else None
        if dictionary is not None:
            records = self._encoded(records, dictionary)
            self.needs = dictionary.id if any(self._payloads.values()) else None
        least = self._parts.thresholds.direct_bytes
        if session is None or sum([len(record[3]) for record in records]) < least:
            return inline_pack(self._parts, records, self.needs, depths)
        if dictionary is not None and dictionary.id not in small:
            copies = self._parts.dictionaries.copies(dictionary.id, COMMON_GROUP)
            if copies < COPIES:
                records = [*records, _copy_of(dictionary)]
        return direct_pack(self._parts, session().id, records, self.needs, depths)

    def begin(
        self, ids: Sequence[bytes], contents: Sequence[bytes], rest: Sequence[bytes], room: int
    ) -> None:
        """Encode blobs that were staged on a thread beside the caller, who stages the `rest`
        meanwhile; not where that is nothing, or needs more than `room` bytes.
        """
        if not rest or sum(map(len, rest)) > room or self._begun is not None:
            return
        dictionary = self.beside(COMMON_GROUP)
        if dictionary is None or not all_take_dictionary(contents):
            return
        found: dict[bytes, bytes | None] = {}

        def work() -> None:
            # What is not there in the end is encoded by the caller, who is told why it cannot be.
            with suppress(Exception):
                found.update(zip(ids, dictionary.encode(contents), strict=True))

        thread = threading.Thread(target=work, name="cas-encode", daemon=True)
        with suppress(RuntimeError):  # there are too many
            thread.start()
            self._begun = _Begun(frozenset(ids), found, thread)

    def _encode(self, records: Sequence[Record], dictionary: Dictionary) -> None:
        """Have the payloads of these, as far as they are not there."""
        known, begun = self._payloads, self._begun
        others = begun.ids if begun else frozenset[bytes]()
        if known or others:
            records = [each for each in records if each[0] not in known and each[0] not in others]
        threads = _THREADS if begun is None and len(records) >= _THREADED_FROM else 1
        payloads = dictionary.encode([record[3] for record in records], threads)
        known.update(zip([record[0] for record in records], payloads, strict=True))

    def _encoded(self, records: Sequence[Record], dictionary: Dictionary) -> list[Record]:
        """The records, small blobs among them beside the dictionary."""
        ids, kinds, codecs, contents, sizes = zip(*records, strict=True)
        even = {*kinds} == {Kind.BLOB} and {*codecs} == {RAW} and all_take_dictionary(contents)
        todo = records
        if not even:
            todo = [each for each in records if each[2] == RAW and takes_dictionary(*each[1:4:2])]
        self._encode(todo, dictionary)
        if (begun := self._begun) is not None:
            begun.thread.join()
            self._payloads.update(begun.found)
            self._begun = None
            if len(begun.found) < len(begun.ids):
                self._encode(todo, dictionary)
        get = self._payloads.get
        if even and None not in (payloads := list(map(get, ids))):
            # The common case: no step of Python for each.
            rows: Any = zip(ids, kinds, repeat(DICTIONARY), payloads, sizes, strict=False)
            return list(rows)
        return [
            record
            if (payload := get(record[0])) is None
            else (record[0], record[1], DICTIONARY, payload, record[4])
            for record in records
        ]


def _copy_of(dictionary: Dictionary) -> Record:
    codec, payload = encode_payload(dictionary.content)
    return dictionary.id, Kind.BLOB, codec, payload, len(dictionary.content)


def inline_pack(
    parts: Parts,
    records: Sequence[Record],
    dictionary: bytes | None = None,
    depths: Mapping[bytes, int] = NO_DEPTHS,
) -> SealedPack:
    """A pack whose bytes are to be a row of the catalog."""
    head = parts.letterhead.encode(parts.clock.wall_us())
    body, footer_bytes, footer = build_inline(head, records, dictionary, depths)
    return SealedPack(None, footer.body_bytes, footer, footer_bytes, body)


def direct_pack(
    parts: Parts,
    session_id: bytes,
    records: Sequence[Record],
    dictionary: bytes | None,
    depths: Mapping[bytes, int],
) -> SealedPack:
    """A pack file of its own, durable when this returns; nothing names it yet."""
    meta, bucket = parts.meta, parts.bucket
    header = PackHeader(meta.store_id, meta.lineage_id, session_id, parts.clock.wall_us())
    body, footer_bytes, footer = build_inline(header.encode(), records, dictionary, depths)
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
