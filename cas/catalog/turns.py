"""A lock that is handed on in order, and whose holder lets go those who no longer need it.

Floor 2. Invariant: one thread holds it; whoever waits either gets it, in the order of coming, or
is told that what it came for is done; neither waits for anything but the holder.

An ordinary lock is taken by whoever runs when it is free, and on a busy machine that is the thread
that has just freed it: with eight threads some commits waited through three syncs after the one
that had made them durable (docs/design/011).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class _Waiting:
    __slots__ = ("done", "number", "wake")

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = False
        self.wake = threading.Lock()
        self.wake.acquire()


class Turns:
    """Threads of one process, each of which comes for a number that only grows. Any thread."""

    __slots__ = ("_held", "_lock", "_queue")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._held = False

    def take(self, number: int = 0) -> bool:
        """True once the turn is this thread's, to be handed on; False: the number is covered.

        Number 0 is covered by nobody.
        """
        with self._lock:
            if not self._held:
                self._held = True
                return True
            waiting = _Waiting(number)
            self._queue.append(waiting)
        try:
            waiting.wake.acquire()
        except BaseException:
            with self._lock:
                queued = waiting in self._queue
                if queued:
                    self._queue.remove(waiting)
            if not queued and not waiting.done:
                self.hand_on()
            raise
        return not waiting.done

    def hand_on(self, covered: int = 0) -> None:
        """Let go all who came for a number up to this one; the first of the others is next."""
        with self._lock:
            if not self._queue:
                self._held = False
                return
            done = [one for one in self._queue if 0 < one.number <= covered]
            others = deque(one for one in self._queue if not 0 < one.number <= covered)
            for waiting in done:
                waiting.done = True
            following = others.popleft() if others else None
            self._queue = others
            self._held = following is not None
        if following is not None:
            following.wake.release()
            # The next is to begin its sync before those let go compute: otherwise they share
            # the interpreter with it, and no sync is under way for a third of the time.
            os.sched_yield()
        for waiting in done:
            waiting.wake.release()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn for a block."""
        self.take()
        try:
            yield
        finally:
            self.hand_on()
