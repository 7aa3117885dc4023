"""Connections to PostgreSQL that break at every statement of a commit, and sessions that end; and
what a small commit costs in round trips.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.assembly import assemble
from cas.catalog import postgres_blocks
from cas.clock import SystemClock
from cas.errors import OutcomeUnknown, StorageFailed
from cas.maintenance.fsck.check import fsck
from cas.objects.store import ObjectStore
from cas.testing import stores
from cas.testing.wire import Side, WireProxy
from tests.databases import fresh_url
from tests.unit.kit import commits, write
from tools.postgres_server import PostgresServer


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[tuple[WireProxy, str]]:
    """A proxy in front of the server, and the folder of its socket."""
    # Socket paths are short, and those of pytest are not.
    with tempfile.TemporaryDirectory(prefix="cas-wire-") as folder:
        target = str(postgres.folder / f".s.PGSQL.{postgres.port}")
        made = WireProxy(folder, target, postgres.port)
        yield made, folder
        made.close()


def through(proxy: tuple[WireProxy, str], url: str, postgres: PostgresServer) -> str:
    """A URL of the same store through the proxy."""
    return url.replace(str(postgres.folder), proxy[1])


@pytest.fixture
def url(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a new store."""
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    made = f"{fresh_url(postgres)}&bucket={tmp_path / 'packs'}"
    cas.init(made)
    return made


class _Counting:
    """A bucket that counts what is asked of it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._inner, name)


def test_a_small_commit_is_three_round_trips_and_no_request_to_the_bucket(
    proxy: tuple[WireProxy, str], url: str, postgres: PostgresServer
) -> None:
    """To begin is to ask whether anybody came; to commit is the lock, and all with COMMIT."""
    catalog, bucket = stores.parts(through(proxy, url, postgres), SystemClock())
    counting: Any = _Counting(bucket)
    store = assemble(ObjectStore(catalog, counting, SystemClock()), url)
    commits(store, 8)  # statements are prepared, the first checkpoint is far
    for number in range(5):
        counting.calls.clear()
        proxy[0].arm()
        with store.begin() as tx:
            assert proxy[0].trips == 1
            tx.branch("main")["n"] = b"again %d" % number
            tx.commit()
        assert proxy[0].trips == 3
        assert counting.calls == []
    store.objects.close()


def test_a_writer_catches_up_by_one_query(
    proxy: tuple[WireProxy, str], url: str, postgres: PostgresServer
) -> None:
    """What others committed comes with the question whether anybody did, or as one more query
    inside the lock.
    """
    other = cas.open(url)
    with cas.open(through(proxy, url, postgres)) as store:
        commits(store, 8)
        commits(other, 7, "theirs")
        # Statements of the way behind the lock are prepared here.
        with store.begin() as tx:
            tx.branch("main")["n"] = b"x"
            commits(other, 2, "theirs")
            tx.commit()
        commits(other, 5, "theirs")
        proxy[0].arm()
        write(store, files={"n": b"y"})
        assert proxy[0].trips == 3
        with store.begin() as tx:
            tx.branch("main")["n"] = b"z"
            commits(other, 5, "theirs")
            proxy[0].arm()
            tx.commit()
        assert proxy[0].trips == 3
    other.close()


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("large", [False, True], ids=["inline", "pack file"])
def test_a_connection_that_breaks_anywhere_in_a_commit(
    side: Side, large: bool, proxy: tuple[WireProxy, str], url: str, postgres: PostgresServer
) -> None:
    """Whatever round trip it breaks at, before the server saw it or behind its answer: the commit
    stands and is told, or it does not and is told; the handle goes on, and nothing is there twice.
    """
    with cas.open(through(proxy, url, postgres)) as store:
        commits(store, 3)
        seq = store.view().seq
        for at in range(1, 40):
            content = os.urandom(100_000) if large else b"%d" % at
            proxy[0].arm(at, side)
            try:
                entry = write(store, files={"n": content})
            except StorageFailed:
                entry = None
            except OutcomeUnknown as error:
                raise AssertionError("the server could be asked") from error
            if not proxy[0].has_cut:
                break
            proxy[0].arm()
            with cas.open(url, read_only=True) as fresh:
                found = [e.seq for e in fresh.journal()]
                assert found == list(range(1, len(found) + 1))
                stands = fresh.snapshot("main")["n"] == content
                assert len(found) - seq in ((1,) if entry is not None else (0,))
                assert stands is (entry is not None)
                seq = len(found)
            write(store, files={"n": b"goes on %d" % at})
            seq += 1
        else:
            raise AssertionError("a commit has no end")
        assert at >= 3
        assert store.snapshot("main")["n"] == content
        assert fsck(store).ok


def test_a_put_and_a_read_survive_a_lost_connection(
    proxy: tuple[WireProxy, str], url: str, postgres: PostgresServer
) -> None:
    """What only asks is asked again on a new connection; a put that is told is there."""
    with cas.open(through(proxy, url, postgres)) as store:
        commits(store, 2)
        for at in range(1, 30):
            proxy[0].arm(at, "after" if at % 2 else "before")
            content = b"put %d" % at
            try:
                id = store.put(content)
            except StorageFailed:
                id = None
            done = not proxy[0].has_cut
            proxy[0].arm()
            if id is not None:
                assert store.get(id) == content
            if done:
                break
        proxy[0].arm(1, "before")
        assert store.view().seq == 2
        proxy[0].arm(1, "before")
        assert store.objects.catalog.head_seq() == 2


def test_sessions_that_the_server_ends(url: str, postgres: PostgresServer) -> None:
    """An administrator ends all sessions: idle handles go on as if nothing had been."""
    with cas.open(url) as store:
        commits(store, 2)
        for _ in range(3):
            postgres.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'cas'"
            )
            write(store, files={"n": os.urandom(8)})
            store.put(os.urandom(200_000))
        assert store.view().seq == 5


def test_a_session_that_is_ended_inside_the_lock(url: str, postgres: PostgresServer) -> None:
    """A writer whose session ends while it holds the head is told, and has written nothing."""
    with cas.open(url) as store:
        commits(store, 1)
        catalog = store.objects.catalog

        def ended() -> None:
            with catalog.write() as writer:
                writer.set_cursor("n", 1)
                postgres.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'cas' AND state = 'idle in transaction'"
                )

        with pytest.raises(OutcomeUnknown):
            ended()
        with catalog.read() as reader:
            assert reader.cursor("n") is None
        commits(store, 1)


def test_a_writer_that_stands_still_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops with the head in its hands is ended by the server, and others go on."""
    monkeypatch.setattr(postgres_blocks, "IDLE_IN_GATE", "100ms")
    with cas.open(url) as one, cas.open(url) as two:
        catalog = one.objects.catalog

        def stand() -> None:
            with catalog.write() as writer:
                writer.set_cursor("n", 1)
                # Waits for the head, for as long as the other has it.
                write(two)

        with pytest.raises(OutcomeUnknown):
            stand()
        with catalog.read() as reader:
            assert (reader.cursor("n"), reader.head().seq) == (None, 1)


def test_two_handles_wait_for_each_other_at_the_head(url: str) -> None:
    """Keyed transactions that are retried through another handle commit once."""
    with cas.open(url) as one, cas.open(url) as two:
        first = write(one, key="k")
        assert write(two, key="k").seq == first.seq
        assert one.view().seq == 1
