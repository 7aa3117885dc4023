"""Who follows a store is told of commits, and does not ask for them.

Floor 2. Invariant: a notice is a hint; nothing that is lost of it costs more than a later look.
Nobody sends one where nobody has asked: `head.told_seq` is how far ahead somebody wants to be
told, and whoever listens moves it on; one that died is forgotten after so many commits.

A notice is sent behind the COMMIT, in the same round trip, and never in the transaction: commits
with notices wait for one lock of the whole server, for as long as their sync takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cas.catalog.postgres_errors import translate
from cas.catalog.postgres_link import Link
from cas.errors import AccessDenied, CasError

if TYPE_CHECKING:
    from cas.catalog.postgres_link import Connection

TOLD_AHEAD: Final = 1024
"""Commits that are told of before who asked for it has to ask again."""

_LOOK_S: Final = 0.5
"""How often the thread looks whether it is to end, and tries again what failed."""

Wake = Callable[[], None]


class Notices:
    """Listens for one handle, while anybody there wants to know. Any thread."""

    def __init__(self, link: Link, channel: str) -> None:
        self._link = link
        self._channel = channel
        self._lock = threading.Lock()
        self._wakes: list[Wake] = []
        self._running = False
        self._ended = threading.Event()
        self._told_seq = 0

    def listen(self, wake: Wake) -> Callable[[], None] | None:
        """`Catalog.listen`."""
        with self._lock:
            if not self._running:
                try:
                    connection = self._connect()
                except AccessDenied:
                    # A reader cannot ask writers for anything.
                    return None
                except CasError:
                    connection = None
                self._running = True
                self._wakes.append(wake)
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()
            else:
                self._wakes.append(wake)

        def stop() -> None:
            with self._lock, suppress(ValueError):
                self._wakes.remove(wake)

        return stop

    def close(self) -> None:
        """Let the thread end; it closes its own connection."""
        self._ended.set()

    def _connect(self) -> Connection:
        """A connection that listens, and whose wish to be told writers see."""
        try:
            connection = self._link.connect()
            try:
                connection.execute(f'LISTEN "{self._channel}"')
                self._ask(connection)
            except BaseException:
                self._link.discard(connection)
                raise
        except Exception as error:
            translate(error, self._link.path)
        return connection

    def _ask(self, connection: Connection) -> None:
        link = self._link
        row = connection.execute(link.sql.ask_to_be_told, (link.store, TOLD_AHEAD)).fetchone()
        self._told_seq = 0 if row is None else row[0]

    def _run(self, connection: Connection | None) -> None:
        while not self._is_over():
            try:
                if connection is None:
                    connection = self._connect()
                    # What was committed meanwhile was told to nobody.
                    self._wake()
                # Taken as a list: while they are waited for the connection can do nothing else.
                heard = list(connection.notifies(timeout=_LOOK_S, stop_after=1))
                if heard:
                    if int(heard[-1].payload) > self._told_seq - TOLD_AHEAD // 2:
                        self._ask(connection)
                    self._wake()
            except Exception:
                # Whoever is woken asks the catalog, and is told what is the matter.
                if connection is not None:
                    self._link.discard(connection)
                    connection = None
                self._wake()
                self._ended.wait(_LOOK_S)
        if connection is not None:
            self._link.discard(connection)

    def _is_over(self) -> bool:
        """Whether the thread ends: a closed handle, or nobody who wants to know."""
        with self._lock:
            if self._ended.is_set() or not self._wakes:
                self._running = False
                return True
        return False

    def _wake(self) -> None:
        with self._lock:
            wakes = list(self._wakes)
        for wake in wakes:
            wake()
