"""What structured objects name, read in long runs.

Floor 5. Invariant: what is said of an object is read from content that hashed to its id; a thinned
commit names its parents only, and its directory is noted as given up. Memory is bounded by a few
groups of about a MiB, and by what `read_ahead` may hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Final

from cas.errors import CasError, NotCanonical
from cas.limits import ID_BYTES, MIB
from cas.maintenance.gc.colors import GONE
from cas.maintenance.gc.told import SegmentsTold
from cas.model.encoding import decode_many
from cas.model.ids import Kind
from cas.model.objects import Commit
from cas.objects.bulk import GROUP_BYTES, GROUP_COUNT, Ahead, BulkReader, Found
from cas.objects.chains import Place
from cas.objects.children import children
from cas.objects.packs import PackInfo
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.pack import Footer
from cas.storage.slots import CODEC_AT, KIND_AT, column

_AHEAD: Final = 2
"""Groups that are read before they are asked for."""

_READ_AHEAD_BYTES_MAX: Final = 32 * MIB
"""Directories and commits that are read at once: what they name takes about as much again."""

_TREES: Final = frozenset((Kind.TREE, Kind.REFS))
_COMMIT: Final = int(Kind.COMMIT)
_AT_ONCE: Final = _TREES | {_COMMIT}
_SEGMENT: Final = int(Kind.SEGMENT)
_OFFSET: Final = itemgetter(1)


class Names:
    """Reads what objects of one store name. One thread."""

    def __init__(self, objects: ObjectStore, thinned: frozenset[bytes]) -> None:
        self._objects = objects
        self._thinned = thinned
        self._reader = BulkReader(objects)
        self._told = SegmentsTold(objects)
        self.known: dict[bytes, Sequence[bytes]] = {}
        """What objects name that were read ahead; each of them exists."""
        # Thinned commits that were read ahead: their parents, and their directories.
        self._hollow: dict[bytes, tuple[Sequence[bytes], bytes]] = {}
        self._ahead: list[tuple[list[bytes], list[Place]]] = []
        self._ahead_bytes = 0
        self.given_up: list[tuple[bytes, bytes]] = []
        """Thinned commits that were read, and their directories."""

    def note(self, pack: PackInfo, footer: Footer, colors: bytearray) -> None:
        """Take in the directories and commits of a pack that exist, for `read_ahead`."""
        if self._ahead_bytes > _READ_AHEAD_BYTES_MAX:
            return
        kinds, codecs = column(footer.table, KIND_AT), column(footer.table, CODEC_AT)
        wanted = [
            at
            for at, kind in enumerate(kinds)
            if kind in _AT_ONCE and codecs[at] != RECIPE and colors[at] != GONE
        ]
        ids, places = places_in(pack, footer, wanted)
        self._ahead_bytes += sum([place.raw_bytes for place in places])
        self._ahead.append((ids, places))

    def read_ahead(self) -> None:
        """Read what was noted, in the order in which it lies, where that is little: a mark would
        ask for directories level by level, and for commits one by one. One that cannot be read is
        left to whoever asks for it.
        """
        noted, self._ahead = self._ahead, []
        if self._ahead_bytes > _READ_AHEAD_BYTES_MAX:
            return
        ids = [id for some, _places in noted for id in some]
        places = [place for _ids, some in noted for place in some]
        for group in self._groups(ids, places):
            there = []
            for id, kind, got in group:
                if got is not None and kind == _COMMIT and id in self._thinned:
                    with suppress(NotCanonical):
                        commit = Commit.decode(bytes(got), verified=True)
                        self._hollow[id] = commit.parents, commit.tree
                elif got is not None:
                    there.append((id, kind, bytes(got)))
            self.known.update(_named_by(there))

    def at_hand(self, ids: set[bytes], *, strict: bool) -> dict[bytes, Sequence[bytes]]:
        """What those of these name that were read ahead; thinned commits only when `strict`."""
        known = self.known
        found = {id: known[id] for id in ids if id in known}
        for id in ids & self._hollow.keys() if strict else ():
            found[id], tree = self._hollow[id]
            self.given_up.append((id, tree))
        return found

    def of(
        self, ids: Sequence[bytes], places: Sequence[Place], *, strict: bool
    ) -> Iterator[dict[bytes, Sequence[bytes]]]:
        """What these objects name, group by group; they are given in the order in which they lie.

        Raises for what cannot be read when `strict`, and passes it over when not.
        """
        known = self.known
        for id, place in zip(ids, places, strict=True):
            if place.kind == _SEGMENT and (told := self._told.known(id)) is not None:
                known[id] = told.blobs
        if known:
            unknown = [at for at, id in enumerate(ids) if id not in known]
            if len(unknown) < len(ids):
                yield {id: known[id] for id in ids if id in known}
                ids, places = [ids[at] for at in unknown], [places[at] for at in unknown]
        for group in self._groups(ids, places):
            yield self._named(group, strict)

    def _groups(self, ids: Sequence[bytes], places: Sequence[Place]) -> Iterator[list[Found]]:
        """The objects themselves; where there are many, on a thread: reading, decoding and hashing
        hold no GIL for the most part.
        """
        parts = list(_parts(places))
        load = self._reader.load
        loaded = (load(ids[part], places[part]) for part in parts)
        if len(parts) <= _AHEAD:
            yield from loaded
            return
        ahead = Ahead(loaded, _AHEAD)
        try:
            yield from ahead
        finally:
            ahead.close()

    def _named(self, group: Sequence[Found], strict: bool) -> dict[bytes, Sequence[bytes]]:
        named: dict[bytes, Sequence[bytes]] = {}
        trees: list[tuple[bytes, int, bytes]] = []
        for id, kind, content in group:
            try:
                if content is None:
                    kind, content = self._objects.read(id)
                if kind in _TREES:
                    trees.append((id, kind, bytes(content)))
                elif kind == _SEGMENT:
                    named[id] = self._told.note(id, bytes(content)).blobs
                elif strict and kind == Kind.COMMIT and id in self._thinned:
                    commit = Commit.decode(bytes(content), verified=True)
                    named[id] = commit.parents
                    self.given_up.append((id, commit.tree))
                else:
                    named[id] = children(kind, bytes(content))
            except (CasError, NotCanonical):
                if strict:
                    raise
        found = _named_by(trees)
        if strict and len(found) < len(trees):
            for _id, kind, content in trees:
                children(kind, content)  # one of them says what is wrong
        named.update(found)
        return named


def places_in(
    pack: PackInfo, footer: Footer, slots: Iterable[int]
) -> tuple[list[bytes], list[Place]]:
    """Ids and places of the records in these slots, in the order in which they lie."""
    rows = sorted(footer.pick(slots), key=_OFFSET)
    places = [
        Place(pack, offset, size, raw, kind, codec, depth, group)
        for _id, offset, size, raw, kind, codec, depth, _flags, group in rows
    ]
    return [row[0] for row in rows], places


def _named_by(trees: Sequence[tuple[bytes, int, bytes]]) -> dict[bytes, Sequence[bytes]]:
    """What nodes of trees and commits name, by their ids, decoded in one go where that is
    possible; those that are none are left out.
    """
    contents = [content for _id, _kind, content in trees]
    decoded = decode_many(contents, verified=True) or [None] * len(trees)
    found: dict[bytes, Sequence[bytes]] = {}
    for (id, kind, content), fields in zip(trees, decoded, strict=True):
        if type(fields) is list and len(fields) == 6 and type(fields[3]) is bytes:
            ids = fields[3]
            found[id] = [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
            continue
        with suppress(CasError, NotCanonical):
            found[id] = children(kind, content)
    return found


def _parts(places: Sequence[Place]) -> Iterator[slice]:
    """Parts that are read together."""
    first = size_bytes = 0
    for at, place in enumerate(places, 1):
        size_bytes += place.raw_bytes
        if size_bytes >= GROUP_BYTES or at - first == GROUP_COUNT or at == len(places):
            yield slice(first, at)
            first, size_bytes = at, 0
