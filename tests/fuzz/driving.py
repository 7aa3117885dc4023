"""Run the guided fuzzer on one decoder in a process of its own, and read what it says.

Invariant: an input that breaks a decoder comes back as bytes, whatever ended the process: an
exception, a crash of an extension, a hang, more memory than it may have.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import attrs

from tests.fuzz.corpus import seeds_of

PROGRAM = Path(__file__).parent / "guided.py"
BYTES_MAX = 4_096
MEMORY_MAX_MIB = 1_024
HANG_S = 25

PLANTED = "planted"
"""A decoder with a bug that no blind search comes to: that the machinery works."""

FINDINGS = ("crash-", "timeout-", "oom-", "leak-", "slow-unit-")
"""How libFuzzer names the files of what it found; a slow unit is none."""


@attrs.frozen
class Fuzzed:
    """What one run did; `new` are inputs that reached what none before them had."""

    executions: int
    per_second: int
    new: int
    findings: tuple[bytes, ...]
    text: str


def lacking() -> str | None:
    """Why the guided fuzzer cannot run here, if it cannot."""
    if find_spec("atheris") is None:
        return "atheris is not installed: it has wheels for Linux on x86-64 only"
    return None


def fuzz(
    name: str,
    folder: Path,
    *,
    seed: int,
    seconds: int | None = None,
    runs: int | None = None,
    corpus: Path | None = None,
) -> Fuzzed:
    """Fuzz a decoder for so long or so many executions, from the corpus of the tests.

    `folder` takes the findings, and the corpus where none is given that is kept.
    """
    inputs = folder / "corpus" if corpus is None else corpus
    found = folder / "found"
    inputs.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    if name != PLANTED:
        for number, data in enumerate(seeds_of(name)):
            (inputs / f"seed-{number}").write_bytes(data)
    options = [
        f"-seed={1 + seed % 0xFFFF_FFFE}",  # none would be a random one
        f"-artifact_prefix={found}{os.sep}",
        f"-max_len={BYTES_MAX}",
        f"-rss_limit_mb={MEMORY_MAX_MIB}",
        f"-timeout={HANG_S}",
        "-print_final_stats=1",
    ]
    options += [] if seconds is None else [f"-max_total_time={seconds}"]
    options += [] if runs is None else [f"-runs={runs}"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name, str(inputs), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    broken = tuple(
        path.read_bytes()
        for path in sorted(found.iterdir())
        if path.name.startswith(FINDINGS) and not path.name.startswith("slow-unit-")
    )
    if done.returncode and not broken:
        raise AssertionError(f"the fuzzer failed:\n{done.stdout[-3_000:]}")
    return Fuzzed(
        _stat(done.stdout, "number_of_executed_units"),
        _stat(done.stdout, "average_exec_per_sec"),
        _stat(done.stdout, "new_units_added"),
        broken,
        done.stdout,
    )


def _stat(text: str, name: str) -> int:
    found = re.search(rf"^stat::{name}:\s+(\d+)", text, re.MULTILINE)
    return 0 if found is None else int(found[1])


def told(name: str, data: bytes, text: str) -> str:
    """A finding in words, with the way to repeat it."""
    error = re.search(r"Uncaught Python exception: ===\n(.*)", text)
    what = "ended the process" if error is None else error[1].strip()
    return (
        f"{name}: {what}\nrepeat it with: "
        f"python3 tools/dev.py soak --decoder {name} --input {data.hex()}"
    )
