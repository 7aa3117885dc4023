"""A state of a living store, taken in one look at its catalog, to be made again elsewhere.

Floor 5. Invariant: pack list, deletion vectors, bodies of inline packs, head and checkpoints are of
one transaction of the catalog, so what is made of them shows what the store showed at that moment,
whatever writers and the collector do beside it; nothing condemned by then exists in it, and
whatever it names existed. Pack files are read afterwards: one that is gone by then was replaced,
and the look is taken again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from cas.catalog.catalog import MIRRORED, CatalogReader, Head, PackRow
from cas.errors import BackupMismatch, CorruptJournal
from cas.maintenance.backups.increment import Index
from cas.maintenance.backups.vault import check_of
from cas.model.entry import Entry, entry_hash
from cas.model.segment import split_ancestry
from cas.objects.store import ObjectStore
from cas.trees.node import REFS

_AT_ONCE: Final = 64


@frozen
class Captured:
    """One state. `inline` holds footer and body of the inline packs that were asked for;
    `mirrored` is how far the journal stands in packs too (docs/format.md section 5.6).
    """

    head: Head
    root: bytes
    rows: Sequence[PackRow]
    vectors: Mapping[int, tuple[int, bytes]]
    inline: Mapping[int, tuple[bytes, bytes]]
    checkpoints: Sequence[tuple[int, bytes]]
    mirrored: int

    def bits(self, number: int) -> bytes | None:
        """Deletion vector of a pack, if it has one that was read."""
        found = self.vectors.get(number)
        return None if found is None else found[1]


def capture(objects: ObjectStore, known: Index | None = None) -> Captured:
    """The newest state; bodies of those inline packs only that `known` does not hold.

    Raises `BackupMismatch` when `known` is not a state that this store was in.
    """
    with objects.catalog.read() as reader:
        head = reader.head()
        if known is not None:
            _refuse_other(objects, reader, head, known)
        root = _root(reader, head)
        rows = reader.packs()
        same = known is not None and is_same_lineage(objects, known)
        if known is not None and same:
            _refuse_renumbered(rows, known)
        vectors = {number: (version, bits) for number, version, bits in reader.vectors()}
        wanted = _unknown_inline(rows, known if same else None)
        inline = _bodies(reader, wanted)
        after = 0 if known is None else known.journal_seq
        checkpoints = _checkpoints(reader, head.seq, after)
        mirrored = reader.cursor(MIRRORED) or 0
    # What is taken along was shown by then, and what is shown is durable.
    objects.catalog.harden(reading=True)
    objects.lookup.refresh()
    return Captured(head, root, rows, vectors, inline, checkpoints, mirrored)


def is_same_lineage(objects: ObjectStore, known: Index) -> bool:
    """Whether numbers of packs in `known` mean the same packs here."""
    return objects.meta.lineage_id == known.origin.lineage_id


def _root(reader: CatalogReader, head: Head) -> bytes:
    if head.seq == 0:
        return REFS.empty
    row = reader.entry(head.seq)
    if row is None or entry_hash(row.entry) != row.hash:
        raise CorruptJournal(
            f"Entry {head.seq} of the journal is damaged; run `cas fsck`.", seq=head.seq
        )
    return Entry.decode(row.entry, verified=True).root


def _refuse_other(objects: ObjectStore, reader: CatalogReader, head: Head, known: Index) -> None:
    """Raise unless the history that `known` tells is the beginning of this store's."""
    meta = objects.meta
    if meta.store_id != known.origin.store_id:
        raise _mismatch("it is of another store; name another place", "store")
    lineages = {meta.lineage_id, *[lineage for lineage, _seq in split_ancestry(meta.ancestry)]}
    if known.origin.lineage_id not in lineages:
        raise _mismatch(
            "it has gone on with a copy of this store; name another place for each of the two",
            "lineage",
        )
    state = known.state
    if head.seq < known.journal_seq:
        raise _mismatch(
            f"it reaches entry {known.journal_seq} and this store only {head.seq}: the store was "
            "put back to an older state; keep this backup and begin another one",
            "older",
        )
    row = reader.entry(known.journal_seq)
    if known.journal_seq and (row is None or row.hash != known.journal_hash):
        raise _mismatch(
            f"entry {known.journal_seq} is another one there: two histories went on from one "
            "store; keep this backup and begin another one",
            "history",
        )
    if (
        state is not None
        and is_same_lineage(objects, known)
        and (head.version, head.removal_version, head.condemn_seq)
        < (state.version, state.removal_version, state.condemn_seq)
    ):
        raise _mismatch(
            "its packs are newer than those of this store: the catalog was put back to an older "
            "state; keep this backup and begin another one",
            "older",
        )


def _refuse_renumbered(rows: Sequence[PackRow], known: Index) -> None:
    """Raise when a number names another pack here than in the backup."""
    if known.state is None:
        return
    lines = {line.number: line for line in known.state.packs}
    for row in rows:
        line = lines.get(row.number)
        if line is None:
            continue
        same = row.name == line.name and row.body_bytes == line.body_bytes
        if not same or (row.footer is not None and check_of(row.footer) != line.check):
            raise _mismatch(
                f"pack {row.number} is another one there: the catalog was put back to an older "
                "state and used; keep this backup and begin another one",
                "packs",
            )


def _mismatch(why: str, reason: str) -> BackupMismatch:
    return BackupMismatch(f"This backup cannot go on: {why}.", path="", reason=reason)


def _unknown_inline(rows: Sequence[PackRow], known: Index | None) -> set[int]:
    held: set[int] = set()
    if known is not None and known.state is not None:
        held = {line.number for line in known.state.packs if line.name is None}
    return {row.number for row in rows if row.name is None} - held


def _bodies(reader: CatalogReader, wanted: set[int]) -> dict[int, tuple[bytes, bytes]]:
    found: dict[int, tuple[bytes, bytes]] = {}
    after = min(wanted, default=0) - 1
    while len(found) < len(wanted) and (rows := reader.bodies(after, _AT_ONCE)):
        for number, footer, body in rows:
            if number in wanted:
                found[number] = (footer or b"", body)
        after = rows[-1][0]
    return found


def _checkpoints(reader: CatalogReader, seq: int, after: int) -> list[tuple[int, bytes]]:
    """Checkpoints behind `after`, ascending."""
    found = []
    while seq > after and (checkpoint := reader.checkpoint(seq)) is not None:
        if checkpoint.seq <= after:
            break
        found.append((checkpoint.seq, checkpoint.root))
        seq = checkpoint.seq - 1
    return found[::-1]
