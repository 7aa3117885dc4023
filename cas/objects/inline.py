"""Whether the footers of inline packs are what was written.

Floor 3; docs/format.md section 6.3. Invariant: nobody is told that an object is absent on the word
of an inline footer that was not compared with its digest.

Footers of inline packs are taken as the catalog gives them: their digest covers the header in the
pack's body, and to read 4,096 bodies would cost an opening tens of milliseconds. An object that is
found is proved by its id. One that is not found might stand in a footer of which a bit has turned,
so that is when they are proved, each once.
"""

from __future__ import annotations

from collections.abc import Mapping

from cas.catalog.catalog import Catalog
from cas.errors import Corrupt
from cas.objects.packs import PackInfo
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
