"""SQLite's log as handles leave it: empty before it goes, and only where it is theirs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cas
from cas.history.store import Store
from tests.unit.kit import write

FILES = ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm")


def test_the_last_handle_takes_the_log_away(store: Store) -> None:
    """While another handle has the file open it stays; behind the last one nothing is left."""
    place = Path(store.location)
    with cas.open(place) as other:
        write(other, files={"a": b"1"})
        write(store, files={"b": b"2"})
        store.close()
        assert (place / FILES[1]).exists()
        write(other, files={"c": b"3"})
    assert sorted(path.name for path in place.glob("catalog.*")) == ["catalog.sqlite"]
    with cas.open(place) as again:
        assert dict(again.snapshot("main")) == {"a": b"1", "b": b"2", "c": b"3"}


def test_a_log_that_is_not_emptied_stays(store: Store) -> None:
    """A handle that closes while a reader needs the log, or somebody is in the gate, leaves it."""
    place = Path(store.location)
    write(store, files={"a": b"1"})
    with cas.open(place) as other:
        view = other.view()
        assert view.seq == 1
        gate = other.objects.catalog._connections.gate  # type: ignore[attr-defined]
        gate.enter()
        store.close()
        gate.leave()
        log = (place / FILES[1]).read_bytes()
        assert log[:4] != bytes(4)
    with cas.open(place) as again:
        assert dict(again.snapshot("main")) == {"a": b"1"}


def test_the_log_of_another_file_is_let_alone(store: Store, tmp_path: Path) -> None:
    """A handle whose catalog was replaced under it does not touch the log of the new one."""
    place = Path(store.location)
    write(store, files={"a": b"1"})
    store.close()
    shutil.copy(place / FILES[0], tmp_path / "good")
    old = cas.open(place)
    write(old, files={"b": b"2"})
    aside = tmp_path / "aside"
    aside.mkdir()
    for name in FILES:
        os.rename(place / name, aside / name)
    shutil.copy(tmp_path / "good", place / FILES[0])
    with cas.open(place, read_only=True) as new:
        assert new.view().seq == 1
    log = b"\x37\x7f\x06\x82" + bytes(60)
    (place / FILES[1]).write_bytes(log)
    old.close()
    assert (place / FILES[1]).read_bytes() == log
