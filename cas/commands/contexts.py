"""Use cases of bounded contexts that fronts share: what is declared of them, as plain values.

Floor 8. Invariant: what is not said stays as it was declared; an address is written down so that
it is found again from wherever a command is given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import asdict

from cas.errors import Invalid
from cas.history.retention import COUNTS, FOREVER
from cas.history.store import Store
from cas.model.names import HEADS
from cas.workspace.contexts import LIMITS, Context, Keep
from cas.workspace.layout import MAIN
from cas.workspace.workspace import Workspace

_SCHEME: Final = "://"
_NONE: Final[Mapping[str, int]] = {}


def address(home: Store, place: str) -> str:
    """An address that was typed here, as a declaration of a store keeps it.

    A folder beside the store is told from there, so that both can move together; any other by its
    whole path.
    """
    if _SCHEME in place:
        return place
    folder = os.path.abspath(place)
    if os.path.isabs(home.location):
        beside = os.path.dirname(home.location)
        if os.path.commonpath([beside, folder]) == beside != folder:
            return os.path.relpath(folder, beside)
    return folder


def declare(
    space: Workspace,
    name: str,
    actor: str,
    *,
    place: str | None = None,
    publish: Iterable[str] = (),
    unpublish: Iterable[str] = (),
    description: str | None = None,
    limits: Mapping[str, int] = _NONE,
    retention: str | None = None,
    force: bool = False,
) -> Context:
    """Declare a context, or change of it what is said; gives what is declared now.

    `place` is an address as `address` gives it; empty: the store of the workspace. `limits` are by
    the names of their fields, 0: no limit. `retention` is a rule as `parse_keep` takes it.
    """
    old = space.contexts().get(name) or Context(id=name)
    new = old.evolve(
        origin=None,
        place=old.place if place is None else place,
        publishes=(old.publishes | frozenset(publish)) - frozenset(unpublish),
        description=old.description if description is None else description,
        retention=old.retention if retention is None else parse_keep(retention),
        **{name: number or None for name, number in limits.items()},
    )
    space.declare(new, actor, force=force)
    return space.contexts()[name]


def parse_keep(text: str) -> Keep | None:
    """The rule of a text such as `last=10,daily=30,within=30d`; None for `all`.

    Raises `Invalid`.
    """
    if text == "all":
        return None
    said: dict[str, Any] = {}
    for each in text.split(","):
        name, equals, value = each.strip().partition("=")
        if not equals or name not in (*COUNTS, "within") or name in said:
            raise Invalid(
                f"{each.strip()!r} says nothing of what is kept; write {', '.join(COUNTS)} or "
                "within, each once, as in last=10,daily=30,within=30d; or all."
            )
        if name == "within":
            said[name] = value
        elif value == "unlimited":
            said[name] = FOREVER
        elif value.isascii() and value.isdigit() and len(value) < 20:
            said[name] = int(value)
        else:
            raise Invalid(f"{name} takes a number, or unlimited, not {value!r}.")
    return Keep(**said)


def other_rule(home: Store, context: Context) -> str:
    """What the policy of the store of a workspace says of the branches of a context, where that is
    another rule than is declared; empty where it is that, and for a context that lives elsewhere.
    """
    if context.place:
        return ""
    policy = home.retention()
    found = None if policy is None else policy.rule_for(f"{HEADS}{context.id}/{MAIN}")
    wanted = None if context.retention is None else context.retention.rule(context.id)
    if found == wanted:
        return ""
    return "all is kept" if found is None else f"{found} ({found.pattern})"


def context_row(name: str, context: Context | None) -> dict[str, Any]:
    """A context as JSON holds it; one that nobody declared has nothing but its name."""
    found = context or Context(id=name)
    kept = found.retention
    return {
        "context": name,
        "declared": context is not None,
        "place": found.place or None,
        "store_id": found.store_id or None,
        "publishes": sorted(found.publishes),
        "types": sorted(found.types),
        "description": found.description,
        **{name: getattr(found, name) for name in LIMITS},
        "retention": None
        if kept is None
        else {n: each for n, each in asdict(kept).items() if each},
    }
