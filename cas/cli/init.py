"""`cas init`: where a store begins, and where a copy of one goes on."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import click

from cas.assembly import STORE_FOLDER, adopt, init, named_by, shown_place
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand
from cas.cli.progress import telling
from cas.later import Later
from cas.storage.address import parse_address

if TYPE_CHECKING:
    from cas.storage import connect
else:
    connect = Later("cas.storage.connect")

_NOTES: Final = {
    None: ("made a store", "there is a store already"),
    "fork": ("a copy: it goes on with a history of its own", "nothing to do: it was not copied"),
    "moved": ("the store goes on here", "nothing to do: it was not moved"),
}


@click.command("init", cls=CasCommand)
@click.argument("path", metavar="[PATH]", required=False, type=click.Path(file_okay=False))
@click.option(
    "--bucket",
    metavar="URL",
    help="Keep the packs in an object store: s3://BUCKET/PREFIX, a prefix of its own.",
)
@click.option("--fork", is_flag=True, help="PATH is a copy of a store that goes on elsewhere.")
@click.option("--moved", is_flag=True, help="PATH is a store that was moved or brought back.")
@pass_front
def init_command(
    front: Front, path: str | None, bucket: str | None, fork: bool, moved: bool
) -> None:
    """Make a store.

    PATH itself becomes the store: a folder that is missing or empty. Without it the store is
    made where --store or CAS_STORE says, else in .cas, or where a file of that name says. A
    store that is there already is left as it is. With --bucket the packs lie in an object store,
    whose server is tried out first; credentials come from AWS_PROFILE, AWS_ACCESS_KEY_ID and the
    like. With --fork or --moved no store is made: they say what happened to one that is refused
    because its folder was copied or moved. A store on a server that lacks what was seen of it from
    here goes on with --moved.
    """
    if fork and moved:
        raise click.UsageError("Say --fork or --moved, not both.")
    if bucket and (fork or moved):
        raise click.UsageError("Where packs lie is settled already; leave --bucket out.")
    settle = "fork" if fork else "moved" if moved else None
    place = path
    if place is None:
        named = front.settings.store
        place = (
            named if named is not None else os.environ.get("CAS_STORE") or named_by(STORE_FOLDER)
        )
    if place in ("", ":memory:"):
        raise click.UsageError(f"A store is a folder, not {place!r}; name one.")
    with telling(front.out, f"trying out {_shown(bucket)}") if bucket else nullcontext():
        done = init(place, bucket=bucket) if settle is None else adopt(place, fork=fork)
    folder = shown_place(place)
    if front.out.json:
        created, settled = done and settle is None, settle if done else None
        front.out.document("init", path=folder, created=created, settled=settled)
        return
    front.out.line(folder)
    front.out.note(_NOTES[settle][0 if done else 1])


def _shown(bucket: str) -> str:
    return connect.shown(parse_address(bucket)) if "://" in bucket else bucket


COMMANDS: Final = {"init": init_command}
