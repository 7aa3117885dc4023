"""`cas ls`, `cas cat` and `cas show`: look into versions."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

import click

from cas.cli.form import columns, count, named, paragraph, size
from cas.cli.front import Front, pass_front
from cas.cli.objects import PART_BYTES
from cas.cli.options import TARGET, CasCommand
from cas.cli.values import (
    COLORS,
    LETTERS,
    about_removal,
    change_fields,
    commit_fields,
    entry_fields,
    removal_fields,
)
from cas.commands.browse import (
    CommitShown,
    EntryShown,
    Listed,
    ObjectShown,
    list_target,
    open_target,
    show,
)
from cas.history.revision import when
from cas.model.names import printable, to_text


@click.command("ls", cls=CasCommand)
@click.argument("target", metavar="REV[:PATH]", type=TARGET)
@click.option("-r", "-R", "--recursive", is_flag=True, help="All files below, with their paths.")
@click.option("-l", "--long", "long_form", is_flag=True, help="Kind, size and id of each.")
@click.option("-z", "--null", "nul", is_flag=True, help="Exact names, each ended by NUL.")
@pass_front
def ls(front: Front, target: str, recursive: bool, long_form: bool, nul: bool) -> None:
    """List the files of a revision.

    Directories end in a slash. REV is a branch, a tag or a commit id, with ~N for its N-th
    ancestor; PATH is a directory or file in it.
    """
    if nul and long_form:
        raise click.UsageError("-z lists names only; leave out -l, or use --json.")
    with front.store() as store:
        found, listed = list_target(store, target, recursive=recursive)
        if front.out.json:
            front.out.document(
                "ls",
                commit=str(found.snapshot.id),
                tree=str(found.entry.id) if found.entry.is_tree else None,
                **named("path", found.path),
                entries=[{**named("path", row.path), **entry_fields(row.entry)} for row in listed],
            )
        elif long_form and recursive:
            front.out.lines(map(_long_line, listed))
        elif long_form:
            front.out.lines(columns(map(_long, listed), frozenset((1,))))
        else:
            names = (row.path + "/" * (row.entry.is_tree and not nul) for row in listed)
            front.out.names(names, nul=nul)


def _long(row: Listed) -> tuple[str, ...]:
    kind, path = row.entry.kind.name.lower(), printable(row.path)
    return kind, f"{row.entry.size:,}", row.entry.id.short, path + "/" * row.entry.is_tree


def _long_line(row: Listed) -> str:
    """A line that stands in columns without having seen the others: a tree can be of any size."""
    kind, size_text, id, path = _long(row)
    return f"{kind:<10}  {size_text:>15}  {id}  {path}"


@click.command("cat", cls=CasCommand)
@click.argument("target", metavar="REV:PATH", type=TARGET)
@pass_front
def cat(front: Front, target: str) -> None:
    """Print a file of a revision.

    For a link its target is printed. With --json the content comes as base64.
    """
    with front.store() as store:
        found, reader = open_target(store, target)
        if front.out.json:
            front.out.document(
                "cat",
                commit=str(found.snapshot.id),
                **named("path", found.path),
                **entry_fields(found.entry),
                content_base64=b64encode(reader.read()).decode("ascii"),
            )
            return
        while part := reader.read(PART_BYTES):
            front.out.data(part)


@click.command("show", cls=CasCommand)
@click.argument("target", metavar="REV[:PATH]|ID", type=TARGET)
@pass_front
def show_command(front: Front, target: str) -> None:
    """Tell what a commit, a path or an object is.

    A commit is shown with what it changed from its first parent; `cas cat` prints files.
    """
    with front.store() as store:
        shown = show(store, target)
        if isinstance(shown, CommitShown):
            _show_commit(front, shown)
        elif isinstance(shown, EntryShown):
            _show_entry(front, shown)
        else:
            _show_object(front, shown)


def _show_commit(front: Front, shown: CommitShown) -> None:
    out, commit = front.out, shown.commit
    if out.json:
        changes = [change_fields(change) for change in shown.changes]
        fields = commit_fields(shown.id, commit, shown.thinned)
        base = None if shown.base is None else str(shown.base)
        out.document(
            "show", kind="commit", **fields, size=shown.size_bytes, base=base, changes=changes
        )
        return
    out.line(out.paint(f"commit {shown.id}", "yellow"))
    out.line(f"tree    {commit.tree}")
    out.lines(f"parent  {parent}" for parent in commit.parents)
    out.line(f"author  {printable(commit.author)}")
    out.line(f"time    {when(commit.time_us)}")
    if shown.size_bytes is not None:
        out.line(f"size    {shown.size_bytes:,} bytes")
    if shown.thinned is not None:
        out.line(out.paint(f"thinned {about_removal(shown.thinned)}", "red"))
    if commit.conflicts is not None:
        out.note("it holds conflicts: `cas conflicts` lists them")
    if commit.message.strip():
        out.lines(["", *paragraph(commit.message)])
    if shown.thinned is not None:
        out.note("its content was given up; its record stays")
        return
    out.line("")
    change_count = 0
    for change in shown.changes:
        change_count += 1
        letter = LETTERS[change.kind]
        out.line(out.paint(letter, COLORS[letter]) + " " + printable(change.path))
    origin = "its first parent" if shown.base in commit.parents[:1] else "nothing"
    if shown.base is not None and shown.base not in commit.parents:
        origin = f"{shown.base.short}, the nearest before it that was not thinned"
    out.note(f"{count(change_count, 'change')} from {origin}")


def _show_entry(front: Front, shown: EntryShown) -> None:
    out, target = front.out, shown.target
    entry = target.entry
    if out.json:
        extra: dict[str, Any] = {}
        if shown.link is not None:
            extra = named("link", to_text(shown.link))
        if shown.entry_count is not None:
            extra = {"entry_count": shown.entry_count}
        if shown.purged is not None:
            extra = {"purged": removal_fields(shown.purged)}
        commit = str(target.snapshot.id)
        out.document(
            "show", commit=commit, **named("path", target.path), **entry_fields(entry), **extra
        )
        return
    rows = [("kind", entry.kind.name.lower()), ("id", str(entry.id))]
    rows.append(("size", f"{entry.size:,} bytes"))
    if shown.link is not None:
        rows.append(("link", printable(shown.link)))
    if shown.entry_count is not None:
        rows.append(("entries", f"{shown.entry_count:,}"))
    if shown.purged is not None:
        rows.append(("purged", about_removal(shown.purged)))
    rows.append(("commit", str(target.snapshot.id)))
    out.lines(columns(rows))


def _show_object(front: Front, shown: ObjectShown) -> None:
    out, tag = front.out, shown.tag
    kind = shown.kind.name.lower()
    if out.json:
        about: dict[str, Any] = {}
        if tag is not None:
            about = {
                "target": str(tag.target),
                "tagger": printable(tag.tagger),
                "message": tag.message,
                "time": when(tag.time_us, exact=True),
            }
        fields = {"id": str(shown.id), "size": shown.size_bytes, "stored": shown.stored_bytes}
        out.document("show", kind=kind, **fields, **about)
        return
    rows = [("kind", kind), ("id", str(shown.id))]
    rows.append(("size", f"{shown.size_bytes:,} bytes, {size(shown.stored_bytes)} stored"))
    if tag is not None:
        rows += [("target", str(tag.target)), ("tagger", printable(tag.tagger))]
        rows.append(("time", when(tag.time_us)))
    out.lines(columns(rows))
    if tag is not None and tag.message.strip():
        out.lines(["", *paragraph(tag.message)])


COMMANDS: Final = {"ls": ls, "cat": cat, "show": show_command}
