"""A proxy between a client and a real S3 server that lets requests go wrong, one by one.

It forwards bytes as they are, so that signatures hold. `choose` is asked for each request and names
a fault or nothing. Requests that are to come late are kept, and sent by `deliver`.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = (
    "dropped",  # the connection breaks and the server never sees the request
    "lost",  # the server does it, and its answer is lost
    "500",
    "503",
    "409",  # refused although nobody else is there
    "412",  # likewise, as a condition that failed
    "500-done",  # an error is the answer to what was done
    "late",  # the connection breaks, and the server sees the request afterwards
    "slow",
    "half",  # the answer breaks off in its middle
    "less",  # it has less than it says, and ends in good order
)

Request = tuple[str, str]


class FaultProxy(ThreadingHTTPServer):
    """Forwards to `upstream`. `seen` are the requests, in order."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.choose: Callable[[int, Request], str | None] = lambda _number, _request: None
        self.seen: list[Request] = []
        self.late: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def reset(self, choose: Callable[[int, Request], str | None] | None = None) -> None:
        """Forget what was seen, and let other faults happen; none by default."""
        with self.lock:
            self.seen = []
            self.choose = choose or (lambda _number, _request: None)

    def send(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Hand a request on; what came back."""
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for key, value in headers.items():
                connection.putheader(key, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def deliver(self) -> list[int]:
        """Send what was to come late; the answers."""
        with self.lock:
            late, self.late = self.late, []
        return [self.send(*request)[0] for request in late]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in the middle here."""


@contextmanager
def faulty(upstream: str) -> Iterator[FaultProxy]:
    """The proxy, running."""
    with FaultProxy(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append((self.command, self.path))
            fault = self.server.choose(number, (self.command, self.path))
        if fault == "late":
            with self.server.lock:
                self.server.late.append((self.command, self.path, body, headers))
        if fault in ("dropped", "late"):
            self.close_connection = True
            return
        if fault in ("500", "503", "409", "412"):
            self._answer(int(fault), [], b"")
            return
        if fault == "slow":
            time.sleep(0.2)
        status, found, data = self.server.send(self.command, self.path, body, headers)
        if fault == "lost":
            self.close_connection = True
        elif fault == "500-done":
            self._answer(500, [], b"")
        elif fault == "half" and "list-type" in self.path:
            # Not broken off: it says that it is whole, which is worse.
            entries = re.findall(rb"<Contents>.*?</Contents>", data, re.DOTALL)
            for entry in entries[len(entries) // 2 :]:
                data = data.replace(entry, b"")
            self._answer(status, found, data)
        else:
            if fault == "less" and self.command == "GET" and "list-type" not in self.path:
                data = data[: len(data) // 2]
            self._answer(status, found, data, half=fault == "half")

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, *, half: bool = False
    ) -> None:
        self.send_response_only(status)
        length = str(len(data))
        for key, value in headers:
            if key.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif key.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(key, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if half:
            data = data[: len(data) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve
