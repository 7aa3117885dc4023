"""The archive of the journal: what stands for entries that are no rows.

Floor 5; checks docs/format.md section 7.1 (`archive`). Invariant: whether a segment holds what its
row says is seen where its entries are read; here the rows are held against each other, against the
entries, and against the packs that have to have a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from cas.catalog.catalog import ArchiveRow, CatalogReader
from cas.maintenance.findings import Findings
from cas.maintenance.fsck.graph import Graph
from cas.model.entry import Entry
from cas.model.ids import Kind


class ArchiveCheck:
    """The archive rows of one catalog under a check."""

    def __init__(self, graph: Graph, findings: Findings) -> None:
        self._graph = graph
        self._findings = findings
        self._rows: Sequence[ArchiveRow] = ()
        self._first: dict[int, ArchiveRow] = {}

    def begin(self, reader: CatalogReader) -> None:
        """Note what there is now."""
        self._rows = reader.archived()
        self._first = {row.first_seq: row for row in self._rows}

    @property
    def upto(self) -> int:
        """The last entry that is no row."""
        return self._rows[-1].last_seq if self._rows else 0

    def covering(self, seq: int) -> ArchiveRow | None:
        """The row that stands for an entry."""
        return next((row for row in self._rows if row.first_seq <= seq <= row.last_seq), None)

    def judge(self, single: Sequence[ArchiveRow]) -> None:
        """Hold the rows against each other. `single` are those that lack a second copy."""
        after = 0
        for row in self._rows:
            span = f"entries {row.first_seq} to {row.last_seq}"
            if row.first_seq != after + 1 or row.last_seq < row.first_seq:
                self._tell(row, f"What stands for {span} does not follow entry {after}")
            after = row.last_seq
            self._graph.expect(row.segment, Kind.SEGMENT, f"the archive of {span}")

        for row in single:
            self._findings.add(
                "archive-single",
                f"entry {row.first_seq}",
                f"One of the two packs with entries {row.first_seq} to {row.last_seq} of the "
                "journal has no copy of them any more; `cas maintain` writes another.",
            )

    def compare(self, entry: Entry) -> None:
        """Hold an entry against the row that begins with it, if one does."""
        row = self._first.get(entry.seq)
        if row is not None and (row.epoch, row.time_us) != (entry.epoch, entry.time_us):
            self._tell(row, f"What stands for entry {entry.seq} gives another time than it has")

    def _tell(self, row: ArchiveRow, what: str) -> None:
        self._findings.add(
            "journal-row", f"entry {row.first_seq}", f"{what}; restore the catalog from a backup."
        )
