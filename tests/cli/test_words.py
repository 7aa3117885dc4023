"""Any words in any order: an exit code, at most one problem, never a mistake of the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cas.cli.app import COMMANDS
from tests.cli.support import Shell

WORDS = (
    "main",
    "main~1",
    "main^2",
    "main:docs",
    "main:docs/guide.md",
    "main:link",
    "main:..",
    "main:docs//x",
    ":",
    "~",
    "^",
    "heads/main",
    "tags/none",
    "00000000",
    "f" * 64,
    "deadbeef",
    "work",
    "work/run.sh",
    "work/link",
    "work/docs/guide.md/below",
    "missing",
    "missing/deep/er",
    ".",
    "..",
    "",
    "-",
    "--",
    "ünï",
    "\udcff",
    "new\nline",
    "\x1b[31m",
    "n" * 300,
    "/dev/null",
    "/dev/null/x",
    "0",
    "-1",
    "999999999999999999999999",
    "-n",
    "-m",
    "-o",
    "-b",
    "-d",
    "-f",
    "-l",
    "-r",
    "-z",
    "-p",
    "-q",
    "--folder",
    "--after",
    "--force",
    "--dry-run",
    "--json",
    "--store",
    "--color",
    "always",
    "--gitignore",
    "--skip-secrets",
    "--no-stat-cache",
    "--progress",
    "--help",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A store that all examples share: whatever they do to it, it goes on."""
    shell = Shell(tmp_path_factory.mktemp("words"))
    shell("init")
    shell.write("work/docs/guide.md", b"# Guide\n")
    shell.write("work/run.sh", b"#!/bin/sh\n").chmod(0o755)
    (shell.folder / "work" / "link").symlink_to("docs/guide.md")
    shell("snapshot", "work")
    shell("snapshot", "work")
    return shell


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    command=st.sampled_from(sorted(COMMANDS)),
    words=st.lists(st.sampled_from(WORDS), max_size=5),
    before=st.lists(st.sampled_from(["--json", "-q", "--color=never"]), max_size=1),
)
def test_no_words_are_a_mistake_of_the_program(
    place: Shell, command: str, words: list[str], before: list[str]
) -> None:
    """Each command line ends with a known exit code and tells a failure once."""
    done = place(*before, command, *words, expect=None, stdin=b"input")
    assert done.code in (0, 1, 2, 3, 4, 6, 7), done
    assert "mistake in cas" not in done.err
    assert "Traceback" not in done.err
    if done.code and "--json" in before:
        assert json.loads(done.err)["exit_code"] == done.code
    elif done.code > 1:
        last = done.err.splitlines()[-1]
        assert last.startswith("cas: ") or json.loads(last)["exit_code"] == done.code


def test_the_store_has_survived_all_that(place: Shell) -> None:
    """After all these command lines the store is sound."""
    place("fsck")
    assert Path(place.store / "catalog.sqlite").exists()
