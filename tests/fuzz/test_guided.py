"""No decoder stumbles over inputs that a fuzzer has found by looking at what they reach."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from tests.fuzz.driving import PLANTED, fuzz, lacking, told
from tests.fuzz.targets import TARGETS

COUNTS = {"quick": 1_000, "deep": 1_000_000}
COUNT = COUNTS.get(os.environ.get("CAS_TEST_PROFILE", "full"), 8_000)
"""Executions of each decoder."""

pytestmark = pytest.mark.skipif(lacking() is not None, reason=lacking() or "")


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_that_reaches_new_code_breaks_a_decoder(
    name: str, seed: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Inputs bred for the code that they reach are refused by name or mean what they say."""
    done = fuzz(name, tmp_path, seed=crc32(f"{seed} {name}".encode()), runs=COUNT)
    assert [told(name, data, done.text) for data in done.findings] == []
    assert done.executions >= COUNT
    assert "INFO: Instrumenting cas.model.encoding" in done.text
    counts = {"executions": done.executions, "reached what was new": done.new}
    record_property("counts", {"table": "fuzz by coverage", "row": name, "counts": counts})


@pytest.mark.slow
def test_a_bug_behind_five_bytes_is_found(tmp_path: Path) -> None:
    """A bug that one input in a trillion comes to is found, because each byte shows as reached."""
    done = fuzz(PLANTED, tmp_path, seed=1, runs=3_000_000)
    assert [data[:5].hex() for data in done.findings] == ["c3117e5a29"]
    assert "IndexError: planted" in told(PLANTED, done.findings[0], done.text)
