"""`cas purge`: content is removed from all history, and a tombstone stays."""

from __future__ import annotations

from typing import Any, Final

import click

from cas.cli.form import columns, count, size
from cas.cli.front import Front, pass_front
from cas.cli.options import TARGET, CasCommand, default_author
from cas.cli.values import removal_fields
from cas.commands.why import named_object
from cas.history.revision import when
from cas.history.tombstones import Tombstone
from cas.maintenance.purge import PurgePlan, PurgeResult, plan_purge, purge
from cas.model.entry import Entry
from cas.model.names import printable


@click.command("purge", cls=CasCommand)
@click.argument("what", metavar="[ID|REV:PATH]", required=False, type=TARGET)
@click.option("--reason", metavar="TEXT", default="", help="Why; it is needed, and kept.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would be done and do nothing.")
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@pass_front
def purge_command(
    front: Front, what: str | None, reason: str, dry_run: bool, author: str | None
) -> None:
    """Remove content from all history, for good.

    Without an argument the tombstones are listed. Afterwards no file of the store holds the
    bytes; commits go on naming them, and reading them tells when, why and by whom they were
    purged. It cannot be undone.
    """
    if what is None:
        if reason or dry_run or author:
            raise click.UsageError("Say what is to be purged.")
        with front.store() as store:
            stones = store.purged()
        _list(front, stones)
        return
    if not reason and not dry_run:
        raise click.UsageError("Say with --reason why it has to go.")
    with front.store(write=not dry_run) as store:
        id = named_object(store, what)
        if dry_run:
            _tell(front, plan_purge(store, id), None, dry_run=True)
            return
        done = purge(store, id, reason=reason, author=author or default_author())
    _tell(front, done.plan, done.entry, dry_run=False)
    _note(front, done)


def _list(front: Front, stones: list[Tombstone]) -> None:
    if front.out.json:
        rows = [
            {
                "id": str(stone.id),
                "size": stone.size_bytes,
                **removal_fields(stone),
            }
            for stone in stones
        ]
        front.out.document("purge", purged=rows)
        return
    lines = [
        (s.id.short, when(s.time_us), printable(s.author), size(s.size_bytes), printable(s.reason))
        for s in stones
    ]
    front.out.lines(columns(lines))


def _tell(front: Front, plan: PurgePlan, entry: Entry | None, *, dry_run: bool) -> None:
    out = front.out
    if out.json:
        fields: dict[str, Any] = {
            "id": str(plan.id),
            "size": plan.size_bytes,
            "parts": [str(part) for part in plan.part_ids],
            "shared": [str(part) for part in plan.shared_ids],
            "packs": plan.pack_count,
            "dependants": plan.dependent_count,
        }
        out.document("purge", **fields, entry=None if entry is None else entry.seq, dry_run=dry_run)
        return
    out.line(f"{plan.id} {size(plan.size_bytes)}")
    out.lines(f"stays, because other content has it: {part}" for part in plan.shared_ids)
    packs = count(plan.pack_count, "pack")
    hang = count(plan.dependent_count, "delta")
    if dry_run:
        out.note(f"would go: {packs} would be written anew, {hang} encoded anew")


def _note(front: Front, done: PurgeResult) -> None:
    begun = "" if done.entry is not None else " (it was begun before)"
    front.out.note(f"purged{begun}: no file of the store holds it any more")


COMMANDS: Final = {"purge": purge_command}
