"""Bounded contexts from the command line: what is declared, where they live, what they tell.

Floor 9. Invariant: `contexts` and `context NAME` open no store but that of the workspace; so what
is declared can be read when a store is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

import click

from cas.cli.folders import until_told
from cas.cli.form import columns
from cas.cli.options import default_author
from cas.cli.output import Output
from cas.commands.contexts import address, context_row, declare, other_rule
from cas.model.names import HEADS, printable
from cas.workspace.contexts import Context
from cas.workspace.exchanging import Exchanged, exchange, keep_exchanging
from cas.workspace.layout import context_of
from cas.workspace.workspace import Workspace

_LIMITS: Final = {
    "record_max": "record_bytes_max",
    "artifact_max": "artifact_bytes_max",
    "count_max": "aggregate_count_max",
    "total_max": "total_bytes_max",
}
"""Option -> the limit that it sets."""
_CHANGES: Final = ("place", "home", "publish", "unpublish", "force")
_SAID: Final = ("describe", "retain", *_LIMITS)
"""Options that say something also where they are empty, or 0."""


def act(
    out: Output, space: Workspace, action: str, name: str | None, said: Mapping[str, Any]
) -> None:
    """Do one action on contexts and show what became of it."""
    if action == "contexts":
        _list(out, space)
    elif action == "exchange":
        _exchange(out, space, follow=said["follow"], seconds=said["seconds"])
    elif name is None:
        raise click.UsageError("Give the NAME of a context; `cas workspace contexts` lists them.")
    else:
        _context(out, space, name, said)


def _list(out: Output, space: Workspace) -> None:
    declared = space.contexts()
    refs = (context_of(ref.name) for ref in space.store.view().refs(HEADS))
    names = sorted({where[0] for where in refs if where is not None} | declared.keys())
    if out.json:
        rows = [context_row(name, declared.get(name)) for name in names]
        out.document("workspace", declared=rows)
        return
    out.lines(columns([_row(name, declared.get(name)) for name in names]))


def _row(name: str, context: Context | None) -> tuple[str, str, str, str, str]:
    if context is None:
        return (printable(name), "here", "not declared", "", "")
    published = f"publishes {', '.join(sorted(context.publishes))}" if context.publishes else "-"
    kept = "keeps all" if context.retention is None else f"keeps {context.retention}"
    said = printable(context.description.split("\n", 1)[0])
    return (printable(name), printable(context.place) or "here", published, kept, said)


def _context(out: Output, space: Workspace, name: str, said: Mapping[str, Any]) -> None:
    """Show one, or declare what the options say of it."""
    if said["home"] and said["place"] is not None:
        raise click.UsageError("--home and --place say where it lives; give one.")
    found = space.contexts().get(name)
    limits = {_LIMITS[each]: n for each in _LIMITS if (n := said[each]) is not None}
    if any(said[each] for each in _CHANGES) or any(said[each] is not None for each in _SAID):
        place = said["place"]
        found = declare(
            space,
            name,
            default_author(),
            place="" if said["home"] else place and address(space.store, place),
            publish=said["publish"],
            unpublish=said["unpublish"],
            description=said["describe"],
            limits=limits,
            retention=said["retain"],
            force=said["force"],
        )
    row = context_row(name, found)
    if out.json:
        out.document("workspace", declared=[row])
        return
    if found is not None and found.retention is not None:
        row["retention"] = str(found.retention)
    lines = [(key, _text(each)) for key, each in row.items() if each not in (None, [], "")]
    out.lines(columns(lines))
    if found is not None and (other := other_rule(space.store, found)):
        out.note(f"the store's policy says otherwise of its branches: {other}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(", ".join(value) if isinstance(value, list) else str(value))


def _exchange(out: Output, space: Workspace, *, follow: bool, seconds: float | None) -> None:
    if not follow and seconds is None:
        _carried(out, exchange(space))
        return
    stop = threading.Event()
    ended = until_told(stop, seconds)
    try:
        keep_exchanging(space, stop, on_exchange=lambda done: _carried(out, done))
    finally:
        ended()


def _carried(out: Output, done: tuple[Exchanged, ...]) -> None:
    if out.json:
        rows = [{"source": e.source, "target": e.target, "count": e.count} for e in done]
        out.document("workspace", carried=rows)
        return
    some = [each for each in done if each.count]
    out.lines(f"{e.count} from {printable(e.source)} to {printable(e.target)}" for e in some)
    if not some:
        out.note("there is nothing to carry")
