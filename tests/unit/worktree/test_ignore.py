"""Ignore files mean what they mean to git."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cas.history.store import Store
from cas.worktree.ignore import Rules
from tests.tidy.source import ROOT
from tests.unit.worktree.support import Tree, save, write


def left_out(lines: bytes, path: bytes, is_directory: bool = False) -> bool:
    """Whether one ignore file at the top leaves an entry out."""
    return Rules().below(b"", [lines]).leaves_out(path, is_directory)


@pytest.mark.parametrize(
    ("lines", "path", "directory", "expected"),
    [
        (b"*.log", b"a.log", False, True),
        (b"*.log", b"d/a.log", False, True),
        (b"/a.log", b"d/a.log", False, False),
        (b"d/a", b"d/a", False, True),
        (b"d/a", b"x/d/a", False, False),
        (b"build/", b"build", True, True),
        (b"build/", b"build", False, False),
        (b"**/x/y", b"a/b/x/y", False, True),
        (b"a/**", b"a", True, False),
        (b"a/**", b"a/b", True, True),
        (b"*\n!keep", b"keep", False, False),
        (b"*\n!d/", b"d/x", False, True),
        (b"!keep\n*", b"keep", False, True),
        (b"# a\n\na ", b"a", False, True),
        (b"\\#a", b"#a", False, True),
        (b"a\\ ", b"a ", False, True),
        (b"a\r\nb\r\n", b"a", False, True),
        (b"\xef\xbb\xbfa", b"a", False, True),
        (b"a\\", b"a\\", False, False),
        (b"[", b"[", False, False),
        (b"caf\xc3\xa9", b"caf\xc3\xa9", False, True),
        (b"caf\xe9", b"caf\xe9", False, True),
        (b"a\x0bb", b"a", False, False),
        (b"[c-a]", b"b", False, False),
        (b"[c-ax]", b"x", False, True),
        (b"[[:alpha:]]", b"q", False, True),
        (b"[[:alpha:]]", b"1", False, False),
        (b"[![:digit:]_]", b"_", False, False),
        (b"[[:nothing:]]", b"n", False, False),
        (b"[[:]", b":", False, True),
        (b"[\\]]", b"]", False, True),
        (b"[a-\\c]", b"b", False, True),
        (b"[a&&b||--~]", b"&", False, True),
        (b"[", b"a", False, False),
        (b"[a-\\", b"a", False, False),
        (b"a[/x]b", b"axb", False, True),
        (b"a[/x]b", b"d/axb", False, False),
        (b"a\t", b"a", False, False),
        (b"a\t", b"a\t", False, True),
        (b"a\xc3\xa0", b"a\xc3\xa0", False, True),
        (b"?.txt", b"\xc3\xbc.txt", False, False),
        (b"", b"a", False, False),
    ],
)
def test_patterns(lines: bytes, path: bytes, directory: bool, expected: bool) -> None:
    """The cases of gitignore(5), and the odd ones of its implementation."""
    assert left_out(lines, path, directory) == expected


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (b"*a" * 20 + b"b", b"a" * 200),
        (b"**/a" * 20 + b"/b", b"/".join([b"a"] * 120)),
        (b"**/*a*a" * 9 + b"/**/b", b"/".join([b"aaaaaaaa"] * 60)),
        (b"[a-c]*?*[!b]" * 8 + b"d", b"abc" * 60),
    ],
)
def test_no_pattern_explodes(line: bytes, path: bytes) -> None:
    """A pattern of many wildcards that almost matches is answered; it was work for years."""
    assert not left_out(line, path)
    assert left_out(line, path + (b"/" if b"/" in path else b"") + line[-1:])


@pytest.mark.parametrize("line", [b"[a]" * 40_000, b"\t" * 70_000, b"*a" * 20_000, b"[" * 70_000])
def test_lines_of_any_length_are_read(line: bytes) -> None:
    """A line longer than any path leaves nothing out, and ends nothing."""
    assert not left_out(line, b"a")
    assert left_out(line + b"\na", b"a")


def test_a_deeper_file_stands_above_a_higher_one(store: Store, tmp_path: Path) -> None:
    """It may take in again what the higher one leaves out, but not below a left-out directory."""
    tree: Tree = {
        b".casignore": b"*.tmp\nshut/\n",
        b"a.tmp": b"",
        b"d": {b".casignore": b"!a.tmp\nb.txt\n", b"a.tmp": b"", b"b.txt": b"", b"e": {}},
        b"shut": {b".casignore": b"!x\n", b"x": b""},
        b"x": b"",
    }
    tree[b"d"][b"e"] = {b"b.txt": b"", b"c.tmp": b"", b"a.tmp": b""}
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", tree)
    report = save(store, tmp_path / "in")
    assert set(store.snapshot("main")) == {
        ".casignore",
        "d/.casignore",
        "d/a.tmp",
        "d/e/a.tmp",
        "x",
    }
    assert report.problems == ()


def test_gitignore_is_honoured_when_asked_and_casignore_stands_above_it(
    store: Store, tmp_path: Path
) -> None:
    """Both files in one directory count; the store's own has the last word."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", {b".gitignore": b"a\nb\n", b".casignore": b"!b\n", b"a": b"", b"b": b""})
    save(store, tmp_path / "in")
    assert {"a", "b"} <= set(store.snapshot("main"))
    save(store, tmp_path / "in", gitignore=True)
    assert set(store.snapshot("main")) == {".gitignore", ".casignore", "b"}


def test_what_is_left_out_is_not_even_looked_at(store: Store, tmp_path: Path) -> None:
    """A FIFO in an ignored directory is no problem."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", {b".casignore": b"run/\n*.pipe\n", b"run": {}})
    os.mkfifo(tmp_path / "in" / "run" / "x")
    os.mkfifo(tmp_path / "in" / "y.pipe")
    assert save(store, tmp_path / "in").problems == ()


def test_the_library_is_loaded_only_where_there_are_ignore_files(tmp_path: Path) -> None:
    """A folder without one does not pay for it."""
    (tmp_path / "in" / "d").mkdir(parents=True)
    code = (
        "import sys, cas\n"
        "from cas.worktree.importer import import_folder\n"
        "store = cas.open(':memory:')\n"
        "for _ in range(2):\n"
        "    import_folder(store, sys.argv[1])\n"
        "    print('pathspec' in sys.modules)\n"
        "    open(sys.argv[1] + '/d/.casignore', 'w').write('x')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "in")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True"]


# -- beside git ------------------------------------------------------------------------------

NAMES = (
    "a", "b", "foo", "foo.txt", "bar.log", "x y", "#h", "!n", "build", "d1", "d2", ".hid", "A",
    "fo[o", "tr ", "ü.txt", "a*b", "a\t", "à", "[",
)  # fmt: skip
ATOMS = (
    "a", "b", "foo", "*", "*.txt", "*.log", "foo*", "**", "?", "[ab]", "[!a]", "build", "d1", "d2",
    ".*", "\\#h", "\\!n", "x\\ y", "A", "fo\\[o", "tr\\ ", "tr ", "ü.txt", "[a-c]*", "a\\*b", "*o*",
    "d?", "[]a]", "[^b]", "\\a", "***", "a**b", "[c-a]", "[[:alpha:]]*", "[^[:lower:]]*", "[[:x:]]",
    "[[:lower:]-z]", "[[:]", "[\\]]", "[a-\\c]", "a[/b]", "a[/]b", "a\t", "[a-", "[!]a]?",
    "[à]*", "*a*o*", "*o*o", "*b*a*b", "a\\\t",
)  # fmt: skip


def draw_pattern(rng: random.Random) -> str:
    """A line of an ignore file, most of them odd."""
    text = "/".join(rng.choice(ATOMS) for _ in range(rng.choice((1, 1, 1, 2, 2, 3))))
    text = rng.choice(("", "", "", "/")) + text + rng.choice(("", "", "", "/"))
    if rng.random() < 0.15:
        text += rng.choice(("/**", "  ", " \\ ", "\\"))
    if rng.random() < 0.2:
        text = "**/" + text
    if rng.random() < 0.3:
        text = "!" + text
    return "# " + text if rng.random() < 0.05 else text


def draw_folder(rng: random.Random, place: Path, depth: int = 0) -> None:
    """Files and folders with ignore files among them."""
    for name in rng.sample(NAMES, rng.randint(1, 6)):
        if rng.random() < 0.4 and depth < 3:
            (place / name).mkdir()
            draw_folder(rng, place / name, depth + 1)
        else:
            (place / name).write_text(name)
    if rng.random() < (0.9 if depth == 0 else 0.25):
        ending = rng.choice(("\n", "\n", "\r\n"))
        lines = ending.join(draw_pattern(rng) for _ in range(rng.randint(1, 5)))
        (place / ".gitignore").write_bytes((lines + rng.choice(("", ending))).encode())


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed to compare with")
def test_folders_are_read_as_git_reads_them(
    memory: Store, tmp_path: Path, rng: random.Random
) -> None:
    """Of random folders with random ignore files, git and an import take in the same files."""
    environment = {
        **os.environ,
        "GIT_DIR": str(tmp_path / "repo.git"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "repo.git"], check=True)
    for turn in range(120):
        place = tmp_path / str(turn)
        place.mkdir()
        draw_folder(rng, place)
        done = subprocess.run(
            ["git", "ls-files", "-o", "-z", "--exclude-per-directory=.gitignore"],
            cwd=place,
            env={**environment, "GIT_WORK_TREE": str(place)},
            capture_output=True,
            check=True,
        )
        theirs = {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}
        save(memory, place, gitignore=True)
        files = {
            str(path.relative_to(place)): path.read_bytes() for path in place.rglob(".gitignore")
        }
        assert set(memory.snapshot("main")) == theirs, files
