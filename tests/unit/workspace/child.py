"""What a process of a test does: `python -m tests.unit.workspace.child WORK STORE ...`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
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


def exchange(home: str) -> None:
    """For each number on standard input: a process of its own exchanges events and remembers
    each of them at the other place, and is killed at its call of that number, of Python or of C;
    tells `killed`, or how many calls there were.
    """
    with cas.open(":memory:") as one, cas.open(":memory:") as two:
        # So that what is loaded when it is first used is not most of the calls.
        with Workspace(one).unit_of_work("a") as uow:
            uow.event("x", {"n": 0})
            uow.commit()
        cas.carry(Workspace(one), Workspace(two), "warm", ["x"])
        cas.subscribe(Workspace(two), "effects", ["x"]).poll(remember)
    for line in sys.stdin:
        calls = os.fork()
        if calls == 0:
            _exchange_until(home, int(line))
        _pid, status = os.waitpid(calls, 0)
        if os.WIFSIGNALED(status):
            print("killed", flush=True)
        elif os.WEXITSTATUS(status):
            sys.exit(1)


def remember(event: cas.DomainEvent, uow: cas.UnitOfWork) -> None:
    """An effect that shows when it is there twice: its id is a new one each time."""
    uow.memories.note(str(event.data["n"]))


def _exchange_until(home: str, last: int) -> None:
    made = 0

    def count_calls(_frame: object, event: str, _arg: object) -> None:
        nonlocal made
        if event in ("call", "c_call"):
            made += 1
            if made == last:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        with cas.open(home) as store, Workspace(store, places=cas.open) as space:
            sys.setprofile(count_calls)
            cas.exchange(space)
            over_there = cas.subscribe(space.place("memory"), "remember", ["sprint.closed"])
            over_there.poll(remember)
            sys.setprofile(None)
        print(made, flush=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


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
    {
        "count": count,
        "carry": carry,
        "exchange": exchange,
        "sync": sync,
        "syncs": syncs,
    }[sys.argv[1]](*sys.argv[2:])
