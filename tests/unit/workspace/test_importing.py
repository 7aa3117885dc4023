"""What other programs have made comes in whole: LangGraph, AgentFS, git; nothing lost, all told.

The dumps below `foreign/` are of files that these programs made (their first lines say which).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

import cas
from cas.catalog.foreign import ForeignFile
from cas.errors import BadArchive, Busy, Invalid, NotFound
from cas.model.objects import EntryKind
from cas.workspace.arrivals import ImportReport
from cas.workspace.contexts import Context
from cas.workspace.importing import import_path
from cas.workspace.planning import RunState
from cas.workspace.workspace import Workspace

FOREIGN = Path(__file__).parent / "foreign"


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace."""
    with cas.open(tmp_path / "s", create=True) as store, Workspace(store, places=cas.open) as made:
        yield made


def foreign(tmp_path: Path, name: str, *more: str) -> Path:
    """A file as such a program made it, with more statements run on it."""
    path = tmp_path / "elsewhere" / f"{name}.db"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    connection = apsw.Connection(str(path))
    text = (FOREIGN / f"{name}.sql").read_text(encoding="utf-8")
    for statement in (text, *more):
        connection.execute(statement)
    connection.close()
    return path


def take(space: Workspace, path: Path) -> ImportReport:
    """Import a path."""
    return import_path(space, path, actor="ada")


def reasons(report: ImportReport) -> dict[str, str]:
    """What was not understood, by place."""
    return {each.path: each.reason for each in report.not_understood}


# -- LangGraph -----------------------------------------------------------------------------------


def test_items_of_langgraph_become_memories(space: Workspace, tmp_path: Path) -> None:
    """Each item is a memory with its text, its times and, as it stood, the whole item; what only
    its program can use is told, and the file is kept.
    """
    path = foreign(tmp_path, "langgraph")
    done = take(space, path)
    assert done.aggregates == 4
    first = space.memories.get("memories.ada:m1")
    assert first.text == "The API team prefers small pull requests, still."
    assert first.tags == {"memories", "ada"}
    item = first.unknown["langgraph"]
    assert json.loads(item["value"]) == {"text": first.text, "topic": "review"}
    assert (item["prefix"], item["key"]) == ("memories.ada", "m1")
    assert first.at == datetime.fromisoformat(item["created_at"]).replace(tzinfo=UTC)
    second = space.memories.get("memories.ada:m2")
    assert second.valid_to == datetime.fromisoformat(second.unknown["langgraph"]["expires_at"])
    assert second.unknown["langgraph"]["ttl_minutes"] == 60.0
    texts = {memory.id: memory.text for memory in space.memories}
    assert texts["profile:ünicode key"] == "likes tea"
    assert sorted(texts.values())[-1] == "nested"
    assert list(reasons(done)) == ["store_vectors"]
    assert done.original == "imports/langgraph.db"
    kept = tmp_path / "kept.db"
    kept.write_bytes(space.artifacts.read(done.original))
    with ForeignFile(str(kept)) as again:
        assert again.count("store_vectors") == 2


def test_a_second_import_takes_what_differs(space: Workspace, tmp_path: Path) -> None:
    """Unchanged items are left as they are, with what was made of them here; changed ones are
    taken in.
    """
    path = foreign(tmp_path, "langgraph", "DELETE FROM store_vectors")
    assert take(space, path).original is None
    with space.unit_of_work("bob") as uow:
        uow.memories.save(uow.memories.get("memories.ada:m2").evolve(text="edited here"))
        uow.commit()
    assert take(space, path).entry is None
    value = json.dumps({"text": "They like large ones now."})
    path = foreign(
        tmp_path,
        "langgraph",
        "DELETE FROM store_vectors",
        f"UPDATE store SET value = '{value}' WHERE key = 'm1'",
    )
    done = take(space, path)
    assert (done.aggregates, done.entry is not None) == (1, True)
    assert space.memories.get("memories.ada:m1").text == "They like large ones now."
    assert space.memories.get("memories.ada:m2").text == "edited here"
    assert len(list(space.memories.history("memories.ada:m1"))) == 2


def test_odd_items_are_told_and_kept(space: Workspace, tmp_path: Path) -> None:
    """Values that are no JSON, or too long for a record, columns and tables of nobody: each is
    told, and stands in the file that is kept; ids that look alike do not meet.
    """
    path = foreign(
        tmp_path,
        "langgraph",
        "DELETE FROM store_vectors",
        "ALTER TABLE store ADD COLUMN mood TEXT",
        "CREATE TABLE extra (x)",
        "INSERT INTO extra VALUES (1)",
        "INSERT INTO store (prefix, key, value) VALUES ('a', 'broken', '{no')",
        "INSERT INTO store (prefix, key, value) "
        "VALUES ('a', 'long', '{\"text\": \"' || hex(zeroblob(600000)) || '\"}')",
        "INSERT INTO store (prefix, key, value) VALUES ('a:b', 'c', '\"one\"')",
        "INSERT INTO store (prefix, key, value) VALUES ('a', 'b:c', '[2]')",
    )
    done = take(space, path)
    assert sorted(reasons(done)) == ["a:broken", "a:long", "extra", "store.mood"]
    assert done.original is not None
    texts = [memory.text for memory in space.memories if memory.agent.startswith("a")]
    assert sorted(texts) == ["[2]", "one"]


def test_checkpoints_are_kept_as_they_are(space: Workspace, tmp_path: Path) -> None:
    """A file of SqliteSaver has nothing but states of runs: told, and kept whole."""
    done = take(space, foreign(tmp_path, "checkpoints"))
    assert sorted(reasons(done)) == ["checkpoints", "writes"]
    assert done.original == "imports/checkpoints.db"
    assert done.aggregates == 0
    assert take(space, foreign(tmp_path, "checkpoints")).entry is None


# -- AgentFS -------------------------------------------------------------------------------------


def test_a_file_of_agentfs_comes_in_whole(space: Workspace, tmp_path: Path) -> None:
    """Files are artifacts of the same bytes, keys JSON, calls of tools runs in their states."""
    done = take(space, foreign(tmp_path, "agentfs", "DELETE FROM fs_dentry WHERE name='nothing'"))
    assert space.artifacts.read("notes/plan.md") == b"# Plan\n"
    assert space.artifacts.read("data/big.bin") == bytes(range(256)) * 20
    assert space.artifacts.read("empty.txt") == b""
    assert json.loads(space.artifacts.read("kv/user:1.json")) == {"name": "Ada", "n": 3}
    assert space.artifacts.read("kv/theme.json") == b'"dark"'
    runs = {run.task: run for run in space.runs}
    assert {task: run.state for task, run in runs.items()} == {
        "search": RunState.SUCCEEDED,
        "shell": RunState.FAILED,
        "slow": RunState.RUNNING,
    }
    assert runs["shell"].error == "exit 1"
    assert json.loads(runs["search"].unknown["agentfs"]["result"]) == {"hits": 2}
    assert runs["search"].started == space.artifacts.get("notes/plan.md").at
    assert (done.files, done.aggregates) == (6, 3)
    assert list(reasons(done)) == ["inode 7"]


def test_what_no_artifact_can_be_is_told_and_kept(space: Workspace, tmp_path: Path) -> None:
    """Links, empty folders, folders in themselves, names that are none, lost inodes, sizes that do
    not fit, tables of an overlay: each told; holes are zeros, and modes are kept.
    """
    inode = "INSERT INTO fs_inode (ino, mode, nlink, size, atime, mtime, ctime) VALUES"
    name = "INSERT INTO fs_dentry (parent_ino, name, ino) VALUES"
    path = foreign(
        tmp_path,
        "agentfs",
        f"{inode} (20, {0o120777}, 1, 4, 1, 1, 1)",
        f"{name} (1, 'link', 20)",
        "INSERT INTO fs_symlink VALUES (20, 'x')",
        f"{name} (2, 'loop', 2)",
        f"{name} (1, 'a/../b', 3)",
        f"{name} (1, 'nobody', 99)",
        f"{inode} (21, {0o100644}, 1, 9, 1, 1, 1)",
        f"{name} (1, 'short', 21)",
        "INSERT INTO fs_data VALUES (21, 0, 'abc')",
        f"{inode} (22, {0o100700}, 1, 8195, 1, 1, 1)",
        f"{name} (1, 'holes', 22)",
        "INSERT INTO fs_data VALUES (22, 1, CAST(zeroblob(4096) AS BLOB)), (22, 2, X'010203')",
        f"{inode} (23, {0o100644}, 1, 0, 1, 1, 1)",
        f"{name} (1, 'bad' || char(10) || 'name', 23)",
        f"{inode} (24, {0o100644}, 1, 0, 1, 1, 1)",
        f"{inode} (25, {0o100644}, 1, {1 << 40}, 1, 1, 1)",
        f"{name} (1, 'endless', 25)",
        f"{inode} (26, {0o100644}, 1, 1, 1, 1, 1)",
        f"{name} (1, 'longer', 26)",
        "INSERT INTO fs_data VALUES (26, 0, 'abc')",
        "CREATE TABLE fs_whiteout (path TEXT)",
        "INSERT INTO fs_whiteout VALUES ('/x')",
        "INSERT INTO tool_calls (id, name, status, started_at) VALUES (9, 'x', 'odd', 1)",
    )
    done = take(space, path)
    told = reasons(done)
    assert set(told) == {
        "link",
        "nothing",
        "notes/loop",
        "a/../b",
        "nobody",
        "bad\\nname",
        "inode 24",
        "endless",
        "longer",
        "fs_whiteout",
        "tool_calls[9]",
    }
    assert done.original == "imports/agentfs.db"
    # Nine bytes were promised and three are there: the rest is a hole.
    assert space.artifacts.read("short") == b"abc" + bytes(6)
    assert space.artifacts.read("longer") == b"abc"
    assert "endless" not in space.artifacts
    assert space.artifacts.read("holes") == bytes(8192) + b"\x01\x02\x03"
    entry = space.store.snapshot("artifacts/main").entry("files/holes")
    assert entry is not None
    assert entry.kind == EntryKind.EXECUTABLE
    assert space.artifacts.get("holes").unknown["agentfs"]["mode"] == 0o100700
    assert take(space, path).entry is None


# -- files that are not what they seem -----------------------------------------------------------


def test_files_of_nobody_are_refused(space: Workspace, tmp_path: Path) -> None:
    """No file, no SQLite, tables of another program, damage: refused with what could be done, and
    nothing is taken in.
    """
    (tmp_path / "plain").write_bytes(b"text")
    with pytest.raises(NotFound, match="no file or folder"):
        take(space, tmp_path / "none")
    with pytest.raises(Invalid, match="no file of SQLite"):
        take(space, tmp_path / "plain")
    other = apsw.Connection(str(tmp_path / "other"))
    other.execute("CREATE TABLE users (x)")
    other.close()
    with pytest.raises(Invalid, match="tables users"):
        take(space, tmp_path / "other")
    path = foreign(tmp_path, "agentfs")
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = bytes(len(content) // 2 - 4096)
    path.write_bytes(content)
    with pytest.raises(BadArchive):
        take(space, path)
    path = foreign(tmp_path, "agentfs", "UPDATE fs_data SET data = 7")
    with pytest.raises(BadArchive, match="chunk that is none"):
        take(space, path)
    path = foreign(tmp_path, "agentfs", "UPDATE fs_inode SET mode = 'x'")
    with pytest.raises(BadArchive, match="no number"):
        take(space, path)
    path.write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(BadArchive):
        take(space, path)
    assert space.store.view().seq == 0


def test_nothing_in_a_foreign_file_is_run(space: Workspace, tmp_path: Path) -> None:
    """A view or a virtual table of the right name is no table."""
    path = tmp_path / "hostile.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (x); CREATE VIEW store AS SELECT 1 prefix, 2 key, 3 value")
    connection.close()
    with pytest.raises(Invalid, match="tables t"):
        take(space, path)


def test_a_file_that_is_in_use_is_read_as_of_one_moment(space: Workspace, tmp_path: Path) -> None:
    """What its program has committed to the log beside it is there, what it has not is not; the
    file and its folder stay as they were.
    """
    path = foreign(tmp_path, "langgraph", "DELETE FROM store_vectors")
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "WAL")
    connection.execute("INSERT INTO store (prefix, key, value) VALUES ('a', 'in', '\"in\"')")
    connection.execute("BEGIN; INSERT INTO store (prefix, key, value) VALUES ('a', 'out', '1')")
    before = sorted(os.listdir(path.parent)), path.read_bytes()
    take(space, path)
    assert (sorted(os.listdir(path.parent)), path.read_bytes()) == before
    connection.execute("ROLLBACK")
    connection.close()
    assert "a:in" in space.memories
    assert "a:out" not in space.memories


def test_a_file_that_is_locked_is_said_to_be_busy(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that holds the file is waited for, and then named as the reason."""
    monkeypatch.setattr("cas.catalog.foreign._BUSY_MS", 10)
    path = foreign(tmp_path, "langgraph")
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Busy):
        take(space, path)
    connection.close()


def test_nothing_is_left_beside_a_file_that_was_read(space: Workspace, tmp_path: Path) -> None:
    """A file with a log that was closed is read without any file beside it; one that is written
    just then is read again under its locks.
    """
    path = foreign(tmp_path, "langgraph", "PRAGMA journal_mode = WAL")
    before = os.listdir(path.parent)
    assert take(space, path).aggregates == 4
    assert os.listdir(path.parent) == before
    connection = apsw.Connection(str(path))
    real, looks = ForeignFile._seal, []

    def seal(self: ForeignFile) -> object:
        if not looks:
            connection.execute("INSERT INTO store (prefix, key, value) VALUES ('a', 'in', '1')")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        looks.append(real(self))
        if len(looks) == 1:
            connection.execute("INSERT INTO store (prefix, key, value) VALUES ('a', 'to', '1')")
        return looks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForeignFile, "_seal", seal)
        take(space, path)
    connection.close()
    assert (looks[0] is not None, looks[1]) == (True, None)
    assert {"a:in", "a:to"} <= set(space.memories.ids())


def test_an_import_goes_where_contexts_live(space: Workspace, tmp_path: Path) -> None:
    """What belongs to contexts of two stores is one entry in each."""
    cas.open(tmp_path / "far", create=True).close()
    space.declare(Context(id="planning", place="far"), "ada")
    done = take(space, foreign(tmp_path, "agentfs"))
    assert len(list(space.runs.ids())) == 3
    assert "notes/plan.md" in space.artifacts
    assert done.entry is not None
    assert space.store_of("planning").view().seq == 1
    old = tmp_path / "old"
    (old / "sprints").mkdir(parents=True)
    (old / "sprints" / "s1.json").write_text('{"id": "s1", "title": "One"}')
    assert take(space, old).aggregates == 1
    assert space.sprints.get("s1").name == "One"


# -- git -----------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> None:
    """Run git in a folder."""
    person = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", *person, *words], cwd=folder, env=env, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_folder_of_git_comes_with_its_history(space: Workspace, tmp_path: Path) -> None:
    """The history is a branch of the store, the files of its newest commit are artifacts, JSON of
    the old layout in it aggregates; what is not committed stays outside; once more takes what came.
    """
    pytest.importorskip("pygit2", reason="pygit2 is not installed")
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "work/now")
    with pytest.raises(Invalid, match="No branch is checked out"):
        take(space, folder)
    (folder / "docs" / "a.md").write_text("one")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "docs" / "a.md").write_text("two")
    (folder / "sprints").mkdir()
    (folder / "sprints" / "s1.json").write_text('{"id": "s1", "title": "One", "status": "done"}')
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "second")
    (folder / "secret.txt").write_text("not committed")
    done = take(space, folder)
    assert done.branch == "git-project"
    assert [c.message.strip() for _id, c in space.store.log("git-project")] == ["second", "first"]
    assert space.store.snapshot("git-project~1")["docs/a.md"] == b"one"
    assert space.artifacts.read("docs/a.md") == b"two"
    assert space.sprints.get("s1").state == "closed"
    assert list(space.artifacts.ids()) == ["docs/a.md", "sprints/s1.json"]
    assert space.branches() == ["main"]
    assert take(space, folder).entry is None
    (folder / "docs" / "a.md").write_text("three")
    git(folder, "commit", "-qam", "third")
    assert take(space, folder).unchanged == 1
    assert space.artifacts.read("docs/a.md") == b"three"
    assert len(list(space.store.log("git-project"))) == 3
