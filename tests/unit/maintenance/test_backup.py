"""Backups: consistent, incremental, gone on with, verified; and the way back from them."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cas
from cas.catalog.place import ancestor
from cas.clock import SystemClock
from cas.errors import (
    BackupMismatch,
    BackupNotFound,
    Busy,
    CorruptBackup,
    CorruptPack,
    EntryNotFound,
    Gone,
    Invalid,
    MissingPack,
    NewerFormat,
    NotABackup,
    NotAStore,
    ObjectNotFound,
    StorageFailed,
    StorageFull,
)
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.maintenance.backups import following, make
from cas.maintenance.backups import vault as vaults
from cas.maintenance.findings import Progress
from cas.maintenance.fsck.check import fsck
from cas.model.encoding import decode, encode
from cas.model.ids import BlobId, ObjectId
from cas.storage.codec import DELTA
from cas.testing.stores import SMALL, build, scratch
from tests.unit.kit import FailingReads, commits, reopened, tamper, write
from tests.unit.objects.test_deltas import versions

LARGE = 70_000
"""Bytes of an object that does not compress and is too long to lie inline."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where backups go; nothing is there yet."""
    return tmp_path / "backup"


def files_of(store: Store, seq: int | None = None) -> dict[str, dict[str, bytes]]:
    """Everything that the refs of a store name after an entry."""
    view = store.view() if seq is None else store.at(seq)
    refs = view.branches() + view.tags()
    return {ref.name: dict(view.snapshot(ref.target).items()) for ref in refs}


def restored(place: Path, **how: int) -> Store:
    """A store that was made of a backup, checked to the last byte."""
    target = place.with_name(f"restored-{len(list(place.parent.iterdir()))}")
    cas.restore_store(place, target, **how)
    store = cas.open(target)
    assert fsck(store).ok
    return store


def condemn(store: Store, ids: set[bytes]) -> None:
    """Give objects up as the collector does: all copies of them, in one transaction."""
    objects = store.objects
    state = objects.lookup.refresh()
    with objects.catalog.write() as writer:
        head = writer.head()
        for number, pack in state.packs.items():
            footer = objects.lookup.footer(pack)
            bits = bytearray(state.vectors.get(number) or bytes((footer.count + 7) // 8))
            for slot, id in enumerate(footer.ids()):
                if id in ids:
                    bits[slot >> 3] |= 1 << (slot & 7)
            if any(bits):
                writer.set_vector(number, head.version + 1, bytes(bits))
        writer.record_removal(head.version + 1, head.condemn_seq + 1)
    objects.lookup.refresh()


def big(store: Store, count: int = 3) -> list[BlobId]:
    """Objects that make up a pack file of their own."""
    with store.batch() as batch:
        return [batch.put(os.urandom(LARGE)) for _ in range(count)]


def flip(file: Path, at: int) -> None:
    """Turn one bit of a file."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def flip_object(store: Store, id: ObjectId) -> Path:
    """Damage the payload of an object in its pack file; the file."""
    copy = store.objects.lookup.find(id)
    assert copy is not None
    assert copy.pack.file is not None
    file = Path(store.location, "packs", copy.pack.file)
    flip(file, copy.slot.payload_offset + copy.slot.stored_bytes // 2)
    return file


# -- what comes back -------------------------------------------------------------------------


def test_a_backup_gives_back_the_store(store: Store, place: Path) -> None:
    """Refs, files, loose objects and the journal are those of the original, hash for hash."""
    loose = store.put(b"loose")
    ids = big(store)
    commits(store, 5)
    write(store, "draft/one", {"a/b": b"x" * 300_000})
    done = cas.backup(store, place)
    assert (done.seq, done.written, done.new_entries) == (6, True, 6)
    with restored(place) as other:
        assert files_of(other) == files_of(store)
        assert list(other.journal()) == list(store.journal())
        assert other.get(loose) == b"loose"
        assert all(other.get(id) == store.get(id) for id in ids)
        assert other.id == store.id
        commits(other, 2)


def test_a_store_backs_itself_up(store: Store, place: Path) -> None:
    """`store.backup` is `cas.backup`; a handle in memory can be backed up too."""
    commits(store, 2)
    done = store.backup(place)
    assert (done.seq, done.written, done.place) == (2, True, str(place))
    assert not cas.backup(store, place).written
    with cas.open(":memory:") as memory:
        write(memory, files={"n": b"1"})
        memory.backup(place.with_name("memory"))
        with restored(place.with_name("memory")) as other:
            assert files_of(other) == files_of(memory)


def test_an_empty_store_can_be_backed_up(store: Store, place: Path) -> None:
    """A store without an entry comes back as one without an entry."""
    assert cas.backup(store, place).seq == 0
    with restored(place) as other:
        assert other.view().refs() == []
        commits(other, 1)


def test_only_what_is_new_is_copied(store: Store, place: Path) -> None:
    """The second backup brings the new entries and packs, the third, nothing; none writes more."""
    big(store)
    commits(store, 50)
    first = cas.backup(store, place)
    assert (first.increment, first.new_packs, first.new_entries) == (1, 1, 50)
    commits(store, 2)
    big(store, 1)
    second = cas.backup(store, place)
    assert (second.increment, second.new_packs, second.new_entries) == (2, 1, 2)
    assert second.new_bytes < LARGE + 10_000
    third = cas.backup(store, place)
    assert (third.increment, third.written, third.new_bytes) == (2, False, 0)
    assert len(list((place / "increments").iterdir())) == 2


def test_every_entry_of_a_chain_can_be_restored(store: Store, place: Path) -> None:
    """Any position inside the chain, also after a spill has replaced packs meanwhile."""
    expected = {0: files_of(store)}
    for round in range(3):
        for number in range(4):
            entry = write(store, f"b{number % 2}", {f"f{number}": b"%d" % (10 * round + number)})
            expected[entry.seq] = files_of(store)
        cas.backup(store, place)
        store.spill()
    for seq, files in expected.items():
        with restored(place, seq=seq) as other:
            assert files_of(other) == files
            assert other.view().seq == seq
            assert [entry.seq for entry in other.journal()] == list(range(1, seq + 1))
    with pytest.raises(EntryNotFound):
        cas.restore_store(place, place.with_name("none"), seq=13)
    assert not place.with_name("none").exists()


def test_a_time_names_the_last_entry_at_or_before_it(store: Store, place: Path) -> None:
    """`time_us` is looked up as `store.at` does; a time before the first entry is refused."""
    entries = commits(store, 5)
    cas.backup(store, place)
    for entry in entries:
        with restored(place, time_us=entry.time_us) as other:
            assert other.view().seq == entry.seq
    with pytest.raises(EntryNotFound):
        cas.restore_store(place, place.with_name("none"), time_us=entries[0].time_us - 1)
    with pytest.raises(Invalid):
        cas.restore_store(place, place.with_name("none"), seq=1, time_us=1)


def test_what_is_restored_is_a_fork(store: Store, place: Path) -> None:
    """It has a lineage of its own and tells where it began; the original is left as it is."""
    commits(store, 3)
    cas.backup(store, place)
    before = store.objects.meta
    with restored(place, seq=2) as other:
        meta = other.objects.meta
        assert meta.store_id == before.store_id
        assert meta.lineage_id != before.lineage_id
        assert meta.ancestry == ancestor(before.lineage_id, 2)
        write(other, files={"n": b"other"})
        with restored(place) as third:
            assert third.objects.meta.lineage_id not in (meta.lineage_id, before.lineage_id)
    commits(store, 1)


def test_a_restored_store_goes_on_in_the_same_backup(store: Store, place: Path) -> None:
    """After a loss the store that was restored goes on with the chain; the lost one, should it
    come back, is refused there, and positions of both halves can be restored.
    """
    commits(store, 3)
    big(store)
    cas.backup(store, place)
    commits(store, 1)
    with restored(place) as other:
        entry = write(other, files={"n": b"after the loss"})
        done = cas.backup(other, place)
        assert (done.increment, done.seq, done.new_packs) == (2, entry.seq, 0)
        with pytest.raises(BackupMismatch) as caught:
            cas.backup(store, place)
        assert caught.value.reason == "lineage"
        with restored(place) as third:
            assert files_of(third) == files_of(other)
            assert len(third.objects.meta.ancestry) == 48
        with restored(place, seq=2) as third:
            assert files_of(third) == files_of(store, 2)


# -- what was given up -----------------------------------------------------------------------


def test_what_was_condemned_does_not_come_back(store: Store, place: Path) -> None:
    """An object that was given up before a backup is in no store made of that one, though its
    bytes lie in a pack; older positions still have it.
    """
    gone, kept = big(store, 2)
    small = store.put(b"small and gone")
    commits(store, 2)
    cas.backup(store, place)
    condemn(store, {gone, small})
    write(store, files={"later": b"x"})
    cas.backup(store, place)
    with restored(place) as other:
        assert other.get(kept) == store.get(kept)
        for id in (gone, small):
            assert not other.has(id)
            with pytest.raises(ObjectNotFound):
                other.get(id)
        again = other.put(b"small and gone")
        assert other.get(again) == b"small and gone"
    with restored(place, seq=2) as older:
        assert older.has(gone)
        assert older.get(small) == b"small and gone"


def test_vectors_and_versions_are_those_of_the_state(store: Store, place: Path) -> None:
    """Pack numbers, deletion vectors and sequences of removals come back as they were."""
    ids = big(store, 4)
    condemn(store, {ids[0]})
    commits(store, 3)
    store.spill()
    condemn(store, {ids[1]})
    cas.backup(store, place)
    with restored(place) as other:
        mine, its = store.objects.lookup.refresh(), other.objects.lookup.refresh()
        assert (mine.version, mine.removal_version, mine.condemn_seq) == (
            its.version,
            its.removal_version,
            its.condemn_seq,
        )
        assert {n: p.file for n, p in mine.packs.items()} == {
            n: p.file for n, p in its.packs.items()
        }
        assert dict(mine.vectors) == dict(its.vectors)
        assert any(map(any, its.vectors.values()))


def test_a_position_whose_objects_were_given_up_is_gone(store: Store, place: Path) -> None:
    """Entries between two backups that the horizon has passed in between: the refusal says which
    entry can be had, and nothing is made. Entries behind the horizon can be had, and what is made
    of them has that horizon.
    """
    commits(store, 1)
    cas.backup(store, place)
    entry = write(store, "draft", {"only": b"here"})
    lost = store.snapshot("draft").entry("only")
    assert lost is not None
    with store.begin() as tx:
        tx.delete("heads/draft")
        tx.commit()
    draft = store.at(entry.seq).resolve("draft")
    tree = store.commit(draft).tree
    with store.begin() as tx:
        stage_raise(store.core, tx, 3, {})
        tx.commit()
    write(store, "main", {"n": b"later"})
    condemn(store, {draft, tree, lost.id})
    cas.backup(store, place)
    with restored(place) as other:
        assert files_of(other) == files_of(store)
    target = place.with_name("none")
    with pytest.raises(Gone) as caught:
        cas.restore_store(place, target, seq=entry.seq)
    assert caught.value.boundary == 3
    assert not target.exists()
    with restored(place, seq=3) as other:
        assert other.snapshot("main")["n"] == b"0"
        assert (other.view().seq, other.view().horizon()) == (4, 3)
        assert "restored from a backup" in other.entry(4).message
    with restored(place, seq=1) as other:
        assert files_of(other) == files_of(store, 3)
    assert cas.prove(place)[0].ok
    assert cas.prove(place, seq=1)[0].ok
    assert cas.prove(place, seq=3)[0].ok


def test_a_pack_that_goes_away_meanwhile_is_no_loss(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spill that removes packs between the look and the copying: the look is taken again."""
    big(store)
    big(store)
    commits(store, 3)
    ids = big(store)
    looked = 0

    taken = make.capture

    def capture(*args: object) -> object:
        nonlocal looked
        looked += 1
        found = taken(*args)  # type: ignore[arg-type]
        if looked == 1:
            assert store.spill() > 0
        return found

    monkeypatch.setattr(make, "capture", capture)
    done = cas.backup(store, place)
    assert looked == 2
    assert done.new_packs == 1
    with restored(place) as other:
        assert all(other.get(id) == store.get(id) for id in ids)
        assert files_of(other) == files_of(store)


def test_packs_that_always_go_away_end_the_backup(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bounded number of looks, then `busy`; nothing is recorded."""
    taken = make.capture

    def capture(*args: object) -> object:
        big(store)
        big(store)
        found = taken(*args)  # type: ignore[arg-type]
        store.spill()
        return found

    monkeypatch.setattr(make, "capture", capture)
    with pytest.raises(Busy):
        cas.backup(store, place)
    monkeypatch.undo()
    with pytest.raises(BackupNotFound):
        cas.restore_store(place, place.with_name("none"))
    assert cas.backup(store, place).written


# -- other histories -------------------------------------------------------------------------


def test_another_store_is_refused(store: Store, place: Path, tmp_path: Path) -> None:
    """A backup belongs to one store."""
    cas.backup(store, place)
    with (
        cas.open(tmp_path / "other", create=True) as other,
        pytest.raises(BackupMismatch) as caught,
    ):
        cas.backup(other, place)
    assert caught.value.reason == "store"
    assert str(place) in caught.value.message


def test_a_store_that_was_put_back_is_refused(store: Store, place: Path, tmp_path: Path) -> None:
    """An older catalog, with or without other entries since, does not go on with the chain."""
    commits(store, 2)
    older = Path(shutil.copytree(store.location, tmp_path / "older"))
    cas.adopt(older, fork=False)
    commits(store, 2)
    cas.backup(store, place)
    with cas.open(older) as other:
        with pytest.raises(BackupMismatch) as caught:
            cas.backup(other, place)
        assert caught.value.reason == "older"
        commits(other, 3)
        with pytest.raises(BackupMismatch) as caught:
            cas.backup(other, place)
        assert caught.value.reason == "history"
    commits(store, 1)
    assert cas.backup(store, place).written


def test_packs_put_back_without_entries_are_noticed(
    store: Store, place: Path, tmp_path: Path
) -> None:
    """Equal journals do not hide that numbers of packs mean other packs."""
    commits(store, 2)
    older = Path(shutil.copytree(store.location, tmp_path / "older"))
    cas.adopt(older, fork=False)
    store.put(b"one")
    store.put(b"two")
    cas.backup(store, place)
    with cas.open(older) as other:
        other.put(b"three")
        with pytest.raises(BackupMismatch) as caught:
            cas.backup(other, place)
        assert caught.value.reason == "older"
        other.put(b"four")
        other.put(b"five")
        with pytest.raises(BackupMismatch) as caught:
            cas.backup(other, place)
        assert caught.value.reason == "packs"


def test_a_fork_of_the_same_packs_is_told_apart(store: Store, place: Path, tmp_path: Path) -> None:
    """A fork may go on with the chain of its original; its packs are never taken for those of
    equal numbers there.
    """
    commits(store, 2)
    copy = Path(shutil.copytree(store.location, tmp_path / "fork"))
    cas.adopt(copy, fork=True)
    one = store.put(b"of the original")
    cas.backup(store, place)
    with cas.open(copy) as fork:
        other = fork.put(b"of the fork")
        cas.backup(fork, place)
        with restored(place) as third:
            assert third.get(other) == b"of the fork"
            assert not third.has(one)


def test_one_backup_at_a_time(store: Store, place: Path) -> None:
    """While one is written there, another is refused and waits for nothing."""
    with (
        vaults.open_vault(str(place), store.objects.clock, write=True),
        pytest.raises(Busy),
    ):
        cas.backup(store, place)
    assert cas.backup(store, place).written


# -- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_a_backup_that_lacks_an_increment_does_not_go_on(
    store: Store, place: Path, tmp_path: Path, number: int
) -> None:
    """Nothing that is behind the gap can be had, so the backup is not told as good; it says what
    to do, and both of that work.
    """
    for step in range(3):
        write(store, "main", {"a": b"%d" % step})
        store.backup(place)
    (place / "increments" / vaults.increment_file(number)).unlink()
    for _ in range(2):
        with pytest.raises(CorruptBackup, match=f"increment {number} .* to another folder"):
            store.backup(place)
        write(store, "main", {"b": b"new"})
    store.backup(tmp_path / "other")
    report, _file = cas.prove(tmp_path / "other")
    assert report.ok
    if number == 2:
        cas.restore_store(place, tmp_path / "old", accept_damage=True)
        with cas.open(tmp_path / "old") as old:
            assert old.snapshot("main")["a"] == b"0"


def test_places_that_are_no_backup_are_refused(store: Store, tmp_path: Path) -> None:
    """A store, a folder of something else, a file, a folder inside the store."""
    commits(store, 1)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter").write_text("dear")
    file = tmp_path / "file"
    file.write_bytes(b"")
    for other in (foreign, file, tmp_path / "other"):
        if other.name == "other":
            cas.init(other)
        with pytest.raises(NotABackup):
            cas.backup(store, other)
    with pytest.raises(Invalid):
        cas.backup(store, Path(store.location) / "backup")
    with pytest.raises(Invalid):
        cas.backup(store, tmp_path)
    for missing in (tmp_path / "missing", tmp_path / "empty"):
        if missing.name == "empty":
            missing.mkdir()
        with pytest.raises(BackupNotFound):
            cas.restore_store(missing, tmp_path / "none")
        with pytest.raises(BackupNotFound):
            cas.prove(missing)


def test_a_restore_goes_into_an_empty_folder_only(store: Store, place: Path) -> None:
    """What stands in a folder is never touched; an empty one will do."""
    commits(store, 1)
    cas.backup(store, place)
    taken = place.with_name("taken")
    taken.mkdir()
    (taken / "letter").write_text("dear")
    for target in (taken, taken / "letter", Path(store.location)):
        with pytest.raises(NotAStore):
            cas.restore_store(place, target)
    assert [entry.name for entry in taken.iterdir()] == ["letter"]
    with pytest.raises(Invalid):
        cas.restore_store(place, place / "inside")
    empty = place.with_name("empty")
    empty.mkdir()
    done = cas.restore_store(place, empty)
    assert done.target == str(empty)
    with cas.open(empty) as other:
        assert files_of(other) == files_of(store)
    assert not [entry for entry in place.parent.iterdir() if entry.name.endswith(".new")]


def test_a_read_only_handle_can_back_up(store: Store, place: Path) -> None:
    """A backup writes nothing into the store, and takes no turn at its gate."""
    commits(store, 2)
    with reopened(store, read_only=True) as other:
        cas.backup(other, place)
        with store.objects.catalog.write():
            pass
    with restored(place) as third:
        assert files_of(third) == files_of(store)


def test_a_newer_increment_is_refused_by_name(store: Store, place: Path) -> None:
    """An index of a later version says so, and is not called damaged."""
    commits(store, 1)
    cas.backup(store, place)
    with vaults.open_vault(str(place), store.objects.clock) as vault:
        found = vault.newest()
        assert found is not None
        fields = decode(found[1].encode())
    with pytest.raises(NewerFormat):
        vaults.decode_index(encode([2, *fields[1:]]), "it")
    with pytest.raises(CorruptBackup):
        vaults.decode_index(encode(fields[:-1]), "it")


# -- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spilled", [False, True])
def test_a_damaged_object_is_told_and_not_recorded(
    store: Store, place: Path, spilled: bool
) -> None:
    """Whether the pack states a digest of its body or not: nothing is recorded; where the damage
    is accepted the report and the increment name the objects, and the rest comes back.
    """
    ids = big(store)
    commits(store, 2)
    if spilled:
        store.spill()
    cas.backup(store, place.with_name("before"))
    flip_object(store, ids[1])
    with reopened(store) as other:
        with pytest.raises(CorruptPack) as caught:
            cas.backup(other, place)
        assert ids[1].hex() in caught.value.message
        with pytest.raises(BackupNotFound):
            cas.restore_store(place, place.with_name("none"))
        done = cas.backup(other, place, accept_damage=True)
        assert [damage.ids for damage in done.damage] == [(ids[1],)]
        assert done.damaged == (ids[1],)
        again = cas.backup(other, place, accept_damage=True)
        assert (again.written, again.damage, again.damaged) == (False, (), (ids[1],))
        with pytest.raises(CorruptBackup):
            cas.restore_store(place, place.with_name("none"))
        cas.restore_store(place, place.with_name("rest"), accept_damage=True)
    report, _file = cas.prove(place)
    assert not report.ok
    assert report.known == (ids[1],)
    assert any(ids[1].hex() in fault.message for fault in report.faults)
    with cas.open(place.with_name("rest")) as rest:
        assert rest.get(ids[0]) == store.get(ids[0])
        assert files_of(rest) == files_of(store)
    # A backup from before the damage is as good as it was.
    with restored(place.with_name("before")) as whole:
        assert len(whole.get(ids[1])) == LARGE


def test_a_repaired_store_ends_the_damage(store: Store, place: Path) -> None:
    """An object that can be read again is no longer told of."""
    with store.batch() as batch:
        content = os.urandom(LARGE)
        id = batch.put(content)
    flip_object(store, id)
    with reopened(store) as other:
        assert cas.backup(other, place, accept_damage=True).damaged == (id,)
        condemn(other, {id})
        assert other.put(content) == id
        done = cas.backup(other, place)
        assert (done.damage, done.damaged) == ((), ())
    with restored(place) as third:
        assert third.get(id) == content


@pytest.mark.parametrize("known", [False, True])
def test_a_read_that_fails_is_no_damage(
    store: Store, place: Path, rng: random.Random, known: bool
) -> None:
    """At whichever read the store's bucket fails, the backup is refused as that, and goes on when
    it is over: nothing that can be read is told or recorded as damaged.
    """
    with store.batch() as batch:
        id = batch.put(os.urandom(LARGE))
    versions(store, 4, rng)
    write(store, "main", {"file": b"1"})
    store.spill()
    packs = store.objects.lookup.refresh().packs.values()
    footers = [store.objects.lookup.footer(pack) for pack in packs if pack.file is not None]
    assert any(slot.codec == DELTA for footer in footers for slot in footer.slots())
    if known:
        # A backup that knows of damage asks again what of it can be read by now.
        file = flip_object(store, id)
        with reopened(store) as other:
            assert cas.backup(other, place, accept_damage=True).damaged == (id,)
        shutil.copytree(place, place.with_name("known"))
        flip_object(store, id)
        assert file.exists()
        write(store, "main", {"more": os.urandom(LARGE)})
    refused = 0
    for at in itertools.count(1):
        target = place.with_name(f"at{at}")
        if known:
            shutil.copytree(place.with_name("known"), target)
        with reopened(store) as other:
            failing = FailingReads(other.objects.bucket, at)
            other.objects.bucket = failing  # type: ignore[assignment]
            try:
                done = cas.backup(other, target, accept_damage=True)
            except StorageFailed:
                refused += 1
                continue
        assert (done.damage, done.damaged) == ((), ())
        if failing.left > 0:
            break
    assert refused > 3


def test_a_purge_ends_the_damage(store: Store, place: Path) -> None:
    """A damaged object that was purged is told as purged, and as damaged no more."""
    with store.batch() as batch:
        id = batch.put(os.urandom(LARGE))
    flip_object(store, id)
    with reopened(store) as other:
        assert cas.backup(other, place, accept_damage=True).damaged == (id,)
        cas.purge(other, id, reason="damaged, and not needed")
        done = cas.backup(other, place)
        assert (done.damaged, done.purged) == ((), (id,))
    report, _file = cas.prove(place)
    assert (report.ok, report.known) == (True, ())


def test_damage_in_an_inline_pack_is_told(store: Store, place: Path) -> None:
    """Bodies and footers of inline packs are verified as files are."""
    id = store.put(b"to be damaged" * 10)
    store.put(b"whole")
    with store.objects.catalog.read() as reader:
        ((number, _footer, body), *_rest) = reader.bodies(0, 9)
    bad = bytearray(body)
    bad[-5] ^= 1
    tamper(store, "UPDATE pack SET body = ? WHERE number = ?", bytes(bad), number)
    with reopened(store) as other:
        with pytest.raises(CorruptPack) as caught:
            cas.backup(other, place)
        assert id.hex() in caught.value.message
        assert cas.backup(other, place, accept_damage=True).damaged == (id,)
        tamper(store, "UPDATE pack SET footer = ? WHERE number = ?", b"x" * 200, number)
    with reopened(store) as other, pytest.raises(CorruptPack):
        cas.backup(other, place.with_name("again"))


def test_a_missing_pack_is_told(store: Store, place: Path) -> None:
    """A pack file that the catalog names and that is not there is no passing moment."""
    ids = big(store)
    copy = store.objects.lookup.find(ids[0])
    assert copy is not None
    assert copy.pack.file is not None
    with reopened(store) as other:
        Path(store.location, "packs", copy.pack.file).unlink()
        with pytest.raises(MissingPack):
            cas.backup(other, place)


def test_a_condemned_object_may_be_damaged(store: Store, place: Path) -> None:
    """Damage in what was given up stops nothing."""
    gone, kept = big(store, 2)
    condemn(store, {gone})
    flip_object_at(store, gone)
    with reopened(store) as other:
        assert cas.backup(other, place).damage == ()
    with restored(place) as third:
        assert third.get(kept) == store.get(kept)


def flip_object_at(store: Store, id: bytes) -> None:
    """Damage the payload of an object that no longer exists."""
    objects = store.objects
    for pack in objects.lookup.ensure().packs.values():
        footer = objects.lookup.footer(pack)
        number = footer.find(id)
        if number >= 0 and pack.file is not None:
            flip(Path(store.location, "packs", pack.file), footer.slot(number).payload_offset + 9)


# -- proofs ----------------------------------------------------------------------------------


def stocked(store: Store, place: Path) -> None:
    """A backup of three increments: file packs, spilled packs, inline packs, old positions."""
    big(store, 2)
    commits(store, 4)
    cas.backup(store, place)
    write(store, files={f"d/{n}": b"content %d\n" % n * 30 for n in range(80)})
    store.spill()
    ids = big(store, 2)
    condemn(store, {ids[0]})
    cas.backup(store, place)
    commits(store, 3)
    cas.backup(store, place)


def test_a_proof_says_what_it_saw(store: Store, place: Path) -> None:
    """Root, hash, counts, and the packs of the living store that were compared; the file of the
    report says the same, and the backup is unchanged but for it.
    """
    stocked(store, place)
    before = {p: p.read_bytes() for p in place.rglob("*.pack")}
    report, file = cas.prove(place, source=store)
    assert report.ok
    assert report.faults == ()
    assert (report.increment, report.seq, report.entry_count) == (3, 8, 8)
    moment = store.core.timeline.now()
    assert (report.root, report.journal_hash) == (moment.root, moment.hash)
    sound = fsck(store)
    assert (report.object_count, report.content_bytes) == (sound.object_count, sound.content_bytes)
    assert report.compared_packs == 2
    assert Path(file).parent == place / "proofs"
    assert report.journal_hash.hex() in Path(file).read_text(encoding="utf-8")
    assert {p: p.read_bytes() for p in place.rglob("*.pack")} == before
    older, _file = cas.prove(place, seq=2)
    assert older.ok
    assert older.root == store.core.timeline.at(store.objects.catalog.read().__enter__(), 2).root


def test_every_flipped_byte_of_a_backup_is_found(store: Store, place: Path) -> None:
    """A bit turned anywhere in any file of a backup fails the proof and is named; cut files and
    missing ones too. A restore of it is refused, or gives what was backed up.
    """
    stocked(store, place)
    expected = files_of(store)
    number = 0
    newest = max((place / "increments").iterdir())
    for file in sorted(place.rglob("*.pack")):
        size = file.stat().st_size
        whole = file.read_bytes()
        for at in {0, 12, 79, size // 3, size // 2, size - 200, size - 41, size - 40, size - 1}:
            flip(file, at)
            report, _kept = cas.prove(place)
            assert not report.ok, (file.name, at)
            assert any(file.name in fault.subject + fault.message for fault in report.faults)
            number += 1
            target = place.with_name(f"flipped-{number}")
            try:
                cas.restore_store(place, target)
            except (CorruptBackup, CorruptPack):
                assert not target.exists()
            else:
                with cas.open(target) as other:
                    assert files_of(other) == expected
            file.write_bytes(whole)
        for left in (size // 2, None):
            if left is None:
                if file == newest:
                    continue  # what is left is the backup before it, and whole
                file.unlink()
            else:
                os.truncate(file, left)
            assert not cas.prove(place)[0].ok
            file.write_bytes(whole)
    assert cas.prove(place)[0].ok


def test_a_pack_exchanged_for_another_is_found(store: Store, place: Path) -> None:
    """A sound pack under the name of another is told by proof and restore."""
    big(store)
    cas.backup(store, place)
    big(store)
    cas.backup(store, place)
    first, second = sorted((place / "packs").iterdir())
    shutil.copy(first, second)
    assert not cas.prove(place)[0].ok
    with pytest.raises(CorruptBackup):
        cas.restore_store(place, place.with_name("none"))


def test_an_increment_exchanged_for_another_is_found(store: Store, place: Path) -> None:
    """The chain names each increment by what it says."""
    write(store, files={"n": b"1"})
    cas.backup(store, place)
    shutil.copytree(place, place.with_name("other"))
    write(store, files={"n": b"2"})
    cas.backup(store, place)
    write(store, files={"n": b"3"})
    cas.backup(store, place.with_name("other"))
    second = vaults.increment_file(2)
    cas.backup(store, place)
    shutil.copy(place.with_name("other") / "increments" / second, place / "increments" / second)
    assert not cas.prove(place)[0].ok
    with pytest.raises(CorruptBackup):
        cas.restore_store(place, place.with_name("none"))


def test_progress_is_told(store: Store, place: Path) -> None:
    """Backup, proof and restore call back with their phases; bytes never pass their sum."""
    stocked(store, place.with_name("one"))
    for work in (
        lambda say: cas.backup(store, place, progress=say),
        lambda say: cas.prove(place, progress=say),
        lambda say: cas.restore_store(place, place.with_name("two"), progress=say),
    ):
        seen: list[Progress] = []
        work(seen.append)
        assert len({progress.phase for progress in seen}) > 1


def test_a_long_journal_takes_several_increments(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit into one increment is carried by those before it; one that only carries
    is no position, and a backup that stopped behind it goes on there.
    """
    commits(store, 40)
    monkeypatch.setattr(make, "PACK_BYTES_TARGET", 2_000)
    monkeypatch.setattr(make, "SEGMENT_ENTRIES", 5)
    monkeypatch.setattr(following, "SEGMENT_ENTRIES", 5)
    real = make.IncrementWriter.seal

    def seal(self: object, index: object) -> int:
        if index.number == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return real(self, index)  # type: ignore[arg-type]

    monkeypatch.setattr(make.IncrementWriter, "seal", seal)
    with pytest.raises(KeyboardInterrupt):
        cas.backup(store, place)
    with pytest.raises(CorruptBackup):
        cas.restore_store(place, place.with_name("none"))
    monkeypatch.setattr(make.IncrementWriter, "seal", real)
    done = cas.backup(store, place)
    assert done.increment >= 3
    assert done.new_entries < 40
    assert cas.prove(place)[0].ok
    with restored(place, seq=13) as other:
        assert files_of(other) == files_of(store, 13)
    commits(store, 1)
    assert cas.backup(store, place).new_entries == 1
    with restored(place) as other:
        assert files_of(other) == files_of(store)


def test_a_full_disk_ends_a_backup_and_a_restore(store: Store, small_disk: Path) -> None:
    """A place without room: `storage-full`, nothing half made, and with room it goes on."""
    with store.batch() as batch:
        for _ in range(5):
            batch.put(os.urandom(1 << 20))
    place = small_disk / "backup"
    with pytest.raises(StorageFull):
        cas.backup(store, place)
    with pytest.raises(BackupNotFound):
        cas.prove(place)
    elsewhere = Path(store.location).with_name("elsewhere")
    cas.backup(store, elsewhere)
    with pytest.raises(StorageFull):
        cas.restore_store(elsewhere, small_disk / "again")
    assert [entry.name for entry in small_disk.iterdir()] == ["backup"]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("commit"),
                st.sampled_from(["main", "side"]),
                st.dictionaries(st.sampled_from("abc"), st.binary(max_size=30), min_size=1),
            ),
            st.tuples(st.just("big"), st.just(""), st.just({})),
            st.tuples(st.just("spill"), st.just(""), st.just({})),
            st.tuples(st.just("give up"), st.just(""), st.just({})),
            st.tuples(st.just("delete"), st.sampled_from(["main", "side"]), st.just({})),
            st.tuples(st.just("backup"), st.just(""), st.just({})),
            st.tuples(st.just("restore and go on"), st.just(""), st.just({})),
        ),
        min_size=2,
        max_size=14,
    ),
    st.data(),
)
def test_any_history_can_be_restored_at_any_position(
    steps: list[tuple[str, str, dict[str, bytes]]], data: st.DataObject
) -> None:
    """Whatever happens between backups, also losing the store and going on with a restored one:
    each position shows the files that it showed, and objects that were given up stay so.
    """
    with scratch() as folder:
        place = os.path.join(folder, "backup")
        store = build_small(os.path.join(folder, "store"))
        expected: dict[int, dict[str, dict[str, bytes]]] = {0: {}}
        loose: list[BlobId] = []
        gone: set[BlobId] = set()
        reached = -1
        try:
            for number, (what, branch, files) in enumerate(steps):
                if what == "commit":
                    seq = write(store, branch, {**files, "number": b"%d" % number}).seq
                    expected[seq] = files_of(store)
                elif what == "big":
                    loose += big(store, 1)
                elif what == "spill":
                    store.spill()
                elif what == "give up" and loose:
                    gone.add(loose.pop())
                    condemn(store, set(gone))
                elif what == "delete" and store.view().ref(f"heads/{branch}"):
                    with store.begin() as tx:
                        tx.delete(f"heads/{branch}")
                        seq = tx.commit().seq
                    expected[seq] = files_of(store)
                elif what == "backup":
                    reached = cas.backup(store, place).seq
                    kept = list(loose)
                elif what == "restore and go on" and reached >= 0:
                    store.close()
                    target = os.path.join(folder, f"store-{number}")
                    cas.restore_store(place, target)
                    store = build_small(target)
                    expected = {seq: was for seq, was in expected.items() if seq <= reached}
                    loose = list(kept)
                    gone = {id for id in gone if not store.has(id)}
            if reached < 0:
                return
            for seq in {reached, data.draw(st.integers(0, reached))}:
                target = os.path.join(folder, f"at-{seq}")
                cas.restore_store(place, target, seq=seq)
                with cas.open(target) as other:
                    assert fsck(other).ok
                    assert files_of(other) == expected[seq]
                    if seq == reached:
                        assert all(other.has(id) for id in kept)
            assert cas.prove(place)[0].ok
        finally:
            store.close()


def build_small(folder: str) -> Store:
    """A store whose thresholds a few steps cross."""
    if not os.path.exists(folder):
        cas.init(folder)
    return build(folder, clock=SystemClock(), thresholds=SMALL)
