"""Servers that tests talk to: one PostgreSQL for a session of tests, started when first asked for.

A test takes the fixture `postgres` and gives each of its stores a name that no other has; a store
is rows in shared tables, so that making one costs a millisecond.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tools.postgres_server import OLDEST, NoServer, PostgresServer, serving

_names = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL. Its log is not synced: no test here takes its power away."""
    settings = {"fsync": "off", "max_connections": "300"}
    try:
        with serving(settings) as server:
            yield server
    except NoServer as error:
        pytest.skip(f"no PostgreSQL: {error}")


@pytest.fixture(scope="session")
def oldest_postgres() -> Iterator[PostgresServer]:
    """The same of the oldest version that is supported, where the system has it."""
    try:
        with serving({"fsync": "off"}, OLDEST) as server:
            yield server
    except NoServer as error:
        pytest.skip(f"no PostgreSQL {OLDEST}: {error}")


def fresh_url(server: PostgresServer, bucket: str | None = None) -> str:
    """The URL of a store that nobody has named before."""
    url = server.url(store=f"t{next(_names)}")
    return url if bucket is None else f"{url}&bucket={quote(bucket, safe='')}"
