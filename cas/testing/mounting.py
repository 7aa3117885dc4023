"""Mounts, loop devices and a namespace for both, by the calls of the system itself.

Invariant: what is mounted here is mounted in a namespace of the calling process, and a loop device
lets go of its file with its last user, so that nothing is left when the process is gone, whatever
it died of. Linux, and root.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Final

ROOM: Final = "/dev/shm"
"""Where a process mounts memory of its own, in which all that it mounts then lies."""

_NEW_NAMESPACE: Final = 0x00020000
_PRIVATE, _RECURSIVE, _NO_SUID, _NO_DEV = 1 << 18, 1 << 14, 2, 4
_DETACH: Final = 2
_KILL_WITH_PARENT: Final = 1
_LOOP_FREE, _LOOP_CONFIGURE, _LOOP_CLEAR = 0x4C82, 0x4C0A, 0x4C01
_AUTOCLEAR: Final = 4
_TRIES_MAX: Final = 50


def _call(name: str, *arguments: int | bytes | None) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


@cache
def lacking(kind: str = "ext4") -> str | None:
    """What this host lacks for mounting images, as the reason of a skip; None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting images of real file systems needs Linux and root"
    for place in ("/dev/fuse", "/dev/loop-control", ROOM):
        if not os.access(place, os.R_OK | os.W_OK):
            return f"mounting images of real file systems needs {place}"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"mounting images of {kind} needs mkfs.{kind}"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with room() as place:
                image = os.path.join(place, "probe")
                with open(image, "xb") as file:
                    file.truncate(1 << 20)
                with loop_device(image):
                    code = 0
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        return "this process may not have mounts and loop devices of its own"
    return None


def own_mounts() -> None:
    """From now on what this process mounts is seen by it and its children alone."""
    _call("unshare", _NEW_NAMESPACE)
    _call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)


@contextmanager
def room() -> Iterator[str]:
    """Memory that only this process and its children see, and that is gone with them."""
    die_with_parent()
    own_mounts()
    mount("cas", ROOM, "tmpfs")
    try:
        yield ROOM
    finally:
        unmount(ROOM, detach=True)


def die_with_parent() -> None:
    """Have this process killed when the one that started it is gone."""
    _call("prctl", _KILL_WITH_PARENT, 9, 0, 0, 0)


def mount(source: str, place: str, kind: str, options: str = "") -> None:
    """Mount, for this namespace; `place` is a folder, or a file where the root is one."""
    _call(
        "mount",
        source.encode(),
        place.encode(),
        kind.encode(),
        _NO_SUID | _NO_DEV,
        options.encode(),
    )


def unmount(place: str, *, detach: bool = False) -> None:
    """Unmount; with `detach` as soon as nobody uses it any more."""
    _call("umount2", place.encode(), _DETACH if detach else 0)


def mount_fuse(device: int, place: str) -> None:
    """Mount what is answered on an open `/dev/fuse`; its root is a file."""
    options = f"fd={device},rootmode=100600,user_id=0,group_id=0"
    mount("cas", place, "fuse", options)


@contextmanager
def loop_device(image: str) -> Iterator[str]:
    """A block device with the content of a file."""
    with open("/dev/loop-control", "rb", buffering=0) as control:
        for _ in range(_TRIES_MAX):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                _attach(device, image)
                break
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # another process was faster
                    raise
        else:
            raise OSError(errno.EBUSY, "no loop device is free for long enough")
    try:
        yield path
    finally:
        # Set up to let go of the file with the last user: here, or the unmounting.
        os.close(device)


def _attach(device: int, image: str) -> None:
    fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        # struct loop_config: fd, block_size, then loop_info64, of which only the flags are set.
        info = struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR).ljust(232, b"\0")
        config = struct.pack("<II", fd, 0) + info + bytes(64)
        fcntl.ioctl(device, _LOOP_CONFIGURE, config)
    finally:
        os.close(fd)


def make_file_system(device: str, kind: str, options: Sequence[str] = ()) -> None:
    """Run mkfs; its words where it fails."""
    done = subprocess.run(
        [f"mkfs.{kind}", "-q", *options, device], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"mkfs.{kind}: {done.stderr.strip()}")
