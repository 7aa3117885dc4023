"""`cas copy`, as a user calls it."""

from __future__ import annotations

from tests.cli.support import Shell, tree


def test_a_store_is_copied_and_brought_up(stocked: Shell) -> None:
    """The lines that are printed, and files that are the same; the second time only what is new."""
    done = stocked("copy", ".cas", "copy")
    assert done.lines[0] == f"{stocked.folder / 'copy'} @2"
    assert done.lines[1].startswith("main new -> ")
    assert "as a fork" in done.err
    stocked.write("work/more", b"more")
    stocked("snapshot", "work")
    document = stocked("copy", ".cas", "copy", "--json").document
    assert (document["created"], document["entry"], document["new_entries"]) == (False, 3, 1)
    assert "nothing was lacking" in stocked("copy", ".cas", "copy").err
    stocked("--store", "copy", "restore", "main", "back")
    assert tree(stocked.folder / "back") == tree(stocked.folder / "work")
    stocked("--store", "copy", "branch", "own", "main")
    problem = stocked("--json", "copy", ".cas", "copy", expect=4).problem
    assert (problem["code"], problem["fields"]["reason"]) == ("backup-mismatch", "history")


def test_branches_are_copied_into_a_store(stocked: Shell) -> None:
    """By name, as one entry with author and message; sideways only with --force."""
    assert "cas init other" in stocked("copy", ".cas", "other", "main", expect=3).err
    stocked("init", "other")
    stocked("tag", "v1", "main~1")
    done = stocked("copy", ".cas", "other", "main", "v1", "-m", "for review", "--author", "ada")
    assert [line.split()[0] for line in done.lines[1:]] == ["main", "v1"]
    (entry,) = stocked("--store", "other", "--json", "journal").document["entries"]
    assert (entry["actor"], entry["message"]) == ("ada", "for review")
    stocked("--store", "other", "write", "main:own", "-", stdin=b"own")
    problem = stocked("--json", "copy", ".cas", "other", "main", expect=4).problem
    assert problem["code"] == "ref-conflict"
    stocked("copy", ".cas", "other", "main", "--force")
    assert "own" not in stocked("--store", "other", "ls", "main").text
    assert stocked("--json", "copy", ".cas", "other", "nothing", expect=3).problem["code"] == (
        "ref-not-found"
    )
    stocked("copy", "nowhere", "other", expect=3)
