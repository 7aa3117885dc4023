"""The workspace from the command line: memories, artifacts, sprints, events, branches."""

from __future__ import annotations

import re

import cas
from cas.clock import SystemClock
from tests.cli.support import Shell


def test_memories_are_added_listed_and_shown(shell: Shell) -> None:
    """A memory is added, listed by agent and tag, shown, and its history told."""
    shell("init")
    first = shell("memory", "add", "small PRs", "--agent", "ada", "-t", "team").lines[0]
    second = shell("memory", "add", "second", "--importance", "0.9").lines[0]
    assert shell("memory", "list").text.count("\n") == 2
    assert shell("memory", "list", "--agent", "ada", "-t", "team").lines[0].startswith(first)
    shown = shell("memory", "show", second, "--json").document["items"][0]["fields"]
    assert (shown["text"], shown["importance"], shown["agent"]) == ("second", 0.9, "tester")
    assert shell("memory", "history", first).lines[0].endswith("small PRs")
    assert shell("memory", "list", "--at", "1").text.count("\n") == 1
    shell("memory", "show", "nobody", expect=3)
    shell("memory", "show", expect=2)
    shell("memory", "add", "x", "--importance", "7", expect=2)


def test_artifacts_are_put_and_got(shell: Shell) -> None:
    """Content goes in from a file or standard input and comes out as it was, any version."""
    shell("init")
    shell.write("a.bin", b"\x00one")
    shell("artifact", "put", "data/a", "a.bin", "--title", "A")
    shell("artifact", "put", "data/a", "-", stdin=b"two")
    assert shell("artifact", "get", "data/a", "-").out == b"two"
    assert shell("artifact", "get", "data/a").out == b"two"
    assert shell("artifact", "get", "data/a", "--at", "1").out == b"\x00one"
    shell("artifact", "get", "data/a", "out/b.bin", expect=3)
    (shell.folder / "out").mkdir()
    shell("artifact", "get", "data/a", "out/b.bin")
    assert (shell.folder / "out" / "b.bin").read_bytes() == b"two"
    assert shell("artifact", "list").lines == ["3  artifact  data/a"]
    assert len(shell("artifact", "history", "data/a").lines) == 2
    shell("artifact", "rm", "data/a")
    shell("artifact", "get", "data/a", expect=3)
    shell("artifact", "put", "x", "missing", expect=3)


def test_sprints_move_and_events_tell(shell: Shell) -> None:
    """A sprint goes through its states, an impossible one is refused, the events say it all."""
    shell("init")
    shell("sprint", "add", "s1", "One", "--goal", "ship")
    assert shell("sprint", "start", "s1").lines == ["s1 active"]
    shell("sprint", "close", "s1")
    refused = shell("sprint", "start", "s1", expect=2)
    assert "is closed and cannot become active" in refused.err
    found = shell("events", "--json").document["events"]
    assert [e["type"] for e in found] == ["sprint.planned", "sprint.started", "sprint.closed"]
    behind = shell("events", "--after", "2.0", "--type", "sprint.*", "-n", "1").lines
    assert len(behind) == 1
    assert behind[0].split()[0] == "3.0"
    followed = shell("events", "--follow", "-n", "3").lines
    assert len(followed) == 3
    shell("events", "--after", "yesterday", expect=2)
    assert len(shell("sprint", "history", "s1").lines) == 3


def test_a_workspace_is_branched_merged_and_moved(shell: Shell) -> None:
    """A branch is made, worked on, merged and dropped; an old folder comes in and goes out."""
    shell("init")
    shell("workspace", "branch", "try/a", expect=3)
    shell("sprint", "add", "s1")
    shell("workspace", "branch", "try/a")
    shell("sprint", "start", "s1", "-b", "try/a")
    assert shell("sprint", "list").lines == ["s1  planned  s1"]
    shell("workspace", "merge", "try/a")
    assert shell("sprint", "list").lines == ["s1  active  s1"]
    assert shell("workspace", "branches").lines == ["main", "try/a"]
    shell("workspace", "drop", "try/a")
    shell.write("old/docs/a.md", b"text")
    shell.write("old/x.bin", b"x")
    done = shell("workspace", "import", "old", "--json").document
    assert (done["files"], [n["path"] for n in done["not_understood"]]) == (2, ["x.bin"])
    assert shell("workspace", "status", "--json").document["counts"]["artifacts"] == 2
    shell("workspace", "export", "out")
    assert (shell.folder / "out" / "docs" / "a.md").read_bytes() == b"text"
    shell("workspace", "export", "out", expect=4)
    assert shell("workspace", "conflicts").text == ""


def test_a_working_folder_is_kept_in_step(shell: Shell) -> None:
    """Checked out, looked at, brought up both ways, listed, released; conflicts and leases told."""
    shell("init")
    shell("artifact", "put", "a.txt", stdin=b"one")
    done = shell("workspace", "checkout", "w", CAS_AUTHOR="ada")
    assert done.lines == ["written   A a.txt"]
    shell.write("w/b.txt", b"outside")
    shell.write("w/a.txt", b"mine")
    shell("artifact", "put", "a.txt", stdin=b"theirs")
    status = shell("workspace", "status", "w")
    assert status.lines == [
        "outside   M a.txt (both)",
        "outside   A b.txt",
        "incoming  M a.txt (both)",
    ]
    assert "ada works in" in status.err
    found = shell("workspace", "sync", "w", "--json").document
    assert found["new_conflicts"] == ["a.txt"]
    assert [each["path"] for each in found["captured"]] == ["a.txt", "b.txt"]
    assert found["checkout"]["holder"] == "ada"
    assert shell("workspace", "sync", "w").lines == ["held      C a.txt"]
    assert shell("artifact", "history", "b.txt").lines[0].split()[2] == "external"
    assert shell("workspace", "folders").lines[0].endswith(f" main ada {shell.folder / 'w'}")
    shell("workspace", "sync", "elsewhere", expect=3)
    shell("workspace", "sync", expect=2)
    for number in range(3):
        shell.write(f"w/more/{number}", b"")
    refused = shell("workspace", "sync", "w", "--new-max", "2", expect=2)
    assert ".casignore" in refused.err
    shell("workspace", "release", "w")
    assert shell("workspace", "folders").lines == []
    assert (shell.folder / "w" / "a.txt").read_bytes() == b"mine"


def test_a_watch_takes_changes_in_until_its_time_is_over(shell: Shell) -> None:
    """What changed before it began is taken in, and it ends by itself."""
    shell("init")
    shell("workspace", "checkout", "w", "--json")
    shell.write("w/b.txt", b"outside")
    done = shell("workspace", "watch", "w", "--for", "0.2", "--author", "ada")
    assert done.lines == ["captured  A b.txt"]
    assert shell("artifact", "history", "b.txt").lines[0].split()[2] == "ada"


def test_a_context_lives_in_another_store(shell: Shell) -> None:
    """Declared with a place beside the store, a context moves there with all it has, and the same
    commands go on reading and writing it; a store that is gone is told, and given up by force.
    """
    shell("init")
    first = shell("memory", "add", "small PRs").lines[0]
    shell("init", "far.cas")
    assert shell("workspace", "contexts").lines == ["memory  here  not declared"]
    shell("workspace", "context", "memory", "--place", "nowhere", expect=3)
    shell("workspace", "context", "memory", "--place", "x", "--home", expect=2)
    shell("workspace", "context", expect=2)
    secret = shell(
        "workspace", "context", "memory", "--place", "postgresql://me:secret@host/db", expect=2
    )
    assert "secret" not in secret.err.replace("password", "")
    declared = ["--place", "far.cas", "--publish", "memory.*", "--describe", "what agents remember"]
    shell("workspace", "context", "memory", *declared)
    (row,) = shell("workspace", "context", "memory", "--json").document["declared"]
    assert (row["place"], row["publishes"]) == ("far.cas", ["memory.*"])
    second = shell("memory", "add", "second").lines[0]
    assert [line.split()[0] for line in shell("memory", "list").lines] == [first, second]
    assert shell("find", "second", "--count").lines == ["1"]
    assert shell("workspace", "status", "--json").document["contexts"] == ["memory", "workspace"]
    assert len(shell("memory", "list", "--store", "far.cas").lines) == 2
    carried = shell("workspace", "exchange", "--json").document["carried"]
    assert [each["count"] for each in carried] == [1, 1]
    assert shell("workspace", "exchange").err.strip().endswith("there is nothing to carry")
    assert shell("workspace", "exchange", "--for", "0.1").text == ""
    seen = shell("events", "--seen-by", "planning", "--json").document["events"]
    assert [e["data"]["id"] for e in seen] == [first, second]
    assert len(shell("events", "--seen-by", "memory").lines) == 2
    (shell.folder / "far.cas").rename(shell.folder / "gone.cas")
    gone = shell("memory", "list", expect=3)
    assert "far.cas" in gone.err
    listed = shell("workspace", "contexts").lines[0].split()
    assert listed[:6] == ["memory", "far.cas", "publishes", "memory.*", "keeps", "all"]
    shell("workspace", "context", "memory", "--home", expect=3)
    shell("workspace", "context", "memory", "--home", "--force")
    assert shell("memory", "list").lines == []


def test_origins_and_validity_are_told_and_shown(shell: Shell) -> None:
    """What a memory was learnt from, and an artifact made from, is pinned to what that is now; what
    is there no link to, no time, or no level is refused.
    """
    shell("init")
    put = ("artifact", "put", "data/a", "-", "--kind", "data", "--media-type", "text/csv")
    shell(*put, stdin=b"1")
    first = shell("memory", "add", "one").lines[0]
    how = ["--source", "artifact:data/a", "--trust", "trusted", "--supersedes", first]
    when = ["--valid-from", "2026-01-01", "--valid-to", "2026-02-01T12:00:00+02:00"]
    second = shell("memory", "add", "two", *how, *when).lines[0]
    (item,) = shell("memory", "show", second, "--json").document["items"]
    fields = item["fields"]
    record = shell("artifact", "show", "data/a", "--json").document["items"][0]["record"]
    assert fields["source"] == ["artifact", "data/a", record]
    assert fields["supersedes"] == [["memory", first]]
    assert fields["trust"] == "trusted"
    assert (fields["valid_from"], fields["valid_to"]) == (
        "2026-01-01T00:00:00.000000Z",
        "2026-02-01T10:00:00.000000Z",
    )
    made = ["--made-from", f"memory:{second}", "--made-from", "artifact:data/a"]
    shell("artifact", "put", "report", "-", *made, stdin=b"2")
    (item,) = shell("artifact", "show", "report", "--json").document["items"]
    assert {link[1] for link in item["fields"]["made_from"]} == {second, "data/a"}
    assert all(len(link) == 3 for link in item["fields"]["made_from"])
    assert shell("artifact", "list").lines[0].split() == ["1", "data", "data/a"]
    for wrong, code in (
        (["--source", "artifact:none"], 3),
        (["--source", "nothing"], 2),
        (["--valid-from", "soon"], 2),
        (["--valid-from", "2026-03-01", "--valid-to", "2026-02-01"], 2),
        (["--supersedes", "none"], 3),
        (["--trust", "fully"], 2),
    ):
        shell("memory", "add", "x", *wrong, expect=code)
    shell("artifact", "put", "x", "-", "--run", "none", stdin=b"", expect=3)
    assert len(shell("memory", "list").lines) == 2


def test_subscriptions_and_dead_letters_are_shown(shell: Shell) -> None:
    """Who has handled events up to where, and what nobody could handle, with the error."""
    shell("init")
    for text in ("one", "two", "three"):
        shell("memory", "add", text)

    def fails(event: cas.DomainEvent, _uow: cas.UnitOfWork) -> None:
        raise ValueError(f"no {event.id}")

    with cas.open(shell.folder / ".cas") as store:
        space = cas.Workspace(store)
        cas.subscribe(space, "all").poll(lambda _event, _uow: None, limit=1)
        cas.subscribe(space, "index", attempts_max=1).poll(fails, limit=2)
    listed = shell("workspace", "subscriptions").lines
    assert listed == [
        "all    at 1.0  5 entries behind  1 handled  0 dead",
        "index  at 2.0  4 entries behind  0 handled  2 dead",
    ]
    assert shell("workspace", "subscriptions", "index").lines == [
        "1.0 memory.added 1 attempt ValueError: no 1.0",
        "2.0 memory.added 1 attempt ValueError: no 2.0",
    ]
    found = shell("workspace", "subscriptions", "index", "--json").document
    assert [each["dead"] for each in found["subscriptions"]] == [2]
    assert [each["id"] for each in found["dead_letters"]] == ["index@1.0", "index@2.0"]
    assert shell("workspace", "subscriptions", "all").lines == []
    assert shell("workspace", "status").lines[-1].split() == ["dead", "letters", "2"]
    shell("workspace", "subscriptions", "none", expect=3)


def test_a_context_has_limits_and_a_rule_of_what_stays(shell: Shell) -> None:
    """Limits and retention are declared, shown and taken back; what they say is done by `retain`,
    and a rule of the store that says otherwise is told.
    """
    shell("init")
    declare = ("workspace", "context", "memory")
    shell(*declare, "--retain", "last=1,within=1h", "--count-max", "2", "--record-max", "900")
    (row,) = shell(*declare, "--json").document["declared"]
    assert row["retention"] == {"last": 1, "within": "1h"}
    assert (row["aggregate_count_max"], row["record_bytes_max"], row["total_bytes_max"]) == (
        2,
        900,
        None,
    )
    assert shell("retain", "--list").lines[0].split(None, 1) == [
        "heads/memory/*",
        "last 1, within 1h",
    ]
    assert "keeps last 1, within 1h" in shell("workspace", "contexts").lines[0]
    for text in ("one", "two"):
        shell("memory", "add", text)
    refused = shell("memory", "add", "three", expect=2)
    assert "would hold 3 aggregates" in refused.err
    assert "cas workspace context memory --count-max N" in refused.err
    shell(*declare, "--count-max", "0", "--record-max", "0", "--retain", "last=1")
    shell("retain", "--save", "--horizon", "0h", "--horizon-entries", "0")
    shell("memory", "add", "three")
    going = shell("retain", "--dry-run", "--json").document["going"]
    assert [each["refs"] for each in going] == [["memory/main"]] * 2
    shell("retain", "--save", "--ref", "memory/*", "--keep-last", "9")
    assert "policy says otherwise" in shell(*declare).err
    shell(*declare, "--retain", "all")
    assert "heads/memory/*  last 9" in shell("retain", "--list").text
    for wrong in ("", "last", "last=x", "last=1,last=2", "weeks=3", "last=0"):
        shell(*declare, "--retain", wrong, expect=2)
    shell("workspace", "context", "a/b", "--count-max", "1", expect=2)


def test_conflicts_are_shown_and_settled(shell: Shell) -> None:
    """What a merge of a branch left is listed, shown side by side, and settled by a side, by a
    value or by content; each once.
    """
    shell("init")
    for id in ("s1", "s2"):
        shell("sprint", "add", id)
    shell("artifact", "put", "a.txt", stdin=b"one\n")
    shell("workspace", "branch", "try/a")
    for id in ("s1", "s2"):
        shell("sprint", "start", id, "-b", "try/a")
        shell("sprint", "cancel", id)
    shell("artifact", "put", "a.txt", "-b", "try/a", stdin=b"theirs\n")
    shell("artifact", "put", "a.txt", stdin=b"ours\n")
    shell("workspace", "merge", "try/a", expect=4)
    shell("workspace", "merge", "try/a", "--keep")
    found = shell("workspace", "conflicts", "--json").document["conflicts"]
    about = {each["about"]: each for each in found}
    assert sorted(about) == ["artifact:a.txt", "sprint:s1", "sprint:s2"]
    clash = next(c for c in about["sprint:s1"]["clashes"] if c["field"] == "state")
    assert (clash["base"], clash["current"], clash["incoming"]) == (
        "planned",
        "cancelled",
        "active",
    )
    lines = shell("workspace", "conflicts").lines
    assert any("sprint:s1 state: 'planned' became 'cancelled' here" in line for line in lines)
    shown = shell("workspace", "conflicts", "sprint:s1").lines
    assert "  incoming active" in shown
    shell("workspace", "settle", "sprint:s1", expect=2)
    shell("workspace", "settle", expect=2)
    shell("workspace", "settle", "sprint:none", "--take", "current", expect=3)
    shell("workspace", "settle", "sprints/", "--take", "current", expect=2)
    shell("workspace", "settle", "sprint:s1", "--set", "state=asleep", expect=2)
    shell("workspace", "settle", "sprint:s1", "--set", "mood=good", expect=2)
    shell("workspace", "settle", "sprint:s1", "--content", "a", expect=2)
    shell("workspace", "settle", "sprint:s1", "--take", "incoming")
    settled = shell(
        "workspace", "settle", about["sprint:s2"]["id"], "--set", "state=review", "--json"
    ).document["settled"]
    assert settled["fields"]["state"] == "review"
    assert shell("sprint", "list").lines == ["s1  active  s1", "s2  review  s2"]
    shell("workspace", "settle", about["sprint:s1"]["id"], "--take", "current", expect=3)
    shell("workspace", "settle", "artifact:a.txt", "--content", "-", stdin=b"both\n")
    assert shell("artifact", "get", "a.txt").out == b"both\n"
    assert shell("workspace", "conflicts").text == ""
    told = shell("events", "--type", "conflict.settled", "--json").document["events"]
    assert [e["data"]["fields"] for e in told] == [[], ["state"], ["content"]]


def test_branches_of_the_workspace_are_not_written_past_it(shell: Shell) -> None:
    """Commands that change branches refuse those of contexts, and change nothing, unless --raw
    says so; branches that only look like them are like any other.
    """
    shell("init")
    shell.write("w/hack", b"hack\n")
    shell("write", "artifacts/leak:hack", "w/hack")
    shell("artifact", "put", "d/x", "w/hack")
    shell("export", "--tar", "main", "-o", "a.tar", expect=3)
    shell("export", "--tar", "artifacts/leak", "-o", "a.tar")
    before = shell("journal").text
    for words in (
        ("snapshot", "w", "-b", "artifacts/main"),
        ("import", "--tar", "a.tar", "-b", "artifacts/main"),
        ("write", "artifacts/main:files/hack", "w/hack"),
        ("write", "artifacts/new:files/hack", "w/hack"),
        ("rm", "artifacts/main:files/d/x"),
        ("mv", "artifacts/main:files/d/x", "artifacts/main:files/y"),
        ("cp", "artifacts/main:files/d/x", "artifacts/main:files/y"),
        ("branch", "artifacts/main", "artifacts/leak", "-f"),
        ("branch", "-d", "artifacts/main"),
        ("merge", "artifacts/leak", "-b", "artifacts/main", "--allow-unrelated"),
        ("rewind", "--to", "1", "artifacts/main:files/d/x"),
    ):
        refused = shell(*words, expect=6)
        assert "the context 'artifacts'" in refused.err, words
        assert "--raw" in refused.err
    shell("edit", "artifacts/main:files/d/x", expect=6, EDITOR="false")
    assert shell("journal").text == before
    assert "the context 'memory'" in shell("snapshot", "w", "-b", "memory/main", expect=6).err
    shell("write", "artifacts/leak:more", "w/hack")
    shell("write", "feature/memory:more", "w/hack")
    shell("cp", "artifacts/main:files/d/x", "main:x")
    shell("rewind", "--to", "2", "artifacts/main", "-n")
    shell("write", "artifacts/main:files/hack", "w/hack", "--raw")
    shell("rewind", "--to", "2", "artifacts/main:files/hack", "--raw")
    shell("write", "artifacts/main:files/hack", "w/hack", "--raw")
    assert "files/hack" in shell("ls", "-R", "artifacts/main").text


def test_a_branch_that_is_not_there_is_told(shell: Shell) -> None:
    """A name that no branch has is an error for readers and writers, and makes nothing; making
    one that is there already says that.
    """
    shell("init")
    shell("memory", "add", "hello")
    for words in (
        ("memory", "list", "-b", "nosuch"),
        ("memory", "add", "hi", "-b", "nosuch"),
        ("sprint", "list", "-b", "nosuch"),
        ("artifact", "list", "-b", "nosuch"),
        ("workspace", "status", "-b", "nosuch"),
        ("workspace", "checkout", "w", "-b", "nosuch"),
        ("find", "hello", "--branch", "nosuch"),
        ("recall", "hello", "--branch", "nosuch"),
    ):
        assert "cas workspace branch" in shell(*words, expect=3).err, words
    assert shell("workspace", "branches").lines == ["main"]
    assert shell("workspace", "branch", "t").lines == ["t stands where main does"]
    shell("memory", "add", "own work", "-b", "t")
    assert "was there already" in shell("workspace", "branch", "t").text
    assert shell("workspace", "branch", "t", "--json").document["made"] is False
    assert len(shell("memory", "list", "-b", "t").lines) == 2


def test_what_an_import_leaves_out_is_an_exit_code(shell: Shell) -> None:
    """A file that could not be taken in is told and makes the exit code 1, as with `snapshot`;
    JSON that is none is told.
    """
    shell("init")
    shell.write("old/docs/a.md", b"text")
    shell.write("old/data/broken.json", b"{")
    done = shell("workspace", "import", "old")
    assert "data/broken.json is no valid JSON" in done.err
    assert shell("artifact", "get", "data/broken.json").out == b"{"
    shell.write("old/docs/we\nird.md", b"x")
    done = shell("workspace", "import", "old", "-q", expect=1)
    assert "cannot be the name of an artifact" in done.err
    document = shell("workspace", "import", "old", "--json", expect=1).document
    told = {each["path"]: each["kept"] for each in document["not_understood"]}
    assert told == {"data/broken.json": True, "docs/we\\nird.md": False}


def test_what_is_shown_is_for_people(shell: Shell) -> None:
    """Times as RFC 3339, sets joined, nothing for what says nothing; a history shows what each
    version was.
    """
    shell("init")
    id = shell("memory", "add", "hi", "-t", "rel", "-t", "b").lines[0]
    shown = dict(line.split(None, 1) for line in shell("memory", "show", id).lines)
    assert (shown["tags"], shown["importance"], shown["trust"]) == ("b, rel", "0.5", "unverified")
    assert shown["at"].endswith("Z")
    assert "T" in shown["at"]
    assert "source" not in shown
    assert "[" not in shell("memory", "show", id).text
    shell("sprint", "add", "s1", "One")
    shell("sprint", "start", "s1")
    history = shell("sprint", "history", "s1").lines
    assert [line.split()[-2:] for line in history] == [["active", "One"], ["planned", "One"]]
    shell("artifact", "put", "a", stdin=b"12")
    shell("artifact", "put", "a", stdin=b"123")
    assert [" 3 B " in line for line in shell("artifact", "history", "a").lines] == [True, False]
    asked = shell("workspace", expect=2).err
    assert "Choose from: status, branches," in asked
    assert "\\t" not in asked


def test_words_that_mean_nothing_are_refused(shell: Shell) -> None:
    """A word too many is told; - is standard input; an empty memory is none."""
    shell("init")
    id = shell("memory", "add", "-", stdin=b"two\nlines\n").lines[0]
    shown = shell("memory", "show", id, "--json").document["items"][0]["fields"]
    assert shown["text"] == "two\nlines"
    for words in (
        ("memory", "list", "extra"),
        ("sprint", "list", "extra"),
        ("sprint", "show", "s1", "extra"),
        ("artifact", "list", "extra"),
        ("artifact", "show", "a", "extra"),
        ("workspace", "branches", "extra"),
        ("workspace", "folders", "extra"),
    ):
        assert "'extra'" in shell(*words, expect=2).err, words
    for text in ("", " \n"):
        refused = shell("memory", "add", text, "--json", expect=2).problem
        assert (refused["code"], refused["fields"]["field"]) == ("invalid-record", "text")
    shell("memory", "add", "-", stdin=b"\xff", expect=2)
    assert len(shell("memory", "list").lines) == 1


def test_archived_memories_are_not_among_the_others(shell: Shell) -> None:
    """What was forgotten is neither listed nor unmarked; it is counted apart."""
    shell("init")
    for text in ("one", "two", "three archived"):
        shell("memory", "add", text)
    shell("forget", "--yes", "--count-max", "2")
    listed = shell("memory", "list")
    assert len(listed.lines) == 2
    assert "1 archived left out" in listed.err
    every = shell("memory", "list", "--archived").lines
    assert [line.count("[archived]") for line in every] == [1, 0, 0]
    assert len(shell("memory", "list", "--json").document["items"]) == 2
    counts = shell("workspace", "status", "--json").document["counts"]
    assert (counts["memories"], counts["archived_memories"]) == (3, 1)


def test_taint_says_what_it_did(shell: Shell) -> None:
    """Distrusting and removing are events; of an artifact that goes its content goes too."""
    shell("init")
    id = shell("memory", "add", "the door code is 0000").lines[0]
    shell("artifact", "put", "a", stdin=b"x")
    shell("taint", f"memory:{id}", "--distrust")
    shell("taint", f"memory:{id}", "--remove")
    shell("taint", "artifact:a", "--remove")
    found = shell("events", "--type", "taint.*", "--json").document["events"]
    assert [(each["type"], each["data"]["links"]) for each in found] == [
        ("taint.distrusted", [f"memory:{id}"]),
        ("taint.removed", [f"memory:{id}"]),
        ("taint.removed", ["artifact:a"]),
    ]
    assert "files/a" not in shell("ls", "-R", "artifacts/main").text


def test_times_in_json_are_those_of_all_documents(shell: Shell) -> None:
    """RFC 3339 in UTC, of memories, events and leases alike."""
    shell("init")
    shell("memory", "add", "ship on Tuesdays")
    shell("sprint", "add", "s1", "One")
    shell("sprint", "start", "s1")
    shell("workspace", "checkout", "w")
    (memory,) = shell("memory", "list", "--json").document["items"]
    (sprint,) = shell("sprint", "list", "--json").document["items"]
    (folder,) = shell("workspace", "folders", "--json").document["checkouts"]
    times = [memory["fields"]["at"], sprint["fields"]["started"], folder["until"]]
    times += [event["time"] for event in shell("events", "--json").document["events"]]
    assert len(times) > 3
    for text in times:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text), text
    assert memory["fields"]["valid_from"] is None


def test_an_event_of_a_wrong_clock_is_shown(shell: Shell) -> None:
    """A time that no calendar has stands as its number, in lines and in JSON."""
    far_us = 1 << 59

    class Ahead(SystemClock):
        def wall_us(self) -> int:
            return far_us

    with cas.open(shell.store, create=True, clock=Ahead()) as store, store.begin() as tx:
        tx.event("clock.failed")
        tx.commit()
    (event,) = shell("events", "--json").document["events"]
    assert event["time"] == f"@{far_us}us"
    assert f"@{far_us}us" in shell("events").text


def test_a_memory_is_removed_and_told_by_how_its_id_begins(shell: Shell) -> None:
    """`rm` removes one memory with an event; its history stays; 8 characters of an id will do."""
    shell("init")
    first, second = "begin-all-alike-1", "begin-all-alike-2"
    with cas.open(shell.folder / ".cas") as store, cas.Workspace(store).unit_of_work("a") as uow:
        for id, text in ((first, "one"), (second, "two")):
            uow.memories.note(text, id=id)
        uow.commit()
    made = shell("memory", "add", "three").lines[0]
    assert "three" in shell("memory", "show", made[:8]).text
    assert "begin with" in shell("memory", "show", first[:8], expect=2).err
    shell("memory", "rm", made)
    shell("memory", "rm", first)
    assert [line.split()[0] for line in shell("memory", "list").lines] == [second]
    assert "removed" in shell("memory", "history", first).lines[0]
    told = shell("memory", "rm", first, expect=3).err
    assert "`cas memory list`" in told
    assert "`cas memory history`" in told
    events = shell("events", "--type", "memory.removed", "--json").document["events"]
    assert [event["headers"]["about"] for event in events] == [f"memory:{made}", f"memory:{first}"]
    assert events[1]["headers"] == {"about": f"memory:{first}", "context": "memory"}


def test_the_event_of_a_removed_artifact_says_what_it_is_about(shell: Shell) -> None:
    """It belongs to the context of artifacts, so that others see it as it publishes."""
    shell("init")
    shell("artifact", "put", "d/a", stdin=b"1")
    shell("artifact", "rm", "d/a")
    (event,) = shell("events", "--type", "artifact.removed", "--json").document["events"]
    assert event["headers"] == {"about": "artifact:d/a", "context": "artifacts"}


def test_a_context_is_named_like_anything_else(shell: Shell) -> None:
    """One with a slash is refused, and the workspace goes on."""
    shell("init")
    shell("workspace", "context", "a/b", "--describe", "x", expect=2)
    shell("memory", "add", "goes on")
    shell("workspace", "contexts")
