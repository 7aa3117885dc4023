"""A breadth-first explorer of guarded atomic steps.

Invariant: every state that the steps can reach is judged once, and the first breach found is one
of the shortest there is. It knows nothing of stores: a model hands it a first state, a function
that lists the steps out of a state (label, next state), and one that names what is wrong with a
state. States are hashable values; with `canonical`, states of the same canonical value count as
one, and the first of them that was met stands for all. Implements
docs/design/001-what-the-model-taught.md, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import attrs

S = TypeVar("S", bound=Hashable)


class StateSpaceTooLarge(Exception):
    """The exploration passed its bound: nothing may be concluded from it."""


@attrs.frozen
class Trace:
    """A shortest way to a breach: what happened, in order, and what was wrong at the end."""

    steps: tuple[str, ...]
    breach: str

    def __str__(self) -> str:
        lines = [f"{number:3}. {step}" for number, step in enumerate(self.steps, 1)]
        return "\n".join([*lines, f"  => {self.breach}"])


@attrs.frozen
class Exploration:
    """What an exploration saw.

    `states` counts distinct states, `transitions` the steps tried, `depth` the longest of the
    shortest ways. `kinds` holds the first two words of every label ("actor verb"). `ends` counts
    states without a step. `trace` is None when the whole space was explored without a breach.
    """

    states: int
    transitions: int
    depth: int
    ends: int
    kinds: frozenset[str]
    trace: Trace | None


class Explorer(Generic[S]):
    """Explores one model. `states_max` bounds the distinct states kept in memory."""

    def __init__(
        self,
        steps: Callable[[S], Iterable[tuple[str, S]]],
        breach: Callable[[S], str | None],
        canonical: Callable[[S], S] = lambda state: state,
        states_max: int = 1_000_000,
    ) -> None:
        self._steps = steps
        self._breach = breach
        self._canonical = canonical
        self._states_max = states_max

    def explore(self, first: S) -> Exploration:
        """Visit every reachable state, or stop at the first breach.

        Raises StateSpaceTooLarge past the bound: an unfinished search is never called safe.
        """
        came_from: dict[S, tuple[S, str] | None] = {self._canonical(first): None}
        kinds: set[str] = set()
        transitions = depth = ends = 0
        wrong = self._breach(first)
        level = [first]
        while level and wrong is None:
            following: list[S] = []
            for state in level:
                stuck = True
                for label, reached in self._steps(state):
                    stuck = False
                    transitions += 1
                    kinds.add(label)
                    key = self._canonical(reached)
                    if key in came_from:
                        continue
                    came_from[key] = (state, label)
                    wrong = self._breach(reached)
                    if wrong is not None:
                        trace = Trace(self._way(came_from, key), wrong)
                        return Exploration(
                            len(came_from), transitions, depth + 1, ends, _verbs(kinds), trace
                        )
                    following.append(reached)
                ends += stuck
                if len(came_from) > self._states_max:
                    raise StateSpaceTooLarge(f"more than {self._states_max} states")
            depth += bool(following)
            level = following
        found = None if wrong is None else Trace((), wrong)
        return Exploration(len(came_from), transitions, depth, ends, _verbs(kinds), found)

    def _way(self, came_from: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
        steps: list[str] = []
        link = came_from[state]  # a canonical value; from here on the states as they were met
        while link is not None:
            state, label = link
            steps.append(label)
            link = came_from[self._canonical(state)]
        return tuple(reversed(steps))


def _verbs(labels: set[str]) -> frozenset[str]:
    return frozenset(" ".join(label.split(" ", 2)[:2]).rstrip(",:") for label in labels)
