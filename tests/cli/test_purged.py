"""What the commands say and do where content was purged: the path is named, the rest goes on."""

from __future__ import annotations

import os
import tarfile

import pytest

from tests.cli.support import Shell

SECRET = b"SECRET 12345\nsecond\n"


@pytest.fixture
def purged(shell: Shell) -> Shell:
    """A store with a folder `d` on main, of which the file `k` was purged."""
    shell("init")
    shell.write("d/a", b"ok\n")
    shell.write("d/k", SECRET)
    shell.write("d/z", b"ok too\n")
    shell("snapshot", "d")
    shell("purge", "main:k", "--reason", "leaked")
    return shell


@pytest.mark.parametrize("more", [(), ("--no-stat-cache",)])
def test_a_snapshot_leaves_out_what_was_purged_and_says_so(
    purged: Shell, more: tuple[str, ...]
) -> None:
    """With and without what is remembered of the folder: named, exit 1, the rest is saved; again
    the next time; once it was put again on purpose it is saved.
    """
    for _ in range(2):
        done = purged("snapshot", "d", *more, expect=1)
        assert "not saved: k: this content was purged" in done.err
        assert "main: 2 files" in done.err
        assert purged("ls", "main").lines == ["a", "z"]
    (problem,) = purged("snapshot", "d", "--json", *more, expect=1).document["problems"]
    assert (problem["path"], problem["reason"]) == ("k", "purged")
    purged("put", "--allow-purged", "d/k")
    purged("snapshot", "d", *more)
    assert purged("cat", "main:k").out == SECRET


def test_a_large_file_that_was_purged_is_left_out_too(purged: Shell) -> None:
    """Content that is stored in chunks is known before any chunk is staged."""
    purged.write("d/big", os.urandom(9 << 20))
    purged("put", "--allow-purged", "d/k")
    purged("snapshot", "d")
    purged("purge", "main:big", "--reason", "leaked")
    for more in ((), ("--no-stat-cache",)):
        assert "not saved: big: " in purged("snapshot", "d", *more, expect=1).err
        assert purged("ls", "main").lines == ["a", "k", "z"]


def test_who_puts_it_again_is_told_which_file_and_what_to_do(purged: Shell) -> None:
    """`put` and `write` name the file, and an option that the command line has."""
    problem = purged("put", "d/a", "d/k", "--json", expect=6).problem
    assert (problem["code"], problem["fields"]["path"]) == ("was-purged", "d/k")
    assert "`cas put --allow-purged`" in problem["message"]
    problem = purged("write", "main:new", "d/k", "--json", expect=6).problem
    assert (problem["code"], problem["fields"]["path"]) == ("was-purged", "main:new")


def test_an_archive_leaves_out_what_was_purged_and_names_it(purged: Shell) -> None:
    """All else is in it; the exit code is that of reading something purged."""
    done = purged("export", "main", "-o", "out.tar", expect=3)
    assert "cas: k: was purged" in done.err
    with tarfile.open(purged.folder / "out.tar") as archive:
        assert archive.getnames() == ["a", "z"]
    document = purged("export", "main", "-o", "out.zip", "--json", expect=3).document
    assert document["purged"] == [{"path": "k"}]
    assert document["size"] == (purged.folder / "out.zip").stat().st_size
    problem = purged("export", "main:k", "-o", "one.tar", "--json", expect=3).problem
    assert problem["code"] == "purged"
    assert not (purged.folder / "one.tar").exists()


def test_a_search_goes_on_behind_what_was_purged(purged: Shell) -> None:
    """What can be searched is; what cannot is named, and the exit code tells."""
    done = purged("grep", "ok", "main", expect=3)
    assert done.lines == ["a:ok", "z:ok too"]
    assert "cas: k: was purged" in done.err
    document = purged("grep", "ok", "main", "--json", expect=3).document
    assert [match["path"] for match in document["matches"]] == ["a", "z"]
    assert document["purged"] == [{"path": "k"}]
    purged("grep", "ok", "main:a")


def test_differences_and_lines_name_the_path_that_was_purged(purged: Shell) -> None:
    """A patch goes on with the next file; blame tells which one it is, and why; lines of a later
    version are told as far as what stands there can be read.
    """
    purged("write", "main:k", stdin=b"second\nthird\n")
    purged("write", "main:z", stdin=b"changed\n")
    done = purged("diff", "main~2", "main", "-p", expect=3)
    assert "-ok too" in done.lines
    assert "cas: k: was purged" in done.err
    document = purged("diff", "main~2", "main", "-p", "--json", expect=3).document
    assert document["purged"] == [{"path": "k"}]
    problem = purged("blame", "main~2:k", "--json", expect=3).problem
    assert (problem["code"], problem["fields"]["path"]) == ("purged", "k")
    assert problem["message"].startswith("k: ")
    assert len(purged("blame", "main:k").lines) == 2


def test_why_and_show_tell_the_purge(purged: Shell) -> None:
    """When, why and by whom; never that it was not there."""
    shown = purged("show", "main:k", "--json").document
    assert (shown["purged"]["reason"], shown["purged"]["author"]) == ("leaked", "tester")
    assert "by tester: leaked" in purged("show", "main:k").text
    for what in ("main:k", shown["id"], shown["id"][:10]):
        assert "by tester: leaked" in purged("why", what, expect=3).err
        assert purged("why", what, "--json", expect=3).document["purged"] == shown["purged"]


def test_a_workspace_comes_out_without_what_was_purged(shell: Shell) -> None:
    """Artifacts whose content was purged are named; the others are written."""
    shell("init")
    shell("artifact", "put", "notes/a", shell.write("a", b"ok\n"))
    shell("artifact", "put", "notes/k", shell.write("k", SECRET))
    id = shell("put", "k").text.strip()
    shell("purge", id, "--reason", "leaked")
    done = shell("workspace", "export", "out", expect=3)
    assert "notes/k: was purged" in done.err
    assert (shell.folder / "out/notes/a").read_bytes() == b"ok\n"
    assert not (shell.folder / "out/notes/k").exists()


def test_each_of_what_keeps_something_is_told(stocked: Shell) -> None:
    """A pin, a hold, a tag and a second branch at one commit: a line each."""
    stocked("pin", "main")
    stocked("hold", "main", "-m", "case")
    stocked("tag", "v1")
    stocked("branch", "second")
    stocked("write", "second:more", stdin=b"1")
    for what in ("main:run.sh", "main:docs/guide.md"):
        reasons = stocked("why", what, "--json").document["reasons"]
        refs = {reason["ref"].partition("/")[0] for reason in reasons}
        assert refs == {"heads", "tags", "pins", "holds"}
        assert {r["ref"] for r in reasons} >= {"heads/main", "heads/second"}
        assert len(stocked("why", what).lines) == len(reasons) == 5


def test_a_branch_is_copied_with_the_tombstone(purged: Shell) -> None:
    """The other store has the rest, names why it lacks the file, and the note says it once."""
    purged("init", "other")
    document = purged("copy", ".cas", "other", "main", "--json").document
    assert len(document["purged"]) == 1
    there = ("--store", "other")
    assert purged(*there, "ls", "main").lines == ["a", "k", "z"]
    assert "leaked" in purged(*there, "cat", "main:k", expect=3).err
    purged("init", "third")
    done = purged("copy", ".cas", "third", "main")
    assert "1 content purged from SRC came as" in done.err
    purged("write", "main:n", "d/a")
    assert "purged" not in purged("copy", ".cas", "third", "main").err
    purged(*there, "fsck")
