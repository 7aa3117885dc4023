"""`cas retain` and `cas hold` on the command line, and how thinned commits are shown."""

from __future__ import annotations

import pytest

from tests.cli.support import Shell

NOW = ("--horizon", "0h", "--horizon-entries", "0")
"""Only the present can be read."""


def grow(shell: Shell, number: int) -> None:
    """Commits to one file."""
    for at in range(number):
        shell("write", "main:n", "-m", f"step {at}", stdin=b"%d" % at)


def test_retain_shows_what_goes_and_then_does_it(stocked: Shell) -> None:
    """A dry run tells commits, paths and reasons and changes nothing; then it is done."""
    grow(stocked, 3)
    words = ("retain", "--keep-last", "2", *NOW)
    shown = stocked(*words, "--dry-run", "--paths", "--kept")
    assert [line.split()[0] for line in shown.lines if not line.startswith(" ")] == [
        "thin", "thin", "thin", "keep", "keep",
    ]  # fmt: skip
    assert any(line.endswith("  n") for line in shown.lines)
    assert any(line.endswith("  old.txt") for line in shown.lines)
    assert "3 commits would give up content" in shown.err
    assert "the horizon would go to entry 5" in shown.err
    assert stocked("log", "--json").document["commits"][4]["thinned"] is None
    done = stocked(*words, "-m", "make room")
    assert "3 commits gave up content" in done.err
    assert "make room" in stocked("journal").lines[-1]
    log = stocked("log").lines
    assert [" [thinned] " in line for line in log] == [False, False, True, True, True]
    assert "nothing to do\n" in stocked("retain", "--keep-last", "2").err


def test_retain_gives_the_space_back_at_once(stocked: Shell) -> None:
    """--gc collects what was given up by then; a dry run tells both, and does neither."""
    grow(stocked, 3)
    words = ("retain", "--keep-last", "1", *NOW, "--gc")
    shown = stocked(*words, "--dry-run")
    assert "4 commits would give up content" in shown.err
    assert "would go: " in shown.err
    gone = [line for line in shown.lines if line.startswith("dropped ")]
    assert gone
    document = stocked(*words, "--dry-run", "--json").document
    assert (document["entry"], document["gc"]["dry_run"]) == (None, True)
    assert "would go: 0 objects" in stocked("gc", "--dry-run").err
    done = stocked(*words)
    assert "4 commits gave up content" in done.err
    assert "removed: " in done.err
    assert [line for line in done.lines if line.startswith("dropped ")] == gone
    again = stocked(*words, "--json").document
    assert (again["going"], again["gc"]["dry_run"]) == ([], False)
    stocked("fsck")
    stocked("retain", "--gc", "--list", expect=2)
    stocked("retain", "--gc", "--keep-last", "1", "--save", expect=2)


def test_thinned_commits_are_told_wherever_they_are_shown(stocked: Shell) -> None:
    """log, log --long, log --graph, show and their JSON say thinned, by whom and why."""
    grow(stocked, 2)
    stocked("retain", "--keep-last", "1", *NOW)
    row = stocked("log", "--json").document["commits"][1]
    assert row["thinned"]["reason"] == "main keeps last 1"
    assert row["thinned"]["author"] == "tester"
    assert "[thinned]" in stocked("log", "--graph").lines[1]
    assert any(
        line.startswith("thinned ") and line.endswith("by tester: main keeps last 1")
        for line in stocked("log", "--long").lines
    )
    shown = stocked("show", "main~1")
    assert any(line.startswith("thinned ") for line in shown.lines)
    assert "its record stays" in shown.err
    document = stocked("show", "main~1", "--json").document
    assert document["thinned"] == row["thinned"]
    assert (document["size"], document["changes"]) == (None, [])
    newest = stocked("show", "main", "--json").document
    assert newest["base"] is None
    assert len(newest["changes"]) == 5
    assert stocked("log", "--path", "n").lines == stocked("log", "-n", "1").lines


def test_what_was_given_up_says_where_the_boundary_is(stocked: Shell) -> None:
    """cat, ls, restore, undo, rewind and `@{..}` end with 3 and a code of their own."""
    grow(stocked, 2)
    stocked("retain", "--keep-last", "1", *NOW)
    for words in (["cat", "main~1:n"], ["ls", "main~2"], ["restore", "main~1", "back"],
                  ["diff", "main~1", "main"], ["branch", "old", "main~1"],
                  ["export", "main~1", "-o", "x.tar"]):  # fmt: skip
        problem = stocked(*words, "--json", expect=3).problem
        assert problem["code"] == "thinned", words
        assert problem["fields"]["boundary"] == 4
    for words in (["rewind", "--to", "3"], ["ls", "main@{2}"]):
        problem = stocked(*words, "--json", expect=3).problem
        assert (problem["code"], problem["fields"]["boundary"]) == ("before-horizon", 4)
    problem = stocked("undo", "--json", expect=3).problem
    assert (problem["code"], problem["fields"]["boundary"]) == ("undo-before-horizon", 4)
    assert stocked("undo", "5", "--json", expect=6).problem["code"] == "horizon-fixed"
    assert "[thinned]" in stocked("log").text
    stocked("fsck")


def test_rules_are_kept_in_the_store(stocked: Shell) -> None:
    """--save keeps a rule, --list shows them, `cas retain` goes by them, --delete takes one out."""
    grow(stocked, 3)
    assert stocked("retain", expect=2).err.startswith("cas: The store has no retention policy")
    stocked("retain", "--ref", "agents/*", "--keep-daily", "7", "--save")
    stocked("retain", "--keep-last", "1", "--keep-within", "2h", "--save", *NOW)
    assert stocked("retain", "--list").lines == [
        "heads/*         last 1, within 2h",
        "heads/agents/*  daily 7",
        "horizon         0h, 0 entries",
    ]
    assert stocked("retain", "--list", "--json").document["rules"][1] == {
        "pattern": "heads/agents/*", "keep": {"daily": 7}, "within": None,
    }  # fmt: skip
    stocked("retain", "--delete", "agents/*")
    assert stocked("retain", "--delete", "agents/*", "--json", expect=3).problem["code"] == (
        "ref-not-found"
    )
    assert stocked("retain", "--json").document["going"] == []
    stocked("retain", "--keep-last", "unlimited", "--save")
    assert stocked("retain", "--list").lines[0] == "heads/*  last unlimited"
    assert stocked("retain", "--keep-last", "1", "--json").document["entry"] is not None


def test_a_hold_is_made_listed_and_lifted(stocked: Shell) -> None:
    """What is held stays until the hold is lifted, and a hold needs a ground."""
    id = stocked("hold", "main", "-m", "case 12", "--author", "ada").text.strip()
    grow(stocked, 1)
    assert "case 12" in stocked("hold").text
    assert stocked("hold", "--json").document["holds"][0]["id"] == id
    assert stocked("undo", "3", "--json", expect=6).problem["code"] == "on-hold"
    assert stocked("retain", "--keep-last", "1", *NOW, "--json").document["going"] == []
    stocked("hold", "main~1", "-d")
    assert stocked("hold").out == b""
    assert len(stocked("retain", "--keep-last", "1", *NOW, "--json").document["going"]) == 2
    stocked("hold", "main", expect=2)
    stocked("hold", "main", "-d", expect=3)
    stocked("hold", "-d", expect=2)
    stocked("hold", "main", "-d", "-m", "x", expect=2)


@pytest.mark.parametrize(
    "words",
    [
        ("--keep-last", "x"),
        ("--keep-last", "-1"),
        ("--keep-last", "0"),
        ("--keep-last", "99999999999"),
        ("--keep-within", "soon"),
        ("--horizon", "soon"),
        ("--horizon-entries", "-1"),
        ("--ref", "x"),
        ("--ref", "", "--keep-last", "1"),
        ("--save",),
        ("--save", "--keep-last", "1", "--dry-run"),
        ("--list", "--keep-last", "1"),
        ("--delete", "x", "--dry-run"),
        ("--list", "--delete", "x"),
    ],
)
def test_what_cannot_be_asked_for_is_told(stocked: Shell, words: tuple[str, ...]) -> None:
    """Numbers, durations and words that do not go together end with 2 and change nothing."""
    before = stocked("journal").lines
    stocked("retain", *words, expect=2)
    assert stocked("journal").lines == before


def test_why_tells_the_way_to_an_object(stocked: Shell) -> None:
    """Paths, revisions and ids are explained; what nothing keeps says so; unknown ids end in 3."""
    assert stocked("why", "main:run.sh").lines[0].startswith("ref: run.sh in commit ")
    assert stocked("why", "main").lines == ["ref: what main points at"]
    loose = stocked("put", "-", stdin=b"loose").text.split()[0]
    assert "nothing keeps blob" in stocked("why", loose[:12]).err
    document = stocked("why", loose, "--json").document
    assert (document["kept"], document["kind"], document["reasons"]) == (False, "blob", [])
    assert "not in this store" in stocked("why", "ab" * 32, expect=3).err
    stocked("why", "nowhere", expect=3)
    stocked("why", "main:nowhere", expect=3)
    grow(stocked, 2)
    stocked("retain", "--keep-last", "1", *NOW)
    assert stocked("why", "main~1").lines[0].endswith("by tester: main keeps last 1")


def test_a_purge_is_told_done_and_listed(stocked: Shell) -> None:
    """A dry run tells what would be done; then reading ends in 3 with a code of its own."""
    stocked("write", "main:key", stdin=b"SECRET 12345")
    id = stocked("show", "main:key", "--json").document["id"]
    shown = stocked("purge", "main:key", "--dry-run")
    assert "1 pack would be written anew" in shown.err
    assert stocked("cat", "main:key").out == b"SECRET 12345"
    stocked("purge", "main:key", expect=2)
    done = stocked("purge", "main:key", "--reason", "leaked", "--author", "ada")
    assert "no file of the store holds it" in done.err
    for words in (["cat", "main:key"], ["get", id]):
        problem = stocked(*words, "--json", expect=3).problem
        assert problem["code"] == "purged"
        assert problem["fields"]["reason"] == "leaked"
    assert "key" in stocked("ls", "main").text
    problem = stocked("restore", "main", "back", "--json", expect=3).problem
    assert (problem["code"], problem["fields"]["paths"]) == ("purged", ["key"])
    assert (stocked.folder / "back" / "run.sh").exists()
    assert stocked("purge").lines[0].startswith(id[:12])
    assert stocked("purge", "--json").document["purged"][0]["author"] == "ada"
    stocked.write("key", b"SECRET 12345")
    assert stocked("put", "key", "--json", expect=6).problem["code"] == "was-purged"
    stocked("write", "main:again", stdin=b"SECRET 12345", expect=6)
    stocked("fsck")
    assert stocked("put", "key", "--allow-purged").text.strip() == id
    assert stocked("purge").out == b""
    assert stocked("cat", "main:key").out == b"SECRET 12345"
    stocked("purge", "--reason", "x", expect=2)
    stocked("purge", "main", "--reason", "x", expect=2)
    stocked("purge", "ab" * 32, "--reason", "x", expect=3)
    stocked("hold", "main", "-m", "case")
    assert stocked("purge", id, "--reason", "x", "--json", expect=6).problem["code"] == "on-hold"


def test_a_policy_that_gives_up_nothing_yet_says_why(shell: Shell) -> None:
    """What no rule keeps stays as long as undo reaches back to it, and that is told."""
    shell("init")
    for step in range(2):
        shell("write", "main:a", stdin=b"%d" % step)
    assert "undo reaches back" in shell("retain", "--keep-last", "1", "-n").err
    assert "nothing to do\n" in shell("retain", "--keep-last", "2", "-n").err
