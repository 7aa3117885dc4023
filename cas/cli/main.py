"""The console script: start quickly, never show a traceback, leave with the right code.

Floor 9. Invariant: whatever happens, standard error holds at most one problem and the exit code
is one of the table in docs/errors.md. Nothing heavy is imported before the guard stands, so that
an interrupt during start-up is an interrupt like any other.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Final, NoReturn

_COLLECT: Final = (50_000, 20, 100)
"""Thresholds of the collector: allocations, and collections of the younger generations."""

_SWITCH_S: Final = 0.0005
"""How long a thread may wait for the interpreter: those beside the first one only hand large
pieces of work to libraries, and with Python's 5 ms they wait for as long as they work."""


_INTERRUPTED: Final = "Interrupted; nothing was begun."


def run() -> NoReturn:
    """Entry point of the `cas` script and of `python -m cas`.

    Leaves by `os._exit` once the store is closed and the streams are flushed: taking the
    interpreter down object by object costs 10 ms.
    """
    guarded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if guarded:  # in the background of a shell it is ignored, and stays so
        signal.signal(signal.SIGINT, _leave_at_once)
    # What start-up allocates lives as long as the process: it is never looked at again. Later a
    # command makes few cycles, so the collector comes seldom. Together 4 % of a snapshot of
    # 14,000 unchanged files; without any collector memory grew while a large file was put.
    gc.disable()
    sys.setswitchinterval(_SWITCH_S)
    _open_standard_streams()
    try:
        from cas.cli.ahead import guess

        with guess(sys.argv[1:]) as ahead:
            from cas.cli.app import main

            gc.freeze()
            gc.set_threshold(*_COLLECT)
            gc.enable()
            if guarded:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            code = main(sys.argv[1:], alone=True, ahead=ahead)
    except KeyboardInterrupt:
        code = 130
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, KeyboardInterrupt):
        code = code or 7
    os._exit(code)


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    """An interrupt while the program is loaded: nothing is open yet, and nothing has to be closed.

    An exception could come out of any line of any import, and not all of them let it pass.
    """
    text = f"cas: {_INTERRUPTED}"
    if "--json" in sys.argv:
        text = (
            '{"schema": "cas.problem", "version": 1, "code": "interrupted", '
            f'"message": "{_INTERRUPTED}", "exit_code": 130, "fields": {{}}}}'
        )
    try:
        os.write(2, text.encode() + b"\n")
    finally:
        os._exit(130)


def _open_standard_streams() -> None:
    """Fill descriptors 0 to 2, so that no file of the store ever becomes standard output.

    What was closed is opened the wrong way round: reading from it, or writing to it, fails, as it
    should.
    """
    try:
        os.fstat(0)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_WRONLY), True)
    while (fd := os.open(os.devnull, os.O_RDONLY)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
