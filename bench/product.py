"""The product as one more tool: `python -m cas`, in the fixed forms of its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs

from bench.harness import Size, Step, size
from bench.peers import output_of
from bench.record import REPOSITORY_ROOT

COMMANDS = (("init",), ("snapshot",), ("restore",), ("fsck",), ("put",), ("get",))
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY_ROOT)}


@attrs.frozen
class Cas:
    """This checkout, under the interpreter that runs the bench."""

    name: str = "cas"

    def missing_because(self) -> str | None:
        """Why the command line cannot be measured yet, in its own words."""
        for command in COMMANDS:
            reason = _fails(self.command(*command, "--help"))
            if reason is not None:
                return f"`cas {' '.join((*command, '--help'))}` fails: {reason}"
        return None

    def has_help(self) -> bool:
        """Whether the bare command line answers."""
        return _fails(self.command("--help")) is None

    def api_missing_because(self, code: str = "import cas; cas.open") -> str | None:
        """Why the Python API, or the part of it that `code` names, cannot be measured yet."""
        reason = _fails((sys.executable, "-c", code))
        return None if reason is None else f"`{code}` fails: {reason}"

    def version(self) -> str:
        code = "import cas; print(cas.__version__)"
        return output_of([sys.executable, "-c", code], REPOSITORY_ROOT, ENVIRONMENT).strip()

    def command(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "cas", *words)

    def make(self, home: Path) -> None:
        output_of(self.command("init", str(self.store(home))), home, ENVIRONMENT)

    def store(self, home: Path) -> Path:
        return home / "agents.cas"

    def save(self, home: Path, source: Path, label: str) -> Step:
        words = ("snapshot", ".", "-m", label, "--store", str(self.store(home)))
        return Step((self.command(*words),), source, ENVIRONMENT)

    def restore(self, home: Path, target: Path, label: str) -> Step:
        words = ("restore", "main", str(target), "--store", str(self.store(home)))
        return Step((self.command(*words),), home, ENVIRONMENT)

    def verify(self, home: Path) -> Step:
        words = ("fsck", "--store", str(self.store(home)))
        return Step((self.command(*words),), home, ENVIRONMENT)

    def put_stream(self, home: Path, feed: tuple[str, ...], answer: Path) -> Step:
        words = ("put", "-", "--store", str(self.store(home)))
        return Step((self.command(*words),), home, ENVIRONMENT, feed=feed, output=answer)

    def get(self, home: Path, object_id: str, target: Path) -> Step:
        words = ("get", object_id, "-o", str(target), "--store", str(self.store(home)))
        return Step((self.command(*words),), home, ENVIRONMENT)

    def size(self, home: Path) -> Size:
        return size(self.store(home), lambda relative: relative.startswith("cache" + os.sep))


def _fails(command: tuple[str, ...]) -> str | None:
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
