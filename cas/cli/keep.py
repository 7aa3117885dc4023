"""`cas pin`, `cas unpin`, `cas hold` and `cas protect`: keep objects, and protect refs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from cas.cli.form import columns
from cas.cli.front import Front, pass_front
from cas.cli.options import REVISION, CasCommand, default_author
from cas.history.kept import Hold, Pin
from cas.history.policy import Protection, RefRule
from cas.history.revision import when
from cas.model.names import printable


@click.command("pin", cls=CasCommand)
@click.argument("what", metavar="[REV|ID]", required=False, type=REVISION)
@click.option("-m", "--message", metavar="TEXT", default="", help="Why it is kept.")
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@pass_front
def pin(front: Front, what: str | None, message: str, author: str | None) -> None:
    """Keep an object whatever becomes of the refs.

    Without an argument the pins are listed. A revision pins its commit; an id pins a blob, a
    directory, a commit or a tag. All that it names is kept with it.
    """
    if what is None:
        if message or author:
            raise click.UsageError("Say what is to be pinned.")
        with front.store() as store:
            found = store.pins()
        _tell(front, found)
        return
    with front.store(write=True) as store:
        made = store.pin(what, message, author=author or default_author())
    if front.out.json:
        _tell(front, [made])
    else:
        front.out.line(str(made.id))


def _tell(front: Front, pins: Sequence[Pin | Hold], schema: str = "pin") -> None:
    if front.out.json:
        front.out.document(schema, **{f"{schema}s": [_pin_fields(pin) for pin in pins]})
        return
    rows = [
        (pin.id.short, pin.kind.name.lower(), when(pin.time_us), printable(pin.author),
         printable(pin.reason))
        for pin in pins
    ]  # fmt: skip
    front.out.lines(columns(rows))


def _pin_fields(pin: Pin | Hold) -> dict[str, Any]:
    return {
        "id": str(pin.id),
        "kind": pin.kind.name.lower(),
        "reason": pin.reason,
        "author": pin.author,
        "time": when(pin.time_us, exact=True),
        "entry": pin.seq,
    }


@click.command("unpin", cls=CasCommand)
@click.argument("what", metavar="REV|ID", type=REVISION)
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@pass_front
def unpin(front: Front, what: str, author: str | None) -> None:
    """Keep an object no longer.

    Nothing is removed by this; what nothing else keeps may be, by a collection later.
    """
    with front.store(write=True) as store:
        entry = store.unpin(what, author=author or default_author())
    if front.out.json:
        front.out.document("unpin", entry=entry.seq)
    else:
        front.out.note(entry.message)


@click.command("hold", cls=CasCommand)
@click.argument("what", metavar="[REV|ID]", required=False, type=REVISION)
@click.option("-m", "--message", metavar="TEXT", default="", help="On what ground; it is needed.")
@click.option("-d", "--delete", is_flag=True, help="Lift the hold.")
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@pass_front
def hold(front: Front, what: str | None, message: str, delete: bool, author: str | None) -> None:
    """Keep an object by a legal hold, which nothing overrides.

    Without an argument the holds are listed. A commit is held with the content of all that led
    to it. Retention, purge, undo and rewind leave alone what is held, until --delete lifts it.
    """
    if what is None:
        if message or author or delete:
            raise click.UsageError("Say what is meant.")
        with front.store() as store:
            found = store.holds()
        _tell(front, found, "hold")
        return
    if delete and message:
        raise click.UsageError("--delete takes no --message.")
    who = author or default_author()
    with front.store(write=True) as store:
        if delete:
            entry = store.release(what, author=who)
            if front.out.json:
                _tell(front, store.holds(), "hold")
            else:
                front.out.note(entry.message)
            return
        made = store.hold(what, message, author=who)
    if front.out.json:
        _tell(front, [made], "hold")
    else:
        front.out.line(str(made.id))


@click.command("protect", cls=CasCommand)
@click.argument("pattern", metavar="[PATTERN]", required=False)
@click.option(
    "--rule",
    type=click.Choice([rule.value for rule in RefRule]),
    help="keep: never deleted; forward (the default): nor moved back; frozen: not changed at all.",
)
@click.option("-d", "--delete", is_flag=True, help="Lift the rule of PATTERN.")
@click.option("--author", metavar="NAME", help="Else CAS_AUTHOR, else user@host.")
@pass_front
def protect(
    front: Front, pattern: str | None, rule: str | None, delete: bool, author: str | None
) -> None:
    """Protect branches and tags.

    Without arguments the rules are listed. PATTERN is a name in which * stands for anything, as
    release/*; it is of branches unless it begins with tags/. The rule holds for every writer.
    """
    if pattern is None and (rule or delete or author):
        raise click.UsageError("Say which PATTERN is meant.")
    if delete and rule:
        raise click.UsageError("--delete takes a PATTERN and no rule.")
    if pattern is None:
        with front.store() as store:
            rules = store.protections()
    else:
        who = author or default_author()
        with front.store(write=True) as store:
            if delete:
                rules = store.unprotect(pattern, author=who)
            else:
                rules = store.protect(pattern, rule or RefRule.FORWARD, author=who)
    _tell_rules(front, rules)


def _tell_rules(front: Front, rules: tuple[Protection, ...]) -> None:
    if front.out.json:
        listed = [{"pattern": rule.pattern, "rule": rule.rule.value} for rule in rules]
        front.out.document("protect", rules=listed)
    else:
        rows = [(printable(rule.pattern), rule.rule.value) for rule in rules]
        front.out.lines(columns(rows))


COMMANDS: Final = {"pin": pin, "unpin": unpin, "hold": hold, "protect": protect}
