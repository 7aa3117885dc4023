"""What the tests of counted collections share: a store with a cache, and the oracle beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.history.store import Store
from cas.testing.stores import build, create
from tests.counted import Seen, against_full_marks
from tests.unit.kit import ManualClock


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Every run that believes counts is compared with a full mark."""
    with against_full_marks(monkeypatch) as found:
        yield found


@pytest.fixture
def cached_store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a folder, with a cache."""
    create(str(tmp_path / "store"), clock=ManualClock())
    with build(str(tmp_path / "store"), clock=ManualClock(), cached=True) as opened:
        yield opened
