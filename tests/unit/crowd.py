"""Threads that commit in one transaction, in an order that the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cas.history.store import Store

Ends = list[Any]


def in_one_group(store: Store, works: list[Callable[[], Any]]) -> Ends:
    """What each came to; they queue up, in order, behind a gate that is taken meanwhile."""
    ends: Ends = [None] * len(works)

    def run(number: int) -> None:
        try:
            ends[number] = works[number]()
        except BaseException as error:
            ends[number] = error

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(works))
    ]
    committer, catalog = store.objects.committer, store.objects.catalog
    write, at_gate = catalog.write, threading.Event()

    def enter(**how: Any) -> Any:
        at_gate.set()
        return write(**how)

    with write():
        catalog.write = enter  # type: ignore[method-assign]
        threads[0].start()
        at_gate.wait()
        for count, thread in enumerate(threads[1:], 1):
            thread.start()
            while len(committer._queue) < count:
                time.sleep(0.001)
        del catalog.write
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a committer waits for ever"
    return ends
