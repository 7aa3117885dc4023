"""A server that speaks a little of S3 and is careless on request: what the probe must not accept.

It keeps objects in a dict, checks no signature, and knows PUT, GET with a range, HEAD, lists and
deletes. By default it honours `If-None-Match: *`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class CarelessServer(ThreadingHTTPServer):
    """`faults` may hold `ignores-create`, `ignores-match`, `loses-metadata`, `lets-racers-win`."""

    daemon_threads = True

    def __init__(self, faults: frozenset[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults = faults
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def careless(*faults: str) -> Iterator[CarelessServer]:
    """The server, running."""
    with CarelessServer(frozenset(faults)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CarelessServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        faults, key = self.server.faults, self._key()
        with self.server.lock:
            there = key in self.server.objects
            racing = "lets-racers-win" in faults and key.endswith("-race")
            create = self.headers.get("If-None-Match") == "*" and "ignores-create" not in faults
            match = "If-Match" in self.headers and "ignores-match" not in faults
            if (create and there and not racing) or match:
                self._answer(412)
                return
            kept = {
                name.lower(): value
                for name, value in self.headers.items()
                if name.lower().startswith("x-amz-meta-") and "loses-metadata" not in faults
            }
            self.server.objects[key] = body, kept
        self._answer(200, headers={"ETag": '"1"'})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query)
            return
        found = self.server.objects.get(self._key())
        if found is None:
            self._answer(404)
            return
        body, headers = found
        headers = {**headers, "ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            headers["Content-Length"] = str(len(body))
            self._answer(200, body, headers)
            return
        part = body[int(asked[1]) : int(asked[2]) + 1]
        headers["Content-Range"] = f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(body)}"
        self._answer(206, part, headers)

    def _list(self, query: dict[str, list[str]]) -> None:
        bucket = self._key().rstrip("/") + "/"
        prefix = bucket + query.get("prefix", [""])[0]
        after = bucket + query.get("start-after", [""])[0]
        with self.server.lock:
            found = {
                key.removeprefix(bucket): len(body)
                for key, (body, _headers) in sorted(self.server.objects.items())
                if key.startswith(prefix) and key > after
            }
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>1</ETag>"
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, size in found.items()
        )
        document = (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        )
        self._answer(200, document.encode(), {"Content-Type": "application/xml"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        bucket = self._key().rstrip("/")
        with self.server.lock:
            for key in re.findall(r"<Key>([^<]*)</Key>", body):
                self.server.objects.pop(f"{bucket}/{key}", None)
        self._answer(200, b"<DeleteResult></DeleteResult>")

    def do_DELETE(self) -> None:
        with self.server.lock:
            self.server.objects.pop(self._key(), None)
        self._answer(204)
