"""What a process of a test does: `python -m tests.unit.workspace.child WORK STORE ...`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import cas
from cas.workspace import folders
from cas.workspace.workspace import Workspace
from cas.worktree import update


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


def sync(place: str, folder: str, moment: str) -> None:
    """Bring a working folder up, killed at a moment: before the capture, between it and the
    first file, within the files, or after them.
    """

    def die(*_words: object, **_how: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    real = update._Update.do
    seen: list[object] = []

    def within(self: update._Update, step: update.Step) -> object:
        if len(seen) == 2:
            die()
        seen.append(step)
        return real(self, step)

    with cas.open(place) as store:
        if moment == "before":
            folders.Folder._capture = die  # type: ignore[method-assign,assignment]
        elif moment == "between":
            folders.update = die  # type: ignore[assignment]
        elif moment == "within":
            update._Update.do = within  # type: ignore[method-assign,assignment]
        else:
            store.begin = die  # type: ignore[method-assign,assignment]
            folders.unit_on = real_unit(folders.unit_on, store)
        Workspace(store).sync(folder)


def real_unit(make: Any, store: Any) -> Any:
    """Units of work that begin as ever, while transactions of their own do not."""

    def made(*words: Any) -> Any:
        refused = store.__dict__.pop("begin")
        try:
            return make(*words)
        finally:
            store.begin = refused

    return made


def syncs(place: str, folder: str, times: str) -> None:
    """Bring a working folder up again and again."""
    with cas.open(place) as store:
        for _ in range(int(times)):
            Workspace(store).sync(folder)


if __name__ == "__main__":
    {"count": count, "carry": carry, "sync": sync, "syncs": syncs}[sys.argv[1]](*sys.argv[2:])
