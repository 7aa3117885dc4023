"""Use cases of bounded contexts that fronts share: what is declared of them, as plain values.

Floor 8. Invariant: what is not said stays as it was declared; an address is written down so that
it is found again from wherever a command is given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from cas.history.store import Store
from cas.workspace.contexts import Context
from cas.workspace.workspace import Workspace

_SCHEME: Final = "://"


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
    record_bytes_max: int | None = None,
    force: bool = False,
) -> Context:
    """Declare a context, or change of it what is said; gives what is declared now.

    `place` is an address as `address` gives it; empty: the store of the workspace.
    """
    old = space.contexts().get(name) or Context(id=name)
    new = old.evolve(
        origin=None,
        place=old.place if place is None else place,
        publishes=(old.publishes | frozenset(publish)) - frozenset(unpublish),
        description=old.description if description is None else description,
        record_bytes_max=old.record_bytes_max if record_bytes_max is None else record_bytes_max,
    )
    space.declare(new, actor, force=force)
    return space.contexts()[name]


def context_row(name: str, context: Context | None) -> dict[str, Any]:
    """A context as JSON holds it; one that nobody declared has nothing but its name."""
    found = context or Context(id=name)
    return {
        "context": name,
        "declared": context is not None,
        "place": found.place or None,
        "store_id": found.store_id or None,
        "publishes": sorted(found.publishes),
        "types": sorted(found.types),
        "description": found.description,
        "record_bytes_max": found.record_bytes_max,
    }
