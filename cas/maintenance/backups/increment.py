"""An increment: what a store said of itself at one moment, and what is new in it since the last.

Floor 5; implements docs/format.md section 13.1. Invariant: an increment names every byte that its
state needs by what proves it, a content id or a digest of the file, and the increment before it
by the id of its index; so whoever trusts the newest index has proved the whole chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from attrs import field, frozen

from cas.errors import CorruptBackup, NewerFormat, NotCanonical
from cas.limits import ID_BYTES
from cas.model.encoding import decode, encode, is_extras, is_id, is_uint, shape

INDEX_VERSION: Final = 1
_UUID_BYTES: Final = 16


class Held(NamedTuple):
    """Bytes that lie in an increment: its number, and the id of the object in it."""

    increment: int
    id: bytes


class VectorLine(NamedTuple):
    """A deletion vector: the catalog version of its last change, and its bits."""

    version: int
    bits: Held


@frozen
class PackLine:
    """A pack of a state. `check` is the digest that an inline footer ends with, and of a pack
    file a digest of all its bytes (docs/format.md section 13.1).

    `name` is None for an inline pack, whose body and footer, one behind the other, are `body`.
    """

    number: int
    name: bytes | None
    body_bytes: int
    check: bytes
    body: Held | None
    vector: VectorLine | None


@frozen
class Origin:
    """The store that was backed up, as its catalog said it."""

    store_id: bytes
    lineage_id: bytes
    ancestry: bytes
    format: int
    features: tuple[str, ...]
    created_us: int


@frozen
class State:
    """One state of a catalog: what a store that is made of it shows."""

    seq: int
    hash: bytes
    root: bytes
    version: int
    removal_version: int
    condemn_seq: int
    packs: tuple[PackLine, ...]


class SegmentLine(NamedTuple):
    """Journal entries in this increment: the first seq, the last, the id of the segment."""

    first_seq: int
    last_seq: int
    id: bytes


@frozen
class Index:
    """What an increment says. `journal_seq` and `journal_hash` are where the journal of the chain
    ends with it. One without a `state` only carries a part of a long journal.
    """

    number: int
    previous: bytes | None
    wall_us: int
    origin: Origin
    journal_seq: int
    journal_hash: bytes
    segments: tuple[SegmentLine, ...]
    checkpoints: tuple[tuple[int, bytes], ...]
    state: State | None
    damaged: tuple[bytes, ...]
    extras: Mapping[str, Any] = field(factory=dict)

    @property
    def base(self) -> int:
        """Number of the increment that its chain begins with."""
        base = self.extras.get("base", 1)
        return base if is_uint(base) else 1

    @property
    def is_building(self) -> bool:
        """Whether it counts only with the last of those that were written with it."""
        return self.extras.get("building") is True

    @property
    def purged(self) -> bytes:
        """Digest of the ids that no file of the backup held when it was written; else b""."""
        digest = self.extras.get("purged")
        return digest if type(digest) is bytes else b""

    def encode(self) -> bytes:
        """Canonical bytes."""
        origin, state = self.origin, self.state
        return encode(
            [
                INDEX_VERSION,
                self.number,
                self.previous,
                self.wall_us,
                [
                    origin.store_id,
                    origin.lineage_id,
                    origin.ancestry,
                    origin.format,
                    " ".join(origin.features),
                    origin.created_us,
                ],
                [self.journal_seq, self.journal_hash],
                [list(line) for line in self.segments],
                [list(line) for line in self.checkpoints],
                None
                if state is None
                else [
                    state.seq,
                    state.hash,
                    state.root,
                    state.version,
                    state.removal_version,
                    state.condemn_seq,
                    [_pack_fields(line) for line in state.packs],
                ],
                list(self.damaged),
                dict(self.extras),
            ]
        )


def decode_index(data: bytes, place: str) -> Index:
    """The index of these bytes. Raises `CorruptBackup`, `NewerFormat`."""
    try:
        fields = decode(data)
        shape(type(fields) is list and len(fields) > 1, "an index is an array")
        if is_uint(fields[0]) and fields[0] > INDEX_VERSION:
            raise NewerFormat(
                f"{place} was made by a newer version (index {fields[0]}; this one knows "
                f"{INDEX_VERSION}). Install a newer version of agent-cas.",
                needs=fields[0],
                known=INDEX_VERSION,
            )
        return _index(fields)
    except NotCanonical as error:
        raise CorruptBackup(f"The index of {place} is damaged: {error}", path=place) from error


def _pack_fields(line: PackLine) -> list[Any]:
    body, vector = line.body, line.vector
    return [
        line.number,
        line.name,
        line.body_bytes,
        line.check,
        None if body is None else list(body),
        None if vector is None else [vector.version, *vector.bits],
    ]


def _index(fields: list[Any]) -> Index:
    shape(len(fields) == 11, "an index is an array of 11")
    version, number, previous, wall_us, origin, journal = fields[:6]
    segments, checkpoints, state, damaged, extras = fields[6:]
    shape(version == INDEX_VERSION and is_uint(number) and number >= 1, "an index has a number")
    base = extras.get("base", 1) if is_extras(extras) else 1
    shape(is_uint(base) and 1 <= base <= number, "a chain begins at or before its increments")
    shape(previous is None if number == base else is_id(previous), "an index names the one before")
    shape(is_uint(wall_us), "an index has a time")
    shape(_is_row(journal, 2) and is_uint(journal[0]) and is_id(journal[1]), "a journal has an end")
    for rows, width in ((segments, 3), (checkpoints, 2)):
        shape(type(rows) is list, "segments and checkpoints are arrays")
        for row in rows:
            shape(_is_row(row, width) and is_id(row[-1]), "a segment or checkpoint has an id")
            shape(all(map(is_uint, row[:-1])), "a segment or checkpoint has its seq")
    shape(type(damaged) is list and all(map(is_id, damaged)), "damaged objects have ids")
    shape(is_extras(extras), "extras are a map")
    return Index(
        number,
        previous,
        wall_us,
        _origin(origin),
        journal[0],
        journal[1],
        tuple(SegmentLine(*row) for row in segments),
        tuple((seq, root) for seq, root in checkpoints),
        None if state is None else _state(state),
        tuple(damaged),
        extras,
    )


def _is_row(row: Any, width: int) -> bool:
    return type(row) is list and len(row) == width


def _origin(row: Any) -> Origin:
    shape(_is_row(row, 6), "an origin is an array of 6")
    store, lineage, ancestry, format, features, created = row
    for id in (store, lineage):
        shape(type(id) is bytes and len(id) == _UUID_BYTES, "store and lineage have 16 bytes")
    shape(type(ancestry) is bytes and len(ancestry) % 24 == 0, "an ancestry has 24 bytes a link")
    shape(is_uint(format) and is_uint(created), "format and time are numbers")
    shape(type(features) is str, "features are text")
    return Origin(store, lineage, ancestry, format, tuple(features.split()), created)


def _state(row: Any) -> State:
    shape(_is_row(row, 7), "a state is an array of 7")
    seq, hash, root, version, removal_version, condemn_seq, packs = row
    for number in (seq, version, removal_version, condemn_seq):
        shape(is_uint(number), "a state has numbers")
    shape(is_id(hash) and is_id(root), "a state has hash and root")
    shape(type(packs) is list, "packs are an array")
    lines = tuple(map(_pack_line, packs))
    numbers = [line.number for line in lines]
    shape(all(a < b for a, b in pairwise(numbers)), "packs ascend by number")
    return State(seq, hash, root, version, removal_version, condemn_seq, lines)


def _pack_line(row: Any) -> PackLine:
    shape(_is_row(row, 6), "a pack is an array of 6")
    number, name, body_bytes, check, body, vector = row
    shape(is_uint(number) and is_uint(body_bytes) and is_id(check), "a pack has number and check")
    shape((name is None) == (body is not None), "a pack has a name or a body")
    shape(name is None or (type(name) is bytes and len(name) == _UUID_BYTES), "a name has 16 bytes")
    held = None
    if body is not None:
        shape(_is_row(body, 2), "a body is an array of 2")
        held = _held(*body)
    line = None
    if vector is not None:
        shape(_is_row(vector, 3) and is_uint(vector[0]), "a vector is an array of 3")
        line = VectorLine(vector[0], _held(*vector[1:]))
    return PackLine(number, name, body_bytes, check, held, line)


def _held(increment: Any, id: Any) -> Held:
    shape(is_uint(increment) and type(id) is bytes and len(id) == ID_BYTES, "bytes lie somewhere")
    return Held(increment, id)
