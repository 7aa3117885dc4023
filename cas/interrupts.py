"""Signals that wait: while a lock is held, a handler that raises raises later.

Floor 0. Invariant: between taking what a `deferred` block holds and giving it back no handler of a
signal runs; what came meanwhile is handled behind the block, by the handler that was there.
Handlers run in the main thread only, so that all others pay nothing.

Python runs a handler between two instructions: also behind a call that has taken a lock and before
the `try` that gives it back, and inside a `finally`. So Ctrl-C beside other threads left, once in
some hundreds, a lock that nobody gave back (docs/design/011).
"""

from __future__ import annotations

import os
import threading
from _signal import getsignal, signal  # type: ignore[import-not-found]
from collections.abc import Callable
from itertools import compress
from operator import call
from signal import SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

_SIGNALS: Final = (SIGINT, SIGTERM, SIGALRM, SIGHUP, SIGUSR1, SIGUSR2)
"""What Ctrl-C sends, and what programs make time-outs and exits of."""

_Handler = Callable[[int, FrameType | None], Any]


class State:
    """What the main thread is in. Nobody else writes it."""

    __slots__ = ("came", "depth", "handlers", "main", "open", "owner", "taken")

    def __init__(self) -> None:
        self.main = threading.main_thread().ident
        """The main thread: another one after a fork by another thread, and else the same."""
        self.owner = 0
        self.depth = 0
        self.handlers: dict[int, _Handler] = {}
        self.came: list[tuple[int, FrameType | None]] = []
        self.open = False
        """Handlers run all the same: what is held is given back by an `__exit__`."""
        self.taken: list[object] | None = None
        """While something is waited for: what was got."""


STATE: Final = State()
_CLOSING: Final[set[CodeType]] = set()


def _handle(number: int, frame: FrameType | None) -> None:
    state = STATE
    taken = state.taken
    waits = taken is not None and not taken
    # An `__exit__` may just have begun, and not said so.
    is_open = state.open and state.depth == 1 and getattr(frame, "f_code", None) not in _CLOSING
    if state.depth and not waits and not is_open:
        state.came.append((number, frame))
        return
    if not state.depth:
        _restore()  # a block has just begun or ended, and may not come to it
    state.taken = None
    state.handlers[number](number, frame)
    state.taken = taken


class deferred:
    """`with deferred():` handlers run behind the block, or while it waits by `wait_for`.

    Any thread; may be nested.
    """

    __slots__ = ("is_main", "is_outermost")

    def __enter__(self) -> deferred:
        state = STATE
        self.is_outermost = False
        self.is_main = threading.get_ident() == state.main
        if self.is_main:
            if not state.depth:
                self._begin()
            state.depth += 1
        return self

    def _begin(self) -> None:
        state = STATE
        try:
            # Most have none, and each commit comes here.
            for number in compress(_SIGNALS, map(callable, map(getsignal, _SIGNALS))):
                handler = getsignal(number)
                if callable(handler) and handler is not _handle:
                    state.handlers[number] = handler
                    signal(number, _handle)
        except ValueError:
            pass  # an interpreter beside the main one has no handlers
        state.owner = threading.get_ident()
        self.is_outermost = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        state = STATE
        if not self.is_main:
            return
        if not self.is_outermost:
            state.depth -= 1
            return
        # From here on handlers run, by way of this one or not.
        came, state.came, state.depth = state.came, [], 0
        _restore()
        for number, frame in came:
            state.handlers[number](number, frame)


def _restore() -> None:
    for number, handler in list(STATE.handlers.items()):
        if getsignal(number) is _handle:
            signal(number, handler)


def wait_for(take: Callable[[], object]) -> None:
    """Call what takes a lock; it must be made in C. Handlers run until it is taken, and none from
    then on.
    """
    state = STATE
    if not state.depth or threading.get_ident() != state.owner:
        take()
        return
    taken: list[object] = []
    state.taken = taken
    try:
        # No instruction lies between the call and the note of it.
        taken.extend(map(call, (take,)))
    finally:
        state.taken = None


def closes(exit: Callable[..., None]) -> None:
    """Note an `__exit__` whose first line says that `STATE.open` is over."""
    _CLOSING.add(exit.__code__)


def _begin_anew() -> None:
    """In a child that another thread than the main one has forked, beside a block of that."""
    state = STATE
    state.main = threading.main_thread().ident
    if state.depth and state.owner != threading.get_ident():
        state.came, state.depth, state.open, state.taken = [], 0, False, None
        _restore()


os.register_at_fork(after_in_child=_begin_anew)
