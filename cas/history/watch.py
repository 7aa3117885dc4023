"""Who wants to know of commits: callbacks of this handle's own, and followers of everybody's.

Floor 4. Invariant: nobody is called inside a transaction, and nothing a callback does can undo,
delay under the gate or hide a commit; a follower gives every entry once, in order, without a gap.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final

from cas.errors import Closed, Invalid
from cas.history.core import Core, warn
from cas.model.entry import Entry

OnCommit = Callable[[Entry], object]

POLL_MIN_MS: Final = 5
POLL_MAX_MS: Final = 250
"""How long a follower waits before it asks again, where nobody tells it: first, and at the most."""

GLANCE_MS: Final = 15
"""How often the mark of a catalog on this host is looked at meanwhile: a word in memory."""

TOLD_MS: Final = 10_000
"""How long one that is told of commits goes without looking: what tells it may be lost."""


class Subscription:
    """A callback that is registered; `close` ends it, and so does the end of a `with` block."""

    def __init__(self, hooks: Hooks, callback: OnCommit) -> None:
        self._hooks = hooks
        self.callback = callback

    def close(self) -> None:
        """Call it no more; harmless when said twice. One that runs now is not waited for."""
        self._hooks.remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Hooks:
    """The callbacks of one handle, and the followers that it wakes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._turn = threading.Lock()
        self._moved = threading.Condition(self._turn)
        self._waiting = 0
        self.count = 0
        self.closed = False

    def add(self, callback: OnCommit) -> Subscription:
        """Call `callback` after each commit of this handle."""
        if not callable(callback):
            raise Invalid(f"A callback is a function of an entry, not {callback!r}.")
        subscription = Subscription(self, callback)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Call it no more."""
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    def committed(self, entry: Entry) -> None:
        """Tell everybody of an entry that stands."""
        self.wake()
        for subscription in self._subscriptions:
            try:
                subscription.callback(entry)
            except Exception as error:
                # The commit before it stands, so this is not its error.
                name = getattr(subscription.callback, "__qualname__", repr(subscription.callback))
                warn(f"the callback {name} failed after entry {entry.seq}: {error!r}")

    def wake(self) -> None:
        """Let every follower look again."""
        # The lock itself, and nobody told where nobody waits: each commit comes this way.
        with self._turn:
            self.count += 1
            if self._waiting:
                self._moved.notify_all()

    def wait(self, seen: int, wait_ms: float) -> None:
        """Return when `count` is not what was `seen`, or after that long."""
        with self._turn:
            self._waiting += 1
            try:
                self._moved.wait_for(lambda: self.count != seen, wait_ms / 1000)
            finally:
                self._waiting -= 1

    def close(self) -> None:
        """End all followers."""
        self.closed = True
        self.wake()


class Follower(Iterator[Entry]):
    """Entries of everybody as they come, each checked; `for entry in store.follow()`.

    Iteration waits for the next entry, and ends when the follower or its store is closed (by any
    thread). One thread iterates. An entry of this handle wakes it at once; those of other handles
    and processes are told by the catalog where it can (PostgreSQL), seen by a mark within
    15 ms on one host (SQLite), and else asked for at intervals that grow from 5 to 250 ms.
    """

    def __init__(self, core: Core, hooks: Hooks, after: int) -> None:
        self._core = core
        self._hooks = hooks
        self._closed = False
        self._asked_to_be_told = False
        self._told: Callable[[], None] | None = None
        self._ready: Iterator[Entry] = iter(())
        self.seq = after
        """The entry that was given last."""

    def __iter__(self) -> Follower:
        return self

    def __next__(self) -> Entry:
        entry = self.poll(None)
        if entry is None:
            raise StopIteration
        return entry

    def poll(self, timeout_ms: float | None = 0) -> Entry | None:
        """The next entry; None when none came in time (None waits for ever), or at the end."""
        clock = self._core.objects.clock
        end_ms = None if timeout_ms is None else clock.monotonic_ms() + timeout_ms
        pause_ms = float(POLL_MIN_MS)
        while not self._is_over():
            count, mark = self._hooks.count, self._core.objects.catalog.mark()
            entry = self._next()
            if entry is not None:
                return entry
            left_ms = None if end_ms is None else end_ms - clock.monotonic_ms()
            if left_ms is not None and left_ms <= 0:
                return None
            if not self._asked_to_be_told:
                self._asked_to_be_told = True
                self._told = self._core.objects.catalog.listen(self._hooks.wake)
                # What came before somebody listened is looked for once more.
                continue
            if self._told is not None:
                pause_ms = TOLD_MS
            wait_ms = pause_ms if left_ms is None else min(pause_ms, left_ms)
            self._wait(count, mark, wait_ms)
            pause_ms = min(2 * pause_ms, POLL_MAX_MS)
        return None

    def _wait(self, count: int, mark: int, wait_ms: float) -> None:
        """Return when somebody has committed since `count` and `mark`, or after that long."""
        hooks, catalog = self._hooks, self._core.objects.catalog
        if catalog.is_distant:
            hooks.wait(count, wait_ms)
            return
        while wait_ms > 0:
            hooks.wait(count, min(wait_ms, GLANCE_MS))
            if hooks.count != count or self._is_over() or catalog.mark() != mark:
                return
            wait_ms -= GLANCE_MS

    def _next(self) -> Entry | None:
        entry = next(self._ready, None)
        if entry is None and self._core.objects.catalog.head_seq() > self.seq:
            self._ready = self._core.timeline.entries(self.seq, _GROUP)
            entry = next(self._ready, None)
        if entry is not None:
            self.seq = entry.seq
        return entry

    def _is_over(self) -> bool:
        return self._closed or self._hooks.closed

    def close(self) -> None:
        """End the iteration, also one that waits in another thread."""
        self._closed = True
        told, self._told = self._told, None
        if told is not None:
            told()
        self._hooks.wake()

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_GROUP: Final = 256


class Watching(ABC):
    """The part of `Store` that tells of commits. Any thread may use it."""

    core: Core
    _hooks: Hooks

    @abstractmethod
    def _head_seq(self) -> int:
        """The newest entry."""

    def on_commit(self, callback: OnCommit) -> Subscription:
        """Call `callback(entry)` after each entry that a transaction of this handle made.

        It runs in the thread that committed, when the entry is durable and before `commit`
        returns, outside the gate; it may use the store. What it raises is logged (logger `cas`)
        and changes nothing. Entries of other handles and processes are not told: `follow` gives
        those of everybody.
        """
        return self._hooks.add(callback)

    def follow(self, after: int | None = None) -> Follower:
        """Entries behind `after` (behind the newest one unless said), and then those to come.

        Those of everybody: other handles, other processes. Raises `Closed`, `Invalid`.
        """
        if self._hooks.closed:
            raise Closed("This store was closed; open it again.")
        newest = self._head_seq()
        if after is None:
            after = newest
        if not 0 <= after <= newest:
            raise Invalid(f"The journal has no entry {after}; its newest is {newest}.")
        return Follower(self.core, self._hooks, after)
