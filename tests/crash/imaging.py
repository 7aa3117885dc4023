"""Workloads for images of real file systems, and bugs that show only where syncs reach a disk.

A bug is planted into the process that runs the workload; what it left is then looked at by the
code as it is.
"""

from __future__ import annotations

import os
import pickle
import random
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final

from cas.catalog.connections import Connections
from cas.storage.files import Files
from cas.testing.driver import STEPS
from cas.testing.images import ImageFailure

WORKLOADS: Final = {
    "puts, commits, checkpoints of the log": (
        *("put", "put many", "commit", "multi", "keyed", "wal", "commit", "passive"),
        *("reopen", "commit"),
    ),
    "pack files, a spill, an archive, gc": (
        *("commit", "put file", "versions", "commit file", "spill", "archive", "gc", "commit"),
    ),
    "a stream, a dictionary, two handles": (
        *("memories", "spill", "stream", "tag", "second", "remove", "mirror", "commit"),
    ),
}

_BESIDE = ("spill beside a commit", "put beside a spill", "gc beside a commit")
LETTERS: Final = tuple(name for name in STEPS if name not in _BESIDE)
"""What random workloads are made of; steps in each other need the layers that record calls."""


def drawn(draw: random.Random) -> tuple[str, ...]:
    """A random workload."""
    return tuple(draw.choice(LETTERS) for _ in range(draw.randint(4, 9)))


def _nothing(*_args: Any, **_options: Any) -> None:
    return None


def _no_sync() -> None:
    setattr(Files, "sync", _nothing)  # noqa: B010  # in a process of its own


def _no_cover() -> None:
    setattr(Connections, "cover", _nothing)  # noqa: B010


_FILES: Final = ("commit", "put file", "commit file", "commit", "spill", "commit")

BUGS: Final[dict[str, tuple[Sequence[str], Callable[[], None]]]] = {
    "a pack file reaches the disk when it likes": (_FILES, _no_sync),
    "a commit is acknowledged before the disk has it": (_FILES, _no_cover),
}
"""What is wrong -> the workload that has to show it, and how it is planted."""


def explain(failures: Sequence[ImageFailure]) -> str:
    """The first failure in words; it is kept with its log, to be mounted again."""
    return f"{len(failures)} failures, the first: {keep(failures[0])}" if failures else ""


def keep(failure: ImageFailure) -> str:
    """Write a failure down; what to say of it."""
    handle, path = tempfile.mkstemp(prefix="cas-failure-", suffix=".images")
    with os.fdopen(handle, "wb") as file:
        pickle.dump(failure, file)
    return f"{failure}\nrepeat it with: python3 tools/dev.py simulate --replay {path}"
