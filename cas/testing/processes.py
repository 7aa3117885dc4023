"""Real processes on one store: started by fork, killed without warning, asked what they saw.

Invariant: what a process said before it died is read from a file that it had written before it
went on, so it is never behind what it did; a store is never open in the process that forks.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from cas.testing.driver import Driver
from cas.testing.layers import RecordingFiles, RecordingVFS
from cas.testing.model import Model, Progress
from cas.testing.recorder import Recorder

PATIENCE_S: Final = 150
"""A child that lives longer is ended by the kernel: it waits for something that never comes."""

_LENGTH: Final = struct.Struct("<Q")


class Child:
    """A forked process that runs `act` and ends without any cleaning up."""

    def __init__(self, act: Callable[[], Any]) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(act, writer)
        os.close(writer)
        self._answer = os.fdopen(reader, "rb")

    @staticmethod
    def _run(act: Callable[[], Any], writer: int) -> None:
        signal.alarm(PATIENCE_S)
        try:
            answer = (True, act())
        except BaseException as error:
            answer = (False, f"{type(error).__name__}: {error}")
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed, nothing is closed in order."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Any:
        """What `act` gave; None when the child was killed. Raises when `act` did."""
        try:
            data = self._answer.read()
        finally:
            self._answer.close()
            os.waitpid(self.pid, 0)
        if not data:
            return None
        done, answer = pickle.loads(data)
        if not done:
            raise AssertionError(f"in the child: {answer}")
        return answer


class Diary:
    """A file to which a driver's progress and model are appended before it goes on."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, progress: Progress, model: Model) -> None:
        """Append one record with a single call."""
        data = pickle.dumps((progress, model))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, _LENGTH.pack(len(data)) + data)
        finally:
            os.close(fd)

    def last(self) -> tuple[Progress, Model] | None:
        """The newest whole record."""
        found = None
        try:
            with open(self.path, "rb") as file:
                while head := file.read(_LENGTH.size):
                    data = file.read(_LENGTH.unpack(head)[0])
                    found = pickle.loads(data)
        except (FileNotFoundError, struct.error, EOFError, pickle.UnpicklingError):
            return found
        return found


class _Telling(Recorder):
    """Writes the driver's marks into a diary instead of keeping a log."""

    def __init__(self, root: str, hook: Any, diary: Diary) -> None:
        super().__init__(root, hook)
        self.diary = diary
        self.model = Model()

    def mark(self, value: Any) -> None:
        self.ops.clear()
        self.diary.write(value, self.model)


QUIET: Final = frozenset(("read", "open"))
"""Calls that change nothing: a kill before one of them is a kill before the next."""


class KillHook:
    """Kills its own process before the call of this number; counts those that change something."""

    def __init__(self, at: int | None) -> None:
        self._at = at
        self.count = 0

    def before(self, call: str, path: str, handle: object, size_bytes: int) -> None:
        if call in QUIET:
            return
        if self.count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


@contextmanager
def told(
    place: str, diary: Diary, seed: str, model: Model, at: int | None
) -> Iterator[tuple[Driver, KillHook]]:
    """A driver on an existing store whose progress goes into a diary; killed at call `at`."""
    hook = KillHook(at)
    recorder = _Telling(place, hook, diary)
    vfs = RecordingVFS(recorder)
    driver = Driver(
        place,
        seed=seed,
        model=model,
        recorder=recorder,
        files=RecordingFiles(recorder),
        vfs=vfs.name,
    )
    recorder.model = driver.model
    try:
        yield driver, hook
    finally:
        driver.close()
        vfs.close()


def run_told(
    place: str, diary: Diary, seed: str, model: Model, steps: Sequence[str], at: int | None
) -> int:
    """Run steps so; how many calls there were that change something."""
    with told(place, diary, seed, model, at) as (driver, hook):
        driver.mark()
        driver.run(steps)
        driver.step = "close"
        driver.mark()
        assert not driver.refused, driver.refused
    return hook.count
