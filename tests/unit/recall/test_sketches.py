"""Bits that choose rows worth comparing: what they find, and that it does not matter who looks."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.recall import sketches as module
from cas.recall.sketches import choosing, probe, sketch
from cas.recall.vectors import cosines, lengths_of, pack_vectors, unpack


def nearest_bits(sketches: Any, query: Any, allowed: Any, count: int) -> Any:
    """The rows that are chosen."""
    return choosing(sketches, query, allowed, count)()


def nearest_one_by_one(sketches: Any, query: Any, allowed: Any, count: int) -> list[int]:
    """The same, told row by row in Python's numbers."""
    signs, once, twice = query.tolist()
    apart = []
    for row, words in enumerate(sketches.T.tolist()):
        differ = [word ^ sign for word, sign in zip(words, signs, strict=True)]
        ones = sum((bits & weight).bit_count() for bits, weight in zip(differ, once, strict=True))
        twos = sum((bits & weight).bit_count() for bits, weight in zip(differ, twice, strict=True))
        if allowed[row]:
            apart.append((ones + 2 * twos, row))
    return sorted(row for _, row in sorted(apart)[:count])


def test_bits_choose_almost_all_of_the_nearest() -> None:
    """Of 20,000 vectors, of which many are about as near, the nearest ten are among the 1,000 that
    the bits choose, 98 in 100 times: bits that all count the same find 92.
    """
    numbers = np.random.default_rng(20261130)
    centres = numbers.normal(size=(200, 256))
    vectors = centres[numbers.integers(0, 200, 20_000)] + 2 * numbers.normal(size=(20_000, 256))
    rows = unpack(pack_vectors(vectors, 256, 20_000), 256)
    lengths, sketches = lengths_of(rows), sketch(rows)
    everyone = np.ones(20_000, np.bool_)
    hits = 0
    for query in rows[:50]:
        exact = np.argsort(-cosines(rows, lengths, query), kind="stable")[:10]
        chosen = nearest_bits(sketches.T, probe(query), everyone, 1_000)
        hits += len(np.intersect1d(exact, chosen))
    assert hits >= 490


def test_of_rows_whose_bits_are_equally_far_the_first_are_taken() -> None:
    """The choice by bits takes the nearest, and of equals those that came first."""
    sketches = np.array([[0b111, 0b1, 0b11, 0b10, 0, 0b100]], np.uint64)
    query = np.array([[0], [0b111], [0]], np.uint64)
    heavy = np.array([[0], [0b110], [0b101]], np.uint64)

    def chosen(query: Any, rows: list[int], count: int) -> list[int]:
        allowed = np.isin(np.arange(6), rows)
        return nearest_bits(sketches, query, allowed, count).tolist()

    every = list(range(6))
    assert chosen(query, every, 3) == [1, 3, 4]
    assert chosen(query, every[1:], 2) == [1, 4]
    assert chosen(query, every, 5) == [1, 2, 3, 4, 5]
    assert chosen(query, every[4:], 5) == [4, 5]
    assert chosen(heavy, every, 3) == [1, 3, 4]
    assert chosen(heavy, [1, 2, 5], 2) == [1, 2]


@given(st.data())
@pytest.mark.parametrize("threads", [1, 3])
def test_many_are_chosen_as_one_by_one(threads: int, data: st.DataObject) -> None:
    """Parts, threads and sums in bytes choose what counting bit by bit does; also where all bits of
    five words differ and count most, which is more than a byte holds.
    """
    width = data.draw(st.integers(1, 5), "words of a row")
    count = data.draw(st.integers(1, 300), "rows")
    numbers = np.random.default_rng(data.draw(st.integers(0, 1 << 30), "seed"))
    sketches = numbers.integers(0, 1 << 63, (width, count), np.uint64)
    query = numbers.integers(0, 1 << 63, (3, width), np.uint64)
    if data.draw(st.booleans(), "all differ and count three"):
        sketches[:] = 0
        sketches[:, ::3] = 7
        query[:] = (1 << 64) - 1
    allowed = numbers.random(count) < data.draw(st.sampled_from([0.2, 0.7, 1.0]), "share")
    wanted = data.draw(st.integers(1, count), "wanted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PART", 32)
        patch.setattr(module, "_ROWS_A_THREAD", max(1, count // threads))
        patch.setattr(module.os, "cpu_count", lambda: threads)
        found = nearest_bits(sketches, query, allowed, wanted)
    assert found.tolist() == nearest_one_by_one(sketches, query, allowed, wanted)


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rows, a probe and a mask that three threads share."""
    monkeypatch.setattr(module, "_PART", 32)
    monkeypatch.setattr(module, "_ROWS_A_THREAD", 64)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 3)
    numbers = np.random.default_rng(20261201)
    sketches = numbers.integers(0, 1 << 63, (4, 1_000), np.uint64)
    query = numbers.integers(0, 1 << 63, (3, 4), np.uint64)
    return sketches, query, np.ones(1_000, np.bool_), 10


def test_what_fails_on_a_thread_fails_the_question(
    spread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that could not do its part is never passed over: some rows would count nothing."""
    compare = module._compare

    def failing(*given: Any) -> None:
        if threading.current_thread().name == "cas-recall-bits":
            raise MemoryError("no room for a part")
        compare(*given)

    monkeypatch.setattr(module, "_compare", failing)
    with pytest.raises(MemoryError, match="no room"):
        nearest_bits(*spread)


def test_without_threads_the_caller_does_it_all(
    spread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system gives no more threads the choice is the same."""
    expected = nearest_bits(*spread).tolist()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert nearest_bits(*spread).tolist() == expected == nearest_one_by_one(*spread)


def test_who_does_not_ask_leaves_no_thread_at_work(spread: Any) -> None:
    """A question that fails before it asks for the rows leaves nothing that goes on."""
    choosing(*spread)
    for thread in threading.enumerate():
        if thread.name == "cas-recall-bits":
            thread.join(10)
            assert not thread.is_alive()
