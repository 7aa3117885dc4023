"""A server of packs that does not answer for a moment: that is told, and is no damage."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

import cas
from cas.errors import StorageFailed
from cas.history.store import Store
from cas.limits import WHOLE_BLOB_BYTES_MAX
from cas.maintenance.repair import evidence
from tests.unit.kit import FailingReads, reopened, write
from tests.unit.objects.test_deltas import versions


def reads() -> Iterator[int]:
    """Which read fails: each of the first, some of the many that are alike."""
    return itertools.chain(range(1, 24), itertools.count(24, 11))


@pytest.fixture
def stocked(store: Store, rng: random.Random) -> Store:
    """A store with deltas, an object in chunks, commits, and packs that state no digest."""
    versions(store, 4, rng)
    store.put(os.urandom(WHOLE_BLOB_BYTES_MAX + 1))
    write(store, "main", {"file": b"1"})
    store.spill()
    return store


def test_a_check_stops_and_tells_no_damage(stocked: Store) -> None:
    """At whichever read it is, a check that could not read is refused, or has found all whole."""
    refused = 0
    for at in reads():
        with reopened(stocked) as other:
            failing = FailingReads(other.objects.bucket, at)
            other.objects.bucket = failing  # type: ignore[assignment]
            try:
                report = cas.fsck(other)
            except StorageFailed:
                refused += 1
                continue
        assert report.findings == ()
        if failing.left > 0:
            break
    assert refused > 10


def test_a_rebuild_leaves_nothing_out(stocked: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that could not read is refused, or has all objects that the packs hold."""
    stocked.close()
    count = cas.plan_repair(stocked.location, rebuild=True).object_count
    bucket_in = evidence.bucket_in
    refused = 0
    for at in reads():
        made: list[FailingReads] = []

        def failing(*where: Any, at: int = at, made: list[FailingReads] = made) -> FailingReads:
            made.append(FailingReads(bucket_in(*where), at))
            return made[-1]

        with monkeypatch.context() as patched:
            patched.setattr(evidence, "bucket_in", failing)
            try:
                plan = cas.plan_repair(stocked.location, rebuild=True)
            except StorageFailed:
                refused += 1
                continue
        assert plan.object_count == count
        if made[0].left > 0:
            break
    assert refused > 3
