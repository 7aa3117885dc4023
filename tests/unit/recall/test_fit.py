"""Rows that fit words best: what is left out by bounds changes nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.recall import fit
from cas.recall.fit import Fit, Places, Remembered, State, Sums, Term, best

SUMS = Sums()


@pytest.fixture(autouse=True, scope="module")
def _short() -> Iterator[None]:
    """Lists of a few rows are long, so that bounds are used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_LONG", 5)
        yield


@st.composite
def questions(draw: st.DrawFn) -> tuple[State, list[Term], Any, int]:
    """A state, words of it, rows that are allowed, and how many are wanted."""
    seed = draw(st.integers(0, 1 << 32))
    numbers = np.random.default_rng(seed)
    size = draw(st.integers(2, 400))
    held = numbers.random(size) < draw(st.sampled_from([0.5, 1.0]))
    held[0] = False
    # Few lengths and counts, so that many rows are worth the same.
    state = State(held, numbers.integers(1, draw(st.sampled_from([2, 5, 300])), size, np.int32))
    terms = []
    for key in range(draw(st.integers(1, 6))):
        rows = 1 + np.flatnonzero(numbers.random(size - 1) < numbers.choice([0.0, 0.02, 0.3, 0.9]))
        counts = numbers.integers(1, draw(st.sampled_from([2, 9, 400])), len(rows))
        places = Places(rows.astype(np.int32), counts.astype(np.int32))
        terms.append(Term(places, state.rarity(key, places.docs)))
    some = held & (numbers.random(size) < 0.7)
    return state, terms, held if draw(st.booleans()) else some, draw(st.integers(0, 30))


@given(questions())
def test_the_best_are_those_of_all_rows_added_up(
    question: tuple[State, list[Term], Any, int],
) -> None:
    """Whatever words are walked, the rows, their order and the greatest share are those that
    adding up every row gives; and nothing of one question is left for the next.
    """
    state, terms, allowed, count = question
    asked = Fit(state, terms, SUMS.room_for(len(state.held)))
    every = np.flatnonzero(allowed)
    worth, shares = asked.of(every)
    found, share = asked.best(allowed, count)
    some = every[worth > 0]
    assert found.tolist() == best(some, worth[worth > 0], count).tolist()
    assert share == shares.max(initial=0.0)
    assert not SUMS._fits.any()
    assert not SUMS._shares.any()
    assert not np.any(SUMS._marks)


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.randoms())
def test_rows_of_both_lists_are_those_that_a_search_finds(
    these: set[int], those: set[int], rng: random.Random
) -> None:
    """Marking many rows finds what looking them up one by one does, whatever their order."""
    docs = np.array(rng.sample(sorted(these), len(these)), np.int32)
    rows = np.array(sorted(those), np.int32)
    here, at = SUMS.room_for(61).both(docs, rows)
    assert sorted(docs[here].tolist()) == rows[at].tolist() == sorted(these & those)
    assert not SUMS._marks.any()


def test_a_common_word_is_not_walked() -> None:
    """Where a rare word gives as many rows as are wanted, those that have the common one alone are
    not added up.
    """
    size = 10_001
    held = np.arange(size) > 0
    state = State(held, np.full(size, 20, np.int32))
    rare, common = np.arange(1, 51, dtype=np.int32), np.arange(1, size, 2, dtype=np.int32)
    terms = [
        Term(Places(rows, np.ones(len(rows), np.uint8)), state.rarity(n, rows))
        for n, rows in enumerate((common, rare))
    ]
    met = []

    class Watched(Sums):
        def keep(self, docs: Any, *rest: Any) -> None:
            met.append(len(docs))
            super().keep(docs, *rest)

    found, share = Fit(state, terms, Watched().room_for(size)).best(held, 10)
    assert found.tolist() == list(range(1, 20, 2))
    assert share == 1.0
    assert met == [50]


def test_places_are_read_once_and_given_up_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new is read from where the last reading ended; rows of later states are left out;
    what was not asked for longest goes when there is no room.
    """
    asked = []

    def places(rows: list[int]) -> Any:
        def ask(after: int) -> tuple[Any, Any]:
            asked.append(after)
            docs = np.array([row for row in rows if row >= after], np.int64)
            return docs, docs * 100

        return ask

    held = Remembered()
    rows = [1, 2, 5, 8]
    assert held.of("a", 6, places(rows)).docs.tolist() == [1, 2, 5]
    assert held.of("a", 6, places(rows)).docs.tolist() == [1, 2, 5]
    grown = held.of("a", 9, places(rows))
    assert (grown.docs.tolist(), grown.counts.tolist()) == (rows, [100, 200, 500, 800])
    assert asked == [0, 6]
    monkeypatch.setattr(fit, "_BYTES_MAX", 40)
    held.of("b", 9, places([1]))
    assert "a" in held
    held.of("c", 9, places([3, 4]))
    assert len(held) == 2
    assert "a" not in held
