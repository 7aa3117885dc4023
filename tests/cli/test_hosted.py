"""The command line on a store whose catalog is on a server."""

from __future__ import annotations

import pytest

from tests.cli.support import Shell, tree
from tests.databases import fresh_url
from tools.postgres_server import PASSWORD, PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """Of a store that is not there yet, over TCP and with a password."""
    return f"{postgres.tcp_url()}?{fresh_url(postgres).partition('&')[2]}"


def test_a_folder_goes_to_a_server_and_comes_back(shell: Shell, url: str) -> None:
    """`CAS_STORE` names the store; init, snapshot, log, diff, fsck, gc, restore work as ever."""
    env = {"CAS_STORE": url, "CAS_CACHE": str(shell.folder / "caches")}
    said = [shell("init", "--bucket", "packs", **env)]
    assert said[0].lines[0].startswith("postgresql://postgres@127.0.0.1:")
    shell.write("work/a/one", b"1\n")
    shell.write("work/two", bytes(range(256)) * 2000)
    said.append(shell("snapshot", "work", "-m", "first", **env))
    shell.write("work/two", b"2\n")
    said.append(shell("snapshot", "work", "-m", "second", **env))
    said.append(shell("log", "--json", **env))
    assert len(said[-1].document["commits"]) == 2
    said += [shell(*words, **env) for words in (["diff", "main~1", "main"], ["journal"], ["stats"])]
    said += [shell(*words, **env) for words in (["fsck"], ["gc"], ["ls", "main"])]
    said.append(shell("restore", "main", "back", **env))
    assert tree(shell.folder / "back") == tree(shell.folder / "work")
    said.append(shell("init", "--bucket", "packs", **env))
    assert "already" in said[-1].err
    said.append(shell("copy", url, "copy", **env))
    said.append(shell("--store", "copy", "fsck", **env))
    assert PASSWORD not in "".join(done.text + done.err for done in said)


def test_what_goes_wrong_is_told_without_the_password(
    shell: Shell, url: str, postgres: PostgresServer
) -> None:
    """A store that is missing, a wrong password, a bad URL: one typed problem each."""
    wrong = postgres.tcp_url(password="hush-hush")
    bad = "postgresql://u:hush-hush@h:p/d"
    for place, code, exit_code in (
        (url, "store-not-found", 3),
        (wrong, "access-denied", 6),
        (bad, "invalid", 2),
        (postgres.tcp_url().replace(f":{postgres.port}", ":1"), "storage-failed", 7),
    ):
        done = shell("--json", "log", expect=exit_code, CAS_STORE=place)
        assert done.problem["code"] == code
        assert "hush-hush" not in done.err
        assert PASSWORD not in done.err
    done = shell("--json", "init", expect=2, CAS_STORE=url)
    assert "bucket" in done.problem["message"]
