"""Counts of references brought forward: what came and went since, without a mark.

Floor 5; implements docs/design/029. Invariant: what is counted afterwards is what a full mark of
the same state would count. Roots and thinned commits are read whole, and what differs is counted
up or down; what comes to nothing is read, and takes one off what it names. All is counted up
before anything is counted down, so that nothing is read twice. What cannot be followed is
`Uncounted`, and the store is marked in full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from cas.catalog.catalog import CatalogReader
from cas.errors import CasError, NotCanonical, Uncounted
from cas.limits import GC_COUNT_NEW_MAX
from cas.maintenance.gc.colors import FREE, GONE
from cas.maintenance.gc.counts import Counts, mark_of
from cas.maintenance.gc.names import Names, places_in
from cas.maintenance.gc.reach import Marks
from cas.maintenance.gc.roots import Roots
from cas.model.ids import Kind
from cas.model.objects import Commit
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.pack import Footer
from cas.storage.slots import CODEC_AT, KIND_AT, column


def check_place(counts: Counts, roots: Roots, reader: CatalogReader) -> None:
    """Whether the store of `roots` came from the state that was counted. Raises `Uncounted`."""
    if counts.seq > roots.seq:
        raise Uncounted("the counts are newer than the store")
    row = reader.entry(counts.seq) if counts.seq else None
    if counts.seq and (row is None or row.hash != counts.anchor):
        raise Uncounted("the counts are of another journal")
    if counts.purged != roots.purged:
        raise Uncounted("content was purged, or taken in again, since references were counted")
    if not counts.thinned <= roots.thinned:
        raise Uncounted("fewer commits are thinned than when references were counted")


class Forward:
    """Brings the counts of one store forward, and colors what nothing kept leads to. One thread.

    `marks` have begun with all packs kept.
    """

    def __init__(self, objects: ObjectStore, counts: Counts, roots: Roots, marks: Marks) -> None:
        self._objects = objects
        self._counts = counts
        self._roots = roots
        self._marks = marks
        self._names = Names(objects, roots.thinned)

    def run(self) -> None:
        """Bring the counts to the state of `roots`. Raises `Uncounted`."""
        try:
            more = self._take_packs()
            fewer = self._give_up()
            before, after = self._counts.roots, self._counts.all_roots(self._roots.all_kept)
            self._raise([*more, *sorted(after - before)])
            self._lower([*fewer, *sorted(before - after)])
            self._counts.roots = after
            self._color()
        except Uncounted:
            raise
        except CasError as error:
            raise Uncounted(f"what changed could not be read ({error.code})") from error
        except (NotCanonical, OverflowError) as error:
            raise Uncounted("what changed could not be counted") from error
        counts, roots = self._counts, self._roots
        counts.seq, counts.anchor = roots.seq, roots.anchor
        counts.runs += 1

    # -- what came ---------------------------------------------------------------------------

    def _take_packs(self) -> list[bytes]:
        """Take in new packs; what known objects need besides because of new copies."""
        counts, marks = self._counts, self._marks
        counts.note_gone(marks.packs.values(), marks.colors)
        packs = {mark_of(pack): pack for pack in marks.packs.values()}
        fresh = [packs[mark] for mark in packs.keys() - counts.packs]
        slots = sum(len(marks.colors[pack.number]) for pack in fresh)
        if slots > GC_COUNT_NEW_MAX * sum(map(len, marks.colors.values())):
            raise Uncounted("most of the store is newer than the counts")
        counts.packs &= packs.keys()
        counts.dictionaries = {pair for pair in counts.dictionaries if pair[0] in packs}
        needs = {id: set(ids) for id, ids in counts.needs.items()}
        for pack in sorted(fresh, key=lambda pack: pack.number):
            footer = self._footer(pack.number)
            counts.fresh_bases.update(counts.take(pack, footer, marks.colors[pack.number]))
            self._take_ids(footer, marks.colors[pack.number])
        return [
            need
            for id, ids in counts.needs.items()
            if len(ids) > len(needs.get(id, ())) and counts.of(id)
            for need in ids - needs.get(id, set())
        ]

    def _take_ids(self, footer: Footer, colors: bytearray) -> None:
        counts = self._counts
        ids = [id for slot, id in enumerate(footer.ids()) if colors[slot] != GONE]
        if not counts.missing.isdisjoint(ids):
            raise Uncounted("content that was purged is back")
        counts.loosen(counts.unnamed(ids))

    def _footer(self, number: int) -> Footer:
        footer = self._marks.footer(number)
        if footer is None:
            raise Uncounted("packs were moved meanwhile")
        return footer

    def _give_up(self) -> list[bytes]:
        """Commits that were thinned since; what they named, if they are kept."""
        counts, roots = self._counts, self._roots
        fresh = [id for id in sorted(roots.thinned - counts.thinned) if counts.of(id)]
        counts.thinned = roots.thinned
        fewer: list[bytes] = []
        for id in fresh:
            content = self._objects.get(id, Kind.COMMIT)
            commit = Commit.decode(content, verified=True)
            counts.given.add((id, bytes(commit.tree)))
            fewer.append(bytes(commit.tree))
            if commit.conflicts is not None:
                fewer.append(bytes(commit.conflicts))
        return fewer

    # -- counting ----------------------------------------------------------------------------

    def _raise(self, ids: Sequence[bytes]) -> None:
        """Count these once more, and what becomes kept by that counts what it names."""
        counts = self._counts
        while ids:
            fresh = []
            for id, more in sorted(Counter(ids).items()):
                before = counts.of(id)
                counts.put(id, before + more)
                if not before:
                    fresh.append(id)
            counts.unkept.difference_update(fresh)
            ids = self._named_by(fresh, self._is_purged)

    def _lower(self, ids: Sequence[bytes]) -> None:
        """Count these once less, and what nothing keeps by then takes one off what it names."""
        counts = self._counts
        while ids:
            fallen = []
            for id, less in sorted(Counter(ids).items()):
                left = counts.of(id) - less
                if left < 0:
                    raise Uncounted("a count was too low")
                counts.put(id, left)
                if not left:
                    fallen.append(id)
            counts.loosen(fallen)
            ids = self._named_by(fallen, self._was_missing)

    def _is_purged(self, id: bytes) -> bool:
        if self._objects.absent.error(id) is None:
            return False
        self._counts.missing.add(id)
        return True

    def _was_missing(self, id: bytes) -> bool:
        if id not in self._counts.missing:
            return False
        self._counts.missing.discard(id)
        return True

    def _named_by(self, ids: Iterable[bytes], is_absent: Callable[[bytes], bool]) -> list[bytes]:
        """What these objects name and need, as often as they do."""
        ids = list(ids)
        found: list[bytes] = []
        there: set[bytes] = set()
        for number, slots in self._copies(ids, once=True).items():
            footer = self._footer(number)
            there.update(map(footer.id_at, slots))
            kinds, codecs = column(footer.table, KIND_AT), column(footer.table, CODEC_AT)
            structured = [at for at in slots if kinds[at] != Kind.BLOB]
            if any(codecs[at] == RECIPE for at in structured):
                raise Uncounted("a structured object is stored by a recipe")
            lying = places_in(self._marks.packs[number], footer, structured)
            for named in self._names.of(*lying, strict=True):
                found += [child for children in named.values() for child in children]
        for id in ids:
            if id in there:
                found += self._counts.needs.get(id, ())
            elif not is_absent(id):
                raise Uncounted("an object that something leads to is not there")
        return found

    def _copies(self, ids: Iterable[bytes], *, once: bool) -> Mapping[int, list[int]]:
        """Slots of copies of these, by the numbers of packs; `once`: of each object one."""
        marks = self._marks
        likely: dict[int, list[tuple[int, bytes]]] = {}
        for id in ids:
            for number, slot in marks.places(id):
                colors = marks.colors.get(number)
                if colors is not None and colors[slot] != GONE:
                    likely.setdefault(number, []).append((slot, id))
        known: set[bytes] = set()
        found: dict[int, list[int]] = {}
        for number in sorted(likely):
            footer = self._footer(number)
            for slot, id in likely[number]:
                # The index knows beginnings of ids.
                if footer.id_at(slot) == id and not (once and id in known):
                    known.add(id)
                    found.setdefault(number, []).append(slot)
        return found

    # -- colors ------------------------------------------------------------------------------

    def _color(self) -> None:
        """Color what nothing kept leads to as a mark does: free, or dropped."""
        counts, marks = self._counts, self._marks
        loose = counts.unnamed(counts.unkept)
        there: set[bytes] = set()
        for number, slots in self._copies(loose, once=False).items():
            footer, colors = self._footer(number), marks.colors[number]
            for slot in slots:
                colors[slot] = FREE
                there.add(footer.id_at(slot))
        counts.unkept = there
        marks.bases_in = counts.packs_on(there)
        marks.keep([id for id in there if self._has_twin(id)], "an object that begins alike")
        counts.given.update(self._names.given_up)
        given = [tree for commit, tree in counts.given if tree in there and counts.of(commit)]
        marks.drop([*there.intersection(self._roots.dropped), *given])

    def _has_twin(self, id: bytes) -> bool:
        """Whether a kept object begins so much alike that a mark would keep both."""
        places = self._marks.places(id)
        if len(places) < 2:
            return False
        return any(
            colors[slot] not in (FREE, GONE)
            for number, slot in places
            if (colors := self._marks.colors.get(number)) is not None
        )
