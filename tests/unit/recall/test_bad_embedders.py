"""Embedders that fail, lie about themselves, or are none: search goes on, or says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import cas
from cas.errors import AggregateExists, Invalid
from cas.history.store import Store
from cas.recall.embed import default_embedder
from cas.recall.noting import Noting
from cas.recall.recall import Recall
from cas.workspace.memories import Memory
from tests.unit.recall.kit import SENTENCES, commit, memory


class Scripted:
    """The model of the package, cut to some dimensions, until `give` says otherwise."""

    def __init__(self, identity: Any = "scripted", dimensions: Any = 256) -> None:
        self.identity = identity
        self.dimensions = dimensions
        self.give: Any = None

    def embed(self, texts: Sequence[str]) -> Any:
        if self.give is not None:
            return self.give(texts)
        return default_embedder().embed(texts)[:, : self.dimensions]


def broken(_texts: Sequence[str]) -> Any:
    """What a library does whose server is away."""
    raise RuntimeError("no device")


def test_whatever_goes_wrong_in_an_embedder_leaves_words(store: Store) -> None:
    """Any error of it: queries go on, recall answers by words and says why, and when it is back
    each row gets its vector.
    """
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    model = Scripted()
    model.give = broken
    with Recall(store, embedder=model) as recall:
        assert recall.count(Memory, match="releases") == 1
        found = recall.recall("releases")
        assert [item.link.id for item in found.items] == ["m1"]
        assert any("'scripted' failed: RuntimeError: no device" in n for n in found.notices)
        assert recall.replay(found.request).digest == found.digest
        (state,) = recall.models()
        assert state.embedded == 0
        with cas.Workspace(store).unit_of_work("planner") as uow:
            noting = Noting(recall, rule="refuse")
            noting.note(uow, "Hotfixes are shipped at once.")
            with pytest.raises(AggregateExists, match="says the same"):
                noting.note(uow, "hotfixes are shipped at once.")
        model.give = None
        assert not recall.recall("releases").notices
        (state,) = recall.models()
        assert state.embedded == state.rows == len(SENTENCES)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "text",
        [["a"] * 256],
        [[1.0] * 256, [1.0] * 255],
        np.full((1, 256), np.nan),
        np.zeros((1, 255)),
        np.zeros((2, 256)),
        np.zeros((0, 256)),
    ],
)
def test_what_is_no_vector_a_text_is_refused(store: Store, given: Any) -> None:
    """It is a fault of the program, told as one, and nothing of it is kept."""
    commit(store, memory("m0", SENTENCES[0]))
    model = Scripted()
    model.give = lambda _texts: given
    with Recall(store, embedder=model) as recall:
        with pytest.raises(Invalid, match="The embedder gave"):
            recall.recall("pull requests")
        model.give = None
        assert [item.link.id for item in recall.recall("pull requests").items] == ["m0"]


@pytest.mark.parametrize(
    "embedder",
    [
        object(),
        5,
        Scripted(identity=""),
        Scripted(identity=None),
        Scripted(dimensions=0),
        Scripted(dimensions=-1),
        Scripted(dimensions="256"),
        Scripted(dimensions=True),
        Scripted(dimensions=10**9),
    ],
)
def test_what_is_no_embedder_is_refused(store: Store, embedder: Any) -> None:
    """Before anything is asked of it."""
    commit(store, memory("m0", SENTENCES[0]))
    with Recall(store, embedder=embedder) as recall, pytest.raises(Invalid, match="no embedder"):
        recall.recall("pull requests")


def test_a_model_that_changes_its_dimensions_is_another_one(store: Store) -> None:
    """Under the same identity it is refused, by whichever handle, and the index stays whole."""
    commit(store, *(memory(f"m{n}", text) for n, text in enumerate(SENTENCES)))
    with Recall(store, embedder=Scripted()) as recall:
        before = recall.recall("when do we ship").digest
    with Recall(store, embedder=Scripted(dimensions=64)) as recall:
        for _ in range(2):
            with pytest.raises(Invalid, match="with 256 numbers, and this embedder gives 64"):
                recall.recall("when do we ship")
    with Recall(store, embedder=Scripted("narrow", 64), former=Scripted()) as recall:
        assert recall.recall("when do we ship").items
    wide = pytest.raises(Invalid, match="with 64 numbers, and this embedder gives 256")
    with Recall(store, embedder=Scripted("narrow"), former=Scripted()) as recall, wide:
        recall.recall("when do we ship")
    with Recall(store, embedder=Scripted()) as recall:
        assert recall.recall("when do we ship").digest == before
