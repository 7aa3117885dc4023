"""Places that are no stores, handles that may not write, disks that are full: typed errors."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

import cas
from cas.catalog.sqlite import create_catalog
from cas.errors import (
    CasError,
    CorruptCatalog,
    ForkedStore,
    Invalid,
    NewerFormat,
    NotAStore,
    ReadOnly,
    StorageFailed,
    StorageFull,
    StoreNotFound,
)
from cas.history.store import Store
from cas.testing import stores
from cas.testing.catalog_tables import META
from tests.unit.kit import commits, tamper, write

# -- places ----------------------------------------------------------------------------------


def test_places_that_are_no_stores(tmp_path: Path) -> None:
    """Absent, empty and foreign places each have their own error, and nothing is made there."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, error in (
        ("absent", StoreNotFound),
        ("empty", StoreNotFound),
        ("file", StoreNotFound),
        ("full", NotAStore),
    ):
        with pytest.raises(error):
            cas.open(tmp_path / name)
    for name in ("full", "file", "file/below"):
        with pytest.raises((NotAStore, StorageFailed)):
            cas.open(tmp_path / name, create=True)
    for create in (False, True):
        with pytest.raises(Invalid, match="NUL"):
            cas.open("a\0b", create=create)
    with pytest.raises(StoreNotFound):
        cas.open(tmp_path / "absent", create=True, read_only=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "full"]
    cas.open(tmp_path / "empty", create=True).close()
    cas.open(tmp_path / "new" / "deep" / "store", create=True).close()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a database", b"SQLite format 3\0" + bytes(4080), os.urandom(8192)],
    ids=["empty", "text", "zeros", "noise"],
)
def test_a_catalog_that_is_none(store: Store, content: bytes) -> None:
    """A catalog file that was replaced by something else is refused and left as it is."""
    write(store)
    store.close()
    path = Path(store.location) / "catalog.sqlite"
    good = path.read_bytes()
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises((CorruptCatalog, NotAStore)):
            cas.open(store.location, read_only=read_only)
    assert path.read_bytes() == content
    path.write_bytes(good)
    with cas.open(store.location) as again:
        assert dict(again.snapshot("main")) == {"file": b"1"}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_catalog_that_is_no_file(store: Store, kind: str) -> None:
    """A pipe or a folder by the name of the catalog is refused at once, not waited for."""
    store.close()
    path = Path(store.location) / "catalog.sqlite"
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    for ask in (
        lambda: cas.open(store.location, read_only=True),
        lambda: cas.open(store.location, create=True),
        lambda: cas.init(store.location),
    ):
        with pytest.raises(NotAStore, match="is no file"):
            ask()


@pytest.mark.parametrize("table", ["pack", "journal", "checkpoint", "meta"])
def test_a_catalog_that_lacks_a_table(store: Store, table: str) -> None:
    """A catalog without one of its tables is damaged, whatever is asked of it."""
    write(store)
    store.close()
    tamper(store, f"DROP TABLE {table}")

    def use() -> None:
        with cas.open(store.location) as again:
            again.snapshot("main").read("file")
            write(again, files={"more": b"2"})

    with pytest.raises(CorruptCatalog):
        use()


def test_a_catalog_cut_in_half(store: Store) -> None:
    """A catalog file that lost its end gives a typed error, never wrong answers."""
    commits(store, 50)
    store.close()
    path = Path(store.location) / "catalog.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 4096 * 4096])

    def use() -> None:
        with cas.open(store.location) as again:
            assert len(list(again.journal())) == 50
            list(again.log("main"))

    with pytest.raises(cas.Corrupt):
        use()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version = 2", "schema"),
        ("UPDATE meta SET value = 2 WHERE key = 'format'", "format"),
        ("UPDATE meta SET value = 'deltas2 purge' WHERE key = 'features'", "deltas2, purge"),
    ],
)
def test_a_store_of_a_newer_version(store: Store, statement: str, words: str) -> None:
    """What this version does not know is refused by name, for reading too, and kept as it is."""
    store.close()
    tamper(store, statement)
    for read_only in (False, True):
        with pytest.raises(NewerFormat, match=words):
            cas.open(store.location, read_only=read_only)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta WHERE key = 'store_id'",
        "UPDATE meta SET value = 'what' WHERE key = 'format'",
        "UPDATE meta SET value = NULL WHERE key = 'features'",
    ],
)
def test_a_catalog_that_does_not_say_what_it_is(store: Store, statement: str) -> None:
    """Missing or senseless meta values are damage."""
    store.close()
    tamper(store, statement)
    with pytest.raises(CasError):
        cas.open(store.location)


def test_a_database_of_somebody_else(tmp_path: Path) -> None:
    """An SQLite file without our application id is not a store."""
    create_catalog(str(tmp_path / "catalog.sqlite"), META)
    (tmp_path / "locks").mkdir()
    with cas.open(tmp_path) as bare:
        location = bare
    tamper(location, "PRAGMA application_id = 7")
    with pytest.raises(NotAStore):
        cas.open(tmp_path)


# -- handles that may not write --------------------------------------------------------------


def test_a_read_only_handle_reads_and_writes_nothing(store: Store) -> None:
    """Every write is refused as read-only, and not a byte of the folder changes by reading."""
    big = store.put(os.urandom(3 << 20))
    store.put(b"inline")
    write(store, files={"a": b"1"})
    location = Path(store.location)
    store.close()
    shutil.rmtree(location / "cache")
    (location / "cache").mkdir()

    def listing() -> list[tuple[str, int]]:
        return sorted(
            (str(p.relative_to(location)), p.stat().st_size)
            for p in location.rglob("*")
            # SQLite makes an empty log and its index beside them, and may not remove them.
            if p.is_file() and not p.name.endswith(("-shm", "-wal"))
        )

    before = listing()
    with cas.open(location, read_only=True) as reader:
        assert reader.read_only
        assert len(reader.get(big)) == 3 << 20
        assert dict(reader.snapshot("main")) == {"a": b"1"}
        refused: list[Callable[[], object]] = [
            lambda: reader.put(b"new"),
            lambda: reader.put(os.urandom(3 << 20)),
            lambda: write(reader, files={"b": b"2"}),
            reader.spill,
        ]
        reader.objects.lookup.refresh()
        for write_something in refused:
            with pytest.raises(ReadOnly):
                write_something()
    assert listing() == before
    logs = location.glob("*-wal")
    assert all(log.stat().st_size == 0 for log in logs)


def _as_nobody(work: Callable[[], bool]) -> None:
    """Run in a child that is not root; root may write anywhere."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(120)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            code = 0 if work() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_folder_that_cannot_be_written() -> None:
    """Where only reading is allowed, opening for writing says so, and reading works."""
    with stores.scratch() as folder:
        location = os.path.join(folder, "store")
        with cas.open(location, create=True) as store:
            write(store)
            big = store.put(os.urandom(3 << 20))
        paths = [Path(folder), Path(location), *Path(location).rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)

        def work() -> bool:
            try:
                cas.open(location)
            except ReadOnly:
                with cas.open(location, read_only=True) as reader:
                    found = dict(reader.snapshot("main")) == {"file": b"1"}
                    return found and len(reader.get(big)) == 3 << 20
            return False

        try:
            _as_nobody(work)
            with pytest.raises(ReadOnly) if os.geteuid() else nullcontext():
                cas.open(os.path.join(folder, "another"), create=True).close()
        finally:
            for path in paths:
                path.chmod(0o700)


def test_a_child_process_opens_its_own_handle(store: Store) -> None:
    """After a fork the child is refused the parent's handle, and closing it is harmless."""
    id = store.put(b"x")
    big = store.put(os.urandom(3 << 20))
    for at in range(3):
        store.put(b"%d" % at)
    assert len(store.get(big)) == 3 << 20, "hashed by threads that no child will have"
    assert store._spill._begin(), "a spill under way is the hardest to inherit"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(120)
            refused = 0
            for use in (lambda: store.put(b"y"), store.view, lambda: store.spill()):
                try:
                    use()
                except ForkedStore:
                    refused += 1
            store.close()
            with cas.open(store.location) as own:
                own.put(os.urandom(9 << 20))
                fine = own.get(id) == b"x" and len(own.get(big)) == 3 << 20
                code = 0 if refused == 3 and fine else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert store.spill() >= 4
    assert store.get(id) == b"x"


# -- a full disk -----------------------------------------------------------------------------


def fill(store: Store) -> None:
    """Commit until it fails."""
    for at in range(1000):
        write(store, files={f"f{at}": os.urandom(40_000)})


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    """Until the disk is full every commit stands; then each fails typed, and room helps."""
    ballast = small_disk / "ballast"
    with cas.open(small_disk / "store", create=True) as store:
        with pytest.raises(StorageFull):
            fill(store)
        done = store.view().seq
        assert done > 10
        for _ in range(3):
            with pytest.raises(StorageFull):
                store.put(os.urandom(2 << 20))
            with pytest.raises(StorageFull):
                write(store, files={"more": os.urandom(60_000)})
        assert store.view().seq == done
        assert len(store.snapshot("main")) == done
    assert not ballast.exists()
    with cas.open(small_disk / "store") as again:
        assert len(again.snapshot("main")) == done
        assert all(len(content) == 40_000 for content in again.snapshot("main").values())
        left = {p.suffix for p in (small_disk / "store" / "packs").iterdir()}
        assert ".tmp" not in left


def test_a_disk_with_room_again(small_disk: Path) -> None:
    """What failed for lack of room succeeds once there is some, on the same handle."""
    ballast = small_disk / "ballast"
    with cas.open(small_disk / "store", create=True) as store:
        write(store, files={"a": b"1"})
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass
        content = os.urandom(500_000)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            with pytest.raises(StorageFull):
                write(store, files={"b": content})
        assert len(os.listdir("/proc/self/fd")) - before < 10
        ballast.unlink()
        write(store, files={"b": content})
        assert dict(store.snapshot("main")) == {"a": b"1", "b": content}
    with cas.open(small_disk / "store") as again:
        assert dict(again.snapshot("main")) == {"a": b"1", "b": content}


LIMITED = """
import os, resource, signal, sys
import cas
from cas.errors import Unavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
store = cas.open(sys.argv[1], create=True)
failed = done = 0
for at in range(60):
    try:
        with store.begin() as tx:
            tx.branch("main")[f"f{at}"] = os.urandom(20_000)
            tx.commit()
        done += 1
    except Unavailable:
        failed += 1
try:
    store.put(os.urandom(3 << 20))
except Unavailable:
    failed += 1
assert len(store.snapshot("main")) == done
print(done, failed)
"""


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """With a limit on the size of files, commits fail typed, and what was committed stands."""
    assert resource.RLIMIT_FSIZE is not None
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cas.__file__).parent.parent,
    )
    assert run.returncode == 0, run.stderr
    done, failed = map(int, run.stdout.split())
    assert done > 3
    assert failed > 3
    with cas.open(tmp_path / "store") as store:
        assert len(store.snapshot("main")) == done
        assert len(list(store.snapshot("main").values())) == done
        write(store, files={"after": os.urandom(3 << 20)})
