"""Fixtures of the unit tests: a store in a folder, one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.history.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def memory() -> Iterator[Store]:
    """A new store in memory, where a test does not care."""
    with cas.open(":memory:") as opened:
        yield opened
