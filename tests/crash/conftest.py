"""The fixture with which tests of this room tell what they counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.crash.reporting import Note


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Record a row of counts; it reaches the summary also from another worker process."""

    def take(table: str, row: str, **counts: int) -> None:
        record_property("counts", {"table": table, "row": row, "counts": counts})

    return take
