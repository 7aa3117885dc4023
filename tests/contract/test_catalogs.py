"""The catalog contract, run by every catalog of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from cas.catalog.catalog import Catalog, Meta
from cas.catalog.postgres import create_store, open_postgres
from cas.catalog.postgres_place import parse
from cas.catalog.sqlite import create_catalog, memory_catalog, open_catalog
from cas.testing.catalog_contract import CatalogContract
from tests.databases import fresh_url
from tools.postgres_server import PostgresServer


class TestSqliteFile(CatalogContract):
    def open_catalog(self, folder: Path, meta: Meta) -> Catalog:
        path = folder / "catalog.sqlite"
        if not path.exists():
            create_catalog(str(path), meta)
            (folder / "locks").mkdir()
        return open_catalog(str(path), str(folder / "locks"))


class TestSqliteMemory(CatalogContract):
    reopens = False
    readers_never_block = False

    def open_catalog(self, folder: Path, meta: Meta) -> Catalog:
        return memory_catalog(meta, folder.name)


class TestPostgres(CatalogContract):
    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresServer) -> None:
        self._url = fresh_url(postgres)

    def open_catalog(self, folder: Path, meta: Meta) -> Catalog:
        place = parse(self._url)
        create_store(place, meta, "")
        return open_postgres(place)


class TestOldestPostgres(TestPostgres):
    """The same on the oldest version that is supported."""

    @pytest.fixture(autouse=True)
    def _server(self, oldest_postgres: PostgresServer) -> None:
        self._url = fresh_url(oldest_postgres)
