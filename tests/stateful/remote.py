"""The other end of `tests.stateful.child`: a persistent process, started when first needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.stateful import child

ROOT = Path(__file__).resolve().parents[2]


class Remote:
    """One child process for many examples; killed and begun anew as a test likes."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = ""

    def __repr__(self) -> str:
        return "Remote()"

    def ask(self, folder: str, do: str, **order: object) -> object:
        """The answer to a command about the store in `folder`."""
        self._open(folder)
        self._send(do=do, **order)
        return self._read()

    def stream(self, folder: str, branch: str, first: int, *, kill_after: int) -> list[int]:
        """Let the child commit the numbers from `first` on to a file `n`, and kill it.

        The entries that were acknowledged for certain; it will have come further.
        """
        self._open(folder)
        self._send(do="stream", branch=branch, first=first, count=1000)
        acknowledged = []
        for _ in range(kill_after):
            seq = self._read()
            assert isinstance(seq, int)
            acknowledged.append(seq)
        self.kill()
        return acknowledged

    def kill(self) -> None:
        """Kill -9, as the kernel does when memory is short."""
        process, self._process, self._folder = self._process, None, ""
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def forget(self, folder: str) -> None:
        """This store will go away; the process stays for the next one."""
        if folder and self._folder == folder:
            self._send(do="close")
            assert self._read() == "closed"
            self._folder = ""

    def _open(self, folder: str) -> None:
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", child.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=ROOT,
            )
        if self._folder != folder:
            self.forget(self._folder)
            self._send(do="open", folder=folder)
            assert self._read() == "open"
            self._folder = folder

    def _send(self, **order: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _read(self) -> object:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the child has ended; its words are above"
        said = json.loads(line)
        assert not (isinstance(said, dict) and "error" in said), said
        return said
