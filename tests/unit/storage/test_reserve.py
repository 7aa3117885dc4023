"""The reserve: a file that is there for a full disk, and never in the way."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cas
from cas.limits import RESERVE_FREE_BYTES_MAX
from cas.storage.reserve import LENT_BYTES, Reserve


def size_of(folder: Path) -> int:
    """Bytes of the reserve in a folder, -1 where there is none."""
    file = folder / "reserve"
    return file.stat().st_size if file.exists() else -1


def test_it_grows_is_lent_and_given_up(disk: Path) -> None:
    """It has the bytes that were asked for, never fewer than before; giving up what is not there
    is no failure, and nothing that can be compressed fills it.
    """
    reserve = Reserve(str(disk))
    assert not reserve.lend()
    reserve.give_up()
    reserve.keep(0, os.urandom)
    assert size_of(disk) == -1
    reserve.keep(300_000, os.urandom)
    first = (disk / "reserve").read_bytes()
    assert len(set(first)) == 256
    reserve.keep(200_000, os.urandom)
    assert (disk / "reserve").read_bytes() == first
    reserve.keep(3_000_000, os.urandom)
    assert size_of(disk) == 3_000_000
    assert reserve.lend()
    assert size_of(disk) == 3_000_000 - LENT_BYTES
    for _ in range(50):
        reserve.lend()
    assert size_of(disk) == 0
    assert not reserve.lend()
    reserve.give_up()
    assert size_of(disk) == -1


def test_many_make_it_at_once(disk: Path) -> None:
    """It is no larger for it."""
    threads = [
        threading.Thread(target=Reserve(str(disk)).keep, args=(2_500_000, os.urandom))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert size_of(disk) == 2_500_000


def test_it_is_not_made_of_the_last_room(small_disk: Path) -> None:
    """On a disk that is nearly full from the start there is none, and what was begun is undone;
    with room it is made.
    """
    reserve = Reserve(str(small_disk))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    reserve.keep(500_000, os.urandom)
    assert size_of(small_disk) == -1

    def greedy(count: int) -> bytes:
        # Others take the room meanwhile.
        ballast.write_bytes(bytes(3_000_000))
        return os.urandom(count)

    ballast.unlink()
    reserve.keep(600_000, greedy)
    assert size_of(small_disk) == 0
    ballast.unlink()
    reserve.keep(600_000, os.urandom)
    assert size_of(small_disk) == 600_000


def test_it_is_not_made_where_there_is_much_room(tmp_path: Path) -> None:
    """On a disk that is far from full there is none."""
    reserve = Reserve(str(tmp_path))
    reserve.keep(500_000, os.urandom)
    assert (size_of(tmp_path) == -1) == (reserve.free_bytes() >= RESERVE_FREE_BYTES_MAX)


def test_a_writer_that_stays_open_keeps_it(disk: Path) -> None:
    """A spill that commits have carried to its end makes it: nobody has to close the store."""
    with cas.open(disk / "store", create=True) as store:
        for _ in range(9):
            store.put_many([os.urandom(2000) for _ in range(500)])
        for _ in range(3000):
            if size_of(disk / "store" / "cache") >= 0:
                break
            store.put(os.urandom(100))
        assert size_of(disk / "store" / "cache") == 1 << 20


def test_who_may_not_write_or_has_no_folder_makes_none(disk: Path) -> None:
    """A folder that is missing, a store that was opened to be read, one in memory: no failure."""
    Reserve(None).keep(1 << 20, os.urandom)
    Reserve(str(disk / "missing")).keep(1 << 20, os.urandom)
    assert not (disk / "missing").exists()
    with cas.open(disk / "store", create=True) as store:
        store.put_many([os.urandom(50_000) for _ in range(200)])
        with cas.open(disk / "store", read_only=True) as reader:
            reader.objects.room.keep()
        assert size_of(disk / "store" / "cache") == -1
        store.spill()
        assert size_of(disk / "store" / "cache") == 1 << 20
        assert cas.fsck(store).findings == ()
        assert cas.stats(store).files.cache >= 1 << 20
    with cas.open(":memory:") as memory:
        memory.put_many([os.urandom(50_000) for _ in range(200)])
        memory.spill()
        memory.gc(grace_us=0)


def test_small_stores_have_none(disk: Path) -> None:
    """A store of some MiB would be half a reserve."""
    with cas.open(disk / "store", create=True) as store:
        store.put_many([os.urandom(50_000) for _ in range(100)])
        store.spill()
        store.gc(grace_us=0)
    assert size_of(disk / "store" / "cache") == -1
