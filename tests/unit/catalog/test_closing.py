"""Connections that are given back: while another thread closes, or with a statement left open."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import apsw
import pytest

import cas
from cas.catalog.connections import Connections
from cas.errors import Closed
from tests.unit.kit import write


def connections_of(store: cas.Store) -> Connections:
    """Those of its catalog."""
    found: Connections = store.objects.catalog._connections  # type: ignore[attr-defined]
    return found


def is_closed(connection: apsw.Connection) -> bool:
    """Whether its descriptors are given back."""
    try:
        connection.execute("SELECT 1")
    except apsw.ConnectionClosedError:
        return True
    return False


def test_a_connection_that_is_opened_as_the_handle_closes_is_not_lent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was let in before another thread closed is told so, and what it opened is closed."""
    store = cas.open(tmp_path / "store", create=True)
    connections = connections_of(store)
    lent = connections.take()
    connect, made = connections.connect, []

    def late() -> apsw.Connection:
        store.close()
        made.append(connect())
        return made[-1]

    monkeypatch.setattr(connections, "connect", late)
    with pytest.raises(Closed):
        connections.take()
    assert is_closed(made[0])
    connections.give(lent)
    assert is_closed(lent)


def test_a_connection_that_is_given_back_as_the_handle_closes_is_closed(tmp_path: Path) -> None:
    """Whichever of the two comes first, nothing is left in the pool."""
    store = cas.open(tmp_path / "store", create=True)
    connections = connections_of(store)

    class Pool(list[Any]):
        def append(self, item: Any) -> None:
            store.close()
            super().append(item)

    lent = connections.take()
    connections._pool = Pool(connections._pool)
    connections.give(lent)
    assert is_closed(lent)
    assert not connections._pool


def test_a_log_that_is_in_doubt_is_copied_by_no_close(tmp_path: Path) -> None:
    """Neither by the handle that closes last nor by a reader that outlives it."""
    store = cas.open(tmp_path / "store", create=True)
    write(store)
    connections = connections_of(store)
    file, log = tmp_path / "store" / "catalog.sqlite", tmp_path / "store" / "catalog.sqlite-wal"
    before = file.stat().st_mtime_ns, log.read_bytes()
    lent = connections.take()
    connections.gate.doubt(True)
    connections.give(lent)
    store.close()
    assert is_closed(lent)
    assert (file.stat().st_mtime_ns, log.read_bytes()) == before


def test_a_statement_that_is_left_open_keeps_nobody_in_the_past(tmp_path: Path) -> None:
    """Whoever keeps the traceback of an error keeps its frames, and cursors in these; who reads or
    writes next by this handle sees what is committed by then all the same.
    """
    with (
        cas.open(tmp_path / "store", create=True) as store,
        cas.open(tmp_path / "store") as other,
    ):
        catalog: Any = store.objects.catalog
        kept = []
        for at in range(3):
            write(other, files={"f": b"%d" % at})
        with catalog.read() as reader:
            kept.append(reader._run("SELECT seq FROM journal"))
            next(kept[0])
        with catalog.write() as writer:
            writer.set_cursor("x", 1)
            kept.append(writer._run("SELECT seq FROM journal"))
            next(kept[1])
        write(other, files={"f": b"later"})
        with catalog.read() as reader:
            assert reader.head().seq == 4
        assert store.snapshot("main")["f"] == b"later"
        write(store, files={"g": b"1"})
        assert store.view().seq == 5


def test_a_handle_that_nobody_closes_gives_back_its_files(tmp_path: Path) -> None:
    """A program that opens a store for each request, and forgets to close it, can go on."""
    path = tmp_path / "store"
    cas.open(path, create=True).close()

    def use_once() -> None:
        store = cas.open(path)
        write(store, "main", {"a": b"1"})
        assert store.snapshot("main")["a"] == b"1"

    def open_files() -> int:
        gc.collect()
        return sum(str(path) in os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir())

    use_once()
    before = open_files()
    for _ in range(5):
        use_once()
    assert open_files() <= before == 0
