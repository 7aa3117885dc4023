"""A store with its packs in an object store, from the first snapshot to the restored backup."""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path

import pytest

import cas
from cas.clock import SystemClock
from cas.storage.address import parse_address
from cas.storage.connect import connect
from cas.testing.stores import SMALL, build
from tests.cli.support import Shell, tree
from tools.services import S3Server

pytest.importorskip("obstore")


class Remote:
    """Prefixes of a real server."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self._base = f"s3://{server.bucket}{folder}"

    def url(self, name: str) -> str:
        """The address of one prefix."""
        return f"{self._base}/{name}"

    def packs(self, name: str) -> dict[str, int]:
        """What lies there."""
        bucket = connect(parse_address(self.url(name)), SystemClock())
        return {file.name: file.size_bytes for file in bucket.list()}


@pytest.fixture
def remote(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Remote:
    """The server, with credentials where a user has them."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return Remote(s3_server, tmp_path)


@pytest.fixture
def filled(shell: Shell, remote: Remote, rng: random.Random) -> Shell:
    """A store with packs in a bucket, and two commits of a folder with small and large files."""
    shell("init", "--bucket", remote.url("one"))
    for at in range(40):
        shell.write(f"work/{at % 5}/{at}.txt", rng.randbytes(rng.randrange(60_000)))
    shell.write("work/large.bin", rng.randbytes(12_000_000))
    shell("snapshot", "work", "-m", "first")
    shell.write("work/0/0.txt", rng.randbytes(150_000))
    shell("snapshot", "work", "-m", "second")
    return shell


def test_every_command_works_on_it(filled: Shell, remote: Remote) -> None:
    """Packs lie in the bucket and none in the folder; restore, fsck, gc, why and stats serve."""
    assert len(remote.packs("one")) >= 2
    assert (filled.folder / ".cas" / "packs").is_file()
    shutil.rmtree(filled.folder / ".cas" / "cache")
    filled("restore", "main", "back")
    assert tree(filled.folder / "back") == tree(filled.folder / "work")
    assert "all good" in filled("fsck").text + filled("fsck").err
    before = remote.packs("one")
    filled("branch", "-d", "main")
    filled("gc", "--grace", "0")
    assert filled("fsck", "--json").document["ok"]
    assert sum(before.values()) >= sum(remote.packs("one").values())


def test_it_is_copied_and_backed_up_both_ways(filled: Shell, remote: Remote) -> None:
    """A copy in a folder, one below another prefix, and a store made of a backup are alike."""
    filled("copy", ".cas", "local")
    filled("copy", "local", "other", "--bucket", remote.url("two"))
    filled("backup", "saved", "--prove")
    filled("restore-store", "saved", "again", "--bucket", remote.url("three"))
    for number, store in enumerate(("local", "other", "again")):
        filled("--store", store, "restore", "main", f"back-{number}")
        assert tree(filled.folder / f"back-{number}") == tree(filled.folder / "work")
        assert filled("--store", store, "fsck", "--json").document["ok"]
    assert (filled.folder / "local" / "packs").is_dir()
    assert remote.packs("two")
    assert remote.packs("three")
    problem = filled("--json", "copy", ".cas", "more", "--bucket", remote.url("two"), expect=4)
    assert problem.problem["code"] == "bucket-taken"
    assert not (filled.folder / "more").exists()


def test_a_spill_gathers_small_commits_into_the_bucket(
    filled: Shell, remote: Remote, rng: random.Random
) -> None:
    """Small commits stay in the catalog until a spill puts many of them as one pack, whose sources
    go; a collection then removes what nothing leads to, there too.
    """
    before = remote.packs("one")
    folder = str(filled.folder / ".cas")
    kept = {}
    with build(folder, clock=SystemClock(), thresholds=SMALL) as store:
        for at in range(30):
            with store.begin(author="t") as tx:
                kept[f"s/{at}"] = rng.randbytes(3000)
                tx.branch("main")[f"s/{at}"] = kept[f"s/{at}"]
                tx.commit()
    assert remote.packs("one").keys() - before.keys()
    with cas.open(folder) as store:
        snapshot = store.snapshot("main")
        assert all(snapshot[path] == content for path, content in kept.items())
        assert store.gc(grace_us=0) is not None
        assert all(store.snapshot("main")[path] == content for path, content in kept.items())
    assert filled("fsck", "--json").document["ok"]


def test_a_lost_folder_is_made_again_from_the_bucket(filled: Shell) -> None:
    """With the file `packs` and an empty folder `locks`, a repair gives what the packs hold."""
    with build(str(filled.folder / ".cas"), clock=SystemClock(), thresholds=SMALL) as store:
        for at in range(12):
            with store.begin(author="t") as tx:
                tx.branch("main")[f"s/{at}"] = b"%d" % at
                tx.commit()
    os.makedirs(filled.folder / "lost" / "locks")
    shutil.copy(filled.folder / ".cas" / "packs", filled.folder / "lost" / "packs")
    shutil.rmtree(filled.folder / ".cas")
    filled("--store", "lost", "repair")
    filled("--store", "lost", "restore", "main~12", "back")
    assert (filled.folder / "back" / "large.bin").stat().st_size == 12_000_000
    assert filled("--store", "lost", "fsck", "--json").document["ok"]


def test_damage_on_the_server_is_found_and_mended(filled: Shell, remote: Remote) -> None:
    """fsck reads the server and not the cache; a repair takes the bytes from a backup."""
    filled("backup", "saved")
    filled("restore-store", "saved", "again")
    name = max(remote.packs("one"), key=lambda each: remote.packs("one")[each])
    bucket = connect(parse_address(remote.url("one")), SystemClock())
    content = bytearray(bucket.read(name, 0, bucket.size(name)))
    content[len(content) // 2] ^= 1
    bucket.delete(name)
    bucket.put(name, bytes(content), "elsewhere")
    filled("fsck", expect=5)
    filled("repair", "--from", "again")
    assert filled("fsck", "--json").document["ok"]
    filled("restore", "main", "back")
    assert tree(filled.folder / "back") == tree(filled.folder / "work")


def test_stats_say_where_the_packs_lie(filled: Shell, remote: Remote) -> None:
    """`cas stats` names the bucket, without credentials."""
    assert remote.url("one") in filled("stats").text
    assert filled("stats", "--json").document["bucket"] == remote.url("one")


@pytest.mark.slow
def test_what_is_waited_for_is_said(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent is named while init waits for it, and the wait ends."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        bucket = f"s3://bucket/a?endpoint={server}"
        done = shell("init", "new", "--bucket", bucket, expect=7)
        assert done.err.splitlines()[0] == f"trying out s3://bucket/a at {server}"
        assert "Nobody answers" in done.err.splitlines()[1]
    assert not (shell.folder / "new").exists()
