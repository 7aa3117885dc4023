"""Checks deltas: what each gives beside its base, whether bases are what they must be, and how
many objects hang on one that is damaged.

Floor 5; checks docs/format.md section 6.4. Invariant: every delta is judged by the content that
it gives, read from the very copy that is checked; a failure of one stops no other. Deltas are
set aside until a few thousand wait, so that memory does not follow their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from cas.errors import CasError
from cas.limits import ID_BYTES, MIB
from cas.maintenance.groups import Group, Piece, Row
from cas.maintenance.packs import Pack, PackBytes, PackSurvey
from cas.objects.bulk import BulkReader
from cas.objects.chains import Place
from cas.objects.packs import Copy, PackInfo
from cas.objects.store import ObjectStore
from cas.storage.pack import EDGE_BASE, Slot
from cas.storage.record import RECORD_HEADER_BYTES

_WAITING_MAX: Final = 4096
_GROUP_BYTES: Final = 1 * MIB

Fault = Callable[[Piece, Row, bytes, str], None]


class DeltaCheck:
    """Deltas that were met among other records and wait for their bases.

    `fault` is called with (piece, row, id of the base, why) for each that gives no content, and
    `differs` with (pack, id) where footer and record name different bases.
    """

    def __init__(
        self,
        objects: ObjectStore,
        survey: PackSurvey,
        fault: Fault,
        differs: Callable[[Pack, bytes], None],
    ) -> None:
        self._objects = objects
        self._survey = survey
        self._bytes = PackBytes(objects)
        self._fault = fault
        self._differs = differs
        self._waiting: list[tuple[Piece, Row]] = []
        self._piece: Piece | None = None
        self._reader: BulkReader | None = None
        # Bases that the footer at hand states, by id of the copy that needs them.
        self._stated: tuple[int, dict[bytes, bytes]] = (-1, {})

    def take(self, piece: Piece, row: Row) -> None:
        """Note a delta. Its piece is not kept: it holds the contents of its neighbours."""
        kept = self._piece
        if kept is None or kept.pack is not piece.pack:
            kept = self._piece = Piece(piece.pack, [], {}, piece.gone)
        self._waiting.append((kept, row))

    def groups(self, *, everything: bool) -> Iterator[Group]:
        """Deltas with their contents, to be judged like other records; none while few wait."""
        if not self._waiting or not (everything or len(self._waiting) >= _WAITING_MAX):
            return
        waiting, self._waiting = self._waiting, []
        if self._reader is None:
            with suppress(CasError):
                self._objects.lookup.refresh()
            self._reader = BulkReader(self._objects)
        first = size_bytes = 0
        for at, (_piece, row) in enumerate(waiting):
            size_bytes += row[3]
            if size_bytes >= _GROUP_BYTES or at == len(waiting) - 1:
                yield self._group(waiting[first : at + 1], self._reader)
                first, size_bytes = at + 1, 0

    def _group(self, waiting: Sequence[tuple[Piece, Row]], reader: BulkReader) -> Group:
        places = [_place(piece.pack, row) for piece, row in waiting]
        found = reader.load([row[0] for _piece, row in waiting], places)
        group = Group()
        for (piece, row), item in zip(waiting, found, strict=True):
            content = item.content
            base, stated = self._base(piece.pack, row)
            if base is not None and base != stated:
                self._differs(piece.pack, row[0])
            if content is None:
                # A few are left over: too much in one group, or a copy that needs another look.
                try:
                    _kind, content = self._objects.verified(_copy(piece.pack, row))
                except CasError as error:
                    why = str(error).partition("; run")[0].rstrip(".")
                    self._fault(piece, row, base or b"", why)
                    continue
            if not group.pieces or group.pieces[-1].pack is not piece.pack:
                group.pieces.append(Piece(piece.pack, [], {}, piece.gone))
            # Their stored bytes were counted when they were met.
            group.pieces[-1].rows.append((*row[:2], 0, *row[3:]))
            group.pieces[-1].contents.append(content)
        return group

    def _base(self, pack: Pack, row: Row) -> tuple[bytes | None, bytes | None]:
        """The base that a record names, and the one that the footer states for it."""
        number, stated = self._stated
        if number != pack.number:
            stated = {}
            with suppress(CasError):
                footer = self._survey.footer(pack, self._bytes)
                stated = {
                    footer.id_at(slot): id for slot, role, id in footer.edges() if role == EDGE_BASE
                }
            self._stated = (pack.number, stated)
        try:
            named = self._bytes.read(pack, row[1] + RECORD_HEADER_BYTES, ID_BYTES)
        except CasError:
            named = None
        return named, stated.get(row[0])


def _info(pack: Pack) -> PackInfo:
    return PackInfo(pack.number, pack.file, pack.body_bytes, None)


def _place(pack: Pack, row: Row) -> Place:
    _id, offset, stored, raw, kind, codec, depth, _flags, group = row
    return Place(_info(pack), offset, stored, raw, kind, codec, depth, group)


def _copy(pack: Pack, row: Row) -> Copy:
    return Copy(_info(pack), Slot._make(row))


def dependants(survey: PackSurvey, source: PackBytes, ids: set[bytes]) -> Mapping[bytes, int]:
    """How many objects hang on each of these: deltas of it, deltas of those, and so on."""
    below: dict[bytes, set[bytes]] = {}
    for pack in survey.packs:
        try:
            footer = survey.footer(pack, source)
        except CasError:
            continue
        for number, role, base in footer.edges():
            if role == EDGE_BASE and not survey.is_gone(pack, number):
                below.setdefault(base, set()).add(footer.id_at(number))
    return {id: len(_all_below(id, below)) for id in ids if id in below}


def _all_below(id: bytes, below: Mapping[bytes, set[bytes]]) -> set[bytes]:
    found: set[bytes] = set()
    waiting = [id]
    while waiting:
        for other in below.get(waiting.pop(), ()):
            if other not in found and other != id:
                found.add(other)
                waiting.append(other)
    return found
