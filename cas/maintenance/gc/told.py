"""What segments of the journal tell a collection: the blobs that they name, and where refs moved.

Floor 5; part of docs/design/001, "Roots". Invariant: it follows from the bytes of a segment, and so
from its id; what is kept of it in the cache folder carries a digest that covers the id too, because
a collection takes what nothing is known to lead to. Without the cache segments are read, as ever.

The journal is never cut, so that without this each run would fetch all of it again, which lies in
a bucket perhaps.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from cas.limits import ID_BYTES, KIB
from cas.model.entry import Entry
from cas.model.ids import Kind, digest_blob
from cas.model.segment import Segment
from cas.model.values import frozen
from cas.objects.store import ObjectStore

_FOLDER: Final = "segments"
_MAGIC: Final = b"casTOLD1"
_SEQ_BYTES: Final = 8
_MOVE_BYTES: Final = _SEQ_BYTES + ID_BYTES
_HEAD: Final = struct.Struct("<QQQ")
"""First and last entry, and how many blobs follow."""

_CONTENT_BYTES_MIN: Final = 32 * KIB
"""A shorter segment is read again: its file would not be worth it."""


@frozen
class Told:
    """The entries that a segment holds; ids of blobs that they name, and (seq, target) of each ref
    that they move.
    """

    first_seq: int
    last_seq: int
    blobs: tuple[bytes, ...]
    moves: tuple[tuple[int, bytes], ...]


class SegmentsTold:
    """What segments tell, by their ids. `folder` None: it is read each time. One thread."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        cache = objects.cache
        self._folder: Final = None if cache is None else os.path.join(cache, _FOLDER)

    def known(self, id: bytes) -> Told | None:
        """What is known of a segment without reading it."""
        if self._folder is None:
            return None
        try:
            with open(os.path.join(self._folder, id.hex()), "rb") as file:
                return _decode(id, file.read())
        except OSError:
            return None

    def of(self, id: bytes) -> Told:
        """What a segment tells. Raises what a read of an object raises."""
        found = self.known(id)
        return self.note(id, self._objects.get(id, Kind.SEGMENT)) if found is None else found

    def note(self, id: bytes, content: bytes) -> Told:
        """Keep what a segment of this content tells, where there is a folder."""
        told = read_told(content)
        worth = len(content) >= _CONTENT_BYTES_MIN
        if worth and self._folder is not None and not self._objects.catalog.read_only:
            path = os.path.join(self._folder, id.hex())
            part = f"{path}.{os.getpid()}.tmp"
            with suppress(OSError):
                if not os.path.isdir(self._folder):
                    os.mkdir(self._folder)
                with open(part, "wb") as file:
                    file.write(_encode(id, told))
                os.replace(part, path)
        return told


def read_told(content: bytes) -> Told:
    """What the bytes of a segment tell. Raises `NotCanonical`."""
    blobs: list[bytes] = []
    moves: list[tuple[int, bytes]] = []
    segment = Segment.decode(content, verified=True)
    for data in segment.entries:
        entry = Entry.decode(data, verified=True)
        named, targets = named_in(entry)
        blobs += named
        moves += [(entry.seq, target) for target in targets]
    return Told(segment.first_seq, segment.last_seq, tuple(blobs), tuple(moves))


def named_in(entry: Entry) -> tuple[list[bytes], list[bytes]]:
    """(blobs of events, targets of refs) that an entry names."""
    blobs = [bytes(event.blob) for event in entry.events if event.blob is not None]
    return blobs, [bytes(change.new) for change in entry.changes if change.new is not None]


def _encode(id: bytes, told: Told) -> bytes:
    moves = b"".join(seq.to_bytes(_SEQ_BYTES, "little") + target for seq, target in told.moves)
    head = _HEAD.pack(told.first_seq, told.last_seq, len(told.blobs))
    body = head + b"".join(told.blobs) + moves
    return _MAGIC + digest_blob(_MAGIC + id + body) + body


def _decode(id: bytes, data: bytes) -> Told | None:
    """What was kept; None where it is not what was written for this segment."""
    start = len(_MAGIC) + ID_BYTES
    body = data[start:]
    if data[:start] != _MAGIC + digest_blob(_MAGIC + id + body):
        return None
    first, last, count = _HEAD.unpack_from(body)
    end = _HEAD.size + ID_BYTES * count
    blobs = _pieces(body[_HEAD.size : end], ID_BYTES)
    return Told(first, last, tuple(blobs), tuple(_moves(body[end:])))


def _moves(data: bytes) -> Iterator[tuple[int, bytes]]:
    for piece in _pieces(data, _MOVE_BYTES):
        yield int.from_bytes(piece[:_SEQ_BYTES], "little"), piece[_SEQ_BYTES:]


def _pieces(data: bytes, size: int) -> Sequence[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
