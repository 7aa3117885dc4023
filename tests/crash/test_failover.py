"""A primary and a standby, real ones: what becomes of commits when the primary is killed, the
standby promoted, the wait for it cut short, or what was promoted lacked what had been seen.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.catalog import postgres_link
from cas.catalog.postgres_place import parse
from cas.errors import CasError, HistoryLost, OutcomeUnknown, ReadOnly, StorageFailed
from cas.history import watch
from cas.maintenance.fsck.check import fsck
from cas.testing.wire import Side, WireProxy
from tests.unit.kit import commits, write
from tools.postgres_server import NoServer, PostgresServer, serving

Pair = tuple[PostgresServer, PostgresServer]

_WAIT_S = 60


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A primary, and a standby that follows it; caches of this test alone."""
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    try:
        with serving({"fsync": "off"}) as primary:
            standby = PostgresServer(primary.folder / "standby", {"fsync": "off"})
            standby.copy_of(primary)
            standby.start()
            try:
                yield primary, standby
            finally:
                standby.stop("immediate")
    except NoServer as error:
        pytest.skip(f"no PostgreSQL: {error}")


@pytest.fixture
def synchronous(pair: Pair) -> Pair:
    """The same; nothing counts before the standby has it."""
    pair[0].follow()
    return pair


@pytest.fixture
def proxy(pair: Pair) -> Iterator[tuple[WireProxy, str]]:
    """A proxy in front of the primary, and the folder of its socket."""
    with tempfile.TemporaryDirectory(prefix="cas-wire-") as folder:
        target = str(pair[0].folder / f".s.PGSQL.{pair[0].port}")
        made = WireProxy(folder, target, pair[0].port)
        yield made, folder
        made.close()


def _both(pair: Pair, packs: Path, *, first: str | None = None, more: str = "") -> str:
    """A URL that names both servers, the primary first or what stands before it."""
    hosts = f"{first or pair[0].folder},{pair[1].folder}"
    ports = ",".join(str(server.port) for server in pair)
    return f"postgresql://postgres@/postgres?host={hosts}&port={ports}&bucket={packs}{more}"


def _caught_up(pair: Pair) -> None:
    (lsn,) = pair[0].run("SELECT pg_current_wal_flush_lsn()")[0]
    while not pair[1].run(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'")[0][0]:
        pass


def _waiting(server: PostgresServer, *but: int) -> int:
    """The process that waits for the standby, once there is one other than `but`."""
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        for (pid,) in server.run("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
            if pid not in but:
                return int(pid)
        time.sleep(0.01)
    raise AssertionError("no commit waits for the standby")


# -- nothing is lost ----------------------------------------------------------------------------


def test_acknowledged_commits_outlive_a_primary_that_is_killed(
    synchronous: Pair, tmp_path: Path
) -> None:
    """Writers at work, the primary killed in the middle of it: all that was told as committed is
    there on the promoted standby, what was in doubt has one answer, and the handles go on.
    """
    url = _both(synchronous, tmp_path / "packs")
    cas.init(url)
    told: dict[bytes, int] = {}
    doubted: list[bytes] = []
    enough = threading.Event()

    def work(store: cas.Store, number: int) -> None:
        for turn in range(10_000):
            try:
                tx = store.begin()
                tx.branch(f"writer/{number}")["n"] = b"%d %d" % (number, turn)
                told[tx.txid] = tx.commit().seq
            except OutcomeUnknown:
                doubted.append(tx.txid)
                return
            except CasError:
                return
            if len(told) > 60:
                enough.set()

    stores = [cas.open(url) for _ in range(3)]
    threads = [
        threading.Thread(target=work, args=(stores[number % 3], number)) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    assert enough.wait(_WAIT_S)
    synchronous[0].kill()
    for thread in threads:
        thread.join()
    synchronous[1].promote()
    for store in stores:
        entries = {entry.txid: entry.seq for entry in store.journal()}
        assert told.items() <= entries.items()
        for txid in doubted:
            found = store.outcome(txid)
            assert (None if found is None else found.seq) == entries.get(txid)
        # Nothing stands that nobody was told of, or left in doubt about.
        assert entries.keys() <= told.keys() | set(doubted)
    for store in stores:
        write(store)
        assert fsck(store).ok
        store.close()


@pytest.mark.parametrize(
    ("at", "side", "stands"),
    [(2, "before", True), (3, "before", False), (3, "after", True)],
    ids=["before the lock", "before the commit", "behind the commit"],
)
def test_a_lost_answer_is_found_on_the_new_primary(
    at: int,
    side: Side,
    stands: bool,
    synchronous: Pair,
    proxy: tuple[WireProxy, str],
    tmp_path: Path,
) -> None:
    """The primary dies at a round trip of a commit, and the standby takes over before the client
    knows: the call itself gives the one right answer, from there.
    """

    def fail_over() -> None:
        synchronous[0].kill()
        synchronous[1].promote()

    with cas.open(_both(synchronous, tmp_path / "packs", first=proxy[1]), create=True) as store:
        commits(store, 3)
        proxy[0].arm(at, side, fail_over)
        if stands:
            assert write(store, files={"n": b"in doubt"}).seq == 4
        else:
            with pytest.raises(StorageFailed):
                write(store, files={"n": b"in doubt"})
        assert proxy[0].has_cut
        assert store.view().seq == (4 if stands else 3)
        write(store, files={"n": b"goes on"})
        assert fsck(store).ok


@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_wait_for_the_standby_that_is_cut_short(
    how: str, synchronous: Pair, tmp_path: Path
) -> None:
    """The standby is away, and the administrator ends the commit that waits for it: it is told as
    done once the standby has it, and outlives the primary then.
    """
    primary, standby = synchronous
    url = _both(synchronous, tmp_path / "packs")
    with cas.open(url, create=True) as store:
        commits(store, 2)
        standby.stop()
        seqs: list[int] = []
        thread = threading.Thread(target=lambda: seqs.append(write(store, key="k").seq))
        thread.start()
        pid = _waiting(primary)
        primary.run(f"SELECT {how}({pid})")
        # The session may be the same one: the wait has to end before another is looked for.
        again = _waiting(primary, *([pid] if how == "pg_terminate_backend" else []))
        assert again
        with cas.open(url, read_only=True) as reader:
            assert (reader.view().seq, seqs) == (3, [])
        standby.start()
        thread.join(_WAIT_S)
        assert seqs == [3]
        primary.kill()
        standby.promote()
        assert store.view().seq == 3
        assert write(store, key="k").seq == 3
        commits(store, 1)


def test_a_key_is_not_answered_before_the_standby_has_its_entry(
    synchronous: Pair, tmp_path: Path
) -> None:
    """A primary that was restarted shows what its standby lacks: whoever asks for it waits."""
    primary, standby = synchronous
    url = _both(synchronous, tmp_path / "packs")
    store = cas.open(url, create=True)
    commits(store, 1)
    standby.stop()
    ended: list[type[Exception]] = []

    def ask(key: str, call: Callable[[cas.Store], Any]) -> None:
        try:
            with cas.open(url) as other:
                call(other)
        except CasError as error:
            ended.append(type(error))

    thread = threading.Thread(target=ask, args=("k", lambda other: write(other, key="k")))
    thread.start()
    _waiting(primary)
    primary.kill()
    thread.join(_WAIT_S)
    assert ended == [OutcomeUnknown]
    primary.start()
    assert store.view().seq == 2  # it stands here, and nowhere else
    calls: list[Callable[[cas.Store], Any]] = [
        lambda other: write(other, key="k"),
        lambda other: other.outcome("k"),
    ]
    waits = [threading.Thread(target=ask, args=("k", call)) for call in calls]
    for wait in waits:
        wait.start()
    _waiting(primary)
    assert all(wait.is_alive() for wait in waits)
    standby.start()
    for wait in waits:
        wait.join(_WAIT_S)
    assert ended == [OutcomeUnknown]
    primary.kill()
    standby.promote()
    found = store.outcome("k")
    assert found is not None
    assert found.seq == 2
    store.close()


def test_less_than_a_standby_is_not_enough(synchronous: Pair) -> None:
    """Where the database is set to acknowledge before the standby has it, `cas` is not."""
    primary = synchronous[0]
    for setting in ("local", "remote_write", "off"):
        primary.run(f"ALTER ROLE postgres SET synchronous_commit = {setting}")
        connection = postgres_link.connect(parse(primary.url()), read_only=False)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        connection.close()


# -- who answers --------------------------------------------------------------------------------


def test_commits_are_resolved_on_the_primary_alone(
    synchronous: Pair, proxy: tuple[WireProxy, str], tmp_path: Path
) -> None:
    """A standby that is reached, and lacks nothing, settles no commit that is in doubt, whatever
    the URL lets in; once it is the primary it does.
    """
    url = _both(synchronous, tmp_path / "packs", first=proxy[1], more="&target_session_attrs=any")
    with cas.open(url, create=True) as store:
        commits(store, 2)
        tx = store.begin()
        tx.branch("main")["n"] = b"in doubt"
        _caught_up(synchronous)
        proxy[0].arm(2, "after", synchronous[0].kill)
        with pytest.raises(OutcomeUnknown):
            tx.commit()
        with pytest.raises(ReadOnly):
            store.outcome(tx.txid)
        alone = f"{synchronous[1].url()}&bucket={tmp_path / 'packs'}"
        with cas.open(alone, read_only=True) as reader, pytest.raises(ReadOnly):
            reader.outcome(b"never seen......")
        synchronous[1].promote()
        found = store.outcome(tx.txid)
        assert found is not None
        assert found.seq == 3
        commits(store, 1)


def test_a_handle_finds_the_new_primary_by_itself(pair: Pair, tmp_path: Path) -> None:
    """Of several hosts the one that takes writes; while there is none the calls fail, and the
    handle is as good as before once there is.
    """
    with cas.open(_both(pair, tmp_path / "packs"), create=True) as store:
        commits(store, 5)
        _caught_up(pair)
        pair[0].stop("immediate")
        calls: list[Callable[[], Any]] = [
            lambda: write(store),
            store.view,
            lambda: store.put(os.urandom(200_000)),
        ]
        for call in calls:
            with pytest.raises(StorageFailed):
                call()
        pair[1].promote()
        commits(store, 2)
        store.put(os.urandom(200_000))
        assert store.view().seq == 7
        assert fsck(store).ok


def test_a_follower_and_an_upload_go_on_on_the_new_primary(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows is told that there is no primary, and by the new one of what comes; a batch
    with pack files that was begun on the old one ends on the new one, with its session.
    """
    monkeypatch.setattr(watch, "TOLD_MS", 3_600_000)
    url = _both(pair, tmp_path / "packs")
    with cas.open(url, create=True) as store, cas.open(url) as other:
        follower = other.follow()
        seen: list[int] = []

        def follow() -> None:
            while len(seen) < 5:
                try:
                    seen.append(next(follower).seq)
                except StorageFailed:  # there is no primary; it goes on where it was
                    time.sleep(0.05)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        commits(store, 2)
        contents = [os.urandom(3_000_000) for _ in range(4)]
        with store.batch() as batch:
            ids = [batch.put(content) for content in contents[:2]]
            _caught_up(pair)
            pair[0].kill()
            pair[1].promote()
            ids += [batch.put(content) for content in contents[2:]]
        assert [store.get(id) for id in ids] == contents
        commits(store, 3)
        thread.join(_WAIT_S)
        assert seen == [1, 2, 3, 4, 5]
        assert fsck(store).ok


def test_a_standby_is_read_and_not_written(pair: Pair, tmp_path: Path) -> None:
    """A standby serves who opens read-only, and is refused by name for anybody else."""
    with cas.open(_both(pair, tmp_path / "packs"), create=True) as store:
        commits(store, 3)
        _caught_up(pair)
        alone = f"{pair[1].url()}&bucket={tmp_path / 'packs'}"
        with cas.open(alone, read_only=True) as reader:
            assert reader.snapshot("main")["n"] == b"2"
        with pytest.raises(CasError, match="cannot be reached"):
            cas.open(alone)


# -- what was lost is told ----------------------------------------------------------------------


def _lose(pair: Pair, store: cas.Store) -> None:
    """Three commits that the standby has, two that it lacks, and its promotion."""
    commits(store, 3)
    _caught_up(pair)
    pair[1].stop()
    commits(store, 2)
    pair[0].stop("immediate")
    pair[1].start()
    pair[1].promote()


def test_failover_to_a_standby_that_lags_is_refused(pair: Pair, tmp_path: Path) -> None:
    """Acknowledged entries that the new primary lacks: no read, no write, by this handle or by one
    that is opened later in the same place, until somebody has said that they are given up.
    """
    url = _both(pair, tmp_path / "packs")
    with cas.open(url, create=True) as store:
        _lose(pair, store)
        calls: list[Callable[[], Any]] = [
            lambda: write(store),
            store.view,
            lambda: store.put(b"x"),
            lambda: cas.open(url),
            lambda: cas.open(url, read_only=True),
        ]
        for call in calls:
            with pytest.raises(HistoryLost):
                call()
        assert cas.adopt(url, fork=False)
        assert not cas.adopt(url, fork=False)
        with cas.open(url) as anew:
            assert anew.view().seq == 3
            commits(anew, 4)
        # Longer than what was lost by now, and still another history.
        for call in calls[:3]:
            with pytest.raises(HistoryLost):
                call()
    cas.open(url).close()


def test_another_history_of_the_same_length_is_refused_later(pair: Pair, tmp_path: Path) -> None:
    """What was lost and what came in its place may be as long: the hashes tell them apart."""
    url = _both(pair, tmp_path / "packs")
    with cas.open(url, create=True) as store:
        _lose(pair, store)
    # From another machine, where nothing was seen of what is gone.
    os.rename(tmp_path / "caches", tmp_path / "kept")
    with cas.open(url) as other:
        commits(other, 3)
    for path in (tmp_path / "caches").rglob("seen-*"):
        path.unlink()
    for path in (tmp_path / "kept").rglob("seen-*"):
        os.rename(path, tmp_path / "caches" / path.relative_to(tmp_path / "kept"))
    with pytest.raises(HistoryLost):
        cas.open(url)


def test_what_was_seen_may_be_damaged_or_gone(pair: Pair, tmp_path: Path) -> None:
    """A note that is torn, empty or removed refuses nothing; the next commit writes it anew."""
    url = _both(pair, tmp_path / "packs")
    with cas.open(url, create=True) as store:
        commits(store, 2)
    (path,) = (tmp_path / "caches").rglob("seen-*")
    sound = path.read_bytes()
    for damaged in (b"", sound[:20], sound[:-1] + bytes([sound[-1] ^ 1]), bytes(len(sound))):
        path.write_bytes(damaged)
        with cas.open(url) as store:
            assert store.view().seq == 2
        assert path.read_bytes() == sound
    path.unlink()
    with cas.open(url) as store:
        commits(store, 1)
        assert path.read_bytes()[16:24] == (3).to_bytes(8, "big")


def test_a_standby_that_lags_may_be_read_where_more_was_seen(pair: Pair, tmp_path: Path) -> None:
    """A standby that is one is behind by nature: a later open to read from it is let in."""
    url = _both(pair, tmp_path / "packs", more="&target_session_attrs=any")
    with cas.open(url, create=True) as store:
        commits(store, 3)
        _caught_up(pair)
        pair[1].run("SELECT pg_wal_replay_pause()")
        commits(store, 2)
    pair[0].stop("immediate")
    with cas.open(url, read_only=True) as reader:
        assert reader.view().seq == 3
