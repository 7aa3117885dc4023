"""Run the command line as a user would: in this process for speed, as a process where it counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from cas.cli.app import cli
from tests.tidy.source import ROOT

PROGRAM = (sys.executable, "-m", "cas")


class Done(NamedTuple):
    """How an invocation ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode("utf-8")

    @property
    def lines(self) -> list[str]:
        """Lines of standard output."""
        return self.text.splitlines()

    @property
    def document(self) -> Any:
        """The one JSON document of standard output; standard error has to be empty."""
        assert self.err == "", self.err
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        """The one JSON problem of standard error."""
        return json.loads(self.err)


def environment(**more: str) -> dict[str, str]:
    """An environment without settings of the developer's, in which the checkout is found."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CAS_", "_CAS_"))}
    dropped = ("NO_COLOR", "FORCE_COLOR", "CI")
    for name in dropped:
        kept.pop(name, None)
    return {**kept, "PYTHONPATH": str(ROOT), "CAS_AUTHOR": "tester", **more}


def hear_interrupts() -> None:
    """For a child, before it begins: who runs the tests in the background has SIGINT ignored, and
    so would the program.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def process(
    *words: str | bytes | Path,
    cwd: Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Done:
    """`cas WORDS` as a process of its own."""
    done = subprocess.run(
        [*PROGRAM, *words],
        cwd=cwd,
        input=stdin,
        env=environment(**(env or {})),
        capture_output=True,
        check=False,
        timeout=240,
        **options,
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


class Shell:
    """`cas` in one folder, run inside this process by click's own runner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / ".cas"

    def __call__(
        self, *words: str | Path, stdin: bytes = b"", expect: int | None = 0, **env: str
    ) -> Done:
        """Run one command line; `expect` is its exit code, None for any."""
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            variables: dict[str, str | None] = {"CAS_AUTHOR": "tester", "NO_COLOR": None, **env}
            result = CliRunner().invoke(
                cli, [str(word) for word in words], input=stdin, env=variables
            )
        finally:
            os.chdir(before)
        done = Done(result.exit_code, result.stdout_bytes, result.stderr)
        assert isinstance(result.exception, SystemExit | None), result.exception
        if expect is not None:
            assert done.code == expect, f"cas {words}: {done}"
        return done

    def process(self, *words: str | bytes | Path, **options: Any) -> Done:
        """The same as a process of its own."""
        return process(*words, cwd=self.folder, **options)

    def write(self, name: str, content: bytes) -> Path:
        """A file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


def tree(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Everything below a folder: relative path -> (kind, content)."""
    found: dict[str, tuple[str, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path).encode())
        elif path.is_dir():
            found[name] = ("tree", b"")
        else:
            kind = "executable" if path.stat().st_mode & 0o100 else "file"
            found[name] = (kind, path.read_bytes())
    return found
