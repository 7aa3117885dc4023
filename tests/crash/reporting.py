"""How much a run does, and what it says about it: counts that the summary of pytest prints."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Protocol

from cas.testing.explore import Failure

SCALE = {"quick": 0.25, "full": 1.0, "deep": 20.0}


def scaled(count: float) -> int:
    """A count for the profile of this run: a quarter in `quick`, twenty times in `deep`."""
    return max(1, round(count * SCALE[os.environ.get("CAS_TEST_PROFILE", "full")]))


class Note(Protocol):
    """The fixture that takes counts."""

    def __call__(self, table: str, row: str, **counts: int) -> None:
        """One row of a table, its cells named."""


def explain(failures: Sequence[Failure]) -> str:
    """The first failure in words; it is written to a file that `tools/simulate.py` repeats."""
    if not failures:
        return ""
    handle, path = tempfile.mkstemp(prefix="cas-failure-", suffix=".json")
    with os.fdopen(handle, "w") as file:
        file.write(failures[0].to_json())
    return (
        f"{len(failures)} failures, the first: {failures[0]}\n"
        f"repeat it with: python3 tools/dev.py simulate --replay {path}"
    )
