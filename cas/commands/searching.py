"""Searching where it can be stopped: a process beside this one, which ends when a search takes
too long.

Floor 8. Invariant: a pattern whose search can take more than linear time never runs in this
process, because `re` gives the interpreter's lock to nobody, and listens to no signal on a thread.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from cas.commands import lines
from cas.commands.lines import Found, Searcher
from cas.errors import LimitExceeded, StorageFailed, Unavailable

_SPECIAL: Final = b"*+?{|("
"""What repeats or chooses."""


class Part(NamedTuple):
    """Something to search: what it is called, its bytes, the number of its first line."""

    name: str
    content: bytes
    number: int
    first_only: bool


class Search(Protocol):
    """Searches parts; any thread."""

    def search(self, parts: Sequence[Part]) -> list[Found]:
        """Matching lines of each. Raises `LimitExceeded`, `Unavailable`, `StorageFailed`."""

    def close(self) -> None:
        """Stop, whatever is under way."""


class Here:
    """A search on the thread that asks."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    def search(self, parts: Sequence[Part]) -> list[Found]:
        return [self._searcher.lines(part.content, part.number, part.first_only) for part in parts]

    def close(self) -> None:
        return


class Beside:
    """A search in processes, one for each thread that asks at the same time."""

    def __init__(self, pattern: bytes, flags: int, cpu_s: float) -> None:
        self._pattern = pattern
        self._flags = flags
        self._cpu_s = cpu_s
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: list[subprocess.Popen[bytes]] = []
        self._closed = False

    def search(self, parts: Sequence[Part]) -> list[Found]:
        process = self._take()
        found: list[Found] = []
        # One that has ended takes nothing more, and what it had answered can still be read.
        with suppress(BrokenPipeError):
            _send(process, parts)
        while len(found) < len(parts):
            answer = _receive(process)
            if answer is None:
                raise self._ended(process, parts[len(found)].name)
            found.append(answer)
        with self._lock:
            self._idle.append(process)
        return found

    def close(self) -> None:
        with self._lock:
            self._closed = True
            every, self._all = self._all, []
        for process in every:
            process.kill()
        for process in every:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                # What a search that was stopped has not sent goes nowhere.
                with suppress(BrokenPipeError, ValueError):
                    assert pipe is not None
                    pipe.close()

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise Unavailable("The search was stopped.")
            if self._idle:
                return self._idle.pop()
            process = _start()
            self._all.append(process)
        begin = lines.BEGIN.pack(self._cpu_s, self._flags, len(self._pattern))
        _write(process, begin + self._pattern)
        return process

    def _ended(self, process: subprocess.Popen[bytes], name: str) -> Exception:
        if process.wait() == -signal.SIGVTALRM:
            return LimitExceeded(
                f"The pattern takes more than {self._cpu_s:g} s of processor time in {name}; "
                "leave the file out, repeat nothing that itself repeats, or search for text as "
                "it stands (-F).",
                limit="GREP_CPU_S",
                value=self._cpu_s,
                maximum=self._cpu_s,
            )
        return Unavailable(f"The search of {name} was stopped from outside; try again.")


def choose(pattern: bytes, flags: int, cpu_s: float) -> Search:
    """Where a pattern is searched for. Raises what `re.compile` does for one that is none."""
    searcher = Searcher(pattern, flags)
    return (
        Beside(pattern, flags, cpu_s) if not is_plain(pattern) and _can_start() else Here(searcher)
    )


def _can_start() -> bool:
    """Whether there is an interpreter to start; in a program that was frozen there is no bound."""
    is_frozen = getattr(sys, "frozen", False)
    return bool(sys.executable) and not is_frozen and os.path.isfile(lines.__file__)


def is_plain(pattern: bytes) -> bool:
    """Whether a pattern repeats and chooses nothing, so that a search takes linear time."""
    return not any(byte in _SPECIAL for byte in pattern)


def escaped(text: bytes) -> bytes:
    """The pattern that finds this text; a plain one."""
    return b"".join(
        b"\\x%02x" % byte if byte in _SPECIAL else re.escape(bytes((byte,))) for byte in text
    )


def _start() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", lines.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt from the terminal is for us
        )
    except OSError as error:
        raise StorageFailed(
            f"{sys.executable} cannot be started to search: {error.strerror}.",
            path=sys.executable,
            errno=error.errno,
        ) from error


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


def _send(process: subprocess.Popen[bytes], parts: Sequence[Part]) -> None:
    items = [lines.ITEM.pack(len(part.content), part.number, part.first_only) for part in parts]
    _write(process, lines.COUNT.pack(len(parts)) + b"".join(items))
    for part in parts:
        _write(process, part.content)
    assert process.stdin is not None
    process.stdin.flush()


def _receive(process: subprocess.Popen[bytes]) -> Found | None:
    """The lines of one part; None when the process has ended before it had them all."""
    stream = process.stdout
    assert stream is not None
    head = stream.read(lines.COUNT.size)
    if len(head) < lines.COUNT.size:
        return None
    found: Found = []
    for _ in range(lines.COUNT.unpack(head)[0]):
        place = stream.read(lines.LINE.size)
        if len(place) < lines.LINE.size:
            return None
        number, length = lines.LINE.unpack(place)
        text = stream.read(length)
        if len(text) < length:
            return None
        found.append((number, text))
    return found
