#!/usr/bin/env python3
"""Search for states that must not be, longer than a test run can, and repeat one that was found.

`simulate.py` explores crashes of random sequences of steps and faults under random calls until its
time is over, from a seed that it prints. `--triples` explores every three steps in a row;
`--images N` mounts so many images of real file systems on which random sequences were cut off.
`--replay FILE` repeats a failure that a test or this program has written down. `--table` runs the
searching tests (half an hour), or takes the counts of a run, and writes docs/testing.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cas.testing.driver import STEPS  # noqa: E402
from cas.testing.explore import (  # noqa: E402
    Explorer,
    Failure,
    Report,
    explore,
    record,
    record_killed,
)
from cas.testing.faults import FaultFailure, FaultReport, Sweep  # noqa: E402
from cas.testing.stores import scratch  # noqa: E402

DOCUMENT = ROOT / "docs" / "testing.md"
OPENING, CLOSING = "<!-- counts: written by tools/simulate.py --table -->", "<!-- end of counts -->"
LETTERS = tuple(name for name in STEPS if name not in ("stream", "put files"))


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def keep(failure: Failure | FaultFailure) -> None:
    """Print a failure and write it down."""
    handle, path = tempfile.mkstemp(prefix="cas-failure-", suffix=".json")
    with os.fdopen(handle, "w") as file:
        file.write(failure.to_json())
    say(f"FAILED {failure}\n  repeat it: python3 tools/dev.py simulate --replay {path}")


# -- searching -------------------------------------------------------------------------------


def search(seed: int, minutes: float) -> int:
    """Random sequences and random faults until the time is over; the number of failures."""
    draw = random.Random(seed)
    crashes, faults = Report(), FaultReport()
    started = spoken = time.monotonic()
    runs = 0
    while time.monotonic() - started < minutes * 60:
        runs += 1
        steps = [draw.choice(LETTERS) for _ in range(draw.randint(2, 9))]
        tried = explore(steps, draw.randrange(1 << 32), tail=3, each_max=16, nested=0.03)
        for failure in tried.failures[:1]:
            keep(failure)
        crashes.add(tried)
        sweep = Sweep(steps, [draw.choice(LETTERS) for _ in range(3)], draw.randrange(1 << 32))
        swept = sweep.run(share=0.05)
        for found in swept.failures[:1]:
            keep(found)
        faults.add(swept)
        if time.monotonic() - spoken > 30:
            spoken = time.monotonic()
            say(told(runs, crashes, faults))
    say(told(runs, crashes, faults))
    return len(crashes.failures) + len(faults.failures)


def told(runs: int, crashes: Report, faults: FaultReport) -> str:
    """What was done so far, in one line."""
    return (
        f"{runs} sequences: {sum(crashes.states.values()):,} crash states, {crashes.nested:,} in "
        f"recovery, {sum(faults.faults.values()):,} faults ({faults.opened:,} stores opened), "
        f"{len(crashes.failures) + len(faults.failures)} failures"
    )


def triples() -> int:
    """Crashes in the third of every three steps; the number of failures."""
    report = Report()
    for number, steps in enumerate(itertools.product(LETTERS, repeat=3), 1):
        tried = explore(steps, ", ".join(steps), tail=1, each_max=12, subsets=2, written=0.2)
        for failure in tried.failures[:1]:
            keep(failure)
        report.add(tried)
        if number % 50 == 0:
            say(f"{number} of {len(LETTERS) ** 3} triples: {sum(report.states.values()):,} states")
    say(f"{sum(report.states.values()):,} states, {len(report.failures)} failures")
    return len(report.failures)


def images(seed: int, count: int) -> int:
    """So many images of crashes, on each file system that this host can make; the failures."""
    from cas.testing import images as imaging
    from cas.testing.mounting import lacking
    from tests.crash.imaging import drawn
    from tests.crash.imaging import keep as keep_image

    systems = []
    for name, system in imaging.FILE_SYSTEMS.items():
        reason = lacking(system.kind)
        if reason is None:
            systems.append(name)
        else:
            say(f"{name} is left out: {reason}")
    draw, done, failures = random.Random(seed), 0, 0
    while systems and done < count:
        steps, system = drawn(draw), draw.choice(systems)
        tried = imaging.explore(steps, draw.randrange(1 << 32), min(100, count - done), system)
        done, failures = done + tried.images, failures + len(tried.failures)
        for failure in tried.failures[:1]:
            say(f"FAILED {keep_image(failure)}")
        say(f"{done:,} images, {failures} failures; the last on {system}")
    return failures


# -- repeating -------------------------------------------------------------------------------


def replay(path: str) -> int:
    """Repeat a failure; the number of findings."""
    if path.endswith(".images"):
        from cas.testing import images as imaging

        kept: imaging.ImageFailure = pickle.loads(Path(path).read_bytes())
        again = imaging.replay(kept.log, [kept.loss], written=1).failures
        say("\n".join(f"FAILED {found}" for found in again) or "it does not fail any more")
        return len(again)
    text = Path(path).read_text()
    findings: list[Failure] | list[FaultFailure]
    if "fault" in json.loads(text):
        found = FaultFailure.from_json(text)
        sweep = Sweep(found.before, found.steps, found.seed, power_cuts=50)
        findings = sweep.run(chosen=[found.fault]).failures
    else:
        findings = list(crash_again(Failure.from_json(text)))
    for finding in findings:
        say(f"FAILED {finding}")
    if not findings:
        say("it does not fail any more")
    return len(findings)


def crash_again(failure: Failure) -> Iterator[Failure]:
    """The same crash of the same steps."""
    steps = failure.steps
    if len(steps) > 2 and steps[-2].startswith("kill "):
        killed = record_killed(steps[:-3], steps[-1], failure.seed)
        recording = next(found for found in killed if found.steps == steps)
    else:
        recording = record(steps, failure.seed)
    with scratch() as folder:
        yield from Explorer(recording, folder).replay(failure.cut, failure.inner).failures


# -- the table -------------------------------------------------------------------------------


ROOMS = ("crash", "schedules", "corruption", "fuzz", "stateful/test_serializable.py")
"""Of `tests`: those that count towards the arsenal."""

SHOWN = ("crash states by the step that was under way", "faults", "damaged bytes")
"""Tables that the document shows below the arsenal."""


def write_table(place: str | None) -> int:
    """Write what a run has counted into the document; without its counts, run the tests first."""
    from tests.arsenal import arsenal, board_lines
    from tests.counts import lines

    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="cas-counts-") as folder:
        if place is None:
            place = os.path.join(folder, "counts.json")
            rooms = [f"tests/{room}" for room in ROOMS]
            command = [sys.executable, "-m", "pytest", "-n", "2", *rooms]
            code = subprocess.run(
                command, env={**os.environ, "CAS_TEST_COUNTS": place}, check=False
            ).returncode
            if code != 0:
                say("the tests failed, so nothing was written")
                return code
        counted = json.loads(Path(place).read_text())
    parts = [arsenal(counted), *(lines(name, counted[name]) for name in SHOWN if name in counted)]
    written = "\n\n".join("\n".join(part) for part in [*parts, board_lines()])
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(OPENING)
    _old, _, after = rest.partition(CLOSING)
    DOCUMENT.write_text(f"{before}{OPENING}\n\n{written}\n\n{CLOSING}{after}")
    say(f"{DOCUMENT.relative_to(ROOT)} is written")
    return 0


def main() -> int:
    """Do what was asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to search (2)")
    parser.add_argument("--triples", action="store_true", help="every three steps in a row")
    parser.add_argument("--images", type=int, metavar="N", help="so many on real file systems")
    parser.add_argument("--replay", metavar="FILE", help="repeat a failure")
    parser.add_argument("--table", action="store_true", help="write docs/testing.md")
    parser.add_argument(
        "--counts", metavar="FILE", help="for --table: what a run wrote to CAS_TEST_COUNTS"
    )
    options = parser.parse_args()
    # A spill that is put off under a fault is what is looked for here, not news.
    logging.getLogger("cas").setLevel(logging.ERROR)
    if options.table:
        return write_table(options.counts)
    if options.replay:
        return 1 if replay(options.replay) else 0
    if options.triples:
        return 1 if triples() else 0
    say(f"seed {options.seed}")
    if options.images:
        return 1 if images(options.seed, options.images) else 0
    return 1 if search(options.seed, options.minutes) else 0


if __name__ == "__main__":
    sys.exit(main())
