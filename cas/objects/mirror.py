"""The mirror: what of the journal lies in packs too, so that packs alone give a catalog again.

Floor 3; implements docs/format.md section 5.6. Invariant: a segment holds only entries that are
durable in the catalog, and whoever installs it has put everything that existed at their end into
files first (docs/design/001, 4.7): at no moment does the newest segment name what only the
catalog holds. How far the mirror reaches stands in the cursor `mirrored`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from cas.catalog.catalog import MIRRORED, Catalog, EntryRow, Meta
from cas.later import Later
from cas.limits import MIB, Thresholds
from cas.model.entry import entry_hash
from cas.model.ids import Kind, digest_of
from cas.model.segment import Segment

if TYPE_CHECKING:
    from cas.objects import pipeline
    from cas.objects.batch import Batch
else:
    # A check asks what is mirrored, and writes nothing.
    pipeline = Later("cas.objects.pipeline")

_SEGMENT_ENTRIES: Final = 4096
_SEGMENT_BYTES: Final = 1 * MIB
"""A segment ends after the entry that reaches either; with the longest entry there is it still
fits into a record."""

_GROUP: Final = 1024
"""Entries read in one state of the catalog."""


def is_due(catalog: Catalog, thresholds: Thresholds) -> bool:
    """Whether so much of the journal is not in packs that a handle should not close on it."""
    with catalog.read() as reader:
        count, weight = reader.weigh_entries(reader.cursor(MIRRORED) or 0)
    return count >= thresholds.mirror_entries or weight >= thresholds.mirror_bytes


def stage_segments(catalog: Catalog, batch: Batch, upto: int) -> int:
    """Stage segments of the entries up to `upto` that no segment holds; seq that they reach.

    They end before an entry that is missing or damaged: what packs say of the journal is true.
    """
    with catalog.read() as reader:
        reached = reader.cursor(MIRRORED) or 0
    # Beside a segment nothing may stand that a power failure can take back.
    catalog.harden()
    for rows in runs_behind(catalog, reached, upto):
        data = segment_of(catalog.meta, rows)
        id = digest_of(Kind.SEGMENT, data)
        if not batch.holds(id):
            batch.rewrite([pipeline.Submitted(id, Kind.SEGMENT, data, None, len(data))])
        reached = rows[-1].seq
    return reached


def segment_of(meta: Meta, rows: Sequence[EntryRow]) -> bytes:
    """Entries of one lineage that follow each other, at least one, as the bytes of a segment."""
    entries = tuple([row.entry for row in rows])
    return Segment(rows[0].seq, entries, meta.lineage_id, meta.ancestry, meta.features).encode()


def runs_behind(catalog: Catalog, after: int, upto: int) -> Iterator[Sequence[EntryRow]]:
    """Entries behind `after`, in runs that a segment each can hold; up to the first damaged one."""
    waiting: list[EntryRow] = []
    while after < upto:
        with catalog.read() as reader:
            found = reader.entries(after, min(_GROUP, upto - after))
        sound = _sound(found, after)
        waiting += sound
        while (end := _full(waiting)) is not None:
            yield waiting[:end]
            del waiting[:end]
        if not sound or len(sound) < len(found):
            break
        after = sound[-1].seq
    if waiting:
        yield waiting


def _sound(rows: Sequence[EntryRow], after: int) -> Sequence[EntryRow]:
    """`rows` up to the first that is not the next one, or not what its hash says."""
    for at, row in enumerate(rows):
        if row.seq != after + 1 + at or entry_hash(row.entry) != row.hash:
            return rows[:at]
    return rows


def cut(rows: Sequence[EntryRow]) -> Iterator[Sequence[EntryRow]]:
    """Entries that follow each other, in runs that a segment each can hold."""
    rest = list(rows)
    while (end := _full(rest)) is not None:
        yield rest[:end]
        rest = rest[end:]
    if rest:
        yield rest


def is_full(rows: Sequence[EntryRow]) -> bool:
    """Whether these entries make a segment that takes no more."""
    return _full(rows) == len(rows)


def _full(rows: Sequence[EntryRow]) -> int | None:
    """How many of these entries make a segment that is full, None where they do not."""
    weights = accumulate(len(row.entry) for row in rows)
    for at, weight in enumerate(weights, start=1):
        if weight >= _SEGMENT_BYTES or at == _SEGMENT_ENTRIES:
            return at
    return None
