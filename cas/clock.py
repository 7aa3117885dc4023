"""The only room that reads time, randomness or the process id.

Floor 0. No safety rests on a clock: times are recorded and shown, never compared to decide
whether something may be deleted or overwritten. Tests pass a `Clock` of their own.
"""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Source of time and of random names. Every method may be called from any thread."""

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC, as the host believes."""

    def monotonic_ms(self) -> float:
        """Milliseconds that never run backwards within this process."""

    def sleep_ms(self, duration_ms: float) -> None:
        """Wait."""

    def random(self, count: int) -> bytes:
        """`count` bytes nobody can guess."""


class SystemClock:
    """The clock of the host."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_ms(self) -> float:
        return time.monotonic() * 1000

    def sleep_ms(self, duration_ms: float) -> None:
        time.sleep(duration_ms / 1000)

    def random(self, count: int) -> bytes:
        return os.urandom(count)


class Process:
    """Which process this is. `id` is told without a call to the system, of which a commit would
    make five to find out that its handles are its own.
    """

    __slots__ = ("id",)

    def __init__(self) -> None:
        self.id = os.getpid()


PROCESS = Process()


def _look_again() -> None:
    PROCESS.id = os.getpid()


os.register_at_fork(after_in_child=_look_again)
