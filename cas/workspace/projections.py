"""Projections: a function and a position, folded on from where they were saved.

Floor 6. Invariant: state and position are saved in one commit, so that no event is folded twice or
left out; `rebuild` gives the same from the first event on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any

from cas.workspace.contexts import HOME
from cas.workspace.events import DomainEvent, Position
from cas.workspace.parts import part
from cas.workspace.registry import Aggregate, aggregate
from cas.workspace.work import UnitOfWork
from cas.workspace.workspace import Workspace, to_position


@aggregate("projection", context=HOME)
class Projected(Aggregate):
    """What a projection has come to; its id is its name."""

    state: Any = part(default=None)
    seq: int = part(default=0)
    index: int = part(default=-1)


class Projection:
    """A value that follows from events: a function `fold(state, event) -> state`, and a position.

    The state is plain values. `catch_up` saves both in one commit; `value` is what was saved.
    """

    def __init__(
        self,
        space: Workspace,
        name: str,
        fold: Callable[[Any, DomainEvent], Any],
        initial: Any = None,
        types: Collection[str] | None = None,
    ) -> None:
        self._space = space
        self._fold = fold
        self._initial = initial
        self._types = types
        self.name = name

    def _start(self) -> Any:
        """The state before the first event: a copy, which a fold may change in place."""
        return deepcopy(self._initial)

    @property
    def value(self) -> Any:
        """The state as it was saved last."""
        return self._saved().state

    @property
    def position(self) -> Position:
        """The position behind the events that are in it."""
        saved = self._saved()
        return Position(saved.seq, saved.index)

    def _saved(self) -> Projected:
        found = self._space.collection(Projected).find_one(self.name)
        return found or Projected(id=self.name, state=self._start())

    def catch_up(self) -> Any:
        """Fold what has come since, save, and give the state."""

        def work(uow: UnitOfWork) -> Any:
            saved = uow.find_one(Projected, self.name)
            old = saved or Projected(id=self.name, state=self._start())
            state, position = old.state, Position(old.seq, old.index)
            for event in self._space.events(position, self._types):
                state, position = self._fold(state, event), event.position
            if position != Position(old.seq, old.index):
                uow.save(old.evolve(state=state, seq=position.seq, index=position.index))
            return state

        return self._space.run(work, f"projection {self.name}")

    def rebuild(self, as_of: Position | int | str | None = None) -> Any:
        """The state from the first event on, up to a position (an entry: to its end); nothing is
        saved. Raises `Invalid`.
        """
        state = self._start()
        upto = None if as_of is None else to_position(as_of)
        for event in self._space.events(0, self._types):
            if upto is not None and not upto.covers(event.position):
                break
            state = self._fold(state, event)
        return state
