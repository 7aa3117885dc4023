"""`cas events`: what happened, from the command line.

Floor 9. Invariant: events are shown in the order of the journal, each once.
"""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand
from cas.commands.workspace import event_row
from cas.history.revision import when
from cas.model.names import printable
from cas.workspace.events import DomainEvent


@click.command("events", cls=CasCommand)
@click.option("--after", metavar="POSITION", default="0", help="Events behind SEQ or SEQ.INDEX.")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Only of this type; sprint.*")
@click.option("-n", "--limit", metavar="N", type=click.IntRange(0), help="At most so many.")
@click.option("--seen-by", metavar="CONTEXT", help="Only what a context sees, in its store.")
@click.option("-f", "--follow", is_flag=True, help="Wait for those to come, until interrupted.")
@pass_front
def events(
    front: Front,
    after: str,
    types: tuple[str, ...],
    limit: int | None,
    seen_by: str | None,
    follow: bool,
) -> None:
    """Show the domain events of all contexts, oldest first.

    A line is: position, time, type, actor, what it says. With --json and --follow each event is
    a document of its own.
    """
    out = front.out
    with front.space() as space:
        found = space.events(after, types or None, limit=limit, seen_by=seen_by)
        if not follow:
            if out.json:
                out.document("events", events=[event_row(event) for event in found])
            else:
                out.lines(_event_line(event) for event in found)
            return
        count = 0
        where = space if seen_by is None else space.place(seen_by)
        with where.store.follow(where.last_event().seq) as entries:
            position: Any = after
            while limit is None or count < limit:
                left = None if limit is None else limit - count
                for event in space.events(position, types or None, limit=left, seen_by=seen_by):
                    if out.json:
                        out.document("events", events=[event_row(event)])
                    else:
                        out.line(_event_line(event))
                    position = event.position
                    count += 1
                if limit is None or count < limit:
                    entries.poll(None)


def _event_line(event: DomainEvent) -> str:
    row = event_row(event)
    said = " ".join(f"{name}={each}" for name, each in row["data"].items())
    text = f"{event.id} {when(event.time_us)} {event.type} {printable(event.actor)}"
    return f"{text} {printable(said)}".rstrip()


COMMANDS: Final = {"events": events}
