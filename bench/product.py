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

ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY_ROOT)}


@attrs.frozen
class Cas:
    """This checkout, under the interpreter that runs the bench."""

    name: str = "cas"

    def missing_because(self) -> str | None:
        """Why the command line cannot be measured yet, in its own words."""
        done = subprocess.run(
            self.command("--help"), env=_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return None
        return "`python -m cas --help` fails: " + (done.stderr.strip().splitlines() or ["?"])[-1]

    def api_missing_because(self) -> str | None:
        """Why the Python API cannot be measured yet."""
        code = "import cas; cas.open"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return None
        return f"`{code}` fails: " + (done.stderr.strip().splitlines() or ["?"])[-1]

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


def _environment() -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT}
