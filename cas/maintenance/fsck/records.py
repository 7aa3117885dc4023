"""Every record of every pack: read from front to back, decoded, hashed.

Floor 5; checks docs/format.md section 6.2. Invariant: between header and footer of a pack every
byte is either checked or told of: record headers by comparison with the footer, payloads by
decoding and hashing, and what belongs to no record is a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

from cas.errors import CasError
from cas.limits import ID_BYTES
from cas.maintenance.findings import Findings
from cas.maintenance.fsck.deltas import DeltaCheck, dependants
from cas.maintenance.fsck.groups import GROUP_BYTES, Decoder, Group, Piece, beside_of, parts
from cas.maintenance.fsck.hanging import Hanging
from cas.maintenance.fsck.packs import (
    IDS_KEPT_MAX,
    Pack,
    PackBytes,
    PackSurvey,
    is_out_of_reach,
)
from cas.model.ids import digests_of
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA, DICTIONARY, RECIPE, decode_payload
from cas.storage.header import PACK_HEADER_BYTES
from cas.storage.pack import EDGE_BASE, EDGE_RECIPE, Footer, Row
from cas.storage.record import RECORD_HEADER_BYTES, TAG_BYTES

Named = tuple[bytes, int, bytes]
"""An object that names others: id, kind, content."""

_AHEAD: Final = 6
"""Groups that are read before the first of them is judged: about as many MiB of memory."""


class RecordCheck:
    """Checks the records of surveyed packs. `structured` is called with some objects that name
    others, in the order in which they lie: [(id, kind, content), ...]; `recipe_copy` with (id,
    recipe id, size in bytes, pack).
    """

    def __init__(
        self,
        objects: ObjectStore,
        survey: PackSurvey,
        findings: Findings,
        structured: Callable[[Sequence[Named]], None],
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
        """(base id, depth of the copy that needs it, its pack) of deltas that do not decode."""
        self._hanging = Hanging(objects, survey)
        self._deltas = DeltaCheck(objects, self._delta_fault, self._edge_differs)
        self.content_bytes = 0
        self.lost: set[bytes] = set()
        """Objects of which no copy is whole; known after `finish`."""
        self.structured_only = False
        """Read only what names others; then nothing is said of gaps, and nothing is counted."""
        self.moved = False
        """Whether a pack was gone between the survey and the reading of it."""

    def run(
        self,
        packs: Iterable[Pack],
        meanwhile: Callable[[], None],
        certain: Iterable[Pack] = (),
    ) -> None:
        """Check the records of packs. `meanwhile` is called once, before the first is judged and
        while the first are being decoded. Deltas in those that are `certain` to be read are made
        as soon as their bases are.
        """
        self._hanging.learn(certain)
        waiting: deque[Group] = deque()
        with Decoder() as decoder:
            groups = self._groups(packs)
            for group in islice(groups, _AHEAD):
                decoder.submit(group)
                waiting.append(group)
            meanwhile()
            for group in groups:
                decoder.submit(group)
                waiting.append(group)
                decoder.wait(waiting[0])
                self._check_group(waiting.popleft())
            while waiting:
                decoder.wait(waiting[0])
                self._check_group(waiting.popleft())
        for deltas in self._deltas.groups(everything=True):
            self._check_group(deltas)

    def _check_group(self, group: Group) -> None:
        good = self._hanging.judge(group.made)
        self.content_bytes += sum([delta.place.raw_bytes for delta in good])
        count = len(good)
        stored = sum([delta.place.stored_bytes for delta in good])
        named: list[Named] = []
        for piece in group.pieces:
            for code, message in piece.faults:
                self._findings.add(code, piece.pack.label, message)
            self._check(piece, named)
            count += len(piece.rows) + len(piece.copies)
            stored += sum([row[2] for row in piece.rows])
            if piece.deltas:
                self._meet(piece, named)
        if named:
            self._structured(named)
        self._on_group(count, stored)
        for deltas in self._deltas.groups(everything=False):
            self._check_group(deltas)

    def _meet(self, piece: Piece, named: list[Named]) -> None:
        """Deltas in the order in which they lie: those that are not judged yet wait for bases."""
        left = []
        for row, payload in piece.deltas:
            content = self._hanging.judged(piece.pack, row[0])
            if content is None:
                left.append((row, payload))
            elif content:
                named.append((row[0], row[4], content))
        if left:
            piece.deltas = left
            self._deltas.take(piece)

    def _check(self, piece: Piece, named: list[Named]) -> None:
        """Judge the records of a piece; what names other objects goes to `named`."""
        rows, contents = piece.rows, piece.contents
        if not all(contents):
            # One that is damaged spoils its group: each is tried alone. Empty blobs pass here.
            contents = [
                self._alone(piece, row) if content is None else content
                for row, content in zip(rows, contents, strict=True)
            ]
            rows = [row for row, content in zip(rows, contents, strict=True) if content is not None]
            contents = [content for content in contents if content is not None]
        kinds = [row[4] for row in rows]
        ids = [row[0] for row in rows]
        digests = digests_of(kinds, contents)
        if digests != ids:
            for row, digest in zip(rows, digests, strict=True):
                if row[0] != digest:
                    self._spoiled(piece, row, "its content does not hash to its id")
        if not self.structured_only:
            self.content_bytes += sum([row[3] for row in rows])
        named += [
            (ids[at], kind, bytes(contents[at]))
            for at, kind in enumerate(kinds)
            if kind != 1 and digests[at] == ids[at] and ids[at] not in piece.gone
        ]
        for row, payload in piece.copies:
            self._check_copy(piece, row, payload)

    def _check_copy(self, piece: Piece, row: Row, payload: bytes) -> None:
        """A recipe copy: does it rebuild the object that the footer says, by that recipe?"""
        id, recipe = row[0], payload[ID_BYTES:]
        if payload[:ID_BYTES] != id:
            self._spoiled(piece, row, "its recipe payload names another object")
            return
        if id in piece.gone:
            return
        if piece.needs.get(id) not in (recipe, None):
            self._findings.add(
                "storage-edge",
                id.hex(),
                f"The footer of {piece.pack.label} names another recipe for {id.hex()} than its "
                "record; put the same content again.",
            )
        self._recipe_copy(id, recipe, row[3], piece.pack)

    def _alone(self, piece: Piece, row: Row) -> bytes | None:
        """Content of a record that could not be had with others; None after judging it here."""
        pack = piece.pack
        needs: list[bytes] = []
        try:
            payload = self._bytes.read(pack, row[1] + RECORD_HEADER_BYTES, row[2])
            if row[5] == RECIPE:
                self._check_copy(piece, row, payload)
                return None
            if row[5] == DELTA:
                alone = Piece(pack, [], piece.needs, piece.gone)
                alone.deltas.append((row, payload))
                self._deltas.take(alone)
                return None
            if row[5] == DICTIONARY:
                footer = self._survey.footer(pack, self._bytes)
                info = PackInfo(pack.number, pack.file, pack.body_bytes, footer)
                tag = payload[:TAG_BYTES]
                needs += [id for id in footer.dictionaries() if id.startswith(tag)]
                found = self._objects.dictionaries.of(info, payload, row[8])
                return found.decode(payload, row[3])
            return decode_payload(row[5], payload, row[3])
        except CasError as error:
            if pack.file is not None and is_out_of_reach(error):
                raise
            if self._is_named(pack):
                self._spoiled(piece, row, str(error).rstrip("."), needs)
            else:
                self.moved = True
            return None

    def _delta_fault(self, piece: Piece, row: Row, base: bytes, why: str) -> None:
        """Note a delta that gives no content."""
        if row[0] not in piece.gone:
            self.bases.append((base, row[6], piece.pack.label))
        self._spoiled(piece, row, why, (base,) if base else ())

    def _edge_differs(self, pack: Pack, id: bytes) -> None:
        self._findings.add(
            "storage-edge",
            pack.label,
            f"The footer of {pack.label} does not say what the copy of {id.hex()} needs; put the "
            "same content again.",
        )

    def _spoiled(self, piece: Piece, row: Row, why: str, needs: Sequence[bytes] = ()) -> None:
        """Note a record that gives no content, or another one; `needs` is what it stands on."""
        if row[0] not in piece.gone:
            self.damaged(row[0], piece.pack, why)
            return
        if not all(map(self._objects.lookup.exists, needs)):
            return  # what a copy that was given up stands on may have gone before it
        self._findings.add(
            "copy-condemned",
            row[0].hex(),
            f"A copy of {row[0].hex()} in {piece.pack.label} that was given up is damaged ({why}); "
            "nothing needs it, but have a look at the disk.",
        )

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

    @property
    def bad(self) -> Mapping[bytes, Sequence[tuple[str, str]]]:
        """(pack, why) of each damaged copy, by id."""
        return self._bad

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
        hanging = dependants(self._survey, self._bytes, set(self._bad))
        for id, found in self._bad.items():
            label, why = found[0]
            if id in hanging:
                why = f"{why}; {hanging[id]} objects are made of it"
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
                self.lost.add(id)

    # -- reading -----------------------------------------------------------------------------

    def _groups(self, packs: Iterable[Pack]) -> Iterator[Group]:
        """Records of all packs, read in groups of about a MiB."""
        group = Group()
        for pack in packs:
            for piece in self._pieces(pack):
                group.take(piece, self._bytes)
                if hanging := self._hanging.take(piece.rows, piece.gone):
                    group.hang(self._hanging, hanging)
                if group.size_bytes >= GROUP_BYTES:
                    yield group
                    group = Group()
        yield group

    def _pieces(self, pack: Pack) -> Iterator[Piece]:
        """Parts of a pack of about a MiB, nothing read yet."""
        try:
            footer = self._survey.footer(pack, self._bytes)
        except CasError as error:
            if pack.file is not None and is_out_of_reach(error):
                raise
            self.moved = True
            if self._is_named(pack):
                self._findings.add(
                    "pack-unreadable",
                    pack.label,
                    f"{pack.label} could not be read again ({error}); check the disk.",
                )
            return
        self._hanging.begin(pack)
        recipes, bases = self._edges(footer)
        needs = recipes | bases
        gone: set[bytes] = set()
        if self._survey.has_gone(pack):
            ids = enumerate(footer.ids())
            gone = {id for number, id in ids if self._survey.is_gone(pack, number)}
        info = PackInfo(pack.number, pack.file, pack.body_bytes, footer)
        beside = beside_of(self._objects, info)
        end = PACK_HEADER_BYTES
        for rows in parts(footer):
            self._compare_edges(pack, rows, recipes, bases)
            if self.structured_only:
                if rows := [row for row in rows if row[4] != 1 or row[5] == RECIPE]:
                    yield Piece(pack, rows, needs, gone)
                continue
            if rows[0][1] != end:
                self._gap(pack, end, rows[0][1])
            end = rows[-1][1] + RECORD_HEADER_BYTES + rows[-1][2]
            yield Piece(pack, rows, needs, gone, beside)
        if end != pack.body_bytes and not self.structured_only:
            self._gap(pack, end, pack.body_bytes)

    def _gap(self, pack: Pack, end: int, start: int) -> None:
        """Tell of bytes that belong to no record, or to two. Parts have none within."""
        whose = "no record" if start > end else "two records"
        self._findings.add(
            "pack-gap",
            pack.label,
            f"{pack.label} has {abs(start - end)} bytes at {min(start, end)} that belong to "
            f"{whose}; restore the pack from a backup.",
        )

    @staticmethod
    def _edges(footer: Footer) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Recipe, and base, by id of the copy that needs it."""
        recipes: dict[bytes, bytes] = {}
        bases: dict[bytes, bytes] = {}
        for number, role, target in footer.edges():
            if role == EDGE_RECIPE:
                recipes[footer.id_at(number)] = target
            elif role == EDGE_BASE:
                bases[footer.id_at(number)] = target
        return recipes, bases

    def _compare_edges(
        self,
        pack: Pack,
        rows: Sequence[Row],
        recipes: dict[bytes, bytes],
        bases: dict[bytes, bytes],
    ) -> None:
        """Tell of copies whose edges do not fit their codec."""
        if not recipes and not bases and {RECIPE, DELTA}.isdisjoint([row[5] for row in rows]):
            return
        for row in rows:
            if (row[5] == RECIPE) != (row[0] in recipes) or (row[5] == DELTA) != (row[0] in bases):
                self._edge_differs(pack, row[0])
