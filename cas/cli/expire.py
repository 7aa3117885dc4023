"""`cas expire`: old positions of a backup are given up, by rules, after it was shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from cas.cli.form import columns, count, named, size
from cas.cli.front import Front, pass_front
from cas.cli.options import FOLDER, CasCommand
from cas.cli.retain import keep_options
from cas.commands.backup import expire, plan_expiry
from cas.history.retention import COUNTS, KeepRule, Span
from cas.history.revision import when

if TYPE_CHECKING:
    from cas.maintenance.backups.expire import BackupState, Expired, ExpiryPlan


@click.command("expire", cls=CasCommand)
@click.argument("place", metavar="DEST", type=FOLDER)
@keep_options
@click.option("--keep-within", metavar="SPAN", help="What is no older than SPAN than the newest.")
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would go and do nothing.")
@pass_front
def expire_command(
    front: Front, /, place: str, keep_within: str | None, dry_run: bool, **counts: int | None
) -> None:
    """Give up old positions of a backup, by rules.

    Each run of `cas backup` made one. Those that no rule keeps go, with the packs that only they
    need; the newest stays, and the journal stays whole. An entry whose position went can be
    restored as long as the next position that stays has its objects. No store is needed.
    """
    given = {name: n for name in COUNTS if (n := counts[f"keep_{name}"]) is not None}
    if not given and keep_within is None:
        raise click.UsageError("Say with --keep-... what is to stay.")
    span = None if keep_within is None else Span.parse(keep_within)
    plan = plan_expiry(place, KeepRule("*", within=span, **given))
    done = None if dry_run or plan.is_empty else expire(plan)
    _tell(front, plan, done, dry_run=dry_run)


def _tell(front: Front, plan: ExpiryPlan, done: Expired | None, *, dry_run: bool) -> None:
    out = front.out
    if out.json:
        out.document(
            "expire",
            **named("backup", plan.place),
            dry_run=dry_run,
            going=[_fields(state) for state in plan.going],
            kept=[{**_fields(state), "reasons": list(state.reasons)} for state in plan.kept],
            packs=plan.pack_count,
            pack_bytes=plan.pack_bytes,
            files=0 if done is None else done.file_count,
            freed=0 if done is None else done.freed_bytes,
        )
        return
    rows = [("gone" if done else "goes", state, "") for state in plan.going]
    rows += [("keep", state, "; ".join(state.reasons)) for state in plan.kept]
    rows.sort(key=lambda row: row[1].increment)
    out.lines(columns([(word, f"@{s.seq}", when(s.time_us), why) for word, s, why in rows]))
    if plan.is_empty:
        out.note("nothing to do")
    elif done is None:
        packs = f"{count(plan.pack_count, 'pack')} ({size(plan.pack_bytes)})"
        out.note(f"{count(len(plan.going), 'position')} would go, with {packs}")
    else:
        out.note(f"{count(len(plan.going), 'position')} went, {size(done.freed_bytes)} are free")


def _fields(state: BackupState) -> dict[str, Any]:
    return {"seq": state.seq, "time": when(state.time_us, exact=True)}


COMMANDS: Final = {"expire": expire_command}
