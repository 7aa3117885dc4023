"""Small files that upkeep keeps: whole or not there, and never an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cas.maintenance.remembered import Remembered


def _ages(found: Any) -> dict[str, int]:
    return {name: int(age) for name, age in found["ages"].items()}


def test_what_was_saved_is_read_by_the_next(tmp_path: Path) -> None:
    """A value comes back, and leaves one file."""
    Remembered(str(tmp_path), "x.json").save({"ages": {"a": 1}})
    assert Remembered(str(tmp_path), "x.json").load(_ages, {}) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"null", b'{"ages": 3}', b'{"ages": {"a": "x"}}', b"{}"]
)
def test_what_cannot_be_read_was_never_there(tmp_path: Path, data: bytes) -> None:
    """Damage, another shape and another type are as nothing."""
    (tmp_path / "x.json").write_bytes(data)
    assert Remembered(str(tmp_path), "x.json").load(_ages, {"new": 0}) == {"new": 0}


def test_where_nothing_can_be_kept_nothing_is(tmp_path: Path) -> None:
    """Without a folder, and with one that is gone, saving is forgetting."""
    for folder in (None, str(tmp_path / "gone")):
        kept = Remembered(folder, "x.json")
        kept.save({"ages": {}})
        assert kept.load(_ages, {"new": 0}) == {"new": 0}
        assert kept.lasts is (folder is not None)
