"""Deltas that are made while the content of their base is at hand, and not from a second reading.

Floor 5; checks docs/format.md section 6.4. Invariant: a delta counts as judged here only if its
content hashed to its id; every other, for whatever reason, is met again where it lies and judged
there (`cas.maintenance.fsck.deltas`), as if it had never been tried.

Footers say what is made of what before the first record is read. So when the records of a base
are read, the payloads of what hangs on it are read too, from packs that lie behind: a version of
a file lies in the pack of its state, near the versions of its neighbours, as their bases do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from cas.maintenance.fsck.packs import Pack, PackSurvey
from cas.model.ids import digests_of
from cas.objects.bulk import GROUP_COUNT, BulkReader
from cas.objects.chains import Link, Place, link_of, may_be_base, resolve
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import DELTA
from cas.storage.pack import EDGE_BASE, Footer, Row

_BLOB: Final = 1
_BYTES_MAX: Final = 3 << 20
"""Contents that are made beside the bases of one part of a pack: several times what these hold."""

_COUNT_MAX: Final = GROUP_COUNT
"""Deltas of one part: they are read in runs that span what lies between them."""

_KEPT_BYTES_MAX: Final = 8 << 20
"""Contents that name others and wait for their place in the order."""


class Delta(NamedTuple):
    """A delta that lies somewhere, and the id of what its footer says that it is made of."""

    id: bytes
    place: Place
    base: bytes


class Hanging:
    """What hangs on which object, as far as footers are in memory. One thread."""

    def __init__(self, objects: ObjectStore, survey: PackSurvey) -> None:
        self._objects = objects
        self._survey = survey
        # Base -> copies that are made of it: pack, its footer, number of the slot.
        self._on: dict[bytes, list[tuple[PackInfo, Footer, int]]] = {}
        self._begun: set[int] = set()
        # By pack and id; with the content of what names others.
        self._judged: dict[tuple[int, bytes], bytes] = {}
        self._kept_bytes = 0

    def learn(self, packs: Iterable[Pack]) -> None:
        """Take in the deltas of pack files that are going to be read."""
        self._on.clear()
        for pack in packs:
            footer = self._survey.footer_at_hand(pack)
            if footer is None or pack.file is None:
                continue
            info = PackInfo(pack.number, pack.file, pack.body_bytes, None)
            for number, role, base in footer.edge_rows():
                if role == EDGE_BASE and not self._survey.is_gone(pack, number):
                    self._on.setdefault(base, []).append((info, footer, number))

    def begin(self, pack: Pack) -> None:
        """The records of this pack are read from here on: its deltas are met where they lie."""
        self._begun.add(pack.number)

    def take(self, rows: Sequence[Row], gone: set[bytes]) -> list[Delta]:
        """Take off what hangs on these copies, which are being read, and what hangs on that."""
        found: list[Delta] = []
        if self._on:
            below = [row for row in rows if row[0] in self._on and row[5] != DELTA]
            room = _BYTES_MAX
            for base in below:
                if base[0] not in gone:
                    room = self._take(base, found, room)
        return found

    def _take(self, base: Row, found: list[Delta], room: int) -> int:
        waiting = [base]
        while waiting:
            id, _offset, _stored, _raw, kind, codec, depth, _flags, group = waiting.pop()
            for pack, footer, number in self._on.pop(id, ()):
                row = next(footer.pick((number,)))
                if pack.number in self._begun or row[5] != DELTA:
                    continue
                if row[3] > room or len(found) == _COUNT_MAX:
                    continue
                if not may_be_base(codec, depth, kind, group, (row[6], row[4], row[8])):
                    continue
                room -= row[3]
                found.append(Delta(row[0], place_in(pack, row), id))
                if row[0] in self._on:
                    waiting.append(row)
        return room

    def make(self, deltas: Sequence[Delta], bases: dict[bytes, Any]) -> list[tuple[Delta, Any]]:
        """Contents of deltas of these bases, as far as they can be had. Any thread, never raises
        for damage; `bases` takes the contents in.
        """
        payloads = BulkReader(self._objects).fetch([delta.place for delta in deltas])
        linked: dict[bytes, tuple[Delta, Link]] = {}
        for delta, payload in zip(deltas, payloads, strict=True):
            link = None if payload is None else link_of(delta.place, payload)
            # Of two copies of one object the second is met where it lies.
            if link is not None and link.base == delta.base and delta.id not in linked:
                linked[delta.id] = delta, link
        links = {id: link for id, (_delta, link) in linked.items()}
        made = resolve(links, bases, lambda _id: None, lambda _places: [])
        return [(linked[id][0], content) for id, content in made.items()]

    def judge(self, made: Sequence[tuple[Delta, Any]]) -> list[Delta]:
        """Those whose contents hash to their ids."""
        digests = digests_of(
            [delta.place.kind for delta, _content in made], [content for _delta, content in made]
        )
        good = []
        for (delta, content), digest in zip(made, digests, strict=True):
            kept = b"" if delta.place.kind == _BLOB else bytes(content)
            if digest == delta.id and self._kept_bytes + len(kept) <= _KEPT_BYTES_MAX:
                self._kept_bytes += len(kept)
                self._judged[delta.place.pack.number, delta.id] = kept
                good.append(delta)
        return good

    def judged(self, pack: Pack, id: bytes) -> bytes | None:
        """Of a delta that is met where it lies and was judged before: its content if it names
        others, else nothing of it. None: it is to be judged now. To be asked once.
        """
        kept = self._judged.pop((pack.number, id), None)
        if kept:
            self._kept_bytes -= len(kept)
        return kept


def place_in(pack: PackInfo, row: Row) -> Place:
    """Where a copy lies."""
    _id, offset, stored, raw, kind, codec, depth, _flags, group = row
    return Place(pack, offset, stored, raw, kind, codec, depth, group)
