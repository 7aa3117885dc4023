"""Recipes that no writer makes: read as damage, in bounded time, never as a crash."""

from __future__ import annotations

import pytest

from cas.errors import Corrupt
from cas.history.store import Store
from cas.model.ids import BlobId, Kind
from cas.model.objects import Recipe


def _by_recipe(store: Store, blob: bytes, chunks: list[bytes], size_bytes: int) -> BlobId:
    """A blob that says it is so many times its chunks."""
    with store.objects.batch() as batch:
        recipe = Recipe(0, b"".join(chunks), (size_bytes,) * len(chunks)).encode()
        total = size_bytes * len(chunks)
        batch.add_recipe_copy(blob, batch.put(Kind.RECIPE, recipe), total)
    return BlobId(blob)


def test_a_recipe_that_names_its_own_blob_is_damage(store: Store) -> None:
    """A blob whose only chunk is itself gives `Corrupt`, whole and as a stream."""
    id = _by_recipe(store, b"\x11" * 32, [b"\x11" * 32], 5)
    with pytest.raises(Corrupt):
        store.get(id)
    with store.open(id) as stream, pytest.raises(Corrupt):
        stream.read()


def test_a_chunk_is_never_put_together_itself(store: Store) -> None:
    """Doublings of one chunk are refused at the first chunk that is a recipe copy."""
    below = bytes(store.put(b"x"))
    for step in range(20):
        below = _by_recipe(store, bytes([step + 1]) * 32, [below, below], 1 << step)
    with pytest.raises(Corrupt):
        store.get(BlobId(below))
    with store.open(BlobId(below)) as stream, pytest.raises(Corrupt):
        stream.read(1)
