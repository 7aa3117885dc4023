"""`cas import-git` on the command line."""

from __future__ import annotations

import subprocess

import pytest

from tests.cli.support import Shell
from tests.cli.test_progress import on_terminal

pytest.importorskip("pygit2", reason="pygit2 is not installed; `pip install .[git]`")


def git(shell: Shell, *words: str) -> None:
    """Run git in the folder `theirs`."""
    name = ["-c", "user.name=Ada", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *words], cwd=shell.folder / "theirs", check=True, timeout=60)


@pytest.fixture
def theirs(stocked: Shell) -> Shell:
    """A folder of git with one commit, beside a store."""
    stocked.write("theirs/file", b"1")
    git(stocked, "init", "-q", "-b", "trunk")
    git(stocked, "add", "-A")
    git(stocked, "commit", "-q", "-m", "from git")
    return stocked


def test_a_terminal_sees_how_far_an_import_is(theirs: Shell) -> None:
    """A bar counts commits on standard error, and is gone when the work is done."""
    code, out, shown = on_terminal(theirs.folder, "import-git", "theirs", "--prefix", "in")
    assert (code, out.count(b"\n")) == (0, 1)
    assert b"1 of 1 commit" in shown
    assert b"\x1b" not in on_terminal(theirs.folder, "import-git", "theirs", "--no-progress")[2]


def test_an_import_prints_the_refs_it_moved(theirs: Shell) -> None:
    """Commit and name of each branch; a second time nothing moves; JSON says the same."""
    done = theirs("import-git", "theirs", "--prefix", "in", "--author", "me")
    assert done.lines == [
        f"{theirs('show', 'in/trunk', '--json').document['commit']}  heads/in/trunk"
    ]
    assert theirs("cat", "in/trunk:file").out == b"1"
    document = theirs("import-git", "theirs", "--prefix", "in", "--json").document
    assert (document["refs"], document["entry"], document["commits"]) == ([], None, 0)
    entry = theirs("journal", "-n", "1", "--json").document["entries"][0]
    assert (entry["actor"], entry["message"]) == ("me", "import from git")
    theirs("log", "in/trunk", "--long")


def test_what_is_left_out_ends_with_code_1(theirs: Shell) -> None:
    """A branch that cannot move is told, and the rest is imported."""
    theirs("write", "trunk:own", stdin=b"1")
    done = theirs("import-git", "theirs", expect=1)
    assert "--force" in done.err
    theirs("import-git", "theirs", "--force")
    theirs("import-git", "missing", expect=3)
    theirs("import-git", "work", expect=2)
    theirs("import-git", "theirs", "-b", "none", expect=3)


def test_branches_of_the_workspace_are_not_made_of_branches_of_git(theirs: Shell) -> None:
    """A prefix, or a branch of git, that falls among the branches of a context is refused before
    anything is taken in, unless --raw says so.
    """
    theirs("artifact", "put", "a", stdin=b"1")
    before = theirs("journal").text
    git(theirs, "branch", "artifacts/draft")
    for words in (("--prefix", "artifacts"), ()):
        refused = theirs("import-git", "theirs", *words, expect=6)
        assert "the context 'artifacts'" in refused.err
    assert theirs("journal").text == before
    theirs("import-git", "theirs", "-b", "trunk")
    theirs("import-git", "theirs", "--raw")
