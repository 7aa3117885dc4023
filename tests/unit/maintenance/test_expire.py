"""Old positions of a backup go by rules: the rest can be restored as before, and room is made."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import cas
from cas import KeepRule
from cas.errors import BackupNotFound, Busy, CorruptBackup, Gone, Invalid
from cas.history.store import Store
from cas.maintenance.backups import rewrite
from cas.maintenance.backups import vault as vaults
from cas.maintenance.backups.vault import open_vault
from cas.maintenance.fsck.check import fsck
from cas.model.ids import BlobId
from tests.unit.kit import ManualClock, write
from tests.unit.maintenance.test_backup import condemn, files_of, restored

DAY_US = 24 * 3600 * 1_000_000
LAST = KeepRule("*", last=1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where backups go; nothing is there yet."""
    return tmp_path / "backup"


def nudge(store: Store, count: int = 1) -> None:
    """So many commits, each with something new."""
    for _ in range(count):
        write(store, "main", {"n": b"%d" % store.view().seq})


def size_of(place: Path) -> int:
    """Bytes of packs and increments."""
    return sum(file.stat().st_size for file in place.rglob("*.pack"))


def grown(store: Store, place: Path, rng: random.Random, rounds: int) -> list[list[BlobId]]:
    """So many backups: of a file of its own, which is given up before the next, and commits."""
    found = []
    for _ in range(rounds):
        ids = store.put_many([rng.randbytes(70_000), rng.randbytes(70_000)])
        write(store, "main", {f"f{at}": rng.randbytes(500) for at in range(4)})
        cas.backup(store, place)
        found.append(ids)
        condemn(store, set(map(bytes, ids)))
        store.spill()
        store.gc(grace_us=0)
    cas.backup(store, place)
    return found


def test_old_positions_go(store: Store, place: Path, rng: random.Random) -> None:
    """Only what other positions need stays; they, the journal and the next backup are as before."""
    ids = grown(store, place, rng, 6)
    before = size_of(place)
    plan = cas.plan_expiry(place, KeepRule("*", last=3))
    assert [state.seq for state in plan.kept] == [5, 6, 6]
    assert [state.seq for state in plan.going] == [1, 2, 3, 4]
    assert plan.pack_count >= 4
    done = cas.expire(plan)
    after = size_of(place)
    assert before - after == done.freed_bytes >= plan.pack_bytes > 4 * 2 * 70_000
    assert cas.prove(place)[0].ok
    with restored(place, seq=5) as other:
        assert [other.has(id) for id in ids[4]] == [True, True]
        assert files_of(other) == files_of(store, 5)
        assert list(other.journal()) == list(store.journal())[:5]
    with restored(place, seq=2) as other:
        # Of the next position that is left: what its history had, and not what was given up.
        assert files_of(other) == files_of(store, 2)
        assert not any(other.has(id) for id in ids[1])
    nudge(store, 2)
    again = cas.backup(store, place)
    assert (again.new_entries, again.new_packs) == (2, 0)
    with restored(place) as other:
        assert files_of(other) == files_of(store)
    assert cas.prove(place)[0].ok
    more = cas.plan_expiry(place, LAST)
    assert len(more.going) == 3
    cas.expire(more)
    with restored(place) as other:
        assert files_of(other) == files_of(store)
        assert list(other.journal()) == list(store.journal())


def test_a_backup_does_not_grow_for_ever(store: Store, place: Path, rng: random.Random) -> None:
    """Bodies of young packs that no position needs any more go too."""
    for at in range(30):
        write(store, "main", {"n": rng.randbytes(4_000)})
        cas.backup(store, place)
        if at % 10 == 9:
            store.spill()
    cas.backup(store, place)
    before = size_of(place)
    done = cas.expire(cas.plan_expiry(place, LAST))
    assert done.plan.pack_count > 0
    with open_vault(str(place), ManualClock()) as vault:
        assert len(vault.numbers()) == 1
    assert size_of(place) < before / 2
    with restored(place) as other:
        assert files_of(other) == files_of(store)
        assert list(other.journal()) == list(store.journal())
    assert cas.plan_expiry(place, LAST).is_empty


def test_days_are_kept(tmp_path: Path, place: Path) -> None:
    """Rules are those of retention, over the times at which backups were made."""
    clock = ManualClock()
    with cas.open(tmp_path / "days", create=True, clock=clock) as store:
        for _ in range(20):
            nudge(store)
            cas.backup(store, place)
            clock.now_us += DAY_US // 4
    plan = cas.plan_expiry(place, KeepRule("*", daily=3))
    days = [state.time_us // DAY_US for state in plan.kept]
    assert len(days) == len(set(days)) == 3
    assert plan.kept[-1].seq == 20
    assert len(plan.going) == 17
    assert all(state.reasons == ("daily",) for state in plan.kept)


def test_the_newest_stays_whatever_its_time(tmp_path: Path, place: Path) -> None:
    """A clock that went back does not make the newest backup the one that goes."""
    clock = ManualClock()
    with cas.open(tmp_path / "back", create=True, clock=clock) as store:
        for _ in range(3):
            nudge(store)
            cas.backup(store, place)
            clock.now_us -= DAY_US
    plan = cas.plan_expiry(place, LAST)
    assert [state.seq for state in plan.kept] == [1, 3]
    assert plan.kept[-1].reasons == ("newest",)


def test_a_plan_is_held_against_what_is_there(store: Store, place: Path) -> None:
    """Positions that came since stay; a backup that was written anew since refuses the plan."""
    for _ in range(4):
        nudge(store)
        cas.backup(store, place)
    plan = cas.plan_expiry(place, KeepRule("*", last=2))
    nudge(store)
    cas.backup(store, place)
    cas.expire(plan)
    assert [state.seq for state in cas.plan_expiry(place, LAST).going] == [3, 4]
    with pytest.raises(Invalid, match="plan again"):
        cas.expire(plan)
    with pytest.raises(BackupNotFound):
        cas.plan_expiry(place.with_name("none"), LAST)
    with open_vault(str(place), ManualClock(), write=True), pytest.raises(Busy):
        cas.expire(plan)


def test_a_position_that_went_is_refused_by_name(store: Store, place: Path) -> None:
    """Where the position behind it has lost what it pointed at, a restore says so."""
    write(store, "side", {"a": b"1" * 5_000})
    cas.backup(store, place)
    with store.begin() as tx:
        tx.delete("heads/side")
        tx.commit()
    condemn(store, {bytes(store.at(1).resolve("side"))})
    cas.backup(store, place)
    with restored(place, seq=1) as other:
        assert files_of(other) == {"heads/side": {"a": b"1" * 5_000}}
    cas.expire(cas.plan_expiry(place, LAST))
    with pytest.raises(Gone):
        cas.restore_store(place, place.with_name("gone"), seq=1)


@pytest.mark.parametrize("at", range(1, 8))
def test_a_run_that_is_stopped(
    store: Store, place: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before the last increment has its name nothing has changed; behind it all that is left over
    goes with the next backup, or the next run.
    """
    ids = grown(store, place, rng, 5)
    plan = cas.plan_expiry(place, KeepRule("*", last=3))
    steps: list[int] = []
    seal, delete = vaults.IncrementWriter.seal, vaults.LocalBucket.delete

    def step() -> None:
        steps.append(1)
        if len(steps) == at:
            raise KeyboardInterrupt

    def sealing(writer: vaults.IncrementWriter, index: object) -> int:
        step()
        return seal(writer, index)  # type: ignore[arg-type]

    def deleting(bucket: vaults.LocalBucket, name: str) -> None:
        step()
        delete(bucket, name)

    with monkeypatch.context() as patch:
        patch.setattr(rewrite.IncrementWriter, "seal", sealing)
        patch.setattr(vaults.LocalBucket, "delete", deleting)
        with pytest.raises(KeyboardInterrupt):
            cas.expire(plan)
    assert cas.prove(place)[0].ok
    kept = [state.seq for state in cas.plan_expiry(place, KeepRule("*", last=99)).kept]
    assert kept == ([1, 2, 3, 4, 5, 5] if at <= 3 else [4, 5, 5])
    with restored(place, seq=4) as other:
        assert all(other.has(id) for id in ids[3])
        assert files_of(other) == files_of(store, 4)
    nudge(store)
    cas.backup(store, place)
    with open_vault(str(place), ManualClock()) as vault:
        assert [index.number for index in vault.chain()] == vault.numbers()
    assert cas.prove(place)[0].ok
    cas.expire(cas.plan_expiry(place, LAST))
    with open_vault(str(place), ManualClock()) as vault:
        (index,) = vault.chain()
        assert index.state is not None
        named = {f"{line.name.hex()}.pack" for line in index.state.packs if line.name is not None}
        assert {file.name for file in vault.packs.list()} == named


def test_a_newest_increment_that_is_lost_is_told(
    store: Store, place: Path, rng: random.Random
) -> None:
    """Behind an expiry the increments count together: without the last nothing is taken for
    left over, and nothing is removed.
    """
    grown(store, place, rng, 4)
    cas.expire(cas.plan_expiry(place, KeepRule("*", last=3)))
    last = max((place / "increments").glob("*.pack"))
    data = last.read_bytes()
    last.unlink()
    files = sorted(place.rglob("*.pack"))
    for use in (
        lambda: cas.backup(store, place),
        lambda: cas.plan_expiry(place, LAST),
        lambda: cas.restore_store(place, place.with_name("none")),
    ):
        with pytest.raises(CorruptBackup, match="missing"):
            use()
    assert sorted(place.rglob("*.pack")) == files
    last.write_bytes(data)
    assert cas.prove(place)[0].ok


def test_long_journals_are_cut(
    store: Store, place: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An increment of the new chain does not become longer than one of a backup."""
    for _ in range(12):
        nudge(store, 3)
        cas.backup(store, place)
    monkeypatch.setattr(rewrite, "PACK_BYTES_TARGET", 4_000)
    cas.expire(cas.plan_expiry(place, LAST))
    with open_vault(str(place), ManualClock()) as vault:
        chain = vault.chain()
        assert len(chain) > 2
        assert [index.state is None for index in chain] == [True] * (len(chain) - 1) + [False]
    assert cas.prove(place)[0].ok
    for seq in (7, 36):
        with restored(place, seq=seq) as other:
            assert files_of(other) == files_of(store, seq)


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("harm", ["missing", "flipped", "short"])
def test_what_is_before_a_damaged_increment_can_be_had(
    store: Store, place: Path, tmp_path: Path, rng: random.Random, expired: bool, harm: str
) -> None:
    """Where damage is accepted the store is that of the newest position before it."""
    grown(store, place, rng, 4)
    if expired:
        cas.expire(cas.plan_expiry(place, KeepRule("*", last=3)))
    with open_vault(str(place), ManualClock()) as vault:
        states = [(index.number, index.state) for index in vault.chain()]
    files = sorted((place / "increments").glob("*.pack"))
    assert len(files) == len(states) >= 3
    for at in range(1, len(files)):
        data = files[at].read_bytes()
        if harm == "missing":
            files[at].unlink()
        elif harm == "flipped":
            files[at].write_bytes(data[:-60] + bytes([data[-60] ^ 1]) + data[-59:])
        else:
            files[at].write_bytes(data[: len(data) // 2])
        expected = [state for _number, state in states[:at] if state is not None][-1]
        told = expired or harm != "missing" or at < len(files) - 1
        if told:
            with pytest.raises(CorruptBackup):
                cas.restore_store(place, tmp_path / f"none-{at}")
        report = cas.restore_store(place, tmp_path / f"again-{at}", accept_damage=True)
        assert (report.seq, report.increment) == (expected.seq, states[at - 1][0])
        named = {each.pack for each in report.damage}
        assert named == ({files[at].name} if told else set())
        with cas.open(tmp_path / f"again-{at}") as again:
            assert files_of(again) == files_of(store, expected.seq)
            assert fsck(again).ok
        files[at].write_bytes(data)
    assert cas.prove(place)[0].ok
