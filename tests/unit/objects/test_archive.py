"""The archive: old entries lie in packs alone, and whoever reads them cannot tell."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import cas
from cas.catalog import schema
from cas.catalog.catalog import MIRRORED, ArchiveRow
from cas.errors import (
    Corrupt,
    CorruptJournal,
    EntryNotFound,
    NewerFormat,
    TransactionReused,
    Unavailable,
)
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.limits import THRESHOLDS
from cas.maintenance.fsck import chain
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc import compact as compaction
from cas.maintenance.gc import told
from cas.maintenance.gc.compact import compact
from cas.maintenance.gc.roots import read_roots
from cas.model.ids import Kind
from cas.objects import archive
from cas.objects.archive import archive_some, old_entries, renew_homes
from cas.objects.bulk import BulkReader
from cas.objects.chains import Place
from cas.objects.packs import PackInfo
from cas.objects.segments import homes
from cas.objects.store import ObjectStore
from cas.testing.archiving import archive_all
from cas.testing.oracle import check_archive
from cas.testing.stores import SMALL, SteppedClock, build
from tests.unit.kit import reopened, tamper, write

FEW = SMALL._replace(journal_rows=5, archive_entries=3)
COUNT = 40


def opened(folder: str | Path, seed: str = "again", **limits: int) -> Store:
    """A handle that archives early."""
    thresholds = FEW._replace(**limits)  # type: ignore[arg-type]
    return build(str(folder), clock=SteppedClock(seed), thresholds=thresholds)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a history: keys, events, a branch that was made and deleted."""
    folder = tmp_path / "store"
    cas.init(folder)
    with opened(folder, "first") as found:
        fill(found)
        yield found


def fill(store: Store) -> None:
    """Forty entries."""
    for at in range(1, COUNT + 1):
        with store.begin(
            author="ada", message=f"m{at}", key=f"k{at}" if at % 4 == 0 else None
        ) as tx:
            if at != 9:
                tx.branch("main")[f"f{at % 7}"] = b"%d" % at
            if at % 5 == 0:
                tx.event("Said", b"word " * at * 20, {"n": str(at)})
            if at == 3:
                tx.branch("draft")["x"] = b"y"
            if at == 9:
                tx.delete("heads/draft")
            assert tx.commit().seq == at


def shown(store: Store) -> list[object]:
    """Everything that readers of the journal are given."""
    entries = list(store.journal())
    found: list[object] = [*entries]
    for entry in entries:
        assert store.entry(entry.seq) == entry
        assert store.outcome(entry.txid) == entry
        assert store.at(time_us=entry.time_us).seq == entry.seq
        found.append([(ref.name, ref.target) for ref in store.at(entry.seq).refs()])
    with pytest.raises(EntryNotFound):
        store.at(time_us=entries[0].time_us - 1)
    with store.objects.catalog.read() as reader:
        rows = list(reader.entries(0))
        assert rows == [reader.entry(row.seq) for row in rows]
        assert reader.entry(len(rows) + 1) is None
    found += rows
    return found


def archived(store: Store) -> list[ArchiveRow]:
    """What stands for entries."""
    with store.objects.catalog.read() as reader:
        return list(reader.archived())


def kept(store: Store) -> int:
    """How many entries are rows."""
    with store.objects.catalog.read() as reader:
        return reader.weigh_entries(0)[0]


def damage(path: Path) -> None:
    """Other bytes in the middle of a pack's body."""
    content = bytearray(path.read_bytes())
    content[300:330] = bytes(byte ^ 0xFF for byte in content[300:330])
    path.write_bytes(content)


def files(store: Store, row: ArchiveRow) -> list[Path]:
    """The two pack files of an archive row."""
    state = store.objects.lookup.refresh()
    names = [state.packs[number].file for number in (row.pack, row.other)]
    return [Path(store.location) / "packs" / str(name) for name in names]


# -- reading -----------------------------------------------------------------------------------


def test_old_entries_are_given_as_before(store: Store) -> None:
    """Journal, single entries, lost answers, keys, states and times are those of before, for
    handles of every age and kind.
    """
    before = shown(store)
    with reopened(store) as old, reopened(store, read_only=True) as reader:
        assert old.journal() is not None
        assert archive_all(store) == COUNT - FEW.journal_rows
        assert kept(store) == FEW.journal_rows
        assert list(check_archive(store)) == []
        with opened(store.location) as fresh:
            for handle in (store, old, reader, fresh):
                assert shown(handle) == before
    assert archive_all(store) == 0
    assert fsck(store).findings == ()


def test_a_key_is_known_for_ever(store: Store) -> None:
    """The same request under an archived key gives its entry; another one is refused."""
    archive_all(store)
    with opened(store.location) as other, other.begin(author="ada", message="m4", key="k4") as tx:
        tx.branch("main")["f4"] = b"4"
        assert tx.commit().seq == 4
    with store.begin(author="ada", message="m4", key="k4") as tx:
        tx.branch("main")["f4"] = b"other"
        with pytest.raises(TransactionReused):
            tx.commit()
    assert store.view().seq == COUNT


def test_a_handle_that_was_away_follows_through_the_archive(store: Store) -> None:
    """A follower, and a handle that has seen nothing since, read on where the rows are gone."""
    with reopened(store) as away:
        away.view()
        follower = away.follow(2)
        first = next(iter(follower))
        for at in range(20):
            write(store, files={"n": b"%d" % at})
        archive_all(store)
        rest = [next(follower) for _ in range(COUNT + 20 - 3)]
        assert [entry.seq for entry in (first, *rest)] == list(range(3, COUNT + 21))
        assert away.view().seq == COUNT + 20
        write(away, files={"n": b"away"})
        assert away.view().seq == COUNT + 21


def test_undo_of_an_archived_entry(store: Store) -> None:
    """What an archived entry did can be taken back."""
    archive_all(store)
    store.undo(9)
    assert store.snapshot("draft")["x"] == b"y"


def test_a_time_is_found_by_reading_one_segment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which segment a time falls into its row says; no other one is read."""
    times = [entry.time_us for entry in store.journal()]
    monkeypatch.setattr(archive, "_TOGETHER", 1)
    with opened(store.location, journal_rows=1) as other:
        for count in range(5, 40, 5):
            other.objects.thresholds = FEW._replace(journal_rows=COUNT - count)
            archive_some(other.objects)
    assert len(archived(store)) == 7
    fetched: list[bytes] = []
    get = store.objects.get

    def noting(id: bytes) -> object:
        fetched.append(id)
        return archive.Segment.decode(get(id, archive.Kind.SEGMENT)).entries

    store.objects.catalog.serve_archive(noting)  # type: ignore[arg-type]
    for seq in range(1, COUNT + 1):
        fetched.clear()
        with store.objects.catalog.read() as reader:
            assert store.core.timeline.seq_at(reader, COUNT, times[seq - 1]) == seq
        assert len(set(fetched)) <= 2


# -- what may go -------------------------------------------------------------------------------


def test_the_newest_entries_stay_and_few_old_ones_wait(store: Store) -> None:
    """As many as the limit says are rows always; fewer old ones than are worth it stay too."""
    assert THRESHOLDS.journal_rows == 10_000
    store.mirror()
    with cas.open(store.location) as other:
        assert (old_entries(other.objects), archive_some(other.objects)) == (0, 0)
    with opened(store.location, journal_rows=COUNT - 2) as other:
        assert (old_entries(other.objects), archive_some(other.objects)) == (0, 0)
    with opened(store.location, journal_rows=COUNT - 3) as other:
        assert (old_entries(other.objects), archive_some(other.objects)) == (3, 3)
    assert [(row.first_seq, row.last_seq) for row in archived(store)] == [(1, 3)]


def test_what_is_in_no_segment_of_the_mirror_stays(store: Store) -> None:
    """An entry goes only once all that it names lies in files."""
    store.mirror()
    with store.objects.catalog.write() as writer:
        writer.set_cursor(MIRRORED, 11)
    assert archive_some(store.objects) == 11
    assert archive_some(store.objects) == 0
    assert kept(store) == COUNT - 11


def test_a_fork_archives_behind_a_segment_of_its_own(store: Store, tmp_path: Path) -> None:
    """Before a lineage has mirrored anything it archives nothing: of two lineages a rebuild would
    take the newer one for the whole.
    """
    store.mirror()
    before = shown(store)
    store.close()
    fork = tmp_path / "fork"
    shutil.copytree(store.location, fork)
    cas.adopt(fork, fork=True)
    with opened(fork, "fork") as other:
        assert (old_entries(other.objects), archive_some(other.objects)) == (0, 0)
        assert archive_all(other) == COUNT - FEW.journal_rows
        assert shown(other) == before
    for suffix in ("", "-wal", "-shm"):
        (fork / f"catalog.sqlite{suffix}").unlink(missing_ok=True)
    with cas.plan_repair(fork, keep_loose=False) as plan:
        plan.apply()
    with opened(fork, "rebuilt") as other:
        assert shown(other) == before


def test_a_damaged_row_stays_and_stops_the_archive(store: Store) -> None:
    """An entry whose bytes are not those of its hash is never moved, nor one behind it."""
    store.mirror()
    store.close()
    tamper(store, "UPDATE journal SET entry = zeroblob(10) WHERE seq = 8")
    with opened(store.location) as other:
        assert archive_some(other.objects) == 0
        assert kept(other) == COUNT


def test_rows_that_are_not_those_of_the_segment_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the rows when they would go is compared with the segment byte for byte."""
    store.mirror()
    copies = archive._two_copies

    def meanwhile(*words: object) -> object:
        found = copies(*words)  # type: ignore[arg-type]
        tamper(store, "UPDATE journal SET entry = zeroblob(10) WHERE seq = 8")
        return found

    monkeypatch.setattr(archive, "_two_copies", meanwhile)
    with pytest.raises(Unavailable, match="cas fsck"):
        archive_some(store.objects)
    assert (kept(store), archived(store)) == (COUNT, [])


def test_a_segment_that_has_gone_meanwhile_is_not_relied_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both copies are looked up again in the transaction that lets the rows go."""
    store.mirror()
    copies = archive._two_copies

    def meanwhile(objects: object, runs: object) -> object:
        found = copies(objects, runs)  # type: ignore[arg-type]
        number = min(place[0] for places in found.values() for place in places)
        with store.objects.catalog.write() as writer:
            writer.remove_packs([number], writer.head().version + 1, writer.head().condemn_seq)
        return found

    monkeypatch.setattr(archive, "_two_copies", meanwhile)
    with pytest.raises(Unavailable):
        archive_some(store.objects)
    assert kept(store) == COUNT


def test_what_was_written_before_a_stop_serves_the_next_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was cut short behind its pack files leaves them for the one that comes."""
    store.mirror()

    def cut(*_words: object) -> None:
        raise Unavailable("cut short")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_move", cut)
        with pytest.raises(Unavailable):
            archive_some(store.objects)
    before = sorted(os.listdir(Path(store.location) / "packs"))
    assert archive_some(store.objects) == COUNT - FEW.journal_rows
    assert sorted(os.listdir(Path(store.location) / "packs")) == before


# -- the two packs -----------------------------------------------------------------------------


def test_the_two_packs_stay_where_they_are(store: Store) -> None:
    """No spill, collection or compaction takes out what the archive rests on."""
    archive_all(store)
    with store.objects.catalog.read() as reader:
        resting = homes(reader)
    for at in range(12):
        write(store, files={"big": os.urandom(70_000), "n": b"%d" % at})
        store.spill()
        store.gc(grace_us=0)
        compact(store.objects, waste_min=0.0, bytes_max=1 << 40, waste_max=-1.0)
    with store.objects.catalog.read() as reader:
        assert resting <= set(reader.pack_numbers())
    assert list(check_archive(store)) == []
    assert fsck(store).findings == ()


def test_a_pack_that_holds_anything_else_is_none_of_the_two(tmp_path: Path) -> None:
    """A segment that the mirror wrote beside other objects serves as no copy: that pack would have
    to stay with all its waste.
    """
    cas.init(tmp_path / "store")
    with opened(tmp_path / "store", spill_packs=1000) as store:
        for at in range(15):
            if at == 10:
                store.mirror()
            write(store, files={"n": b"%d" % at})
        assert archive_some(store.objects) == 10
        (row,) = archived(store)
        lookup = store.objects.lookup
        copies = {copy.pack.number: copy.pack for copy in lookup.copies(row.segment)}
        assert len(copies) == 3
        for number, pack in copies.items():
            kinds = {slot.kind for slot in lookup.footer(pack).slots()}
            assert (kinds == {Kind.SEGMENT}) == (number in (row.pack, row.other))


def test_spills_leave_the_two_packs_alone_and_do_not_begin_for_them(store: Store) -> None:
    """Small packs that stay are copied by no spill, and make none due."""
    archive_all(store)
    (row,) = archived(store)
    with opened(store.location, "spilling", spill_bytes=1) as other:
        for at in range(3):
            write(other, files={"n": b"%d" % at})
            while other.spill():
                pass
        assert not other._spill.due
    assert len(list(store.objects.lookup.copies(row.segment))) == 2


def two_packs(store: Store) -> None:
    """What an archiving run writes before its transaction: small packs that others gather."""
    store.mirror()
    with store.objects.catalog.read() as reader:
        span = archive._span(store.objects, reader)
    archive._two_copies(store.objects, archive._runs(store.objects, *span))


def test_a_spill_under_way_leaves_what_the_archive_has_come_to_rest_on(store: Store) -> None:
    """A spill that gathered a pack before the archive rested on it does not take it out."""
    two_packs(store)
    with opened(store.location, "spilling") as other:
        spill = other._spill
        assert spill._begin()
        run = spill._run
        while run is not None and run.outputs is None:
            spill._guarded(64, None)
        assert archive_some(store.objects)
        (row,) = archived(store)
        assert run is not None
        assert {row.pack, row.other} <= {pack.number for pack in run.gathered}
        while spill._run is not None:
            spill._guarded(64, None)
        assert run.removed == len(run.gathered)
    assert list(check_archive(store)) == []


def test_a_compaction_under_way_leaves_what_the_archive_has_come_to_rest_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compaction that chose a pack before the archive rested on it does not take it out."""
    two_packs(store)
    for at in range(8):
        store.put_many([os.urandom(70_000) for _ in range(3)])
        assert at >= 0
    remove = compaction.remove_moved
    chosen: list[int] = []

    def late(objects: object, sources: list[PackInfo], outputs: object) -> bool:
        chosen.extend(pack.number for pack in sources)
        assert archive_some(store.objects)
        return remove(objects, sources, outputs)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "remove_moved", late)
    compact(store.objects, waste_min=0.0, bytes_max=1 << 40, waste_max=-1.0)
    (row,) = archived(store)
    assert {row.pack, row.other} <= set(chosen)
    assert list(check_archive(store)) == []


def test_one_lost_pack_costs_nothing_and_is_made_good(store: Store) -> None:
    """With one of two packs gone all is read; fsck tells, and maintenance writes another."""
    before = shown(store)
    archive_all(store)
    (row,) = archived(store)
    lost = files(store, row)[0]
    store.close()
    lost.unlink()
    with opened(store.location) as other:
        assert shown(other) == before
    tamper(store, "DELETE FROM pack WHERE number = ?", row.pack)
    with opened(store.location, "third") as other:
        assert "archive-single" in {finding.code for finding in fsck(other).findings}
        chores = {chore.name: chore.reason for chore in other.plan_maintenance()}
        assert "one pack only: 1" in chores["archive"]
        assert renew_homes(other.objects) == 1
        assert renew_homes(other.objects) == 0
        assert list(check_archive(other)) == []
        assert shown(other) == before
        assert "archive-single" not in {finding.code for finding in fsck(other).findings}


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_second_copy_that_is_lost_comes_back_with_a_repair(
    store: Store, lost: int, how: str
) -> None:
    """A repair gives old entries a second pack again, whether one is gone or its copy was given up;
    where that did not come about maintenance does.
    """
    before = shown(store)
    archive_all(store)
    (row,) = archived(store)
    path = files(store, row)[lost]
    store.close()
    if how == "missing":
        path.unlink()
    else:
        damage(path)
    with cas.plan_repair(store.location) as plan:
        assert plan.is_needed
        plan.apply()
    with opened(store.location) as other:
        assert list(check_archive(other)) == []
        assert shown(other) == before
        assert "archive-single" not in {finding.code for finding in fsck(other).findings}
    with cas.plan_repair(store.location) as plan:
        assert not plan.is_needed


def test_a_copy_that_was_given_up_is_no_second_copy(store: Store) -> None:
    """A pack that is there and whose copy does not exist any more counts as lost: fsck tells, and
    maintenance writes another.
    """
    archive_all(store)
    (row,) = archived(store)
    with store.objects.catalog.write() as writer:
        head = writer.head()
        writer.set_vector(row.pack, head.version + 1, b"\x01")
        writer.remove_packs([], head.version + 1, head.condemn_seq + 1)
    assert "archive-single" in {finding.code for finding in fsck(store).findings}
    assert "archive" in {chore.name for chore in store.plan_maintenance()}
    store.maintain()
    assert list(check_archive(store)) == []
    assert "archive-single" not in {finding.code for finding in fsck(store).findings}


def test_one_segment_that_is_lost_keeps_no_other_from_two_packs(store: Store) -> None:
    """Of segments that lack a copy those that can be read get it; what is lost stops nothing."""
    with opened(store.location, journal_rows=20) as other:
        archive_all(other)
    archive_all(store)
    first, second = archived(store)
    lost = [*files(store, first), files(store, second)[0]]
    store.close()
    for path in lost:
        path.unlink()
    with opened(store.location) as other:
        gone = {first.pack, first.other, second.pack}
        assert renew_homes(other.objects, gone) == 1
        assert archived(other)[0] == first
        assert second.pack not in {archived(other)[1].pack, archived(other)[1].other}


def test_segments_that_are_lost_are_told_and_a_rebuild_brings_them_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both packs gone the entries are told as one span, the rest is checked, and what the
    mirror holds makes the journal whole again.
    """
    monkeypatch.setattr(chain, "_BLIND_MAX", 3)
    before = shown(store)
    with opened(store.location, journal_rows=20) as other:
        archive_all(other)
    archive_all(store)
    first, second = archived(store)
    assert second.last_seq == COUNT - FEW.journal_rows
    lost = files(store, first)
    store.close()
    for path in lost:
        path.unlink()
    with opened(store.location, "second") as other:
        told = {(f.code, f.subject): f.message for f in fsck(other).findings}
        assert f"Entries 1 to {first.last_seq} " in told["journal-entry", "entry 1"]
        assert ("journal-entry", f"entry {second.first_seq}") not in told
        with pytest.raises(Corrupt):
            other.entry(1)
        assert other.entry(second.first_seq) is not None
    with cas.plan_repair(store.location, rebuild=True, keep_loose=True) as plan:
        plan.apply()
    with opened(store.location, "third") as other:
        assert shown(other) == before
        assert archived(other) == []
        assert archive_all(other) == COUNT - FEW.journal_rows
        assert shown(other) == before


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE archive SET time_us = 5", "journal-row"),
        ("UPDATE archive SET epoch = 5", "journal-row"),
        ("UPDATE archive SET first_seq = 2", "journal-entry"),
        ("UPDATE archive SET last_seq = last_seq - 1", "journal-entry"),
        ("UPDATE archive SET segment = zeroblob(32)", "object-missing"),
        ("UPDATE archive SET pack = other", "archive-single"),
        ("UPDATE archive SET pack = 9999", "archive-single"),
        ("DELETE FROM archive", "journal-entry"),
        ("DELETE FROM key WHERE seq = 4", "journal-row"),
        ("UPDATE key SET seq = 5 WHERE seq = 4", "journal-row"),
        ("UPDATE key SET txid = zeroblob(16) WHERE seq = 4", "journal-row"),
    ],
)
def test_rows_of_the_archive_that_lie_are_told(store: Store, statement: str, code: str) -> None:
    """Each way in which what stands for entries, or for keys, can be gone or wrong is named."""
    archive_all(store)
    store.close()
    tamper(store, statement)
    with opened(store.location) as other:
        assert code in {finding.code for finding in fsck(other).findings}


# -- the whole store ---------------------------------------------------------------------------


def test_an_older_program_refuses_an_archived_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first move on the store has a feature that who does not know it refuses by name."""
    older = schema.KNOWN_FEATURES - {"archive"}
    monkeypatch.setattr(schema, "KNOWN_FEATURES", older)
    store.mirror()
    with reopened(store):
        pass
    assert archive_some(store.objects)
    with pytest.raises(NewerFormat, match="archive"), reopened(store):
        pass


def test_the_catalog_gets_smaller(tmp_path: Path) -> None:
    """Thousands of old entries take a few bytes each of the catalog, and maintenance gives back
    what they took.
    """
    folder = tmp_path / "store"
    cas.init(folder)
    count = 3000
    with build(
        str(folder), clock=SteppedClock("size"), thresholds=THRESHOLDS._replace(journal_rows=10)
    ) as store:
        for at in range(count):
            with store.begin(author="ada", message="a message of some length") as tx:
                tx.event("Said", b"%d" % at)
                tx.commit()
        rows = _bytes_of(folder)
        report = store.maintain()
        assert "archive" in {row.name for row in report.rows if row.outcome == "done"}
        assert kept(store) == 10
        assert (_bytes_of(folder) - 8192 * 4) / count < 64 < rows / count
        assert "archive" not in {chore.name for chore in store.plan_maintenance()}
        assert [entry.seq for entry in store.journal()] == list(range(1, count + 1))


def _bytes_of(folder: Path) -> int:
    connection = apsw.Connection(str(folder / "catalog.sqlite"))
    query = (
        "SELECT sum(pgsize) FROM dbstat WHERE name IN ('journal', 'journal_key', 'archive', 'key')"
    )
    ((size,),) = connection.execute(query).fetchall()
    connection.close()
    return int(size)


def test_a_collection_finds_what_only_archived_entries_name(store: Store) -> None:
    """Targets and bodies of archived entries are kept, or dropped behind a horizon, as before."""
    archive_all(store)
    bodies = [event.blob for entry in store.journal() for event in entry.events if event.blob]
    assert bodies
    store.gc(grace_us=0)
    assert store.at(5).snapshot("draft")["x"] == b"y"
    for blob in bodies:
        assert store.get(blob)
    assert fsck(store).findings == ()


def test_a_collection_does_not_read_old_segments_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a segment tells is kept beside the store, so that later runs fetch none; a file of it
    that is damaged, or that of another segment, is not believed.
    """
    monkeypatch.setattr(told, "_CONTENT_BYTES_MIN", 0)
    archive_all(store)
    fetched: list[bytes] = []
    stored = ObjectStore.stored

    def noting(self: ObjectStore, pack: PackInfo, start: int, length: int) -> bytes:
        for slot in self.lookup.footer(pack).slots():
            if slot.payload_offset == start and slot.kind == Kind.SEGMENT:
                fetched.append(slot.id)
        return stored(self, pack, start, length)

    load = BulkReader.load

    def loading(self: BulkReader, ids: list[bytes], places: list[Place]) -> object:
        fetched.extend(id for id, place in zip(ids, places, strict=True) if place.kind == 7)
        return load(self, ids, places)

    monkeypatch.setattr(ObjectStore, "stored", noting)
    monkeypatch.setattr(BulkReader, "load", loading)
    cache = Path(store.location) / "cache" / "segments"

    def collected(seed: str) -> tuple[object, set[bytes]]:
        fetched.clear()
        with cached(store.location, seed) as handle:
            plan = handle.plan_gc(grace_us=0)
            roots = read_now(handle)
        return (plan.rows, plan.kept, roots), set(fetched)

    first, read = collected("one")
    assert read
    files = sorted(cache.iterdir())
    assert files
    second, read = collected("two")
    assert second == first
    assert read == set()
    content = files[0].read_bytes()
    for bad in (b"", content[:-1], content[:60] + b"\0" + content[61:], files[-1].read_bytes()):
        files[0].write_bytes(bad)
        again, read = collected("three")
        assert again == first
        assert read == {bytes.fromhex(files[0].name)} or bad == content
        assert files[0].read_bytes() == content


def cached(folder: str, seed: str) -> Store:
    """A handle with a folder of caches."""
    return build(folder, clock=SteppedClock(seed), thresholds=FEW, cached=True)


def read_now(store: Store) -> object:
    """The roots of a collection."""
    with store.objects.catalog.read() as reader:
        roots = read_roots(store.core, reader)
    return roots.kept, roots.dropped, roots.horizon


@pytest.mark.parametrize("horizon", [0, 7, 20, COUNT])
def test_roots_of_archived_entries_are_those_of_rows(store: Store, horizon: int) -> None:
    """What is kept and what is given up does not depend on where entries lie."""
    if horizon:
        with store.begin() as tx:
            stage_raise(store.core, tx, horizon, {})
            tx.commit()
    store.mirror()
    before = read_now(store)
    assert archive_all(store)
    assert read_now(store) == before


def test_a_collection_does_not_believe_an_archive_row_that_lies(store: Store) -> None:
    """Where the catalog says another span than a segment has, nothing is collected."""
    with opened(store.location, journal_rows=20) as other:
        archive_all(other)
    archive_all(store)
    first, second = archived(store)
    store.close()
    tamper(store, "UPDATE archive SET segment = ? WHERE first_seq = 1", second.segment)
    with opened(store.location) as other, pytest.raises(CorruptJournal):
        other.gc(grace_us=0)
    assert first.segment != second.segment


def test_backups_copies_and_restored_stores(store: Store, tmp_path: Path) -> None:
    """A backup of an archived store, what is restored from it, and a copy have all entries."""
    before = shown(store)
    cas.backup(store, str(tmp_path / "backup"))
    archive_all(store)
    write(store, files={"n": b"behind"})
    cas.backup(store, str(tmp_path / "backup"))
    cas.backup(store, str(tmp_path / "late"))
    for place in ("backup", "late"):
        cas.restore_store(str(tmp_path / place), str(tmp_path / f"of {place}"))
        with opened(tmp_path / f"of {place}", place) as other:
            assert [e.seq for e in other.journal()] == list(range(1, COUNT + 2))
            assert shown(other)[:COUNT] == before[:COUNT]
            assert archive_all(other)
            assert shown(other)[:COUNT] == before[:COUNT]
            assert fsck(other).findings == ()
    cas.copy(store, tmp_path / "copy")
    for at in range(8):
        write(store, files={"n": b"%d" % at})
    archive_all(store)
    with opened(tmp_path / "copy", "copy") as target:
        assert shown(target)[:COUNT] == before[:COUNT]
        cas.copy(store, target)
        assert [e.seq for e in target.journal()] == [e.seq for e in store.journal()]


def test_a_lost_catalog_of_an_archived_store_comes_back(store: Store) -> None:
    """From packs alone a rebuild makes all entries rows again."""
    archive_all(store)
    before = shown(store)
    store.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{store.location}/catalog.sqlite{suffix}").unlink(missing_ok=True)
    with cas.plan_repair(store.location, keep_loose=False) as plan:
        plan.apply()
    with opened(store.location) as other:
        assert shown(other) == before
        assert archived(other) == []
        assert archive_all(other)
        assert shown(other) == before
        assert fsck(other).findings == ()


def test_a_damaged_catalog_of_an_archived_store_comes_back(store: Store) -> None:
    """A rebuild takes the rows that a damaged catalog still has, and old entries from packs."""
    archive_all(store)
    write(store, files={"n": b"in no pack"})
    before = shown(store)
    store.close()
    with cas.plan_repair(store.location, rebuild=True, keep_loose=True) as plan:
        plan.apply()
    with opened(store.location) as other:
        assert shown(other) == before


def test_an_archived_store_needs_no_repair(store: Store) -> None:
    """That the rows of a sound catalog begin in the middle is no damage."""
    archive_all(store)
    store.close()
    with cas.plan_repair(store.location) as plan:
        assert not plan.is_needed
