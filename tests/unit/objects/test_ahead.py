"""Large content that is read ahead is the content, or an error."""

from __future__ import annotations

import io
import random
import threading
from contextlib import closing

import pytest

from cas.errors import Corrupt, ObjectNotFound
from cas.history.store import Store
from cas.model.ids import BlobId, Kind
from cas.model.objects import Recipe
from cas.objects.ahead import contents_ahead


def whole(store: Store, id: bytes) -> bytes:
    """All parts, joined."""
    return b"".join([bytes(part) for part in contents_ahead(store.objects, id)])


@pytest.mark.parametrize("size_bytes", [0, 10, 3 << 20, (8 << 20) + 1, 20 << 20])
def test_all_of_a_blob_comes_in_order(store: Store, rng: random.Random, size_bytes: int) -> None:
    """Of one piece or of many, chunks that repeat included."""
    block = rng.randbytes(size_bytes // 3 + 1)
    content = (block + b"%d" % size_bytes + block * 3)[:size_bytes]
    assert whole(store, store.put(io.BytesIO(content))) == content


def test_a_part_of_it_may_be_enough(store: Store, rng: random.Random) -> None:
    """Who stops early leaves no thread behind."""
    before = threading.active_count()
    id = store.put(io.BytesIO(rng.randbytes(30 << 20)))
    with closing(contents_ahead(store.objects, id)) as parts:
        assert len(next(parts)) > 0
    assert threading.active_count() <= before


def test_what_is_not_there_is_told(store: Store) -> None:
    """An id that names nothing raises as `open` does."""
    with pytest.raises(ObjectNotFound):
        whole(store, b"\x01" * 32)


@pytest.mark.parametrize(("stated", "chunk"), [(6, b"12345"), (4, b"12345"), (5, None)])
def test_a_recipe_that_does_not_fit_is_damage(
    store: Store, stated: int, chunk: bytes | None
) -> None:
    """Lengths that are not those of the chunks, and a blob that names itself as its chunk."""
    blob = b"\x11" * 32
    part = blob if chunk is None else bytes(store.put(chunk))
    with store.objects.batch() as batch:
        recipe = Recipe(0, part * 2, (stated, stated)).encode()
        batch.add_recipe_copy(blob, batch.put(Kind.RECIPE, recipe), 2 * stated)
    with pytest.raises(Corrupt):
        whole(store, BlobId(blob))
