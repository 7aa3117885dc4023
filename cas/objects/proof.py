"""Whether footers are what was written, asked when an object is not found.

Floor 3; docs/format.md section 6.3. Invariant: nobody is told that an object is absent on the word
of a footer that was not compared with its digest: no inline one, and none of a file in which the
index has seen the object.

Footers of inline packs are taken as the catalog gives them: their digest covers the header in the
pack's body, and to read 4,096 bodies would cost an opening tens of milliseconds. An object that is
found is proved by its id. One that is not found might stand in a footer of which a bit has turned,
so that is when they are proved, each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cas.catalog.catalog import Catalog
from cas.errors import Corrupt
from cas.objects.packs import PackInfo, exchanged, read_own_footer
from cas.objects.slots import SlotTables
from cas.storage.bucket import Bucket
from cas.storage.index import Run, prefix_of
from cas.storage.pack import decode_inline

_AT_ONCE = 64


class InlineProof:
    """Proves the inline packs of one store. Any thread."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._proved: frozenset[int] = frozenset()

    def faults(self, packs: Mapping[int, PackInfo]) -> dict[int, Corrupt]:
        """What is wrong with those of these packs that were not looked at before, by number."""
        # Copied at once: the mapping grows while other threads commit.
        packs = dict(packs)
        inline = frozenset(number for number, pack in packs.items() if pack.file is None)
        wanted = inline - self._proved
        found: dict[int, Corrupt] = {}
        after = min(wanted, default=1) - 1
        with self._catalog.read() as reader:
            while wanted and (rows := reader.bodies(after, _AT_ONCE)):
                for number, footer, body in rows:
                    if number in wanted:
                        try:
                            decode_inline(body, footer or b"", packs[number].label)
                        except Corrupt as error:
                            found[number] = error
                after = rows[-1][0]
        self._proved = inline
        return found


class FileProof:
    """Proves pack files of one store. Any thread.

    An index that was kept over a restart has seen a footer that a bit has turned in since, or a
    file in whose place another one lies now; a slot is read from it alone, and may name another
    object.
    """

    def __init__(self, bucket: Bucket, slots: SlotTables, store_id: bytes) -> None:
        self._bucket = bucket
        self._slots = slots
        self._store_id = store_id
        self._proved: set[str] = set()

    def faults(
        self, id: bytes, runs: Iterable[Run], packs: Mapping[int, PackInfo]
    ) -> dict[int, Corrupt]:
        """What is wrong with the footers of those packs in which the index has seen an object, or
        one that begins like it, by number; each is read once.
        """
        found: dict[int, Corrupt] = {}
        prefix = prefix_of(id)
        for run in runs:
            for number, at in run.find(prefix):
                pack = packs.get(number)
                if pack is None or pack.file is None:
                    continue
                try:
                    if pack.file not in self._proved:
                        read_own_footer(self._bucket, pack, self._store_id)
                        self._proved.add(pack.file)
                    slot = self._slots.slot(pack, at)
                    if slot is None or prefix_of(slot.id) >> run.bits != prefix >> run.bits:
                        raise exchanged(pack.file)
                except Corrupt as error:
                    found[number] = error
        return found
