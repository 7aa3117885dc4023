"""A store in a folder and one on a server, each with its own search index, and recall over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cas
from cas.history.store import Store
from cas.recall.recall import Recall
from tests.databases import fresh_url
from tools.postgres_server import PostgresServer


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Store]:
    """A fresh store in a folder; its index is a file of SQLite."""
    with cas.open(tmp_path / "s", create=True) as store:
        yield store


@pytest.fixture
def hosted(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """A fresh store on PostgreSQL; its index is tables beside the catalog."""
    monkeypatch.setenv("CAS_CACHE", str(tmp_path / "caches"))
    with cas.open(fresh_url(postgres), create=True, bucket=tmp_path / "packs") as store:
        yield store


@pytest.fixture(params=["folder", "hosted"])
def store(request: pytest.FixtureRequest) -> Store:
    """A fresh store of either kind: whatever is asked of search, both answer."""
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def recall(store: Store) -> Iterator[Recall]:
    """Recall with the embedder of the package."""
    with Recall(store) as recall:
        yield recall
