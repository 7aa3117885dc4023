#!/usr/bin/env python3
"""Fuzz decoders with atheris, which sees what code an input reaches, for so many seconds each.

`fuzz.py [TARGET …]` takes the decoders of `tests/fuzz/targets.py`, all of them where none is named,
in a process each. What breaks one is printed with the command that repeats it, and kept as a file.
`--corpus DIR` keeps the inputs that reached something new, and begins with those of earlier runs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.fuzz.driving import fuzz, lacking, told  # noqa: E402
from tests.fuzz.targets import TARGETS  # noqa: E402


def main() -> int:
    """Do what was asked; 1 when something was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=10, help="of each decoder (10)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="keep what reaches new code")
    options = parser.parse_args()
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"there is no decoder {', '.join(unknown)}")
    reason = lacking()
    if reason is not None:
        print(reason)
        return 2
    print(f"seed {options.seed}", flush=True)
    executions = findings = 0
    for name in options.targets or TARGETS:
        folder = Path(tempfile.mkdtemp(prefix=f"cas-fuzz-{name}-"))
        corpus = None if options.corpus is None else options.corpus / name
        done = fuzz(name, folder, seed=options.seed, seconds=options.seconds, corpus=corpus)
        executions, findings = executions + done.executions, findings + len(done.findings)
        print(
            f"{name}: {done.executions:,} executions, {done.per_second:,} a second, "
            f"{done.new:,} reached something new",
            flush=True,
        )
        for data in done.findings:
            print(f"FAILED {told(name, data, done.text)}\nkept in {folder}", flush=True)
    print(f"{executions:,} executions, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
