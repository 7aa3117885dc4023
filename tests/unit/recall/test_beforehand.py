"""Common words that are read beside questions (`cas.recall.beforehand`)."""

from __future__ import annotations

import pytest

from cas.history.store import Store
from cas.recall import beforehand, engine
from cas.recall.recall import Recall
from tests.unit.recall.kit import SENTENCES, commit, memory

QUESTIONS = ["requests of the team", "a request", "pull requests", "the cat"]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of rows is enough, and a word in any text is common."""
    monkeypatch.setattr(engine, "WARM_ROWS", 1)
    monkeypatch.setattr(beforehand, "_COMMON", 1_000)


@pytest.mark.usefixtures("eager")
def test_words_that_were_read_beside_change_no_answer(folder: Store) -> None:
    """From the second question on words are read beside; each answer is that of a handle that was
    asked nothing before, with rows that came after the words were read too.
    """
    commit(folder, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    with Recall(folder) as recall:
        for question in QUESTIONS[:2]:
            recall.recall(question)
        reading = recall._engine._beforehand
        assert reading is not None
        reading.thread.join()
        before = len(recall._engine.arena._remembered)
        commit(folder, memory("late", "A late request of the team for the cat."))
        for question in QUESTIONS:
            with Recall(folder) as cold:
                assert recall.recall(question) == cold.recall(question)
        assert len(recall._engine.arena._remembered) > before
        assert "late" in [item.link.id for item in recall.recall("request").items]


@pytest.mark.usefixtures("eager")
def test_reading_beside_ends_with_its_handle(folder: Store) -> None:
    """`close` ends the thread, wherever it is, and an index that is made anew has another one."""
    commit(folder, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    with Recall(folder) as recall:
        recall.recall("a request")
        recall.recall("the cat")
        first = recall._engine._beforehand
        assert first is not None
        recall.projection.rebuild()
        answers = [recall.recall(question) for question in QUESTIONS]
        second = recall._engine._beforehand
        assert second is not None
        assert second is not first
        assert not first.thread.is_alive()
        with Recall(folder) as cold:
            assert answers == [cold.recall(question) for question in QUESTIONS]
    assert not second.thread.is_alive()


@pytest.mark.usefixtures("eager")
def test_an_index_in_memory_has_nobody_beside(folder: Store) -> None:
    """What goes with its handle has no second connection: each question reads its own words."""
    commit(folder, memory("a", "A request of the team."))
    with Recall(folder, index=":memory:") as recall:
        for question in QUESTIONS:
            recall.recall(question)
        assert recall._engine._beforehand is None
