"""A backup whose packs are damaged: what is whole in it can be had, and it can be made good."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import cas
from cas.errors import CasError, Corrupt, CorruptBackup
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from tests.unit.kit import reopened, write
from tests.unit.maintenance.test_backup import LARGE, flip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where backups go; nothing is there yet."""
    return tmp_path / "backup"


def two_packs(store: Store) -> list[Path]:
    """Two entries with a pack file each and two without; the pack files, in order."""
    files: list[Path] = []
    for name in ("first", "second"):
        before = set(Path(store.location, "packs").iterdir())
        write(store, files={name: os.urandom(LARGE)})
        files += set(Path(store.location, "packs").iterdir()) - before
    write(store, files={"small": b"in the catalog"})
    write(store, files={"last": b"in the catalog too"})
    return files


def cut(file: Path) -> None:
    """Take half of a file away."""
    os.truncate(file, file.stat().st_size // 2)


def exchange(file: Path) -> None:
    """Another pack of the backup under the name of this one."""
    shutil.copy(next(f for f in file.parent.iterdir() if f != file), file)


HARMS: dict[str, Callable[[Path], None]] = {
    "flipped": lambda file: flip(file, 10_000),
    "no footer": lambda file: flip(file, -20),
    "cut": cut,
    "emptied": lambda file: os.truncate(file, 0),
    "missing": Path.unlink,
    "exchanged": exchange,
}


@pytest.mark.parametrize("seq", [None, 3], ids=["newest", "older"])
@pytest.mark.parametrize("harm", HARMS)
def test_what_is_whole_is_restored(
    store: Store, place: Path, tmp_path: Path, harm: str, seq: int | None
) -> None:
    """Without a word about damage a restore is refused, and says how to have the rest. Where it
    is accepted the rest is there, and what is lost is told as damage by report, read and check.
    """
    _first, second = two_packs(store)
    files = dict(store.snapshot("main"))
    cas.backup(store, place)
    HARMS[harm](place / "packs" / second.name)
    target = tmp_path / "restored"
    with pytest.raises(CorruptBackup, match="--accept-damage"):
        cas.restore_store(place, target, seq=seq)
    assert not target.exists()
    report = cas.restore_store(place, target, seq=seq, accept_damage=True)
    assert [damage.pack for damage in report.damage] == [second.name]
    with cas.open(target) as other:
        snapshot = other.snapshot("main")
        assert snapshot["first"] == files["first"]
        assert snapshot["small"] == files["small"]
        assert ("last" in snapshot) == (seq is None)
        with pytest.raises(CasError) as refused:
            snapshot["second"]
        assert isinstance(refused.value, Corrupt)
        assert not fsck(other).ok
        write(other, files={"more": b"it goes on"})


@pytest.mark.parametrize("harm", ["cut", "emptied", "missing"])
def test_the_next_backup_copies_anew_what_is_not_all_there(
    store: Store, place: Path, harm: str
) -> None:
    """Nothing has changed in the store, and the backup is whole again; it was not before."""
    _first, second = two_packs(store)
    cas.backup(store, place)
    HARMS[harm](place / "packs" / second.name)
    assert not cas.prove(place)[0].ok
    assert cas.backup(store, place).new_packs == 1
    assert cas.prove(place, source=store)[0].ok
    assert not cas.backup(store, place).written


def test_what_is_damaged_on_both_sides_stays_as_it_is(store: Store, place: Path) -> None:
    """No part of a pack in the backup is given up for one that is damaged in the store."""
    _first, second = two_packs(store)
    cas.backup(store, place)
    kept = place / "packs" / second.name
    cut(kept)
    half = kept.read_bytes()
    flip(second, 10_000)
    with reopened(store) as other:
        with pytest.raises(Corrupt):
            cas.backup(other, place)
        cas.backup(other, place, accept_damage=True)
    assert kept.read_bytes() == half


def test_a_proof_says_how_a_pack_is_had_again(store: Store, place: Path) -> None:
    """A pack that holds other bytes is removed by hand and copied anew by the next backup."""
    _first, second = two_packs(store)
    cas.backup(store, place)
    flip(place / "packs" / second.name, 10_000)
    report, _file = cas.prove(place)
    (fault,) = [each for each in report.faults if each.subject == second.name]
    assert "Remove it from the folder `packs` of the backup" in fault.message
    (place / "packs" / second.name).unlink()
    cas.backup(store, place)
    assert cas.prove(place)[0].ok
