"""Packs that a move before this run has written anew and, killed, not taken out.

Floor 5; implements docs/design/001, rule E9. Invariant: a pack goes only where every object that
exists in it has a copy in a newer pack file of no higher rank, and only in the transaction that
finds all of these packs as they were judged; so nothing that hangs on a copy is left hanging, and
no writer has to be told.

Only pack files that no run has looked at yet are looked at, and of each a few objects first: what
is written twice by a move is written twice as a whole. A few that were put again are no sign of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from cas.errors import Corrupt
from cas.limits import DELTA_DEPTH_MAX
from cas.maintenance.gc.moving import remove_packs
from cas.maintenance.remembered import Remembered
from cas.objects.packs import Copy, PackInfo, State, live_slots
from cas.objects.segments import homes
from cas.objects.store import ObjectStore
from cas.storage.codec import RECIPE
from cas.storage.pack import Footer, Slot

_FILE: Final = "gc-doubles.json"
_SAMPLES: Final = 32


class Doubles:
    """Looks for such packs, for one store handle. One run at a time."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._file = Remembered(objects.cache, _FILE)
        self._looked: tuple[str, int] = ("", 0)

    def take_out(self) -> int:
        """Take out packs all of whose objects lie in newer files; how many.

        Raises errors of storage, and `CorruptCatalog`.
        """
        objects = self._objects
        state = objects.lookup.refresh()
        lineage = objects.meta.lineage_id.hex()
        files = {pack.number for pack in state.packs.values() if pack.file is not None}
        newest = max(files, default=0)
        first = self._first(lineage)
        fresh = [state.packs[number] for number in sorted(files) if number > first]
        going: dict[int, set[int]] = {}
        for pack in fresh if len(files) > len(fresh) or len(fresh) > 1 else ():
            for older in self._beside(state, pack):
                if older.number not in going and (covers := self._covers(state, older, going)):
                    going[older.number] = covers
        if going and not self._remove(state, going):
            return 0  # somebody else moved; the next run looks again
        if newest != first:
            self._looked = (lineage, newest)
            if not objects.catalog.read_only:
                self._file.save(self._looked)
        return len(going)

    def _first(self, lineage: str) -> int:
        """The newest pack that was looked at before."""
        if self._looked[0] != lineage:
            self._looked = self._file.load(_saved, ("", 0))
        return self._looked[1] if self._looked[0] == lineage else 0

    def _beside(self, state: State, pack: PackInfo) -> list[PackInfo]:
        """Older pack files that hold what a pack holds."""
        footer, numbers = self._live(state, pack)
        samples = numbers[:: max(1, len(numbers) // _SAMPLES)]
        if footer is None:
            return []
        if 2 * sum(bool(self._older(pack, footer.id_at(n))) for n in samples) < len(samples):
            return []
        found: dict[int, PackInfo] = {}
        for number in numbers:
            found |= {older.number: older for older in self._older(pack, footer.id_at(number))}
        return [found[number] for number in sorted(found)]

    def _older(self, pack: PackInfo, id: bytes) -> list[PackInfo]:
        copies = self._objects.lookup.copies(id)
        return [c.pack for c in copies if c.pack.file is not None and c.pack.number < pack.number]

    def _live(self, state: State, pack: PackInfo) -> tuple[Footer | None, Sequence[int]]:
        """The footer of a pack and which of its slots exist; nothing of one that cannot be read."""
        try:
            footer = self._objects.lookup.footer(pack)
        except Corrupt:
            return None, ()
        return footer, live_slots(state.vectors.get(pack.number), range(footer.count), footer.count)

    def _covers(self, state: State, pack: PackInfo, going: Iterable[int]) -> set[int]:
        """Numbers of the newer pack files that hold all of a pack; none where something lies in
        this one alone.
        """
        covers: set[int] = set()
        footer, numbers = self._live(state, pack)
        for number in numbers:
            assert footer is not None
            found = self._better(pack, footer.slot(number), going)
            if found is None:
                return set()
            covers.add(found.pack.number)
        return covers

    def _better(self, pack: PackInfo, slot: Slot, going: Iterable[int]) -> Copy | None:
        for copy in self._objects.lookup.copies(slot.id):
            is_newer = copy.pack.file is not None and copy.pack.number > pack.number
            if is_newer and copy.pack.number not in going and _rank(copy.slot) <= _rank(slot):
                return copy
        return None

    def _remove(self, state: State, going: dict[int, set[int]]) -> bool:
        """The transaction; False where anything is not as it was judged."""
        objects = self._objects
        judged = going.keys() | set().union(*going.values())
        with objects.catalog.write() as writer:
            alive = set(writer.pack_numbers())
            vectors = {n: bits for n, _version, bits in writer.vectors() if n in judged}
            if not judged <= alive or any(vectors.get(n) != state.vectors.get(n) for n in judged):
                return False
            stay = homes(writer)
            remove_packs(writer, [state.packs[n] for n in going if n not in stay])
        objects.lookup.refresh()
        return True


def _rank(slot: Slot) -> int:
    return DELTA_DEPTH_MAX + 1 if slot.codec == RECIPE else slot.depth


def _saved(found: Any) -> tuple[str, int]:
    lineage, number = found
    return str(lineage), int(number)
