"""When to look at a folder again: as soon as something in it changed, or every so often.

Floor 5. Invariant: who is woken too often looks for nothing, and who is told of nothing looks all
the same: what is seen decides, never what was told. `watchfiles` tells at once where it is
installed; without it the folder is looked at in turn, which the stat cache makes cheap.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

from cas.clock import Clock
from cas.worktree.names import is_left_out

_SLICE_MS: Final = 100
_DEBOUNCE_MS: Final = 400
_STEP_MS: Final = 50
_LOOK_EVERY: Final = 10
"""Intervals without a word after which the folder is looked at all the same."""


def can_watch() -> bool:
    """Whether the library that tells of changes is installed."""
    return find_spec("watchfiles") is not None


def wakes(
    folder: bytes, clock: Clock, interval_ms: int, stop: threading.Event, *, told: bool = True
) -> Iterator[bool]:
    """A wake at once, then after each interval and, with `told` where `watchfiles` is installed,
    whenever something changed, until `stop` is set. True: the folder is to be looked at.
    """
    yield True
    if told and can_watch():
        yield from _told(folder, interval_ms, stop)
        return
    while not stop.is_set():
        end = clock.monotonic_ms() + interval_ms
        while not stop.is_set() and clock.monotonic_ms() < end:
            stop.wait(min(_SLICE_MS, interval_ms) / 1000)
        if not stop.is_set():
            yield True


def _told(folder: bytes, interval_ms: int, stop: threading.Event) -> Iterator[bool]:
    from watchfiles import watch

    def is_work(_change: Any, path: str) -> bool:
        return not is_left_out(os.fsencode(os.path.basename(path)))

    found = watch(
        os.fsdecode(folder),
        watch_filter=is_work,
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=interval_ms,
        yield_on_timeout=True,
        raise_interrupt=True,
    )
    silent = 0
    for changes in found:
        silent = 0 if changes else silent + 1
        yield silent % _LOOK_EVERY == 0
