"""Every record of every pack: read from front to back, decoded, hashed.

Floor 5; checks docs/format.md section 6.2. Invariant: between header and footer of a pack every
byte is either checked or told of: record headers by comparison with the footer, payloads by
decoding and hashing, and what belongs to no record is a gap.

Packs are read by one thread beside the caller, in groups of about a MiB, and decompressed in
calls that hold no GIL, while the caller hashes the group before. Larger groups were slower:
their pages are new each time, and a small group stays in the cache between the two threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from queue import SimpleQueue
from typing import Any, Final

import attrs

from cas.errors import CasError
from cas.limits import ID_BYTES
from cas.maintenance.findings import Findings
from cas.maintenance.packs import IDS_KEPT_MAX, Pack, PackBytes, PackSurvey
from cas.model.ids import digest_of
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA, RAW, RECIPE, ZSTD, decode_frames, decode_payload
from cas.storage.pack import EDGE_BASE, EDGE_RECIPE, PACK_HEADER_BYTES, Edge
from cas.storage.record import RECORD_HEADER_BYTES, encode_record_header

GROUP_BYTES: Final = 1 << 20
_AHEAD: Final = 3

Row = tuple[bytes, int, int, int, int, int, int, int, int]
"""A slot: id, offset, stored, raw, kind, codec, depth, flags, group."""


@attrs.define(slots=True)
class Piece:
    """Records of one pack that lie behind each other.

    `contents` are in the order of `rows`: None where one did not decode in the group, the
    payload of a recipe copy. `faults` are (code, message) about this part of the pack, `recipes`
    what the footer says the recipe copies need.
    """

    pack: Pack
    rows: Sequence[Row]
    contents: list[Any]
    faults: list[tuple[str, str]]
    recipes: dict[bytes, bytes]


Group = list[Piece]


class RecordCheck:
    """Checks the records of surveyed packs. `structured` is called with each object that names
    others: (id, kind, content); `recipe_copy` with (id, recipe id, size in bytes, pack).
    """

    def __init__(
        self,
        objects: ObjectStore,
        survey: PackSurvey,
        findings: Findings,
        structured: Callable[[bytes, int, bytes], None],
        recipe_copy: Callable[[bytes, bytes, int, Pack], None],
        on_group: Callable[[int, int], None],
    ) -> None:
        self._objects = objects
        self._survey = survey
        self._findings = findings
        self._structured = structured
        self._recipe_copy = recipe_copy
        self._on_group = on_group
        self._bytes = PackBytes(objects)
        # id -> (pack, why) of each damaged copy.
        self._bad: dict[bytes, list[tuple[str, str]]] = {}
        self.bases: list[tuple[bytes, int, str]] = []
        """(base id, depth of the copy that needs it, its pack) of every delta."""
        self.content_bytes = 0
        self.moved = False
        """Whether a pack was gone between the survey and the reading of it."""

    def run(self, packs: Iterable[Pack]) -> None:
        """Check the records of packs."""
        with _Ahead(self._groups(packs)) as groups:
            for group in groups:
                stored = count = 0
                for piece in group:
                    for code, message in piece.faults:
                        self._findings.add(code, piece.pack.label, message)
                    self._check(piece)
                    count += len(piece.rows)
                    stored += sum([row[2] for row in piece.rows])
                self._on_group(count, stored)

    def _check(self, piece: Piece) -> None:
        pack = piece.pack
        size = 0
        for row, content in zip(piece.rows, piece.contents, strict=True):
            id, kind = row[0], row[4]
            if content is None:
                content = self._alone(pack, row)
                if content is None:
                    continue
            if row[5] == RECIPE:
                if content[:ID_BYTES] != id:
                    self.damaged(id, pack, "its recipe payload names another object")
                    continue
                recipe = bytes(content[ID_BYTES:])
                if piece.recipes.get(id) not in (recipe, None):
                    self._findings.add(
                        "storage-edge",
                        id.hex(),
                        f"The footer of {pack.label} names another recipe for {id.hex()} than its "
                        "record; put the same content again.",
                    )
                self._recipe_copy(id, recipe, row[3], pack)
                continue
            if digest_of(kind, content) != id:
                self.damaged(id, pack, "its content does not hash to its id")
                continue
            size += row[3]
            if kind != 1:
                self._structured(id, kind, bytes(content))
        self.content_bytes += size

    def _alone(self, pack: Pack, row: Row) -> bytes | None:
        """Content of a record that did not come with its group, or None after telling why."""
        try:
            payload = self._bytes.read(pack, row[1] + RECORD_HEADER_BYTES, row[2])
            return payload if row[5] == RECIPE else decode_payload(row[5], payload, row[3])
        except CasError as error:
            if not self._is_named(pack):
                self.moved = True
                return None
            self.damaged(row[0], pack, str(error).rstrip("."))
            return None

    def _is_named(self, pack: Pack) -> bool:
        """Whether the catalog still names a pack: a spill may have replaced it meanwhile."""
        with suppress(CasError), self._objects.catalog.read() as reader:
            return pack.number in reader.pack_numbers()
        return True

    def damaged(self, id: bytes, pack: Pack, why: str) -> None:
        """Note a damaged copy of an object."""
        if id in self._bad or len(self._bad) < IDS_KEPT_MAX:
            self._bad.setdefault(id, []).append((pack.label, why))
        else:
            self._findings.add("object-lost", id.hex(), f"Object {id.hex()} is damaged: {why}.")

    def finish(self) -> None:
        """Tell of damaged copies: whether another one is whole."""
        if not self._bad:
            return
        copies = dict.fromkeys(self._bad, 0)
        for pack in self._survey.packs:
            with suppress(CasError):
                for number, id in enumerate(self._survey.footer(pack, self._bytes).ids()):
                    if id in copies and not self._survey.is_gone(pack, number):
                        copies[id] += 1
        for id, found in self._bad.items():
            label, why = found[0]
            if copies[id] > len(found):
                message = (
                    f"The copy of object {id.hex()} in {label} is damaged ({why}); another copy "
                    "is whole, so nothing is lost: put the same content again to have two."
                )
                self._findings.add("copy-damaged", id.hex(), message)
            else:
                message = (
                    f"Object {id.hex()} in {label} is lost ({why}); put the same content again, "
                    "or restore the pack from a backup."
                )
                self._findings.add("object-lost", id.hex(), message, (id,))

    # -- reading, on the other thread --------------------------------------------------------

    def _groups(self, packs: Iterable[Pack]) -> Iterator[Group]:
        """Records of all packs in groups of about a MiB, decoded."""
        source = PackBytes(self._objects)
        group: Group = []
        frames = _Frames()
        for pack in packs:
            for piece, buffer in self._pieces(pack, source):
                group.append(piece)
                if buffer is not None:
                    frames.place(piece, buffer)
                if frames.size_bytes >= GROUP_BYTES:
                    frames.decode()
                    yield group
                    group = []
        frames.decode()
        yield group

    def _pieces(self, pack: Pack, source: PackBytes) -> Iterator[tuple[Piece, bytes | None]]:
        """Parts of a pack, each with the bytes from its first record to the end of its last."""
        try:
            footer = self._survey.footer(pack, source)
        except CasError as error:
            self.moved = True
            if self._is_named(pack):
                fault = "pack-unreadable", f"{pack.label} could not be read again ({error})."
                yield Piece(pack, (), [], [fault], {}), None
            return
        numbered = list(footer.rows())
        recipes, faults = self._edges(pack, numbered, footer.edges())
        rows = sorted(numbered, key=itemgetter(1))
        faults += _gaps(pack, rows)
        if self._survey.has_gone(pack):
            rows = [row for row in rows if not self._survey.is_gone(pack, footer.find(row[0]))]
        for part in _parts(rows):
            start = part[0][1]
            stop = max([row[1] + RECORD_HEADER_BYTES + row[2] for row in part])
            piece = Piece(pack, part, [None] * len(part), faults, recipes)
            faults = []
            try:
                buffer = source.read(pack, start, stop - start)
            except CasError:
                buffer = None  # each record is then read alone, and told of where that fails
            yield piece, buffer
        if faults:
            yield Piece(pack, (), [], faults, {}), None

    def _edges(
        self, pack: Pack, rows: Sequence[Row], edges: Iterable[Edge]
    ) -> tuple[dict[bytes, bytes], list[tuple[str, str]]]:
        """Recipe by id of the copy that needs it, and copies whose edges do not fit them."""
        recipes: dict[bytes, bytes] = {}
        bases = set()
        for slot, role, target in edges:
            row = rows[slot]
            if role == EDGE_RECIPE:
                recipes[row[0]] = target
            elif role == EDGE_BASE:
                bases.add(row[0])
                self.bases.append((target, row[6], pack.label))
        faults = [
            (
                "storage-edge",
                f"The footer of {pack.label} does not say what the copy of {row[0].hex()} needs; "
                "put the same content again.",
            )
            for row in rows
            if (row[5] == RECIPE) != (row[0] in recipes) or (row[5] == DELTA) != (row[0] in bases)
        ]
        return recipes, faults


class _Frames:
    """Payloads of one group: what is stored as it is is placed at once, frames are gathered."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._frames: list[memoryview] = []
        self._sizes: list[int] = []
        self._targets: list[tuple[list[Any], int]] = []

    def place(self, piece: Piece, buffer: bytes) -> None:
        view = memoryview(buffer)
        contents = piece.contents
        start = piece.rows[0][1]
        for at, (id, offset, stored, raw, kind, codec, depth, _flags, group) in enumerate(
            piece.rows
        ):
            head = offset - start
            payload = head + RECORD_HEADER_BYTES
            expected = encode_record_header(kind, codec, depth, group, stored, raw)
            if buffer[head:payload] != expected:
                fault = (
                    f"The record of {id.hex()} in {piece.pack.label} begins with other bytes "
                    "than the footer says; it can be read, but no scan would find it: restore "
                    "the pack from a backup."
                )
                piece.faults.append(("record-header", fault))
            if codec == ZSTD:
                self._frames.append(view[payload : payload + stored])
                self._sizes.append(raw)
                self._targets.append((contents, at))
                self.size_bytes += raw
            elif codec in (RAW, RECIPE):
                contents[at] = view[payload : payload + stored]
                self.size_bytes += stored

    def decode(self) -> None:
        """Put contents where they belong; none of them when one frame is damaged."""
        decoded = decode_frames(self._frames, self._sizes) if self._frames else None
        if decoded is not None:
            for (contents, at), content in zip(self._targets, decoded, strict=True):
                contents[at] = content
        self.__init__()  # type: ignore[misc]


def _gaps(pack: Pack, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Bytes of a pack that belong to no record, or to two; `rows` in order of offset."""
    ends = [PACK_HEADER_BYTES, *[row[1] + RECORD_HEADER_BYTES + row[2] for row in rows]]
    starts = [*[row[1] for row in rows], pack.body_bytes]
    return [
        (
            "pack-gap",
            f"{pack.label} has {abs(start - end)} bytes at {min(start, end)} that belong to "
            f"{'no record' if start > end else 'two records'}; restore the pack from a backup.",
        )
        for end, start in zip(ends, starts, strict=True)
        if start != end
    ]


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut rows into parts of about `GROUP_BYTES` of content or of stored bytes."""
    first = raw = stored = 0
    for at, row in enumerate(rows):
        raw += row[3] if row[5] == ZSTD else 0
        stored += row[2] + RECORD_HEADER_BYTES
        if raw + stored >= GROUP_BYTES:
            yield rows[first : at + 1]
            first, raw, stored = at + 1, 0, 0
    if first < len(rows):
        yield rows[first:]


@attrs.frozen
class _End:
    error: BaseException | None


class _Ahead:
    """`with _Ahead(items) as ahead`: iterate `items` on a thread of its own, a few ahead."""

    def __init__(self, items: Iterator[Group]) -> None:
        self._items = items
        self._queue: SimpleQueue[Group | _End] = SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="cas-fsck", daemon=True)

    def __enter__(self) -> Iterator[Group]:
        self._thread.start()
        return self._given()

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._room.release()
        self._thread.join()

    def _given(self) -> Iterator[Group]:
        while True:
            item = self._queue.get()
            self._room.release()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                self._room.acquire()
                if self._stopped:
                    return
                self._queue.put(item)
        except BaseException as failure:
            error = failure
        self._queue.put(_End(error))
