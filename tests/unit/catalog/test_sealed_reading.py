"""Reading a store in a folder that this user cannot write, while another user does."""

from __future__ import annotations

import os
import socket
import traceback
from pathlib import Path

import pytest

import cas
from cas.history.store import Store
from tests.unit.kit import commits
from tests.unit.worktree.support import become_nobody

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="to read as another user than the one that writes takes root"
)


def read_on_request(place: str, line: socket.socket) -> None:
    """In a child that is nobody: answer each byte with the newest seq of one open handle."""
    with cas.open(place, read_only=True) as store:
        while line.recv(1):
            view = store.view()
            assert [entry.seq for entry in store.journal()] == list(range(1, view.seq + 1))
            if view.seq:
                assert store.snapshot("main")["n"]
            line.send(bytes([view.seq]))


@needs_root
def test_what_another_user_commits_is_seen(tmp_path: Path) -> None:
    """One handle sees each state, whether the writer is open, has closed, or came again."""
    place = tmp_path / "store"
    cas.init(place)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o555)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ours.close()
            become_nobody()
            assert not os.access(place, os.W_OK)
            read_on_request(str(place), theirs)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()

    def seen() -> bytes:
        ours.send(b"?")
        return ours.recv(1)

    def write(store: Store, count: int) -> None:
        for _ in range(count):
            seq = store.view().seq
            commits(store, 1, branch=f"b-{seq}" if seq else "main")

    try:
        assert seen() == b"\x00"
        with cas.open(place) as store:
            write(store, 2)
            assert seen() == b"\x02"
            write(store, 1)
            assert seen() == b"\x03"
        assert seen() == b"\x03"
        with cas.open(place) as store:
            write(store, 3)
        assert seen() == b"\x06"
        with cas.open(place) as store:
            store.spill()
        assert seen() == b"\x06"
    finally:
        ours.close()
        _pid, status = os.waitpid(child, 0)
    assert status == 0
