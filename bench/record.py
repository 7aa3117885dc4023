"""What a run found, as one JSON file: every sample, the commit, the machine, the versions.

Invariant: a bar is judged only from figures of one run, so product and peer met the same machine;
figures are raw (seconds, bytes, counts) and ratios are worked out when a table is rendered.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import attrs

from bench.harness import Series

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
SCHEMA = 1


@attrs.define
class Run:
    """Figures by key (`row/contender/quantity`), and the circumstances they were taken in."""

    started: str
    commit: str
    machine: dict[str, str]
    options: dict[str, Any]
    versions: dict[str, str] = attrs.field(factory=dict)
    figures: dict[str, Series] = attrs.field(factory=dict)
    notes: dict[str, str] = attrs.field(factory=dict)
    skipped: dict[str, str] = attrs.field(factory=dict)
    failed: dict[str, str] = attrs.field(factory=dict)
    places: dict[str, str] = attrs.field(factory=dict)
    """Folders of this machine, and what is written in their place."""

    def add(self, key: str, series: Series, note: str = "") -> None:
        self.figures[key] = series
        if note:
            self.notes[key] = note

    def one(self, key: str, value: float, unit: str, note: str = "") -> None:
        """A figure that is counted, not sampled."""
        self.add(key, Series((value,), unit), note)

    def save(self, path: Path) -> None:
        """Write the whole run; called after every row, so that an end by force loses little."""
        document = {"schema": SCHEMA, **attrs.asdict(self)}
        del document["places"]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        text = json.dumps(document, indent=1)
        for place, name in self.places.items():
            text = text.replace(place, name)
        partial.write_text(text + "\n")
        partial.replace(path)


def load(path: Path) -> Run:
    """A run as it was saved. Raises ValueError for another schema."""
    document = json.loads(path.read_text())
    if document.pop("schema") != SCHEMA:
        raise ValueError(f"{path} was written by another version of the bench")
    figures = {
        key: Series(tuple(figure["samples"]), figure["unit"], figure["headline"])
        for key, figure in document.pop("figures").items()
    }
    return Run(**document, figures=figures)


@attrs.frozen
class Bar:
    """One promise: product against peer (a ratio), or product alone (a bound).

    With a peer the value judged is product / peer; `limit` is in units of the product's figure
    when there is none. `show` says how a figure is printed.
    """

    id: str
    work: str
    sense: Literal["<=", ">="]
    limit: float
    product: str
    peer: str | None = None
    show: Literal["s", "ms", "us", "MB", "KB", "count", "rate", "ratio"] = "s"

    def value(self, run: Run) -> float | None:
        """What is judged, or None when a figure is missing from the run."""
        product = run.figures.get(self.product)
        if product is None:
            return None
        if self.peer is None:
            return product.headline
        peer = run.figures.get(self.peer)
        return None if peer is None else product.headline / peer.headline

    def met(self, run: Run) -> bool | None:
        value = self.value(run)
        if value is None:
            return None
        return value <= self.limit if self.sense == "<=" else value >= self.limit


def new_run(folder: Path, options: dict[str, Any], commit: str | None) -> Run:
    """An empty run that names what is measured and where; `folder` is where stores will lie.

    `commit` None stands for the checkout as it lies.
    """
    return Run(
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        commit=_commit(commit),
        machine=_machine(folder),
        options=options,
        places={
            str(folder): "RUN",
            sys.executable: "python",
            str(REPOSITORY_ROOT): "ROOT",
            tempfile.gettempdir(): "TMP",
        },
    )


def note_load(run: Run, moment: str) -> None:
    """Record the load average: figures from a busy machine must say so."""
    run.machine[f"load {moment}"] = " ".join(f"{load:.2f}" for load in os.getloadavg())


def _commit(asked: str | None) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", asked or "HEAD") or "unknown"
    changed = asked is None and git("status", "--porcelain", "--", "cas")
    return f"{commit}, with uncommitted changes below cas/" if changed else commit


def _machine(folder: Path) -> dict[str, str]:
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "file system": _file_system(folder),
        "python": platform.python_version(),
    }


def _file_system(folder: Path) -> str:
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        inside = str(folder.resolve()).startswith(place.rstrip("/") + "/")
        if inside and len(place) > len(best[0]):
            best = (place, kind)
    return best[1]
