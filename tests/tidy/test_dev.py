"""The tool that everything else is started with: what it lists, counts and refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.source import ROOT

DEV = ROOT / "tools" / "dev.py"
_spec = importlib.util.spec_from_file_location("cas_dev", DEV)
assert _spec is not None
assert _spec.loader is not None
dev = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dev)


def call(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the tool isolated from installed packages: it promises the standard library only."""
    command = [sys.executable, "-I", "-S", str(DEV), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_command_and_an_unknown_one_list_them_all() -> None:
    """Whoever mistypes a command sees every command and gets exit code 2."""
    for words in ((), ("tset",)):
        done = call(*words)
        assert done.returncode == 2
        assert all(f"  {name} " in done.stdout for name in dev.COMMANDS)
    assert "no command 'tset'" in done.stdout
    assert call("--help").returncode == 0


PROGRAMS = {"demo", "dump", "fuzz", "golden", "services", "simulate", "soak"}


@pytest.mark.parametrize("name", sorted(set(dev.COMMANDS) - PROGRAMS))
def test_every_command_of_its_own_has_help(name: str) -> None:
    """`COMMAND --help` explains it at once, without making an environment."""
    done = call(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: dev.py {name}" in done.stdout
    assert (dev.COMMANDS[name][1].__doc__ or "").splitlines()[0][:40] in done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("12 passed in 0.52s", {"passed": 12}),
        (
            "==== 1 failed, 3 passed, 2 skipped in 61.20s (0:01:01) ====",
            {"failed": 1, "passed": 3, "skipped": 2},
        ),
        (
            "\x1b[32m\x1b[1m7 passed\x1b[0m, \x1b[33m1 warning\x1b[0m\x1b[32m in 1.00s\x1b[0m",
            {"passed": 7, "warning": 1},
        ),
        ("2 failed, 1 error in 3.18s", {"failed": 2, "error": 1}),
        ("no tests ran in 1.55s", {}),
        ("both parts: 12 passed, 0 failed", {}),
        ("x.py: 12 passed in 3 s", {}),
    ],
)
def test_closing_lines_are_counted(line: str, expected: dict[str, int]) -> None:
    """Every form of pytest's closing line is counted, with colour or frame, and nothing else."""
    assert dev.tally([line]) == expected
    assert dev.tally([line, "chatter", line]) == {k: 2 * v for k, v in expected.items()}


def test_only_network_trouble_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broken connection is tried three times; what can never succeed is tried once."""
    pauses: list[float] = []
    monkeypatch.setattr(dev.time, "sleep", pauses.append)
    counter = tmp_path / "calls"
    # An interpreter of our own making: no real pip can be reached through it.
    interpreter = tmp_path / "python"
    for words, calls in (("Read timed out.", 3), ("No matching distribution found", 1)):
        counter.write_text("")
        interpreter.write_text(f"#!/bin/sh\nprintf x >> '{counter}'\necho '{words}' >&2\nexit 1\n")
        interpreter.chmod(0o755)
        with pytest.raises(dev.Failed, match=words):
            dev.pip(interpreter, "install", "x")
        assert counter.read_text() == "x" * calls
    assert pauses == [3, 10]


def test_what_tests_count_is_kept_once(tmp_path: Path) -> None:
    """A file of counts has what the summary shows, however many processes ran the tests."""
    room = tmp_path / "tests"
    room.mkdir()
    (room / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    (room / "test_counting.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test_one(record_property, n):\n"
        "    row = {'table': 't', 'row': 'r', 'counts': {'cases': 5}}\n"
        "    record_property('counts', row)\n"
    )
    place = tmp_path / "counts.json"
    environment = {**os.environ, "CAS_TEST_COUNTS": str(place), "PYTHONPATH": str(ROOT)}
    environment |= {"CAS_TEST_PROFILE": "full"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(room)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(place.read_text()) == {"t": {"r": {"cases": 20}}}


def test_the_table_of_the_soak_is_what_its_ledger_says() -> None:
    """Nobody writes into the table by hand, and a row of the ledger is of a family."""
    from tools import soak

    text = soak.DOCUMENT.read_text()
    assert text == soak.with_table(text)
    with soak.LEDGER.open() as file:
        assert {line.split(",")[0] for line in file} <= set(soak.TESTS)


def test_a_round_that_counts_nothing_ends_a_soak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests that are skipped reach no bar, however often they are begun."""
    from tools import soak

    monkeypatch.setattr(soak, "LEDGER", tmp_path / "soak.csv")
    monkeypatch.setattr(soak, "one_round", lambda *_: (0, 0))
    soak.LEDGER.touch()
    measure = next(m for n, m in zip(soak.TESTS, soak.MEASURES, strict=True) if n == "guided")
    assert soak.family("guided", measure, 1, 1.0) == 1
    assert soak.LEDGER.read_text() == ""
