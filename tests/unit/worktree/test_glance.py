"""A look that begins before the store is open saves what a look of the command itself saves.

Each in a process of its own: a child is forked only where there is one thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cas
from cas.worktree.glance import Glance, options_mark
from tests.tidy.source import ROOT

START = """
import os, sys, threading
from cas.worktree.glance import Glance, options_mark
from cas.worktree.looking import look
cache, folder = sys.argv[1:3]
chosen = options_mark(False, False)
def mine():
    return look(cache, os.fsencode(folder), chosen)
"""

COMMAND = """
import os, sys
from cas.cli.app import main
from cas.cli.main import run
from cas.worktree import statcache
said = sys.argv.pop(1)
if said != "sees":
    parent, look = os.getpid(), statcache.Picture.changed
    def blind(self):
        assert os.getpid() != parent or self.seen is not None, "the command looks for itself"
        return look(self)
    statcache.Picture.changed = blind
if said == "ahead":
    run()
sys.exit(main(sys.argv[1:], alone=True))
"""


def run(program: str, *words: str | Path, **environment: str) -> str:
    """What a program says; it ends well."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a store `s` beside a folder `work` that was saved, and stands still since."""
    work = tmp_path / "work"
    (work / "below").mkdir(parents=True)
    for number in range(20):
        (work / f"f{number}").write_bytes(b"%d" % number)
    (work / "below" / "x").write_bytes(b"x")
    long_ago = time.time_ns() - 10**10
    for path in work.rglob("*"):
        os.utime(path, ns=(long_ago, long_ago))
    time.sleep(0.05)  # stamps of changes, which nobody can set, are of a tick that is over
    with cas.open(tmp_path / "s", create=True):
        pass
    run(COMMAND, "sees", "snapshot", work, "--store", tmp_path / "s")
    return tmp_path


needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "memfd_create") or len(os.sched_getaffinity(0)) < 2,
    reason="a look beside the command needs Linux and a second core",
)


@needs_two_cores
def test_the_child_finds_what_its_parent_would_find(place: Path) -> None:
    """What is told of a picture is what a look at all of it finds: nothing, and then changes."""
    program = START + (
        "proof, changed = mine()\n"
        "with Glance(cache, folder, chosen) as glance:\n"
        "    print(changed, glance.changed(proof) == changed)\n"
    )
    words = place / "s" / "cache", place / "work"
    assert run(program, *words) == "[] True\n"
    (place / "work" / "f7").write_bytes(b"other")
    (place / "work" / "below" / "x").unlink()
    changed, told = run(program, *words).rsplit(" ", 1)
    assert (changed.count(",") + 1, told) == (3, "True\n"), "two files, and a directory"


@needs_two_cores
def test_what_is_told_of_another_picture_is_not_believed(place: Path) -> None:
    """Nothing is known of a picture that is not the one that was looked at, by its hash."""
    program = START + (
        "with Glance(cache, folder, chosen) as glance:\n"
        "    print(glance.changed(bytes(32)), glance.changed(mine()[0]))\n"
        "with Glance(cache, folder, options_mark(True, False)) as glance:\n"
        "    print(glance.changed(mine()[0]))\n"
    )
    assert run(program, place / "s" / "cache", place / "work") == "None None\nNone\n"


@needs_two_cores
def test_no_child_is_left(place: Path) -> None:
    """A glance that nobody asks ends with its block, and so does its file."""
    program = START + (
        "before = os.listdir('/proc/self/fd')\n"
        "with Glance(cache, folder, chosen):\n"
        "    assert len(os.listdir('/proc/self/fd')) > len(before)\n"
        "assert os.listdir('/proc/self/fd') == before\n"
        "try:\n"
        "    os.waitpid(-1, os.WNOHANG)\n"
        "except ChildProcessError:\n"
        "    print('none')\n"
    )
    assert run(program, place / "s" / "cache", place / "work") == "none\n"


def test_a_process_with_threads_has_no_child(place: Path) -> None:
    """Where there is another thread, or no cache, nobody is forked and nothing is known."""
    program = START + (
        "os.fork = None\n"
        "stop = threading.Event()\n"
        "threading.Thread(target=stop.wait).start()\n"
        "with Glance(cache, folder, chosen) as glance:\n"
        "    print(glance.changed(mine()[0]))\n"
        "stop.set()\n"
    )
    assert run(program, place / "s" / "cache", place / "work") == "None\n"
    with Glance(str(place / "nowhere"), str(place / "work"), options_mark(False, False)) as glance:
        assert glance.changed(bytes(32)) is None


@needs_two_cores
@pytest.mark.parametrize("named", ["option", "environment", "nearest"])
def test_a_snapshot_need_not_look_for_itself(
    place: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cas snapshot` believes the child, and saves what changed, however the store is named; a
    child that is forked once the words are parsed, and one that the whole program begins with.
    """
    store, work = place / "s", place / "work"
    if named == "nearest":
        store = store.rename(work / ".cas")
        run("import cas, sys; cas.adopt(sys.argv[1], fork=False)", store)
    words = ["snapshot", work, *(["--store", store] if named == "option" else [])]
    environment = {"CAS_STORE": str(store) if named == "environment" else ""}
    monkeypatch.chdir(work)
    run(COMMAND, "sees", *words, **environment)
    for said in ("blind", "ahead"):
        (work / "f3").write_text(said)
        run(COMMAND, said, *words, **environment)
        with cas.open(store) as opened:
            snapshot = opened.snapshot("main")
            assert snapshot["f3"] == said.encode()
            assert sum(1 for _ in snapshot) == 21


BEGUN = """
import sys
from cas.cli.ahead import guess
with guess(sys.argv[1:]) as glance:
    print(glance and glance._of[1:])
"""


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        ("snapshot work", b"\0\0"),
        ("snapshot -m work work --gitignore", b"\0\1"),
        ("--store work snapshot work --skip-secrets", b"\1\0"),
        ("snapshot s work", None),
        ("snapshot nowhere", None),
        ("snapshot work --no-stat-cache", None),
        ("restore main work", None),
        ("restore snapshot work", None),
        ("--store", None),
        ("", None),
    ],
)
def test_a_look_begins_where_the_words_mean_one_folder(
    place: Path, words: str, begun: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is guessed of a command line is the folder and the options of the walk, or nothing."""
    monkeypatch.chdir(place)
    expected = None if begun is None else ("work", begun)
    assert run(BEGUN, *words.split()) == f"{expected}\n"


@needs_two_cores
def test_a_look_at_another_folder_is_not_taken_for_this_one(place: Path) -> None:
    """Where the guess was wrong, the command begins the look that it needs."""
    program = """
import os, sys
from cas.cli.front import Front
from cas.worktree.glance import Glance, options_mark
cache, folder = sys.argv[1:3]
os.environ["CAS_STORE"] = os.path.dirname(cache)
chosen = options_mark(False, False)
with Glance(cache, folder, chosen) as ahead:
    front = Front(alone=True, ahead=ahead)
    for mark, place in ((chosen, folder), (b"x", folder), (chosen, "/")):
        with front.glance(place, mark, wanted=True) as found:
            print(found is ahead, found.is_of(cache, place, mark))
"""
    words = place / "s" / "cache", place / "work"
    assert run(program, *words).splitlines() == ["True True", "False True", "False True"]
