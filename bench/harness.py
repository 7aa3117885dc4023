"""Measuring instruments: time, sync calls, anonymous memory and size of whole commands.

A *step* is what a user would type: one or more commands run in order. Contenders are measured in
turn, round by round (A B C A B C), so that a busy machine touches all of them alike. Invariant:
an instrument that slows what it measures never runs in a timed round; sync calls (strace) and
memory (a sampler) have runs of their own.

Nothing is deleted here. Removing thousands of files makes file creation on ext4 tens of times
slower for minutes afterwards, so every step gets a fresh folder below one run folder, and the run
folder is left for `run.py --clean`, long after the timed steps.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

SYNC_CALLS = ("fsync", "fdatasync", "sync_file_range", "msync", "sync", "syncfs")
SAMPLE_SECONDS = 0.010


class StepFailed(RuntimeError):
    """A measured command ended with an exit code that is not among those allowed."""


@attrs.frozen
class Step:
    """Commands run one after the other, as one measured unit.

    `feed`, when given, is a command whose output is the standard input of the first command; it is
    not part of what memory and syncs are counted for. `output` receives the standard output of
    the last command (of each, in turn).
    """

    commands: tuple[tuple[str, ...], ...]
    cwd: Path
    env: Mapping[str, str] = attrs.field(factory=dict)
    ok: frozenset[int] = frozenset({0})
    feed: tuple[str, ...] | None = None
    output: Path | None = None


@attrs.frozen
class Series:
    """Samples of one quantity. `headline` is the median unless the quantity asks for another."""

    samples: tuple[float, ...]
    unit: str
    headline: float = attrs.field()

    @headline.default
    def _median(self) -> float:
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)

    @property
    def spread(self) -> float:
        """(max − min) / headline, as a share."""
        return (self.high - self.low) / self.headline if self.headline else 0.0


@attrs.frozen
class Contender:
    """Something measured in turn with others.

    `prepare(turn)` is untimed and gives a step, or a call that does the work and returns its own
    seconds. `check(turn)` is untimed too and raises when the work was not done.
    """

    name: str
    prepare: Callable[[int], Step | Callable[[], float]]
    check: Callable[[int], None] | None = None


def run(step: Step, wrap: Sequence[str] = ()) -> float:
    """Run a step to its end and return the seconds it took. Raises StepFailed."""
    started = time.perf_counter()
    for command in step.commands:
        _start(step, command, wrap).finish(step, command)
    return time.perf_counter() - started


def interleave(
    contenders: Sequence[Contender],
    rounds: int,
    warmup: int = 1,
    before_turn: Callable[[int], None] | None = None,
) -> dict[str, Series]:
    """Wall seconds per contender over `rounds` rounds in turn, after `warmup` uncounted ones.

    Dirty pages are written out before each step (outside its time), so that nobody pays for the
    one before. Put contenders that create thousands of files last.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(warmup + rounds):
        if before_turn is not None:
            before_turn(turn)
        for contender in contenders:
            work = contender.prepare(turn)
            os.sync()
            seconds = run(work) if isinstance(work, Step) else work()
            if contender.check is not None:
                contender.check(turn)
            if turn >= warmup:
                times[contender.name].append(seconds)
    return {name: Series(tuple(samples), "s") for name, samples in times.items()}


def count_syncs(step: Step, folder: Path) -> Counter[str]:
    """Sync calls of the whole process tree of a step, by name, as strace counts them."""
    total: Counter[str] = Counter()
    for number, command in enumerate(step.commands):
        table = folder / f"strace-{time.monotonic_ns()}-{number}.txt"
        trace = f"trace={','.join(SYNC_CALLS)}"
        wrap = ["strace", "-f", "-qq", "-c", "-e", trace, "-o", str(table)]
        _start(step, command, wrap).finish(step, command)
        total.update(parse_strace_table(table.read_text()))
    return total


def parse_strace_table(text: str) -> dict[str, int]:
    """Calls per name from the summary table of `strace -c`."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) in (5, 6) and fields[-1] in SYNC_CALLS:
            found[fields[-1]] = int(fields[3])
    return found


def peak_anonymous(step: Step) -> int:
    """Peak of RssAnon, in bytes, summed over the process tree, sampled every 10 ms.

    Mapped files and shared memory do not count. The feeding process is not part of the tree.
    """
    peak = 0
    for command in step.commands:
        running = _start(step, command, ())
        sampler = Sampler(running.process.pid)
        sampler.start()
        try:
            running.finish(step, command)
        finally:
            sampler.stop()
        peak = max(peak, sampler.peak)
    return peak


class Sampler(threading.Thread):
    """Samples RssAnon of a process and all its descendants until stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.samples = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        due = time.monotonic()
        while not self._done.is_set():
            self.peak = max(self.peak, sum(map(_anonymous, descendants(self._pid))))
            self.samples += 1
            due = max(due + SAMPLE_SECONDS, time.monotonic() + SAMPLE_SECONDS / 10)
            self._done.wait(due - time.monotonic())

    def stop(self) -> None:
        self._done.set()
        self.join()


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it, by the kernel's own lists of children."""
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        found.append(parent)
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children", "rb") as children:
                    queue.extend(int(child) for child in children.read().split())
        except OSError:  # it ended between the look and the read
            continue
    return found


_RSS_ANON = re.compile(rb"^RssAnon:\s+(\d+) kB", re.MULTILINE)


def _anonymous(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            match = _RSS_ANON.search(status.read())
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


@attrs.frozen
class Size:
    """Apparent bytes and files of a folder, its caches apart."""

    file_bytes: int
    files: int
    cache_bytes: int


def size(folder: Path, is_cache: Callable[[str], bool] = lambda relative: False) -> Size:
    """Apparent size of all files below `folder`; `is_cache` judges paths relative to it."""
    file_bytes = files = cache_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            length = os.lstat(path).st_size
            if is_cache(os.path.relpath(path, folder)):
                cache_bytes += length
            else:
                file_bytes += length
                files += 1
    return Size(file_bytes, files, cache_bytes)


def missing(*programs: str) -> list[str]:
    """Those of `programs` that are not on the path."""
    return [program for program in programs if shutil.which(program) is None]


@attrs.define
class _Running:
    """A started command, with the process that feeds its standard input."""

    process: subprocess.Popen[bytes]
    feeder: subprocess.Popen[bytes] | None

    def finish(self, step: Step, command: Sequence[str]) -> None:
        _, errors = self.process.communicate()
        if self.feeder is not None:
            self.feeder.wait()
        if self.process.returncode not in step.ok:
            text = errors.decode(errors="replace")[-2000:]
            raise StepFailed(f"{' '.join(command)} ended with {self.process.returncode}: {text}")


def _start(step: Step, command: Sequence[str], wrap: Sequence[str]) -> _Running:
    feeder = None
    if step.feed is not None and command is step.commands[0]:
        feeder = subprocess.Popen(step.feed, stdout=subprocess.PIPE, cwd=step.cwd)
    with open(step.output or os.devnull, "wb") as output:
        process = subprocess.Popen(
            [*wrap, *command],
            cwd=step.cwd,
            env={**os.environ, **step.env},
            stdin=subprocess.DEVNULL if feeder is None else feeder.stdout,
            stdout=output,
            stderr=subprocess.PIPE,
        )
    if feeder is not None and feeder.stdout is not None:
        feeder.stdout.close()  # only the measured process may hold the pipe's reading end
    return _Running(process, feeder)
