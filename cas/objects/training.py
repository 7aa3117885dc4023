"""Training: whether small contents have enough in common for a dictionary, and making it.

Floor 3; docs/format.md section 6.5. Invariant: a dictionary is proposed only where contents that
it was not made of get so much smaller that it is paid for; what is held is bounded. Who proposes
nothing has changed nothing.

The work is done on a thread beside the caller and holds no GIL for most of it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from cas.errors import Corrupt, NotFound
from cas.limits import (
    DICTIONARY_BYTES_TARGET,
    DICTIONARY_SHARE,
    KIB,
    MIB,
)
from cas.model.ids import Kind, digest_blob
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import (
    DICTIONARY,
    RAW,
    ZSTD,
    decode_payload,
    encode_payload,
    encode_payloads,
)
from cas.storage.dictionary import DICTIONARY_CONTENT_BYTES_MIN, Dictionary, train
from cas.storage.pack import Slot
from cas.storage.record import COMMON_GROUP

SAMPLES_BYTES_MAX: Final = 8 * MIB
"""Samples of one training; from more the dictionary gets no better."""

_SAMPLE_BYTES_MAX: Final = 4 * KIB
_DICTIONARY_BYTES_MIN: Final = 1 * KIB

_TEST: Final = 16
"""One content in so many is kept apart, to see what the dictionary is worth."""

_SMALLER: Final = 8, 10
"""The test contents must take this share, at the most, of what they take with what there is."""

_CHECKED: Final = 64
"""Contents that show whether the dictionary at hand still fits."""

_FAITHFUL: Final = 3, 4
"""While they take no more than this share of plain frames, nothing better is looked for."""


class Training:
    """One look for a dictionary among small blobs of some packs, carried in slices.

    `current` is the one that is written with now: while contents are still like those that it
    was made of, nothing is done.
    """

    def __init__(
        self,
        objects: ObjectStore,
        packs: Sequence[PackInfo],
        current: Dictionary | None,
        least_bytes: int,
    ) -> None:
        self._objects = objects
        # The newest first: what is to come is like these.
        self._packs = sorted(packs, key=lambda pack: -pack.number)
        self._current = current
        self._least_bytes = least_bytes
        self._samples: list[bytes] = []
        self._size_bytes = 0
        self._thread: threading.Thread | None = None
        self.found: Dictionary | None = None
        """What to write with from now on, once `step` has said that it is over."""

    def step(self, limit: int, *, wait: bool) -> bool:
        """Look at the next packs, or at the thread; whether there is more to do."""
        while self._thread is None:
            packs, self._packs = self._packs[:limit], self._packs[limit:]
            first = not self._samples
            self._take(packs)
            few = self._samples[:_CHECKED] if first else []
            if few and self._current is not None and is_faithful(few, self._current):
                return False
            if self._packs and self._size_bytes < SAMPLES_BYTES_MAX:
                if wait:
                    continue
                return True
            if self._size_bytes < self._least_bytes:
                return False
            self._thread = threading.Thread(target=self._work, name="cas-train", daemon=True)
            self._thread.start()
        if wait:
            self._thread.join()
        return self._thread.is_alive()

    def _work(self) -> None:
        self.found = propose(self._samples, self._current)

    def _take(self, packs: Sequence[PackInfo]) -> None:
        """Small blobs of these packs. One that cannot be read teaches nothing."""
        objects = self._objects
        for pack in packs:
            with suppress(Corrupt, NotFound):
                footer = objects.lookup.footer(pack)
                slots = [slot for slot in footer.slots() if _is_lesson(slot)]
                if not slots:
                    continue
                body = objects.stored(pack, 0, footer.body_bytes)
                for slot in slots:
                    content = _content(objects, pack, slot, body)
                    self._size_bytes += len(content)
                    self._samples.append(content)
            if self._size_bytes >= SAMPLES_BYTES_MAX:
                return


def _is_lesson(slot: Slot) -> bool:
    """Whether a content may teach a dictionary something."""
    return (
        slot.kind == Kind.BLOB
        and slot.codec in (RAW, ZSTD, DICTIONARY)
        and slot.group == COMMON_GROUP
        and DICTIONARY_CONTENT_BYTES_MIN < slot.raw_bytes <= _SAMPLE_BYTES_MAX
    )


def _content(objects: ObjectStore, pack: PackInfo, slot: Slot, body: bytes) -> bytes:
    payload = body[slot.payload_offset : slot.payload_offset + slot.stored_bytes]
    if slot.codec == DICTIONARY:
        return objects.dictionaries.of(pack, payload, slot.group).decode(payload, slot.raw_bytes)
    return decode_payload(slot.codec, payload, slot.raw_bytes)


def propose(samples: Sequence[bytes], current: Dictionary | None) -> Dictionary | None:
    """A dictionary that pays for contents like these, beside the one there is; or None."""
    tests = samples[::_TEST]
    plain = [len(payload) for _codec, payload in encode_payloads(tests)]
    least = sum(plain)
    if current is not None:
        least = min(least, _encoded_bytes(current, tests))
    lessons = [sample for at, sample in enumerate(samples) if at % _TEST]
    wanted = min(DICTIONARY_BYTES_TARGET, sum(map(len, lessons)) // DICTIONARY_SHARE)
    if wanted < _DICTIONARY_BYTES_MIN:
        return None
    content = train(lessons, wanted)
    if content is None:
        return None
    found = Dictionary(digest_blob(content), content)
    total = _encoded_bytes(found, tests)
    own_bytes = len(encode_payload(content)[1])
    # All samples are about to be written; the dictionary is written twice.
    if (least - total) * _TEST < 2 * own_bytes:
        return None
    return found if total * _SMALLER[1] <= least * _SMALLER[0] else None


def is_faithful(samples: Sequence[bytes], current: Dictionary) -> bool:
    """Whether contents are still like those that a dictionary was made of. True without any."""
    plain = sum([len(payload) for _codec, payload in encode_payloads(samples)])
    return _encoded_bytes(current, samples) * _FAITHFUL[1] <= plain * _FAITHFUL[0]


def _encoded_bytes(dictionary: Dictionary, contents: Sequence[bytes]) -> int:
    payloads = dictionary.encode(contents)
    return sum(
        len(content if payload is None else payload)
        for content, payload in zip(contents, payloads, strict=True)
    )
