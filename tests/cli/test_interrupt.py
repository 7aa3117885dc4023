"""Ctrl-C, killed processes and readers that go away: nothing is left broken, nothing is noisy."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import cas
from tests.cli.support import PROGRAM, Shell, environment, hear_interrupts

WAIT_S = 60.0
needs_proc = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="what a process waits for is read from /proc"
)


def start(shell: Shell, *words: str) -> subprocess.Popen[bytes]:
    """`cas WORDS`, running."""
    return subprocess.Popen(
        [*PROGRAM, *words],
        cwd=shell.folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_interrupts,
    )


def wait_for(happened: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    """Wait until something is so, while the process runs."""
    end = time.monotonic() + WAIT_S
    while not happened():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def assert_sound(shell: Shell, commits: int) -> None:
    """The store is as it was: so many commits, no part of a file, and it takes new work."""
    assert len(shell("log").lines) == commits
    assert not list((shell.store / "packs").glob("*.tmp"))
    shell("fsck")
    shell("snapshot", "work")
    assert len(shell("log").lines) == commits + 1


@needs_proc
def test_an_interrupt_at_the_commit_of_a_snapshot(stocked: Shell) -> None:
    """Ctrl-C while a snapshot with a staged pack waits for its turn: 130, and as if never begun."""
    stocked.write("work/big", os.urandom(3_000_000))
    with open(stocked.store / "locks" / "main", "r+b") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        running = start(stocked, "snapshot", "work")
        wait_for(lambda: waits_for_a_lock(running.pid), running)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=WAIT_S)
    assert (running.returncode, out) == (130, b"")
    assert err.decode().splitlines() == [
        "cas: Interrupted; what was not finished left nothing behind."
    ]
    assert_sound(stocked, commits=2)


def test_an_interrupt_of_a_restore_says_that_files_stay(stocked: Shell) -> None:
    """Ctrl-C between files: what was written is whole, and it is told that it stays."""
    for number in range(20_000):
        stocked.write(f"work/{number % 50:02}/{number}", b"%d" % number)
    stocked("snapshot", "work")
    running = start(stocked, "restore", "main", "back")
    back = stocked.folder / "back"
    wait_for(lambda: back.exists() and any(back.rglob("*")), running)
    running.send_signal(signal.SIGINT)
    _out, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == 130
    assert b"files that were written stay" in err
    for path in back.glob("[0-9][0-9]/*"):
        assert path.read_bytes() == path.name.encode()
    stocked("restore", "main", "back")
    assert len(list(back.glob("[0-9][0-9]/*"))) == 20_000


def waits_for_a_lock(pid: int) -> bool:
    """Whether the kernel lists this process as waiting for a file lock."""
    text = Path("/proc/locks").read_text()
    return any("->" in line and f" {pid} " in line for line in text.splitlines())


def test_an_interrupt_while_content_is_read(stocked: Shell) -> None:
    """Ctrl-C in the middle of a long file: 130, the part that was written is gone."""
    with open(stocked.folder / "work" / "long", "wb") as file:
        for _ in range(40):
            file.write(os.urandom(1 << 20))
        file.truncate(1 << 34)  # 16 GiB: nobody reads that in the time this test waits
    running = start(stocked, "snapshot", "work")
    packs = stocked.store / "packs"
    # Not in the moment in which the file is made: its name could be known to nobody yet, and
    # stay, which `cas fsck` tells.
    wait_for(lambda: any(part.stat().st_size for part in packs.glob("*.tmp")), running)
    running.send_signal(signal.SIGINT)
    _out, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == 130, err
    assert b"Traceback" not in err
    (stocked.folder / "work" / "long").unlink()
    assert_sound(stocked, commits=2)


@needs_proc
def test_an_interrupt_while_standard_input_is_awaited(stocked: Shell) -> None:
    """Ctrl-C while put waits for input: 130, nothing stored; with --json one document."""
    running = start(stocked, "put", "-", "--json")
    assert running.stdin is not None
    running.stdin.write(b"x" * 100_000)
    running.stdin.flush()
    wait_for(lambda: is_asleep(running.pid), running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=WAIT_S)
    assert (running.returncode, out) == (130, b"")
    assert err.startswith(b'{"schema": "cas.problem"')
    assert err.count(b"\n") == 1
    assert_sound(stocked, commits=2)


def is_asleep(pid: int) -> bool:
    """Whether a process waits in read(2) of its standard input."""
    try:
        number, fd, *_rest = Path(f"/proc/{pid}/syscall").read_text().split()
    except (OSError, ValueError):
        return False
    return number in ("0", "63") and fd == "0x0"  # read on x86-64, and on the others


@needs_proc
def test_a_killed_snapshot_leaves_a_store_that_works(stocked: Shell) -> None:
    """SIGKILL in the middle of a snapshot: the store has the commits it had, and takes new ones."""
    stocked.write("work/big", os.urandom(3_000_000))
    with open(stocked.store / "locks" / "main", "r+b") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        running = start(stocked, "snapshot", "work")
        wait_for(lambda: waits_for_a_lock(running.pid), running)
        running.kill()
        running.communicate(timeout=WAIT_S)
    assert running.returncode == -signal.SIGKILL
    assert len(stocked("log").lines) == 2
    stocked("snapshot", "work")
    stocked("fsck")
    with cas.open(stocked.store, read_only=True) as store:
        assert store.snapshot("main")["big"] == (stocked.folder / "work/big").read_bytes()


@pytest.mark.parametrize("words", [["cat", "main:big"], ["ls", "-r", "main"], ["log", "--json"]])
def test_a_reader_that_goes_away_ends_the_command_silently(
    stocked: Shell, words: list[str]
) -> None:
    """When the reader of the output has gone: exit 141 and not a word."""
    stocked.write("work/big", bytes(3_000_000))
    for number in range(3000):
        stocked.write(f"work/{number % 30:02}/{number:0200}", b"")
    stocked("snapshot", "work", "-m", "m" * 60_000)
    stocked("snapshot", "work", "-m", "m" * 60_000)
    running = start(stocked, *words)
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == b""
    assert running.wait(WAIT_S) == 141


@pytest.mark.parametrize(
    "words", [["put", "-"], ["write", "main:x", "-"], ["import", "--tar", "-"]]
)
def test_standard_input_that_is_closed_is_refused(stocked: Shell, words: list[str]) -> None:
    """`cas put - <&-` was given nothing, not even no bytes; no file of the store is read."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *PROGRAM, *words],
        cwd=stocked.folder,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Standard input is closed" in done.stderr
