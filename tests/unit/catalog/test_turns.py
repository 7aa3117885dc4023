"""Turns: who gets it, in which order, and who is let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cas.catalog import turns as room
from cas.catalog.turns import Turns


def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.001)


class Others:
    """Threads that come for a number each, and say what became of them, in order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.told: list[tuple[int, bool]] = []
        self.threads: list[threading.Thread] = []

    def come(self, number: int) -> None:
        """One more, which waits when this returns."""
        before = len(self.turns._queue)
        self.threads.append(threading.Thread(target=self._come, args=(number,)))
        self.threads[-1].start()
        _until(lambda: len(self.turns._queue) > before)

    def _come(self, number: int) -> None:
        self.told.append((number, self.turns.take(number)))

    def told_of(self, count: int) -> list[tuple[int, bool]]:
        """What so many were told."""
        _until(lambda: len(self.told) >= count)
        return self.told


def test_whoever_hands_on_does_not_get_it_back_before_those_who_wait() -> None:
    """The turn goes in the order of coming, also past a thread that comes again at once."""
    turns = Turns()
    assert turns.take(1)
    others = Others(turns)
    others.come(2)
    others.come(3)
    turns.hand_on(1)
    again = threading.Thread(target=turns.take, args=(4,))
    again.start()
    assert others.told_of(1) == [(2, True)]
    _until(lambda: len(turns._queue) == 2)
    turns.hand_on(2)
    assert others.told_of(2) == [(2, True), (3, True)]
    turns.hand_on()
    again.join(10)
    turns.hand_on()
    assert turns.take()


def test_those_who_are_covered_go_without_a_turn() -> None:
    """A number that somebody else's work covers takes no turn, and 0 is covered by nobody."""
    turns = Turns()
    assert turns.take(1)
    others = Others(turns)
    for number in (2, 0, 3, 4):
        others.come(number)
    turns.hand_on(3)
    assert sorted(others.told_of(3)) == [(0, True), (2, False), (3, False)]
    turns.hand_on(1)
    assert (4, True) in others.told_of(4)


@pytest.mark.parametrize("given", [False, True])
def test_an_interrupted_wait_leaves_the_turn_to_others(
    monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    """A thread that is interrupted as it waits keeps nobody from the turn, given it or not."""

    turns = Turns()
    assert turns.take(1)

    class Interrupted(BaseException):
        pass

    class Wake:
        """A lock whose wait is interrupted, after the turn has come if it is given meanwhile."""

        def acquire(self) -> None:
            if given:
                turns.hand_on(1)
            raise Interrupted

        def release(self) -> None:
            """Nobody waits here."""

    class Waiting(room._Waiting):
        def __init__(self, number: int) -> None:
            super().__init__(number)
            self.wake = Wake()  # type: ignore[assignment]

    monkeypatch.setattr(room, "_Waiting", Waiting)
    with pytest.raises(Interrupted):
        turns.take(2)
    monkeypatch.undo()
    if not given:
        turns.hand_on(1)
    assert turns.take(3)


def test_a_block_that_raises_hands_on() -> None:
    """The turn of a block is free after it, whatever became of the block."""
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.taken():
        raise ZeroDivisionError
    assert turns.take()
