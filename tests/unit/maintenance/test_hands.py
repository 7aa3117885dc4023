"""What people do to a store folder by hand: each is answered as docs/guarantees.md says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import cas
from cas.errors import Corrupt, CorruptCatalog, ObjectNotFound, StorageFailed
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.model.ids import BlobId
from tests.unit.kit import commits, reopened, write


def the_pack(store: Store) -> Path:
    """The one pack file of a store."""
    (file,) = Path(store.location, "packs").glob("*.pack")
    return file


def test_a_pack_removed_under_a_running_process(store: Store) -> None:
    """Who has it open reads on; others say damage, never absence; put back, all is well."""
    content = os.urandom(200_000)
    id = store.put(content)
    write(store, files={"small": b"inline"})
    assert store.get(id) == content
    file = the_pack(store)
    data = file.read_bytes()
    file.unlink()
    assert store.get(id) == content
    with reopened(store) as other:
        with pytest.raises(Corrupt):
            other.get(id)
        assert other.snapshot("main")["small"] == b"inline"
        with pytest.raises(Corrupt):
            other.get(BlobId(bytes(32)))
        codes = {finding.code for finding in fsck(other).findings}
        assert "pack-missing" in codes
        write(other, files={"more": b"goes on"})
    file.write_bytes(data)
    with reopened(store) as other:
        assert other.get(id) == content
        assert fsck(other).ok


def swap(one: Path, other: Path) -> None:
    """Give each of two files the other's name."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("cached", [True, False], ids=["index kept", "index lost"])
@pytest.mark.parametrize("longer", [0, 1000], ids=["same length", "other length"])
def test_two_packs_that_change_names(store: Store, longer: int, cached: bool) -> None:
    """What lies in them is read, or told as damage; never as what is not there. Where they can be
    told apart a repair says what helps, and that brings it all back.
    """
    contents = [os.urandom(200_000), os.urandom(200_000 + longer)]
    ids = [store.put(content) for content in contents]
    write(store, files={"small": b"inline"})
    store.close()
    with cas.open(store.location) as other:
        assert [other.get(id) for id in ids] == contents  # which writes an index
    swap(*Path(store.location, "packs").glob("*.pack"))
    if not cached:
        shutil.rmtree(Path(store.location, "cache"))
    with cas.open(store.location) as other:
        for id, content in zip(ids, contents, strict=True):
            if cached or longer:
                with pytest.raises(Corrupt):
                    other.get(id)
            else:
                assert other.get(id) == content
        assert fsck(other).ok == (not longer)
    if longer:
        with cas.plan_repair(store.location) as plan:
            assert {finding.code for finding in plan.unmended} == {"pack-row"}
            assert any("cas repair --rebuild" in note for note in plan.notes)
        with cas.plan_repair(store.location, rebuild=True, keep_loose=True) as plan:
            plan.apply()
        with cas.open(store.location) as again:
            assert [again.get(id) for id in ids] == contents
            assert fsck(again).ok


@pytest.mark.parametrize("cached", [True, False], ids=["index kept", "index lost"])
def test_packs_of_two_stores_that_change_places(store: Store, tmp_path: Path, cached: bool) -> None:
    """A pack of another store is damage, to a reader and to a check, however like it is."""
    id = store.put(os.urandom(200_000))
    with cas.open(tmp_path / "other", create=True) as stranger:
        stranger.put(os.urandom(200_000))
        theirs = the_pack(stranger)
    store.close()
    swap(the_pack(store), theirs)
    if not cached:
        shutil.rmtree(Path(store.location, "cache"))
    with cas.open(store.location) as again:
        with pytest.raises(Corrupt):
            again.get(id)
        assert "pack-foreign" in {finding.code for finding in fsck(again).findings}
    with cas.plan_repair(store.location) as plan:
        assert {finding.code for finding in plan.unmended} == {"pack-foreign"}


def test_the_folder_of_packs_removed(store: Store) -> None:
    """Every object in a file is told as damage; what lies inline is read."""
    id = store.put(os.urandom(200_000))
    small = store.put(b"small")
    store.close()
    shutil.rmtree(Path(store.location, "packs"))
    with cas.open(store.location) as other:
        assert other.get(small) == b"small"
        with pytest.raises(Corrupt):
            other.get(id)
        assert not fsck(other).ok
        with pytest.raises(StorageFailed, match="cas repair"):
            other.put(os.urandom(200_000))


def test_a_repair_makes_the_folder_of_packs_again(store: Store, tmp_path: Path) -> None:
    """It plans without one, and brings the packs back from who has them."""
    id = store.put(os.urandom(200_000))
    cas.backup(store, tmp_path / "backup")
    store.close()
    shutil.rmtree(Path(store.location, "packs"))
    with cas.plan_repair(store.location) as plan:
        assert any("--from" in note for note in plan.notes)
    assert not Path(store.location, "packs").exists()
    with cas.plan_repair(store.location, sources=[tmp_path / "backup"]) as plan:
        plan.apply()
    with cas.open(store.location) as again:
        assert len(again.get(id)) == 200_000
        assert fsck(again).ok


def test_the_cache_removed_under_a_running_process(store: Store) -> None:
    """It costs time and nothing else."""
    ids = [store.put(b"%d" % at) for at in range(50)]
    store.spill()
    store.get(ids[0])
    shutil.rmtree(Path(store.location, "cache"))
    assert [store.get(id) for id in ids] == [b"%d" % at for at in range(50)]
    commits(store, 3)
    store.spill()
    with reopened(store) as other:
        assert other.get(ids[-1]) == b"49"
        assert fsck(other).ok


@pytest.mark.parametrize("emptied", [True, False])
def test_the_locks_removed_while_nobody_writes(store: Store, emptied: bool) -> None:
    """They are made again."""
    commits(store, 2)
    store.close()
    shutil.rmtree(Path(store.location, "locks"))
    if emptied:
        os.mkdir(Path(store.location, "locks"))
    with cas.open(store.location) as other:
        commits(other, 2)
        assert fsck(other).ok


def test_the_catalog_removed(store: Store) -> None:
    """It is told what is missing and how it comes back; nothing is made over it."""
    commits(store, 2)
    store.mirror()
    store.close()
    for name in os.listdir(store.location):
        if name.startswith("catalog"):
            Path(store.location, name).unlink()
    for how in ({}, {"read_only": True}, {"create": True}):
        with pytest.raises(CorruptCatalog, match="cas repair"):
            cas.open(store.location, **how)
    with pytest.raises(CorruptCatalog, match="cas repair"):
        cas.init(store.location)
    with cas.plan_repair(store.location) as plan:
        plan.apply()
    with cas.open(store.location) as again:
        assert again.snapshot("main")["n"] == b"1"


def test_a_cleared_file_beside_the_catalog_is_an_older_state(store: Store) -> None:
    """A log that was deleted while nobody had the store open takes nothing along: it was empty."""
    commits(store, 3)
    store.close()
    for suffix in ("-wal", "-shm"):
        Path(store.location, "catalog.sqlite" + suffix).unlink(missing_ok=True)
    with cas.open(store.location) as other:
        assert len(list(other.journal())) == 3
        assert fsck(other).ok
        with pytest.raises(ObjectNotFound):
            other.get(BlobId(bytes(32)))
