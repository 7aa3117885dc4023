"""The dictionaries of one store: which one a copy needs, and which one is written with now.

Floor 3; implements docs/format.md section 6.5. Invariant: a dictionary is read only from a copy
that needs nothing beside itself, is of the group of those that use it, and was proved by its id;
so no chain of dictionaries can be made, whatever packs say. Nothing that does not use one depends
on any. Any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from cas.errors import Corrupt, CorruptObject, NotFound
from cas.limits import DICTIONARY_BYTES_MAX
from cas.model.ids import Kind, digest_of
from cas.objects.lessons import Rest
from cas.objects.lookup import Lookup
from cas.objects.packs import Copy, PackInfo, read_dictionaries
from cas.storage.bucket import Bucket
from cas.storage.codec import RAW, ZSTD, decode_payload
from cas.storage.dictionary import Dictionary
from cas.storage.pack import Slot
from cas.storage.record import TAG_BYTES

_KEPT_MAX: Final = 16
"""Dictionaries in memory: half a MiB each, and 1.5 MiB of tables for one that is written with."""

_PLACES_MAX: Final = 4096

_NEWEST: Final = 64
"""Packs that are asked for the dictionary to write with, newest first."""

Stored = Callable[[PackInfo, int, int], bytes]
"""Bytes of a pack, not verified."""


def may_be_dictionary(slot: Slot, group: int) -> bool:
    """Whether a copy may be read as a dictionary by copies of `group`."""
    return (
        slot.codec in (RAW, ZSTD)
        and slot.kind == Kind.BLOB
        and slot.group == group
        and slot.raw_bytes <= DICTIONARY_BYTES_MAX
    )


class Dictionaries:
    """Those of one store, loaded when they are first needed."""

    def __init__(self, lookup: Lookup, bucket: Bucket, stored: Stored) -> None:
        self._lookup = lookup
        self._bucket = bucket
        self._stored = stored
        self._lock = threading.Lock()
        # By id and group; least recently loaded first.
        self._loaded: dict[tuple[bytes, int], Dictionary] = {}
        # By number of a pack, tag and group: what most reads ask.
        self._places: dict[tuple[int, bytes, int], Dictionary] = {}
        self._current: dict[int, Dictionary | None] = {}
        self.rest = Rest()
        """Of batches of puts that look for one."""

    def of(self, pack: PackInfo, payload: bytes, group: int) -> Dictionary:
        """The dictionary that a payload of codec 4 in this pack needs. Raises `CorruptObject`."""
        key = pack.number, payload[:TAG_BYTES], group
        found = self._places.get(key)
        if found is None:
            found = self.get(self._named(pack, key[1]), group)
            with self._lock:
                if len(self._places) >= _PLACES_MAX:
                    self._places.clear()
                self._places[key] = found
        return found

    def _named(self, pack: PackInfo, tag: bytes) -> bytes:
        """Id of the dictionary of this tag, as the footer of the pack states it."""
        for id in self.named(pack):
            if id.startswith(tag):
                return id
        raise CorruptObject(
            f"A copy in {pack.label} needs the dictionary {tag.hex()}…, which its footer does not "
            "name; run `cas fsck`.",
            pack=pack.label,
        )

    def named(self, pack: PackInfo) -> list[bytes]:
        """Ids of the dictionaries that copies in a pack need, not verified. Raises `Corrupt`."""
        footer = pack.footer
        if footer is None:
            footer = self._lookup.tables.get(pack.number)
        return read_dictionaries(self._bucket, pack) if footer is None else footer.dictionaries()

    def get(self, id: bytes, group: int) -> Dictionary:
        """The dictionary of this id. Raises `CorruptObject` where no copy serves."""
        found = self._loaded.get((id, group))
        if found is not None:
            return found
        failure: Corrupt | NotFound | None = None
        for again in (False, True):
            if again:
                self._lookup.refresh()
            for copy in self._lookup.copies(id):
                if not may_be_dictionary(copy.slot, group):
                    continue
                try:
                    found = Dictionary(id, self._content(copy))
                except (Corrupt, NotFound) as error:
                    failure = error
                    continue
                self._keep(found, group)
                return found
        raise CorruptObject(
            f"The dictionary {id.hex()} has no copy that serves "
            f"({failure or 'there is none that stands alone'}); run `cas fsck`.",
            id=id,
        )

    def like(self, payload: bytes, group: int) -> list[Dictionary]:
        """Dictionaries that a payload may need whose footer is lost: all that begin as it says."""
        found = []
        for id in self._lookup.abbreviated(payload[:TAG_BYTES].hex()):
            with suppress(Corrupt):
                found.append(self.get(id, group))
        return found

    def _content(self, copy: Copy) -> bytes:
        slot = copy.slot
        payload = self._stored(copy.pack, slot.payload_offset, slot.stored_bytes)
        content = decode_payload(slot.codec, payload, slot.raw_bytes)
        if digest_of(Kind.BLOB, content) != slot.id:
            raise CorruptObject(f"Object {slot.id.hex()} in {copy.pack.label} is damaged.")
        return content

    def _keep(self, dictionary: Dictionary, group: int) -> None:
        with self._lock:
            self._loaded[dictionary.id, group] = dictionary
            if len(self._loaded) > _KEPT_MAX:
                del self._loaded[next(iter(self._loaded))]
                self._places.clear()

    # -- writing -----------------------------------------------------------------------------

    def current(self, group: int) -> Dictionary | None:
        """The dictionary to write with: the one that the newest packs use. None: there is none.

        A writer that uses it relies on it like on every object that it names and does not write.
        """
        if group not in self._current:
            self.look_again(group)
        found = self._current[group]
        if found is not None and not self._lookup.has(found.id):
            self.look_again(group)
            found = self._current[group]
        return found

    def look_again(self, group: int) -> None:
        """Find the dictionary to write with anew: others may have made one, or removed it."""
        state = self._lookup.ensure()
        found: Dictionary | None = None
        # In one call: another thread may install a pack.
        packs = list(state.packs.values())
        newest = sorted(packs, key=lambda pack: -pack.number)[:_NEWEST]
        for id in dict.fromkeys(self._names(newest)):
            with suppress(Corrupt):
                found = self.get(id, group)
                break
        self._current[group] = found if found is None or self._lookup.has(found.id) else None

    def _names(self, packs: Sequence[PackInfo]) -> list[bytes]:
        names: list[bytes] = []
        for pack in packs:
            with suppress(Corrupt, NotFound):
                names += self.named(pack)
        return names

    def use(self, dictionary: Dictionary, group: int) -> None:
        """Write with this one from now on: it is installed."""
        self._keep(dictionary, group)
        self._current[group] = dictionary

    def copies(self, id: bytes, group: int) -> int:
        """How many copies of a dictionary there are that may be read."""
        return sum(may_be_dictionary(copy.slot, group) for copy in self._lookup.copies(id))

    def users(self, id: bytes) -> list[PackInfo]:
        """The packs with copies that need this dictionary: what a purge has to rewrite. Raises
        `Corrupt` where a footer cannot be read: it could be one of them.
        """
        packs = list(self._lookup.refresh().packs.values())
        return [pack for pack in packs if id in self.named(pack)]
