"""The arsenal: how much is wanted of each search, how much a run has reached, what was planted.

The bars of one run and of a soak stand here and nowhere else; `reached` reads them off the tables
that the tests of a run have counted. `board` lists every planted bug beside the test that has to
find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from tests.counts import Table

EVERY: Final = 0
"""As the bar of a soak: everything there is, which one round goes through."""


class Measure(NamedTuple):
    """One row: its bars, the tables that count towards it, and the columns of them that do."""

    name: str
    wanted: int
    soak: int
    tables: tuple[str, ...]
    columns: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


MEASURES: Final = (
    Measure(
        "distinct crash states, 0 violations",
        200_000,
        2_000_000,
        ("crash states by workload", "power cuts of retention", "crash states of a rebuild"),
        ("states",),
    ),
    Measure("I/O fault points", 20_000, 200_000, ("faults",), but=("opened", "refused", "unknown")),
    Measure(
        "kill -9, 0 acknowledged commits lost",
        1_000,
        20_000,
        ("kills at a call", "kills at any time"),
        ("kills",),
    ),
    Measure(
        "bit flips and truncations, 0 silent wrong reads",
        300_000,
        5_000_000,
        ("damaged bytes",),
        ("cases",),
    ),
    Measure(
        "transactions in histories that are strictly serializable",
        200_000,
        5_000_000,
        ("transactions",),
        but=("entries",),
    ),
    Measure(
        "gc/commit interleavings",
        50_000,
        EVERY,
        ("interleavings of gc", "interleavings of gc that believes counts"),
        ("runs",),
    ),
    Measure(
        "crash images of real file systems, 0 violations",
        300,
        5_000,
        ("images of file systems",),
        ("images",),
    ),
    Measure("fuzz executions", 2_000_000, 100_000_000, ("fuzz",), ("executions",)),
    Measure(
        "fuzz executions guided by coverage",
        200_000,
        20_000_000,
        ("fuzz by coverage",),
        ("executions",),
    ),
)


def reached(measure: Measure, tables: Mapping[str, Table]) -> int:
    """How much of a measure these tables count."""
    return sum(
        count
        for name in measure.tables
        for row in tables.get(name, {}).values()
        for column, count in row.items()
        if (not measure.columns or column in measure.columns) and column not in measure.but
    )


def arsenal(tables: Mapping[str, Table]) -> list[str]:
    """The table of the arsenal, as lines of Markdown; nothing when no test has counted."""
    rows = [(measure, reached(measure, tables)) for measure in MEASURES]
    if not any(count for _measure, count in rows):
        return []
    lines = ["| measure | wanted in a run | reached |", "|---|---:|---:|"]
    lines += [f"| {m.name} | {m.wanted:,} | {count:,} |" for m, count in rows if count]
    return lines


def board() -> Iterator[tuple[str, str, str]]:
    """(what is wrong, what has to find it, test) of every planted bug."""
    from tests.crash.imaging import BUGS as IMAGES
    from tests.crash.planted import BUGS as CRASH
    from tests.model.archiving import LOSSES
    from tests.model.board import BOARD
    from tests.schedules.planted import BUGS as SCHEDULES
    from tests.stateful.racer import BUGS as RACES

    for bug in CRASH:
        yield bug.name, bug.killer, "tests/crash/test_planted.py"
    for name in IMAGES:
        yield name, "images of ext4", "tests/crash/test_images.py"
    for name, (scene, _plant) in SCHEDULES.items():
        yield name, f"interleavings: {scene}", "tests/schedules/test_schedules.py"
    for name in RACES:
        yield name, "a history that is refused", "tests/stateful/test_serializable.py"
    for loss in BOARD:
        yield f"the model without {loss.name}", loss.scenario, "tests/model/test_model.py"
    for rule in LOSSES:
        yield f"the model without {rule}", "archive", "tests/model/test_archiving.py"


def board_lines() -> list[str]:
    """The board as lines of Markdown."""
    bugs = list(board())
    real = sum(not name.startswith("the model") for name, _killer, _test in bugs)
    lines = [
        f"{real} bugs are planted into the code and {len(bugs) - real} rules taken out of the "
        "model; each is found by the test in its row, or that test fails.",
        "",
        "| planted | found by | test |",
        "|---|---|---|",
    ]
    return [*lines, *(f"| {name} | {killer} | `{test}` |" for name, killer, test in bugs)]
