"""Renders runs as Markdown: the tables of bars for RESULTS.md, and every contender's own figures.

    python bench/report.py bench/results/*.json > bench/RESULTS.md

Given several runs, each bar is judged from the newest one that measured it, and the table says
which; runs that no bar is judged from are left out. A bar whose figures are missing is listed as
not measured. What is to be said of the figures is written by hand in `missed.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.bars import BARS, PARTS
from bench.harness import Series
from bench.record import Bar, Run, load

REMARKS = Path(__file__).resolve().parent / "missed.md"

SCALES = {
    "s": (1.0, " s"),
    "ms": (1e3, " ms"),
    "us": (1e6, " µs"),
    "MB": (1e-6, " MB"),
    "KB": (1e-3, " KB"),
}


def render(run: Run, bars: Sequence[Bar] = BARS) -> str:
    """One run: its circumstances, the bars, what was skipped or failed."""
    parts = [circumstances(run), bar_table([run], bars), bar_count([run], bars)]
    return "\n\n".join(part for part in parts if part)


def document(runs: Sequence[Run], remarks: str) -> str:
    """RESULTS.md from runs, oldest first, and what is said of them."""
    runs = [run for run in runs if any(_newest(runs, bar)[1] is run for bar in BARS)]
    parts = ["# Results", _LEGEND, bar_count(runs, BARS)]
    for part in PARTS:
        parts += [f"## {part.TITLE}", bar_table(runs, part.BARS)]
    parts.append(remarks)
    for number, run in enumerate(runs, start=1):
        parts += [f"## Run {number}", circumstances(run), figure_table(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


_LEGEND = (
    "Written by `bench/report.py` from the JSON files of `bench/run.py`; method in "
    "[README.md](README.md). A figure is the median of its samples unless the README says "
    "otherwise (worst: memory, fairness, longest wait, bytes added); in brackets least and "
    "greatest sample. Ratio = product / peer of the same run. Of each family of rows there is a "
    "[plot](plots)."
)


def bar_table(runs: Sequence[Run], bars: Sequence[Bar]) -> str:
    """Bar, product, peer, ratio, met or missed, and the run that it is judged from."""
    lines = [
        "| | Work | Bar | cas | Peer | Value | | Run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for bar in bars:
        number, run = _newest(runs, bar)
        product, peer = run.figures.get(bar.product), None
        if bar.peer is not None:
            peer = run.figures.get(bar.peer)
        verdict = bar.met(run)
        sign = "≤" if bar.sense == "<=" else "≥"
        name = bar.peer.split("/")[1] if bar.peer else ""
        limit = f"{sign} {bar.limit:g} × {name}" if bar.peer else f"{sign} {_plain(bar)}"
        cells = [
            bar.id,
            bar.work,
            limit,
            _cell(product, bar.show),
            f"{name} {_cell(peer, bar.show)}" if peer else "",
            _value(bar, run),
            {True: "met", False: "**missed**", None: "not measured"}[verdict],
            str(number) if product or peer else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bar_count(runs: Sequence[Run], bars: Sequence[Bar]) -> str:
    """How many bars are met, missed by name, and not measured by name."""
    named: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for bar in bars:
        named[bar.met(_newest(runs, bar)[1])].append(bar.id)
    text = f"{len(named[True])} of {len(bars) - len(named[None])} measured bars met."
    if named[False]:
        text += f" Missed: {', '.join(named[False])}."
    if named[None]:
        text += f" Not measured: {', '.join(named[None])}."
    return text


def circumstances(run: Run) -> str:
    """Commit, machine, versions, and what was skipped or failed, as a list."""
    lines = [f"- commit {run.commit}, {run.started}, {run.options['rounds']} rounds"]
    if run.options.get("quick"):
        lines.append("- QUICK: smaller sizes than the bars ask for")
    if run.options.get("note"):
        lines.append(f"- beside it: {run.options['note']}")
    lines.append("- " + ", ".join(f"{name} {value}" for name, value in run.machine.items()))
    if run.versions:
        lines.append("- " + ", ".join(f"{name} {text}" for name, text in run.versions.items()))
    lines.append("- " + _durability(run))
    lines += [f"- skipped: {name}: {reason}" for name, reason in run.skipped.items()]
    lines += [f"- FAILED: row {name}: {reason}" for name, reason in run.failed.items()]
    return "\n".join(line for line in lines if line != "- ")


def figure_table(run: Run) -> str:
    """Every figure of a run: headline, least, greatest, samples, note."""
    lines = ["| Figure | Headline | Least | Greatest | n | |", "|---|---|---|---|---|---|"]
    for key, series in run.figures.items():
        show = [_number(value, series.unit) for value in (series.headline, series.low, series.high)]
        note = run.notes.get(key, "")
        lines.append(f"| {key} | {' | '.join(show)} | {len(series.samples)} | {note} |")
    return "\n".join(lines)


def _durability(run: Run) -> str:
    """What the measured sync calls say of each contender of the import row."""
    said = []
    for key, series in run.figures.items():
        row, name, quantity = key.split("/")
        if row == "import" and quantity == "syncs":
            calls = int(series.headline)
            said.append(f"{name} {calls} sync calls" if calls else f"{name} none (not durable)")
    return "durability of the first snapshot: " + ", ".join(said) if said else ""


def _newest(runs: Sequence[Run], bar: Bar) -> tuple[int, Run]:
    for number, run in reversed(list(enumerate(runs, start=1))):
        if bar.value(run) is not None:
            return number, run
    for number, run in reversed(list(enumerate(runs, start=1))):
        if bar.peer is not None and bar.peer in run.figures:
            return number, run
    return len(runs), runs[-1]


def _plain(bar: Bar) -> str:
    scale, unit = SCALES.get(bar.show, (1.0, ""))
    return f"{bar.limit * scale:g}{unit}"


def _cell(series: Series | None, show: str) -> str:
    if series is None:
        return ""
    scale, unit = SCALES.get(show, (1.0, "/s" if show == "rate" else ""))

    def text(value: float) -> str:
        value *= scale
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    spread = f" ({text(series.low)}-{text(series.high)})" if len(series.samples) > 1 else ""
    return text(series.headline) + spread + unit


def _value(bar: Bar, run: Run) -> str:
    value = bar.value(run)
    if value is None:
        return ""
    return f"{value:.2f} ×" if bar.peer else _cell(Series((value,), ""), bar.show)


def _number(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value:,.0f} B"
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.4g} {unit}"


def main() -> None:
    """Print RESULTS.md made from the JSON files named, oldest first."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    runs = sorted((load(file) for file in parser.parse_args().files), key=lambda run: run.started)
    sys.stdout.write(document(runs, REMARKS.read_text(encoding="utf-8").strip()))


if __name__ == "__main__":
    main()
