"""A store that was copied or moved is not written to until somebody says which it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

import cas
from cas.catalog.catalog import SessionRow
from cas.catalog.place import Place, ancestor, place_of
from cas.errors import SessionExpired, StoreMoved, StoreNotFound
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from tests.tidy.source import ROOT
from tests.unit.kit import commits, write

HOLDER = """
import sys, cas
with cas.open(sys.argv[1]) as store:
    def commit(number):
        with store.begin() as tx:
            tx.branch("main")["n"] = b"%d" % number
            tx.commit()
    commit(1)
    print("open", flush=True)
    sys.stdin.readline()
    commit(2)
    print("done", flush=True)
    sys.stdin.readline()
"""


def meta(folder: Path) -> dict[str, Any]:
    """What a catalog says of itself."""
    with closing(apsw.Connection(str(folder / "catalog.sqlite"))) as connection:
        return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def content(folder: Path) -> bytes:
    """What the file `n` holds, read-only."""
    with cas.open(folder, read_only=True) as store:
        return store.snapshot("main")["n"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A closed store with one commit."""
    with cas.open(tmp_path / "made", create=True) as store:
        write(store, files={"n": b"0"})
    return tmp_path / "made"


@pytest.fixture
def copy(made: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, made.with_name("copy")))


@pytest.fixture
def elsewhere(made: Path) -> Iterator[Path]:
    """It, moved onto another file system."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == os.stat(made).st_dev:
        pytest.skip("there is no second file system here to move a store onto")
    other = Path("/dev/shm") / f"cas-test-moved-{os.getpid()}"
    shutil.move(made, other)
    yield other
    shutil.rmtree(other)


def refused(folder: Path) -> str:
    """The message with which a writing handle is refused."""
    before = meta(folder)
    with pytest.raises(StoreMoved) as caught:
        cas.open(folder)
    assert caught.value.path == str(folder)
    assert meta(folder) == before
    return caught.value.message


def test_a_copy_can_be_read_and_not_be_written(made: Path, copy: Path) -> None:
    """A copied folder opens for reading only; the message names both ways out."""
    message = refused(copy)
    assert f"cas init --moved {copy}" in message
    assert f"cas init --fork {copy}" in message
    assert content(copy) == b"0"
    with cas.open(copy, read_only=True) as store:
        assert fsck(store).ok
    with pytest.raises(StoreMoved):
        cas.open(copy, create=True)
    assert cas.init(copy) is False
    with cas.open(made) as store:
        commits(store, 2)


def test_a_copy_taken_while_a_process_has_the_store_open(tmp_path: Path) -> None:
    """The other process goes on with its history, the fork with one of its own."""
    place, taken = tmp_path / "store", tmp_path / "taken"
    cas.init(place)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        shutil.copytree(place, taken)
        refused(taken)
        assert cas.adopt(taken, fork=True) is True
        with cas.open(taken) as store:
            write(store, files={"n": b"fork"})
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "done\n"
        child.stdin.write("\n")
    assert child.returncode == 0
    assert (content(place), content(taken)) == (b"2", b"fork")
    assert meta(place)["store_id"] == meta(taken)["store_id"]
    assert meta(place)["lineage_id"] != meta(taken)["lineage_id"]
    for folder in (place, taken):
        with cas.open(folder) as store:
            commits(store, 2)
            store.spill()
            assert fsck(store).ok


def test_a_store_may_be_renamed_on_its_file_system(made: Path) -> None:
    """A folder that was renamed, or whose parent was, is the same store."""
    parent = made.with_name("parent")
    parent.mkdir()
    made.rename(parent / "store")
    parent.rename(made.with_name("again"))
    with cas.open(made.with_name("again") / "store") as store:
        commits(store, 1)


def test_a_moved_store_goes_on(elsewhere: Path) -> None:
    """Moved onto another file system it is refused, and after `adopt` the store that it was."""
    refused(elsewhere)
    before = meta(elsewhere)
    assert cas.adopt(elsewhere, fork=False) is True
    assert meta(elsewhere)["lineage_id"] == before["lineage_id"]
    assert "ancestry" not in meta(elsewhere)
    with cas.open(elsewhere) as store:
        commits(store, 1)


@pytest.mark.parametrize("fork", [False, True])
def test_settling_twice_is_settling_once(copy: Path, fork: bool) -> None:
    """The second time nothing changes, and a store that was never moved is left alone."""
    assert cas.adopt(copy, fork=fork) is True
    after = meta(copy)
    for again in (fork, not fork):
        assert cas.adopt(copy, fork=again) is False
        assert meta(copy) == after
    cas.open(copy).close()


def test_of_many_that_fork_at_once_one_does(copy: Path) -> None:
    """All agree on the lineage that the one has drawn."""
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: cas.adopt(copy, fork=True), range(8)))
    assert sorted(done) == [False] * 7 + [True]
    assert len(meta(copy)["ancestry"]) == 24


def test_a_fork_tells_where_it_began(made: Path, copy: Path) -> None:
    """`meta.ancestry` holds each lineage before with the last seq of it, oldest first."""
    first = meta(made)["lineage_id"]
    cas.adopt(copy, fork=True)
    second = meta(copy)["lineage_id"]
    with cas.open(copy) as store:
        write(store, files={"n": b"second"})
        write(store, files={"n": b"third"})
    again = Path(shutil.copytree(copy, copy.with_name("again")))
    cas.adopt(again, fork=True)
    assert meta(again)["ancestry"] == ancestor(first, 1) + ancestor(second, 3)
    assert len({first, second, meta(again)["lineage_id"]}) == 3


def test_a_fork_fences_sessions_and_a_move_keeps_them(made: Path, copy: Path) -> None:
    """A session that was copied with its store has no right in the fork."""
    for folder, fork, left in ((made, False, 1), (copy, True, 0)):
        cas.adopt(folder, fork=False)
        with cas.open(folder) as store:
            catalog = store.objects.catalog
            with catalog.write() as writer:
                writer.put_session(SessionRow(b"s" * 16, 7, 0, 1, 0))
        other = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-2")))
        cas.adopt(other, fork=fork)
        with cas.open(other) as store, store.objects.catalog.read() as reader:
            assert len(reader.sessions()) == left


def test_a_kill_in_the_middle_leaves_the_copy_as_it_was(copy: Path) -> None:
    """Killed between any two statements, the copy is refused as before, and settled next time."""
    before = meta(copy)
    program = """
import os, sys, cas
from cas.catalog.statements import SqliteWriter
calls = 0
def dying(real):
    def call(self, *arguments):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os._exit(9)
        return real(self, *arguments)
    return call
SqliteWriter.set_meta = dying(SqliteWriter.set_meta)
SqliteWriter.sessions = dying(SqliteWriter.sessions)
cas.adopt(sys.argv[1], fork=True)
"""
    for at in (1, 2, 3):
        child = subprocess.run(
            [sys.executable, "-c", program, copy, str(at)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert child.returncode == 9
        refused(copy)
        assert meta(copy) == before
    assert cas.adopt(copy, fork=True) is True


def test_a_catalog_brought_back_alone_is_noticed(made: Path) -> None:
    """An older catalog beside newer packs is not written to."""
    catalog = made / "catalog.sqlite"
    older = shutil.copy(catalog, made.with_name("older"))
    with cas.open(made) as store:
        commits(store, 1)
    os.replace(older, catalog)
    refused(made)


def test_an_inode_number_that_came_again_does_not_hide_a_copy(made: Path) -> None:
    """The catalog's inode in a new folder: the folder's generation tells them apart."""
    if place_of(str(made / "catalog.sqlite")).generation is None:
        pytest.skip("this file system tells no generation of an inode")
    rebuilt = made.with_name("rebuilt")
    rebuilt.mkdir()
    for part in made.iterdir():
        part.rename(rebuilt / part.name)
    assert place_of(str(rebuilt / "catalog.sqlite")).inode == meta(rebuilt)["inode"]
    refused(rebuilt)


def test_a_catalog_with_two_names_is_not_written_to(made: Path, tmp_path: Path) -> None:
    """`cp -al` of a store: neither name is written to, and neither can be settled."""
    other = tmp_path / "linked"
    shutil.copytree(made, other, copy_function=os.link)
    for folder in (made, other):
        assert "hard-linked" in refused(folder)
        with pytest.raises(StoreMoved):
            cas.adopt(folder, fork=True)
        assert content(folder) == b"0"
    shutil.rmtree(other)
    with cas.open(made) as store:
        commits(store, 1)


def test_host_and_device_are_recorded_and_no_reason(made: Path) -> None:
    """Containers and remounts change both."""
    place = place_of(str(made / "catalog.sqlite"))
    assert place.values().items() <= meta(made).items()
    assert not place.differs(attrs.evolve(place, host="other", device=1))
    assert place.differs(attrs.evolve(place, inode=1))
    assert not place.differs(Place(None, None))
    with closing(apsw.Connection(str(made / "catalog.sqlite"))) as connection:
        connection.execute("UPDATE meta SET value = 'other' WHERE key = 'host'")
        connection.execute("UPDATE meta SET value = 1 WHERE key = 'device'")
    cas.open(made).close()


def test_a_place_without_a_store_is_not_settled(tmp_path: Path) -> None:
    """`adopt` makes nothing."""
    with pytest.raises(StoreNotFound):
        cas.adopt(tmp_path / "none", fork=True)
    assert not (tmp_path / "none").exists()


def test_a_session_opened_before_a_fork_cannot_end_after_it(store: Store) -> None:
    """Whoever slipped through with a file batch of the old lineage is refused by its fence."""
    with store.begin() as tx:
        tx.branch("main")["big"] = os.urandom(2 << 20)
        with store.objects.catalog.write() as writer:
            for session in writer.sessions():
                writer.drop_session(session.id)
        with pytest.raises(SessionExpired):
            tx.commit()


def test_settling_syncs_what_was_copied(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes that `cp` left to the system are on the disk before the copy counts, and once."""
    synced: list[bytes] = []
    real = os.sync

    def sync() -> None:
        synced.append(meta(copy)["lineage_id"])
        real()

    before = meta(copy)["lineage_id"]
    monkeypatch.setattr(os, "sync", sync)
    cas.adopt(copy, fork=True)
    cas.adopt(copy, fork=True)
    assert synced == [before]
