"""Training: a look for a dictionary among what a spill gathers, carried in slices.

Floor 3; docs/format.md section 6.5. Invariant: what is held is bounded; no slice reads more packs
than it is told.

The work is done on a thread beside the caller and holds no GIL for most of it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from cas.errors import Corrupt, NotFound
from cas.limits import MIB
from cas.model.ids import Kind
from cas.objects.lessons import CHECKED, SAMPLE_BYTES_MAX, is_faithful, propose
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DICTIONARY, RAW, ZSTD, decode_payload
from cas.storage.dictionary import DICTIONARY_CONTENT_BYTES_MIN, Dictionary
from cas.storage.pack import Slot
from cas.storage.record import COMMON_GROUP

SAMPLES_BYTES_MAX: Final = 8 * MIB
"""Samples of one training; from more the dictionary gets no better."""


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
        self._asked = current is None
        self._thread: threading.Thread | None = None
        self.found: Dictionary | None = None
        """What to write with from now on, once `step` has said that it is over."""

    def step(self, limit: int, *, wait: bool) -> bool:
        """Look at the next packs, or at the thread; whether there is more to do."""
        if self._fits(limit):
            return False
        while self._thread is None:
            packs, self._packs = self._packs[:limit], self._packs[limit:]
            self._take(packs)
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

    def _fits(self, limit: int) -> bool:
        """Whether the dictionary at hand still fits the newest contents."""
        if self._asked or self._current is None:
            return False
        few: list[bytes] = []
        for pack in self._packs[:limit]:
            few += self._contents(pack, CHECKED - len(few))
            if len(few) >= CHECKED:
                break
        self._asked = bool(few)
        return bool(few) and is_faithful(few, self._current)

    def _work(self) -> None:
        self.found = propose(self._samples, self._current)

    def _take(self, packs: Sequence[PackInfo]) -> None:
        for pack in packs:
            contents = self._contents(pack)
            self._samples += contents
            self._size_bytes += sum(map(len, contents))
            if self._size_bytes >= SAMPLES_BYTES_MAX:
                return

    def _contents(self, pack: PackInfo, most: int | None = None) -> list[bytes]:
        """Small blobs of a pack. One that cannot be read teaches nothing."""
        objects = self._objects
        contents: list[bytes] = []
        with suppress(Corrupt, NotFound):
            footer = objects.lookup.footer(pack)
            slots = [slot for slot in footer.slots() if _is_lesson(slot)][:most]
            body = objects.stored(pack, 0, footer.body_bytes) if slots else b""
            for slot in slots:
                contents.append(_content(objects, pack, slot, body))
        return contents


def _is_lesson(slot: Slot) -> bool:
    """Whether a content may teach a dictionary something."""
    return (
        slot.kind == Kind.BLOB
        and slot.codec in (RAW, ZSTD, DICTIONARY)
        and slot.group == COMMON_GROUP
        and DICTIONARY_CONTENT_BYTES_MIN < slot.raw_bytes <= SAMPLE_BYTES_MAX
    )


def _content(objects: ObjectStore, pack: PackInfo, slot: Slot, body: bytes) -> bytes:
    payload = body[slot.payload_offset : slot.payload_offset + slot.stored_bytes]
    if slot.codec == DICTIONARY:
        return objects.dictionaries.of(pack, payload, slot.group).decode(payload, slot.raw_bytes)
    return decode_payload(slot.codec, payload, slot.raw_bytes)
