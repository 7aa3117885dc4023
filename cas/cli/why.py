"""`cas why`: what keeps an object, or that nothing does."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.front import Front, pass_front
from cas.cli.options import TARGET, CasCommand
from cas.cli.values import about_removal, removal_fields
from cas.commands.why import explain
from cas.errors import NotFound
from cas.maintenance.why import Reason, Why
from cas.model.names import printable


@click.command("why", cls=CasCommand)
@click.argument("what", metavar="REV[:PATH]|ID", type=TARGET)
@pass_front
def why(front: Front, what: str) -> None:
    """Tell what keeps an object.

    One line a reason: the branch, tag, pin, hold or entry that leads to it, and the path. What
    nothing keeps goes with a collection when its grace is over. The exit code is 3 for an id that
    the store does not have.
    """
    with front.store() as store:
        found = explain(store, what)
    front.exit_code = 0 if found.exists else NotFound.exit_code
    if front.out.json:
        front.out.document("why", **_fields(found))
        return
    if found.thinned is not None:
        front.out.line(f"thinned: {about_removal(found.thinned)}")
    front.out.lines(f"{reason.kind}: {printable(reason.text)}" for reason in found.reasons)
    front.out.note(_summary(found))


def _summary(found: Why) -> str:
    if found.purged is not None:
        return f"{found.id.short} was purged {about_removal(found.purged)}"
    if found.kind is None:
        return f"{found.id.short} is not in this store: it was never put, or was collected"
    name = f"{found.kind.name.lower()} {found.id.short}"
    if found.kept:
        return f"{name} is kept"
    return f"nothing keeps {name}; it goes with a collection, when its grace is over"


def _fields(found: Why) -> dict[str, Any]:
    return {
        "id": str(found.id),
        "kind": None if found.kind is None else found.kind.name.lower(),
        "kept": found.kept,
        "thinned": None if found.thinned is None else removal_fields(found.thinned),
        "purged": None if found.purged is None else removal_fields(found.purged),
        "reasons": [_reason_fields(reason) for reason in found.reasons],
    }


def _reason_fields(reason: Reason) -> dict[str, Any]:
    return {
        "kind": reason.kind,
        "text": printable(reason.text),
        "ref": reason.ref,
        "commit": None if reason.commit is None else str(reason.commit),
        "path": None if reason.path is None else printable(reason.path),
        "seq": reason.seq,
    }


COMMANDS: Final = {"why": why}
