"""The archive: old entries of the journal leave the catalog's rows for segments in pack files.

Floor 3; implements docs/format.md sections 5.6 and 7.1. Invariant: rows of the journal go in the
transaction that puts a row of `archive` in their place, and in no other; that transaction has found
them in the segment byte for byte, and copies of the segment, each verified, in two installed pack
files with their bits clear. From then on these two packs stay: neither spill nor compaction takes
them out, because until then the catalog's rows were the second copy.

Only entries go that the mirror has reached, so that all they name lies in files; and only once the
lineage has a segment of its own, or what an older one wrote would not be known for older.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from cas.catalog.catalog import MIRRORED, ArchiveRow, CatalogReader, CatalogWriter, EntryRow
from cas.errors import CasError, Corrupt, NotFound, Unavailable
from cas.later import Later
from cas.model.entry import Entry
from cas.model.ids import Kind, digest_of
from cas.model.segment import Segment, split_ancestry
from cas.model.values import frozen
from cas.objects.mirror import is_full, runs_behind, segment_of
from cas.objects.packs import State, bit_is_set
from cas.objects.store import ObjectStore

if TYPE_CHECKING:
    from cas.objects import pipeline
else:
    # A check asks what is archived, and writes nothing.
    pipeline = Later("cas.objects.pipeline")

_TOGETHER: Final = 8
"""Segments that one pair of pack files is made of, at the most: 8 MiB in memory."""

_COPIES: Final = 2


@frozen
class _Run:
    """Entries that go together, and the segment that will hold them."""

    rows: tuple[EntryRow, ...]
    id: bytes
    data: bytes


Place = tuple[int, int]
"""Number of a pack, and of a slot in it."""


def old_entries(objects: ObjectStore) -> int:
    """How many rows of the journal could go, and are worth it; 0 where they are too few."""
    with objects.catalog.read() as reader:
        first, last = _span(objects, reader)
    count = last - first + 1
    return count if count >= objects.thresholds.archive_entries else 0


def archive_some(objects: ObjectStore) -> int:
    """Move the oldest rows of the journal into the archive, a few segments' worth; how many went.

    Raises `Unavailable` where another one was faster, `AccessDenied` without the rights to remove
    rows, and what writing a pack raises. What stood before stands then.
    """
    with objects.catalog.read() as reader:
        if reader.lineage() != objects.meta.lineage_id:
            raise Unavailable("The catalog was put together anew; open the store again.")
        first, last = _span(objects, reader)
    if last - first + 1 < objects.thresholds.archive_entries:
        return 0
    wanted = _runs(objects, first, last)
    places = _two_copies(objects, wanted)
    count = 0
    for run in wanted:
        with objects.catalog.write() as writer:
            _move(objects, writer, run, places[run.id])
        count += len(run.rows)
    return count


def lacking(objects: ObjectStore, gone: Collection[int] = ()) -> list[ArchiveRow]:
    """Rows of the archive of which a pack has no copy any more, lost to a repair or a purge.

    `gone`: numbers of packs that the catalog names, and that are not there.
    """
    with objects.catalog.read() as reader:
        rows = reader.archived()
        state = objects.lookup.refresh(reader)
    return [
        row
        for row in rows
        if row.pack == row.other
        or not all(
            number not in gone and _has_copy(objects, state, number, row.segment)
            for number in (row.pack, row.other)
        )
    ]


def _has_copy(objects: ObjectStore, state: State, number: int, id: bytes) -> bool:
    """Whether a pack is named and the copy in it exists. Its bytes are not read."""
    pack, bits = state.packs.get(number), state.vectors.get(number)
    if pack is None or bits is None:
        return pack is not None
    try:
        slot = objects.lookup.footer(pack).find(id)
    except Corrupt:
        return False
    return slot >= 0 and not bit_is_set(bits, slot)


def renew_homes(objects: ObjectStore, gone: Collection[int] = ()) -> int:
    """Give segments of which a pack has no copy a second one again; how many have two now.

    `gone` as in `lacking`. A segment that nobody can read stays as it is: fsck tells of it.
    """
    count = 0
    for row in lacking(objects, gone):
        try:
            data = objects.get(row.segment, Kind.SEGMENT)
        except (Corrupt, NotFound):
            continue
        run = _Run((), row.segment, data)
        places = _two_copies(objects, [run])[run.id]
        with objects.catalog.write() as writer:
            if row in writer.archived(row.first_seq - 1, 1) and _stand(writer, places):
                (pack, _slot), (other, _other_slot) = places
                writer.archive(row._replace(pack=pack, other=other))
                count += 1
    return count


def _span(objects: ObjectStore, reader: CatalogReader) -> tuple[int, int]:
    """First and last entry that may go in this state; the last one is less where none may."""
    rows = reader.archived()
    archived = rows[-1].last_seq if rows else 0
    mirrored = reader.cursor(MIRRORED) or 0
    ancestors = split_ancestry(objects.meta.ancestry)
    if ancestors and mirrored < ancestors[-1][1]:
        return archived + 1, archived
    return archived + 1, min(mirrored, reader.head().seq - objects.thresholds.journal_rows)


def _runs(objects: ObjectStore, first: int, last: int) -> list[_Run]:
    """The entries of a span as segments, full ones or the last one; a short rest waits."""
    least = objects.thresholds.archive_entries
    found: list[_Run] = []
    for rows in islice(runs_behind(objects.catalog, first - 1, last), _TOGETHER):
        if not is_full(rows) and (rows[-1].seq < last or len(rows) < least):
            break
        data = segment_of(objects.meta, rows)
        found.append(_Run(tuple(rows), digest_of(Kind.SEGMENT, data), data))
    return found


# -- two copies --------------------------------------------------------------------------------


def _two_copies(objects: ObjectStore, wanted: Sequence[_Run]) -> dict[bytes, list[Place]]:
    """Two places of each segment, in two pack files of segments alone, read again and compared."""
    places = {run.id: _places(objects, run) for run in wanted}
    for _ in range(_COPIES):
        missing = [run for run in wanted if len(places[run.id]) < _COPIES]
        if not missing:
            break
        _write(objects, missing)
        places = {run.id: _places(objects, run) for run in wanted}
    if any(len(found) < _COPIES for found in places.values()):
        raise Unavailable("What was written of the journal was moved by another; try again later.")
    return places


def _write(objects: ObjectStore, runs: Sequence[_Run]) -> None:
    """One more copy of these segments, in pack files that hold nothing else."""
    batch = objects.new_batch()
    try:
        make = pipeline.Submitted
        batch.rewrite(make(r.id, Kind.SEGMENT, r.data, None, len(r.data)) for r in runs)
        batch.seal()
        with objects.catalog.write() as writer:
            if writer.lineage() != objects.meta.lineage_id:
                raise Unavailable("The catalog was put together anew; open the store again.")
            batch.install(writer, writer.head())
    except BaseException as error:
        batch.abandon(error)
        raise
    batch.resolved()


def _places(objects: ObjectStore, run: _Run) -> list[Place]:
    """Up to two places where a segment lies, whole, in packs of segments alone."""
    found: dict[int, Place] = {}
    objects.lookup.refresh()
    for copy in objects.lookup.copies(run.id):
        pack = copy.pack
        if pack.file is None or pack.number in found:
            continue
        try:
            footer = objects.lookup.footer(pack)
            if any(row[4] != Kind.SEGMENT for row in footer.rows()):
                continue
            if objects.verified(copy) == (Kind.SEGMENT, run.data):
                found[pack.number] = pack.number, footer.find(run.id)
        except CasError:
            continue
        if len(found) == _COPIES:
            break
    return sorted(found.values())


# -- the transaction ---------------------------------------------------------------------------


def _move(objects: ObjectStore, writer: CatalogWriter, run: _Run, places: list[Place]) -> None:
    """Inside the gate: compare everything with what stands there, and let the rows go."""
    first, last = _span(objects, writer)
    rows = run.rows
    there = writer.lineage() == objects.meta.lineage_id and _stand(writer, places)
    if not there or rows[0].seq != first or rows[-1].seq > last:
        raise Unavailable("The journal was archived by another meanwhile; try again later.")
    if tuple(writer.entries(first - 1, len(rows))) != rows:
        raise Unavailable("The journal is not what it was; run `cas fsck`.")
    held = Segment.decode(run.data).entries
    if held != tuple(row.entry for row in rows):
        raise Unavailable("A segment does not hold the entries that it was made of; try again.")
    begin = Entry.decode(rows[0].entry, verified=True)
    (pack, _slot), (other, _other_slot) = places
    writer.archive(ArchiveRow(first, rows[-1].seq, begin.epoch, begin.time_us, run.id, pack, other))


def _stand(reader: CatalogReader, places: Sequence[Place]) -> bool:
    """Whether these places exist in this state: two installed packs, their bits clear."""
    if len({number for number, _slot in places}) != _COPIES:
        return False
    if not {number for number, _slot in places} <= set(reader.pack_numbers()):
        return False
    # A vector is never older than its pack.
    behind = min(number for number, _slot in places) - 1
    vectors = {number: bits for number, _version, bits in reader.vectors(behind)}
    return not any(bit_is_set(vectors.get(number), slot) for number, slot in places)
