"""`cas init`: where a store begins."""

from __future__ import annotations

import os
from typing import Final

import click

from cas.assembly import STORE_FOLDER, init
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand


@click.command("init", cls=CasCommand)
@click.argument("path", metavar="[PATH]", required=False, type=click.Path(file_okay=False))
@pass_front
def init_command(front: Front, path: str | None) -> None:
    """Make a store.

    PATH itself becomes the store: a folder that is missing or empty. Without it the store is
    made where --store or CAS_STORE says, else in .cas. A store that is there already is left
    as it is.
    """
    place = path
    if place is None:
        named = front.settings.store
        place = named if named is not None else os.environ.get("CAS_STORE") or STORE_FOLDER
    if place in ("", ":memory:"):
        raise click.UsageError(f"A store is a folder, not {place!r}; name one.")
    made = init(place)
    folder = os.path.abspath(place)
    if front.out.json:
        front.out.document("init", path=folder, created=made)
        return
    front.out.line(folder)
    front.out.note("made a store" if made else "there is a store already")


COMMANDS: Final = {"init": init_command}
