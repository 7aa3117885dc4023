"""The product as one more tool: `python -m cas`, in the fixed forms of its command line.

Invariant: a run measures one frozen copy of `cas/`, taken when it began, so that an edit made
meanwhile cannot mix two versions in one table.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs

from bench.harness import Size, Step, size
from bench.peers import output_of
from bench.record import REPOSITORY_ROOT


def freeze(folder: Path, commit: str | None) -> Path:
    """Copy the package, as it lies or as of `commit`, and return the place to import it from."""
    place = folder / "product"
    if commit is None:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY_ROOT / "cas", place / "cas", ignore=ignored)
        return _compiled(place)
    archive = folder / "product.tar"
    output_of(["git", "archive", "-o", str(archive), commit, "cas"], REPOSITORY_ROOT)
    shutil.unpack_archive(archive, place, filter="data")
    return _compiled(place)


def _compiled(place: Path) -> Path:
    """`place` with byte code beside the sources, as an installed package has it. Where the
    environment forbids Python to write it, every start would compile the package anew.
    """
    if not compileall.compile_dir(place / "cas", quiet=1):
        raise RuntimeError("the package does not compile")
    return place


@attrs.frozen
class Cas:
    """The package at `place`, under the interpreter that runs the bench."""

    place: Path
    name: str = "cas"

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.place)}

    def missing_because(self) -> str | None:
        """Why the command line cannot be measured yet, in its own words."""
        return self.lacks("init", "snapshot")

    def lacks(self, *commands: str) -> str | None:
        """Why these commands cannot be measured yet."""
        for command in commands:
            reason = self._fails(self.command(command, "--help"))
            if reason is not None:
                return f"`cas {command} --help` fails: {reason}"
        return None

    def has_help(self) -> bool:
        """Whether the bare command line answers."""
        return self._fails(self.command("--help")) is None

    def api_missing_because(self, code: str = "import cas; cas.open") -> str | None:
        """Why the Python API, or the part of it that `code` names, cannot be measured yet."""
        reason = self._fails((sys.executable, "-c", code))
        return None if reason is None else f"`{code}` fails: {reason}"

    def version(self) -> str:
        code = "import cas; print(cas.__version__)"
        return output_of([sys.executable, "-c", code], self.place, self.environment).strip()

    def command(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "cas", *words)

    def make(self, home: Path) -> None:
        output_of(self.command("init", str(self.store(home))), home, self.environment)

    def store(self, home: Path) -> Path:
        return home / "agents.cas"

    def save(self, home: Path, source: Path, label: str) -> Step:
        words = ("snapshot", ".", "-m", label, "--store", str(self.store(home)))
        return Step((self.command(*words),), source, self.environment)

    def restore(self, home: Path, target: Path, label: str, back: int = 0) -> Step:
        words = ("restore", f"main~{back}", str(target), "--store", str(self.store(home)))
        return Step((self.command(*words),), home, self.environment)

    def verify(self, home: Path) -> Step:
        words = ("fsck", "--store", str(self.store(home)))
        return Step((self.command(*words),), home, self.environment)

    def put_stream(self, home: Path, feed: tuple[str, ...], answer: Path) -> Step:
        words = ("put", "-", "--store", str(self.store(home)))
        return Step((self.command(*words),), home, self.environment, feed=feed, output=answer)

    def get(self, home: Path, object_id: str, target: Path) -> Step:
        words = ("get", object_id, "-o", str(target), "--store", str(self.store(home)))
        return Step((self.command(*words),), home, self.environment)

    def size(self, home: Path) -> Size:
        return size(self.store(home), lambda relative: relative.startswith("cache" + os.sep))

    def _fails(self, command: tuple[str, ...]) -> str | None:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return None
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
