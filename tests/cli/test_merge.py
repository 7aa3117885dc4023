"""`cas merge`, `conflicts`, `resolve`, `undo`, `redo`, `rewind`, `blame`, and the new `cas log`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.cli.graph import draw
from tests.cli.support import Shell
from tests.cli.test_surface import complete


@pytest.fixture
def forked(shell: Shell) -> Shell:
    """Branches main and side that both changed a, and each something else."""
    shell("init")
    for branch, message, files in (
        ("main", "base", {"a": b"1\n", "b": b"1\n", "c": b"1\n"}),
        ("side", "theirs", {"a": b"3\n", "b": b"1\n", "c": b"3\n", "new": b""}),
        ("main", "ours", {"a": b"2\n", "b": b"2\n", "c": b"1\n"}),
    ):
        for name, content in files.items():
            shell.write(f"{message}/{name}", content)
        if branch == "side":
            shell("branch", "side", "main")
        shell("snapshot", message, "-b", branch, "-m", message)
    return shell


def test_a_conflict_is_told_and_nothing_is_done(forked: Shell) -> None:
    """Without a policy a clash ends with 4 and leaves everything as it was."""
    before = forked("journal").out
    for words in (["merge", "side"], ["merge", "side", "-n"]):
        done = forked(*words, expect=4)
        assert done.lines == ["both-changed    a"]
    assert forked("journal").out == before
    assert forked("merge", "side", "--json", expect=4).document["commit"] is None


def test_a_merge_is_committed_with_conflicts_and_settled(forked: Shell) -> None:
    """Conflicts are committed, listed, settled for a side or by content, and then gone."""
    done = forked("merge", "side", "--on-conflict", "commit", "-m", "both")
    commit = done.lines[0]
    assert done.lines[1:] == ["both-changed    a"]
    assert forked("show", "--json", commit).document["message"] == "both"
    assert forked("cat", "main:a").out == b"2\n"
    assert forked("cat", "main:c").out == b"3\n"
    assert forked("conflicts").lines == ["both-changed    a"]
    forked("resolve", "b", "--take", "ours", expect=3)
    forked("resolve", "a", expect=2)
    forked("resolve", "a", "--take", "theirs")
    assert forked("cat", "main:a").out == b"3\n"
    assert forked("conflicts").lines == []
    forked("undo")
    forked("resolve", "a", "--file", "-", stdin=b"2 and 3\n")
    assert forked("cat", "main:a").out == b"2 and 3\n"
    assert forked("conflicts", "--json").document["conflicts"] == []


def test_a_side_can_be_chosen(forked: Shell) -> None:
    """--on-conflict theirs settles the clash; merging again finds nothing to do."""
    done = forked("merge", "side", "--on-conflict", "theirs")
    assert "settled: a" in done.err
    assert forked("cat", "main:a").out == b"3\n"
    assert "already" in forked("merge", "side").err
    assert "forward" in forked("merge", "main", "-b", "side").err


def test_unrelated_histories_need_a_word(forked: Shell) -> None:
    """A branch without a common commit is refused with 2, and merged when asked for."""
    forked.write("alien/z", b"")
    forked("snapshot", "alien", "-b", "alien")
    assert "allow" in forked("merge", "alien", expect=2).err
    forked("merge", "alien", "--allow-unrelated")
    assert "z" in forked("ls", "main").lines


def test_undo_redo_and_rewind(forked: Shell) -> None:
    """What was done is taken back, done again, and put back to a moment, each by an entry."""
    head = forked("show", "main", "--json").document["commit"]
    entries = len(forked("journal").lines)
    planned = forked("undo", "-n")
    assert len(forked("journal").lines) == entries
    done = forked("undo", "-m", "a mistake")
    assert done.lines == planned.lines
    assert done.lines[0].startswith(f"heads/main {head[:12]} -> ")
    assert forked("journal", "-n", "1").lines[0].endswith("a mistake")
    forked("redo")
    assert forked("show", "main", "--json").document["commit"] == head
    forked("rewind", "--to", "1")
    assert [line.split()[0] for line in forked("branch").lines] == ["main"]
    forked("undo")
    forked("rewind", "main:b", "--to", "1")
    assert forked("cat", "main:b").out == b"1\n"
    assert "as it was" in forked("rewind", "main:b", "--to", "1").err


def test_undo_of_what_moved_since_is_refused(forked: Shell) -> None:
    """A ref that moved since stands against undo: 4, both places, nothing done."""
    before = forked("journal").out
    done = forked("undo", "1", expect=4)
    assert done.lines[0].startswith("moved heads/main is at ")
    assert forked("undo", "1", "--json", expect=4).document["clashes"][0]["ref"] == "heads/main"
    assert forked("journal").out == before
    assert "no entry 99" in forked("undo", "99", expect=3).err
    assert "no undo" in forked("redo", "1", expect=2).err
    forked("rewind", "--to", "soon", expect=2)


def test_blame_names_commits_of_lines_and_entries(forked: Shell) -> None:
    """Each line, and each entry of a directory, has commit, time and author."""
    forked("merge", "side", "--on-conflict", "ours")
    theirs = forked("show", "side", "--json").document["commit"]
    (line,) = forked("blame", "main:c").lines
    assert line.startswith(theirs[:12])
    assert line.endswith("tester 1) 3")
    rows = forked("blame", "main").lines
    assert [row.split()[3] for row in rows] == ["a", "b", "c", "new"]
    assert rows[2].startswith(theirs[:12])
    assert rows[2].endswith("theirs")
    forked("blame", "main:nothing", expect=3)


def test_the_log_of_a_path_a_range_and_a_graph(forked: Shell) -> None:
    """--path shows what changed it, A..B what B has, --graph the lanes."""
    forked("merge", "side", "--on-conflict", "ours", "-m", "merged")
    subjects = [line.split()[-1] for line in forked("log", "--path", "c").lines]
    assert subjects == ["theirs", "base"]
    assert len(forked("log", "side..main").lines) == 2
    assert len(forked("log", "main@{1}..main").lines) == 3
    drawn = forked("log", "--graph").lines
    assert [line[:3].split(" ")[0] for line in drawn][:2] == ["*", "|-."]
    assert sorted(line[:3] for line in drawn[2:4]) == ["* |", "| *"]
    assert len(drawn) == 6
    forked("log", "--graph", "--long", expect=2)


def test_a_renamed_file_is_one_line(forked: Shell) -> None:
    """`diff --renames` tells a moved file with both paths; a folder is refused."""
    forked.write("ours/moved", b"1\n")
    (forked.folder / "ours" / "c").unlink()
    forked("snapshot", "ours")
    assert forked("diff", "main~1", "main", "-M").lines == ["R c -> moved"]
    row = forked("diff", "main~1", "main", "-M", "--json").document["changes"][0]
    assert (row["origin"], row["path"], row["similarity"]) == ("c", "moved", 100)
    assert len(forked("log", "--path", "moved").lines) == 1
    assert len(forked("log", "--path", "moved", "--follow").lines) == 2
    forked("log", "--follow", expect=2)
    (line,) = forked("blame", "main:moved", "--json").document["lines"]
    assert (line["path"], line["message"]) == ("c", "base")
    forked("diff", "main", "-M", "--folder", "ours", expect=2)


def test_one_change_is_taken_over_or_taken_back(forked: Shell) -> None:
    """`revert` leaves what came since, `cherry-pick` takes no history along; both plan first."""
    forked.write("ours/late", b"1\n")
    forked("snapshot", "ours", "-m", "late")
    plan = forked("revert", "main~1", "-n", "--json").document
    assert (plan["edits"], plan["conflicts"], plan["up_to_date"]) == (2, [], False)
    commit = forked("revert", "main~1").lines[0]
    assert forked("show", "--json", commit).document["message"].endswith(": ours")
    assert forked("ls", "main").lines == ["a", "b", "c", "late"]
    assert forked("cat", "main:b").out == b"1\n"
    picked = forked("cherry-pick", "side", "-m", "taken").lines[0]
    assert forked("show", "--json", picked).document["parents"] == [commit]
    assert forked("cat", "main:c").out == b"3\n"
    assert "nothing to do: main is as it would be" in forked("cherry-pick", "side").err
    done = forked("cherry-pick", "side", "--json").document
    assert (done["up_to_date"], done["entry"]) == (True, None)
    forked("revert", "side~1", "--mainline", "2", expect=2)
    assert forked("cherry-pick", "main~2", "-b", "side", expect=0).lines
    assert forked("revert", "side~2", "-b", "main", expect=4).lines


def test_a_merge_tells_which_renames_it_followed(forked: Shell) -> None:
    """What the other side did to a renamed file is at its new path; or a conflict, if so wanted."""
    forked.write("ours/moved", b"1\n")
    (forked.folder / "ours" / "c").unlink()
    forked("snapshot", "ours")
    told = forked("merge", "side", "-n", "--json", expect=4).document
    assert told["followed"] == [{"path": "moved", "origin": "c"}]
    alone = forked("merge", "side", "-n", "--no-renames", expect=4)
    assert alone.lines == ["both-changed    a", "changed-deleted c"]
    done = forked("merge", "side", "--on-conflict", "ours")
    assert "renamed: c is merged at moved" in done.err
    assert forked("cat", "main:moved").out == b"3\n"


def test_an_annotated_tag_shows_its_message(forked: Shell) -> None:
    """The list of tags has the tag's own text and author; `^{}` is the commit."""
    forked("tag", "v1", "-m", "the first release")
    assert forked("tag").lines[0].endswith("the first release")
    (row,) = forked("tag", "--json").document["refs"]
    assert (row["tagger"], row["message"]) == ("tester", "the first release")
    assert forked("show", "v1^{}", "--json").document["kind"] == "commit"
    assert forked("show", "v1", "--json").document["kind"] == "tag"


def test_the_second_end_of_a_range_completes(forked: Shell) -> None:
    """Behind the dots of a range branches and tags are offered, and paths behind a moment."""
    assert complete(forked.folder, "log", "main..s") == ["main..side"]
    assert complete(forked.folder, "log", "main...s") == ["main...side"]
    assert complete(forked.folder, "cat", "main@{1}:b") == ["main@{1}:b"]


GRAPH = st.lists(st.lists(st.integers(1, 4), max_size=3, unique=True), min_size=1, max_size=12)


@given(GRAPH)
def test_every_graph_is_drawn_with_one_mark_a_commit(jumps: list[list[int]]) -> None:
    """Any history has one row with one star a commit, and a lane to each parent that is shown."""
    last = len(jumps) - 1
    history = [
        (at, [at + jump for jump in row if at + jump <= last]) for at, row in enumerate(jumps)
    ]
    rows = list(draw(history))
    assert len(rows) == len(history)
    for (at, parents), (row, below) in zip(history, rows, strict=True):
        assert row.count("*") == 1
        assert len(below) <= max(1, len(parents))
        column = row.index("*")
        reached = any(at in others for _id, others in history[:at])
        if reached:
            above = rows[at - 1][1][-1:] or [rows[at - 1][0]]
            assert above[0].ljust(column + 1)[column] != " "
