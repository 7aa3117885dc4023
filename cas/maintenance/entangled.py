"""What goes with content that is purged: parts that nothing else uses, dictionaries made of it.

Floor 5; part of docs/format.md section 5.9. Invariant: a part that any other object, any other
copy or the journal names stays; a dictionary that shares a few bytes with the content goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cas.model.ids import Kind
from cas.objects.children import children
from cas.objects.packs import Copy, bit_is_set
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE

_WINDOW_BYTES: Final = 8
"""So much of purged content in a dictionary is enough for it to go."""


def parts_of(objects: ObjectStore, id: bytes) -> set[bytes]:
    """Chunks and recipes that copies of large content are put together from."""
    parts: set[bytes] = set()
    for copy in objects.lookup.copies(id):
        if copy.slot.codec == RECIPE:
            stack = [objects.payload(copy)[32:64]]
            while stack:
                part = stack.pop()
                if part in parts:
                    continue
                parts.add(part)
                found = objects.find(part)
                if found is not None and found.slot.kind == Kind.RECIPE:
                    stack += children(Kind.RECIPE, objects.get(part, Kind.RECIPE))
    return parts


def used_elsewhere(
    objects: ObjectStore, ids: Iterable[bytes], parts: set[bytes], named: set[bytes]
) -> set[bytes]:
    """Those parts that objects outside, or copies of blobs other than `ids`, use; `named` are
    blobs that the journal names.
    """
    mine = set(ids)
    used = parts & named
    state = objects.lookup.ensure()
    for number, pack in state.packs.items():
        footer, bits = objects.lookup.footer(pack), state.vectors.get(number)
        for slot_number, slot in enumerate(footer.slots()):
            if bit_is_set(bits, slot_number):
                continue
            if slot.codec == RECIPE and slot.id not in mine:
                payload = objects.payload(Copy(pack, slot))
                used |= parts.intersection([payload[32:64]])
            elif slot.kind in (Kind.TREE, Kind.TAG, Kind.RECIPE) and slot.id not in parts:
                below = children(slot.kind, objects.verified(Copy(pack, slot))[1])
                used |= parts.intersection(below)
    # What a part that stays is put together from stays too.
    stack = list(used)
    while stack:
        part = stack.pop()
        found = objects.find(part)
        if found is not None and found.slot.kind == Kind.RECIPE:
            more = set(children(Kind.RECIPE, objects.get(part, Kind.RECIPE))) - used
            used |= more
            stack += more
    return used & parts


def dictionaries_of(objects: ObjectStore, goes: set[bytes]) -> set[bytes]:
    """Dictionaries that hold some of it word for word: they were made of it, or of its like."""
    state = objects.lookup.ensure()
    found: set[bytes] = set()
    for pack in state.packs.values():
        footer = objects.lookup.footer(pack)
        found.update(footer.dictionaries())
    contents = [objects.read(id)[1] for id in goes if found and objects.has(id)]
    return {id for id in found if _shares(objects.read(id)[1], contents)}


def _shares(dictionary: bytes, contents: Iterable[bytes]) -> bool:
    """Whether a piece of any content stands in a dictionary."""
    size = _WINDOW_BYTES
    pieces = {dictionary[at : at + size] for at in range(len(dictionary) - size + 1)}
    return any(
        any(content[at : at + size] in pieces for at in range(len(content) - size + 1))
        if len(content) >= size
        else content in dictionary
        for content in contents
    )
