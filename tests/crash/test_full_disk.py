"""A disk that fills up, at each level at which it may: refused by name, and nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable

import pytest

import cas
from cas.errors import CasError, StorageFull
from cas.history.store import Store
from cas.limits import KIB
from cas.maintenance.fsck.check import fsck
from cas.testing.mounting import lacking, room
from cas.testing.processes import Child
from cas.workspace.memories import Memory
from tests.crash.filling import LEVELS, WORK, fill, small_disk, sweep
from tests.crash.reporting import Note, scaled
from tests.unit.recall.kit import SENTENCES, commit, memory

SYSTEMS = ("tmpfs", "ext4")


@pytest.fixture(autouse=True)
def _can() -> None:
    reason = lacking()
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", WORK)
def test_work_on_a_full_disk_is_refused_by_name(
    name: str, system: str, note: Note, seed: str, rng: random.Random
) -> None:
    """On a disk that fills up work is done or refused as `storage-full`, nothing acknowledged is
    lost, and the same handle goes on when there is room; fsck finds nothing.
    """
    # All the way, and not at the same places each time.
    levels = sorted({0, *rng.sample(LEVELS, scaled(9))})
    done = sweep(system, name, levels, f"{seed} {name}")
    assert list(done.findings) == []
    note("full disks", f"{name}, {system}", levels=done.tried, refused=done.refused)


def _refused(act: Callable[[], object], findings: list[str]) -> bool:
    try:
        act()
    except StorageFull:
        return True
    except CasError as error:
        findings.append(f"{type(error).__name__} instead of storage-full: {error}")
    return False


def _files(store: Store) -> dict[str, bytes]:
    return dict(store.snapshot("main"))


def _with_content(place: str, seed: str) -> dict[str, bytes]:
    draw = random.Random(seed)
    files = {f"f{at}": draw.randbytes(90_000) for at in range(12)}
    with cas.open(place, create=True) as store:
        for name, content in files.items():
            with store.begin(message=name) as tx:
                tx.branch("main")[name] = content
                tx.commit()
    return files


def _at_levels(
    system: str, levels: list[int], act: Callable[[str, str, int], tuple[int, list[str]]]
) -> tuple[int, list[str]]:
    """What `act` says of each level, on one small disk: how much was refused, what is wrong."""

    def inside() -> tuple[int, list[str]]:
        refused, findings = 0, []
        with room() as place, small_disk(place, system) as disk:
            for level in levels:
                count, found = Child(lambda level=level: act(place, disk, level)).wait()
                refused += count
                findings += [f"{level:,} bytes left on {system}: {one}" for one in found]
        return refused, findings

    return Child(inside).wait()


ROOM = [0, 4 * KIB, 12 * KIB, 40 * KIB, 100 * KIB, 300 * KIB, 700 * KIB, 1_000 * KIB, 1_300 * KIB]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_new_store_on_a_full_disk_is_refused_by_name(system: str) -> None:
    """Making a store for which there is no room is `storage-full` at every level, also where only
    what its processes share finds none, and leaves nothing behind.
    """

    def act(_place: str, disk: str, level: int) -> tuple[int, list[str]]:
        findings: list[str] = []
        ballast = fill(disk, level)
        target = os.path.join(disk, "store")
        refused = _refused(lambda: cas.open(target, create=True).close(), findings)
        # Made and not opened is made: it is there whole.
        if left := set(os.listdir(disk)) - {"ballast", "store", "lost+found"}:
            findings.append(f"left behind: {left}")
        os.unlink(ballast)
        cas.open(target, create=True).close()
        shutil.rmtree(target)
        return int(refused), findings

    refused, findings = _at_levels(system, list(range(0, 160 * KIB, 4 * KIB)), act)
    assert findings == []
    assert refused > 10


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_backup_to_a_full_disk_goes_on_when_there_is_room(
    system: str, note: Note, seed: str
) -> None:
    """A backup for which there is no room is refused by name; with room it is made, and gives the
    store again.
    """

    def act(place: str, disk: str, level: int) -> tuple[int, list[str]]:
        findings: list[str] = []
        source, target = os.path.join(place, f"store-{level}"), os.path.join(disk, "backup")
        files = _with_content(source, seed)
        with cas.open(source) as store:
            ballast = fill(disk, level)
            refused = _refused(lambda: cas.backup(store, target), findings)
            os.unlink(ballast)
            cas.backup(store, target)
        if not cas.prove(target)[0].ok:
            findings.append("the backup is not whole")
        again = os.path.join(place, f"again-{level}")
        cas.restore_store(target, again)
        with cas.open(again) as store:
            if _files(store) != files or not fsck(store).ok:
                findings.append("what was restored is not what was backed up")
        shutil.rmtree(target)
        return int(refused), findings

    refused, findings = _at_levels(system, ROOM, act)
    assert findings == []
    assert 0 < refused < len(ROOM)
    note("full disks", f"a backup, {system}", levels=len(ROOM), refused=refused)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_store_is_restored_whole_or_not_at_all(system: str, note: Note, seed: str) -> None:
    """A restore for which there is no room is refused by name and leaves nothing behind."""

    def act(place: str, disk: str, level: int) -> tuple[int, list[str]]:
        findings: list[str] = []
        source, target = os.path.join(place, f"store-{level}"), os.path.join(disk, "again")
        files = _with_content(source, seed)
        vault = os.path.join(place, f"backup-{level}")
        with cas.open(source) as store:
            cas.backup(store, vault)
        before = sorted(os.listdir(disk))
        ballast = fill(disk, level)
        refused = _refused(lambda: cas.restore_store(vault, target), findings)
        os.unlink(ballast)
        if not os.path.exists(target):
            if sorted(os.listdir(disk)) != before:
                findings.append(f"left behind: {sorted(os.listdir(disk))}")
            cas.restore_store(vault, target)
        with cas.open(target) as store:
            if _files(store) != files or not fsck(store).ok:
                findings.append("what was restored is not what was backed up")
        shutil.rmtree(target)
        return int(refused), findings

    refused, findings = _at_levels(system, ROOM, act)
    assert findings == []
    assert 0 < refused < len(ROOM)
    note("full disks", f"a restore, {system}", levels=len(ROOM), refused=refused)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_search_index_on_a_full_disk(system: str, note: Note, seed: str) -> None:
    """An index for which there is no room is refused by name or does without a file; with room the
    same handle finds everything.
    """

    def act(place: str, disk: str, level: int) -> tuple[int, list[str]]:
        findings: list[str] = []
        folder = os.path.join(disk, "store")
        values = [memory(f"m{at}", f"{SENTENCES[at % 8]} {at}") for at in range(60)]
        with cas.open(folder, create=True) as store:
            commit(store, *values)
            ballast = fill(disk, level)
            with cas.Recall(store) as recall:
                refused = _refused(recall.follow, findings)
                os.unlink(ballast)
                commit(store, memory("last", "The zebra of the zoo is striped."))
                if recall.count(Memory) != 61:
                    findings.append("memories are not found")
                if "zebra" not in recall.recall("zebra", agent="planner").text:
                    findings.append("what came last is not found")
            if not fsck(store).ok:
                findings.append("fsck finds damage")
        shutil.rmtree(folder)
        return int(refused), findings

    refused, findings = _at_levels(system, ROOM, act)
    assert findings == []
    note("full disks", f"a search index, {system}", levels=len(ROOM), refused=refused)
