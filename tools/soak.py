#!/usr/bin/env python3
"""Random transactions of many processes until so many are done, each history checked.

`soak.py` runs races (`cas/testing/races.py`) one after the other, each in a fresh store, with
processes killed in between, and checks that every history is strictly serializable. Two in a row
differ in their thresholds and in how many processes and threads there are. A history that is
refused is kept in a file, and `--check FILE` looks at it again.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cas.testing.attempts import History  # noqa: E402
from cas.testing.races import Race, run  # noqa: E402
from cas.testing.serializable import check  # noqa: E402
from cas.testing.stores import scratch  # noqa: E402

RACES = (
    Race(processes=3, threads=2, count=5_000, kills=6),
    Race(processes=2, threads=3, count=5_000, kills=6, small=True),
    Race(processes=4, threads=1, count=5_000, kills=12),
    Race(processes=1, threads=6, count=5_000, kills=0),
)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def soak(seed: int, transactions: int) -> int:
    """Run races until this many transactions are checked; 1 when one was refused."""
    draw = random.Random(seed)
    done, ends = 0, Counter[str]()
    started = time.monotonic()
    while done < transactions:
        race = RACES[draw.randrange(len(RACES))]
        with scratch() as place:
            history = run(race, place, f"{draw.random()}")
        findings = check(history)
        done += len(history.attempts)
        ends.update(one.end for one in history.attempts)
        told = ", ".join(f"{count:,} {end}" for end, count in ends.most_common())
        say(f"{done:,} transactions in {time.monotonic() - started:.0f} s: {told}")
        if findings:
            keep(history, findings)
            return 1
    return 0


def keep(history: History, findings: list[str]) -> None:
    """Print what is wrong and write the history down."""
    handle, path = tempfile.mkstemp(prefix="cas-history-", suffix=".pickle")
    with os.fdopen(handle, "wb") as file:
        pickle.dump(history, file)
    for finding in findings:
        say(f"FAILED {finding}")
    say(f"  look at it again: python3 tools/dev.py soak --check {path}")


def main() -> int:
    """Do what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--transactions", type=int, default=200_000, help="how many (200,000)")
    parser.add_argument("--check", metavar="FILE", help="check a history that was kept (a pickle)")
    options = parser.parse_args()
    if options.check:
        with open(options.check, "rb") as file:
            findings = check(pickle.load(file))
        say("\n".join(findings) or "it is strictly serializable")
        return 1 if findings else 0
    say(f"seed {options.seed} (the system schedules processes, so it does not repeat a run)")
    return soak(options.seed, options.transactions)


if __name__ == "__main__":
    sys.exit(main())
