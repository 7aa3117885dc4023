"""A deterministic scheduler: one of several actors runs at a time, and may stop at known steps.

Invariant: an actor runs until its next step, and nobody else runs meanwhile; so a run is decided
by the list of who goes on at each step, and the same list gives the same run. Steps lie in front of
every catalog transaction and where an actor says so, never inside the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from heapq import heappop, heappush
from typing import Any, NamedTuple

from cas.catalog.catalog import Catalog, CatalogReader, CatalogWriter


class Decision(NamedTuple):
    """Who might have gone on, who did, and whether the one before had to make room for it."""

    runnable: tuple[int, ...]
    chosen: int
    running: int | None


class _Stop(BaseException):
    """Ends an actor of a run that is given up."""


class Baton:
    """One run. Actors are functions that are given `step`."""

    def __init__(self, actors: Sequence[Callable[[], None]], choices: Sequence[int]) -> None:
        self._actors = actors
        self._choices = list(choices)
        self._turns = [threading.Semaphore(0) for _ in actors]
        self._back = threading.Semaphore(0)
        self._done = [False] * len(actors)
        self._stopped = False
        self._mine = threading.local()
        self.errors: list[BaseException] = []
        self.decisions: list[Decision] = []

    def step(self) -> None:
        """Let whoever is chosen go on. Threads that are no actors pass."""
        me = getattr(self._mine, "number", None)
        if me is None:
            return
        self._back.release()
        self._turns[me].acquire()
        if self._stopped:
            raise _Stop

    def _run(self, number: int) -> None:
        self._mine.number = number
        self._turns[number].acquire()
        try:
            if not self._stopped:
                self._actors[number]()
        except _Stop:
            pass
        except BaseException as error:
            self.errors.append(error)
        self._done[number] = True
        self._back.release()

    def run(self) -> None:
        """Run all actors to their ends."""
        threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(len(self._actors))
        ]
        for thread in threads:
            thread.start()
        running: int | None = None
        while True:
            runnable = tuple(n for n, done in enumerate(self._done) if not done)
            if not runnable or self.errors:
                break
            at = len(self.decisions)
            if at < len(self._choices) and self._choices[at] in runnable:
                chosen = self._choices[at]
            else:
                chosen = running if running in runnable else runnable[0]
            self.decisions.append(Decision(runnable, chosen, running))
            running = chosen
            self._turns[chosen].release()
            self._back.acquire()
        self._stopped = True
        for number, thread in enumerate(threads):
            self._turns[number].release()
            thread.join()


class SteppedCatalog:
    """A catalog in front of whose transactions a step lies."""

    def __init__(self, inner: Catalog, step: Callable[[], None]) -> None:
        self.unstepped = inner
        self._step = step
        self._inside = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unstepped, name)

    def read(self) -> AbstractContextManager[CatalogReader]:
        return _Inside(self.unstepped.read(), self._inside, self._step)

    def write(self, *, durable: bool = True) -> AbstractContextManager[CatalogWriter]:
        return _Inside(self.unstepped.write(durable=durable), self._inside, self._step)


class _Inside:
    """A transaction with a step in front of it, and none inside."""

    def __init__(self, block: Any, inside: Any, step: Callable[[], None]) -> None:
        self._block = block
        self._inside = inside
        self._step = step

    def __enter__(self) -> Any:
        depth = getattr(self._inside, "depth", 0)
        if not depth:
            self._step()
        made = self._block.__enter__()
        self._inside.depth = depth + 1
        return made

    def __exit__(self, *how: Any) -> Any:
        self._inside.depth -= 1
        return self._block.__exit__(*how)


def schedules(
    run: Callable[[Sequence[int]], list[Decision]], preemptions_max: int, runs_max: int
) -> Iterator[tuple[int, ...]]:
    """Every schedule with so many preemptions at the most, those with fewer first, up to
    `runs_max`.
    """
    waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    made = 0
    while waiting and made < runs_max:
        used, _number, prefix = heappop(waiting)
        decisions = run(prefix)
        made += 1
        yield tuple(decision.chosen for decision in decisions)
        for at in range(len(prefix), len(decisions)):
            decision = decisions[at]
            before = tuple(d.chosen for d in decisions[:at])
            for other in decision.runnable:
                if other == decision.chosen:
                    continue
                preempts = decision.running in decision.runnable and other != decision.running
                cost = used + preempts
                if cost <= preemptions_max:
                    heappush(waiting, (cost, made * 1_000_000 + at, (*before, other)))
