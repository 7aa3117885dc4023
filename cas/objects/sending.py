"""Pack files on their way to where each costs a request, beside the writer that makes the next.

Floor 3. Invariant: a pack that `wait` has returned for is durable under its name, and its end was
read back; what failed fails every wait from then on. Used by one thread, the writer's; each pack
has a thread of its own while it travels, which ends with its request.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from cas.limits import SENDING_BYTES_MAX


class _Pack:
    def __init__(self, seal: Callable[[], object], size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.error: BaseException | None = None
        self._seal = seal
        self.thread = threading.Thread(target=self._send, name="cas-send", daemon=True)
        self.thread.start()

    def _send(self) -> None:
        try:
            self._seal()
        except BaseException as error:
            self.error = error


class Sending:
    """The packs of one writer that are on their way."""

    def __init__(self) -> None:
        self._packs: deque[_Pack] = deque()

    def begin(self, seal: Callable[[], object], size_bytes: int) -> None:
        """Send one more; waits while those on their way are too many bytes with it. Raises what
        sending one of those before has raised.
        """
        self._wait(SENDING_BYTES_MAX - size_bytes)
        self._packs.append(_Pack(seal, size_bytes))

    def wait(self) -> None:
        """Return when every pack is there. Raises what sending one of them has raised."""
        self._wait(-1)

    def _wait(self, most_bytes: int) -> None:
        while self._packs and sum(pack.size_bytes for pack in self._packs) > most_bytes:
            first = self._packs[0]
            first.thread.join()
            if first.error is not None:
                raise first.error
            self._packs.popleft()

    def settle(self) -> None:
        """Return when nothing is on its way any more, whatever came of it."""
        for pack in self._packs:
            pack.thread.join()
