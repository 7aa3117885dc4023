"""The gate between processes: two locks, so that writers are served in turn.

Floor 2; implements docs/format.md section 9. Invariant: whoever holds the gate holds
`locks/main`, and the next one in line holds `locks/next`; the kernel releases both when a
process dies. A plain lock let some writers wait a hundred times longer than others, and
SQLite's own busy wait starved some altogether (measured, see docs/design/).

The lock files are never SQLite's own: closing any descriptor of SQLite's files would drop its
locks for the whole process.

`locks/main` also holds the marks, 32 bytes that are hints and never synced; every handle has them
mapped, so that looking at them is no system call. The mark says whether
anybody has committed since: a reader that finds another than the one it knows, or 0, asks the
catalog. It is 0 from before a COMMIT until after it, so that a commit whose maker died is not
missed. Beside it stand the number of the newest commit, the newest that is known to be durable,
and whether a sync has failed. A number is only compared with one that was given out behind it,
so that what a power failure leaves in the file misleads nobody.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple
from weakref import WeakSet

from cas.errors import Unsupported
from cas.interrupts import wait_for

try:
    import fcntl
except ImportError as error:  # pragma: no cover - other platforms come later
    raise Unsupported("cas needs a POSIX system: there is no fcntl here.") from error


_MARK, _NUMBER, _SYNCED, _DOUBT = range(4)
_MARKS_BYTES = 32


class Marks(NamedTuple):
    """What stands in `locks/main`.

    `mark`: number of the newest commit, 0 while one is under way. `number`: the newest given
    out. `synced`: this commit and all before it are durable. `doubt`: a sync has failed since.
    """

    mark: int
    number: int
    synced: int
    doubt: int


_NO_MARKS = Marks(0, 0, 0, 0)
_NOTE_BYTES = 64


class FileTurn:
    """A turn whose note is the content of its lock file."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def note(self) -> bytes:
        """What was left last."""
        try:
            return os.pread(self._fd, _NOTE_BYTES, 0)
        except OSError:
            return b""

    def leave(self, note: bytes) -> None:
        """Replace it; a note that a full disk does not take is lost."""
        try:
            os.pwrite(self._fd, note, 0)
            os.ftruncate(self._fd, len(note))
        except OSError:
            return


class NoTurn:
    """A turn of a catalog that has one handle; its note is kept by that."""

    def __init__(self) -> None:
        self.note = b""

    def leave(self, note: bytes) -> None:
        """Replace it."""
        self.note = note


class FileGate:
    """The gate of one store folder. One thread at a time may use it: the catalog queues them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._next = self._main = -1
        # Descriptors that hold numbers of sessions, by number.
        self._holds: dict[int, int] = {}
        try:
            if not os.path.isdir(folder):  # as its files, it is made again
                with suppress(FileExistsError):
                    os.mkdir(folder)
            self._next = _open(os.path.join(folder, "next"))
            self._main = _open(os.path.join(folder, "main"))
            self._words = _map(os.path.join(folder, "main"))
        except OSError:
            self.close()
            raise
        self._number = 0
        _GATES.add(self)

    def __del__(self) -> None:
        # Of a handle that nobody closed: an open file, and a lock that it has, has no other end.
        self.close()

    def enter(self) -> None:
        """Wait for this process's turn, however long; Ctrl-C interrupts the wait.

        The kernel serves blocked lockers in order and releases what a dead process held. There
        is no time-out: it would need polling, which is what starves, or a thread that waits in
        the caller's place, which costs each contended commit two wake-ups. A stopped process
        that holds the gate therefore holds up writers (never readers) until it goes on or dies.
        """
        wait_for(partial(fcntl.flock, self._next, fcntl.LOCK_EX))
        try:
            wait_for(partial(fcntl.flock, self._main, fcntl.LOCK_EX))
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)

    def try_enter(self) -> bool:
        """`enter` if nobody is in; whether this process is now."""
        try:
            fcntl.flock(self._main, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._main, fcntl.LOCK_UN)

    def mark(self) -> int:
        """A number that every commit of anybody changes; 0 when nobody can tell. Any thread."""
        return self._words[_MARK]

    def enter_marked(self) -> Marks:
        """`enter`, and the marks: the first two stay until this process commits or leaves."""
        self.enter()
        mark, number, synced, doubt = self._words
        self._number = number + 1
        return Marks(mark, number, synced, doubt)

    def marks(self) -> Marks:
        """All marks as they stand. Any thread."""
        # One by one, `synced` before `number`: what is behind may be taken for further behind.
        words = self._words
        synced, doubt = words[_SYNCED], words[_DOUBT]
        return Marks(words[_MARK], words[_NUMBER], synced, doubt)

    def before_commit(self) -> None:
        """Behind `enter_marked`: from here on the mark says nothing."""
        words = self._words
        words[_MARK] = 0
        words[_NUMBER] = self._number

    def after_commit(self) -> int:
        """Inside the gate, once COMMIT has said yes: the mark of the state it made."""
        self._words[_MARK] = self._number
        return self._number

    def publish(self, number: int) -> None:
        """Commit `number` and all before it are durable. Any thread."""
        self._words[_SYNCED] = number

    def doubt(self, doubtful: bool) -> None:
        """A sync has failed, or what it left undone was done anew. Any thread."""
        self._words[_DOUBT] = int(doubtful)

    @contextmanager
    def elect(self, task: str) -> Iterator[FileTurn | None]:
        """Hold a lock of this name for the block, if it is free; the file holds the note."""
        fd = _open(os.path.join(self._folder, task))
        try:
            turn: FileTurn | None = FileTurn(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                turn = None
            yield turn
        finally:
            os.close(fd)

    def close(self) -> None:
        """Give up the descriptors, and with them the locks; harmless when called twice."""
        fds = self._next, self._main
        self._next = self._main = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        while self._holds:
            # Taken out first: a session that ends meanwhile in another thread closes its own.
            with suppress(KeyError):
                os.close(self._holds.popitem()[1])

    def hold(self, number: int) -> Callable[[], None]:
        """Hold one byte of `locks/sessions`, that of `number`, until the call that is given.

        The lock belongs to the open file, so that the kernel gives it up with the process. Any
        thread. Where there are no such locks nothing is held, and nobody can tell.
        """
        if _OFD_SETLK is None:
            return _nothing
        fd = _open(os.path.join(self._folder, "sessions"))
        try:
            fcntl.fcntl(fd, _OFD_SETLK, _lock_of(fcntl.F_WRLCK, number))
        except OSError:
            # A file system without locks: what cannot be held is not.
            os.close(fd)
            return _nothing
        self._holds[number] = fd

        def release() -> None:
            held = self._holds.pop(number, -1)
            if held >= 0:
                os.close(held)

        return release

    def is_held(self, number: int) -> bool | None:
        """Whether any handle of any process holds `number`; None where nobody can tell."""
        if _OFD_SETLK is None:
            return None
        try:
            fd = _open(os.path.join(self._folder, "sessions"))
        except OSError:
            return None
        try:
            found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _lock_of(fcntl.F_WRLCK, number))
        except OSError:
            return None
        finally:
            os.close(fd)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


_OFD_SETLK: Final[int | None] = getattr(fcntl, "F_OFD_SETLK", None)
_FLOCK = struct.Struct("@hhqqi4x")


def _lock_of(kind: int, number: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0)


def _nothing() -> None:
    """Nothing was held."""


_GATES: WeakSet[FileGate] = WeakSet()


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _map(path: str) -> memoryview:
    """The marks in a lock file as four words, each read and written in one piece.

    The file gets its full length by a write and not by a hole, which on a full disk would be
    found out by a signal instead of an error. It is opened once more for this: the mapping keeps
    a descriptor, and a lock lives for as long as any descriptor of the open file that took it.
    """
    fd = _open(path)
    try:
        if os.fstat(fd).st_size < _MARKS_BYTES:
            # Many may open a new store at once, and one of them may have committed by now.
            fcntl.flock(fd, fcntl.LOCK_EX)
            missing = _MARKS_BYTES - os.fstat(fd).st_size
            if missing > 0:
                os.pwrite(fd, bytes(missing), _MARKS_BYTES - missing)
            fcntl.flock(fd, fcntl.LOCK_UN)
        return memoryview(mmap.mmap(fd, _MARKS_BYTES)).cast("Q")
    finally:
        os.close(fd)


def _leave_to_the_parent() -> None:
    """In a forked child: give up the parent's descriptors.

    A lock belongs to the open file, not to the process: a child that keeps the descriptor would
    keep a gate that its parent died in, for as long as the child lives.
    """
    for gate in list(_GATES):
        gate.close()


os.register_at_fork(after_in_child=_leave_to_the_parent)


_HELD: Counter[int] = Counter()
"""What handles of catalogs in memory hold."""


class NoGate:
    """For a catalog that nobody else can open."""

    def __init__(self) -> None:
        self._turns: dict[str, NoTurn] = {}

    def enter(self) -> None:
        """Nobody waits."""

    def try_enter(self) -> bool:
        """Nobody is in."""
        return True

    def leave(self) -> None:
        """Nobody waits."""

    def mark(self) -> int:
        """Nothing is known."""
        return 0

    def enter_marked(self) -> Marks:
        """Nothing is known."""
        return _NO_MARKS

    def marks(self) -> Marks:
        """Nothing is known."""
        return _NO_MARKS

    def publish(self, number: int) -> None:
        """Nobody looks."""

    def doubt(self, doubtful: bool) -> None:
        """Nobody looks."""

    def before_commit(self) -> None:
        """Nobody looks."""

    def after_commit(self) -> int:
        """Nothing is known."""
        return 0

    def hold(self, number: int) -> Callable[[], None]:
        """Note it for the handles of this process."""
        _HELD[number] += 1

        def release() -> None:
            _HELD[number] -= 1

        return release

    def is_held(self, number: int) -> bool | None:
        """Whether a handle of this process holds it."""
        return _HELD[number] > 0

    @contextmanager
    def elect(self, task: str) -> Iterator[NoTurn]:
        """There is nobody else."""
        yield self._turns.setdefault(task, NoTurn())

    def close(self) -> None:
        """Nothing is held."""


Gate = FileGate | NoGate
"""What stands between the writers of one store."""
