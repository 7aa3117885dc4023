"""`cas log` and `cas journal`: what happened to a branch, and to the whole store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from cas.cli.form import columns, paragraph, subject
from cas.cli.front import Front, pass_front
from cas.cli.options import REVISION, CasCommand
from cas.cli.output import Output
from cas.cli.values import about_removal, commit_fields, journal_fields
from cas.commands.history import Logged, journal, log
from cas.history.revision import when
from cas.model.entry import Entry
from cas.model.names import printable, short_ref

_COUNT = click.IntRange(min=0)


@click.command("log", cls=CasCommand)
@click.argument("revision", metavar="[REV]", required=False, type=REVISION)
@click.option("-n", "--limit", metavar="N", type=_COUNT, help="At most so many commits.")
@click.option("-l", "--long", "long_form", is_flag=True, help="Whole ids, parents and messages.")
@click.option("--path", metavar="PATH", default="", help="Only commits that changed this path.")
@click.option("--follow", is_flag=True, help="Go on under older names of the file at --path.")
@click.option("--graph", is_flag=True, help="Draw how the commits follow each other.")
@pass_front
def log_command(
    front: Front,
    revision: str | None,
    limit: int | None,
    long_form: bool,
    path: str,
    follow: bool,
    graph: bool,
) -> None:
    """Show the commits that led to a revision.

    Newest first; without REV those of the branch main. REV may be a range, A..B or A...B. A line
    is: id, time, author, names, subject; [thinned] marks a commit whose content was given up.
    """
    if graph and (long_form or path):
        raise click.UsageError("--graph draws all commits in short; leave out --long and --path.")
    if follow and not path:
        raise click.UsageError("--follow needs --path: it is a file that is followed.")
    out = front.out
    with front.store(remember=bool(path)) as store:
        commits = log(store, revision, limit=limit, path=path, follow=follow)
        if out.json:
            rows = [
                {**commit_fields(c.id, c.commit, c.thinned), "names": list(c.names)}
                for c in commits
            ]
            out.document("log", commits=rows)
        elif long_form:
            out.lines(line for commit in commits for line in _long(out, commit))
        elif graph:
            out.lines(_drawn(out, list(commits)))
        else:
            out.lines(_short(out, commit) for commit in commits)


def _drawn(out: Output, rows: list[Logged]) -> Iterator[str]:
    """The graph beside the short form; only parents that are shown are drawn."""
    from cas.cli.graph import draw

    shown = {row.id for row in rows}
    pairs = ((row.id, [p for p in row.commit.parents if p in shown]) for row in rows)
    for row, (mark, below) in zip(rows, draw(pairs), strict=True):
        yield f"{mark} {_short(out, row)}"
        yield from below


def _short(out: Output, row: Logged) -> str:
    commit = row.commit
    names = out.paint(f" ({', '.join(map(printable, row.names))})", "green") if row.names else ""
    id = out.paint(row.id.short, "yellow")
    author = out.paint(printable(commit.author), "dim")
    mark = "" if row.thinned is None else out.paint(" [thinned]", "red")
    text = f"{id} {when(commit.time_us)} {author}{names}{mark} {subject(commit.message)}"
    return text.rstrip()


def _long(out: Output, row: Logged) -> Iterator[str]:
    commit = row.commit
    yield out.paint(f"commit {row.id}", "yellow")
    yield f"tree    {commit.tree}"
    for parent in commit.parents:
        yield f"parent  {parent}"
    if row.names:
        yield "names   " + out.paint(", ".join(map(printable, row.names)), "green")
    yield f"author  {printable(commit.author)}"
    yield f"time    {when(commit.time_us)}"
    if row.thinned is not None:
        yield out.paint(f"thinned {about_removal(row.thinned)}", "red")
    if commit.message.strip():
        yield ""
        yield from paragraph(commit.message)
    yield ""


@click.command("journal", cls=CasCommand)
@click.option("--after", metavar="SEQ", type=_COUNT, default=0, help="Entries behind this one.")
@click.option("-n", "--limit", metavar="N", type=_COUNT, help="Only the newest N of them.")
@click.option("-l", "--long", "long_form", is_flag=True, help="All that an entry holds.")
@pass_front
def journal_command(front: Front, after: int, limit: int | None, long_form: bool) -> None:
    """Show what was done to the store, and by whom.

    Oldest first. Each entry is one transaction: the refs that it moved together, and its events.
    The hash of every entry, and that it follows the one before, is checked while it is read.
    """
    out = front.out
    with front.store() as store:
        entries = journal(store, after=after, newest=limit)
        if out.json:
            out.document("journal", entries=[journal_fields(entry) for entry in entries])
        elif long_form:
            out.lines(line for entry in entries for line in _long_entry(out, entry))
        else:
            out.lines(_entry_line(out, entry) for entry in entries)


def _entry_line(out: Output, entry: Entry) -> str:
    moved = ", ".join(
        ("-" if change.new is None else "") + printable(short_ref(change.ref))
        for change in entry.changes[:4]
    )
    if len(entry.changes) > 4:
        moved += f" and {len(entry.changes) - 4} more"
    seq = out.paint(f"{entry.seq:>6}", "yellow")
    actor = out.paint(printable(entry.actor), "dim")
    names = out.paint(f"[{moved}]", "green") if moved else "[]"
    return f"{seq} {when(entry.time_us)} {actor} {names} {subject(entry.message)}".rstrip()


def _long_entry(out: Output, entry: Entry) -> Iterator[str]:
    yield out.paint(f"entry {entry.seq}", "yellow")
    rows = [("time", when(entry.time_us)), ("actor", printable(entry.actor))]
    rows.append(("txid", entry.txid.hex()))
    for change in entry.changes:
        old = "nothing" if change.old is None else str(change.old)
        new = "nothing" if change.new is None else str(change.new)
        rows.append(("moved", f"{printable(change.ref)} {old} -> {new}"))
    for event in entry.events:
        body = f"blob {event.blob}" if event.blob else f"{len(event.body or b'')} bytes"
        rows.append(("event", f"{printable(event.type)}, {body}"))
    rows += [("root", entry.root.hex()), ("before", entry.previous.hex())]
    yield from columns(rows)
    if entry.message.strip():
        yield ""
        yield from paragraph(entry.message)
    yield ""


COMMANDS: Final = {"log": log_command, "journal": journal_command}
