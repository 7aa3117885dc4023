"""A store in a folder, and recall over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.history.store import Store
from cas.recall.recall import Recall


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A fresh store."""
    with cas.open(tmp_path / "s", create=True) as store:
        yield store


@pytest.fixture
def recall(store: Store) -> Iterator[Recall]:
    """Recall with the embedder of the package."""
    with Recall(store) as recall:
        yield recall
