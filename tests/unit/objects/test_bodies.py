"""Inline packs: a body that was read once is not read again while there is room for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cas
from cas.objects.bodies import BytesCache


def test_bodies_are_bounded() -> None:
    """The least recently used go first; the newest stays even when it alone is too much."""
    cache: BytesCache[int] = BytesCache(100)
    for number in range(5):
        cache.put(number, bytes(25))
        assert cache.get(0) == bytes(25)
    assert [number for number in range(5) if cache.get(number) is not None] == [0, 2, 3, 4]
    cache.put(9, bytes(500))
    assert [number for number in range(10) if cache.get(number) is not None] == [9]
    cache.clear()
    assert cache.get(9) is None
    cache.put(1, bytes(100))
    cache.put(1, bytes(100))
    assert cache.get(1) == bytes(100)


def test_random_reads_of_young_batches_read_each_body_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects of many inline packs, asked for by turns, cost one read of the catalog a pack."""
    with cas.open(tmp_path / "s", create=True) as store:
        packs = [store.put_many([os.urandom(500) for _ in range(100)]) for _ in range(10)]
        inline_body = store.objects.catalog.inline_body
        asked: list[int] = []

        def counted(number: int) -> bytes | None:
            asked.append(number)
            return inline_body(number)

        monkeypatch.setattr(store.objects.catalog, "inline_body", counted)
        for ids in zip(*packs, strict=True):
            for id in ids:
                assert len(store.get(id)) == 500
        assert len(asked) == len(set(asked)) == 10
