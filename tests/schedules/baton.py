"""A deterministic scheduler: one of several actors runs at a time, and may stop at known steps.

Invariant: an actor runs until its next step, and nobody else runs meanwhile; so a run is decided
by the list of who goes on at each step, and the same list gives the same run. Steps lie in front of
every catalog transaction and where an actor says so, never inside the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from cas.catalog.catalog import Catalog, CatalogReader, CatalogWriter


class Decision(NamedTuple):
    """Who might have gone on, who did, and whether the one before had to make room for it."""

    runnable: tuple[int, ...]
    chosen: int
    running: int | None


class _Stop(BaseException):
    """Ends an actor of a run that is given up."""


ACTORS_MAX: Final = 8
_THREADS: Final = ThreadPoolExecutor(ACTORS_MAX, thread_name_prefix="actor")
"""One thread an actor; they outlive a run, because starting them was a tenth of it."""


class Baton:
    """One run. Actors are functions that are given `step`.

    The actor that comes to a step looks itself who goes on, and hands over to that one: where it
    goes on itself, which is nearly always, no thread waits for another.
    """

    def __init__(self, actors: Sequence[Callable[[], None]], choices: Sequence[int]) -> None:
        assert len(actors) <= ACTORS_MAX
        self._actors = actors
        self._choices = choices
        # Held but for the moment in which its actor is given the baton; the last is `run`'s.
        self._turns = [threading.Lock() for _ in range(len(actors) + 1)]
        for turn in self._turns:
            turn.acquire()
        self._runnable = tuple(range(len(actors)))
        self._running: int | None = None
        self._stopped = False
        self._mine = threading.local()
        self.errors: list[BaseException] = []
        self.decisions: list[Decision] = []

    def step(self) -> None:
        """Let whoever is chosen go on. Threads that are no actors pass, and who is given up."""
        me = getattr(self._mine, "number", None)
        if me is None or self._stopped:
            return
        chosen = self._next()
        if chosen == me:
            return
        self._turns[chosen].release()
        self._turns[me].acquire()
        if self._stopped:
            raise _Stop

    def _next(self) -> int:
        """Decide who goes on; only who holds the baton may."""
        runnable, running = self._runnable, self._running
        at = len(self.decisions)
        if at < len(self._choices) and self._choices[at] in runnable:
            chosen = self._choices[at]
        else:
            chosen = running if running in runnable else runnable[0]
        self.decisions.append(Decision(runnable, chosen, running))
        self._running = chosen
        return chosen

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
        self._runnable = rest = tuple(n for n in self._runnable if n != number)
        self._stopped = bool(self.errors)
        if not rest:
            after = -1
        else:
            # One after the other: an actor that is given up still leaves its blocks.
            after = rest[0] if self._stopped else self._next()
        self._turns[after].release()

    def run(self) -> None:
        """Run all actors to their ends."""
        # The first runs on this thread: one less to wake.
        ends = [_THREADS.submit(self._run, number) for number in range(1, len(self._actors))]
        self._turns[self._next()].release()
        self._run(0)
        self._turns[-1].acquire()
        for end in ends:
            end.result()


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
    # (preemptions, how old, the schedule that is left, where, for whom); a prefix is made of
    # them when its turn comes, or a hundred thousand of them would wait.
    waiting: list[tuple[int, int, tuple[int, ...], int, int]] = [(0, 0, (), 0, -1)]
    made = 0
    while waiting and made < runs_max:
        used, _number, parent, length, last = heappop(waiting)
        prefix = () if last < 0 else (*parent[:length], last)
        decisions = run(prefix)
        made += 1
        schedule = tuple(decision.chosen for decision in decisions)
        yield schedule
        for at in range(len(prefix), len(decisions)):
            decision = decisions[at]
            for other in decision.runnable:
                if other == decision.chosen:
                    continue
                preempts = decision.running in decision.runnable and other != decision.running
                cost = used + preempts
                if cost <= preemptions_max:
                    heappush(waiting, (cost, made * 1_000_000 + at, schedule, at, other))
