"""Keeping a projection up with the journal while a program writes, many commits at a time.

Floor 7. Invariant: it does nothing that a question would not do, so that the answers are the same
with it and without. What goes wrong is logged (logger `cas`) and tried again; a question meets it
too, and raises it.

Taking in a small commit by itself costs more than the commit, and many with one transaction a fifth
of that. So a thread takes in what there is when little is being written, and who writes faster than
it likes takes in some hundreds by itself, in the commit that makes the number full. A thread that
did so beside commits cost both of them half as much again: they would pass the interpreter to and
fro.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from cas.errors import CasError, Closed
from cas.history.core import warn
from cas.history.store import Store
from cas.model.entry import Entry
from cas.recall.projection import Projection

_ENTRIES: Final = 256
"""Entries that are taken in together: what a question may find left, and what a commit may take in,
some 40 ms of one memory each.
"""
_PAUSE_S: Final = 0.25
"""How often the thread looks; entries of other handles are told to nobody."""
_BUSY: Final = 32
"""Entries between two looks that mean that somebody is writing."""


class Keeping:
    """The thread, and the callback. Made and closed by the owner of the projection."""

    def __init__(self, store: Store, projection: Projection) -> None:
        self._catalog = store.objects.catalog
        self._projection = projection
        self._closing = threading.Event()
        self._failing = False
        self._seen = 0
        self._subscription = store.on_commit(self._committed)
        self._thread = threading.Thread(target=self._run, name="cas-recall", daemon=True)
        self._thread.start()

    def _committed(self, entry: Entry) -> None:
        if self._projection.tell(entry) < _ENTRIES:
            return
        # One that fails is tried again after a pause, and not with each commit; and no commit
        # waits for a slow model.
        if not self._failing and self._projection.models.is_quick:
            self._try(lambda: self._projection.step(wait=False))

    def _run(self) -> None:
        self._try(self._all)
        while not self._closing.wait(_PAUSE_S):
            self._try(self._look)

    def _look(self) -> None:
        """Take in what there is, unless somebody writes so fast that more will come at once."""
        head = self._catalog.head_seq()
        come, self._seen = head - self._seen, head
        if come < _BUSY or head - self._projection.seq >= _ENTRIES:
            self._all()

    def _all(self) -> None:
        # Between two transactions questions have their turn.
        while self._projection.step() and not self._closing.is_set():
            pass

    def _try(self, take: Callable[[], object]) -> None:
        try:
            take()
            self._failing = False
        except Closed:
            self._closing.set()
        except CasError as error:
            if not self._failing:
                warn(f"the search index is not kept up: {error}")
            self._failing = True

    def close(self) -> None:
        """End it, after the transaction that is under way."""
        self._closing.set()
        self._subscription.close()
        if self._thread is not threading.current_thread():
            self._thread.join()
