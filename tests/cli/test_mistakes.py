"""One mistake has one exit code, whatever command it is made with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.support import PROGRAM, Shell, environment, hear_interrupts


@pytest.mark.parametrize(
    "words",
    [
        ["put", "nosuch"],
        ["write", "main:a", "nosuch"],
        ["snapshot", "nosuch"],
        ["import", "--tar", "nosuch"],
        ["import-git", "nosuch"],
        ["workspace", "import", "nosuch"],
        ["artifact", "put", "a", "nosuch"],
        ["bench", "--at", "nosuch"],
        ["export", "main", "-o", "nosuch/x.tar"],
        ["artifact", "get", "notes", "nosuch/x"],
        ["rewind", "--to", "99999999999999999999"],
        ["undo", "99999"],
    ],
)
def test_what_is_not_there_is_exit_3(stocked: Shell, words: list[str]) -> None:
    """A source, a folder to write into, an entry: named and missing."""
    stocked("artifact", "put", "notes", stocked.write("n", b"1"))
    assert stocked(*words, "--json", expect=3).problem["exit_code"] == 3
    assert not (stocked.folder / "nosuch").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["export", "main", "-o", "work"],
        ["get", "-o", "work"],
        ["artifact", "get", "notes", "work"],
        ["init", "n"],
        ["init", "n/x"],
        ["init", ".cas/x"],
        ["restore-store", "bk", ".cas/x"],
    ],
)
def test_a_place_that_can_never_be_is_exit_2(stocked: Shell, words: list[str]) -> None:
    """A folder as a file, a file as a folder, a store in the folder of a store."""
    stocked("artifact", "put", "notes", stocked.write("n", b"1"))
    stocked("backup", "bk")
    if words[0] == "get":
        words = ["get", stocked("put", "n").text.strip(), *words[1:]]
    stocked(*words, expect=2)
    assert not (stocked.store / "x").exists()
    assert (stocked.folder / "n").read_bytes() == b"1"


def test_a_store_that_may_not_be_opened_is_exit_6() -> None:
    """Named or found, it is told that it is there, and that this user may not open it."""
    folder, before = Path(tempfile.mkdtemp(prefix="cas-closed-")), os.geteuid()
    try:
        folder.chmod(0o755)
        shell = Shell(folder)
        shell("init")
        shell("log", expect=None)  # what it loads may lie where another user may not read
        (folder / ".cas").chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        for words in (["log"], ["--store", ".cas", "log"]):
            problem = shell(*words, "--json", expect=6).problem
            assert "may not be opened by this user" in problem["message"]
        os.seteuid(before)
        (folder / ".cas").chmod(0o755)
        (folder / ".cas" / "catalog.sqlite").chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        assert "may not be read by this user" in shell("log", expect=6).err
    finally:
        os.seteuid(before)
        (folder / ".cas").chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_that_may_not_be_read_is_not_told_about_writing() -> None:
    """A backup, the packs of a store, one of them: exit 6, and the sentence says reading."""
    folder, before = Path(tempfile.mkdtemp(prefix="cas-closed-")), os.geteuid()
    store, backup = folder / ".cas", folder / "bk"
    packs = store / "packs"
    closed: Path = backup
    try:
        folder.chmod(0o755)
        shell = Shell(folder)
        shell("init")
        shell("put", shell.write("large", os.urandom(2 << 20)))
        shell("backup", str(backup))
        shell("prove", str(backup), expect=None)  # what it loads may lie where nobody may read
        shell("fsck", expect=None)
        for path in (store, *store.rglob("*")):
            path.chmod(0o777)
        cases: list[tuple[Path, list[str]]] = [
            (backup, ["prove", "bk"]),
            (backup, ["restore-store", "bk", "new"]),
            (packs, ["fsck"]),
            (next(packs.iterdir()), ["fsck"]),
        ]
        for closed, words in cases:
            mode = closed.stat().st_mode
            closed.chmod(0)
            if before == 0:
                os.seteuid(65534)
            problem = shell(*words, "--json", expect=6).problem
            os.seteuid(before)
            closed.chmod(mode)
            assert problem["code"] == "access-denied", problem
            assert "may not be read by this user" in problem["message"]
    finally:
        os.seteuid(before)
        closed.chmod(0o755)
        shutil.rmtree(folder)


def test_a_word_that_is_missing_is_told_in_json_too(shell: Shell) -> None:
    """Wherever --json stands."""
    for words in (["--json", "--store"], ["log", "--json", "--store"]):
        assert shell(*words, expect=2).problem["code"] == "usage"


def test_an_interrupt_while_the_program_is_loaded(tmp_path: Path) -> None:
    """From the first module on: one sentence, exit 130, no traceback."""
    name = "typing"
    if subprocess.run(
        [sys.executable, "-c", f"import sys; sys.exit({name!r} in sys.modules)"], check=False
    ).returncode:
        pytest.skip("this interpreter has loaded the module before anything of ours")
    tmp_path.joinpath(f"{name}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    )
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    for words in ((), ("--json",)):
        done = subprocess.run(
            [*PROGRAM, "log", *words],
            env=env,
            capture_output=True,
            check=False,
            timeout=60,
            preexec_fn=hear_interrupts,
        )
        assert done.returncode == 130
        if words:
            assert json.loads(done.stderr)["code"] == "interrupted"
        else:
            assert done.stderr == b"cas: Interrupted; nothing was begun.\n"


def test_advice_names_what_the_command_line_has(stocked: Shell) -> None:
    """Options, not names of Python; plurals; the folder that was meant."""
    assert "`--save`" in stocked("retain", expect=None).err
    for number in range(2):
        stocked("init", f"s{number}")
    assert "1 parent." in stocked("show", "main^2", expect=3).err
    stocked("write", "lone:a", stdin=b"1", expect=0)
    assert "which keeps the newest." in stocked("expire", "x", "--keep-last", "0", expect=2).err
    assert "'.' is no folder of git." in stocked("import-git", ".", expect=2).err
    assert "on disk" in stocked("stats").text
    stocked("artifact", "put", "notes", stocked.write("n", b"1"))
    assert "1 artifact written" in stocked("workspace", "export", "out").text


def test_names_are_shown_as_in_lists(stocked: Shell) -> None:
    """A message escapes what cannot be printed, once, and shows the path that was given."""
    assert "'n\\nl'" in stocked("sprint", "add", "n\nl", expect=2).err
    assert "'\\xff' names no branch" in stocked.process("ls", b"\xff").err
    for path in ("/x", "a//b"):
        done = stocked("artifact", "put", path, "work/run.sh", expect=2)
        assert f"'artifacts/{path}' cannot be a path" in done.err


@pytest.mark.parametrize("name", ["", "new/", "work/"])
def test_a_file_is_named_like_one(stocked: Shell, name: str) -> None:
    """An empty name, or one that ends in a slash, is no file to write, and nothing is written."""
    id = stocked("put", stocked.write("n", b"1")).text.strip()
    assert "names no file" in stocked("get", id, "-o", name, expect=2).err
    assert not (stocked.folder / "new").exists()


def test_a_file_is_no_store(shell: Shell) -> None:
    """Who names a file as the store is not told to make one there."""
    shell.write("f", b"1")
    assert "is a file" in shell("--store", "f", "log", expect=3).err
