"""Subscriptions and their dead letters from the command line.

Floor 9. Invariant: nothing is handed out and nothing moves: who stands where is read, and what
nobody could handle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cas.cli.form import columns, count
from cas.cli.output import Output
from cas.commands.workspace import dead_letters, letter_row, subscription_row, subscriptions
from cas.model.names import printable
from cas.workspace.workspace import Workspace


def act(
    out: Output, space: Workspace, action: str, name: str | None, said: Mapping[str, Any]
) -> None:
    """List the subscriptions of the store, or the dead letters of one."""
    found = subscriptions(space, name)
    letters = [] if name is None else dead_letters(space, name)
    if out.json:
        more = {} if name is None else {"dead_letters": [letter_row(each) for each in letters]}
        rows = [subscription_row(space, each) for each in found]
        out.document("workspace", subscriptions=rows, **more)
        return
    if name is None:
        out.lines(columns([_row(subscription_row(space, each)) for each in found]))
        return
    out.lines(
        f"{each.seq}.{each.index} {printable(each.type)} {count(each.attempts, 'attempt')} "
        f"{printable(each.error)}"
        for each in letters
    )
    if not letters:
        out.note("it has no dead letters")


def _row(row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    behind = row["behind"]
    return (
        printable(row["name"]),
        f"at {row['position']}",
        "of another store" if behind is None else f"{count(behind, 'entry', 'entries')} behind",
        f"{row['handled']} handled",
        f"{row['dead']} dead",
    )
