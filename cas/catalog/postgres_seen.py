"""What was seen of a store on a server, kept in the folder of its caches for who opens it later.

Floor 2. Invariant: the file says less than was seen, never more and never something else: it is
written behind what it tells, what is torn or of another lineage counts as nothing, and it may be
deleted at any time. Nothing rests on it but the refusal of a server that has lost what it told.

It is 64 bytes that a commit writes in place, without a sync: they outlive this process, which is
what a failover needs. Of two that write at once the older state may stay: then the file tells of
a commit less.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from typing import Final

from cas.catalog.postgres_place import PostgresPlace
from cas.catalog.postgres_schema import key_of

_LINEAGE: Final = 16
_SUM: Final = 8
_BYTES: Final = _LINEAGE + 8 + 32 + _SUM


class Seen:
    """The file of one place and one lineage in a folder of caches. Any thread."""

    __slots__ = ("_fd", "_lineage", "_lock")

    def __init__(self, lineage_id: bytes, fd: int) -> None:
        self._lineage = lineage_id
        self._fd = fd
        # Between a look at the number of the file and its use it must not become another's.
        self._lock = threading.Lock()

    def read(self) -> tuple[int, bytes] | None:
        """Seq and hash of the newest entry that was noted; None where nothing that counts is."""
        with self._lock:
            return self._read()

    def _read(self) -> tuple[int, bytes] | None:
        try:
            data = os.pread(self._fd, _BYTES, 0)
        except OSError:
            return None
        body = data[:-_SUM]
        if len(data) != _BYTES or data[-_SUM:] != _sum(body) or not body.startswith(self._lineage):
            return None
        return int.from_bytes(body[_LINEAGE : _LINEAGE + 8], "big"), body[_LINEAGE + 8 :]

    def note(self, seq: int, hash: bytes, *, anyway: bool = False) -> None:
        """Note an entry that was seen, if it is newer than what is noted, or `anyway`."""
        body = self._lineage + seq.to_bytes(8, "big") + hash
        with self._lock:
            noted = None if anyway else self._read()
            if noted is None or noted[0] < seq:
                # A full disk takes nothing from anybody but this warning.
                with suppress(OSError):
                    os.pwrite(self._fd, body + _sum(body), 0)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


def _sum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SUM, person=b"cas seen").digest()


def seen_in(folder: str, place: PostgresPlace, lineage_id: bytes) -> Seen | None:
    """The file for a place, made where there is none; None where it cannot be had.

    A place is hosts, ports, database, schema and store: what a failover leaves as it is. A copy
    of the same database on another host is another place.
    """
    parts = [str(place.parameters.get(name) or "") for name in ("host", "port", "dbname")]
    key = key_of("seen", *parts, place.schema, place.store) & ((1 << 64) - 1)
    path = os.path.join(folder, f"seen-{key:016x}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    return Seen(lineage_id, fd)
