"""Plots of runs as SVG: one file a family of rows, a panel a quantity, a bar a contender.

Invariant: a plot shows what one run has of its family, the newest of those given that has it, and
nothing else: the bar ends at the headline, the thin line goes from the least sample to the
greatest. Written by hand, because a bar is a rectangle and a library would be the largest thing
that the bench installs.

    python bench/plots.py bench/results/*.json bench/plots
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

if __package__ in (None, ""):  # started as a file: the folder above holds the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.harness import Series
from bench.record import Run, load

WIDTH = 720
LABEL_WIDTH = 150
VALUE_WIDTH = 110
BAR_HEIGHT = 18
GAP = 6
TITLE_HEIGHT = 30
OWN, OTHER, LINE = "#2b6cb0", "#a0aec0", "#1a202c"

Panel = tuple[str, list[tuple[str, Series]]]
"""Title, and contenders with what they reached."""


def families(run: Run) -> dict[str, list[Panel]]:
    """Panels of two contenders and more, by the row that they belong to."""
    found: dict[str, dict[str, list[tuple[str, Series]]]] = {}
    for key, series in run.figures.items():
        row, contender, quantity = key.split("/")
        if contender != "disk" and series.headline > 0:
            found.setdefault(row, {}).setdefault(quantity, []).append((contender, series))
    return {
        row: panels
        for row, quantities in found.items()
        if (panels := [_panel(name, rows) for name, rows in quantities.items() if len(rows) > 1])
    }


def _panel(quantity: str, rows: list[tuple[str, Series]]) -> Panel:
    unit = rows[0][1].unit
    better = "more is better" if unit.startswith("/s") else "less is better"
    return f"{quantity.replace('_', ' ')}, {unit} ({better})", rows


def draw(title: str, panels: list[Panel]) -> str:
    """One family as an SVG document."""
    body: list[str] = []
    top = 24
    for name, rows in panels:
        body.append(_text(8, top + 16, name, "start", bold=True))
        top += TITLE_HEIGHT
        greatest = max(series.high for _, series in rows)
        for contender, series in rows:
            body += _bar(top, contender, series, greatest)
            top += BAR_HEIGHT + GAP
        top += GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>\n'
    )
    return head + _text(8, 16, title, "start", bold=True) + "\n" + "\n".join(body) + "\n</svg>\n"


def _bar(top: int, contender: str, series: Series, greatest: float) -> Iterator[str]:
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    length, low, high = (
        room * value / greatest for value in (series.headline, series.low, series.high)
    )
    color = OWN if contender.startswith("cas") else OTHER
    middle = top + BAR_HEIGHT / 2
    yield _text(LABEL_WIDTH - 8, middle + 4, contender, "end")
    yield (
        f'<rect x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" '
        f'fill="{color}"/>'
    )
    if high > low:
        yield (
            f'<line x1="{LABEL_WIDTH + low:.1f}" y1="{middle:.1f}" x2="{LABEL_WIDTH + high:.1f}" '
            f'y2="{middle:.1f}" stroke="{LINE}"/>'
        )
    yield _text(WIDTH - 8, middle + 4, _number(series.headline), "end")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def write(runs: Sequence[Run], folder: Path) -> list[Path]:
    """A file for each family of runs, oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = {
        row: draw(f"{row}, commit {run.commit}, {run.started}", panels)
        for run in runs
        for row, panels in families(run).items()
    }
    written = [folder / f"{row}.svg" for row in sorted(newest)]
    for path in written:
        path.write_text(newest[path.stem])
    return written


def main() -> None:
    """Write the plots of runs, oldest first, into a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    for path in write([load(path) for path in options.runs], options.folder):
        print(path)


if __name__ == "__main__":
    main()
