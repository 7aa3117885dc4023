"""Maintenance that runs by itself after commits, where the store asks for it.

Floor 4. Invariant: a commit that is acknowledged never waits for it: it runs on a thread of its
own, one at a time in a handle, and in one process at a time by the election that `maintain` holds.
A handle that closes waits for the chore that is under way, and for no other.

Where it does not run it costs a commit one comparison, and one query every 64 commits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from cas.errors import CasError, Unavailable
from cas.history.core import warn
from cas.limits import MAINTAIN_ENTRIES
from cas.objects.store import ObjectStore

AUTOMATIC: Final = "maintain"
"""Cursor: the budget of a run in ms; 0 or missing: none runs by itself."""

MAINTAINED: Final = "maintained"
"""Cursor: the newest entry when a run began last."""

Run = Callable[[int, Callable[[], bool]], None]
"""Maintenance for so many ms, until the call says that it is to stop."""


class Automatic:
    """When maintenance runs by itself, for one handle. Any thread."""

    def __init__(self, objects: ObjectStore, run: Run) -> None:
        self._objects = objects
        self._run = run
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        # The entry from which on the catalog is asked again.
        self._next_seq = 0

    def forget(self) -> None:
        """The policy has changed: ask again at the next commit."""
        self._next_seq = 0

    def committed(self, seq: int) -> None:
        """Entry `seq` stands: begin a run if one is due. Never raises, and waits for nobody."""
        if seq < self._next_seq or self._closing:
            return
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._thread is not None and self._thread.is_alive():
                return
            self._next_seq = seq + MAINTAIN_ENTRIES
            with self._objects.catalog.read() as reader:
                budget_ms = reader.cursor(AUTOMATIC) or 0
                last = reader.cursor(MAINTAINED) or 0
            if not budget_ms:
                return
            if 0 <= seq - last < MAINTAIN_ENTRIES:
                self._next_seq = last + MAINTAIN_ENTRIES
                return
            self._thread = threading.Thread(
                target=self._work, args=(budget_ms,), name="cas-maintain", daemon=True
            )
            self._thread.start()
        except (CasError, RuntimeError) as error:
            # The commit was acknowledged and stands; no thread can be had, or the catalog fails.
            warn(f"maintenance was put off: {error}")
        finally:
            self._lock.release()

    def _work(self, budget_ms: int) -> None:
        try:
            self._run(budget_ms, lambda: self._closing)
        except Unavailable:
            return  # another process is at it
        except CasError as error:
            warn(f"maintenance ended early: {error}")

    def close(self) -> None:
        """Begin no more, and wait for the chore under way. A forked child waits for nothing."""
        self._closing = True
        thread = self._thread
        if (
            thread is not None
            and self._pid == os.getpid()
            and thread is not threading.current_thread()
        ):
            thread.join()
