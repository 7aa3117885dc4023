"""Keeping the index up while a program writes: the same rows, and a question misses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import cas
from cas.errors import Unavailable
from cas.history.store import Store
from cas.recall import keeping, projection
from cas.recall.embed import default_embedder
from cas.recall.recall import Recall
from cas.workspace.memories import Memory
from tests.unit.recall.kit import SENTENCES, commit, memory
from tests.unit.recall.test_projection import dump

_LONG_S = 30.0


def until(holds: Callable[[], bool]) -> None:
    """Wait for another thread."""
    end = time.monotonic() + _LONG_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def kept(store: Store) -> Iterator[Recall]:
    """Recall that keeps up with its store."""
    with Recall(store) as recall:
        recall.keep_up()
        yield recall


def test_commits_are_taken_in_unasked(kept: Recall) -> None:
    """What was there before, and what little comes, is in the index soon."""
    commit(kept.store, memory("a", SENTENCES[0]))
    until(lambda: kept.projection.seq == 1)
    with cas.open(kept.store.location) as other:
        commit(other, memory("b", SENTENCES[1]))
    until(lambda: kept.projection.seq == 2)
    assert kept.count(Memory) == 2


def test_who_writes_fast_takes_in_many_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that makes the number full takes all of them in, and reads no entry again."""
    monkeypatch.setattr(keeping, "_ENTRIES", 8)
    monkeypatch.setattr(keeping, "_PAUSE_S", _LONG_S * 100)
    steps = []
    with Recall(store) as recall:
        recall.keep_up()
        until(lambda: recall.projection.seq == 0)
        follow = recall.projection._follow

        def counted(**how: Any) -> projection.Followed:
            done = follow(**how)
            steps.append(done.entries)
            return done

        monkeypatch.setattr(recall.projection, "_follow", counted)
        monkeypatch.setattr(Store, "journal", None)
        for n in range(20):
            commit(store, memory(f"m{n}", SENTENCES[n % 8]))
        assert (recall.projection.seq, steps) == (16, [8, 8])
        # A question takes in the rest.
        assert recall.count(Memory) == 20


def test_rows_are_those_of_an_index_made_anew(
    kept: Recall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers, questions and the thread at once: the index is the one that a walk makes."""
    monkeypatch.setattr(keeping, "_ENTRIES", 5)
    monkeypatch.setattr(keeping, "_PAUSE_S", 0.001)
    store = kept.store

    def write(name: str) -> None:
        for n in range(30):
            there = [memory(f"{name}{n - 1}", "")] if n % 3 == 2 else []
            commit(store, memory(f"{name}{n}", SENTENCES[n % 8]), gone=there)
            if n % 7 == 0:
                assert kept.get(memory(f"{name}{n}", "").link)
                assert kept.count(Memory, {"agent": "planner"}) > 0

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    followed = dump(kept)
    assert len(followed["item"]) == 60
    then = [kept.recall("releases", as_of=seq).digest for seq in (20, 40)]
    kept.projection.rebuild()
    assert dump(kept) == followed
    assert [kept.recall("releases", as_of=seq).digest for seq in (20, 40)] == then


def test_a_question_sees_the_last_commit(kept: Recall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the thread is at."""
    monkeypatch.setattr(keeping, "_ENTRIES", 3)
    monkeypatch.setattr(keeping, "_PAUSE_S", 0.001)
    for n in range(40):
        commit(kept.store, memory(f"m{n}", SENTENCES[n % 8]))
        assert kept.count(Memory) == n + 1


class Failing:
    """The model of the package, which fails as long as it is told to."""

    def __init__(self) -> None:
        self.fails = True
        self.asked = 0
        self.model = default_embedder()
        self.identity, self.dimensions = "failing", self.model.dimensions

    def embed(self, texts: Sequence[str]) -> Any:
        """Vectors, or none."""
        self.asked += 1
        if self.fails:
            raise Unavailable("the model is away")
        return self.model.embed(texts)


def test_what_goes_wrong_is_told_once_and_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Commits go on while the index cannot; it catches up when it can."""
    monkeypatch.setattr(keeping, "_ENTRIES", 1)
    monkeypatch.setattr(keeping, "_PAUSE_S", 0.01)
    model = Failing()
    with Recall(store, embedder=model) as recall:
        recall.keep_up()
        for n in range(5):
            commit(store, memory(f"m{n}", SENTENCES[n]))
        until(lambda: model.asked > 3)
        assert recall.projection.seq < 1
        assert caplog.text.count("not kept up") == 1
        model.fails = False
        until(lambda: recall.projection.seq == 5)
        model.fails = True
        commit(store, memory("last", SENTENCES[6]))
        with pytest.raises(Unavailable):
            recall.count(Memory)


def test_no_commit_waits_for_another_model(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of a model that may be slow are made by the thread, or for a question."""
    monkeypatch.setattr(keeping, "_ENTRIES", 1)
    monkeypatch.setattr(keeping, "_PAUSE_S", _LONG_S * 100)
    model = Failing()
    model.fails = False
    with Recall(store, embedder=model) as recall:
        recall.keep_up()
        until(lambda: recall.projection.seq == 0)
        for n in range(3):
            commit(store, memory(f"m{n}", SENTENCES[n]))
        assert (recall.projection.seq, model.asked) == (0, 0)
        assert recall.count(Memory) == 3
        assert model.asked == 1


def test_one_thread_that_ends(store: Store) -> None:
    """`keep_up` twice is one thread, `close` ends it, and it may begin again."""

    def alive() -> int:
        return sum(thread.name == "cas-recall" for thread in threading.enumerate())

    recall = Recall(store)
    for _ in range(2):
        recall.keep_up()
        recall.keep_up()
        assert alive() == 1
        recall.close()
        assert alive() == 0
    commit(store, memory("a", SENTENCES[0]))
    assert recall.count(Memory) == 1
    recall.close()


def test_it_ends_with_its_store(
    folder: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that is closed under it ends the thread, and nothing is said."""
    monkeypatch.setattr(keeping, "_PAUSE_S", 0.001)
    recall = Recall(folder)
    recall.keep_up()
    commit(folder, memory("a", SENTENCES[0]))
    with caplog.at_level("WARNING", "cas"):
        folder.close()
        until(lambda: all(thread.name != "cas-recall" for thread in threading.enumerate()))
    recall.close()
    assert not caplog.records
