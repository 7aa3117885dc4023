"""The gate between processes: who holds it, and who must not keep it."""

import os
import signal
import threading
from pathlib import Path

import pytest

from cas.catalog.gate import FileGate


def test_a_forked_child_does_not_keep_the_gate(tmp_path: Path) -> None:
    """A parent that dies inside the gate lets the next one in, though a child of it lives on."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            signal.alarm(30)
            gate = FileGate(str(tmp_path))
            gate.enter()
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                os.write(writer, b"x")
                signal.pause()
            os.write(writer, child.to_bytes(4, "big"))
            signal.pause()
        finally:
            os._exit(1)
    said = b""
    while len(said) < 5:
        said += os.read(reader, 5)
    child = int.from_bytes(said.replace(b"x", b"", 1) if said[0:1] == b"x" else said[:4], "big")
    try:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        entered = threading.Event()
        gate = FileGate(str(tmp_path))

        def enter() -> None:
            gate.enter()
            entered.set()

        threading.Thread(target=enter, daemon=True).start()
        assert entered.wait(10), "the child of a dead writer holds the gate"
        gate.leave()
        gate.close()
        gate.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_an_election_has_one_winner(tmp_path: Path) -> None:
    """Who comes second is told at once that somebody else does the task."""
    first, second = FileGate(str(tmp_path)), FileGate(str(tmp_path))
    with first.elect("spill") as won:
        assert won
        with second.elect("spill") as also:
            assert not also
    with second.elect("spill") as free:
        assert free
    first.close()
    second.close()


@pytest.mark.parametrize("name", ["next", "main"])
def test_lock_files_are_not_executable(tmp_path: Path, name: str) -> None:
    """The files of the gate are plain files."""
    gate = FileGate(str(tmp_path))
    assert (tmp_path / name).stat().st_mode & 0o111 == 0
    gate.close()
