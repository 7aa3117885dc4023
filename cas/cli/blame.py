"""`cas blame`: who brought each line of a text, or each entry of a directory, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from cas.cli.form import columns, named, subject
from cas.cli.front import Front, pass_front
from cas.cli.options import TARGET, CasCommand
from cas.cli.output import Output
from cas.cli.values import entry_fields
from cas.commands.merge import blame
from cas.history.blame import BlamedEntry, BlamedLine
from cas.history.revision import when
from cas.model.names import printable


@click.command("blame", cls=CasCommand)
@click.argument("target", metavar="REV[:PATH]", type=TARGET)
@pass_front
def blame_command(front: Front, target: str) -> None:
    """Show which commit each line or entry comes from.

    For a text file each line with commit, time and author; for a directory each entry with
    commit, time, author and what the commit says.
    """
    out = front.out
    with front.store() as store:
        found = blame(store, target)
        if out.json:
            where = {"commit": str(found.target.snapshot.id), **named("path", found.target.path)}
            if found.entries is None:
                out.document("blame", **where, lines=[_line_fields(line) for line in found.lines])
            else:
                rows = [_entry_fields(entry) for entry in found.entries]
                out.document("blame", **where, entries=rows)
        elif found.entries is None:
            out.lines(_lines(out, found.lines))
        else:
            out.lines(columns([_row(entry) for entry in found.entries]))


def _origin(found: BlamedLine | BlamedEntry) -> dict[str, Any]:
    return {
        "commit": str(found.id),
        "author": found.commit.author,
        "message": found.commit.message,
        "time": when(found.commit.time_us, exact=True),
    }


def _line_fields(line: BlamedLine) -> dict[str, Any]:
    text = line.content.decode()
    return {"number": line.number, "text": text, **named("path", line.path), **_origin(line)}


def _entry_fields(found: BlamedEntry) -> dict[str, Any]:
    return {**named("path", found.name), **entry_fields(found.entry), **_origin(found)}


def _row(found: BlamedEntry) -> tuple[str, ...]:
    commit = found.commit
    name = printable(found.name) + "/" * found.entry.is_tree
    author = printable(commit.author)
    return found.id.short, when(commit.time_us), author, name, subject(commit.message)


def _lines(out: Output, lines: Sequence[BlamedLine]) -> Iterator[str]:
    width = max((len(printable(line.commit.author)) for line in lines), default=0)
    digits = len(str(len(lines)))
    for line in lines:
        text = line.content.decode().rstrip("\n")
        shown = "\t".join(map(printable, text.split("\t")))
        id = out.paint(line.id.short, "yellow")
        author = out.paint(printable(line.commit.author).ljust(width), "dim")
        yield f"{id} {when(line.commit.time_us)} {author} {line.number:>{digits}}) {shown}".rstrip()


COMMANDS: Final = {"blame": blame_command}
