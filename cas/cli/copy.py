"""`cas copy`: from one store into another."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import count, named, size
from cas.cli.front import Front, pass_front
from cas.cli.options import FOLDER, CasCommand, default_author
from cas.cli.progress import Bar
from cas.commands.copying import copy, is_store
from cas.errors import StoreNotFound
from cas.maintenance.copying import CopyReport, RefCopy
from cas.model.names import printable, short_ref


@click.command("copy", cls=CasCommand)
@click.argument("source", metavar="SRC", type=FOLDER)
@click.argument("target", metavar="DST", type=FOLDER)
@click.argument("names", metavar="[BRANCH|TAG]...", nargs=-1)
@click.option("--bucket", metavar="URL", help="Where the packs of a new store lie, as in init.")
@click.option("--force", is_flag=True, help="Move branches and tags that are elsewhere in DST.")
@click.option("--thinned", is_flag=True, help="Take thinned commits as their records.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the entry in DST says.")
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@pass_front
def copy_command(
    front: Front,
    source: str,
    target: str,
    names: tuple[str, ...],
    bucket: str | None,
    force: bool,
    thinned: bool,
    message: str,
    author: str | None,
) -> None:
    """Copy a store, or branches and tags of it, into another.

    Without names DST becomes a copy of the whole store: ids, refs and journal, in a lineage of its
    own. A copy that has no entries of its own is brought up to SRC. With names the store at DST
    takes these with all that they reach, as one entry. Only what DST lacks is copied, and what
    comes is verified.
    """
    from cas.assembly import open as open_store

    who = author or default_author()
    with open_store(source, read_only=True) as original, Bar(front.settings) as bar:
        if not is_store(target):
            if names:
                raise StoreNotFound(
                    f"There is no store at {target}; make one with `cas init {target}`.",
                    path=target,
                )
            report = copy(original, target, bucket=bucket, progress=bar.check)
        else:
            with open_store(target) as other:
                report = copy(
                    original,
                    other,
                    names,
                    force=force,
                    thinned=thinned,
                    author=who,
                    message=message,
                    bucket=bucket,
                    progress=bar.check,
                )
    if front.out.json:
        front.out.document("copy", **_fields(report))
        return
    front.out.line(f"{printable(report.place)} @{report.seq}")
    front.out.lines(map(_line, report.refs))
    if report.created:
        front.out.note(f"a copy of {count(report.entry_count, 'entry', 'entries')}, as a fork")
    elif report.entry_count:
        objects = f"{count(report.object_count, 'object')}, {size(report.new_bytes)}"
        front.out.note(f"new: {objects}, {count(report.entry_count, 'entry', 'entries')}")
    else:
        front.out.note("nothing was lacking")
    if report.purged:
        purged = count(len(report.purged), "content")
        front.out.note(f"{purged} purged from SRC came as tombstone, and is not in DST either")
    if report.left_out:
        left = count(len(report.left_out), "content")
        front.out.note(f"left out: {left} purged from DST, which `cas show ID` tells of there")


def _line(ref: RefCopy) -> str:
    old = "new" if ref.old is None else ref.old.short
    return f"{printable(short_ref(ref.ref))} {old} -> {ref.new.short}"


def _fields(report: CopyReport) -> dict[str, Any]:
    return {
        **named("path", report.place),
        "created": report.created,
        "entry": report.seq,
        "refs": [
            {"ref": ref.ref, "old": None if ref.old is None else str(ref.old), "new": str(ref.new)}
            for ref in report.refs
        ],
        "new_objects": report.object_count,
        "new_bytes": report.new_bytes,
        "new_entries": report.entry_count,
        "purged": [str(id) for id in report.purged],
        "left_out": [str(id) for id in report.left_out],
    }


COMMANDS: Final = {"copy": copy_command}
