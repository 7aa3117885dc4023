"""The tutorial and the how-to pages run as they stand, shell and Python in the order of the page.

A block fenced as `console` holds commands after `$ ` and what they print, `...` standing for
anything; one fenced as `py` shares its names with those of its page. (Blocks fenced as `python`
run by themselves, in `test_docs`.)
"""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tidy.source import ROOT
from tests.tidy.test_docs import FENCE

pytestmark = pytest.mark.docs

PAGES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """(line, kind, lines) of each fenced block."""
    kind, start, inside = "", 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if kind:
            if line.startswith("```"):
                yield start, kind, inside
                kind = ""
            else:
                inside.append(line)
        elif fence := FENCE.match(line):
            kind, start, inside = fence["kind"] or "text", number, []


def commands(lines: list[str]) -> Iterator[tuple[str, str]]:
    """(command, expected output) of a console block."""
    command, expected = "", []
    for line in lines:
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(expected)
            command, expected = line[2:], []
        else:
            expected.append(line)
    if command:
        yield command, "\n".join(expected)


class Page:
    """One page on its way, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        tools = folder / "bin-of-the-test"
        tools.mkdir()
        (tools / "cas").write_text(f'#!/bin/sh\nexec {sys.executable} -m cas "$@"\n')
        (tools / "cas").chmod(0o755)
        self.shell = subprocess.Popen(
            ["/bin/sh"],
            cwd=folder,
            env={
                "PATH": f"{tools}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "HOME": str(folder),
                "CAS_AUTHOR": "you@here",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def console(self, command: str, expected: str) -> str | None:
        """Run a command in the page's shell; a finding where it prints anything else."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{command}\necho '--end--'\n")
        self.shell.stdin.flush()
        lines: list[str] = []
        for line in self.shell.stdout:
            before, end, _ = line.partition("--end--")
            lines.append(before)
            if end:
                break
        got = "".join(lines).rstrip("\n")
        checker = doctest.OutputChecker()
        if checker.check_output(f"{expected}\n", f"{got}\n", FLAGS):
            return None
        return f"$ {command}\nexpected:\n{expected}\ngot:\n{got}"

    def python(self, line: int, lines: list[str]) -> str | None:
        """Run Python of the page."""
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            exec(compile("\n" * line + "\n".join(lines), "page", "exec"), self.names)
        except Exception:
            return traceback.format_exc()
        finally:
            os.chdir(before)
        return None

    def close(self) -> None:
        """End the shell."""
        self.shell.communicate(timeout=60)


def run_page(text: str, folder: Path) -> list[str]:
    """Findings of one page, the first of which ends it."""
    page = Page(folder)
    try:
        for line, kind, lines in blocks(text):
            if kind == "py" and (finding := page.python(line, lines)):
                return [f"line {line}: {finding}"]
            if kind == "console":
                for command, expected in commands(lines):
                    if finding := page.console(command, expected):
                        return [f"line {line}: {finding}"]
    finally:
        page.close()
    return []


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    """Every command prints what is shown, every assertion holds."""
    findings = run_page(page.read_text(encoding="utf-8"), tmp_path)
    assert not findings, "\n".join(findings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```console\n$ echo one\ntwo\n```\n", "got:\none"),
        ("```console\n$ echo one\n```\n", "got:\none"),
        ("```py\nx = 1\n```\n```py\nassert x == 2\n```\n", "AssertionError"),
        ("```console\n$ cas log\n```\n", "No store was named"),
    ],
)
def test_a_planted_page_fails(tmp_path: Path, text: str, expected: str) -> None:
    """A command that prints otherwise, or Python that fails, is found."""
    (finding,) = run_page(text, tmp_path)
    assert expected in finding


def test_a_good_page_passes(tmp_path: Path) -> None:
    """The shell keeps its variables, Python its names, and dots stand for anything."""
    text = "```console\n$ x=5\n$ echo a $x b\na ... b\n```\n```py\ny = 1\n```\n```py\ny\n```\n"
    assert run_page(text, tmp_path) == []
