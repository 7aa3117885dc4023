"""A proxy in front of PostgreSQL that counts round trips, and cuts connections where it is told.

Invariant: bytes pass through as they are; a round trip is a message after which the client waits
(`Q`, a simple query, or `S`, the end of a group). Cut `before`: the server never sees it. Cut
`after`: the server has done it and answered, and the client never hears of it.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

Side = Literal["before", "after"]

_WAITS: Final = b"QS"
_MORE: Final = tuple(bytes([kind]) for kind in b"PBDEC")
"""Messages of a group that another follows, at the latest its end."""
_READY: Final = b"Z"
_HEAD_BYTES: Final = 5


class WireProxy:
    """Listens in `folder` as PostgreSQL would; `target` is the socket of the server."""

    def __init__(self, folder: str, target: str, port: int) -> None:
        self.trips = 0
        """Round trips since `arm` or the beginning."""
        self._target = target
        self._cut: tuple[int, Side] | None = None
        self._then: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.join(folder, f".s.PGSQL.{port}"))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(
        self,
        at: int | None = None,
        side: Side = "before",
        then: Callable[[], None] | None = None,
    ) -> None:
        """Count from 0; cut the connection that makes round trip `at` (from 1), once.

        `then` is done before the client learns that it was cut.
        """
        with self._lock:
            self.trips = 0
            self._then = then
            self._cut = None if at is None else (at, side)

    @property
    def has_cut(self) -> bool:
        """Whether what `arm` asked for has happened."""
        return self._cut is None

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server, suppress(OSError):
            server.connect(self._target)
            self._pass(client, server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            stream = _Messages(started=False)
            held = kinds = b""
            while True:
                for key, _events in selector.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is server:
                        client.sendall(data)
                        continue
                    held += data
                    kinds += stream.kinds(data)
                    if not stream.is_whole or kinds[-1:] in _MORE:
                        # A server does each message as it comes: half of a group is not sent.
                        continue
                    side = self._count(kinds)
                    if side != "before":
                        server.sendall(held)
                    held = kinds = b""
                    if side == "after":
                        _drain(server)
                    if side is not None:
                        if self._then is not None:
                            self._then()
                        return

    def _count(self, kinds: bytes) -> Side | None:
        with self._lock:
            for kind in kinds:
                if kind not in _WAITS:
                    continue
                self.trips += 1
                if self._cut is not None and self._cut[0] == self.trips:
                    side, self._cut = self._cut[1], None
                    return side
        return None


def _drain(server: socket.socket) -> None:
    """Read until the server is ready for the next question: it has done all of this one."""
    answers = _Messages(started=True)
    while data := server.recv(1 << 16):
        if _READY in answers.kinds(data):
            return


class _Messages:
    """Kinds of the messages that begin in a stream of bytes."""

    def __init__(self, *, started: bool) -> None:
        # The first message of a client has no kind.
        self._started = started
        self._buffer = b""

    @property
    def is_whole(self) -> bool:
        """Whether no message has begun that is not complete."""
        return not self._buffer

    def kinds(self, data: bytes) -> bytes:
        """Kinds of those that are complete with `data`."""
        self._buffer += data
        found = bytearray()
        while True:
            head = _HEAD_BYTES if self._started else _HEAD_BYTES - 1
            if len(self._buffer) < head:
                return bytes(found)
            length = int.from_bytes(self._buffer[head - 4 : head], "big") + head - 4
            if len(self._buffer) < length:
                return bytes(found)
            if self._started:
                found += self._buffer[:1]
            self._started = True
            self._buffer = self._buffer[length:]
