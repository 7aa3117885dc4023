"""What an import saves, leaves out and tells."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.errors import Invalid, NotFound, RefConflict
from cas.history.store import Store
from cas.model.objects import EntryKind
from cas.worktree.importer import ImportReport, import_folder
from tests.unit.worktree.support import (
    ClockAhead,
    Link,
    Program,
    become_nobody,
    read,
    save,
    scratch,
    write,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store to which everything in a folder is old, so that its pictures are used."""
    with cas.open(tmp_path / "store", create=True, clock=ClockAhead()) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to fill."""
    path = tmp_path / "work"
    path.mkdir()
    return path


def reasons(report: ImportReport) -> dict[str, str]:
    """Problems by path."""
    return {problem.path: problem.reason for problem in report.problems}


def test_a_report_counts_what_the_folder_has(store: Store, folder: Path) -> None:
    """Files, links, directories and bytes are those of the whole folder, new ones apart."""
    write(folder, {b"a": b"12", b"p": Program(b"345"), b"l": Link(b"a"), b"d": {b"e": {}}})
    report = save(store, folder)
    assert (report.file_count, report.link_count, report.directory_count) == (2, 1, 2)
    assert report.content_bytes == 6
    assert report.new_count == 6  # 2 files, 1 target, 3 directories
    assert report.commit == store.resolve("main")
    assert report.tree == store.commit("main").tree
    assert report.entry.seq == 1
    kinds = {path: entry.kind for path, entry in store.snapshot("main").walk(directories=True)}
    assert kinds == {
        "a": EntryKind.FILE,
        "d": EntryKind.TREE,
        "d/e": EntryKind.TREE,
        "l": EntryKind.LINK,
        "p": EntryKind.EXECUTABLE,
    }


def test_an_unchanged_folder_still_makes_a_commit(store: Store, folder: Path) -> None:
    """The second import writes no object of the folder and has the first as its parent."""
    write(folder, {b"a": b"1"})
    first = save(store, folder)
    second = import_folder(store, folder, message="again", author="me")
    assert second.new_count == 0
    assert second.tree == first.tree
    assert second.commit != first.commit
    commit = store.commit("main")
    assert (commit.parents, commit.message, commit.author) == ((first.commit,), "again", "me")


def test_an_empty_folder_is_saved(store: Store, folder: Path) -> None:
    """No files is a state like any other."""
    report = save(store, folder)
    assert report.file_count == 0
    assert dict(store.snapshot("main")) == {}


def test_branches_are_apart(store: Store, folder: Path) -> None:
    """An import moves the branch it was given, and no other."""
    write(folder, {b"a": b"1"})
    import_folder(store, folder, branch="one")
    (folder / "a").write_bytes(b"2")
    import_folder(store, folder, branch="two")
    assert (store.snapshot("one")["a"], store.snapshot("two")["a"]) == (b"1", b"2")


@pytest.mark.parametrize("what", ["missing", "file"])
def test_what_is_no_folder_is_refused(store: Store, folder: Path, what: str) -> None:
    """A typed error that names the place; nothing is committed."""
    (folder / "file").write_bytes(b"")
    with pytest.raises(NotFound if what == "missing" else Invalid, match=what):
        save(store, folder / what)
    assert store.branches() == []


def test_a_branch_that_moves_during_an_import_is_a_conflict(store: Store, folder: Path) -> None:
    """What an import replaced is not overwritten by who began before it, nor the other way."""
    write(folder, {b"a": bytes(1), b"b": b"2"})

    with store.begin() as tx:
        tx.branch("main")["a"] = b"first"
        save(store, folder)
        with pytest.raises(RefConflict):
            tx.commit()
    assert store.snapshot("main")["a"] == bytes(1)
    with store.begin() as second:
        second.branch("main").put_tree(store.commit("main").tree)
        second.branch("main")["more"] = b"1"
        with store.begin() as tx:
            tx.branch("main")["x"] = b"meanwhile"
            tx.commit()
        with pytest.raises(RefConflict):
            second.commit()
    assert store.snapshot("main")["x"] == b"meanwhile"


# -- what cannot be saved --------------------------------------------------------------------


def test_special_files_are_told_and_the_rest_is_saved(store: Store, folder: Path) -> None:
    """FIFOs, sockets and devices are problems; nothing waits for them."""
    write(folder, {b"a": b"1", b"d": {b"b": b"2"}})
    os.mkfifo(folder / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "d" / "sock"))
    listener.close()
    expected = {"pipe": "fifo", "d/sock": "socket"}
    if os.geteuid() == 0:
        os.mknod(folder / "null", 0o20666, os.makedev(1, 3))
        expected["null"] = "device"
    for _ in range(2):  # the second time beside a picture of the first
        report = save(store, folder)
        assert reasons(report) == expected
        assert set(store.snapshot("main")) == {"a", "d/b"}
        assert all(problem.path in problem.message for problem in report.problems)


def test_unreadable_files_and_folders_are_told() -> None:
    """What this user may not read is a problem, and the rest is saved."""
    with scratch() as place:
        place.chmod(0o777)
        folder = place / "work"
        folder.mkdir()
        write(folder, {b"open": b"1", b"shut": b"2", b"dir": {b"in": b"3"}, b"deaf": {b"in": b""}})
        (folder / "shut").chmod(0)
        (folder / "dir").chmod(0o311)  # may be entered, not listed
        (folder / "deaf").chmod(0o444)  # may be listed, not entered
        expected = {"shut": "unreadable", "dir": "unreadable", "deaf/in": "unreadable"}
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                become_nobody()
                with cas.open(place / "s", create=True) as store:
                    for _ in range(2):
                        found = reasons(save(store, folder)), set(store.snapshot("main"))
                        assert found == (expected, {"open"}), found
                status = 0
            except BaseException as error:
                print(error, file=sys.stderr)
            finally:
                os._exit(status)
        _pid, code = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(code) == 0


def test_a_path_that_is_too_deep_is_told(store: Store, folder: Path) -> None:
    """257 names below each other are one too many; 256 are saved."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(256):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    report = save(store, folder)
    assert list(reasons(report).values()) == ["name"]
    assert report.directory_count == 256


# -- what is left out, and what is named -----------------------------------------------------


def test_stores_are_left_out(tmp_path: Path, folder: Path) -> None:
    """The store's own folder, wherever it lies, and every `.cas` in any case."""
    write(folder, {b"a": b"1", b".cas": {b"x": b""}, b"d": {b".CAS": {b"y": b""}, b"b": b"2"}})
    with cas.open(folder / "d" / "agents", create=True, clock=ClockAhead()) as store:
        for _ in range(2):
            report = save(store, folder)
            assert set(store.snapshot("main")) == {"a", "d/b"}
            assert report.problems == ()


def test_other_stores_are_left_out_and_named(store: Store, folder: Path) -> None:
    """A store of any name is no file to copy: not even its catalog is opened."""
    write(folder, {b"a": b"1", b"d": {b"b": b"2"}})
    with cas.open(folder / "d" / "other", create=True) as other:
        id = other.put(b"alive")
        for _ in range(2):
            report = save(store, folder)
            assert (report.stores, report.problems) == (("d/other",), ())
            assert set(store.snapshot("main")) == {"a", "d/b"}
        assert other.get(id) == b"alive"


def test_a_store_is_no_folder_to_import(store: Store, folder: Path, tmp_path: Path) -> None:
    """Neither its own nor another, nor what lies in its own."""
    cas.init(folder / "other")
    (tmp_path / "link").symlink_to(tmp_path / "store" / "packs")
    for place in (tmp_path / "store", tmp_path / "store" / "packs", tmp_path / "link"):
        with pytest.raises(Invalid, match="own folder"):
            save(store, place)
    with pytest.raises(Invalid, match="folder of a store"):
        save(store, folder / "other")
    assert store.branches() == []


def test_names_that_only_look_like_a_stores_are_saved(store: Store, folder: Path) -> None:
    """Editors leave `cas~` behind; what other systems take for `.cas` is told and left out."""
    harmless = {b"cas~": b"1", b"cas~a": b"2", b".cash": b"3", b"cas": b"4", b"a.cas": b"5"}
    hidden = "\u200c.cas".encode()
    write(folder, {**harmless, b".cas.": b"6", b"CAS~1": b"7", hidden: b"8", b".CAS": b"9"})
    for _ in range(2):
        report = save(store, folder)
        assert reasons(report) == {".cas.": "name", "CAS~1": "name", "\u200c.cas": "name"}
        assert set(store.snapshot("main")) == {name.decode() for name in harmless}


def test_a_link_to_a_directory_is_saved_and_not_entered(store: Store, folder: Path) -> None:
    """Also when it leads in a circle or outside."""
    write(folder, {b"d": {b"up": Link(b"..")}, b"out": Link(b"/"), b"none": Link(b"nowhere")})
    report = save(store, folder)
    assert report.link_count == 3
    assert set(store.snapshot("main")) == {"d/up", "out", "none"}


def test_the_folder_itself_may_be_a_link(store: Store, folder: Path, tmp_path: Path) -> None:
    """The caller's own argument is followed."""
    write(folder, {b"a": b"1"})
    (tmp_path / "link").symlink_to(folder)
    save(store, tmp_path / "link")
    assert set(store.snapshot("main")) == {"a"}


KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"
SECRETS = {
    b".env": b"TOKEN=1",
    b".env.production": b"",
    b"id_ed25519": b"",
    b"server.pem": b"\n-----BEGIN RSA PRIVATE KEY-----\n",
    b"plain": KEY,
    b"box.kdbx": b"",
}
HARMLESS = {
    b".env.example": b"TOKEN=",
    b"id_ed25519.pub": b"ssh-ed25519 AAAA",
    b"cert.pem": b"-----BEGIN CERTIFICATE-----\n",
    b"about.md": b"text before\n" + KEY,
    b"environment": b"",
}


def test_likely_secrets_are_saved_and_named(store: Store, folder: Path) -> None:
    """By name and by first bytes, at every import, and nothing harmless is named."""
    write(folder, {b"d": {**SECRETS, **HARMLESS}})
    for _ in range(2):
        report = save(store, folder)
        assert sorted(report.secrets) == sorted(f"d/{name.decode()}" for name in SECRETS)
        assert report.problems == ()
    assert store.snapshot("main")["d/plain"] == KEY


def test_likely_secrets_are_left_out_when_asked(store: Store, folder: Path) -> None:
    """They are named all the same, and a picture made without the option does not help them in."""
    write(folder, {**SECRETS, **HARMLESS})
    save(store, folder)
    for _ in range(2):
        report = save(store, folder, skip_secrets=True)
        assert len(report.secrets) == len(SECRETS)
        assert set(store.snapshot("main")) == {name.decode() for name in HARMLESS}
    save(store, folder)
    assert len(store.snapshot("main")) == len(SECRETS) + len(HARMLESS)


def test_twins_are_warned_of_and_saved(store: Store, folder: Path) -> None:
    """Names that differ only by case or normal form are told each time, and all are kept."""
    composed, decomposed = "\u00e9".encode(), "e\u0301".encode()
    write(folder, {b"d": {b"A": b"1", b"a": b"2", composed: b"3", decomposed: b"4", b"b": b""}})
    for _ in range(2):
        report = save(store, folder)
        assert sorted(map(sorted, report.twins)) == [
            ["d/A", "d/a"],
            sorted(["d/\u00e9", "d/e\u0301"]),
        ]
    assert len(store.snapshot("main")) == 5


def test_importing_changes_nothing_in_the_folder(store: Store, folder: Path) -> None:
    """Not even the time of a directory."""
    write(folder, {b"a": b"1", b"d": {b"b": b"2"}})
    before = read(folder), [os.stat(p).st_mtime_ns for p in (folder, folder / "d")]
    save(store, folder)
    assert (read(folder), [os.stat(p).st_mtime_ns for p in (folder, folder / "d")]) == before
