"""`cas ls`, `cat`, `show`, `log` and `journal`: looking without changing."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest

import cas
from tests.cli.support import Shell

HEX = re.compile(r"[0-9a-f]{64}")


def test_ls_lists_a_directory_with_slashes_behind_directories(stocked: Shell) -> None:
    """A listing is in order of name; directories end in a slash; a path looks further in."""
    assert stocked("ls", "main").lines == ["docs/", "link", "new.bin", "run.sh"]
    assert stocked("ls", "main~1").lines == ["docs/", "link", "old.txt", "run.sh"]
    assert stocked("ls", "main:docs").lines == ["guide.md"]
    assert stocked("ls", "main:docs/guide.md").lines == ["guide.md"]


def test_ls_recursive_lists_files_by_path(stocked: Shell) -> None:
    """-r gives every file and link with its path, relative to what was named."""
    assert stocked("ls", "-r", "main").lines == ["docs/guide.md", "link", "new.bin", "run.sh"]
    assert stocked("ls", "main:docs", "-r").lines == ["guide.md"]


def test_ls_long_shows_kind_size_and_id(stocked: Shell) -> None:
    """-l adds kind, size and the beginning of the id."""
    rows = [line.split() for line in stocked("ls", "-l", "main").lines]
    assert [(row[0], row[-1]) for row in rows] == [
        ("tree", "docs/"),
        ("link", "link"),
        ("file", "new.bin"),
        ("executable", "run.sh"),
    ]
    assert rows[2][1] == "1,024"


def test_odd_names_are_escaped_for_people_and_exact_with_nul(shell: Shell) -> None:
    """Control characters and bytes that are no UTF-8 never reach a terminal; -z gives them."""
    shell("init")
    names = [b"a\nb", b"esc\x1b[31m", b"\xff\xfe", "ünï".encode()]
    work = os.fsencode(shell.folder / "work")
    os.mkdir(work)
    for name in names:
        Path(os.fsdecode(os.path.join(work, name))).write_bytes(name)
    shell("snapshot", "work")
    listed = shell("ls", "main")
    assert listed.lines == ["a\\nb", "esc\\x1b[31m", "ünï", "\\xff\\xfe"]
    assert shell("ls", "-z", "main").out == b"".join(n + b"\0" for n in sorted(names))
    entries = shell("ls", "--json", "main").document["entries"]
    (odd,) = [entry for entry in entries if "path_base64" in entry]
    assert base64.b64decode(odd["path_base64"]) == b"\xff\xfe"
    for name in names:
        assert shell("cat", b"main:".decode() + os.fsdecode(name)).out == name


def test_a_name_typed_as_bytes_is_found(shell: Shell) -> None:
    """A path that is no UTF-8 can be typed as it is, and shown."""
    shell("init")
    name = os.fsdecode(b"\xe9t\xe9")
    shell.write("work/x", b"")
    (shell.folder / "work" / name).write_bytes(b"summer")
    shell("snapshot", "work")
    done = shell.process("cat", b"main:\xe9t\xe9")
    assert (done.code, done.out, done.err) == (0, b"summer", "")


def test_cat_prints_a_file_and_the_target_of_a_link(stocked: Shell) -> None:
    """cat gives the bytes of a file at a revision; of a link, where it leads."""
    assert stocked("cat", "main:docs/guide.md").out == b"# Guide\n\nsecond\n"
    assert stocked("cat", "main~1:docs/guide.md").out == b"# Guide\n\nfirst\n"
    assert stocked("cat", "main:link").out == b"docs/guide.md"
    encoded = stocked("cat", "main:new.bin", "--json").document["content_base64"]
    assert base64.b64decode(encoded) == bytes(range(256)) * 4


def test_show_tells_what_a_commit_changed(stocked: Shell) -> None:
    """show REV gives id, tree, parent, author, time, message, and the changes."""
    lines = stocked("show", "main").lines
    commit = lines[0].split()[1]
    assert HEX.fullmatch(commit)
    assert f"parent  {stocked('log', '--json', 'main~1').document['commits'][0]['commit']}" in lines
    assert "author  tester" in lines
    assert lines[-4:] == ["", "M docs/guide.md", "A new.bin", "D old.txt"]
    first = stocked("show", "main~1").lines
    assert "    with a body" in first
    assert first[-3:] == ["A link", "A old.txt", "A run.sh"]


def test_show_tells_what_a_path_or_any_object_is(stocked: Shell) -> None:
    """show REV:PATH and show ID give kind and size of files, links, directories, objects."""
    shown = stocked("show", "main:link", "--json").document
    assert (shown["kind"], shown["link"]) == ("link", "docs/guide.md")
    assert stocked("show", "main:docs", "--json").document["entry_count"] == 1
    entry = stocked("show", "main:new.bin", "--json").document
    blob = stocked("show", entry["id"], "--json").document
    assert (blob["kind"], blob["size"]) == ("blob", 1024)
    assert stocked("show", entry["id"][:10], "--json").document["id"] == entry["id"]
    tree = stocked("show", "main", "--json").document["tree"]
    assert stocked("show", tree).lines[0].split() == ["kind", "tree"]
    stocked("tag", "v1", "main", "-m", "a release")
    target = stocked("tag", "--json").document["refs"][0]["target"]
    for name in ("v1", "tags/v1", target, target[:9]):
        tag = stocked("show", name, "--json").document
        assert (tag["kind"], tag["message"], tag["tagger"]) == ("tag", "a release", "tester")
    assert tag["target"] == stocked("show", "main", "--json").document["commit"]
    assert "    a release" in stocked("show", "v1").lines
    assert stocked("show", "v1~0", "--json").document["kind"] == "commit"


def test_log_goes_from_new_to_old(stocked: Shell) -> None:
    """log lists commits newest first, with names; -n bounds it, -l tells all."""
    lines = stocked("log").lines
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["second", "first"]
    assert "(main)" in lines[0]
    assert len(stocked("log", "-n", "1").lines) == 1
    assert stocked("log", "main~1").lines == lines[1:]
    long = stocked("log", "-l").lines
    assert sum(HEX.search(line) is not None and line.startswith("commit") for line in long) == 2
    assert "    with a body" in long


def test_log_without_main_says_what_there_is(shell: Shell) -> None:
    """Without the branch main, log names the branches there are, or the way to the first."""
    shell("init")
    assert "cas snapshot" in shell("log", expect=3).err
    shell.write("work/a", b"a")
    shell("snapshot", "work", "-b", "other")
    assert "other" in shell("log", expect=3).err


def test_journal_lists_transactions_oldest_first(stocked: Shell) -> None:
    """journal gives every entry with actor, refs and message; --after and -n choose."""
    with cas.open(stocked.store) as store, store.begin(author="py", message="two") as tx:
        tx.branch("a")["x"] = b"1"
        tx.branch("b")["x"] = b"2"
        tx.event("sprint.closed", b"body", {"k": "v"})
        tx.commit()
    lines = stocked("journal").lines
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert "[a, b] two" in lines[2]
    assert stocked("journal", "-n", "1").lines == lines[2:]
    assert stocked("journal", "--after", "1", "-n", "5").lines == lines[1:]
    assert stocked("journal", "--after", "3").lines == []
    entry = stocked("journal", "--json", "-n", "1").document["entries"][0]
    assert [change["ref"] for change in entry["changes"]] == ["heads/a", "heads/b"]
    assert entry["events"] == [
        {
            "type": "sprint.closed",
            "headers": {"k": "v"},
            "body_base64": base64.b64encode(b"body").decode(),
        }
    ]
    assert any("sprint.closed" in line for line in stocked("journal", "-l").lines)


@pytest.mark.parametrize("words", [["ls", "main"], ["log"], ["journal"], ["show", "main"]])
def test_looking_changes_nothing(stocked: Shell, words: list[str]) -> None:
    """Commands that look leave the journal and the pack files as they are."""
    before = (stocked("journal").out, sorted(os.listdir(stocked.store / "packs")))
    stocked(*words)
    assert (stocked("journal").out, sorted(os.listdir(stocked.store / "packs"))) == before
