"""A walk of a folder that changes under it tells what it could not save, and never goes astray."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.history.store import Store
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.model.ids import digest_blob
from cas.worktree import files, scan
from cas.worktree.importer import import_folder
from tests.unit.worktree.support import ClockAhead, Tree, save, write

TREE: Tree = {b"a": b"1", b"d": {b"b": b"22", b"e": {b"c": b"333"}}, b"z": b"4"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a few files."""
    path = tmp_path / "work"
    path.mkdir()
    write(path, TREE)
    return path


@pytest.fixture
def during_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, Callable[[], object]], None]:
    """Have something happen after each read of a file's content, before it is looked at again."""

    def when(name: bytes, act: Callable[[], object]) -> None:
        opened: dict[int, bytes] = {}
        real_open, real_read = os.open, os.read

        def watch_open(path: Any, flags: int, *args: Any, **more: Any) -> int:
            fd = real_open(path, flags, *args, **more)
            opened[fd] = path
            return fd

        def watch_read(fd: int, count: int) -> bytes:
            data = real_read(fd, count)
            if opened.get(fd) == name:
                act()
            return data

        monkeypatch.setattr(os, "open", watch_open)
        monkeypatch.setattr(os, "read", watch_read)

    return when


def reasons(report: Any) -> dict[str, str]:
    """Problems by path."""
    return {problem.path: problem.reason for problem in report.problems}


def test_a_file_that_changes_once_is_read_again(
    store: Store, folder: Path, during_read: Callable[..., None]
) -> None:
    """The second read holds still, so there is nothing to tell."""
    left = [b"new content"]

    def change() -> None:
        if left:
            (folder / "d" / "b").write_bytes(left.pop())

    during_read(b"b", change)
    report = save(store, folder)
    assert report.problems == ()
    assert store.snapshot("main")["d/b"] == b"new content"


@pytest.mark.parametrize("grows", [True, False])
def test_a_file_that_never_holds_still_is_saved_and_told(
    store: Store, folder: Path, during_read: Callable[..., None], grows: bool
) -> None:
    """What was read last is saved, the path is a problem, and the rest is saved."""
    turn = iter(range(100))

    def change() -> None:
        number = next(turn)
        if grows:
            with (folder / "d" / "b").open("ab") as file:
                file.write(b"+")
        else:
            with (folder / "d" / "b").open("r+b") as file:
                file.write(b"%02d" % number)
            os.utime(folder / "d" / "b", ns=(number, number))

    during_read(b"b", change)
    report = save(store, folder)
    assert reasons(report) == {"d/b": "changed-while-reading"}
    assert len(store.snapshot("main")["d/b"]) >= 2
    assert set(store.snapshot("main")) == {"a", "d/b", "d/e/c", "z"}


def test_a_file_that_outgrows_one_read_is_streamed(
    store: Store, folder: Path, during_read: Callable[..., None]
) -> None:
    """A small file that is suddenly over 8 MiB is saved in chunks like any long one."""
    noise = os.urandom(WHOLE_BLOB_BYTES_MAX + 5)
    left = [noise]

    def change() -> None:
        if left:
            with (folder / "a").open("r+b") as file:
                file.write(left.pop())

    during_read(b"a", change)
    save(store, folder)
    assert store.snapshot("main")["a"] == noise


def test_a_long_file_that_changes_is_saved_and_told(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file over 8 MiB is read once, so that a change meanwhile is always told."""
    (folder / "long").write_bytes(bytes(WHOLE_BLOB_BYTES_MAX + 1))
    real = scan.same

    def change(before: os.stat_result, _after: os.stat_result) -> bool:
        with (folder / "long").open("ab") as file:
            file.write(b"x")
        return real(before, (folder / "long").stat())

    monkeypatch.setattr(scan, "same", change)
    assert reasons(save(store, folder)) == {"long": "changed-while-reading"}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).write_bytes(b"other")])
def test_a_long_file_that_is_replaced_is_told(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    """What takes its place between the look and the reading is neither waited for nor saved."""
    (folder / "long").write_bytes(bytes(WHOLE_BLOB_BYTES_MAX + 1))
    real = scan.read_file

    def reading(fd: int, name: bytes, whole_max: int) -> Any:
        found = real(fd, name, whole_max)
        if name == b"long":
            (folder / "long").rename(folder.with_name("aside"))
            make(folder / "long")
        return found

    monkeypatch.setattr(scan, "read_file", reading)
    report = save(store, folder)
    assert reasons(report)["long"] in ("fifo", "vanished")
    assert "long" not in store.snapshot("main")


def swap(path: Path, make: Callable[[], object]) -> Callable[[], None]:
    """Put something in a path's place, once."""

    def act() -> None:
        if not path.with_name("aside").exists():
            path.rename(path.with_name("aside"))
            make()

    return act


def after_listing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen between a directory's listing and the reading of what it holds."""
    real = scan.Walk._list

    def listing(self: Any, place: Any, at: int, relist: bool) -> Any:
        found = real(self, place, at, relist)
        if place.prefix == b"":
            act()
        return found

    monkeypatch.setattr(scan.Walk, "_list", listing)


def test_what_vanishes_is_told(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file and a directory that go between listing and reading."""

    def act() -> None:
        (folder / "a").unlink()
        (folder / "d").rename(tmp_path / "gone")

    after_listing(monkeypatch, act)
    report = save(store, folder)
    assert reasons(report) == {"a": "vanished", "d": "vanished"}
    assert set(store.snapshot("main")) == {"z"}


def test_a_fifo_that_takes_a_files_place_is_not_waited_for(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told like any other FIFO."""
    after_listing(monkeypatch, swap(folder / "a", lambda: os.mkfifo(folder / "a")))
    assert reasons(save(store, folder)) == {"a": "fifo"}


@pytest.mark.parametrize("pictured", [False, True])
@pytest.mark.parametrize("name", ["a", "d"])
def test_a_link_that_takes_a_place_leads_nowhere(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, pictured: bool
) -> None:
    """Neither a file's nor a directory's: what it points to is never saved."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"secret")
    (outside / "e").mkdir()
    target = outside if name == "d" else outside / "b"
    act = swap(folder / name, lambda: (folder / name).symlink_to(target))
    with cas.open(tmp_path / "store", create=True, clock=ClockAhead()) as store:
        if pictured:
            save(store, folder)
            for path in ("a", "d/b", "d/e/c"):
                (folder / path).write_bytes(b"edited")
            (folder / "new").write_bytes(b"")
        after_listing(monkeypatch, act)
        told = reasons(save(store, folder))
        assert told
        assert all(path.split("/")[0] == name for path in told)
        saved = store.snapshot("main")
        assert b"secret" not in [saved[path] for path in saved]


def test_a_folder_that_cannot_say_what_changed_is_listed_each_time(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where directories may keep their stamps when names come and go, names are not taken over."""
    monkeypatch.setattr(scan, "filesystem_of", lambda _path: "fuse.unknown")
    with cas.open(tmp_path / "store", create=True, clock=ClockAhead()) as store:
        save(store, folder)
        status = (folder / "d").stat()
        (folder / "d" / "new").write_bytes(b"5")
        real = os.lstat

        def forgetful(path: Any) -> os.stat_result:
            return status if os.fsdecode(path) == str(folder / "d") else real(path)

        monkeypatch.setattr(os, "lstat", forgetful)
        save(store, folder)
        assert store.snapshot("main")["d/new"] == b"5"


def test_progress_rises(store: Store, tmp_path: Path) -> None:
    """Counts of files and bytes read so far."""
    (tmp_path / "many").mkdir()
    write(tmp_path / "many", {b"%d" % number: b"ab" for number in range(600)})
    told: list[Any] = []
    import_folder(store, tmp_path / "many", progress=told.append)
    assert [(p.phase, p.file_count, p.content_bytes) for p in told] == [
        ("read", 256, 512),
        ("read", 512, 1024),
    ]


def test_reading_asks_for_no_more_than_the_file_has(tmp_path: Path) -> None:
    """One read of a byte more than its size proves the end of a small file."""
    (tmp_path / "x").write_bytes(b"12345")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        found = files.read_file(fd, b"x", 100)
        assert isinstance(found, files.Content)
        assert (found.data, found.torn) == (b"12345", False)
        assert isinstance(files.read_file(fd, b"x", 4), os.stat_result)
        assert files.hash_file(fd, b"x") == digest_blob(b"12345")
    finally:
        os.close(fd)
