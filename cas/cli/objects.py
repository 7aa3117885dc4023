"""`cas put` and `cas get`: objects by their ids."""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from typing import Final

import click

from cas.cli.files import write_file
from cas.cli.form import count, named, size
from cas.cli.front import Front, pass_front
from cas.cli.memory import is_large, keep_heap_small
from cas.cli.options import CasCommand, default_author
from cas.commands.objects import open_object, put_files

PART_BYTES: Final = 1 << 20


@click.command(cls=CasCommand)
@click.argument("files", metavar="FILE|-...", nargs=-1, required=True)
@click.option("--allow-purged", is_flag=True, help="Take in what was purged; the journal shows it.")
@pass_front
def put(front: Front, files: tuple[str, ...], allow_purged: bool) -> None:
    """Store files as objects and print their ids.

    FILE is a file, - is standard input. The id is what `b3sum` prints for the same bytes. All
    are durable when the command returns, or none is; with --allow-purged one after the other.
    """
    if files.count("-") > 1:
        raise click.UsageError("Standard input can be stored once; name - once.")
    if any(map(is_large, files)):
        keep_heap_small()
    with front.store(write=True) as store:
        again = default_author() if allow_purged else None
        stored = put_files(store, files, sys.stdin.buffer, purged_by=again)
    if front.out.json:
        objects = [{"id": str(s.id), "size": s.size_bytes, **named("file", s.name)} for s in stored]
        front.out.document("put", objects=objects)
        return
    front.out.lines(str(s.id) for s in stored)
    total = sum(s.size_bytes for s in stored)
    front.out.note(f"{count(len(stored), 'object')}, {size(total)}")


@click.command(cls=CasCommand)
@click.argument("id", metavar="ID")
@click.option(
    "-o", "--output", metavar="FILE", help="Write to this file, whole or not at all; - is stdout."
)
@pass_front
def get(front: Front, id: str, output: str | None) -> None:
    """Print or write the content of an object.

    ID is an object id or its first 8 digits or more. Every byte is checked against the id
    before it is given. With --json and no file the content comes as base64.
    """
    with front.store() as store:
        found, reader = open_object(store, id)
        if output not in (None, "-"):
            assert output is not None
            write_file(output, reader)
            if front.out.json:
                front.out.document(
                    "get", id=str(found), size=reader.size, **named("file", os.fspath(output))
                )
            else:
                front.out.note(f"{output}: {size(reader.size)}")
        elif front.out.json:
            content = b64encode(reader.read()).decode("ascii")
            front.out.document("get", id=str(found), size=reader.size, content_base64=content)
        else:
            while part := reader.read(PART_BYTES):
                front.out.data(part)


COMMANDS: Final = {"put": put, "get": get}
