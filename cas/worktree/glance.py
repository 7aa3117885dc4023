"""A look at a folder that begins before the store is open, in a process of its own.

Floor 5. To look at every entry of a large folder takes as long as to load the program, and needs
nothing of it but the picture of the folder. So a command forks as soon as it can guess its folder:
the child looks while its parent loads what it needs and opens the store. Invariant: what the child
says is believed for exactly the picture that the store then gives, told by its hash; where there
is no child, or it says nothing, the parent looks for itself.

Only for a process with one thread, which is nobody else's: a child of one with more could wait for
locks that nobody in it holds.
"""

from __future__ import annotations

import os
import signal
import threading
from array import array
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from cas.limits import ID_BYTES
from cas.worktree.looking import look


class Glance:
    """A child that looks at a folder; one process and thread. Ends with its block."""

    def __init__(self, cache: str, folder: str | os.PathLike[str], chosen: bytes) -> None:
        """Begin. `cache`: the cache folder of the store that is probably meant; `chosen`: the
        options of the walk (`options_mark`). Where no child can be had, there is none.
        """
        self._of = (cache, folder, chosen)
        self._child = 0
        self._answer = -1
        if not _is_worth_it() or not os.path.isdir(cache):
            return
        with suppress(OSError):
            self._answer = os.memfd_create("cas-glance")
            self._fork(cache, folder, chosen)

    def _fork(self, cache: str, folder: str | os.PathLike[str], chosen: bytes) -> None:
        # An interrupt that the child took for its parent's would be told twice.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            child = os.fork()
            if not child:
                _look(self._answer, cache, folder, chosen)
            self._child = child
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __enter__(self) -> Glance:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the child go, whatever it is at."""
        if self._child:
            with suppress(OSError):
                os.kill(self._child, signal.SIGKILL)
            self._wait()
        if self._answer >= 0:
            os.close(self._answer)
            self._answer = -1

    def is_of(self, cache: str, folder: str | os.PathLike[str], chosen: bytes) -> bool:
        """Whether it was begun with these."""
        return self._of == (cache, folder, chosen)

    def _wait(self) -> bool:
        child, self._child = self._child, 0
        try:
            return os.waitpid(child, 0)[1] == 0
        except OSError:
            return False  # nobody's children wait here: the caller of this program says so

    def changed(self, proof: bytes) -> list[int] | None:
        """What `Picture.changed` gives for the picture of this proof; None where nobody knows."""
        if not self._child or not self._wait():
            return None
        data = os.pread(self._answer, os.fstat(self._answer).st_size, 0)
        if not proof or data[:ID_BYTES] != proof:
            return None
        found = array("Q")
        found.frombytes(data[ID_BYTES:])
        return found.tolist()


def options_mark(skip_secrets: bool, gitignore: bool) -> bytes:
    """What the key of a picture says of the options of a walk."""
    return bytes((skip_secrets, gitignore))


def _is_worth_it() -> bool:
    return (
        hasattr(os, "memfd_create")
        and threading.active_count() == 1
        and len(os.sched_getaffinity(0)) > 1
    )


def _look(answer: int, cache: str, folder: str | os.PathLike[str], chosen: bytes) -> NoReturn:
    """The child: look, say what was found, and end without a word."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # a pipe that they are ends with the command, not with this
            os.dup2(null, stream)
        found = look(cache, os.fsencode(os.path.realpath(folder)), chosen)
        if found is not None:
            with open(answer, "wb", closefd=False) as file:
                file.write(found[0] + array("Q", found[1]).tobytes())
        code = 0
    finally:
        os._exit(code)
