"""Index runs are a cache: whatever stands in them, a miss is never believed on their word alone."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import pytest

import cas
from cas.storage.index import Run
from cas.storage.merging import due_merge

_BODY = 100_000
"""Bytes of a blob that goes to a pack file of its own."""


@pytest.mark.parametrize("column", [slice(-16, -8), slice(-8, None)], ids=["entry", "fences"])
def test_damaged_runs_are_never_merged_into_one_that_is_believed(
    tmp_path: Path, column: slice
) -> None:
    """Runs damaged on disk hide nothing, also when enough others come to merge with them."""
    with cas.open(tmp_path / "s", create=True) as store:
        ids = [store.put(os.urandom(_BODY)) for _ in range(3)]
        assert all(map(store.has, ids))
    for run in (tmp_path / "s" / "cache").glob("*.run"):
        data = bytearray(run.read_bytes())
        data[column] = b"\xff" * 8
        run.write_bytes(data)
    with cas.open(tmp_path / "s") as store:
        assert not store.has(cas.ObjectId(bytes(32)))
    with cas.open(tmp_path / "s") as store:
        ids += [store.put(os.urandom(_BODY)) for _ in range(2)]
        for id in ids:
            assert len(store.get(id)) == _BODY


def test_a_place_in_a_pack_that_the_run_does_not_cover_is_no_place() -> None:
    """A run with a wild place gives no candidate, and no error either."""
    run = Run([1], [bytes(16)], [1], array("Q", [(5 << 8) + 7]), 8)
    assert list(run.find(5 << 8)) == []
    assert list(run.find_range(0, 9 << 8)) == []


def test_wild_fences_give_no_place_and_no_error() -> None:
    """Fences that point behind the entries, or backwards, end in an answer all the same."""
    for fences in ([0, 0], [9, 9], [1, 0], [0, 1 << 32]):
        run = Run([1], [bytes(16)], [2], array("Q", [5 << 8, (9 << 8) + 1]), 8, array("Q", fences))
        for prefix in (0, 5 << 8, 9 << 8, (1 << 64) - 1):
            assert set(run.find(prefix)) <= {(1, 0), (1, 1)}


def test_only_whole_runs_are_due() -> None:
    """A damaged run is left as it is, and the others are judged without it."""

    class Damaged(Run):
        def is_whole(self) -> bool:
            return False

    def one(kind: type[Run], number: int) -> Run:
        return kind([number], [bytes(16)], [1], array("Q", [number << 1]), 1)

    runs = [one(Run, number) for number in range(3)]
    assert due_merge([runs[0], one(Damaged, 99)]) == []
    assert due_merge([*runs, one(Damaged, 99)]) == runs
