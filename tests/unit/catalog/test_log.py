"""The log: what makes a commit durable, and what is told of it to others."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from cas.catalog import connections as connecting
from cas.catalog import log as room
from cas.catalog.gate import FileGate
from cas.catalog.log import Log
from cas.catalog.sqlite import SqliteCatalog, create_catalog, open_catalog
from cas.errors import Closed, StorageFailed
from cas.testing.catalog_contract import META


def _catalog(folder: Path) -> SqliteCatalog:
    path = str(folder / "catalog.sqlite")
    if not os.path.exists(path):
        create_catalog(path, META)
        (folder / "locks").mkdir()
    return open_catalog(path, str(folder / "locks"), anywhere=True)


def _commit(catalog: SqliteCatalog, name: str) -> None:
    with catalog.write() as writer:
        writer.set_cursor(name, 1)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every sync of a log, as it is made."""
    made: list[int] = []
    sync = room.sync_data

    def count(fd: int) -> None:
        made.append(fd)
        sync(fd)

    monkeypatch.setattr(room, "sync_data", count)
    return made


def test_a_commit_syncs_once(tmp_path: Path, syncs: list[int]) -> None:
    """One commit, one sync; a transaction that changes nothing makes none."""
    catalog = _catalog(tmp_path)
    for number in range(5):
        _commit(catalog, f"c{number}")
    assert len(syncs) == 5
    with catalog.write() as writer:
        writer.cursor("c1")
    assert len(syncs) == 5
    catalog.close()


def test_one_sync_covers_all_that_was_written_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads whose commits were written while a sync was under way share the next one."""
    catalog = _catalog(tmp_path)
    sync, made = room.sync_data, []
    slow = threading.Event()

    def count(fd: int) -> None:
        made.append(fd)
        slow.wait(60)
        sync(fd)

    monkeypatch.setattr(room, "sync_data", count)
    threads = [threading.Thread(target=_commit, args=(catalog, f"t{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    with catalog.read() as reader:
        assert reader.cursor("none") is None
    while FileGate(str(tmp_path / "locks")).marks().number < 8:
        slow.wait(0.01)
    slow.set()
    for thread in threads:
        thread.join()
    assert 1 <= len(made) <= 2
    catalog.close()


def test_what_others_have_not_synced_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: list[int]
) -> None:
    """A commit whose maker died before its sync is made durable by who hardens next, once."""
    one = _catalog(tmp_path)
    monkeypatch.setattr(Log, "cover", lambda self, number: None)
    _commit(one, "soft")
    monkeypatch.undo()
    counted: list[int] = []
    monkeypatch.setattr(room, "sync_data", counted.append)
    other = _catalog(tmp_path)
    other.harden()
    other.harden(reading=True)
    assert len(counted) == 1
    assert FileGate(str(tmp_path / "locks")).marks().synced == 1
    other.close()
    one.close()


def test_a_number_is_not_published_while_its_commit_is_under_way(tmp_path: Path) -> None:
    """A sync beside a COMMIT says nothing of that commit."""
    catalog = _catalog(tmp_path)
    _commit(catalog, "first")
    gate = FileGate(str(tmp_path / "locks"))
    gate.enter_marked()
    gate.before_commit()
    assert gate.marks()[:2] == (0, 2)
    catalog.harden()
    assert gate.marks().synced == 1
    gate.after_commit()
    gate.leave()
    catalog.harden()
    assert gate.marks().synced == 2
    catalog.close()


def test_after_a_failed_sync_the_log_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lost sync costs nobody anything: the same bytes are written and synced once more."""
    catalog = _catalog(tmp_path)
    _commit(catalog, "before")
    before = (tmp_path / "catalog.sqlite-wal").read_bytes()
    sync, fails = room.sync_data, [True]
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def fail(fd: int) -> None:
        if fails:
            fails.pop()
            raise OSError(errno.EIO, "lost")
        sync(fd)

    def watch(fd: int, data: bytes, offset: int) -> int:
        written.append((offset, len(data)))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(room, "sync_data", fail)
    monkeypatch.setattr(room.os, "pwrite", watch)
    _commit(catalog, "lost")
    after = (tmp_path / "catalog.sqlite-wal").read_bytes()
    assert after[: len(before)] == before
    assert (0, len(after)) in written
    assert FileGate(str(tmp_path / "locks")).marks()[2:] == (2, 0)
    catalog.close()


def test_nothing_is_added_to_a_log_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk keeps failing every writer is refused, in any process, and readers too."""
    catalog = _catalog(tmp_path)
    _commit(catalog, "before")

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "gone")

    with monkeypatch.context() as broken:
        broken.setattr(room, "sync_data", fail)
        with pytest.raises(Exception, match="syncing it failed"):
            _commit(catalog, "lost")
        size = (tmp_path / "catalog.sqlite-wal").stat().st_size
        other = _catalog(tmp_path)
        with pytest.raises(StorageFailed, match="failed before"):
            _commit(other, "refused")
        with pytest.raises(StorageFailed, match="cannot be made durable"):
            other.harden(reading=True)
        assert (tmp_path / "catalog.sqlite-wal").stat().st_size == size
    _commit(other, "again")
    with other.read() as reader:
        assert (reader.cursor("lost"), reader.cursor("refused")) == (1, None)
    assert FileGate(str(tmp_path / "locks")).marks().doubt == 0
    other.close()
    catalog.close()


def test_a_close_waits_for_the_sync_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing beside a commit takes no descriptor away from its sync, nor closes one twice."""
    catalog = _catalog(tmp_path)
    _commit(catalog, "before")
    failures: list[BaseException] = []

    def close() -> None:
        try:
            catalog.close()
        except BaseException as error:
            failures.append(error)

    sync, pause = room.sync_data, threading.Event()
    closer = threading.Thread(target=close)
    turns = catalog._connections._log._turns  # type: ignore[union-attr]

    def beside(fd: int) -> None:
        closer.start()
        while closer.is_alive() and not turns._queue:
            pause.wait(0.005)
        sync(fd)

    monkeypatch.setattr(room, "sync_data", beside)
    _commit(catalog, "beside")
    closer.join()
    assert failures == []
    monkeypatch.undo()
    assert FileGate(str(tmp_path / "locks")).marks()[1:] == (2, 2, 0)
    with pytest.raises(Closed):
        _commit(catalog, "after")


def test_a_commit_that_stands_is_synced_beside_a_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has committed when its handle is closed is told so, synced, and leaves nothing open."""
    other = _catalog(tmp_path)
    catalog = _catalog(tmp_path)
    _commit(catalog, "before")
    log, cover = catalog._connections._log, Log.cover
    assert log is not None

    def late(self: Log, number: int) -> None:
        catalog.close()
        cover(self, number)

    monkeypatch.setattr(Log, "cover", late)
    _commit(catalog, "late")
    monkeypatch.undo()
    assert log._fd == -1
    assert FileGate(str(tmp_path / "locks")).marks()[1:] == (2, 2, 0)
    with other.read() as reader:
        assert reader.cursor("late") == 1
    other.close()


def test_a_log_that_another_takes_away_while_a_connection_is_opened_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync beside the opening opens the old log once more; the next commit is in another one."""
    catalog, other = _catalog(tmp_path), _catalog(tmp_path)
    _commit(catalog, "a")
    connections = catalog._connections
    log = connections._log
    assert log is not None
    connections.drop_writer()
    connections._empty()
    connect = connecting.connect

    def late(path: str, **options: Any) -> Any:
        log._sync()
        other.close()
        return connect(path, **options)

    monkeypatch.setattr(connecting, "connect", late)
    connections.writer()
    monkeypatch.setattr(connecting, "connect", connect)
    synced: list[int] = []
    monkeypatch.setattr(room, "sync_data", lambda fd: synced.append(os.fstat(fd).st_ino))
    _commit(catalog, "b")
    assert synced == [(tmp_path / "catalog.sqlite-wal").stat().st_ino]
    monkeypatch.undo()
    catalog.close()
