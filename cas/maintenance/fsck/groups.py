"""Records in groups: read together, decompressed beside the caller, judged in order.

Floor 5; reads docs/format.md section 6.2. Invariant: what a group gives for a record is what the
record decodes to, or None; a group never raises for damage.

Frames are decompressed on a thread of their own, in groups of about a MiB and calls that hold
no GIL, while the caller reads ahead and hashes the groups before. Larger groups were slower:
their pages are new each time. A thread that reads as well waits for the GIL at every record.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from cas.errors import CasError
from cas.maintenance.fsck.hanging import Delta, Hanging
from cas.maintenance.fsck.packs import Pack, PackBytes
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA, DICTIONARY, RAW, RECIPE, ZSTD, decode_frames
from cas.storage.dictionary import Dictionary
from cas.storage.pack import Footer, Row
from cas.storage.record import RECORD_HEADER_BYTES, encode_record_header

GROUP_BYTES: Final = 1 << 20
_ROWS_MAX: Final = 1 << 15
_ROW_BYTES: Final = 512
"""About what a row and a view of its payload take: what bounds a group of tiny objects."""

_FRAMED: Final = frozenset((ZSTD, DICTIONARY))

DictionaryOf = Callable[[bytes, int], "Dictionary | None"]
"""The dictionary of a payload of codec 4 and of a group; None where it cannot be had."""


class Piece:
    """Records of one pack that lie behind each other, in order of offset.

    `contents` stand beside `rows`: None where one could not be had with the others. Records of
    recipe copies and of deltas are not among them: they are in `copies` and `deltas`, with their
    payloads. `faults` are (code, message) about this part of the pack, `needs` what the footer
    says that copies need, `gone` the ids of copies that a deletion vector has given up: their
    bytes are checked and their meaning is not.
    """

    __slots__ = (
        "beside",
        "contents",
        "copies",
        "deltas",
        "faults",
        "gone",
        "needs",
        "pack",
        "rows",
    )

    def __init__(
        self,
        pack: Pack,
        rows: list[Row],
        needs: dict[bytes, bytes],
        gone: set[bytes],
        beside: DictionaryOf | None = None,
    ) -> None:
        self.pack = pack
        self.beside = beside
        self.rows = rows
        self.needs = needs
        self.gone = gone
        self.contents: list[Any] = []
        self.copies: list[tuple[Row, bytes]] = []
        self.deltas: list[tuple[Row, bytes]] = []
        self.faults: list[tuple[str, str]] = []


class _Frames:
    """Frames that are decoded in one call, and where their contents go."""

    __slots__ = ("decoded", "payloads", "places", "sizes")

    def __init__(self) -> None:
        self.payloads: list[Any] = []
        self.sizes: list[int] = []
        self.places: list[tuple[list[Any], int]] = []
        self.decoded: Any = None


class Group:
    """Pieces that are read, decoded and judged together."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size_bytes = 0
        self.done = threading.Event()
        self.made: list[tuple[Delta, Any]] = []
        """Deltas of objects of this group with their contents, as far as these could be made."""
        self._hanging: Hanging | None = None
        self._deltas: list[Delta] = []
        # By what they stand beside; None: by themselves.
        self._frames: dict[Dictionary | None, _Frames] = {}

    def take(self, piece: Piece, source: PackBytes) -> None:
        """Read the records of a piece; frames among them wait for `decode`."""
        self.pieces.append(piece)
        rows = piece.rows
        if not rows:
            return
        start = rows[0][1]
        stop = rows[-1][1] + RECORD_HEADER_BYTES + rows[-1][2]
        try:
            buffer = source.read(piece.pack, start, stop - start)
        except CasError:
            # Each record is then read alone, and told of where that fails.
            piece.contents = [None] * len(rows)
            return
        self.size_bytes += len(buffer) + _ROW_BYTES * len(rows) + self._cut(piece, buffer, start)

    def hang(self, hanging: Hanging, deltas: Sequence[Delta]) -> None:
        """Make these deltas too: of what was taken, or of each other."""
        self._hanging = hanging
        self._deltas += deltas
        self.size_bytes += sum([delta.place.raw_bytes for delta in deltas])

    def _cut(self, piece: Piece, buffer: bytes, start: int) -> int:
        """Part a buffer into payloads, and compare the bytes before each with what the footer
        says of it; gives how much its frames hold. One pass, while the rows are at hand.
        """
        view = memoryview(buffer)
        contents, copies, deltas = piece.contents, piece.copies, piece.deltas
        alone = self._frames.setdefault(None, _Frames())
        framed_bytes = 0
        for row in piece.rows:
            _id, offset, stored, raw, kind, codec, depth, _flags, group = row
            body = offset - start + RECORD_HEADER_BYTES
            said = encode_record_header(kind, codec, depth, group, stored, raw)
            if buffer[offset - start : body] != said:
                piece.faults.append(_header_fault(piece.pack, row))
            payload = view[body : body + stored]
            if codec == RAW:
                contents.append(payload)
            elif codec == RECIPE:
                # Judged in another way than contents.
                copies.append((row, bytes(payload)))
            elif codec == DELTA:
                deltas.append((row, bytes(payload)))
            else:
                frames: _Frames | None = alone
                if codec == DICTIONARY:
                    frames = self._beside(piece, bytes(payload), group)
                if frames is not None:
                    frames.places.append((contents, len(contents)))
                    frames.payloads.append(payload)
                    frames.sizes.append(raw)
                    framed_bytes += raw
                contents.append(None)
        if copies or deltas:
            piece.rows = [row for row in piece.rows if row[5] != RECIPE and row[5] != DELTA]
        return framed_bytes

    def _beside(self, piece: Piece, payload: bytes, group: int) -> _Frames | None:
        """Where a payload of codec 4 is put; None where its dictionary cannot be had."""
        dictionary = None if piece.beside is None else piece.beside(payload, group)
        return None if dictionary is None else self._frames.setdefault(dictionary, _Frames())

    def decode(self) -> None:
        """Decompress the frames; any thread, and it holds no GIL while it does. Never raises."""
        try:
            for dictionary, frames in self._frames.items():
                if not frames.payloads:
                    continue
                if dictionary is None:
                    frames.decoded = decode_frames(frames.payloads, frames.sizes)
                else:
                    payloads = [bytes(payload) for payload in frames.payloads]
                    frames.decoded = dictionary.decode_many(payloads, frames.sizes)
            self._place()
            if self._hanging is not None:
                self.made = self._hanging.make(self._deltas, self._bases())
        finally:
            # What did not decode, for whatever reason, is tried alone by the caller.
            self.done.set()

    def _bases(self) -> dict[bytes, Any]:
        wanted = {delta.base for delta in self._deltas}
        return {
            row[0]: content
            for piece in self.pieces
            for row, content in zip(piece.rows, piece.contents, strict=True)
            if content is not None and row[0] in wanted
        }

    def _place(self) -> None:
        """Put decoded contents beside their rows; where one failed, all of them stay None."""
        for frames in self._frames.values():
            if frames.decoded is not None:
                for at, (contents, position) in enumerate(frames.places):
                    contents[position] = frames.decoded[at]


def _header_fault(pack: Pack, row: Row) -> tuple[str, str]:
    return (
        "record-header",
        f"The record of {row[0].hex()} in {pack.label} begins with other bytes than the footer "
        "says: readers are not misled, but no scan would find it; put the same content again.",
    )


def beside_of(objects: ObjectStore, pack: PackInfo) -> DictionaryOf:
    """What gives the dictionary of a payload in this pack."""

    def find(payload: bytes, group: int) -> Dictionary | None:
        try:
            return objects.dictionaries.of(pack, payload, group)
        except CasError:
            return None  # told of when the record is tried alone

    return find


def parts(footer: Footer) -> Iterator[list[Row]]:
    """Slots of a footer in order of offset, cut into parts of about `GROUP_BYTES` of content or
    of stored bytes.

    A part has no gap and no overlap, so that what is read for it is no more than its records.
    Rows are made part by part: those of a whole pack would be read from memory in the order of
    their ids, each time anew, and a pack of tiny objects would take 350 MB for them.
    """
    order = footer.by_offset()
    part: list[Row] = []
    size = end = 0
    for first in range(0, len(order), _ROWS_MAX):
        for row in footer.pick(order[first : first + _ROWS_MAX]):
            if row[1] != end and part:
                yield part
                part, size = [], 0
            part.append(row)
            stored = row[2]
            end = row[1] + RECORD_HEADER_BYTES + stored
            size += stored + _ROW_BYTES + (row[3] if row[5] in _FRAMED else 0)
            if size >= GROUP_BYTES:
                yield part
                part, size = [], 0
    if part:
        yield part


class Decoder:
    """Decodes the frames of groups on a thread beside the caller, who helps instead of waiting."""

    def __init__(self) -> None:
        self._todo: deque[Group] = deque()
        self._ready = threading.Semaphore(0)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="cas-fsck", daemon=True)

    def __enter__(self) -> Decoder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._todo.clear()
        self._ready.release()
        self._thread.join()

    def submit(self, group: Group) -> None:
        """Decode a group some time before `wait` for it returns."""
        self._todo.append(group)
        self._ready.release()

    def wait(self, group: Group) -> None:
        """Return when a group is decoded. Groups are begun in the order of `submit`."""
        while not group.done.is_set():
            try:
                mine = self._todo.popleft()
            except IndexError:
                group.done.wait()
            else:
                mine.decode()

    def _work(self) -> None:
        while True:
            self._ready.acquire()
            try:
                group = self._todo.popleft()
            except IndexError:
                if self._closed:
                    return
                continue
            group.decode()
