"""`cas export` and `cas import`: revisions as archives, archives as commits."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Final

import click

from cas.cli.files import write_file
from cas.cli.form import count, named, size
from cas.cli.front import Front, pass_front, tell_purged
from cas.cli.options import BRANCH, TARGET, CasCommand, default_author, raw_option
from cas.commands.archive import PartsReader, UnpackRequest, export_archive, import_archive
from cas.commands.objects import Counted, open_file
from cas.model.names import MAIN

_WRITE_BYTES: Final = 1 << 20


@click.command("export", cls=CasCommand)
@click.argument("target", metavar="REV[:PATH]", type=TARGET)
@click.option("--tar", "form", flag_value="tar", help="A tar archive; the default.")
@click.option("--zip", "form", flag_value="zip", help="A zip archive, not compressed.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write to this file, whole or not at all; - is stdout."
)
@pass_front
def export(front: Front, target: str, form: str | None, output: str | None) -> None:
    """Write a revision, or a part of it, as an archive.

    The same directory gives the same bytes whenever it is exported. Links and executable bits are
    kept. Without --tar or --zip the name of FILE decides. Files that were purged are left out and
    named, and the exit code is 3.
    """
    if form is None:
        form = "zip" if output is not None and output.lower().endswith(".zip") else "tar"
    to_stdout = output in (None, "-")
    if to_stdout and (front.out.json or sys.stdout.isatty()):
        raise click.UsageError("Name a file with -o; an archive is no text.")
    with front.store() as store:
        left_out: list[str] = []
        found, parts = export_archive(store, target, form, left_out)
        reader = PartsReader(parts)
        if to_stdout:
            while part := reader.read(_WRITE_BYTES):
                front.out.data(part)
            tell_purged(front, left_out)
            return
        assert output is not None
        write_file(output, reader)
    tell_purged(front, left_out)
    if front.out.json:
        front.out.document(
            "export",
            commit=str(found.snapshot.id),
            **named("path", found.path),
            id=str(found.entry.id),
            form=form,
            **named("file", output),
            size=reader.count_bytes,
            purged=[named("path", path) for path in left_out],
        )
    else:
        front.out.note(f"{output}: {size(reader.count_bytes)}")


@click.command("import", cls=CasCommand)
@click.option("--tar", metavar="FILE", required=True, help="The archive; - is standard input.")
@click.option("-b", "--branch", metavar="BRANCH", default=MAIN, type=BRANCH, help="Else main.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the commit says.")
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@click.option(
    "--trusted",
    is_flag=True,
    help="Take links that lead out, names that differ by case, and names of stores.",
)
@raw_option
@pass_front
def import_command(
    front: Front, tar: str, branch: str, message: str, author: str | None, trusted: bool
) -> None:
    """Save an archive as the next commit of a branch.

    The archive may be compressed with gzip or zstd, whatever its name. All of it is saved, or, if
    anything in it is not as it should be, nothing.
    """
    request = UnpackRequest(branch, author or default_author(), message, trusted)
    source = nullcontext(sys.stdin.buffer) if tar == "-" else open_file(tar)
    with source as file, front.store(write=True) as store:
        front.check_branches(store, branch)
        report = import_archive(store, Counted(file), request)
    if front.out.json:
        front.out.document(
            "import",
            commit=str(report.commit),
            tree=str(report.tree),
            branch=branch,
            entry=report.entry.seq,
            files=report.file_count,
            links=report.link_count,
            directories=report.directory_count,
            size=report.content_bytes,
            new_objects=report.new_count,
            new_bytes=report.new_bytes,
        )
        return
    front.out.line(str(report.commit))
    files = count(report.file_count + report.link_count, "file")
    front.out.note(
        f"{branch}: {files}, {size(report.content_bytes)}; "
        f"{count(report.new_count, 'new object')}, {size(report.new_bytes)}"
    )


COMMANDS: Final = {"export": export, "import": import_command}
