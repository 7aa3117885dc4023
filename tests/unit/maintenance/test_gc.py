"""Garbage collection: what nothing leads to goes, what anything leads to stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import cas
from cas.clock import SystemClock
from cas.errors import Condemned, Purged, Unavailable
from cas.history.retain import stage_raise
from cas.history.retention import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc import bases as bases_room
from cas.maintenance.gc import reach, scarce
from cas.maintenance.gc.compact import choose
from cas.maintenance.gc.loads import Load
from cas.maintenance.purge import purge
from cas.model.ids import Kind, digest_blob
from cas.objects import lookup as lookup_room
from cas.objects import packs as packs_room
from cas.objects.packs import PackInfo
from cas.testing.memories import ENOUGH, memories_of
from cas.testing.stores import SMALL, build, create
from cas.testing.versions import put_on, versions_of
from cas.trees.node import encode_node
from tests.unit.kit import ManualClock, commits, reopened, write

DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands where it is put."""
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True, clock=clock) as opened:
        yield opened


def forget(store: Store) -> None:
    """Raise the horizon to the newest entry."""
    with store.begin(author="keeper", message="forget") as tx:
        stage_raise(store.core, tx, store.view().seq, {})
        tx.commit()


def exists(store: Store, *contents: bytes) -> list[bool]:
    """Which of these blobs a fresh handle finds."""
    with reopened(store) as other:
        return [other.has(cas.BlobId(digest_blob(c))) for c in contents]


def test_a_dropped_branch_gives_its_space_back(store: Store) -> None:
    """What only a deleted branch held goes with the horizon, and its packs leave the disk."""
    kept, gone = os.urandom(200_000), os.urandom(3_000_000)
    write(store, "main", {"a": kept})
    write(store, "draft", {"b": gone, "a": kept})
    with store.begin() as tx:
        tx.delete("heads/draft")
        tx.commit()
    assert store.gc(grace_us=0).object_count == 0
    write(store, "main", {"c": b"later"})
    forget(store)
    before = sum(f.stat().st_size for f in Path(store.location, "packs").iterdir())
    plan = store.plan_gc()
    assert {row.reason for row in plan.rows} == {"dropped"}
    assert exists(store, kept, gone) == [True, True]
    done = store.apply_gc(plan)
    assert done.rows == plan.rows
    assert exists(store, kept, gone) == [True, False]
    after = sum(f.stat().st_size for f in Path(store.location, "packs").iterdir())
    assert before - after >= 2_900_000
    report = fsck(store)
    assert report.findings == ()
    assert store.plan_gc().is_empty
    assert store.snapshot("main")["a"] == kept


def test_a_run_says_what_keeps_the_rest(store: Store, rng: Random) -> None:
    """Copies are counted once, under what alone keeps them; a run that need not look repeats it."""
    contents = {name: rng.randbytes(50_000) for name in "nohpuy"}
    write(store, "main", {"f": contents["o"]})
    write(store, "main", {"f": contents["n"]})
    write(store, "held", {"h": contents["h"]})
    store.hold(store.resolve("held"), reason="case 7")
    store.pin(store.put(contents["p"]), reason="for later")
    write(store, "undone", {"u": contents["u"]})
    with store.begin() as tx:
        tx.delete("heads/held")
        tx.delete("heads/undone")
        tx.commit()
    store.put(contents["y"])
    plan = store.plan_gc()
    assert plan.is_empty
    found = {row.reason: row.stored_bytes for row in plan.kept}
    for reason in ("newest", "hold", "pin", "history", "horizon", "young"):
        assert 50_000 <= found[reason] <= 60_000, (reason, found)
    lookup = store.objects.lookup
    state = lookup.refresh()
    slots = sum(lookup.footer(pack).count for pack in state.packs.values())
    assert sum(row.copy_count for row in plan.kept) == slots
    assert store.gc().kept == plan.kept == store.gc().kept


def test_a_plan_removes_nothing(store: Store) -> None:
    """`plan_gc` says what would go, and leaves every byte of the folder as it is."""
    store.put(b"loose" * 100)
    write(store, "main", {"a": b"1"})
    before = sorted((p.name, p.stat().st_size) for p in Path(store.location, "packs").iterdir())
    plan = store.plan_gc(grace_us=0)
    assert (plan.object_count, plan.rows[0].reason, plan.rows[0].kind) == (1, "loose", Kind.BLOB)
    assert "1 blob (loose)" in plan.summary
    after = sorted((p.name, p.stat().st_size) for p in Path(store.location, "packs").iterdir())
    assert before == after
    assert exists(store, b"loose" * 100) == [True]


def test_loose_objects_outlive_their_grace_in_runs(store: Store, clock: ManualClock) -> None:
    """A loose object goes once runs have seen it for the grace; a clock that jumps adds a day."""
    store.put(b"loose")
    clock.now_us += 3650 * DAY_US
    for _ in range(14):
        assert store.gc().object_count == 0
        assert exists(store, b"loose") == [True]
        clock.now_us += 3650 * DAY_US
    assert store.gc().object_count == 1
    assert exists(store, b"loose") == [False]


def test_a_clock_that_goes_back_ages_nothing(store: Store, clock: ManualClock) -> None:
    """Runs at ever earlier times add no age."""
    store.put(b"loose")
    for _ in range(40):
        clock.now_us -= 30 * DAY_US
        assert store.gc().object_count == 0


def test_a_put_again_begins_anew(store: Store, clock: ManualClock) -> None:
    """A loose object that is put again late in its grace has all of it before it again."""
    store.put(b"loose")
    for _ in range(14):
        store.gc()
        clock.now_us += DAY_US
    store.put(b"loose")
    for _ in range(14):
        assert store.gc().object_count == 0
        clock.now_us += DAY_US
    assert exists(store, b"loose") == [True]
    store.gc()
    store.gc()
    assert exists(store, b"loose") == [False]


def test_a_young_loose_object_keeps_what_it_names(store: Store, clock: ManualClock) -> None:
    """An old object stays while a young one that nothing leads to names it."""
    with store.objects.batch() as batch:
        old = batch.put(Kind.BLOB, b"old")
    for _ in range(15):
        store.gc(grace_us=20 * DAY_US)
        clock.now_us += DAY_US
    tree = encode_node(0, [b"name"], b"\x01", old, [3])
    with store.objects.batch() as batch:
        batch.put(Kind.TREE, tree.data)
    assert store.gc().object_count == 0
    assert store.objects.has(old)


def test_every_kind_of_root_keeps(store: Store) -> None:
    """Branches, tags, pins, their parents, events of any entry and checkpoints stay whole."""
    big = os.urandom(9 << 20)
    write(store, "main", {"a": b"1"}, message="first")
    write(store, "main", {"a": big})
    write(store, "other", {"x": b"2"})
    with store.begin() as tx:
        tx.event("told", b"e" * 500)
        tx.tag("v1", store.resolve("other"), "annotated")
        tx.delete("heads/other")
        tx.commit()
    blob = store.put(b"pinned" * 50)
    store.pin(blob)
    store.protect("main")
    commits(store, 300)
    forget(store)
    done = store.gc(grace_us=0)
    assert {row.reason for row in done.rows} <= {"dropped"}
    assert fsck(store).findings == ()
    with reopened(store) as other:
        assert other.snapshot("main")["a"] == big
        assert other.snapshot("main~301")["a"] == b"1"
        assert other.snapshot("v1")["x"] == b"2"
        assert other.get(blob) == b"pinned" * 50
        assert [pin.id for pin in other.pins()] == [blob]
        (event,) = other.entry(4).events
        assert event.blob is not None
        assert other.get(event.blob) == b"e" * 500
    write(store, "main", {"a": b"after"})


def test_an_idle_handle_goes_on_behind_a_horizon(store: Store) -> None:
    """A handle that slept while its moment was given up finds the newest, and writes on it."""
    with reopened(store) as sleeper:
        for at in range(80):
            write(store, f"b/{at}", {"n": b"%d" % at})
        assert len(sleeper.branches()) == 80
        for at in range(79):
            with store.begin() as tx:
                tx.delete(f"heads/b/{at}")
                tx.commit()
        forget(store)
        store.gc(grace_us=0)
        assert [ref.short for ref in sleeper.branches()] == ["b/79"]
        write(sleeper, "b/79", {"n": b"again"})
    assert fsck(store).findings == ()


def test_damage_is_not_taken_for_garbage(store: Store) -> None:
    """Where a pack is missing nothing is collected, and the error says what to do."""
    store.put(b"loose")
    write(store, "main", {"a": os.urandom(200_000)})
    for pack in Path(store.location, "packs").glob("*.pack"):
        pack.unlink()
    with reopened(store) as other:
        with pytest.raises(cas.Corrupt):
            other.plan_gc(grace_us=0)
        with pytest.raises(cas.Corrupt):
            other.gc(grace_us=0)
    assert exists(store, b"loose") == [True]


def test_commits_during_a_run_lose_nothing(store: Store) -> None:
    """What a writer names between mark and condemnation stays, with all below it."""
    ids = [store.put(b"%d" % at) for at in range(20)]
    plan = store.plan_gc(grace_us=0)
    assert plan.object_count == 20
    with reopened(store) as other:
        write(other, "main", {"deep/file": b"7"})
        other.put(b"8")
        assert other.get(ids[7]) == b"7"
    done = store.apply_gc(plan)
    assert done.object_count == 18
    assert exists(store, *[b"%d" % at for at in range(20)]) == [at in (7, 8) for at in range(20)]
    assert store.snapshot("main")["deep/file"] == b"7"


def test_a_horizon_at_a_state_without_refs_is_collected_behind(
    tmp_path: Path, clock: ManualClock
) -> None:
    """The empty tree of refs is known without being stored: that a run took it stops no later one.

    A run whose horizon had moved to such a state said that an object is missing, for good.
    """
    create(str(tmp_path / "empty"), clock=clock)
    with build(str(tmp_path / "empty"), clock=clock, thresholds=SMALL) as store:
        write(store, "main", {"a": b"1"})
        write(store, "main", {"a": b"2"})
        with store.begin() as tx:
            tx.delete("heads/main")
            seq = tx.commit().seq
        store.gc(grace_us=0)
        with store.objects.catalog.read() as reader:
            stored = reader.checkpoint(seq)
        assert stored is not None
        assert stored.seq == seq
        assert not store.objects.has(stored.root)
        with store.begin(author="keeper", message="forget") as tx:
            stage_raise(store.core, tx, seq, {})
            tx.commit()
        assert store.gc(grace_us=0).object_count
        assert fsck(store).findings == ()


def test_a_put_beside_a_run_writes_another_copy(store: Store) -> None:
    """A put that is acknowledged while a run is at work is not taken by that run."""
    store.put(b"loose")
    upkeep = store._keeper()
    store.plan_gc(grace_us=0)
    collector = upkeep._collector  # type: ignore[attr-defined]
    mark = collector._mark

    def marked(*words: object, **more: object) -> object:
        made = mark(*words, **more)
        with reopened(store) as other:
            other.put(b"loose")
        return made

    collector._mark = marked
    assert store.gc(grace_us=0).object_count == 0
    assert exists(store, b"loose") == [True]
    collector._mark = mark
    assert store.gc(grace_us=0).object_count == 1


def test_a_transaction_that_relied_on_what_went_is_refused(store: Store) -> None:
    """A commit whose objects rest on what was condemned meanwhile fails whole, with a conflict
    that names the content; put again and begun again, it goes.
    """
    gone = store.put(b"gone")
    with store.begin() as tx:
        tx.branch("main")["f"] = b"gone"
        store.gc(grace_us=0)
        with pytest.raises(Condemned, match="Put it again") as caught:
            tx.commit()
    assert isinstance(caught.value, cas.Conflict)
    assert (caught.value.code, caught.value.id, caught.value.exit_code) == ("condemned", gone, 4)
    assert not store.branches()
    write(store, "main", {"f": b"gone"})
    assert store.snapshot("main")["f"] == b"gone"
    assert fsck(store).findings == ()


@pytest.mark.parametrize("together", [False, True])
def test_what_was_condemned_before_is_simply_put_again(store: Store, together: bool) -> None:
    """A handle that has looked at nothing since takes what went for gone, in its next batch."""
    id = store.put(b"gone")
    with reopened(store) as other:
        assert other.get(id) == b"gone"
        assert store.gc(grace_us=0).object_count == 1
        if together:
            other.put_many([b"gone", b"more"])
        else:
            with other.begin() as tx:
                edit = tx.branch("main")
                edit["f"] = b"gone"
                assert edit.get("f") == b"gone"
                tx.commit()
        assert other.get(id) == b"gone"
    assert store.get(id) == b"gone"
    assert fsck(store).findings == ()


def test_packs_that_move_under_a_run_stop_it_and_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spill that takes packs away while a run marks makes it try again later, and not tell of
    damage.
    """
    cas.init(tmp_path / "store")
    with build(str(tmp_path / "store"), clock=SystemClock(), thresholds=SMALL) as store:
        for at in range(6):
            write(store, "main", {f"d{at}/f": os.urandom(300)})
            store.spill()
        begin = reach.Marks.begin

        def begin_and_move(marks: reach.Marks) -> None:
            begin(marks)
            with build(store.location, clock=SystemClock(), thresholds=SMALL) as other:
                write(other, "main", {"g": os.urandom(300)})
                other.spill()
            store.objects.lookup.refresh()
            assert None in [marks.footer(number) for number in list(marks.packs)]

        monkeypatch.setattr(reach.Marks, "begin", begin_and_move)
        with pytest.raises(Unavailable, match="moved"):
            store.gc(grace_us=0)
        monkeypatch.undo()
        store.gc(grace_us=0)
        assert fsck(store).findings == ()


def test_what_is_missing_is_not_taken_for_absent(store: Store) -> None:
    """`get` of a mapping gives its default for a path that is not there, and for nothing else."""
    store.put(b"gone")
    with store.begin() as tx:
        edit = tx.branch("main")
        edit["f"] = b"gone"
        store.gc(grace_us=0)
        assert edit.get("g") is None
        with pytest.raises(cas.NotFound):
            edit.get("f")
    write(store, "main", {"f": b"kept"})
    snapshot = store.snapshot("main")
    id = digest_blob(b"kept")
    purge(store, cas.BlobId(id), reason="a test")
    assert snapshot.get("g", b"default") == b"default"
    with pytest.raises(Purged):
        snapshot.get("f")


def test_two_runs_at_once(store: Store) -> None:
    """While a run is at work another says so, and does nothing."""
    store.put(b"loose")
    with (
        store.objects.catalog.elect("gc"),
        reopened(store) as other,
        pytest.raises(cas.Unavailable, match="Another gc"),
    ):
        other.gc(grace_us=0)
    assert store.gc(grace_us=0).object_count == 1


def test_a_plan_of_another_handle_is_refused(store: Store) -> None:
    """A plan belongs to the handle that made it."""
    plan = store.plan_gc()
    with reopened(store) as other, pytest.raises(cas.Invalid, match="another handle"):
        other.apply_gc(plan)


def leave(folder: str, *, seal: bool) -> None:
    """Begin a batch in a process that is killed in the middle of it."""
    code = (
        "import os, cas\n"
        f"store = cas.open({folder!r})\n"
        "batch = store.objects.new_batch()\n"
        "for at in range(30): batch.put(1, os.urandom(60_000))\n"
        f"batch.seal() if {seal} else batch._file._drain(everything=True)\n"
        "os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 9


@pytest.mark.parametrize("seal", [True, False])
def test_what_a_killed_writer_left_goes(store: Store, seal: bool) -> None:
    """Session rows and files of dead writers are told by fsck, and are gone after a run."""
    write(store, "main", {"a": b"1"})
    leave(store.location, seal=seal)
    assert {f.code for f in fsck(store).findings} >= {"session-open"}
    plan = store.plan_gc()
    assert (plan.session_count, plan.file_count) == (1, 1)
    done = store.gc()
    assert (done.session_count, done.file_count) == (1, 1)
    assert fsck(store).findings == ()
    assert store.plan_gc().is_empty


def test_a_living_writer_is_left_alone(store: Store) -> None:
    """A batch that is open while a run goes by installs what it wrote."""
    content = os.urandom(90_000)
    with reopened(store) as other:
        batch = other.objects.new_batch()
        id = batch.put(Kind.BLOB, content)
        batch.seal()
        done = store.gc(grace_us=0)
        assert (done.session_count, done.file_count) == (0, 0)
        other.objects.commit(batch)
    assert store.objects.get(id, Kind.BLOB) == content


def test_a_writer_that_looks_back_behind_the_horizon_stops_no_run(store: Store) -> None:
    """What was thinned before it began is not there for it either; what was thinned since is."""
    policy = RetentionPolicy((KeepRule("*", last=1),), HorizonRule(Span(), 0))
    contents = [os.urandom(3_000) for _ in range(6)]
    for content in contents[:3]:
        write(store, "main", {"f": content})
    store.apply(store.plan_retention(policy))
    store.gc(grace_us=0)
    assert exists(store, *contents[:3]) == [False, False, True]
    with reopened(store) as other:
        batch = other.objects.new_batch()
        batch.put(Kind.BLOB, os.urandom(90_000))
        batch.seal()
        for content in contents[3:]:
            write(store, "main", {"f": content})
        store.apply(store.plan_retention(policy))
        store.gc(grace_us=0)
        assert exists(store, *contents) == [False, False, True, True, True, True]
        other.objects.commit(batch)
    store.gc(grace_us=0)
    assert exists(store, *contents) == [False, False, False, False, False, True]


def test_a_plan_says_what_would_go_after_retention(store: Store, rng: Random) -> None:
    """`plan_gc(after=...)` tells what retention and gc take together, and changes nothing."""
    policy = RetentionPolicy((KeepRule("heads/*", last=2),), HorizonRule(Span(), 0))
    contents = [rng.randbytes(3_000) for _ in range(6)]
    for at, content in enumerate(contents):
        write(
            store, "main", {f"d{at}/f": content, f"d{at - 1}/f": None} if at else {"d0/f": content}
        )
    store.hold(store.resolve("main~4"), reason="case 7")
    wanted = store.plan_retention(policy)
    kept = store.gc().kept
    plan = store.plan_gc(after=wanted)
    going = {(row.reason, row.kind): row.object_count for row in plan.rows}
    assert going[("dropped", Kind.BLOB)] == 2
    assert store.plan_gc().is_empty
    done = store.gc()
    assert (done.rows, done.kept) == ((), kept)
    assert exists(store, *contents) == [True] * 6
    store.apply(wanted)
    done = store.apply_gc(plan)
    assert {(row.reason, row.kind): row.object_count for row in done.rows} == going
    assert exists(store, *contents) == [True, True, False, False, True, True]


def test_a_plan_after_retention_minds_who_looks_back(store: Store) -> None:
    """While a writer that began earlier is at work, what retention would give up would not go."""
    policy = RetentionPolicy((KeepRule("heads/*", last=1),), HorizonRule(Span(), 0))
    write(store, "main", {"f": b"1" * 3_000})
    with reopened(store) as other:
        batch = other.objects.new_batch()
        batch.put(Kind.BLOB, os.urandom(90_000))
        batch.seal()
        write(store, "main", {"f": b"2" * 3_000})
        wanted = store.plan_retention(policy)
        assert len(wanted.going) == 1
        assert store.plan_gc(after=wanted).rows == ()
        other.objects.commit(batch)
    assert store.plan_gc(after=wanted).object_count


def test_a_file_of_a_newer_catalog_stays(store: Store, tmp_path: Path) -> None:
    """Where an old catalog was put back, the files that only the newer one knew stay."""
    write(store, "main", {"a": b"1"})
    store.close()
    saved = Path(store.location, "catalog.sqlite").read_bytes()
    with cas.open(store.location, clock=ManualClock(1_800_000_000_000_000)) as later:
        later.put(os.urandom(90_000))
    Path(store.location, "catalog.sqlite").write_bytes(saved)
    with cas.open(store.location) as old:
        assert old.gc(grace_us=0).file_count == 0
        assert [f.code for f in fsck(old).findings] == ["catalog-behind"]


def test_files_of_a_newer_catalog_stay_whatever_was_written_since(store: Store) -> None:
    """An old catalog that was put back and written to, by the same clock: what holds entries that
    it does not know shows that the files are another's, and a rebuild finds them all.
    """
    write(store, "main", {"a": b"1"})
    store.close()
    saved = Path(store.location, "catalog.sqlite").read_bytes()
    with cas.open(store.location) as newer:
        content = os.urandom(90_000)
        newer.put(content)
        write(newer, "main", {"b": b"2"})
        newer.mirror()
    files = set(Path(store.location, "packs").iterdir())
    Path(store.location, "catalog.sqlite").write_bytes(saved)
    with cas.open(store.location) as old:
        write(old, "main", {"c": b"3"})
        assert old.gc(grace_us=0).file_count == 0
        assert files <= set(Path(store.location, "packs").iterdir())


def folder_bytes(store: Store) -> int:
    """Bytes of all pack files."""
    return sum(f.stat().st_size for f in Path(store.location, "packs").iterdir())


def test_a_base_that_nobody_else_needs_goes(
    store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deltas of what goes are stored anew, one whole and the others on it; all read the same."""
    monkeypatch.setattr(bases_room, "GC_BASE_WASTE_MAX", 0)
    contents = versions_of(rng.randbytes(60_000), 6)
    store.put(contents[0])
    put_on(store, contents[0], contents[1:3])
    put_on(store, contents[2], contents[3:])
    for number in (2, 4, 5):
        write(store, "main", {f"v{number}": contents[number]})
    assert store.gc(grace_us=0).moved_bytes > 0
    assert exists(store, *contents) == [False, False, True, False, True, True]
    assert fsck(store).findings == ()
    with reopened(store) as other:
        for number in (2, 4, 5):
            assert other.snapshot("main")[f"v{number}"] == contents[number]
    assert folder_bytes(store) < 1.3 * 60_000
    assert store.plan_gc(grace_us=0).is_empty


def test_many_directories_are_read_ahead(store: Store, rng: Random) -> None:
    """What thousands of directories name stays; one that is damaged stops the run, in whichever
    group it is read, and nothing is collected.
    """
    names = [f"d{at}/f" for at in range(1700)]
    write(store, "main", {name: b"%d" % at for at, name in enumerate(names)})
    loose = rng.randbytes(50_000)
    store.put(loose)
    store.spill()
    assert store.gc(grace_us=0).object_count == 1
    assert exists(store, loose, *[b"%d" % at for at in range(0, 1700, 100)]) == [
        False,
        *[True] * 17,
    ]
    store.put(loose + b"2")
    pack = next(p for p in store.objects.lookup.refresh().packs.values() if p.file is not None)
    footer = store.objects.lookup.footer(pack)
    trees = [slot for slot in footer.slots() if slot.kind == Kind.TREE and slot.codec < 2]
    path = Path(store.location) / "packs" / str(pack.file)
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(rng.choice(trees).payload_offset)
        file.write(b"\xff\xff\xff\xff")
    with reopened(store) as other:
        with pytest.raises(cas.Corrupt):
            other.gc(grace_us=0)
        assert other.has(cas.BlobId(digest_blob(loose + b"2")))


def test_a_mark_reads_few_footers_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where footers do not fit into memory a mark reads each when it begins, and once more to
    trace what leads on, and not at every stage.
    """
    for at in range(12):
        store.put_many([os.urandom(70_000) for _ in range(3)])
        write(store, "main", {f"d{at}/f": os.urandom(80_000)})
    read: list[str] = []

    def counted(bucket: Any, pack: Any, store_id: bytes) -> Any:
        read.append(pack.file)
        return packs_room.read_own_footer(bucket, pack, store_id)

    monkeypatch.setattr(lookup_room, "FOOTER_CACHE_BYTES", 1)
    monkeypatch.setattr(lookup_room, "read_own_footer", counted)
    with reopened(store) as other:
        count = sum(p.file is not None for p in other.objects.lookup.refresh().packs.values())
        assert count >= 12
        other.objects.lookup.find(bytes(32))  # so that the index is there
        read.clear()
        assert other.plan_gc().waiting_count == 36
        assert len(read) <= 2.5 * count


def test_what_was_thinned_goes_at_once(store: Store, rng: Random) -> None:
    """Content that only thinned commits led to waits for no grace; a loose object does."""
    loose = rng.randbytes(20_000)
    store.put(loose)
    for at in range(4):
        write(store, "main", {"f": rng.randbytes(500_000), "g": b"%d" % at})
    before = folder_bytes(store)
    policy = RetentionPolicy((KeepRule("*", last=1),), HorizonRule(Span(), 0))
    store.apply(store.plan_retention(policy))
    done = store.gc()
    assert {(row.reason, row.kind): row.object_count for row in done.rows} == {
        ("dropped", Kind.BLOB): 6,
        ("dropped", Kind.TREE): 3,
    }
    assert (done.waiting_count, done.file_count > 0) == (1, True)
    assert folder_bytes(store) < before - 1_400_000
    assert exists(store, loose) == [True]
    assert fsck(store).findings == ()


def test_a_delta_that_went_with_its_base_is_no_damage(store: Store, rng: Random) -> None:
    """What a copy that was given up is made of may be gone before it; nobody need look for it."""
    base = rng.randbytes(60_000)
    store.put(base)
    kept = rng.randbytes(90_000)
    versions = versions_of(base, 4)[1:]
    put_on(store, base, [*versions, kept])
    write(store, "main", {"kept": kept})
    assert any(pack.file for pack in store.objects.lookup.refresh().packs.values())
    store.gc(grace_us=0)
    assert exists(store, base, *versions, kept) == [False, False, False, False, True]
    assert fsck(store).findings == ()


def test_a_copy_that_went_with_its_dictionary_is_no_damage(
    tmp_path: Path, rng: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a copy that was given up stands beside may be gone before it, as a base may."""
    monkeypatch.setattr(scarce, "GC_WASTE_MIN", 2.0)  # no pack is written anew
    create(str(tmp_path / "s"), clock=ManualClock())
    with build(str(tmp_path / "s"), clock=ManualClock(), thresholds=SMALL) as store:
        kept = rng.randbytes(3_000)
        write(store, "main", {"kept": kept})
        loose = memories_of(rng, ENOUGH)
        store.put_many(loose)
        store.spill()
        beside = [
            pack
            for pack in store.objects.lookup.refresh().packs.values()
            if store.objects.dictionaries.named(pack)
        ]
        assert beside
        store.gc(grace_us=0)
        assert exists(store, kept, *loose) == [True, *[False] * len(loose)]
        assert store.objects.lookup.refresh().packs.keys() & {pack.number for pack in beside}
        with reopened(store) as other:  # which has not loaded the dictionary
            assert fsck(other).findings == ()


def test_a_base_that_costs_next_to_nothing_stays(store: Store, rng: Random) -> None:
    """A content that what stays is a small delta of is not rewritten for the room of a delta."""
    others = [rng.randbytes(60_000) for _ in range(20)]
    contents = versions_of(rng.randbytes(60_000), 2)
    store.put_many([contents[0], *others])
    put_on(store, contents[0], [contents[1]])
    write(store, "main", {"new": contents[1], **{f"o{at}": o for at, o in enumerate(others)}})
    plan = store.plan_gc(grace_us=0)
    assert plan.is_empty
    assert {row.reason: row.copy_count for row in plan.kept}["base"] == 1
    done = store.gc(grace_us=0)
    assert (done.object_count, done.moved_bytes) == (0, 0)
    assert exists(store, *contents) == [True, True]
    assert fsck(store).findings == ()


def test_mostly_wasted_packs_are_written_anew(store: Store) -> None:
    """What lives in a pack that lost most of its objects moves, and the old file goes."""
    kept, gone = os.urandom(100_000), [os.urandom(60_000) for _ in range(40)]
    store.put_many([kept, *gone])
    write(store, "main", {"kept": kept})
    assert folder_bytes(store) > 2_000_000
    done = store.gc(grace_us=0)
    assert done.object_count == 40
    assert folder_bytes(store) < 120_000
    assert store.snapshot("main")["kept"] == kept
    assert fsck(store).findings == ()


def test_packs_to_write_anew_are_chosen_by_waste() -> None:
    """The most wasteful come first, small ones only where there are many, within the bound."""

    def load(number: int, live: int, total: int) -> Load:
        return Load(PackInfo(number, f"{number}", total, None), live, total)

    def numbers(loads: list[Load], bytes_max: int = 10_000, spare_bytes: int = 0) -> list[int]:
        chosen = choose(
            loads, waste_min=0.1, pack_bytes=800, bytes_max=bytes_max, spare_bytes=spare_bytes
        )
        return [pack.number for pack in chosen]

    assert numbers([load(1, 950, 1000), load(2, 500, 1000), load(3, 100, 1000)]) == [3, 2]
    full = [load(n, 90, 90)._replace(slot_count=1 << 16) for n in range(20)]
    assert numbers(full) == []  # small in bytes, and full of tiny objects
    assert numbers([load(1, 950, 1000), load(2, 500, 1000), load(3, 100, 1000)], 400) == [3]
    assert numbers([load(at, 50, 50) for at in range(7)]) == []
    assert numbers([load(at, 50, 50) for at in range(8)]) == list(range(8))
    assert numbers([load(1, 0, 1000)], 0) == [1]
    some = [load(1, 950, 1000), load(2, 700, 1000), load(3, 600, 1000), load(4, 800, 1000)]
    assert numbers(some, spare_bytes=250) == [3, 2]  # what is left wastes 200 and 50
    assert numbers(some, spare_bytes=249) == [3, 2, 4]
    assert numbers([load(1, 400, 1000), load(2, 800, 1000)], spare_bytes=5_000) == [1]


def test_a_run_with_nothing_new_marks_nothing(store: Store, clock: ManualClock) -> None:
    """Where nothing can have become garbage the marking is left out; what is new counts again."""
    write(store, "main", {"a": b"1"})
    store.put(b"loose")
    first = store.gc()
    collector = store._keeper()._collector  # type: ignore[attr-defined]
    marked: list[int] = []
    mark = collector._mark

    def counted(*words: object, **more: object) -> object:
        marked.append(1)
        return mark(*words, **more)

    collector._mark = counted
    write(store, "main", {"b": b"2"})
    assert store.gc().waiting_count == first.waiting_count == 1
    assert not marked
    assert store.gc(grace_us=0).object_count == 1
    assert marked == [1]
    forget(store)
    store.gc()
    assert marked == [1, 1]
    assert fsck(store).findings == ()
