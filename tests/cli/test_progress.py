"""Progress: for terminals, on standard error, gone when the work is done."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cas.cli.output import Settings
from cas.cli.progress import Bar, wanted
from tests.cli.support import Shell, environment

AT_ONCE = """
import sys
from cas.cli import progress
progress.DELAY_MS = progress.PAUSE_MS = 0.0
from cas.cli.app import main
code = main(sys.argv[1:])
sys.stdout.flush()
sys.exit(code)
"""
"""The command line with a bar that waits for nothing: no test takes half a second of work."""

WIPE = b"\x1b[1A\x1b[2K"


def on_terminal(folder: Path, *words: str, **env: str) -> tuple[int, bytes, bytes]:
    """(exit code, standard output, what a terminal got as standard error)."""
    outer, inner = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", AT_ONCE, *words],
        cwd=folder,
        env=environment(**{"TERM": "xterm", **env}),
        stdout=subprocess.PIPE,
        stderr=inner,
    )
    os.close(inner)
    shown = b""
    while True:
        try:
            part = os.read(outer, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert done.stdout is not None
    out = done.stdout.read()
    os.close(outer)
    return done.wait(60), out, shown


@pytest.mark.parametrize(
    "words", [["snapshot", "many"], ["restore", "main", "back"], ["fsck"]], ids=lambda w: w[0]
)
def test_a_terminal_sees_progress_and_then_nothing_of_it(shell: Shell, words: list[str]) -> None:
    """A bar is drawn on standard error and wiped; results and notes are as without it."""
    shell("init")
    for number in range(600):
        shell.write(f"many/{number // 50:02}/{number:03}", b"x" * number)
    if words[0] != "snapshot":
        shell("snapshot", "many")
    code, out, shown = on_terminal(shell.folder, *words)
    assert code == 0
    assert b"\x1b[?25l" in shown
    assert b"\x1b[?25h" in shown
    last = shown.rsplit(WIPE, 1)[1]
    assert last.count(b"\n") == 1
    assert len(out) == (65 if words[0] == "snapshot" else 0)
    quiet = on_terminal(shell.folder, "--quiet", *words)
    assert quiet[0] == 0
    assert quiet[2] == b""
    assert b"\x1b" not in on_terminal(shell.folder, *words, "--no-progress")[2]
    assert b"\x1b" not in on_terminal(shell.folder, *words, TERM="dumb")[2]
    assert on_terminal(shell.folder, *words, "--json")[2] == b""


def test_a_pipe_and_automation_see_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, or where CI is set, there is no callback; --progress asks for one."""
    assert not wanted(Settings())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    assert wanted(Settings())
    assert not wanted(Settings(quiet=True))
    assert not wanted(Settings(json=True))
    assert not wanted(Settings(progress=False))
    monkeypatch.setenv("CI", "1")
    assert not wanted(Settings())
    assert wanted(Settings(progress=True))
    with Bar(Settings()) as bar:
        assert bar.files is None
        assert bar.check is None
