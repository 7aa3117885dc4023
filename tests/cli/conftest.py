"""A folder with a store, and one with two commits in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """`cas` in an empty folder."""
    return Shell(tmp_path)


@pytest.fixture
def stocked(shell: Shell) -> Shell:
    """A store with two commits on main of the folder `work`, and the second tree in `work`."""
    shell("init")
    shell.write("work/docs/guide.md", b"# Guide\n\nfirst\n")
    shell.write("work/run.sh", b"#!/bin/sh\n").chmod(0o755)
    shell.write("work/old.txt", b"old\n")
    (shell.folder / "work" / "link").symlink_to("docs/guide.md")
    shell("snapshot", "work", "-m", "first\n\nwith a body")
    shell.write("work/docs/guide.md", b"# Guide\n\nsecond\n")
    shell.write("work/new.bin", bytes(range(256)) * 4)
    (shell.folder / "work" / "old.txt").unlink()
    shell("snapshot", "work", "-m", "second")
    return shell
