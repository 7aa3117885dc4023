"""Counts that tests record, put together into tables: for the summary of a run and for docs.

A test records rows with `record_property("counts", {"table": …, "row": …, "counts": {…}})`, which
pytest carries to the summary also from another worker process; equal rows are added up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Table = dict[str, dict[str, int]]
"""Row -> column -> count."""


def tables(properties: Iterable[tuple[str, Any]]) -> dict[str, Table]:
    """Tables by name, from what reports carry as user properties."""
    found: dict[str, Table] = {}
    for key, value in properties:
        if key == "counts":
            row = found.setdefault(value["table"], {}).setdefault(value["row"], {})
            for column, count in value["counts"].items():
                row[column] = row.get(column, 0) + count
    return found


def keep(place: Path, found: Mapping[str, Table]) -> None:
    """Add tables to those in a file: a run of all tests has two parts, each with its summary."""
    kept: dict[str, Table] = json.loads(place.read_text()) if place.exists() else {}
    for name, table in found.items():
        for row, counts in table.items():
            sums = kept.setdefault(name, {}).setdefault(row, {})
            for column, count in counts.items():
                sums[column] = sums.get(column, 0) + count
    place.write_text(json.dumps(kept))


def lines(name: str, table: Table) -> list[str]:
    """One table as lines of Markdown, with a row of sums."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    sums = {column: sum(row.get(column, 0) for row in table.values()) for column in columns}
    text = [f"| {name} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    rows: Mapping[str, Mapping[str, int]] = table
    if len(table) > 1:
        rows = {**table, "**sum**": sums}
    for row, counts in rows.items():
        cells = [f"{counts[column]:,}" if column in counts else "" for column in columns]
        text.append(f"| {row} | {' | '.join(cells)} |")
    return text
