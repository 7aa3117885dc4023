"""The index that hosts share on a server: followers at once, faults, damage, rights."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.catalog.postgres_schema import grants
from cas.errors import AccessDenied, Invalid, StorageFailed
from cas.history.store import Store
from cas.recall import arena, postgres, rows
from cas.recall import postgres_dialect as dialect
from cas.recall.arena import Arena
from cas.recall.recall import Recall
from cas.workspace.memories import Memory
from tests.databases import fresh_url
from tests.unit.recall.kit import SENTENCES, commit, memory
from tests.unit.recall.test_projection import OtherModel, dump, edits
from tools.postgres_server import PostgresServer

# -- several hosts -------------------------------------------------------------------------------


def test_followers_at_once_take_each_entry_in_once(hosted: Store, rng: random.Random) -> None:
    """Four handles follow while others commit; what they made is what one makes alone."""
    stop = threading.Event()
    faults: list[BaseException] = []
    edits(hosted, rng, 3)

    def follow() -> None:
        try:
            with Recall(hosted) as recall:
                while not stop.is_set():
                    found = recall.recall("releases and tokens", budget_tokens=60)
                    assert found.seq <= hosted.view().seq
                    assert recall.count(Memory, as_of=found.seq) <= 8
                assert recall.projection.notices == []
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    edits(hosted, rng, 25)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not faults
    with Recall(hosted) as recall:
        made = dump(recall)
        assert recall.projection.notices == []
        recall.projection.rebuild()
        assert dump(recall) == made


def test_whose_index_was_made_anew_reads_the_new_one(hosted: Store, rng: random.Random) -> None:
    """A handle whose index another one throws away answers from the new one, also where its rows
    have other numbers by then.
    """
    edits(hosted, rng, 6)
    with Recall(hosted) as one, Recall(hosted) as two:
        before = one.recall("releases and tokens")
        assert two.recall("releases and tokens") == before
        for _ in range(2):
            two.projection.rebuild()
            assert one.recall("releases and tokens") == before
            assert one.count(Memory) == two.count(Memory)
        assert one.projection.made == 2
        two.projection.rebuild()
        commit(hosted, memory("new", "Tokens are released."))
        assert one.find(Memory, match="token", order="-time").items[0].id == "new"
        assert not one.projection.notices


def test_who_comes_second_waits_for_its_turn(hosted: Store, rng: random.Random) -> None:
    """A follower that finds another in the middle takes in what that one has left, and no more."""
    edits(hosted, rng, 6)
    middle, go_on = threading.Event(), threading.Event()

    class Held(OtherModel):
        def embed(self, texts: Any) -> Any:
            middle.set()
            assert go_on.wait(60)
            return super().embed(texts)

    with Recall(hosted, embedder=Held()) as first, Recall(hosted, embedder=None) as second:
        done: list[Any] = []
        threads = [threading.Thread(target=lambda: done.append(first.follow()))]
        threads[0].start()
        assert middle.wait(60)
        threads.append(threading.Thread(target=lambda: done.append(second.follow())))
        threads[1].start()
        threads[1].join(0.3)
        assert not done
        go_on.set()
        for thread in threads:
            thread.join(60)
        assert sorted(each.records for each in done)[0] == 0
        assert {each.seq for each in done} == {hosted.view().seq}
        assert first.projection.notices == second.projection.notices == []


def test_nobody_throws_away_what_another_has_made_anew(hosted: Store, rng: random.Random) -> None:
    """Of two who find the index damaged the second one takes what the first has made."""
    edits(hosted, rng, 4)
    with Recall(hosted) as one, Recall(hosted) as two:
        made = dump(one)
        two.follow()
        seen = two.projection._database
        one.projection.rebuild()
        two.projection._home.remove(seen)
        assert dump(one) == made
        assert one.projection.made == 1


def test_who_reads_is_not_disturbed_by_who_makes_anew(hosted: Store, rng: random.Random) -> None:
    """An answer under way sees its state to the end; the index is thrown away behind it."""
    edits(hosted, rng, 4)
    with Recall(hosted) as one, Recall(hosted) as two:
        one.follow()
        two.follow()
        rebuilding = threading.Thread(target=two.projection.rebuild)

        def read(db: Any) -> bool:
            first = db.rows("SELECT doc, id FROM @item ORDER BY doc")
            rebuilding.start()
            rebuilding.join(0.3)
            assert rebuilding.is_alive()
            return bool(first) and first == db.rows("SELECT doc, id FROM @item ORDER BY doc")

        assert one.projection.read(read)
        rebuilding.join(60)
        assert two.projection.seq == hosted.view().seq


_CHILD = """
import sys, time
import cas
from cas.recall.recall import Recall

class Slow:
    identity, dimensions = "slow:1", 3
    def embed(self, texts):
        print("in the middle", flush=True)
        time.sleep(600)

with cas.open(sys.argv[1]) as store, Recall(store, embedder=Slow()) as recall:
    recall.follow()
"""


_TYPES = (
    "from cas.recall.recall import Recall; from cas.recall.rows import shapes; print(*shapes())"
)


def test_a_killed_follower_leaves_nothing_and_holds_nobody_up(
    hosted: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is killed in the middle of a transaction, with the turn in its hands, has taken nothing
    in; the next one takes in all of it.
    """
    # An index is of certain types, and other tests have declared some that the child lacks.
    known = subprocess.check_output([sys.executable, "-c", _TYPES], text=True).split()
    same = {name: shape for name, shape in rows.shapes().items() if name in known}
    monkeypatch.setattr("cas.recall.projection.shapes", lambda: same)
    edits(hosted, rng, 4)
    url = hosted.location
    with Recall(hosted, embedder=None) as recall:
        recall.follow()
    edits(hosted, rng, 4)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"in the middle\n"
        with Recall(hosted, embedder=None) as waiting:
            done: list[Any] = []
            thread = threading.Thread(target=lambda: done.append(waiting.follow()))
            thread.start()
            thread.join(0.3)
            assert not done
            child.send_signal(signal.SIGKILL)
            thread.join(120)
            assert done[0].seq == hosted.view().seq
            assert done[0].records > 4
            made = dump(waiting)
            waiting.projection.rebuild()
            assert dump(waiting) == made
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _end_searchers(postgres: PostgresServer) -> None:
    """End every connection that search settled in, as a network would."""
    postgres.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND (query LIKE '%_search%' OR query LIKE '%pg_advisory_xact_lock%'"
        " OR query LIKE '%join_collapse_limit%')"
    )


def test_a_connection_that_drops_is_made_again(
    hosted: Store, postgres: PostgresServer, rng: random.Random
) -> None:
    """Between questions, inside one, and in the middle of following: the answer is the same."""
    edits(hosted, rng, 5)

    class Cutting(OtherModel):
        """Cuts the line when it is asked for the first time."""

        cuts = 1

        def embed(self, texts: Any) -> Any:
            if self.cuts:
                self.cuts -= 1
                _end_searchers(postgres)
            return super().embed(texts)

    with Recall(hosted) as recall, Recall(hosted, index=":memory:") as file:
        expected = file.recall("releases and tokens")
        assert recall.recall("releases and tokens") == expected
        _end_searchers(postgres)
        assert recall.recall("releases and tokens") == expected

        def read(db: Any) -> int:
            asked.append(1)
            if len(asked) == 1:
                _end_searchers(postgres)
            return len(db.rows("SELECT doc FROM @item"))

        asked: list[int] = []
        assert recall.projection.read(read) == len(dump(file)["item"])
        assert len(asked) == 2
        assert not recall.projection.notices
    edits(hosted, rng, 5)
    with Recall(hosted, embedder=Cutting()) as recall:
        assert recall.recall("releases").seq == hosted.view().seq
        assert recall.models()[-1].embedded == recall.models()[-1].rows
        made = dump(recall)
    with Recall(hosted, index=":memory:", embedder=OtherModel()) as file:
        assert made["item"] == dump(file)["item"]


def test_what_always_drops_is_told(
    hosted: Store, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ends every connection is an error, and not asked for ever."""
    commit(hosted, memory("a", "x"))

    def read(db: Any) -> Any:
        _end_searchers(postgres)
        return db.rows("SELECT doc FROM @item")

    with Recall(hosted) as recall:
        recall.follow()
        with pytest.raises(StorageFailed, match="cannot be reached"):
            recall.projection.read(read)
        assert recall.count(Memory) == 1


# -- damage, rights, choice ----------------------------------------------------------------------


def _drop_column(recall: Recall) -> str:
    return "ALTER TABLE {} DROP COLUMN flags".format(_table(recall, "item"))


def _table(recall: Recall, name: str) -> str:
    home = recall.projection._home
    assert isinstance(home, postgres.ServerHome)
    return dialect.table(home.schema, home.key, name)


HARMS: dict[str, Callable[[Recall], str]] = {
    "table": lambda recall: f"DROP TABLE {_table(recall, 'text')}",
    "meta": lambda recall: f"DROP TABLE {_table(recall, 'meta')}",
    "empty": lambda recall: f"TRUNCATE {_table(recall, 'meta')}",
    "column": _drop_column,
    "ranks": lambda recall: f"UPDATE {_table(recall, 'text')} SET body = strip(body)",
    "twice": lambda recall: f"UPDATE {_table(recall, 'meta')} SET value = '0' WHERE key = 'seq'",
    "schema": lambda _: 'DROP SCHEMA "cas_search" CASCADE',
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("open", [True, False])
def test_a_damaged_index_is_made_anew(
    hosted: Store, postgres: PostgresServer, rng: random.Random, harm: str, open: bool
) -> None:
    """Tables that are missing, emptied, changed or that contradict themselves are made anew with
    equal answers, under a handle that has them open and under one that comes later.
    """
    edits(hosted, rng, 6)
    with Recall(hosted) as recall:
        before = recall.recall("releases and tokens")
        postgres.run(HARMS[harm](recall))
        commit(hosted, memory("new", "Elephants paint."))
        if open:
            assert recall.recall("elephants").items[0].link.id == "new"
            after = recall.recall("releases and tokens", as_of=before.seq)
            assert after.digest == before.digest
            assert recall.projection.made > 0 or harm == "ranks"
    with Recall(hosted) as recall:
        assert recall.recall("elephants").items[0].link.id == "new"
        assert recall.recall("releases and tokens", as_of=before.seq).digest == before.digest
        assert dump(recall)["item"]


def test_rights_decide_who_shares_the_index(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rights a handle has an index of its own, and says so; with those of a searcher it
    follows the tables that another role made, makes them anew, and can do no more.
    """
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    url = fresh_url(postgres) + "&schema=rights"
    for name in ("rights_one", "rights_two"):
        postgres.run(f"CREATE ROLE {name} LOGIN")
    one, two = (url.replace("postgres@", f"rights_{name}@") for name in ("one", "two"))
    with cas.open(url, create=True, bucket=tmp_path / "packs") as store:
        commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    for name in ("rights_one", "rights_two"):
        for statement in grants("rights", "writer", name):
            postgres.run(statement)
    with cas.open(one) as store:
        with Recall(store) as recall:
            assert recall.recall("radiator cat").items[0].link.id == "m5"
            assert "not that of all hosts" in recall.projection.notices[0]
            assert recall.projection.path.endswith(".db")
        with Recall(store, index="database") as recall, pytest.raises(AccessDenied):
            recall.recall("radiator cat")
    for name in ("rights_one", "rights_two"):
        for statement in grants("rights", "searcher", name):
            postgres.run(statement)
    with (
        cas.open(one) as first,
        cas.open(two) as second,
        Recall(first) as mine,
        Recall(second) as theirs,
    ):
        expected = mine.recall("radiator cat")
        assert theirs.recall("radiator cat") == expected
        commit(second, memory("new", "Elephants paint."))
        assert theirs.recall("elephants").items[0].link.id == "new"
        theirs.projection.rebuild()
        assert theirs.recall("radiator cat", as_of=1).digest == expected.digest
        assert mine.recall("elephants").items[0].link.id == "new"
        item = _table(mine, "item")
        assert item.startswith('"rights_search".')
        assert item == _table(theirs, "item")
    import psycopg

    with psycopg.connect(postgres.url(user="rights_two"), autocommit=True) as direct:
        for statement in (f"DROP TABLE {item}", "SELECT * FROM cas.store"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                direct.execute(statement)
    postgres.run("CREATE ROLE rights_none LOGIN")
    with (
        psycopg.connect(postgres.url(user="rights_none"), autocommit=True) as direct,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        direct.execute(f"SELECT * FROM {item}")


def test_where_the_index_lies_can_be_chosen(hosted: Store, folder: Store, tmp_path: Path) -> None:
    """In the database, in the cache, or in a file that is named; a folder has no database."""
    own = str(tmp_path / "own.db")
    for store in (hosted, folder):
        commit(store, memory("a", "x"))
        for index in ("cache", own if store is hosted else ":memory:"):
            with Recall(store, index=index) as recall:
                assert recall.count(Memory) == 1
                path = recall.projection.path
                assert path == index if index != "cache" else path.endswith(".db")
    with Recall(folder) as recall:
        assert recall.projection.path.startswith(str(tmp_path / "s"))
    with pytest.raises(Invalid, match="no index lies beside it"):
        Recall(folder, index="database")


def test_a_handle_that_only_reads_the_store_shares_the_index(hosted: Store) -> None:
    """To follow changes nothing of the store: a handle that must not write it follows too."""
    commit(hosted, memory("a", "x"))
    with cas.open(hosted.location, read_only=True) as store, Recall(store) as recall:
        assert recall.count(Memory) == 1
        assert "cas_search" in recall.projection.path
        assert not recall.projection.notices


def test_rows_that_come_while_one_is_asked_count_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that another handle adds in the middle of an answer are in the next one, once."""
    commit(store, memory("a", "release notes"))
    with Recall(store) as one, Recall(store) as two:
        one.recall("release")
        refresh = Arena.refresh

        def late(self: Arena, *args: Any, **how: Any) -> None:
            refresh(self, *args, **how)
            if not later:
                later.append(commit(store, memory("b", "release release release")))
                two.follow()

        later: list[int] = []
        monkeypatch.setattr(arena.Arena, "refresh", late)
        commit(store, memory("c", "notes"))
        first = one.recall("release tokens")
        assert [item.link.id for item in first.items] == ["a"]
        with Recall(store, index=":memory:") as fresh:
            assert one.recall("release tokens") == fresh.recall("release tokens")
            assert one.recall("release") == fresh.recall("release")
