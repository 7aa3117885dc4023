"""One file served to the kernel as a file system of its own, with every write and flush noted.

Invariant: the log holds each write and each flush of the file in the order in which the kernel
asked for them, and what stands before a flush in the log was answered before the flush was. The
kernel's protocol is spoken on `/dev/fuse` itself, so that no library and no helper is needed; the
root of the file system is the file. It runs in a process of its own, because who waits for the
disk must not be asked to be the disk.
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Final

import attrs

_IN: Final = struct.Struct("<IIQQIIIHH")
_OUT: Final = struct.Struct("<IiQ")
_SPAN: Final = struct.Struct("<QQII")
_ATTR: Final = struct.Struct("<QII" + "QQQQQQ" + "III" + "IIIIIII")
_OPENED: Final = struct.Struct("<QIi")
_INIT: Final = struct.Struct("<IIIIHHIIHHI28x")
_WRITTEN: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<Q")

_GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _RELEASE = 3, 4, 14, 15, 16, 18
_FORGET, _FSYNC, _FLUSH, _INIT_CODE, _INTERRUPT, _DESTROY, _FORGETS = 2, 20, 25, 26, 36, 38, 42
_HEADER_BYTES: Final = 40
_WRITE_MAX: Final = 128 * 1024
_MODE: Final = 0o100600
MINOR: Final = 31
"""The protocol's version 7.31 is spoken: all that is used of it is older."""
MAX_PAGES: Final = 1 << 22
BIG_WRITES: Final = 1 << 5


@attrs.frozen(slots=True)
class Wrote:
    """Bytes that reached the disk, at an offset; not durable before the next flush."""

    offset: int
    data: bytes


@attrs.frozen(slots=True)
class Flushed:
    """Everything before it is durable."""


@attrs.frozen(slots=True)
class Said:
    """What the workload says of itself, behind all that it had done by then."""

    value: Any


Op = Wrote | Flushed | Said


class Disk:
    """The file and its log. One thread, in the process that serves it."""

    def __init__(self, size_bytes: int) -> None:
        self.content = bytearray(size_bytes)
        self.ops: list[Op] = []

    def answer(self, request: memoryview) -> bytes | None:
        """What the kernel is told; None for what wants no answer."""
        _length, code, unique, _node, _uid, _gid, _pid, _extra, _ = _IN.unpack_from(request)
        if code in (_FORGET, _FORGETS, _INTERRUPT):
            return None
        try:
            body = self._do(code, request[_HEADER_BYTES:])
        except OSError as error:
            return _OUT.pack(_OUT.size, -(error.errno or errno.EIO), unique)
        return _OUT.pack(_OUT.size + len(body), 0, unique) + body

    def _do(self, code: int, body: memoryview) -> bytes:
        if code == _WRITE:
            _handle, offset, size, _flags = _SPAN.unpack_from(body)
            data = bytes(body[40 : 40 + size])
            self.content[offset : offset + size] = data
            self.ops.append(Wrote(offset, data))
            return _WRITTEN.pack(size, 0)
        if code == _READ:
            _handle, offset, size, _flags = _SPAN.unpack_from(body)
            return bytes(self.content[offset : offset + size])
        if code == _FSYNC:
            self.ops.append(Flushed())
            return b""
        if code in (_GETATTR, _SETATTR):
            size = len(self.content)
            times = (0, 0, 0, 0, 0, 0)
            return _ATTR.pack(3600, 0, 0, 1, size, size // 512, *times, _MODE, 1, 0, 0, 0, 4096, 0)
        if code == _OPEN:
            return _OPENED.pack(0, 0, 0)
        if code == _INIT_CODE:
            _major, _minor, ahead = struct.unpack_from("<III", body)
            flags = MAX_PAGES | BIG_WRITES
            return _INIT.pack(7, MINOR, ahead, flags, 16, 12, _WRITE_MAX, 1, 32, 0, 0)
        if code in (_RELEASE, _FLUSH, _DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "not of this file system")


def serve(device: int, control: socket.socket, disk: Disk, leave: Callable[[], None]) -> None:
    """Answer the kernel until the file system is unmounted; take marks from `control` between.

    When whoever made it is gone, `leave` is called on a thread of its own: it unmounts what rests
    on this file, which has to be served for that. At the end the log goes out through `control`.
    """
    watched = [device, control.fileno()]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if device in ready:
            try:
                # A whole request at a time: the kernel never gives a part of one.
                request = os.read(device, _WRITE_MAX + 64 * 1024)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    break
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                raise
            answer = disk.answer(memoryview(request))
            if answer is not None:
                try:
                    os.write(device, answer)
                except OSError as error:
                    if error.errno != errno.ENOENT:  # who asked was interrupted
                        raise
        elif control.fileno() in ready:
            said = receive(control)
            if said is None:
                watched.remove(control.fileno())
                threading.Thread(target=leave, daemon=True).start()
            else:
                disk.ops.append(Said(pickle.loads(said)))
                control.sendall(b"\0")
    if control.fileno() in watched:
        send(control, pickle.dumps(disk.ops))


def send(control: socket.socket, data: bytes) -> None:
    """One message."""
    control.sendall(_LENGTH.pack(len(data)) + data)


def receive(control: socket.socket) -> bytes | None:
    """One message, or None when the other side is gone."""
    head = control.recv(_LENGTH.size, socket.MSG_WAITALL)
    if len(head) < _LENGTH.size:
        return None
    wanted: int = _LENGTH.unpack(head)[0]
    parts: list[bytes] = []
    while wanted:
        part = control.recv(min(wanted, 1 << 20))
        if not part:
            return None
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


def mark(control: socket.socket, value: Any) -> None:
    """Put something into the log, behind everything that has been written."""
    send(control, pickle.dumps(value))
    if control.recv(1) != b"\0":
        raise AssertionError("the disk is gone")
