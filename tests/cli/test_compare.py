"""`cas diff`: revisions, parts of them, and folders."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.cli.support import Shell

CHANGES = ["M docs/guide.md", "A new.bin", "D old.txt"]


def test_diff_of_two_revisions(stocked: Shell) -> None:
    """diff A B names each path with A, D, M or T, in order of path."""
    assert stocked("diff", "main~1", "main").lines == CHANGES
    back = stocked("diff", "main", "main~1").lines
    assert back == ["M docs/guide.md", "D new.bin", "A old.txt"]
    assert stocked("diff", "main", "main").lines == []
    assert "no change" in stocked("diff", "main", "main").err


def test_diff_of_parts(stocked: Shell) -> None:
    """REV:PATH compares directories with paths relative to them, and single files."""
    assert stocked("diff", "main~1:docs", "main:docs").lines == ["M guide.md"]
    assert stocked("diff", "main~1:docs/guide.md", "main:docs/guide.md").lines == [
        "M docs/guide.md"
    ]
    stocked("diff", "main~1:docs", "main:run.sh", expect=2)


@pytest.mark.parametrize(
    "words", [["main~1", "work"], ["main~1", "./work"], ["main~1", "--folder", "work"]]
)
def test_diff_against_a_folder(stocked: Shell, words: list[str]) -> None:
    """A folder stands for what a snapshot of it would hold, named as B or by --folder."""
    assert stocked("diff", *words).lines == CHANGES
    assert stocked("diff", "main", *words[1:]).lines == []


def test_a_revision_wins_over_a_folder_of_its_name(stocked: Shell) -> None:
    """Where B can be a revision it is one; ./B and --folder always mean the folder."""
    stocked("branch", "work", "main~1")
    assert stocked("diff", "main~1", "work").lines == []
    assert stocked("diff", "main~1", "./work").lines == CHANGES
    assert stocked("diff", "main~1", "--folder", "work").lines == CHANGES


def test_a_changed_kind_is_told(stocked: Shell) -> None:
    """A file that became executable, or a link, is a T."""
    (stocked.folder / "work/new.bin").chmod(0o755)
    (stocked.folder / "work/run.sh").unlink()
    (stocked.folder / "work/run.sh").symlink_to("new.bin")
    assert stocked("diff", "main", "work").lines == ["T new.bin", "T run.sh"]


def test_nul_lists_are_exact(stocked: Shell) -> None:
    """-z ends each line by NUL and escapes nothing."""
    stocked.write("work/new\nline", b"x")
    assert stocked("diff", "-z", "main", "work").out == b"A new\nline\0"
    assert stocked("diff", "main", "work").lines == ["A new\\nline"]


def test_a_patch_can_be_applied(stocked: Shell) -> None:
    """--patch through a pipe is what patch(1) turns the old files into the new ones with."""
    stocked.write("work/docs/more.txt", b"one\ntwo\nthree")
    stocked("snapshot", "work", "-m", "third")
    done = stocked("diff", "main~1", "main", "--patch")
    stocked("restore", "main~1", "old")
    subprocess.run(["patch", "-s", "-p1"], cwd=stocked.folder / "old", input=done.out, check=True)
    assert stocked("diff", "main", "--folder", "old").lines == []


NAMES = ("a", "a b", "trail ", "tab\tx", "nl\nx", "back\\x", 'q"x', "ü", os.fsdecode(b"\xff"))


@pytest.mark.parametrize("tool", [["patch", "-s", "-p1"], ["git", "apply", "-"]])
def test_a_patch_holds_names_kinds_and_empty_files(shell: Shell, tool: list[str]) -> None:
    """Whatever a file is called, and where no line of text tells what became of it: empty files,
    modes, links, renames.
    """
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed to apply with")
    text = b"".join(b"line %d\n" % number for number in range(20))
    shell("init")
    for name in NAMES:
        shell.write(f"work/{name}", b"one\n")
    for name in ("mode", "old name", "was file", "gone"):
        shell.write(f"work/{name}", text)
    shell.write("work/empty gone", b"")
    (shell.folder / "work/was link").symlink_to("a")
    shell("snapshot", "work")
    for name in NAMES:
        shell.write(f"work/{name}", b"two\n")
    (shell.folder / "work/mode").chmod(0o755)
    for name in ("gone", "empty gone", "was file", "was link", "old name"):
        (shell.folder / "work" / name).unlink()
    (shell.folder / "work/was file").symlink_to("mode")
    shell.write("work/was link", b"a file\n")
    shell.write("work/new name", text + b"more\n")
    shell.write("work/empty", b"")
    shell.write("work/run", b"#!/bin/sh\n").chmod(0o755)
    (shell.folder / "work/link").symlink_to("a b")
    shell("snapshot", "work")
    done = shell("diff", "main~1", "main", "-p", "-M")
    shell("restore", "main~1", "old")
    subprocess.run(
        tool,
        cwd=shell.folder / "old",
        input=done.out,
        check=True,
        env={**os.environ, "GIT_DIR": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
    )
    assert shell("diff", "main", "--folder", "old").lines == []


def test_a_patch_says_where_there_is_no_text(stocked: Shell) -> None:
    """Binary content is named with its size and not printed."""
    lines = stocked("diff", "-p", "main~1", "main").lines
    at = lines.index("diff new.bin (added: nothing -> file)")
    assert lines[at + 1] == "no text: 1.0 kB"
    assert "-first" in lines
    assert "+second" in lines
    changes = stocked("diff", "-p", "main~1", "main", "--json").document["changes"]
    assert [change["patch"] is None for change in changes] == [False, True, False]


def test_ignore_files_count_in_a_folder(stocked: Shell) -> None:
    """A folder is compared as a snapshot would see it: .casignore always, .gitignore if asked."""
    stocked.write("work/a.tmp", b"")
    stocked.write("work/b.log", b"")
    stocked.write("work/.casignore", b"*.tmp\n")
    stocked.write("work/.gitignore", b"*.log\n")
    seen = stocked("diff", "main", "work").lines
    assert seen == ["A .casignore", "A .gitignore", "A b.log"]
    assert stocked("diff", "main", "work", "--gitignore").lines == seen[:2]


def test_what_cannot_be_compared_is_told(stocked: Shell) -> None:
    """What a snapshot of the folder could not save is named, in JSON too, and counts as gone."""
    (stocked.folder / "work/run.sh").unlink()
    os.mkfifo(stocked.folder / "work/run.sh")
    done = stocked("diff", "main", "work")
    assert done.lines == ["D run.sh"]
    assert "not compared: run.sh: a FIFO cannot be saved" in done.err
    found = stocked("diff", "main", "work", "--json").document
    assert [(each["path"], each["reason"]) for each in found["problems"]] == [("run.sh", "fifo")]
    assert stocked("diff", "main~1", "main", "--json").document["problems"] == []
