"""How the log is taken away and cut: never so that a commit stands behind a header of nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cas.catalog.sqlite import SqliteCatalog, create_catalog, open_catalog
from cas.errors import Closed
from cas.testing.catalog_contract import META

READER = """
import ctypes, fcntl, struct, sys
import apsw
from cas.catalog.engine import connect

class Hooked(apsw.VFS):
    def __init__(self):
        super().__init__("hooked", base="unix")

libc = ctypes.CDLL(None)
armed = False

@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
def stalling(fd, command, argument):
    global armed
    if armed and command == fcntl.F_SETLK:
        kind, _, start = struct.unpack("hhq", ctypes.string_at(argument, 16))
        if kind == fcntl.F_RDLCK and 124 <= start <= 127:
            armed = False
            print("stalls", flush=True)
            sys.stdin.readline()
    return libc.fcntl(fd, command, ctypes.c_void_p(argument))

vfs = Hooked()
vfs.xSetSystemCall("fcntl", ctypes.cast(stalling, ctypes.c_void_p).value)
connection = connect(sys.argv[1])
connection.execute("SELECT max(seq) FROM journal").fetchall()
armed = True
connection.execute("BEGIN")
connection.execute("SELECT max(seq) FROM journal").fetchall()
print("reads", flush=True)
sys.stdin.readline()
"""
"""A reader that has seen that the log is needed, and takes its lock in it only when it is told to:
the locks 1 to 4 of readers are the bytes 124 to 127 (SQLite, wal.c, walTryBeginRead).
"""

LEAVER = """
import os, signal, sys
from cas.catalog import log as room
from cas.catalog.sqlite import open_catalog

catalog = open_catalog(sys.argv[1] + "/catalog.sqlite", sys.argv[1] + "/locks", anywhere=True)
with catalog.write() as writer:
    writer.set_cursor("last", 1)

def dying(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[2]
if where == "before the write":
    os.pwrite = dying
elif where == "before the sync":
    room.sync_data = dying
else:
    sync = room.sync_data
    room.sync_data = lambda fd: (sync(fd), dying())
catalog.close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a catalog that nobody has open."""
    return _make(tmp_path / "store")


@pytest.fixture
def stalled(folder: Path) -> Iterator[Callable[[], Callable[[], None]]]:
    """Start a reader that stalls; what is given back has it go on, until it has its lock."""
    readers: list[subprocess.Popen[str]] = []

    def start() -> Callable[[], None]:
        command = [sys.executable, "-c", READER, str(folder / "catalog.sqlite")]
        reader = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
        )
        readers.append(reader)
        assert reader.stdin is not None
        assert reader.stdout is not None
        told, says = reader.stdin, reader.stdout
        assert says.readline() == "stalls\n"

        def go_on() -> None:
            told.write("\n")
            told.flush()
            assert says.readline() == "reads\n"

        return go_on

    yield start
    for reader in readers:
        reader.communicate("\n\n")


_ROOT = Path(__file__).parents[3]


def _make(folder: Path) -> Path:
    folder.mkdir()
    create_catalog(str(folder / "catalog.sqlite"), META)
    (folder / "locks").mkdir()
    return folder


def _open(folder: Path) -> SqliteCatalog:
    return open_catalog(str(folder / "catalog.sqlite"), str(folder / "locks"), anywhere=True)


def _commit(catalog: SqliteCatalog, name: str) -> None:
    with catalog.write() as writer:
        writer.set_cursor(name, 1)


def _kept(folder: Path, names: str) -> str:
    """Which of these commits are there when all processes are killed now."""
    copy = folder.with_name(folder.name + ".copy")
    shutil.copytree(folder, copy)
    (copy / "catalog.sqlite-shm").unlink(missing_ok=True)
    catalog = _open(copy)
    with catalog.read() as reader:
        found = "".join(name for name in names if reader.cursor(name) is not None)
    catalog.close()
    shutil.rmtree(copy)
    return found


def _has_log(folder: Path) -> bool:
    return (folder / "catalog.sqlite-wal").exists()


linux = pytest.mark.skipif(sys.platform != "linux", reason="knows the locks of one system")


@linux
def test_who_closes_beside_a_slow_reader_leaves_the_log_as_it_is(
    folder: Path, stalled: Callable[[], Callable[[], None]]
) -> None:
    """A reader may come to stand in a log behind any checkpoint; then the next commit is written
    where the log ends, and is gone with a header of nothing.
    """
    first, second = _open(folder), _open(folder)
    _commit(first, "a")
    go_on = stalled()
    first.close()
    go_on()
    _commit(second, "b")
    assert _kept(folder, "ab") == "ab"
    second.close()


@linux
def test_who_cuts_beside_a_slow_reader_loses_nothing(
    folder: Path, stalled: Callable[[], Callable[[], None]]
) -> None:
    """One that comes to stand in the log between two steps of the cutting stops it."""
    catalog = _open(folder)
    _commit(catalog, "a")
    statements: list[str] = []
    go_on = stalled()

    def trace(_cursor: object, sql: str, _bindings: object) -> bool:
        if statements and "RESTART" in statements[-1]:
            go_on()
        statements.append(sql)
        return True

    writer = catalog._connections.writer()
    writer.set_exec_trace(trace)
    assert not catalog.trim()
    writer.set_exec_trace(None)
    _commit(catalog, "b")
    assert _kept(folder, "ab") == "ab"
    catalog.close()


def test_who_only_read_leaves_nothing_beside_the_file(folder: Path) -> None:
    """An empty log goes as it is."""
    catalog = _open(folder)
    with catalog.read() as reader:
        assert reader.cursor("a") is None
    assert _has_log(folder)
    catalog.close()
    assert sorted(entry.name for entry in folder.iterdir()) == ["catalog.sqlite", "locks"]


def test_a_log_that_is_cut_begins_anew(folder: Path) -> None:
    """It has one commit then, which changes nothing; what was before it is not read again."""
    catalog = _open(folder)
    for name in "abcdefgh":
        _commit(catalog, name)
    before = catalog.weigh().log_bytes
    assert catalog.trim()
    after = catalog.weigh().log_bytes
    assert after < before
    assert catalog.trim()
    assert catalog.weigh().log_bytes == after
    _commit(catalog, "i")
    assert _kept(folder, "abcdefghi") == "abcdefghi"
    catalog.close()
    assert not _has_log(folder)


def test_who_closes_beside_another_handle_leaves_it_as_it_was(folder: Path) -> None:
    """The other one goes on, and takes the log away as it closes."""
    first, second = _open(folder), _open(folder)
    _commit(first, "a")
    log = (folder / "catalog.sqlite-wal").read_bytes()
    first.close()
    assert (folder / "catalog.sqlite-wal").read_bytes() == log
    with second.read() as reader:
        assert reader.cursor("a") == 1
    _commit(second, "b")
    assert _kept(folder, "ab") == "ab"
    third = _open(folder)
    _commit(third, "c")
    second.close()
    third.close()
    assert not _has_log(folder)
    assert _kept(folder, "abc") == "abc"


@pytest.mark.parametrize("end", ["close", "trim"])
def test_a_handle_does_nothing_to_the_log_of_what_lies_in_the_place_of_its_store(
    folder: Path, end: str
) -> None:
    """A folder that was put aside for another one, as a backup that was put back."""
    old = _open(folder)
    _commit(old, "a")
    folder.rename(folder.with_name("old"))
    new = _open(_make(folder))
    _commit(new, "b")
    if end == "trim":
        with pytest.raises(Closed):
            old.trim()
    old.close()
    _commit(new, "c")
    assert _kept(folder, "abc") == "bc"
    assert _kept(folder.with_name("old"), "abc") == "a"
    new.close()


@pytest.mark.parametrize("where", ["before the write", "before the sync", "behind the sync"])
def test_who_is_killed_as_it_takes_the_log_away_loses_nothing(folder: Path, where: str) -> None:
    """All is in the file by then, and whoever comes next begins the log anew."""
    catalog = _open(folder)
    _commit(catalog, "a")
    catalog.close()
    done = subprocess.run([sys.executable, "-c", LEAVER, str(folder), where], cwd=_ROOT)
    assert done.returncode == -signal.SIGKILL
    assert _has_log(folder)
    assert os.path.getsize(folder / "catalog.sqlite-wal") > 0
    after = _open(folder)
    with after.read() as reader:
        assert reader.cursor("last") == 1
    _commit(after, "b")
    assert _kept(folder, "ab") == "ab"
    after.close()
    assert not _has_log(folder)
