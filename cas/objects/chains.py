"""Which copy may be the base of which, and contents of many deltas at once.

Floor 3; implements docs/format.md section 6.4. Invariant: a base is only ever a copy of smaller
depth, so that every chain ends, whatever packs say; what is held for one group of deltas is
bounded. A content that is given here was not hashed: the caller compares it with its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from cas.errors import CorruptObject
from cas.limits import DELTA_DEPTH_MAX, ID_BYTES, KIB, MIB
from cas.objects.packs import PackInfo
from cas.storage.codec import DELTA, RECIPE
from cas.storage.delta import decode_deltas, delta_base
from cas.storage.record import NO_GROUP

_BASES_BYTES_MAX: Final = 16 * MIB
"""Bases that one group of deltas may hold; those that need more are read one by one."""

_CALL_BYTES_MAX: Final = 256 * KIB
"""Decoded in one call: the memory of larger ones is new each time, and its pages cost more."""


class Place(NamedTuple):
    """Where an object lies, as its slot says; codec -1: nowhere."""

    pack: PackInfo
    offset: int
    stored_bytes: int
    raw_bytes: int
    kind: int
    codec: int
    depth: int
    group: int


class Link(NamedTuple):
    """A delta and the id of what it is made of."""

    place: Place
    base: bytes
    frame: memoryview


def may_be_base(
    base_codec: int, base_depth: int, base_kind: int, base_group: int, of: tuple[int, int, int]
) -> bool:
    """Whether a copy may be the base of a delta that has (depth, kind, group)."""
    depth, kind, group = of
    return (
        base_codec != RECIPE
        and base_depth < depth <= DELTA_DEPTH_MAX
        and base_kind == kind
        and base_group == group != NO_GROUP
    )


def fits(base: Place, place: Place) -> bool:
    """`may_be_base` of two places."""
    of = place.depth, place.kind, place.group
    return may_be_base(base.codec, base.depth, base.kind, base.group, of)


def link_of(place: Place, payload: Any) -> Link | None:
    """The link that a delta's payload states; None when it states none."""
    try:
        return Link(place, delta_base(payload), memoryview(payload)[ID_BYTES:])
    except CorruptObject:
        return None


Fetch = Callable[[Sequence[Place]], list[Any]]
"""Contents of whole copies and payloads of deltas, None for what cannot be had."""


def resolve(
    wanted: Mapping[bytes, Link],
    known: dict[bytes, Any],
    find: Callable[[bytes], Place | None],
    fetch: Fetch,
) -> dict[bytes, Any]:
    """Contents of deltas by id, as many of them as can be had; nothing is raised for the rest.

    `known` holds contents that are at hand, and takes those of bases. Each round reads the bases
    of the round before; depths fall, so there are few. Then contents are made from the bottom up.
    """
    links = dict(wanted)
    budget = _BASES_BYTES_MAX
    above = list(links.values())
    while above:
        places: dict[bytes, Place] = {}
        for link in above:
            id = link.base
            if id in known or id in links or id in places:
                continue
            place = find(id)
            if place is not None and fits(place, link.place) and place.raw_bytes <= budget:
                budget -= place.raw_bytes
                places[id] = place
        above = []
        for (id, place), found in zip(places.items(), fetch(list(places.values())), strict=True):
            if found is None:
                continue
            if place.codec != DELTA:
                known[id] = found
            elif (next_link := link_of(place, found)) is not None:
                links[id] = next_link
                above.append(next_link)
    made: dict[bytes, Any] = {}
    for depth in range(1, DELTA_DEPTH_MAX + 1):
        ready = [
            (id, link)
            for id, link in links.items()
            if link.place.depth == depth
            and link.base in known
            and (link.base not in links or fits(links[link.base].place, link.place))
        ]
        for part in _parts(ready, known):
            contents = _decode(part, known)
            known.update(contents)
            made.update((id, contents[id]) for id in contents if id in wanted)
    return made


def _parts(
    ready: Sequence[tuple[bytes, Link]], known: Mapping[bytes, Any]
) -> Iterator[list[tuple[bytes, Link]]]:
    part: list[tuple[bytes, Link]] = []
    size_bytes = 0
    for id, link in ready:
        part.append((id, link))
        size_bytes += link.place.raw_bytes + len(known[link.base])
        if size_bytes >= _CALL_BYTES_MAX:
            yield part
            part, size_bytes = [], 0
    if part:
        yield part


def _decode(part: Sequence[tuple[bytes, Link]], known: Mapping[bytes, Any]) -> dict[bytes, Any]:
    """Contents of deltas whose bases are known; where one fails its neighbours still count."""
    contents = decode_deltas(
        [link.frame for _id, link in part],
        [known[link.base] for _id, link in part],
        [link.place.raw_bytes for _id, link in part],
    )
    if contents is not None:
        return dict(zip([id for id, _link in part], contents, strict=True))
    if len(part) == 1:
        return {}
    middle = len(part) // 2
    return {**_decode(part[:middle], known), **_decode(part[middle:], known)}
