"""The journal's older part: entries that no row holds, read as if they were rows.

Floor 2; implements docs/format.md section 7.1 (`archive`). Invariant: an entry that is given was
found in a segment which its id has proved, at the place that its row of `archive` says; so whoever
reads entries cannot tell which of them are rows.

Both catalogs come here when they meet a gap: a row that was asked for is not there. What lies in
packs they cannot read themselves; they ask the function that the object store has given them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from cas.catalog.catalog import ArchiveRow, EntryRow, Fetch
from cas.errors import CorruptJournal, NotCanonical, NotFound
from cas.model.entry import Entry, entry_hash

_ROWS: Final = 4
"""Rows of `archive` that are read at once: a group of entries rarely needs more than two."""


class Archive(Protocol):
    """What is asked of a reader."""

    def archived(self, after: int = 0, limit: int | None = None) -> Sequence[ArchiveRow]:
        """As `CatalogReader.archived`."""


def entries_before(
    reader: Archive, fetch: Fetch | None, after: int, rows: Sequence[EntryRow], limit: int | None
) -> Sequence[EntryRow]:
    """`rows`, with what the archive holds behind `after` in front of them; at most `limit`.

    `rows` are those that the journal has behind `after`, and do not begin with the next one.
    """
    end = rows[0].seq
    found: list[EntryRow] = []
    for row in _behind(reader, after):
        if row.first_seq >= end or (limit is not None and len(found) >= limit):
            break
        entries = _entries(row, fetch)
        start = max(after + 1, row.first_seq)
        stop = min(row.last_seq + 1, end)
        if limit is not None:
            stop = min(stop, start + limit - len(found))
        found += [_row(seq, entries[seq - row.first_seq]) for seq in range(start, max(start, stop))]
        after = row.last_seq
    found += rows
    return found if limit is None else found[:limit]


def archived_entry(reader: Archive, fetch: Fetch | None, seq: int) -> EntryRow | None:
    """One entry that is no row; None where the archive does not hold it."""
    for row in reader.archived(seq - 1, 1):
        if row.first_seq <= seq:
            return _row(seq, _entries(row, fetch)[seq - row.first_seq])
    return None


def archived_txid(reader: Archive, fetch: Fetch | None, txid: bytes, after: int) -> int | None:
    """Seq of the archived entry behind `after` with a generated transaction id."""
    for row in _behind(reader, after):
        for seq, data in enumerate(_entries(row, fetch), start=row.first_seq):
            # Decoding is a hundred times as much work as looking for its bytes.
            if seq > after and txid in data and _txid(seq, data) == txid:
                return seq
    return None


def _behind(reader: Archive, after: int) -> Iterator[ArchiveRow]:
    while rows := reader.archived(after, _ROWS):
        yield from rows
        after = rows[-1].last_seq


def _entries(row: ArchiveRow, fetch: Fetch | None) -> Sequence[bytes]:
    """The entries that a row stands for. Raises `CorruptJournal` where the segment has others, or
    is nowhere.
    """
    if fetch is None:
        raise CorruptJournal(
            f"Entry {row.first_seq} of the journal lies in a pack, and nothing reads packs here; "
            "open the store.",
            seq=row.first_seq,
        )
    try:
        entries = fetch(row.segment)
    except NotFound as error:
        raise CorruptJournal(
            f"Entries {row.first_seq} to {row.last_seq} of the journal are in no pack that is left "
            f"({error}); run `cas fsck`.",
            seq=row.first_seq,
        ) from error
    if len(entries) != row.last_seq - row.first_seq + 1:
        raise _other(row)
    for seq, data in ((row.first_seq, entries[0]), (row.last_seq, entries[-1])):
        try:
            right = Entry.decode(data, verified=True).seq == seq
        except NotCanonical:
            right = False
        if not right:
            raise _other(row)
    return entries


def _other(row: ArchiveRow) -> CorruptJournal:
    return CorruptJournal(
        f"The segment {row.segment.hex()} does not hold entries {row.first_seq} to {row.last_seq} "
        "of the journal, as the catalog says; run `cas fsck`.",
        seq=row.first_seq,
    )


def _row(seq: int, data: bytes) -> EntryRow:
    return EntryRow(seq, entry_hash(data), data)


def _txid(seq: int, data: bytes) -> bytes:
    try:
        return Entry.decode(data, verified=True).txid
    except NotCanonical as error:
        raise CorruptJournal(
            f"Entry {seq} of the journal is no entry ({error}); run `cas fsck`.", seq=seq
        ) from error
