"""The mirror: what packs hold of the journal is true, whole, and names only what files hold."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cas
from cas.catalog.catalog import MIRRORED
from cas.errors import CasError
from cas.history.store import Store
from cas.model.entry import Entry, entry_hash
from cas.model.ids import Kind
from cas.model.segment import Segment
from cas.objects.children import children
from cas.objects.packs import bit_is_set
from cas.testing.stores import SMALL, SteppedClock, build
from tests.unit.kit import commits, reopened, take, tamper, write


def segments(store: Store) -> list[Segment]:
    """All segments in installed files, ascending."""
    objects = store.objects
    state = objects.lookup.refresh()
    found = {}
    for pack in state.packs.values():
        if pack.file is None:
            continue
        for slot in objects.lookup.footer(pack).slots():
            if slot.kind == Kind.SEGMENT:
                found[slot.id] = Segment.decode(objects.get(slot.id, Kind.SEGMENT))
    return sorted(found.values(), key=lambda segment: segment.first_seq)


def in_files(store: Store) -> set[bytes]:
    """Ids that exist in files."""
    objects = store.objects
    state = objects.lookup.refresh()
    return {
        id
        for pack in state.packs.values()
        if pack.file is not None
        for number, id in enumerate(objects.lookup.footer(pack).ids())
        if not bit_is_set(state.vectors.get(pack.number), number)
    }


def assert_covered(store: Store) -> None:
    """What segments say is what the catalog says, and all that it names lies in files."""
    with store.objects.catalog.read() as reader:
        rows = {row.seq: row for row in reader.entries(0)}
        reached = reader.cursor(MIRRORED) or 0
    there = in_files(store)
    seq = 0
    wanted: list[bytes] = []
    for segment in segments(store):
        assert segment.first_seq == seq + 1
        assert segment.lineage == store.objects.meta.lineage_id
        assert segment.features == store.objects.meta.features
        for data in segment.entries:
            seq += 1
            assert data == rows[seq].entry
            assert entry_hash(data) == rows[seq].hash
            entry = Entry.decode(data)
            wanted += [change.new for change in entry.changes if change.new is not None]
            wanted += [event.blob for event in entry.events if event.blob is not None]
    assert seq == reached
    seen: set[bytes] = set()
    while wanted:
        id = wanted.pop()
        if id not in seen:
            seen.add(id)
            assert id in there
            wanted += children(*store.objects.read(id))


def test_a_spill_mirrors_the_journal(store: Store) -> None:
    """After a spill the segments in files hold every entry, byte for byte, in order."""
    for at in range(5):
        write(store, files={f"d/{at}": b"%d" % at})
    with store.begin() as tx:
        tx.event("long", os.urandom(1000))
        tx.commit()
    assert segments(store) == []
    store.spill()
    assert [(found.first_seq, found.last_seq) for found in segments(store)] == [(1, 6)]
    assert_covered(store)
    commits(store, 3)
    store.spill()
    assert [(found.first_seq, found.last_seq) for found in segments(store)] == [(1, 6), (7, 9)]
    assert_covered(store)


def test_mirror_reaches_the_newest_entry(store: Store) -> None:
    """`mirror` covers everything so far, whatever lies inline, and a second one does nothing."""
    assert store.mirror() == 0
    assert segments(store) == []
    write(store)
    assert store.mirror() == 1
    assert_covered(store)
    with store.begin() as tx:
        tx.move("heads/other", store.resolve("main"))
        tx.commit()
    assert store.mirror() == 2
    before = sorted((Path(store.location) / "packs").iterdir())
    assert store.mirror() == 2
    assert sorted((Path(store.location) / "packs").iterdir()) == before
    store.put(b"loose")
    assert store.mirror() == 2
    with reopened(store) as other:
        write(other, files={"x": b"y"})
        assert store.mirror() == 3
    assert_covered(store)


def test_mirror_while_a_spill_is_under_way(tmp_path: Path) -> None:
    """A spill that began before is carried to its end, and what came since is covered too."""
    cas.init(tmp_path / "store")
    thresholds = SMALL._replace(spill_packs=3, mirror_entries=1000)
    store = build(str(tmp_path / "store"), clock=SteppedClock(1), thresholds=thresholds)
    with store:
        commits(store, 4)
        commits(store, 1, "later")
        assert store.mirror() == 5
        assert_covered(store)


@pytest.mark.parametrize(("number", "mirrored"), [(3, 0), (4, 4), (9, 9)])
def test_a_close_mirrors_much_and_not_little(tmp_path: Path, number: int, mirrored: int) -> None:
    """A handle that closes on enough unmirrored entries leaves none; one that read leaves all."""
    folder = str(tmp_path / "store")
    cas.init(folder)
    thresholds = SMALL._replace(spill_packs=1000)
    with build(folder, clock=SteppedClock(1), thresholds=thresholds) as store:
        commits(store, number)
    with build(folder, clock=SteppedClock(2), thresholds=thresholds) as store:
        assert len(list(store.journal())) == number
        with store.objects.catalog.read() as reader:
            assert (reader.cursor(MIRRORED) or 0) == mirrored
        assert_covered(store)
    with build(folder, clock=SteppedClock(3), thresholds=SMALL._replace(mirror_bytes=1)) as store:
        commits(store, 1)
    with cas.open(folder) as store:
        assert_covered(store)
        assert store.mirror() == number + 1


def test_what_is_damaged_is_not_covered(store: Store) -> None:
    """With an inline pack that cannot be gathered nothing is mirrored, and no file goes."""
    write(store, files={"a": b"1"})
    store.put_many([os.urandom(70_000)])
    write(store, files={"b": b"2"})
    write(store, files={"c": b"3"})
    files = sorted((Path(store.location) / "packs").iterdir())
    tamper(store, "UPDATE pack SET footer = x'00' WHERE number = 1")
    with reopened(store) as other:
        assert other.mirror() == 0
        assert other.spill() == 0 or segments(other) == []
        assert set(files) <= set((Path(store.location) / "packs").iterdir())


def test_a_damaged_entry_ends_the_mirror(store: Store) -> None:
    """Segments end before an entry whose bytes are not what its hash says."""
    commits(store, 5)
    tamper(store, "UPDATE journal SET entry = zeroblob(40) WHERE seq = 4")
    assert store.mirror() == 3
    assert [(found.first_seq, found.last_seq) for found in segments(store)] == [(1, 3)]


def test_a_fork_begins_with_the_entry_it_goes_on_from(store: Store, tmp_path: Path) -> None:
    """The first segment of a fork names its ancestry, and repeats the last entry before it."""
    commits(store, 4)
    store.mirror()
    store.close()
    copy = tmp_path / "copy"
    shutil.copytree(store.location, copy)
    cas.adopt(copy, fork=True)
    with cas.open(copy) as fork:
        assert fork.mirror() == 4
        first, second = segments(fork)
        assert (first.first_seq, first.last_seq, first.ancestry) == (1, 4, b"")
        assert (second.first_seq, second.last_seq) == (4, 4)
        assert second.entries == first.entries[3:]
        assert second.ancestors() == [(store.objects.meta.lineage_id, 4)]
        assert second.lineage == fork.objects.meta.lineage_id != first.lineage
        commits(fork, 1)
        assert fork.mirror() == 5
        assert segments(fork)[-1].ancestry == second.ancestry


def test_a_full_disk_at_a_close_takes_nothing_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that fails while the handle closes is no error of the close."""
    commits(store, 2)
    monkeypatch.setattr(
        store.objects, "thresholds", store.objects.thresholds._replace(mirror_entries=1)
    )

    def full(*_: object) -> None:
        raise CasError("No space is left.")

    monkeypatch.setattr(store.objects.bucket, "create", full)
    location = store.location
    store.close()
    with cas.open(location) as again:
        assert [entry.seq for entry in again.journal()] == [1, 2]
        assert again.mirror() == 2


def test_a_small_commit_asks_the_catalog_four_things(store: Store) -> None:
    """BEGIN, the pack, the entry, COMMIT: the mirror adds nothing to the way of a commit."""
    commits(store, 3)
    catalog = store.objects.catalog
    statements: list[str] = []
    writer = catalog._connections.writer()  # type: ignore[attr-defined]

    def note(_cursor: object, statement: str, _bindings: object) -> bool:
        statements.append(statement.split()[0])
        return True

    writer.exec_trace = note
    try:
        commits(store, 2)
    finally:
        writer.exec_trace = None
    assert statements == ["BEGIN", "INSERT", "INSERT", "COMMIT"] * 2


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30)
@given(
    steps=st.lists(
        st.sampled_from(["commit", "move", "delete", "put", "file", "spill", "mirror", "reopen"]),
        max_size=25,
    )
)
def test_what_segments_say_lies_in_files(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After any steps, everything that a segment's entries name is whole in installed files."""
    folder = str(tmp_path_factory.mktemp("mirror") / "store")
    cas.init(folder)
    seeds = iter(range(1000))
    store = build(folder, clock=SteppedClock(next(seeds)), thresholds=SMALL)
    write(store)
    for at, step in enumerate(steps):
        if take(store, step, at):
            pass
        elif step == "mirror":
            assert store.mirror() == store.entry(store.objects.catalog.head_seq()).seq
        else:
            store.close()
            store = build(folder, clock=SteppedClock(next(seeds)), thresholds=SMALL)
        assert_covered(store)
    store.close()
