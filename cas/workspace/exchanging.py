"""Events between the stores of a workspace: what a context of one publishes, the others see.

Floor 6. Invariant: an event that is published stands once in each other store of the workspace,
because the position up to which a store was read is saved in the same commit as what it gave; an
event that was carried is never carried on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from attrs import frozen

from cas.workspace.events import CARRIED_FROM, DomainEvent, type_filter
from cas.workspace.subscriptions import bring, subscribe
from cas.workspace.workspace import Workspace


@frozen
class Exchanged:
    """How many events one store gave another; both by where they are."""

    source: str
    target: str
    count: int


def exchange(space: Workspace) -> tuple[Exchanged, ...]:
    """Carry what contexts publish between all stores of a workspace, each event once; what was
    carried, pair by pair.

    What is published is what the declarations say at that moment. Any number of processes may do
    this at once, and be killed at any time. In the other store the event is one of the same
    context, with where it came from in its headers; `space.events(seen_by=…)` gives it. Raises
    what opening the stores and a commit raise.
    """
    published = {name: type_filter(each.publishes) for name, each in space.contexts().items()}
    types = {type for each in space.contexts().values() for type in each.publishes}

    def wanted(event: DomainEvent) -> bool:
        said = published.get(event.context)
        return said is not None and CARRIED_FROM not in event.headers and said(event.type)

    stores = list(space.stores().values())
    done = []
    for source in stores:
        for target in stores:
            if source is target or not types:
                continue
            subscription = subscribe(
                Workspace(source),
                f"exchange-{space.store.id}-{source.id}",
                types,
                target=Workspace(target),
                where=wanted,
            )
            count = bring(subscription, source)
            done.append(Exchanged(source.location, target.location, count))
    return tuple(done)


def keep_exchanging(
    space: Workspace,
    stop: threading.Event,
    *,
    pause_ms: float = 250,
    on_exchange: Callable[[tuple[Exchanged, ...]], object] | None = None,
) -> int:
    """`exchange` again and again until `stop` is set; how many events were carried.

    `on_exchange` hears of each time that there were some.
    """
    count = 0
    while True:
        done = exchange(space)
        some = sum(each.count for each in done)
        count += some
        if some and on_exchange is not None:
            on_exchange(done)
        if stop.wait(pause_ms / 1000):
            return count
