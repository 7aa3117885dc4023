"""`cas retain`: the content of old commits is given up, by rules, after it was shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import evolve

from cas.cli.form import columns, count, named, size, subject
from cas.cli.front import Front, pass_front
from cas.cli.options import CasCommand, default_author
from cas.errors import RefNotFound
from cas.history.retain import GivenUp, Retained, RetentionPlan
from cas.history.retention import (
    COUNTS,
    FOREVER,
    HorizonRule,
    KeepRule,
    RetentionPolicy,
    Span,
    branch_pattern,
)
from cas.history.revision import when
from cas.history.store import Store
from cas.later import Later
from cas.model.names import printable

if TYPE_CHECKING:
    from cas.cli import gc as collecting
    from cas.history.upkeep import GcPlan, GcResult
else:
    collecting = Later("cas.cli.gc")


def _number(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number, or `unlimited`."""
    if value is None or value == "unlimited":
        return None if value is None else FOREVER
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise click.BadParameter(f"{value!r} is no number; write one, or unlimited.")
    return int(value)


_HELP: Final = {
    "last": "The newest N commits.",
    "hourly": "The newest commit of each of the newest N hours that have one.",
    "daily": "Of days.",
    "weekly": "Of weeks.",
    "monthly": "Of months.",
    "yearly": "Of years.",
}


def keep_options(function: Any) -> Any:
    """The options that say how many of what are kept, for commands with rules."""
    for name in reversed(COUNTS):
        option = click.option(f"--keep-{name}", metavar="N", callback=_number, help=_HELP[name])
        function = option(function)
    return function


@click.command("retain", cls=CasCommand)
@click.option("--ref", "pattern", metavar="PATTERN", help="Branches the rule is for; else all.")
@keep_options
@click.option("--keep-within", metavar="SPAN", help="What is no older than SPAN than the newest.")
@click.option("--horizon", metavar="SPAN", help="Undo and `@{...}` reach back that far (30d).")
@click.option(
    "--horizon-entries",
    metavar="N",
    type=click.IntRange(min=0),
    help="And at least N entries.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Tell what would go and do nothing.")
@click.option("--paths", is_flag=True, help="Tell the versions of files that go, too.")
@click.option("--kept", is_flag=True, help="Tell what stays, and why, too.")
@click.option("--gc", "collect", is_flag=True, help="And give back the space, as `cas gc` does.")
@click.option("--save", is_flag=True, help="Keep the rule in the store, and do nothing else.")
@click.option("--list", "listed", is_flag=True, help="List the rules of the store.")
@click.option("-d", "--delete", metavar="PATTERN", help="Take the rule of PATTERN out.")
@click.option("-m", "--message", metavar="TEXT", default="", help="What the entry says.")
@pass_front
def retain(
    front: Front,
    /,
    pattern: str | None,
    keep_within: str | None,
    horizon: str | None,
    horizon_entries: int | None,
    dry_run: bool,
    paths: bool,
    kept: bool,
    collect: bool,
    save: bool,
    listed: bool,
    delete: str | None,
    message: str,
    **counts: int | None,
) -> None:
    """Give up the content of old commits, by rules.

    A commit that no rule keeps is thinned: its record stays in the log, its files cannot be read
    any more, and the next `cas gc` makes room, or --gc at once. What a branch, tag or pin points
    at now, or did since the horizon, stays. Without rules those go that the store has.
    """
    rule = _rule(pattern, keep_within, counts)
    far = _horizon(horizon, horizon_entries)
    doing = dry_run or paths or kept or collect
    if (listed or delete) and (rule or far or doing or save or message):
        raise click.UsageError("--list and --delete go alone.")
    if listed and delete:
        raise click.UsageError("--list and --delete go alone.")
    if save and (doing or not (rule or far)):
        raise click.UsageError("--save takes rules, and does nothing with them yet.")
    if listed or delete or save:
        _policy(front, rule, far, delete, write=not listed)
        return
    author = default_author()
    with front.store(write=not dry_run) as store:
        plan = store.plan_retention(_wanted(store, rule, far))
        versions = list(store.given_up(plan)) if paths else []
        done = Retained(plan, None)
        if not dry_run:
            done = store.apply(plan, author=author, message=message)
        if not front.out.json:
            # Before the collection, which may fail where this was done.
            _tell(front, done, dry_run, versions if paths else None, kept=kept)
        found: GcPlan | GcResult | None = None
        if collect:
            found = store.plan_gc(after=plan) if dry_run else store.gc()
    if front.out.json:
        _document(front, done, dry_run, versions if paths else None, found, kept=kept)
    elif found is not None:
        collecting.tell(front, found)


def _rule(
    pattern: str | None, within: str | None, counts: dict[str, int | None]
) -> KeepRule | None:
    """The rule that options ask for, if any does."""
    given = {name: n for name in COUNTS if (n := counts[f"keep_{name}"]) is not None}
    if not given and within is None:
        if pattern is not None:
            raise click.UsageError("Say with --keep-... what is to stay.")
        return None
    span = None if within is None else Span.parse(within)
    return KeepRule(branch_pattern("*" if pattern is None else pattern), within=span, **given)


def _horizon(within: str | None, entries: int | None) -> HorizonRule | None:
    if within is None and entries is None:
        return None
    rule = HorizonRule()
    if within is not None:
        rule = evolve(rule, within=Span.parse(within))
    return rule if entries is None else evolve(rule, entries=entries)


def _wanted(store: Store, rule: KeepRule | None, far: HorizonRule | None) -> RetentionPolicy | None:
    """What the options say; where they say nothing, what the store says."""
    known = store.retention()
    if rule is None and far is None:
        return known
    policy = known or RetentionPolicy()
    if rule is not None:
        policy = RetentionPolicy((rule,), policy.horizon)
    return policy if far is None else evolve(policy, horizon=far)


# -- rules of the store ----------------------------------------------------------------------------


def _policy(
    front: Front,
    rule: KeepRule | None,
    far: HorizonRule | None,
    delete: str | None,
    *,
    write: bool,
) -> None:
    with front.store(write=write) as store:
        policy = store.retention()
        if write:
            wanted = policy or RetentionPolicy()
            if delete is not None:
                pattern = branch_pattern(delete)
                rules = tuple(known for known in wanted.rules if known.pattern != pattern)
                if len(rules) == len(wanted.rules):
                    raise RefNotFound(
                        f"No rule has the pattern {pattern!r}; `cas retain --list` lists them.",
                        ref=pattern,
                    )
                wanted = evolve(wanted, rules=rules)
            if rule is not None:
                wanted = wanted.with_rule(rule)
            if far is not None:
                wanted = evolve(wanted, horizon=far)
            store.set_retention(wanted, author=default_author())
            policy = wanted
    if front.out.json:
        front.out.document("retain", **_policy_fields(policy))
    elif policy is not None:
        rows = [(printable(rule.pattern), str(rule)) for rule in policy.rules]
        far = policy.horizon
        rows.append(("horizon", f"{far.within}, {count(far.entries, 'entry', 'entries')}"))
        front.out.lines(columns(rows))


def _policy_fields(policy: RetentionPolicy | None) -> dict[str, Any]:
    if policy is None:
        return {"rules": [], "horizon": None}
    return {
        "rules": [
            {
                "pattern": rule.pattern,
                "keep": {name: getattr(rule, name) for name in COUNTS if getattr(rule, name)},
                "within": None if rule.within is None else str(rule.within),
            }
            for rule in policy.rules
        ],
        "horizon": {
            "within": str(policy.horizon.within),
            "entries": policy.horizon.entries,
        },
    }


# -- what goes -------------------------------------------------------------------------------------


def _document(
    front: Front,
    done: Retained,
    dry_run: bool,
    versions: list[GivenUp] | None,
    collected: GcPlan | GcResult | None,
    *,
    kept: bool,
) -> None:
    plan = done.plan
    more: dict[str, Any] = {}
    if collected is not None:
        more["gc"] = collecting.fields(collected)
    if versions is not None:
        more["paths"] = [
            {
                "commit": str(found.id),
                **named("path", found.path),
                "id": str(found.entry.id),
                "size": found.entry.size,
            }
            for found in versions
        ]
    if kept:
        more["kept"] = [
            {"commit": str(item.id), "reasons": list(map(printable, item.reasons))}
            for item in plan.kept
        ]
    front.out.document(
        "retain",
        entry=None if done.entry is None else done.entry.seq,
        dry_run=dry_run,
        horizon={"before": plan.horizon_before, "after": plan.horizon},
        going=[
            {
                "commit": str(item.id),
                "refs": list(item.refs),
                "reason": printable(item.reason),
                "author": printable(item.commit.author),
                "message": item.commit.message,
                "time": when(item.commit.time_us, exact=True),
            }
            for item in plan.going
        ],
        **more,
    )


def _tell(
    front: Front, done: Retained, dry_run: bool, versions: list[GivenUp] | None, *, kept: bool
) -> None:
    plan, out = done.plan, front.out
    out.lines(_lines(plan, versions or [], kept=kept, thin=out.paint("thin", "red")))
    out.note(_summary(done, dry_run, versions))


def _lines(plan: RetentionPlan, versions: list[GivenUp], *, kept: bool, thin: str) -> Iterator[str]:
    by_commit: dict[bytes, list[GivenUp]] = {}
    for found in versions:
        by_commit.setdefault(found.id, []).append(found)
    for item in plan.going:
        commit = item.commit
        about = f"{thin} {item.id.short} {when(commit.time_us)} {subject(commit.message)}".rstrip()
        yield f"{about} ({printable(item.reason)})"
        for found in by_commit.get(item.id, ()):
            yield f"     {size(found.entry.size):>8}  {printable(found.path)}"
    for stays in plan.kept if kept else ():
        yield f"keep {stays.id.short} {printable('; '.join(stays.reasons))}"


def _summary(done: Retained, dry_run: bool, versions: list[GivenUp] | None) -> str:
    plan = done.plan
    if plan.is_empty:
        if any(all(why.startswith("undo") for why in stays.reasons) for stays in plan.kept):
            return "nothing to do: undo reaches back to what no rule keeps (--kept, --horizon)"
        return "nothing to do"
    parts = [f"{count(len(plan.going), 'commit')} {'would give' if dry_run else 'gave'} up content"]
    if versions is not None:
        total = sum(found.entry.size for found in versions)
        parts.append(f"{count(len(versions), 'version')} of files ({size(total)})")
    if plan.horizon != plan.horizon_before:
        parts.append(f"the horizon {'would go' if dry_run else 'went'} to entry {plan.horizon}")
    parts.append(
        f"{count(len(plan.kept), 'commit')} of these branches {'stay' if dry_run else 'stayed'}"
    )
    return "; ".join(parts)


COMMANDS: Final = {"retain": retain}
