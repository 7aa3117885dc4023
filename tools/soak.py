#!/usr/bin/env python3
"""Each search of the arsenal at its longer bar, with a limit of time, and what it reached.

`soak.py` takes the measures of `tests/arsenal.py` one after the other (or those given with
`--only`), runs the tests that count towards each again and again with new seeds until the bar of a
soak or the limit is reached. Every round goes into a ledger, docs/soak.csv, so that a soak may be
spread over many runs; what all of them reached is written into docs/testing.md. A failure ends it;
the test has printed how to repeat it. `--transactions` runs races of processes alone
(`cas/testing/races.py`); a history that is refused is kept, and `--check FILE` looks at it again.
`--decoder NAME --input HEX` gives one input to one decoder once more.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pickle
import random
import subprocess
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
from tests.arsenal import EVERY, MEASURES, Measure, reached  # noqa: E402

DOCUMENT = ROOT / "docs" / "testing.md"
LEDGER = ROOT / "docs" / "soak.csv"
OPENING, CLOSING = "<!-- soak: written by tools/soak.py -->", "<!-- end of soak -->"

TESTS: dict[str, tuple[list[str], str]] = {
    "crash": (["tests/crash/test_states.py", "-k", "random"], "full"),
    "faults": (["tests/crash/test_faults.py"], "full"),
    "kills": (["tests/crash/test_processes.py", "-k", "killed"], "full"),
    "damage": (["tests/corruption/test_bits.py"], "full"),
    "histories": (["tests/stateful/test_serializable.py", "-k", "recorded"], "full"),
    "interleavings": (["tests/schedules/test_schedules.py", "-k", "loses"], "deep"),
    "images": (["tests/crash/test_images.py", "-k", "shows_all"], "full"),
    "fuzz": (["tests/fuzz/test_fuzz.py", "-k", "no_input"], "deep"),
    "guided": (["tests/fuzz/test_guided.py", "-k", "reaches"], "deep"),
}
"""What one round of each family runs, and its profile; in the order of `MEASURES`."""

RACES = (
    Race(processes=3, threads=2, count=5_000, kills=6),
    Race(processes=2, threads=3, count=5_000, kills=6, small=True),
    Race(processes=4, threads=1, count=5_000, kills=12),
    Race(processes=1, threads=6, count=5_000, kills=0),
)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


# -- families --------------------------------------------------------------------------------


def family(name: str, measure: Measure, seed: int, minutes: float) -> int:
    """Rounds of one family until its bar or the limit is reached; the exit code."""
    draw = random.Random(f"{seed} {name}")
    started, slowest, rounds = time.monotonic(), 0.0, 0
    words, profile = TESTS[name]
    while not is_reached(name, measure):
        began = time.monotonic()
        # A round is whole or is not begun; the first always is.
        if rounds and began - started + slowest > minutes * 60:
            break
        chosen = draw.randrange(1 << 32)
        count, code = one_round(words, profile, chosen, measure)
        if code:
            return code
        if not count:
            say(f"{name}: nothing was counted; were its tests skipped? {' '.join(words)} -rs says")
            return 1
        rounds += 1
        note(name, count, time.monotonic() - began, chosen)
        slowest = max(slowest, time.monotonic() - began)
        say(f"{measure.name}: {sum(done(name)):,} of {wanted(measure)}")
    return 0


def one_round(words: list[str], profile: str, seed: int, measure: Measure) -> tuple[int, int]:
    """Run the tests of a family once; what they counted, and the exit code."""
    with tempfile.TemporaryDirectory(prefix="cas-soak-") as folder:
        place = Path(folder) / "counts.json"
        environment = {
            **os.environ,
            "CAS_TEST_COUNTS": str(place),
            "CAS_TEST_PROFILE": profile,
            "CAS_TEST_SEED": str(seed),
        }
        say(f"seed {seed}, profile {profile}: {' '.join(words)}")
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--timeout=7200", *words]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        counted = json.loads(place.read_text()) if place.exists() else {}
    return reached(measure, counted), code


def soak_all(only: list[str], seed: int, minutes: float) -> int:
    """Every family that was asked for; what the ledger then says goes into the document."""
    code = 0
    for name, measure in zip(TESTS, MEASURES, strict=True):
        if not code and (not only or name in only):
            code = family(name, measure, seed, minutes)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
    return code


# -- the ledger ------------------------------------------------------------------------------


def note(name: str, count: int, seconds: float, seed: int) -> None:
    """A round that ended well, with the commit that it was of ("+" when files differ from it)."""
    git = ["git", "-C", str(ROOT)]
    head = [*git, "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    if subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", "cas", "tests"], check=False
    ).returncode:
        commit += "+"
    with LEDGER.open("a", newline="") as file:
        csv.writer(file).writerow([name, commit, count, round(seconds), seed])


def rounds_of(name: str) -> list[list[str]]:
    """The rounds of one family, oldest first."""
    with LEDGER.open(newline="") as file:
        return [row for row in csv.reader(file) if row[0] == name]


def done(name: str) -> list[int]:
    """How much each round of one family has reached."""
    return [int(row[2]) for row in rounds_of(name)]


def is_reached(name: str, measure: Measure) -> bool:
    """Whether the rounds of a family have reached its bar."""
    return bool(done(name)) if measure.soak == EVERY else sum(done(name)) >= measure.soak


def wanted(measure: Measure) -> str:
    """The bar of a soak."""
    return "every one" if measure.soak == EVERY else f"{measure.soak:,}"


def with_table(text: str) -> str:
    """The document with what the ledger says."""
    before, _, rest = text.partition(OPENING)
    _old, _, after = rest.partition(CLOSING)
    lines = ["| measure | wanted of a soak | reached | rounds | hours | commits |"]
    lines.append("|---|---:|---:|---:|---:|---|")
    for name, measure in zip(TESTS, MEASURES, strict=True):
        rows = rounds_of(name)
        commits = ", ".join(dict.fromkeys(row[1] for row in rows))
        hours = sum(int(row[3]) for row in rows) / 3600
        reached_so_far = f"{sum(done(name)):,} | {len(rows)} | {hours:.1f} | {commits or 'none'}"
        lines.append(f"| {measure.name} | {wanted(measure)} | {reached_so_far} |")
    table = "\n".join(lines)
    return f"{before}{OPENING}\n\n{table}\n\n{CLOSING}{after}"


# -- histories alone -------------------------------------------------------------------------


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


def look_again(path: str) -> int:
    """Check a history that was kept."""
    with open(path, "rb") as file:
        findings = check(pickle.load(file))
    say("\n".join(findings) or "it is strictly serializable")
    return 1 if findings else 0


def main() -> int:
    """Do what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", action="append", default=[], choices=list(TESTS))
    parser.add_argument("--minutes", type=float, default=30, help="of each family (30)")
    parser.add_argument("--transactions", type=int, metavar="N", help="only so many, in races")
    parser.add_argument("--check", metavar="FILE", help="check a history that was kept (a pickle)")
    parser.add_argument("--decoder", help="give `--input` to this decoder")
    parser.add_argument("--input", metavar="HEX", default="")
    options = parser.parse_args()
    if options.check:
        return look_again(options.check)
    if options.decoder:
        from tests.fuzz.targets import TARGETS

        say(f"well formed: {TARGETS[options.decoder](bytes.fromhex(options.input))}")
        return 0
    say(f"seed {options.seed} (the system schedules processes, so it does not repeat a race)")
    if options.transactions:
        return soak(options.seed, options.transactions)
    return soak_all(options.only, options.seed, options.minutes)


if __name__ == "__main__":
    sys.exit(main())
