"""`cas branch` and `cas tag`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.support import Shell


def commit_of(shell: Shell, revision: str) -> Any:
    """Full id of a revision."""
    return shell("show", revision, "--json").document["commit"]


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_ref_is_made_listed_moved_and_deleted(stocked: Shell, kind: str) -> None:
    """A branch or tag is made at a revision, moved only by force, and deleted."""
    first, second = commit_of(stocked, "main~1"), commit_of(stocked, "main")
    stocked(kind, "release/one", "main~1")
    assert commit_of(stocked, "release/one") == first
    names = [line.split()[0] for line in stocked(kind).lines]
    assert names == (["main", "release/one"] if kind == "branch" else ["release/one"])
    refused = stocked(kind, "release/one", "main", expect=4)
    assert "--force" in refused.err
    stocked(kind, "release/one", "main", "--force")
    assert commit_of(stocked, "release/one") == second
    gone = stocked(kind, "-d", "release/one", "--json").document
    assert (gone["old"], gone["new"]) == (second, None)
    stocked("log", "release/one", expect=3)
    stocked(kind, "-d", "release/one", expect=3)


def test_main_is_meant_where_no_revision_is_said(stocked: Shell) -> None:
    """A branch or tag without REV is made at main."""
    stocked("branch", "b")
    stocked("tag", "t")
    assert commit_of(stocked, "b") == commit_of(stocked, "t") == commit_of(stocked, "main")


def test_an_annotated_tag_leads_to_its_commit(stocked: Shell) -> None:
    """A tag with a message is an object of its own; as a revision it is its commit."""
    stocked("tag", "v1", "main~1", "-m", "first release")
    (row,) = stocked("tag", "--json").document["refs"]
    assert row["commit"] == commit_of(stocked, "main~1") != row["target"]
    assert commit_of(stocked, "v1~0") == row["commit"]


def test_moving_a_ref_to_where_it_is_does_nothing(stocked: Shell) -> None:
    """A branch that is there already makes no journal entry."""
    stocked("branch", "b")
    before = stocked("journal").out
    done = stocked("branch", "b", "--force", "--json").document
    assert done["entry"] is None
    assert stocked("journal").out == before


def test_what_was_deleted_can_be_found_again(stocked: Shell) -> None:
    """The journal keeps where a deleted branch was; a branch made there has it all again."""
    head = commit_of(stocked, "main")
    assert head in stocked("branch", "-d", "main").err
    entry = stocked("journal", "-n", "1", "--json").document["entries"][0]
    assert entry["changes"] == [{"ref": "heads/main", "old": head, "new": None}]
    stocked("branch", "main", head)
    assert stocked("log").lines[0].endswith("second")


def test_a_ref_below_another_is_refused(stocked: Shell) -> None:
    """A branch cannot lie in a folder that is a branch."""
    assert "main" in stocked("branch", "main/below", expect=4).err


def test_one_short_name_does_not_come_to_mean_two_things(stocked: Shell) -> None:
    """A tag called as a branch would make `cas log` ambiguous: it takes force."""
    assert "would then be either" in stocked("tag", "main", expect=4).err
    stocked("tag", "v1")
    assert "would then be either" in stocked("branch", "v1", expect=4).err
    stocked("tag", "main", "--force")
    stocked("log", "heads/main")
    for words in (("branch", "tags/x"), ("tag", "heads/x")):
        assert "cannot be a" in stocked(*words, expect=2).err


def test_what_is_written_to_a_tag_makes_no_branch_of_its_name(stocked: Shell) -> None:
    """A change that would make a branch says that the name is a tag's, and commits nothing; a
    branch that shares the name on purpose is written to.
    """
    stocked("tag", "v1", "main")
    stocked("export", "main", "-o", "main.tar")
    ways = [
        ["write", "v1:a", "work/run.sh"],
        ["write", "heads/v1:a", "work/run.sh", "--raw"],
        ["cp", "main:run.sh", "v1:a"],
        ["mv", "main:run.sh", "v1:a"],
        ["edit", "v1:run.sh"],
        ["snapshot", "work", "-b", "v1"],
        ["import", "--tar", "main.tar", "-b", "v1"],
        ["merge", "main", "-b", "v1"],
    ]
    before = stocked("journal").lines
    for words in ways:
        refused = stocked(*words, expect=4, EDITOR="echo >>")
        assert "'v1' is a tag" in refused.err, words
    assert stocked("journal").lines == before
    stocked("branch", "v1", "main~1", "--force")
    stocked("write", "v1:a", "work/run.sh")
    assert "a" in stocked("ls", "heads/v1").lines
