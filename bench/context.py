"""What the rows of one run share: folders, tools, fixtures, workers, and the record.

Invariant: fixtures are made once a run, on first use, outside any timed step, so that each row runs
alone or with others and finds the same; a folder handed out is new and is never deleted.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from bench import corpus, harness, setup_peers
from bench.harness import Series
from bench.peers import Borg, Git, Restic, Tool, copy_step
from bench.product import Cas
from bench.record import Run

WORKERS = Path(__file__).resolve().parent / "workers.py"
BATCH_WORKERS = Path(__file__).resolve().parent / "workers_batch.py"
MILLION = 1_000_000
THOUSAND = 1_000
RACE_SECONDS = 2.0


class WorkerFailed(RuntimeError):
    """An in-process contender answered with an error."""


@attrs.define
class Worker:
    """A contender in a process of its own (see workers.py)."""

    process: subprocess.Popen[str]

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """One request and its answer. Raises WorkerFailed with the contender's own words."""
        self.send(op, **request)
        return self.receive()

    def send(self, op: str, **request: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **request}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerFailed(f"ended with {self.process.wait()} instead of an answer")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def run_race(
    workers: Sequence[Worker], op: str, *, ahead_seconds: float = 0.2
) -> list[dict[str, Any]]:
    """Have all do the same for `RACE_SECONDS` from one moment on, and give what they answer.

    An answer may say whether its race was `valid`: RuntimeError where one was not.
    """
    start = time.monotonic() + ahead_seconds
    for worker in workers:
        worker.send(op, start=start, stop=start + RACE_SECONDS)
    answers = [worker.receive() for worker in workers]
    if not all(answer.get("valid", True) for answer in answers):
        raise RuntimeError("a writer started late or ran out of work; the race says nothing")
    return answers


def ask_all(workers: Sequence[Worker], op: str, **request: Any) -> None:
    """One request to all, which they answer beside each other."""
    for worker in workers:
        worker.send(op, **request)
    for worker in workers:
        worker.receive()


def note_races(
    run: Run, row: str, races: Mapping[str, Sequence[Sequence[dict[str, Any]]]], done: str
) -> None:
    """Of each group of writers: how much it did, its slowest against the mean, its conflicts.

    `done` is the key under which an answer tells how many its writer did.
    """
    for name, found in races.items():
        counts = [[answer[done] for answer in race] for race in found]
        totals = tuple(sum(race) / RACE_SECONDS for race in counts)
        fairness = tuple(min(race) / statistics.mean(race) for race in counts)
        conflicts = sum(answer["conflicts"] for race in found for answer in race)
        run.add(f"{row}/{name}/rate", Series(totals, "/s"))
        run.add(f"{row}/{name}/least", Series(fairness, "of mean", min(fairness)))
        run.one(f"{row}/{name}/conflicts", conflicts, "conflicts")


@attrs.define
class Context:
    """One run of the bench."""

    root: Path
    folder: Path
    run: Run
    product: Cas
    rounds: int
    quick: bool
    say: Callable[[str], None] = print
    _tools: list[Tool] | None = None
    _seed: int = 0
    _api: bool | None = None
    _homes: dict[str, Path] = attrs.field(factory=dict)
    _numbers: dict[str, int] = attrs.field(factory=dict)

    def fresh(self, name: str) -> Path:
        """A new empty folder of the run; a number is added to the name."""
        number = self._numbers.get(name, 0)
        self._numbers[name] = number + 1
        folder = self.folder / f"{name}-{number}"
        folder.mkdir(parents=True)
        return folder

    def next_seed(self) -> int:
        """1, 2, 3 … : no two edits of a run are alike, and two runs make the same ones."""
        self._seed += 1
        return self._seed

    def tools(self, command: str | None = None) -> list[Tool]:
        """The product and the snapshot tools that are there; git last, for its loose files.

        The product is left out, by name, while it lacks `command`.
        """
        if self._tools is None:
            borg = Borg(setup_peers.borg_of(self.root))
            every = (self.product, borg, Restic(), Git())
            self._tools = [tool for tool in every if self._is_there(tool)]
        if command is not None and self.has(self.product.name):
            reason = self.product.lacks(command)
            if reason is not None:
                self.skip(f"cas {command}", reason)
                return [tool for tool in self._tools if tool is not self.product]
        return self._tools

    def has(self, name: str) -> bool:
        return any(tool.name == name for tool in self.tools())

    def has_api(self) -> bool:
        """Whether the product's Python API can be measured."""
        if self._api is None:
            reason = self.product.api_missing_because()
            if reason is not None:
                self.skip("cas, in process", reason)
            self._api = reason is None
        return self._api

    def has_import_call(self) -> bool:
        """Whether a folder can be imported by a call."""
        reason = self.product.api_missing_because("from cas.worktree.importer import import_folder")
        if reason is not None:
            self.skip("cas, import of a folder in process", reason)
        return reason is None

    def has_pygit2(self) -> bool:
        return self.has_module("pygit2")

    def has_module(self, *names: str) -> bool:
        """Whether the peers' interpreter has these modules; the first one names the peer."""
        python = setup_peers.python_of(self.root)
        command = [str(python), "-c", f"import {', '.join(names)}"]
        there = python.exists() and subprocess.run(command, check=False).returncode == 0
        if not there:
            self.skip(names[0], "not installed; run.py --setup does it")
        return there

    def has_strace(self) -> bool:
        if harness.missing("strace"):
            self.skip("sync counts", "strace is not on the path; run.py --setup installs it")
            return False
        return True

    def skip(self, name: str, reason: str) -> None:
        """Name what is not measured, once, on the terminal and in the record."""
        if name not in self.run.skipped:
            self.run.skipped[name] = reason
            self.say(f"SKIPPED {name}: {reason}")

    def _is_there(self, tool: Tool) -> bool:
        reason = tool.missing_because()
        if reason is not None:
            self.skip(tool.name, reason)
            return False
        self.run.versions[tool.name] = tool.version()
        return True

    def probe_flush(self, row: str) -> None:
        """Write out what is dirty, then record what one 4 KiB write with fdatasync takes now.

        A durable commit is mostly this, so a run in which somebody else kept the disk busy shows.
        """
        os.sync()
        handle = os.open(self.folder / "probe", os.O_RDWR | os.O_CREAT)
        seconds = []
        for _ in range(200):
            started = time.perf_counter()
            os.pwrite(handle, bytes(4096), 0)
            os.fdatasync(handle)
            seconds.append(time.perf_counter() - started)
        os.close(handle)
        self.run.add(f"{row}/disk/flush", harness.Series(tuple(seconds[50:]), "s"))

    # -- fixtures ----------------------------------------------------------------------------

    def states(self) -> list[Path]:
        """The states of corpus A, oldest first."""
        return corpus.states(self.root)

    def source(self) -> Path:
        """The newest state; read only."""
        return self.states()[-1]

    def work(self) -> Path:
        """A copy of the newest state that rows may change."""
        if "work" not in self._homes:
            folder = self.fresh("work")
            harness.run(copy_step(self.source(), folder))
            self._homes["work"] = folder
        return self._homes["work"]

    def home_with(self, tool: Tool, source: Path, purpose: str) -> Path:
        """A home in which `tool` has saved `source` once, as label `s0`; one for each purpose."""
        key = f"{tool.name}-{purpose}"
        if key not in self._homes:
            home = self.new_home(tool, purpose)
            harness.run(tool.save(home, source, "s0"))
            self._homes[key] = home
        return self._homes[key]

    def new_home(self, tool: Tool, purpose: str) -> Path:
        """A fresh home with an empty store in it."""
        home = self.fresh(f"{tool.name}-{purpose}")
        tool.make(home)
        return home

    def adopt(self, tool: Tool, purpose: str, home: Path) -> None:
        """Let later rows use a home that a row has filled."""
        self._homes.setdefault(f"{tool.name}-{purpose}", home)

    def million(self) -> Path:
        """A store with one folder of 1,000,000 entries of distinct content, closed."""
        if "million" not in self._homes:
            folder = self.fresh("million")
            self.say(f"filling a store with {self.entries_large:,} entries …")
            with self.worker("cas", path=str(folder / "agents.cas")) as filler:
                filler.ask("fill", entries=self.entries_large)
                filler.ask("close")
            self._homes["million"] = folder / "agents.cas"
        return self._homes["million"]

    @property
    def entries_large(self) -> int:
        """1,000,000; a hundredth of it in a quick run, which the record says."""
        return MILLION // 100 if self.quick else MILLION

    @contextmanager
    def worker(
        self,
        kind: str,
        wrap: Sequence[str] = (),
        program: Path = WORKERS,
        peer: bool = False,
        **request: Any,
    ) -> Iterator[Worker]:
        """A contender of `program`, opened with `request`, ended on the way out.

        A peer runs under the interpreter of the peers.
        """
        peer = peer or kind == "pygit2"
        python = str(setup_peers.python_of(self.root)) if peer else sys.executable
        process = subprocess.Popen(
            [*wrap, python, str(program), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.product.environment},
        )
        worker = Worker(process)
        try:
            worker.ask("open", **request)
            yield worker
        finally:
            worker.end()


def clean(root: Path) -> None:
    """Delete the folders of earlier runs: never shortly before a measurement."""
    shutil.rmtree(root / "runs", ignore_errors=True)
