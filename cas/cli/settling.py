"""Conflicts that were kept, from the command line: listed, shown side by side, settled.

Floor 9. Invariant: what a side has is shown whole when one conflict is asked for; a conflict goes
only when `settle` says how.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cas.cli.options import default_author
from cas.cli.output import Output
from cas.commands.settling import conflict_row, fields_of, find_conflict, settle
from cas.commands.workspace import plain, row_of
from cas.model.names import printable
from cas.workspace.clashes import OpenConflict
from cas.workspace.workspace import Workspace

_SHORT = 60


def act(
    out: Output, space: Workspace, action: str, name: str | None, said: Mapping[str, Any]
) -> None:
    """Do one action on conflicts and show what became of it."""
    if action == "settle":
        if name is None:
            raise click.UsageError("Give the ID of a conflict; `cas workspace conflicts` lists it.")
        _settle(out, space, name, said)
        return
    found = list(space.conflicts()) if name is None else [find_conflict(space, name)]
    if out.json:
        out.document("workspace", conflicts=[conflict_row(space, each) for each in found])
    elif name is not None:
        out.lines(_whole(space, found[0]))
    else:
        out.lines(line for each in found for line in _short(each))


def _settle(out: Output, space: Workspace, name: str, said: Mapping[str, Any]) -> None:
    file = said["content"]
    content: Any = None
    if file is not None:
        content = sys.stdin.buffer if file == "-" else Path(file)
    take, values = said["take"], fields_of(said["values"])
    made = settle(space, name, default_author(), take=take, values=values, content=content)
    if out.json:
        out.document("workspace", settled=None if made is None else row_of(made))
    else:
        out.line("removed" if made is None else f"{printable(made.id)} is settled")


def _short(conflict: OpenConflict) -> Iterator[str]:
    """A line a field: what it is about, and what either side made of it."""
    head = f"{conflict.id} {conflict.about}"
    if conflict.removed:
        gone = "here" if conflict.removed == "current" else f"by {conflict.actor}"
        yield printable(f"{head} was removed {gone} and changed by the other side")
        return
    for clash in conflict.clashes:
        base, current, incoming = (
            _brief(each) for each in (clash.base, clash.current, clash.incoming)
        )
        yield printable(
            f"{head} {clash.field}: {base} became {current} here and {incoming} by {conflict.actor}"
        )


def _brief(value: Any) -> str:
    text = repr(plain(value))
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


def _whole(space: Workspace, conflict: OpenConflict) -> Iterator[str]:
    """All sides of one conflict."""
    row = conflict_row(space, conflict)
    yield printable(f"{conflict.id} about {conflict.about}, incoming by {conflict.actor}")
    if conflict.removed:
        yield f"removed by the {conflict.removed} side"
    now = None if row["now"] is None else row["now"]["fields"]
    for clash in row["clashes"]:
        yield printable(clash["field"])
        sides = {name: clash[name] for name in ("base", "current", "incoming")}
        if now is not None and now.get(clash["field"]) != clash["current"]:
            sides["now"] = now.get(clash["field"])
        for side, value in sides.items():
            text = value if isinstance(value, str) else repr(value)
            first, *more = text.split("\n")
            yield printable(f"  {side:8} {first}")
            yield from (printable(f"  {'':8} {line}") for line in more)
