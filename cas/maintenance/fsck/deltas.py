"""Checks deltas: what each gives beside its base, whether bases are what they must be, and how
many objects hang on one that is damaged.

Floor 5; checks docs/format.md section 6.4. Invariant: every delta is judged by the content that
it gives, read from the very copy that is checked; a failure of one stops no other. Deltas are
set aside until a few thousand wait, so that memory does not follow their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Final, NamedTuple

from cas.errors import CasError
from cas.limits import DELTA_DEPTH_MAX, MIB
from cas.maintenance.fsck.groups import Group, Piece
from cas.maintenance.fsck.hanging import place_in
from cas.maintenance.fsck.packs import Pack, PackBytes, PackSurvey, is_out_of_reach
from cas.objects.bulk import Ahead, BulkReader
from cas.objects.chains import Link, link_of, resolve
from cas.objects.packs import Copy, PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DICTIONARY
from cas.storage.pack import EDGE_BASE, Row, Slot
from cas.storage.record import TAG_BYTES

_WAITING_MAX: Final = 1 << 14
_WAITING_BYTES_MAX: Final = 8 * MIB
"""Deltas that wait: many, so that those of one chain are made together, each of them once."""

_GROUP_BYTES: Final = 1 * MIB
_AHEAD: Final = 3
"""Groups that are made on a thread while the first of them is judged."""

Fault = Callable[[Piece, Row, bytes, str], None]
"""Called with (piece, row, id of the base, why) for each delta that gives no content."""


class _Waiting(NamedTuple):
    piece: Piece
    row: Row
    link: Link


class DeltaCheck:
    """Deltas that were met among other records and wait for their bases.

    `differs` is called with (pack, id) where footer and record name different bases.
    """

    def __init__(
        self, objects: ObjectStore, fault: Fault, differs: Callable[[Pack, bytes], None]
    ) -> None:
        self._objects = objects
        self._fault = fault
        self._differs = differs
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._reader: BulkReader | None = None

    def take(self, piece: Piece) -> None:
        """Set the deltas of a piece aside. It is not kept: it holds contents of neighbours."""
        kept = Piece(piece.pack, [], {}, piece.gone)
        info = _info(piece.pack)
        for row, payload in piece.deltas:
            link = link_of(place_in(info, row), payload)
            if link is None:
                self._fault(kept, row, b"", "it is too short to name a base")
                continue
            if piece.needs.get(row[0]) not in (link.base, None):
                self._differs(piece.pack, row[0])
            self._waiting.append(_Waiting(kept, row, link))
            self._waiting_bytes += len(payload)

    def groups(self, *, everything: bool) -> Iterator[Group]:
        """Deltas with their contents, to be judged like other records; none while few wait."""
        full = len(self._waiting) >= _WAITING_MAX or self._waiting_bytes >= _WAITING_BYTES_MAX
        if not self._waiting or not (everything or full):
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._reader is None:
            with suppress(CasError):
                self._objects.lookup.refresh()
            self._reader = BulkReader(self._objects)
        with closing(Ahead(self._made(waiting, self._reader), _AHEAD)) as ahead:
            for group, left in ahead:
                for piece, row, link in left:
                    self._alone(group, piece, row, link)
                yield group

    def _made(
        self, waiting: Sequence[_Waiting], reader: BulkReader
    ) -> Iterator[tuple[Group, list[_Waiting]]]:
        """Groups of deltas with their contents, and those that are left over; on a thread."""
        part: dict[bytes, _Waiting] = {}
        size_bytes = 0
        for item in _by_chain(waiting):
            if item.row[0] in part or size_bytes >= _GROUP_BYTES:
                yield self._group(part, reader)
                part, size_bytes = {}, 0
            part[item.row[0]] = item
            size_bytes += item.row[3]
        yield self._group(part, reader)

    @staticmethod
    def _group(part: Mapping[bytes, _Waiting], reader: BulkReader) -> tuple[Group, list[_Waiting]]:
        links = {id: item.link for id, item in part.items()}
        made = resolve(links, {}, reader.find, reader.fetch)
        left: list[_Waiting] = []
        pieces: dict[int, Piece] = {}
        for id, item in part.items():
            content = made.get(id)
            if content is None:
                left.append(item)
                continue
            pack = item.piece.pack
            piece = pieces.get(pack.number)
            if piece is None:
                piece = pieces[pack.number] = Piece(pack, [], {}, item.piece.gone)
            piece.rows.append(item.row)
            piece.contents.append(content)
        group = Group()
        group.pieces += pieces.values()
        return group, left

    def _alone(self, group: Group, piece: Piece, row: Row, link: Link) -> None:
        """One that could not be made with the others: its bases were too long, or it is damaged."""
        try:
            _kind, content = self._objects.verified(_copy(piece.pack, row))
        except CasError as error:
            if is_out_of_reach(error):
                raise
            self._fault(piece, row, link.base, str(error).partition("; run")[0].rstrip("."))
            return
        alone = Piece(piece.pack, [row], {}, piece.gone)
        alone.contents.append(content)
        group.pieces.append(alone)


def _by_chain(waiting: Sequence[_Waiting]) -> list[_Waiting]:
    """Those of one chain behind each other, chains in the order in which they were met."""
    base_of = {item.row[0]: item.link.base for item in waiting}
    chains: dict[bytes, list[_Waiting]] = {}
    for item in waiting:
        id = item.link.base
        for _ in range(DELTA_DEPTH_MAX):
            id = base_of.get(id, id)
        chains.setdefault(id, []).append(item)
    return [item for chain in chains.values() for item in chain]


def _info(pack: Pack) -> PackInfo:
    return PackInfo(pack.number, pack.file, pack.body_bytes, None)


def _copy(pack: Pack, row: Row) -> Copy:
    return Copy(_info(pack), Slot._make(row))


def dependants(survey: PackSurvey, source: PackBytes, ids: set[bytes]) -> Mapping[bytes, int]:
    """How many objects hang on each of these: deltas of it, deltas of those, and so on, and those
    that stand beside it as their dictionary.
    """
    below: dict[bytes, set[bytes]] = {}
    for pack in survey.packs:
        try:
            footer = survey.footer(pack, source)
        except CasError:
            continue
        for number, role, base in footer.edges():
            if role == EDGE_BASE and not survey.is_gone(pack, number):
                below.setdefault(base, set()).add(footer.id_at(number))
        for dictionary in ids.intersection(footer.dictionaries()):
            tag = dictionary[:TAG_BYTES]
            for number, slot in enumerate(footer.slots()):
                if slot.codec == DICTIONARY and not survey.is_gone(pack, number):
                    start = slot.payload_offset
                    with suppress(CasError):
                        if source.read(pack, start, TAG_BYTES) == tag:
                            below.setdefault(dictionary, set()).add(slot.id)
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
