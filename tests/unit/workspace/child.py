"""What a process of a test does: `python -m tests.unit.workspace.child WORK STORE ...`."""

from __future__ import annotations

import sys

import cas
from cas.workspace.workspace import Workspace


def count(place: str, name: str, times: str) -> None:
    """Units on aggregates of its own, and one counter that all share; no unit is tried again."""
    with cas.open(place) as store:
        space = Workspace(store)
        for number in range(int(times)):
            with space.unit_of_work(name) as uow:
                uow.memories.note(f"{name} {number}", id=f"{name}-{number}")
                run = uow.runs.get("shared")
                uow.runs.save(run.evolve(tokens_in_count=run.tokens_in_count + 1))
                uow.event("counted", {"by": name, "number": number})
                uow.commit()


def carry(source: str, target: str) -> None:
    """Carry events, few at a time, until killed."""
    with cas.open(source) as one, cas.open(target) as two:
        while True:
            cas.carry(Workspace(one), Workspace(two), "carrier", ["counted"])


if __name__ == "__main__":
    {"count": count, "carry": carry}[sys.argv[1]](*sys.argv[2:])
