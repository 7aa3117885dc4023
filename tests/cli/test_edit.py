"""`cas write`, `rm`, `mv`, `cp` and `edit`: a branch is changed without a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cas
from tests.cli.support import Shell


def listing(shell: Shell, revision: str = "main") -> dict[str, str]:
    """Path -> kind of everything below a revision."""
    rows = shell("ls", "-r", revision, "--json").document["entries"]
    return {row["path"]: row["kind"] for row in rows}


def head(shell: Shell, branch: str = "main") -> str:
    """The commit that a branch is at."""
    return str(shell("log", branch, "-n", "1", "--json").document["commits"][0]["commit"])


def _cas() -> str:
    return f"{sys.executable} -m cas"


def script(shell: Shell, text: str) -> str:
    """An editor: a shell script that gets the file as $1."""
    path = shell.write("editor.sh", f"#!/bin/sh\n{text}\n".encode())
    path.chmod(0o755)
    return str(path)


def test_a_file_is_written_from_standard_input_and_from_a_file(stocked: Shell) -> None:
    """`cas write` makes one commit whose id it prints, from stdin, - or a named file."""
    done = stocked("write", "main:notes/a.md", stdin=b"one\n")
    assert done.text.strip() == head(stocked)
    assert stocked("cat", "main:notes/a.md").out == b"one\n"
    stocked("write", "main:notes/a.md", "-", stdin=b"two\n")
    stocked.write("three", b"three\n")
    stocked("write", "main:notes/a.md", "three", "-m", "third", "--author", "ada")
    assert stocked("cat", "main:notes/a.md").out == b"three\n"
    newest = stocked("log", "-n", "1", "--json").document["commits"][0]
    assert (newest["author"], newest["message"]) == ("ada", "third")
    assert stocked("log", "-n", "3", "--json").document["commits"][1]["message"] == (
        "write notes/a.md"
    )


def test_several_paths_and_branches_are_one_entry(stocked: Shell) -> None:
    """Pairs of place and file go in together: one commit a branch, one journal entry."""
    stocked.write("x", b"x")
    stocked.write("y", b"y")
    document = stocked("write", "main:a/x", "x", "main:y", "y", "draft:x", "x", "--json").document
    assert [row["branch"] for row in document["commits"]] == ["draft", "main"]
    assert [(c["branch"], c["path"], c["old"]) for c in document["changes"]] == [
        ("main", "a/x", None),
        ("main", "y", None),
        ("draft", "x", None),
    ]
    entry = stocked("journal", "-n", "1", "--json").document["entries"][0]
    assert entry["seq"] == document["entry"]
    assert len(entry["changes"]) == 2


def test_a_path_that_is_named_twice(stocked: Shell) -> None:
    """Of two contents for one path none is lost unseen; to remove it twice is to remove it."""
    before = head(stocked)
    stocked.write("x", b"x")
    told = stocked("write", "main:a", "x", "main:b", "x", "main:a", "work/run.sh", expect=2).err
    assert "main:a is named twice" in told
    assert head(stocked) == before
    stocked("rm", "main:new.bin", "main:new.bin")
    assert "new.bin" not in stocked("ls", "main").lines


def test_what_is_there_already_makes_no_commit(stocked: Shell) -> None:
    """Writing the same content again changes nothing and says so."""
    before = head(stocked)
    stocked.write("same", b"#!/bin/sh\n")
    done = stocked("write", "main:run.sh", "same")
    assert (done.out, head(stocked)) == (b"", before)
    assert "nothing changed" in done.err
    assert stocked("write", "main:run.sh", "same", "--json").document["entry"] is None


def test_the_executable_bit_is_kept_unless_asked(stocked: Shell) -> None:
    """A script stays one when it is written; -x, --plain and --link decide otherwise."""
    stocked("write", "main:run.sh", stdin=b"#!/bin/sh\nexit\n")
    stocked("write", "main:new", "-x", stdin=b"#!/bin/sh\n")
    stocked("write", "main:way", "--link", stdin=b"docs/guide.md")
    assert listing(stocked) | {"run.sh": "executable", "new": "executable"} == listing(stocked)
    assert listing(stocked)["way"] == "link"
    stocked("write", "main:run.sh", "--plain", stdin=b"#!/bin/sh\nexit\n")
    assert listing(stocked)["run.sh"] == "file"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["write", "main"], 2),
        (["write", ":a"], 2),
        (["write", "main:"], 2),
        (["write", "main:a/../b"], 2),
        (["write", "main:a", "x", "main:b"], 2),
        (["write", "main:a", "-", "main:b", "-"], 2),
        (["write", "main:a", "-x", "--plain"], 2),
        (["write", "main~1:a"], 2),
        (["write", "main:a", "missing-file"], 3),
        (["write", "main:a", "work"], 2),
        (["write", "main:docs"], 2),
        (["write", "main:run.sh/below"], 2),
        (["write", "main:a", "--if-match", "zz"], 2),
        (["rm", "main:docs"], 2),
        (["rm", "main:missing"], 3),
        (["rm", "nowhere:missing"], 3),
        (["mv", "main:missing", "main:b"], 3),
        (["mv", "main:docs", "main:docs/below"], 2),
        (["mv", "main:run.sh", "main:new.bin", "main:link"], 2),
        (["cp", "main:missing", "main:b"], 3),
        (["cp", "nowhere:a", "main:b"], 3),
        (["cp", "main:", "main:docs"], 2),
        (["edit", "main:docs"], 2),
        (["edit", "main:link"], 2),
    ],
    ids=str,
)
def test_a_bad_request_changes_nothing(stocked: Shell, words: list[str], code: int) -> None:
    """Bad places, missing sources and things in the way are refused, and nothing is committed."""
    before = stocked("journal", "--json").out
    done = stocked(*words, "--json", expect=code, EDITOR="true")
    assert done.out == b""
    assert done.problem["message"]
    assert stocked("journal", "--json").out == before


def test_if_match_compares_object_and_commit(stocked: Shell) -> None:
    """A script that says what it has seen never writes over what it has not."""
    blob = stocked("show", "main:run.sh", "--json").document["id"]
    stocked("write", "main:run.sh", "--if-match", blob[:12], stdin=b"1")
    problem = stocked(
        "write", "main:run.sh", "--if-match", blob, "--json", stdin=b"2", expect=4
    ).problem
    assert problem["code"] == "not-as-expected"
    assert problem["fields"]["expected"] == blob
    assert stocked("cat", "main:run.sh").out == b"1"
    stocked("write", "main:run.sh", "--if-match", head(stocked), stdin=b"3")
    stocked("write", "main:run.sh", "--if-match", "none", stdin=b"4", expect=4)
    stocked("write", "main:fresh", "--if-match", "none", stdin=b"5")
    stocked("write", "other:fresh", "--if-match", "none", stdin=b"5")
    stocked("rm", "main:fresh", "--if-match", blob, expect=4)
    stocked("mv", "main:fresh", "main:moved", "--if-match", head(stocked))
    stocked("cp", "main:moved", "main:run.sh", "--if-match", "none", expect=4)


def test_files_and_directories_are_removed_together(stocked: Shell) -> None:
    """`cas rm` takes several paths in one commit; -r directories, -f what is not there."""
    stocked("rm", "main:docs", "main:run.sh", "-r")
    assert set(listing(stocked)) == {"link", "new.bin"}
    assert stocked("cat", "main~1:run.sh").out == b"#!/bin/sh\n"
    before = head(stocked)
    assert stocked("rm", "-f", "main:docs").out == b""
    stocked("rm", "-f", "nowhere:docs")
    assert head(stocked) == before
    stocked("log", "nowhere", expect=3)


def test_moves_keep_content_and_kind(stocked: Shell) -> None:
    """`cas mv` renames, moves into directories and between branches; nothing is copied."""
    stocked("mv", "main:run.sh", "main:start.sh")
    stocked("mv", "main:start.sh", "main:new.bin", "main:bin/")
    assert listing(stocked)["bin/start.sh"] == "executable"
    stocked("mv", "main:bin", "main:docs")
    assert set(listing(stocked)) == {
        "docs/bin/start.sh",
        "docs/bin/new.bin",
        "docs/guide.md",
        "link",
    }
    document = stocked("mv", "main:docs/bin", "other:tools", "--json").document
    assert len(document["commits"]) == 2
    assert set(listing(stocked, "other")) == {"tools/start.sh", "tools/new.bin"}
    before = head(stocked)
    stocked("mv", "main:link", "main:link")
    assert head(stocked) == before
    stocked("write", "main:docs2/link/x", stdin=b"")
    stocked("mv", "main:link", "main:docs2", expect=2)


def test_copies_come_from_any_revision(stocked: Shell) -> None:
    """`cas cp` brings back what a branch had, also whole directories and trees."""
    stocked("cp", "main~1:old.txt", "main:old.txt")
    assert stocked("cat", "main:old.txt").out == b"old\n"
    stocked("cp", "main~2:docs", "main~2:run.sh", "main:copies/")
    assert stocked("cat", "main:copies/docs/guide.md").out == b"# Guide\n\nfirst\n"
    stocked("cp", "main:", "backup:all")
    assert "all/copies/run.sh" in listing(stocked, "backup")


def test_a_copy_that_nobody_could_walk_is_refused(stocked: Shell) -> None:
    """A deep directory is not copied or moved so far down that its paths get too long."""
    stocked("write", "main:" + "d/" * 255 + "x", stdin=b"1")
    for words in (["cp", "main:"], ["mv", "main:d"]):
        done = stocked(*words, "main:old/all", expect=2)
        assert "256 names" in done.err
    stocked("cp", "main:docs", "main:old/docs")
    assert "old/docs/guide.md" in stocked("ls", "-r", "main").lines


def test_an_edit_is_committed(stocked: Shell) -> None:
    """The editor gets the content under the file's own name; what it leaves is one commit."""
    editor = script(stocked, 'test "${1##*/}" = guide.md && echo more >> "$1"')
    stocked("edit", "main:docs/guide.md", "-m", "edited", VISUAL=editor, EDITOR="false")
    assert stocked("cat", "main:docs/guide.md").out.endswith(b"second\nmore\n")
    stocked("edit", "main:brand/new", EDITOR=script(stocked, 'echo new > "$1"'))
    assert stocked("cat", "main:brand/new").out == b"new\n"
    stocked("edit", "main:run.sh", EDITOR=script(stocked, 'echo more >> "$1"'))
    assert listing(stocked)["run.sh"] == "executable"


def test_an_unchanged_edit_makes_no_commit(stocked: Shell, tmp_path: Path) -> None:
    """An editor that changes nothing leaves no commit and no file behind."""
    (tmp_path / "t").mkdir()
    before = head(stocked)
    for words in ("main:run.sh", "main:not-there"):
        done = stocked("edit", words, EDITOR="true", TMPDIR=str(tmp_path / "t"))
        assert (done.out, head(stocked)) == (b"", before)


def test_an_edit_without_an_editor_is_refused(stocked: Shell) -> None:
    """With neither VISUAL nor EDITOR the command says what to set."""
    done = stocked("edit", "main:run.sh", expect=2, VISUAL="", EDITOR="")
    assert "EDITOR" in done.err


def test_what_the_editor_left_is_never_lost(stocked: Shell) -> None:
    """When the file moved meanwhile, or the editor fails, the words stay in a named file."""
    folder = stocked.folder
    theirs = f'cd {folder}; echo theirs | {_cas()} -q write main:run.sh > out; echo mine > "$1"'
    problem = stocked.process(
        "edit", "main:run.sh", "--json", env={"EDITOR": script(stocked, theirs)}
    ).problem
    assert problem["code"] == "not-as-expected"
    kept = Path(problem["fields"]["kept"])
    assert kept.read_bytes() == b"mine\n"
    assert stocked("cat", "main:run.sh").out == b"theirs\n"
    kept.unlink()
    kept.parent.rmdir()
    done = stocked("edit", "main:run.sh", EDITOR=script(stocked, 'echo x > "$1"; exit 3'), expect=1)
    kept = Path(done.err.strip().rstrip(".").rsplit(" ", 1)[-1])
    assert kept.read_bytes() == b"x\n"
    kept.unlink()
    kept.parent.rmdir()
    done = stocked("edit", "main:run.sh", EDITOR=script(stocked, "exit 3"), expect=1)
    assert "What the editor left" not in done.err
    done = stocked("edit", "main:run.sh", EDITOR=script(stocked, 'rm "$1"'), expect=7)
    assert "nothing was committed" in done.err


def test_an_edit_beside_other_changes_of_the_branch_is_committed(stocked: Shell) -> None:
    """Only a change of the same file stands in the way of an edit."""
    other = f'cd {stocked.folder}; echo x | {_cas()} -q write main:other > out; echo mine > "$1"'
    done = stocked.process("edit", "main:run.sh", env={"EDITOR": script(stocked, other)})
    assert done.code == 0, done
    assert stocked("cat", "main:run.sh").out == b"mine\n"
    assert stocked("cat", "main:other").out == b"x\n"


def test_an_edit_of_an_old_name_of_bytes_works(stocked: Shell) -> None:
    """A name that is no UTF-8 is written, moved and removed like any other."""
    with cas.open(stocked.store) as store, store.begin() as tx:
        tx.branch("main")[b"n\xff".decode("utf-8", "surrogateescape")] = b"1"
        tx.commit()
    assert stocked.process("mv", b"main:n\xff", "main:plain").code == 0
    assert stocked("cat", "main:plain").out == b"1"
    assert stocked.process("cp", "main:plain", b"main:m\xfe").code == 0
    assert stocked.process("rm", b"main:m\xfe").code == 0
