"""Mending: what is damaged is made good from what there is, and nothing readable is given up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cas
from cas import HorizonRule, KeepRule, RetentionPolicy, Span
from cas.errors import CasError, NotAStore, ObjectNotFound, WasPurged
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.model.ids import BlobId, Kind, digest_of
from tests.unit.kit import commits, reopened, write

BIG = 70_000


def flip(file: Path, at: int) -> None:
    """Flip a bit of a byte."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def packs(store: Store) -> list[Path]:
    """Pack files."""
    return sorted(Path(store.location, "packs").glob("*.pack"))


def readable(location: Path | str, ids: list[BlobId]) -> dict[BlobId, bytes]:
    """What a fresh handle gives of these objects."""
    found = {}
    with cas.open(location, read_only=True) as store:
        for id in ids:
            try:
                found[id] = store.get(id)
            except CasError:
                continue
    return found


def repair(location: Path | str, *sources: Path | str) -> cas.maintenance.repair.plan.RepairPlan:  # type: ignore[name-defined]
    """Plan and apply; the plan."""
    with cas.plan_repair(location, sources=sources) as plan:
        plan.apply()
    return plan


def place_of(store: Store, id: BlobId) -> tuple[Path, int]:
    """Pack file of an object, and where its payload begins."""
    copy = store.objects.find(id)
    assert copy is not None
    assert copy.pack.file is not None
    return Path(store.location, "packs", copy.pack.file), copy.slot.payload_offset


def test_a_damaged_copy_is_replaced_by_a_whole_one(store: Store, tmp_path: Path) -> None:
    """Where another copy is whole, it is written anew and the damaged one given up."""
    content = os.urandom(BIG)
    with reopened(store) as other, store.objects.batch() as one, other.objects.batch() as two:
        id = BlobId(one.put(1, content))
        two.put(1, content)
    store.objects.lookup.refresh()
    file, at = place_of(store, id)
    store.close()
    flip(file, at + 5)
    with cas.open(store.location) as check:
        assert {f.code for f in fsck(check).findings} == {"copy-damaged"}
    repair(store.location)
    with cas.open(store.location) as check:
        assert fsck(check).ok
        assert {f.code for f in fsck(check).findings} <= {"copy-condemned"}
        assert check.get(id) == content
    with cas.plan_repair(store.location) as again:
        assert not again.is_needed


@pytest.mark.parametrize("kind", ["store", "folder", "file"])
def test_a_lost_object_comes_from_elsewhere(store: Store, tmp_path: Path, kind: str) -> None:
    """From another store, a folder that has the file, or the file itself; until then it is lost."""
    content = os.urandom(BIG)
    write(store, files={"data.bin": content, "note": b"n"})
    id = BlobId(store.snapshot("main").entry("data.bin").id)
    file, at = place_of(store, id)
    store.close()
    if kind == "store":
        source = tmp_path / "other"
        with cas.open(source, create=True) as other:
            other.put(content)
    else:
        source = tmp_path / "folder" / "below"
        source.mkdir(parents=True)
        (source / "renamed").write_bytes(content)
        source = source.parent if kind == "folder" else source / "renamed"
    flip(file, at + 100)
    with cas.plan_repair(store.location) as plan:
        assert plan.lost == (id,)
        assert not plan.is_needed
    plan = repair(store.location, source)
    assert [action.subject for action in plan.actions] == [id.hex()]
    assert not plan.lost
    with cas.open(store.location) as again:
        assert again.snapshot("main")["data.bin"] == content
        assert fsck(again).ok


def test_a_chunk_of_a_large_file_comes_from_the_file(store: Store, tmp_path: Path) -> None:
    """A damaged chunk is found in a file that holds it in the middle."""
    content = os.urandom(10 << 20)
    write(store, files={"big": content})
    id = BlobId(store.snapshot("main").entry("big").id)
    (file,) = packs(store)
    store.close()
    flip(file, 3 << 20)
    assert readable(store.location, [id]) == {}
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "big.copy").write_bytes(content)
    repair(store.location, tmp_path / "source")
    with cas.open(store.location) as again:
        assert again.snapshot("main")["big"] == content
        assert fsck(again).ok


def test_a_missing_pack_comes_back_from_a_copy(store: Store, tmp_path: Path) -> None:
    """A copy of the store has the file of that name: it is brought back whole."""
    write(store, files={f"f{at}": os.urandom(BIG) for at in range(3)})
    files = dict(store.snapshot("main"))
    store.close()
    copy = Path(shutil.copytree(store.location, tmp_path / "copy"))
    (file,) = packs(store)
    file.unlink()
    with cas.plan_repair(store.location) as plan:
        assert any("--from" in note for note in plan.notes)
        assert not plan.is_needed
    plan = repair(store.location, copy)
    assert [action.kind for action in plan.actions] == ["bring-back-pack"]
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == files
        assert fsck(again).findings == ()


@pytest.mark.parametrize("form", ["backup", "folder of packs"])
def test_a_missing_pack_comes_back_from_a_backup(store: Store, tmp_path: Path, form: str) -> None:
    """A backup has it under its name, and so has a folder into which somebody has copied it."""
    write(store, files={f"f{at}": os.urandom(BIG) for at in range(3)})
    files = dict(store.snapshot("main"))
    cas.backup(store, tmp_path / "backup")
    store.close()
    (file,) = packs(store)
    file.unlink()
    source = tmp_path / "backup"
    plan = repair(store.location, source if form == "backup" else source / "packs")
    assert [action.kind for action in plan.actions] == ["bring-back-pack"]
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == files
        assert fsck(again).findings == ()


def test_objects_come_from_a_backup_that_has_them_in_other_packs(
    store: Store, tmp_path: Path
) -> None:
    """What was young when it was backed up lies in an increment there, and is found by its id."""
    commits(store, 5)
    files = dict(store.snapshot("main"))
    cas.backup(store, tmp_path / "backup")
    store.spill()
    (file,) = packs(store)
    store.close()
    file.unlink()
    plan = repair(store.location, tmp_path / "backup")
    assert not plan.lost
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == files
        assert len(list(again.log("main"))) == 5
    with cas.plan_repair(store.location) as plan:
        assert [finding.code for finding in plan.unmended] == ["pack-missing"]
        assert any("cas repair --rebuild" in note for note in plan.notes)
    with cas.plan_repair(store.location, rebuild=True) as plan:
        plan.apply()
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == files
        assert fsck(again).ok


def test_objects_of_a_missing_pack_come_from_any_store(store: Store, tmp_path: Path) -> None:
    """Another store that has the content, packed otherwise: trees and what is below them."""
    write(store, files={f"d{at % 3}/f{at}": os.urandom(BIG) for at in range(6)})
    files = dict(store.snapshot("main"))
    other = tmp_path / "other"
    with cas.open(other, create=True) as target:
        report = None
        store.close()
        report = cas.salvage(store.location, tmp_path / "salvaged")
        assert report.ok
        target.put(b"unrelated")
    (file,) = packs(store)
    file.unlink()
    repair(store.location, other, tmp_path / "salvaged")
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == files


@pytest.mark.parametrize("at", [-1, -20, -60, 3, 40])
def test_a_pack_that_readers_refuse_is_gathered_anew(store: Store, at: int) -> None:
    """Header or footer damaged: every record comes back in a new pack, and fsck is content."""
    commits(store, 4)
    ids = [store.put(b"%d" % n) for n in range(20)]
    store.spill()
    files = [dict(store.snapshot(f"main~{back}")) for back in range(4)]
    store.close()
    (file,) = packs(store)
    flip(file, at)
    with cas.open(store.location) as bad:
        assert not fsck(bad).ok
    plan = repair(store.location)
    assert [action.kind for action in plan.actions] == ["rescue-pack"]
    with cas.open(store.location) as again:
        assert fsck(again).ok
        assert [dict(again.snapshot(f"main~{back}")) for back in range(4)] == files
        assert [again.get(id) for id in ids] == [b"%d" % n for n in range(20)]
    with cas.plan_repair(store.location) as plan:
        assert not plan.is_needed


def test_a_damaged_structure_is_not_gathered(store: Store) -> None:
    """The payload of a node is damaged and the footer is gone: what it hashes to now is no object,
    and neither the repair nor a rebuild after it takes it for one.
    """
    commits(store, 3)
    write(store, files={"a": b"1", "b": b"2"})
    tree = store.commit("main").tree
    store.spill()
    (copy,) = store.objects.lookup.copies(tree)
    store.close()
    (file,) = packs(store)
    data = bytearray(file.read_bytes())
    start = copy.slot.payload_offset
    end = start + copy.slot.stored_bytes
    data[start + 1] ^= 0x40  # the level becomes a byte string
    bogus = digest_of(Kind.TREE, bytes(data[start:end]))
    file.write_bytes(data[:-20])
    repair(store.location)
    with cas.open(store.location) as again:
        assert not again.objects.lookup.exists(bogus)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{store.location}/catalog.sqlite{suffix}").unlink(missing_ok=True)
    with cas.plan_repair(store.location, accept_loss=True, keep_loose=True) as plan:
        plan.apply()


@pytest.mark.parametrize("cut", [1, 60, 200])
def test_what_only_the_index_leads_to_is_kept(store: Store, cut: int) -> None:
    """The footer's end is gone and a record's header is damaged: the index and the slot, which
    stands behind the body, still lead to its content, and so they do after the repair.
    """
    contents = [os.urandom(500) for _ in range(30)]
    ids = [store.put(content) for content in contents]
    # Slots stand sorted by id: the cut at the end must spare the one that is to be found.
    kept = min(ids)
    store.spill()
    (copy,) = store.objects.lookup.copies(kept)
    store.close()
    (file,) = packs(store)
    data = bytearray(file.read_bytes())
    data[copy.slot.offset + 9] ^= 1
    file.write_bytes(data[:-cut])
    before = readable(Path(store.location), ids)
    assert before[kept] == contents[ids.index(kept)]
    repair(store.location)
    assert before.items() <= readable(Path(store.location), ids).items()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_repair_never_loses_what_was_readable(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any bits flipped, any ends cut: what a fresh handle read before, it reads after, the same;
    a second repair finds nothing to do that the first did not; and once the catalog is lost as
    well, a rebuild still gives it.
    """
    place = tmp_path_factory.mktemp("mend") / "store"
    with cas.open(place, create=True) as store:
        ids = [store.put(os.urandom(50 + at * 37)) for at in range(12)]
        base = b"".join(b"%d line\n" % n for n in range(400))
        for at in range(4):
            write(store, files={"t": base + b"%d" % at, f"d/{at}": os.urandom(300)})
        with store.begin() as tx:
            for number, id in enumerate(ids):
                tx.branch("main")[f"all/{number}"] = store.get(id)
            tx.commit()
        store.spill()
        ids += [BlobId(e.id) for _p, e in store.snapshot("main").walk()]
        store.put_many([os.urandom(BIG), os.urandom(BIG)])
        store.mirror()
    for _ in range(data.draw(st.integers(1, 3))):
        by_size = sorted(Path(place, "packs").glob("*.pack"), key=lambda f: f.stat().st_size)
        file = by_size[data.draw(st.integers(0, 1)) % len(by_size)]
        content = bytearray(file.read_bytes())
        where, bit = data.draw(st.integers(0, (1 << 20) - 1)), data.draw(st.integers(0, 8))
        if bit < 8:
            # From the front or from the back: both ends are where the structure is.
            at = where % len(content)
            content[at if where & 1 else -1 - at] ^= 1 << bit
        else:
            del content[len(content) - 1 - where % 200 :]
        file.write_bytes(content)
    before = readable(place, ids)
    with cas.plan_repair(place) as plan:
        plan.apply()
    after = readable(place, ids)
    assert before.items() <= after.items()
    with cas.plan_repair(place) as plan:
        plan.apply()
    assert after.items() <= readable(place, ids).items()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{place}/catalog.sqlite{suffix}").unlink(missing_ok=True)
    with cas.plan_repair(place, accept_loss=True, keep_loose=True) as plan:
        if not plan.tips and not plan.blocked:
            plan.apply()
            assert after.items() <= readable(place, ids).items()


def test_salvage_takes_what_can_be_read(store: Store, tmp_path: Path) -> None:
    """Whole refs stand as they were; of another the readable files; the rest is named."""
    write(store, "good", {"a": b"1"})
    lost = os.urandom(BIG)
    write(store, "bad", {"lost.bin": lost, "kept": os.urandom(BIG), "d/e": b"deep"})
    file, at = place_of(store, BlobId(store.snapshot("bad").entry("lost.bin").id))
    kept = store.snapshot("bad")["kept"]
    good = store.resolve("good")
    store.close()
    flip(file, at + 7)
    report = cas.salvage(store.location, tmp_path / "new")
    assert not report.ok
    assert report.refs == ("good",)
    assert report.partial == ("bad",)
    assert report.lost_paths == ("bad:lost.bin",)
    with cas.open(tmp_path / "new") as new:
        assert new.resolve("good") == good
        assert dict(new.snapshot("salvaged/bad")) == {"kept": kept, "d/e": b"deep"}
        assert fsck(new).ok
        with pytest.raises(ObjectNotFound):
            new.get(BlobId(bytes(32)))


def test_salvage_tells_what_was_given_up_on_purpose(store: Store, tmp_path: Path) -> None:
    """What was purged or thinned is so in the new store too, and is not lost there."""
    for step in range(6):
        write(store, "main", {"plan": b"%d" % step, f"n{step}": b"x" * step})
    write(store, "main", {"key": b"hunter2"})
    leak = BlobId(store.snapshot("main").entry("key").id)
    cas.purge(store, leak, reason="credentials", author="security")
    write(store, "main", {"plan": b"last"})
    policy = RetentionPolicy((KeepRule("heads/*", last=2),), HorizonRule(Span(), entries=2))
    store.apply(store.plan_retention(policy), author="keeper")
    store.gc(grace_us=0)
    old = store.resolve("main~5")
    gone = digest_of(Kind.BLOB, b"2")
    ids = [id for id, _commit in store.log("main")]
    told = [store.view().thinning(id) for id in ids]
    assert told[5] is not None
    store.close()
    report = cas.salvage(store.location, tmp_path / "new")
    assert report.ok
    assert report.refs == ("main",)
    with cas.open(tmp_path / "new") as new:
        assert [new.view().thinning(id) for id in ids] == told
        with pytest.raises(cas.Gone, match="keeps last 2"):
            new.snapshot(old)
        assert not new.has(BlobId(gone))
        with pytest.raises(cas.Gone, match="by security: credentials"):
            new.snapshot("main")["key"]
        with pytest.raises(WasPurged):
            new.put(b"hunter2")
        assert fsck(new).ok


def test_salvage_never_goes_into_a_store_that_is_there(store: Store, tmp_path: Path) -> None:
    """A target that is taken is refused: branches of another store would be moved."""
    write(store, "main", {"a": b"1"})
    with cas.open(tmp_path / "other", create=True) as other:
        write(other, "main", {"precious": b"2"})
    store.close()
    with pytest.raises(NotAStore, match="not an empty folder"):
        cas.salvage(store.location, tmp_path / "other")
    with cas.open(tmp_path / "other") as other:
        assert dict(other.snapshot("main")) == {"precious": b"2"}
