"""Journal entries on their way into a backup: in groups, each proved to follow the one before.

Floor 5. Invariant: what is given on is one unbroken chain of hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cas.catalog.catalog import EntryRow
from cas.errors import CorruptJournal
from cas.limits import MIB
from cas.model.entry import Entry, entry_hash

_SEGMENT_BYTES: Final = 4 * MIB
SEGMENT_ENTRIES: Final = 4096
"""Entries of one segment at the most."""


def next_group(entries: Iterator[EntryRow]) -> list[EntryRow]:
    """The entries of the next segment."""
    group: list[EntryRow] = []
    size_bytes = 0
    for row in entries:
        group.append(row)
        size_bytes += len(row.entry)
        if size_bytes >= _SEGMENT_BYTES or len(group) == SEGMENT_ENTRIES:
            break
    return group


def follow(rows: list[EntryRow], seq: int, hash: bytes) -> bytes:
    """Hash of the last of these entries, which follow entry `seq` one by one."""
    for row in rows:
        seq += 1
        if row.seq != seq or entry_hash(row.entry) != row.hash or not _names(row.entry, hash):
            raise broken(seq)
        hash = row.hash
    return hash


def broken(seq: int) -> CorruptJournal:
    """The error for an entry that does not follow."""
    return CorruptJournal(
        f"Entry {seq} of the journal is damaged or missing; run `cas fsck`.", seq=seq
    )


def _names(entry: bytes, previous: bytes) -> bool:
    """Whether an entry names this hash as the one before it.

    It stands at the end, in front of the extras, which are empty nearly always.
    """
    if entry.endswith(b"\x58\x20" + previous + b"\xa0"):
        return True
    return Entry.decode(entry, verified=True).previous == previous
