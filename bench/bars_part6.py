"""The bars of part 6 (the workspace) as data, and the row that measures each.

As in `bars_part1.py`: keys name figures of a run, and hold the size of the row, so that a quick run
can never be taken for the bar.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import rows_workspace
from bench.context import Context
from bench.record import Bar

TITLE = "Workspace"

ROWS: dict[str, Callable[[Context], None]] = {
    "folder-status": rows_workspace.row_folder_status,
    "units": rows_workspace.row_units,
    "units-syncs": rows_workspace.row_units_syncs,
    "units-together": rows_workspace.row_units_together,
    "follow": rows_workspace.row_follow,
    "aggregates": rows_workspace.row_aggregates,
    "sourced": rows_workspace.row_sourced,
}

_S = f"folder-status-{rows_workspace.FILES}"
_U = f"units-{rows_workspace.UNITS}"
_A = f"aggregates-{rows_workspace.MEMORIES}"
_Y = f"units-syncs-{rows_workspace.TRACED_UNITS}"
_T = "units-together"
_E = f"sourced-{rows_workspace.EVENTS}"

BARS: tuple[Bar, ...] = (
    Bar(
        "Z1", "status, 10,000 files", "<=", 2, f"{_S}-clean/cas/seconds", f"{_S}-clean/git/seconds"
    ),
    Bar("Z2", "status, ten changed", "<=", 2, f"{_S}-ten/cas/seconds", f"{_S}-ten/git/seconds"),
    Bar(
        "Z3",
        "units of work, against events alone",
        ">=",
        1,
        f"{_U}/cas/rate",
        f"{_U}/eventsourcing/rate",
    ),
    Bar("Z4", "get among 1,000,000", "<=", 3, f"{_A}/cas/get", f"{_A}/sqlite/get"),
    Bar("Z5", "events read a second", ">=", 100_000, f"{_A}/cas/events", show="rate"),
    Bar("Z6", "commit, last against first tenth", "<=", 1.5, f"{_A}/cas/last", f"{_A}/cas/first"),
    Bar("Z7", "size of 1,000,000 memories", "<=", 0.4, f"{_A}/cas/bytes", f"{_A}/langgraph/bytes"),
    Bar("Z8", "10,000 events folded", "<=", 1, f"{_E}/cas/seconds", f"{_E}/eventsourcing/seconds"),
    Bar(
        "Z9",
        "state after 10,000 events, against a get",
        "<=",
        2,
        f"{_E}/cas/snapshot",
        f"{_E}/cas/plain",
    ),
    Bar("Z10", "syncs a unit of work, over 5,000", "<=", 1.02, f"{_Y}/cas/syncs", show="ratio"),
    Bar("Z11", "4 processes, against one", ">=", 0.8, f"{_T}/four/rate", f"{_T}/one/rate", "rate"),
    Bar("Z12", "4 processes, the least", ">=", 0.8, f"{_T}/four/least", show="ratio"),
    Bar("Z13", "4 processes, conflicts", "<=", 0, f"{_T}/four/conflicts", show="count"),
    Bar(
        "Z14", "follow, 95 of 100", "<=", 0.02, f"follow/{rows_workspace.FOLLOWED}/late", show="ms"
    ),
)
