"""A store on PostgreSQL, end to end: what a folder store does, and where it lies."""

from __future__ import annotations

import logging
import os
import random
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import cas
from cas.catalog import postgres_notices
from cas.catalog.postgres_schema import grants
from cas.errors import (
    AccessDenied,
    BucketTaken,
    Invalid,
    NotAStore,
    Purged,
    StorageFailed,
    StoreNotFound,
    Unsupported,
)
from cas.history import watch
from cas.history.store import Store
from cas.maintenance import hosted
from cas.maintenance.fsck.check import fsck
from cas.maintenance.stats import stats
from cas.worktree.checkout import restore
from cas.worktree.importer import import_folder
from tests.databases import fresh_url
from tests.servers.proxy import faulty
from tests.unit.kit import commits, write
from tools.postgres_server import PASSWORD, PostgresServer
from tools.services import S3Server


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """Of a store that is not there yet."""
    return fresh_url(postgres)


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    """A new store whose bucket is a folder."""
    with cas.open(url, create=True, bucket=tmp_path / "packs") as opened:
        yield opened


def sound(store: Store) -> bool:
    """Whether a full check finds nothing."""
    report = fsck(store)
    return not report.findings


def test_everything_comes_back_through_another_handle(
    store: Store, url: str, rng: random.Random
) -> None:
    """Puts small and large, commits, tags and events are read by a handle of another process."""
    small, large = store.put(b"small"), store.put(rng.randbytes(3_000_000))
    with store.begin(author="a", message="m") as tx:
        edit = tx.branch("main")
        edit["d/x"] = b"1"
        edit["d/y"] = rng.randbytes(200_000)
        tx.event("made", b"body", {"n": "1"})
        entry = tx.commit()
    with cas.open(url, read_only=True) as other:
        assert other.get(small) == b"small"
        assert len(other.get(large)) == 3_000_000
        snapshot = other.snapshot("main")
        assert snapshot["d/x"] == b"1"
        assert len(snapshot["d/y"]) == 200_000
        (found,) = other.journal()
        assert (found.seq, found.actor) == (entry.seq, "a")
        assert other.id == store.id
    assert sound(store)


def test_the_past_and_differences(store: Store) -> None:
    """`at`, `diff`, the journal and undo are those of any store."""
    write(store, files={"a": b"1", "b": b"1"})
    write(store, files={"a": b"2", "b": None})
    assert store.at(1).snapshot("main")["b"] == b"1"
    changes = {(str(change.path), change.kind.name) for change in store.diff("main~1", "main")}
    assert len(changes) == 2
    store.undo(2)
    assert store.snapshot("main")["a"] == b"1"
    assert [entry.seq for entry in store.journal()] == [1, 2, 3]


def test_folders_go_in_and_out(store: Store, tmp_path: Path, rng: random.Random) -> None:
    """A folder that was saved is restored byte by byte."""
    source = tmp_path / "work"
    for number in range(60):
        path = source / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(3000)))
    import_folder(store, source)
    (tmp_path / "out").mkdir()
    restore(store, store.snapshot("main"), "", tmp_path / "out")
    for path in source.rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(source)).read_bytes() == path.read_bytes()


def test_spill_gc_and_check(store: Store, url: str, tmp_path: Path, rng: random.Random) -> None:
    """Inline packs become a file, garbage goes, its file too, and the store stays whole."""
    commits(store, 30)
    with store.begin() as tx:
        tx.branch("junk")["f"] = rng.randbytes(400_000)
        tx.commit()
    assert store.spill() > 10
    counted = stats(store)
    assert counted.inline_pack_count < 5
    assert counted.bucket == str(tmp_path / "packs")
    assert counted.files.packs > counted.file_pack_bytes > 0
    assert counted.files.cache > 0
    with store.begin() as tx:
        tx.delete("heads/junk")
        tx.commit()
    loose = store.put(rng.randbytes(300_000))
    before = len(os.listdir(tmp_path / "packs"))
    result = store.gc(grace_us=0)
    result = store.gc(grace_us=0)
    assert not store.has(loose) or result is not None
    assert len(os.listdir(tmp_path / "packs")) <= before
    assert sound(store)
    with cas.open(url) as other:
        assert other.snapshot("main")["n"] == b"29"
        assert sound(other)


def test_a_purge_leaves_nothing_in_the_tables(store: Store, postgres: PostgresServer) -> None:
    """Purged content stands in no file of the database afterwards."""
    secret = b"hush-%d-" % os.getpid() * 40
    write(store, files={"s": secret, "t": b"stays"})
    write(store, files={"s": None})
    id = cas.ObjectId(store.at(1).snapshot("main").entry("s").id)

    def found() -> bool:
        postgres.run("CHECKPOINT")
        return any(
            secret[:60] in path.read_bytes()
            for path in (postgres.data / "base").rglob("*")
            if path.is_file()
        )

    assert found()
    cas.purge(store, id, reason="asked for", author="me")
    assert not found()
    with pytest.raises(cas.CasError):
        store.get(id)
    assert store.snapshot("main")["t"] == b"stays"
    assert sound(store)


def test_caches_are_used_and_may_go(store: Store, url: str, tmp_path: Path) -> None:
    """Index runs lie below CAS_CACHE, and a handle opened without them finds everything."""
    ids = [store.put(os.urandom(200_000)) for n in range(3)]
    with cas.open(url) as other:
        assert all(other.has(id) for id in ids)
    found = list((tmp_path / "caches").rglob("*.run"))
    assert found
    for path in found:
        path.unlink()
    with cas.open(url) as other:
        assert all(other.has(id) for id in ids)


# -- where a store is -------------------------------------------------------------------------


def test_packs_in_an_object_store_are_read_through_a_cache(
    url: str, s3_server: S3Server, s3_url: Callable[[str], str], rng: random.Random, tmp_path: Path
) -> None:
    """Reads that lie near each other are one request; what one handle has read the next one of
    this host has, until the folder of caches goes.
    """
    with faulty(s3_server.endpoint) as proxy:
        bucket = f"{s3_url('packs')}?endpoint={proxy.endpoint}"
        contents = [rng.randbytes(300) for _ in range(2000)]
        with cas.open(url, create=True, bucket=bucket) as store:
            ids = store.put_many(contents)
            while store.spill():
                pass
        shutil.rmtree(tmp_path / "caches")
        for requests in (range(1, 20), range(2)):
            proxy.reset()
            with cas.open(url, read_only=True) as store:
                assert list(store.get_many(ids[::10])) == contents[::10]
            assert len(proxy.seen) in requests


def test_a_store_needs_a_bucket_of_its_own(url: str, tmp_path: Path) -> None:
    """Without a bucket, or with a folder that holds something, no store is made."""
    with pytest.raises(Invalid, match="bucket"):
        cas.init(url)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    with pytest.raises(NotAStore):
        cas.init(url, bucket=tmp_path / "full")
    with pytest.raises(StoreNotFound):
        cas.open(url)
    assert cas.init(url, bucket=tmp_path / "packs") is True
    assert cas.init(url, bucket=tmp_path / "packs") is False


def test_two_stores_of_one_database_do_not_share_a_folder(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """A folder belongs to the store that it was first named for, also while that is empty, by
    whatever path it is named, and whether it is made or filled.
    """
    first, second = fresh_url(postgres), fresh_url(postgres)
    packs = tmp_path / "packs"
    assert cas.init(first, bucket=packs) is True
    (tmp_path / "alias").symlink_to(packs)
    for place in (packs, tmp_path / "alias"):
        with pytest.raises(BucketTaken, match="another store"):
            cas.init(second, bucket=place)
    with cas.open(tmp_path / "source", create=True) as source:
        write(source)
        with pytest.raises(BucketTaken):
            cas.copy(source, second, bucket=str(packs))
    with pytest.raises(StoreNotFound):
        cas.open(second)
    assert os.listdir(packs) == ["cas-store.json"]
    with cas.open(first) as store:
        store.put(os.urandom(300_000))
        assert sound(store)


def test_a_store_that_never_came_to_be_gives_its_folder_back(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed can be done again in the same folder; where it is not known whether it failed,
    packs are left alone.
    """
    url, packs = fresh_url(postgres), tmp_path / "packs"

    def fail(*_words: object, **_more: object) -> None:
        raise StorageFailed("no", path="x", errno=None)

    with monkeypatch.context() as patch:
        patch.setattr(hosted, "add", fail)
        with pytest.raises(StorageFailed):
            cas.init(url, bucket=packs)
    assert os.listdir(packs) == []
    with cas.open(tmp_path / "source", create=True) as source:
        write(source, files={"f": os.urandom(300_000)})
        with monkeypatch.context() as patch:
            patch.setattr(hosted, "open_postgres", fail)
            with pytest.raises(StorageFailed):
                cas.copy(source, url, bucket=str(packs))
        assert os.listdir(packs) == []
        with monkeypatch.context() as patch:
            patch.setattr(hosted, "rename", fail)
            with pytest.raises(StorageFailed):
                cas.copy(source, url, bucket=str(packs))
        assert len(os.listdir(packs)) > 1
        assert cas.copy(source, url, bucket=str(tmp_path / "other")).created


@pytest.mark.parametrize("where", ["folder", "prefix"])
def test_who_may_make_no_store_leaves_its_place_as_it_was(
    where: str,
    store: Store,
    postgres: PostgresServer,
    tmp_path: Path,
    s3_server: S3Server,
    s3_url: Callable[[str], str],
) -> None:
    """A writer, who may not make stores, is refused to make or to fill one; who may then makes it
    in the same folder, or below the same prefix.
    """
    role = f"makes_{where}"
    postgres.run(f"CREATE ROLE {role} LOGIN")
    for statement in grants("cas", "writer", role):
        postgres.run(statement)
    at = f"{s3_url('packs')}?endpoint={s3_server.endpoint}"
    bucket = str(tmp_path / "place") if where == "folder" else at
    write(store, files={"f": os.urandom(300_000)})
    url = fresh_url(postgres)
    for act in (
        lambda place: cas.init(place, bucket=bucket),
        lambda place: cas.copy(store, place, bucket=bucket),
    ):
        with pytest.raises(AccessDenied, match="permission"):
            act(url.replace("postgres@", f"{role}@"))
    assert cas.copy(store, url, bucket=bucket).created


def test_many_that_make_one_store_share_its_folder(url: str, tmp_path: Path) -> None:
    """One makes it, and the others find it, although the folder is claimed before the row is
    there.
    """
    made: list[bool] = []
    threads = [
        threading.Thread(target=lambda: made.append(cas.init(url, bucket=tmp_path / "packs")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 5 + [True]
    with cas.open(url) as store:
        store.put(os.urandom(300_000))
        assert sound(store)


def test_a_bucket_is_found_where_it_is_from_here(store: Store, url: str, tmp_path: Path) -> None:
    """`bucket=`, and `bucket` in the URL, say where the packs are found on this host."""
    id = store.put(bytes(2) * 300_000)
    store.close()
    (tmp_path / "packs").rename(tmp_path / "mounted")
    with cas.open(url, bucket=tmp_path / "mounted") as other:
        assert len(other.get(id)) == 600_000
    with cas.open(f"{url}&bucket={tmp_path / 'mounted'}") as other:
        assert len(other.get(id)) == 600_000


def test_another_bucket_than_its_own_is_refused(
    store: Store, url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Neither a store that is opened nor one that is made again takes the folder of another store,
    an empty one, or a prefix of an object store: what it put there nobody else would find.
    """
    id = store.put(os.urandom(300_000))
    store.close()
    other = tmp_path / "other"
    cas.init(fresh_url(postgres), bucket=other)
    (tmp_path / "empty").mkdir()
    kinds = ((other, Invalid), (tmp_path / "empty", StorageFailed), ("s3://b/p", Invalid))
    for place, kind in kinds:
        for make in (
            lambda place=place: cas.open(url, bucket=place),
            lambda place=place: cas.open(url, bucket=place, read_only=True),
            lambda place=place: cas.open(f"{url}&bucket={quote(str(place), safe='')}"),
            lambda place=place: cas.init(url, bucket=place),
        ):
            with pytest.raises(kind, match=r"packs|bucket"):
                make()
    assert os.listdir(other) == ["cas-store.json"]
    assert os.listdir(tmp_path / "empty") == []
    with cas.open(url, bucket=tmp_path / "packs") as again:
        assert len(again.get(id)) == 300_000


def test_a_folder_that_is_not_mounted_is_not_written_to(
    store: Store, url: str, tmp_path: Path
) -> None:
    """Where the folder of a store is not what it was, as a mount that is missing, nothing is put
    there; what lies in the catalog can be read.
    """
    write(store, files={"f": b"young"})
    store.close()
    (tmp_path / "packs").rename(tmp_path / "gone")
    (tmp_path / "packs").mkdir()
    with pytest.raises(StorageFailed, match="Mount it"):
        cas.open(url)
    with cas.open(url, read_only=True) as reader:
        assert reader.snapshot("main")["f"] == b"young"
    assert os.listdir(tmp_path / "packs") == []


def test_another_prefix_than_its_own_is_refused(
    url: str, s3_server: S3Server, s3_url: Callable[[str], str]
) -> None:
    """A store in a bucket of an object store is not opened with another prefix of it."""
    bucket = f"{s3_url('mine')}?endpoint={s3_server.endpoint}"
    with cas.open(url, create=True, bucket=bucket):
        pass
    for call in (cas.open, cas.init):
        with pytest.raises(Invalid, match="another place"):
            call(url, bucket=bucket.replace("?", "-not?"))
    with cas.open(url, bucket=s3_url("mine")) as store:
        assert sound(store)


def test_a_check_names_no_command_that_a_server_refuses(store: Store, tmp_path: Path) -> None:
    """Of what is lost with a pack it says what it is, and not to run `cas repair`."""
    store.put(os.urandom(300_000))
    for path in (tmp_path / "packs").glob("*.pack"):
        path.unlink()
    found = fsck(store).findings
    assert "pack-missing" in {finding.code for finding in found}
    assert not [finding for finding in found if "cas repair" in finding.repair]


def test_a_lost_database_is_made_good_from_its_packs(
    store: Store, postgres: PostgresServer, tmp_path: Path
) -> None:
    """The bucket of a store whose rows are gone gives a folder store, and that a new one."""
    write(store, files={"f": os.urandom(300_000), "g": b"young"})
    store.maintain()
    store.close()
    rescue = tmp_path / "rescue"
    shutil.copytree(tmp_path / "packs", rescue / "packs")
    (rescue / "locks").mkdir()
    cas.plan_repair(rescue).apply()
    with cas.open(rescue) as found:
        target = f"{fresh_url(postgres)}&bucket={tmp_path / 'new'}"
        cas.copy(found, target)
    with cas.open(target) as again:
        assert again.snapshot("main")["g"] == b"young"
        assert sound(again)


def test_folder_verbs_refuse_a_server(url: str, tmp_path: Path) -> None:
    """Repair, salvage and adoption are of folders, and say what to do instead."""
    for call in (
        lambda: cas.adopt(url, fork=True),
        lambda: cas.plan_repair(url),
        lambda: cas.salvage(url, tmp_path / "x"),
    ):
        with pytest.raises(Unsupported):
            call()


@pytest.mark.parametrize("way", ["out", "in", "across"])
def test_whole_stores_are_copied_and_brought_up(
    way: str, store: Store, postgres: PostgresServer, tmp_path: Path, rng: random.Random
) -> None:
    """A copy from server to folder, folder to server, or server to server has all, and grows."""

    def target(number: int) -> str:
        return f"{fresh_url(postgres)}&bucket={tmp_path / f'bucket{number}'}"

    commits(store, 5)
    write(store, "other", {"f": rng.randbytes(300_000)})
    source = store
    if way == "in":
        cas.copy(store, tmp_path / "folder")
        source = cas.open(tmp_path / "folder")
    place = str(tmp_path / "copy") if way == "out" else target(1)
    report = cas.copy(source, place)
    assert report.created
    assert report.entry_count == 6
    with cas.open(place) as other:
        assert [e.hash for e in map(_hashed, other.journal())] == [
            e.hash for e in map(_hashed, source.journal())
        ]
        assert other.snapshot("other")["f"] == source.snapshot("other")["f"]
        write(source, files={"later": b"1"})
        assert cas.copy(source, other).entry_count == 1
        assert other.snapshot("main")["later"] == b"1"
        assert sound(other)
    with pytest.raises(NotAStore):
        cas.copy(source, place)
    if source is not store:
        source.close()


class _hashed:
    def __init__(self, entry: cas.Entry) -> None:
        self.hash = entry.encode()


def test_backups_go_out_and_come_back(
    store: Store, postgres: PostgresServer, tmp_path: Path
) -> None:
    """A store on a server is backed up, proved, and restored into a folder and onto a server."""
    commits(store, 4)
    write(store, files={"f": os.urandom(300_000)})
    store.backup(tmp_path / "backup")
    report, _file = cas.prove(tmp_path / "backup", source=store)
    assert report.ok
    cas.restore_store(tmp_path / "backup", tmp_path / "folder")
    url = f"{fresh_url(postgres)}&bucket={tmp_path / 'again'}"
    assert cas.restore_store(tmp_path / "backup", url).damage == ()
    for place in (str(tmp_path / "folder"), url):
        with cas.open(place) as other:
            assert other.snapshot("main")["f"] == store.snapshot("main")["f"]
            assert sound(other)


def test_what_fails_half_way_leaves_no_store(
    store: Store, postgres: PostgresServer, tmp_path: Path
) -> None:
    """A copy whose source is damaged makes no store under its name, and leaves no row behind."""
    write(store, files={"f": os.urandom(300_000)})
    store.close()
    (pack,) = (tmp_path / "packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[2000] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    url = f"{fresh_url(postgres)}&bucket={tmp_path / 'half'}"
    with cas.open(store_url(store)) as source, pytest.raises(cas.Corrupt):
        cas.copy(source, url)
    with pytest.raises(StoreNotFound):
        cas.open(url)
    assert postgres.run("SELECT count(*) FROM cas.store WHERE name LIKE '.%'") == [(0,)]


def store_url(store: Store) -> str:
    """The URL that a store was opened with; without a password it is what is shown."""
    return store.location


# -- secrets ----------------------------------------------------------------------------------


def test_a_password_is_nowhere(
    postgres: PostgresServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither the handle, nor errors, nor logs, nor what is printed holds the password of a URL."""
    caplog.set_level(logging.DEBUG)
    url = f"{postgres.tcp_url()}?{fresh_url(postgres).partition('&')[2]}"
    told: list[str] = []

    def refused(call: Callable[[], object]) -> None:
        with pytest.raises(cas.CasError) as error:
            call()
        told.append("".join(traceback.format_exception(error.value)) + repr(error.value.fields))

    refused(lambda: cas.open(url))
    refused(lambda: cas.init(url))
    with cas.open(url, create=True, bucket=tmp_path / "packs") as store:
        write(store)
        told += [repr(store), store.location, repr(store.objects.catalog), str(store.view())]
        refused(lambda: cas.copy(store, url))
        refused(lambda: store.snapshot("nothing"))
    refused(lambda: write(store))
    refused(lambda: cas.plan_repair(url))
    out, err = capfd.readouterr()
    told += [caplog.text, out, err]
    assert PASSWORD not in "".join(told)


# -- followers --------------------------------------------------------------------------------


def test_followers_are_told_and_need_not_ask(
    store: Store, url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries of another handle come although nobody looks for an hour, also after the session
    that listens was ended; and whoever follows asks again to be told before it is forgotten.
    """
    monkeypatch.setattr(watch, "TOLD_MS", 3_600_000)
    monkeypatch.setattr(postgres_notices, "TOLD_AHEAD", 4)
    with cas.open(url) as other, other.follow() as follower:
        seen: list[int] = []

        def follow() -> None:
            for entry in follower:
                seen.append(entry.seq)
                if entry.seq == 25:
                    return

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        for number in range(1, 26):
            write(store, files={"n": b"%d" % number})
            if number == 12:
                postgres.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE query LIKE 'UPDATE%told_seq%'"
                )
        thread.join(60)
        assert seen == list(range(1, 26))


def test_a_follower_that_is_gone_is_forgotten(
    store: Store, url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers tell nobody once nobody has asked for so many commits."""
    monkeypatch.setattr(postgres_notices, "TOLD_AHEAD", 5)

    def told_and_seq() -> tuple[int, ...]:
        return postgres.run(
            f"SELECT told_seq, seq FROM cas.head JOIN cas.store ON no = head.store"
            f" WHERE store_id = '\\x{store.id}'"
        )[0]

    with cas.open(url) as other, other.follow() as follower:
        # A look that comes too late for its own time asks for nothing.
        while told_and_seq() == (0, 0):
            assert follower.poll(20) is None
    commits(store, 4)
    assert told_and_seq() == (5, 4)


def test_a_reader_without_rights_asks_as_before(
    store: Store, url: str, postgres: PostgresServer
) -> None:
    """A role that may only read cannot ask to be told; it looks at intervals, and sees all."""
    postgres.run("CREATE ROLE looks LOGIN")
    for statement in grants("cas", "reader", "looks"):
        postgres.run(statement)
    commits(store, 1)
    place = url.replace("postgres@", "looks@")
    with cas.open(place, read_only=True) as other, other.follow() as follower:
        assert follower.poll(1) is None
        commits(store, 2, "more")
        found = [follower.poll(30_000) for _ in range(2)]
        assert [entry.seq for entry in found if entry is not None] == [2, 3]


def test_who_may_not_purge_purges_nothing(store: Store, url: str, postgres: PostgresServer) -> None:
    """A collector's role, which cannot write the tables anew, is refused before a tombstone stands:
    the content is there as it was.
    """
    write(store, files={"f": b"stays"})
    id = store.snapshot("main").entry("f").id
    postgres.run("CREATE ROLE collects LOGIN")
    for statement in grants("cas", "collector", "collects"):
        postgres.run(statement)
    with cas.open(url.replace("postgres@", "collects@")) as other:
        seq = other.view().seq
        with pytest.raises(AccessDenied, match="owner"):
            cas.purge(other, id, reason="r")
        assert other.view().seq == seq
        assert other.snapshot("main")["f"] == b"stays"
    cas.purge(store, id, reason="r")
    with pytest.raises(Purged):
        store.get(id)


def test_a_context_lives_on_a_server(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace in a folder has a context on a server with its packs elsewhere: read, written,
    told of, moved there with what it had; an address with a password in it is refused.
    """
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    bare = url.replace(f":{PASSWORD}@", "@")
    memory = cas.Context(id="memory", place=bare, publishes=frozenset({"memory.*"}))
    with (
        cas.open(tmp_path / "home", create=True) as home,
        cas.Workspace(home, places=cas.open) as space,
    ):
        with space.unit_of_work("ada") as uow:
            uow.memories.note("before", id="m1")
            uow.commit()
        with pytest.raises(Invalid, match="PGPASSWORD"):
            space.declare(memory.evolve(place=bare.replace("@", ":secret@", 1)), "ada")
        space.declare(memory, "ada")
        with space.unit_of_work("ada") as uow:
            made = uow.memories.note("after", id="m2")
            uow.event("memory.added", {"id": "m2"}, about=made)
            uow.commit()
        assert list(space.memories.ids()) == ["m1", "m2"]
        assert list(cas.Workspace(store).memories.ids()) == ["m1", "m2"]
        assert [each.count for each in cas.exchange(space)] == [0, 1]
        assert [event.data["id"] for event in space.events()] == ["m2"]
        assert not any(ref.name.startswith("heads/memory/") for ref in home.branches())
