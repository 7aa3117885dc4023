"""`cas snapshot` and `cas restore`."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from tests.cli.support import Shell, tree


def test_a_folder_comes_back_byte_for_byte(stocked: Shell) -> None:
    """What was saved is restored with contents, links and executable bits."""
    stocked("restore", "main", "back")
    assert tree(stocked.folder / "back") == tree(stocked.folder / "work")


def test_snapshot_prints_the_commit_and_nothing_else(stocked: Shell) -> None:
    """Standard output is the commit's id; what people like to know goes to standard error."""
    done = stocked("snapshot", "work", "-b", "other", "-m", "again")
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.text)
    assert re.fullmatch(r"other: 4 files, .*; .* new object.*\n", done.err)
    assert stocked("log", "other").lines[0].endswith("again")
    assert stocked("snapshot", "work", "-q").err == ""


def test_an_unchanged_folder_makes_a_commit(stocked: Shell) -> None:
    """Saving twice makes two commits of one tree."""
    stocked("snapshot", "work")
    commits = stocked("log", "--json").document["commits"]
    assert len(commits) == 3
    assert commits[0]["tree"] == commits[1]["tree"]


def test_the_author_is_cas_author_or_user_at_host(stocked: Shell) -> None:
    """CAS_AUTHOR names the author; without it user@host."""
    stocked("snapshot", "work", CAS_AUTHOR="alice <a@example.org>")
    stocked("snapshot", "work", CAS_AUTHOR="", USER="bob")
    authors = [c["author"] for c in stocked("log", "--json").document["commits"]]
    assert authors[:2] == [f"bob@{os.uname().nodename}", "alice <a@example.org>"]


def test_secrets_are_saved_and_named_or_left_out(stocked: Shell) -> None:
    """A likely secret is saved with a notice; --skip-secrets leaves it out with one."""
    stocked.write("work/.env", b"KEY=1\n")
    done = stocked("snapshot", "work")
    assert ".env: looks like a secret and is saved" in done.err
    assert ".env" in stocked("ls", "main").lines
    document = stocked("snapshot", "work", "--skip-secrets", "--json").document
    assert document["secrets"] == [{"path": ".env"}]
    assert ".env" not in stocked("ls", "main").lines
    assert ".env" not in stocked("snapshot", "work", "--quiet").err


def test_what_cannot_be_saved_is_told_and_the_rest_is_saved(stocked: Shell) -> None:
    """A FIFO is reported with exit code 1; everything else is in the commit."""
    os.mkfifo(stocked.folder / "work" / "pipe")
    done = stocked("snapshot", "work", expect=1)
    assert "cas: not saved: pipe:" in done.err
    assert stocked("ls", "main").lines == ["docs/", "link", "new.bin", "run.sh"]
    document = stocked("snapshot", "work", "--json", expect=1).document
    assert [(p["path"], p["reason"]) for p in document["problems"]] == [("pipe", "fifo")]
    assert "pipe" in stocked("snapshot", "work", "-q", expect=1).err


def test_ignore_files_are_honoured(stocked: Shell) -> None:
    """.casignore leaves out what it names; .gitignore only when asked."""
    stocked.write("work/a.tmp", b"")
    stocked.write("work/b.log", b"")
    stocked.write("work/.casignore", b"*.tmp\n")
    stocked.write("work/.gitignore", b"*.log\n")
    stocked("snapshot", "work")
    assert {"a.tmp", "b.log"} & set(stocked("ls", "main").lines) == {"b.log"}
    stocked("snapshot", "work", "--gitignore")
    assert {"a.tmp", "b.log"} & set(stocked("ls", "main").lines) == set()


def test_the_store_is_never_saved_into_itself(shell: Shell) -> None:
    """A snapshot of the folder in which .cas lies, or a store of another name, leaves it out."""
    shell.write("a", b"a")
    for place in (".cas", "inside/store"):
        shell("init", place)
        shell("snapshot", ".", "--store", place)
        assert shell("ls", "-r", "main", "--store", place).lines == ["a"]


def test_restore_of_a_part(stocked: Shell) -> None:
    """REV:PATH restores the files of a directory, or one file under its own name."""
    stocked("restore", "main:docs", "one")
    assert list(tree(stocked.folder / "one")) == ["guide.md"]
    stocked("restore", "main:docs/guide.md", "two")
    assert list(tree(stocked.folder / "two")) == ["guide.md"]


def test_unsaved_work_is_never_overwritten_without_force(stocked: Shell) -> None:
    """A file that the store does not hold stops the restore; --force writes over it."""
    shutil.copytree(stocked.folder / "work", stocked.folder / "copy", symlinks=True)
    stocked.write("copy/docs/guide.md", b"my own words\n")
    stocked.write("copy/own.txt", b"mine\n")
    before = tree(stocked.folder / "copy")
    refused = stocked("restore", "main~1", "copy", expect=4)
    assert "docs/guide.md" in refused.err
    assert tree(stocked.folder / "copy") == before
    plan = stocked("restore", "main~1", "copy", "--dry-run", "--json").document
    assert [row["path"] for row in plan["unsaved"]] == ["docs/guide.md"]
    assert tree(stocked.folder / "copy") == before
    stocked("restore", "main~1", "copy", "--force")
    assert stocked("cat", "main~1:docs/guide.md").out == b"# Guide\n\nfirst\n"
    assert (stocked.folder / "copy/docs/guide.md").read_bytes() == b"# Guide\n\nfirst\n"
    assert (stocked.folder / "copy/own.txt").read_bytes() == b"mine\n"


def test_saved_work_is_written_over(stocked: Shell) -> None:
    """A file whose content the store holds is replaced without force: it can be had again."""
    stocked("restore", "main", "copy")
    done = stocked("restore", "main~1", "copy", "--json").document
    assert [row["path"] for row in done["replaced"]] == ["docs/guide.md"]
    assert (stocked.folder / "copy/docs/guide.md").read_bytes() == b"# Guide\n\nfirst\n"


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_a_snapshot_of_no_folder_is_refused(stocked: Shell, name: str) -> None:
    """A folder that is missing, or a file, is refused, and no commit is made."""
    stocked.write("file.txt", b"")
    before = stocked("journal").out
    stocked("snapshot", name, expect=3 if name == "missing" else 2)
    assert stocked("journal").out == before


def test_other_stores_are_left_out_and_told(stocked: Shell) -> None:
    """A store that lies in the folder is no file to be copied while it runs; it is named."""
    stocked("init", "work/deep/other")
    done = stocked("snapshot", "work")
    assert "deep/other: is a store and was left out" in done.err
    found = stocked("snapshot", "work", "--json").document
    assert found["stores"] == [{"path": "deep/other"}]
    assert not any(line.startswith("deep/other") for line in stocked("ls", "-r", "main").lines)


def test_a_link_that_leads_nowhere_is_no_folder(stocked: Shell) -> None:
    """A restore to it is refused for what it is, and never works by trying again."""
    (stocked.folder / "nowhere").symlink_to("gone")
    assert "is not a folder" in stocked("restore", "main", "nowhere", expect=2).err
