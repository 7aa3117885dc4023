"""The gate between processes, and what must hold of a host before a log is trusted."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from cas.catalog.gate import FileGate, NoGate
from cas.catalog.host import check_engine, check_filesystem, engine_version, filesystem_of
from cas.errors import UnsafeEngine, UnsafeFilesystem


def is_free(folder: Path) -> bool:
    """Whether somebody else could enter at once."""
    fd = os.open(folder / "main", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def test_one_at_a_time(tmp_path: Path) -> None:
    """Between enter and leave nobody else can enter; afterwards anybody can."""
    gate = FileGate(str(tmp_path))
    for _ in range(3):
        assert is_free(tmp_path)
        gate.enter()
        assert not is_free(tmp_path)
        gate.leave()
    gate.enter()
    gate.close()
    assert is_free(tmp_path)


def test_leaving_without_having_entered_is_harmless(tmp_path: Path) -> None:
    """An interrupt between the two may lead to a leave too many."""
    gate = FileGate(str(tmp_path))
    gate.leave()
    gate.enter()
    gate.leave()
    gate.leave()
    assert is_free(tmp_path)
    gate.close()


def _count(folder: str, number: int, start: object) -> None:
    gate = FileGate(folder)
    path = Path(folder) / "count"
    start.wait()  # type: ignore[attr-defined]
    for _ in range(number):
        gate.enter()
        value = int(path.read_text())
        path.write_text(str(value + 1))
        gate.leave()


def test_processes_lose_no_update(tmp_path: Path) -> None:
    """Processes that read, add one and write inside the gate count every one."""
    (tmp_path / "count").write_text("0")
    spawn = multiprocessing.get_context("fork")
    start = spawn.Barrier(3)
    workers = [
        spawn.Process(target=_count, args=(str(tmp_path), 200, start), daemon=True)
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert (tmp_path / "count").read_text() == "600"


def _die_inside(folder: str) -> None:
    FileGate(folder).enter()
    os._exit(9)


def test_the_dead_hold_nobody_up(tmp_path: Path) -> None:
    """A process that dies inside the gate lets the next one in."""
    gate = FileGate(str(tmp_path))
    worker = multiprocessing.get_context("fork").Process(target=_die_inside, args=(str(tmp_path),))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 9
    gate.enter()
    gate.leave()
    gate.close()


def test_an_election_has_one_winner(tmp_path: Path) -> None:
    """Of two gates one gets a task, until it gives it back; another task is another matter."""
    one, two = FileGate(str(tmp_path)), FileGate(str(tmp_path))
    with one.elect("spill") as first, two.elect("spill") as second, two.elect("gc") as other:
        assert first is not None
        assert second is None
        assert other is not None
        assert first.note == b""
        for note in (b"x" * 64, b"shorter"):
            first.leave(note)
            assert first.note == note
    with two.elect("spill") as again:
        assert again is not None
        assert again.note == b"shorter"
    alone = NoGate()
    for note in (b"", b"one"):
        with alone.elect("spill") as turn:
            assert turn.note == note
            turn.leave(note + b"one")


@pytest.mark.parametrize("version", ["3.51.3", "3.53.4", "3.50.7", "3.50.9", "3.44.6", "4.0.0"])
def test_engines_that_are_safe(version: str) -> None:
    """Versions with the fix of the race are taken."""
    check_engine(version)


@pytest.mark.parametrize("version", ["3.7.0", "3.34.1", "3.44.5", "3.45.0", "3.50.6", "3.51.2"])
def test_engines_that_are_not(version: str) -> None:
    """Versions that can corrupt a log are refused by name."""
    with pytest.raises(UnsafeEngine) as caught:
        check_engine(version)
    assert caught.value.version == version


def test_the_engine_in_use_is_safe() -> None:
    """What is installed here passes its own check."""
    check_engine(engine_version())


MOUNTS = """\
20 1 8:1 / / rw,relatime - ext4 /dev/vda rw
21 20 0:21 / /data rw - btrfs /dev/vdb rw
22 21 0:22 / /data/net rw - nfs4 server:/x rw
23 20 0:23 / /mnt/with\\040space rw - fuse.sshfs host: rw
24 20 0:24 / /mnt/plain rw shared:7 - fuse /dev/fuse rw
25 20 0:25 / /mnt/shadow rw - nfs server:/y rw
26 20 0:26 / /mnt/shadow rw - xfs /dev/vdc rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib/x", "ext4"),
        ("/data/me", "btrfs"),
        ("/database", "ext4"),
        ("/data/net/store", "nfs4"),
        ("/mnt/with space/store", "fuse.sshfs"),
        ("/mnt/plain", "fuse"),
        ("/mnt/shadow/x", "xfs"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    """The longest mount point above a path counts; of two on one point the later."""
    assert filesystem_of(path, MOUNTS) == kind
    if kind.startswith(("nfs", "fuse")):
        with pytest.raises(UnsafeFilesystem) as caught:
            check_filesystem(path, MOUNTS)
        assert caught.value.filesystem == kind
    else:
        check_filesystem(path, MOUNTS)


def test_a_host_that_does_not_say() -> None:
    """Where no mount is known, nothing is refused."""
    assert filesystem_of("/x", "") is None
    check_filesystem("/x", "")


def test_what_ends_beside_a_close_is_closed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that ends while its gate closes has its descriptor closed once, by one of them."""
    gate = FileGate(str(tmp_path))
    release = gate.hold(1)
    closed: list[int] = []
    close = os.close

    def beside(fd: int) -> None:
        closed.append(fd)
        close(fd)
        if len(closed) == 1:
            release()

    monkeypatch.setattr(os, "close", beside)
    gate.close()
    monkeypatch.undo()
    assert len(closed) == len(set(closed)) == 3
