"""Objects found and read together: in the order in which they lie, decoded and hashed in one go.

Floor 3. Invariant: a content that is given hashed to the id that was asked for; what does not
serve here is None, and the caller tries every other copy. Holds the contents of one group, which
the caller bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cas.errors import Corrupt, NotFound
from cas.model.ids import Kind, digests_of
from cas.objects.packs import Copy, PackInfo
from cas.storage.codec import DICTIONARY, RAW, ZSTD, decode_frames, decode_payload
from cas.storage.dictionary import Dictionary
from cas.storage.record import RECORD_HEADER_BYTES

_KINDS: Final = frozenset(map(int, Kind))
_FRAMED: Final = frozenset((ZSTD, DICTIONARY))

Loaded = tuple[int, bytes]
"""Kind and content."""


def load_many(
    stored: Callable[[PackInfo, int, int], bytes],
    read: Callable[[str, int, int], bytes],
    load: Callable[[Copy], Loaded],
    dictionary: Callable[[PackInfo, bytes, int], Dictionary],
    ids: Sequence[bytes],
    copies: Sequence[Copy | None],
) -> list[Loaded | None]:
    """Kind and content of a copy of each id, verified; None where there is none that serves.

    `stored` gives bytes of a pack, `read` bytes of a file of one, `load` one copy of any codec,
    `dictionary` that of a payload in a pack and of a group; all raise `Corrupt`, `NotFound`.
    """
    loaded: list[Loaded | None] = [None] * len(ids)
    order: list[tuple[int, int, int]] = []
    others: list[tuple[int, int, int]] = []
    for at, copy in enumerate(copies):
        if copy is not None:
            pack, slot = copy
            plain = slot.codec in _FRAMED or (
                slot.codec == RAW and slot.stored_bytes == slot.raw_bytes
            )
            (order if plain else others).append((pack.number, slot.offset, at))
    order.sort()
    others.sort()
    contents: dict[int, bytes] = {}
    kinds: dict[int, int] = {}
    framed: dict[Dictionary | None, list[int]] = {}
    for _number, offset, at in order:
        pack, slot = copies[at]  # type: ignore[misc]
        try:
            start = offset + RECORD_HEADER_BYTES
            if pack.file is None:
                contents[at] = stored(pack, start, slot.stored_bytes)
            else:
                contents[at] = read(pack.file, start, slot.stored_bytes)
            if slot.codec == DICTIONARY:
                which = dictionary(pack, contents[at], slot.group)
                framed.setdefault(which, []).append(at)
            elif slot.codec:
                framed.setdefault(None, []).append(at)
        except (Corrupt, NotFound):
            contents.pop(at, None)
            continue
        kinds[at] = slot.kind
    for beside, numbers in framed.items():
        sizes = [copies[at].slot.raw_bytes for at in numbers]  # type: ignore[union-attr]
        _decode(beside, numbers, sizes, contents, kinds)
    if not _KINDS.issuperset(kinds.values()):
        for at in [at for at, kind in kinds.items() if kind not in _KINDS]:
            del contents[at], kinds[at]
    digests = digests_of(kinds.values(), contents.values())
    for at, kind, content, digest in zip(
        contents, kinds.values(), contents.values(), digests, strict=True
    ):
        if digest == ids[at]:
            loaded[at] = kind, content
    for _number, _offset, at in others:
        try:
            loaded[at] = load(copies[at])  # type: ignore[arg-type]
        except (Corrupt, NotFound):
            continue
    return loaded


def _decode(
    beside: Dictionary | None,
    framed: list[int],
    sizes: list[int],
    contents: dict[int, bytes],
    kinds: dict[int, int],
) -> None:
    """Put contents in the place of frames; what does not decode is left out."""
    frames = [contents[at] for at in framed]
    if beside is None:
        decoded = decode_frames(frames, sizes)
    else:
        decoded = beside.decode_many(frames, sizes)
    for number, at in enumerate(framed):
        if decoded is not None:
            contents[at] = decoded[number].tobytes()
            continue
        try:
            if beside is None:
                contents[at] = decode_payload(ZSTD, contents[at], sizes[number])
            else:
                contents[at] = beside.decode(contents[at], sizes[number])
        except Corrupt:
            del contents[at], kinds[at]
