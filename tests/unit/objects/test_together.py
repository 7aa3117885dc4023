"""Many objects in one call: the same ids, the same objects, as one by one."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import Invalid
from cas.limits import INLINE_TRANSACTION_BYTES_MAX
from cas.model.ids import digest_blob


def _mixed(seed: int) -> list[bytes]:
    """Contents of all the sizes that are treated apart, some of them twice."""
    rng = random.Random(seed)
    sizes = [0, 1, 63, 64, 800, 2_048, 2_049, 16_384, 16_385, 70_000]
    found = [rng.randbytes(rng.choice(sizes)) for _ in range(60)]
    return found + rng.choices(found, k=20)


@pytest.mark.parametrize("seed", range(4))
def test_together_is_as_one_by_one(tmp_path: Path, seed: int) -> None:
    """`put_many` gives the ids of `put`, in order, and every content comes back."""
    contents = _mixed(seed)
    with cas.open(tmp_path / "s", create=True) as store:
        known = [store.put(content) for content in contents[::7]]
        assert known == [digest_blob(content) for content in contents[::7]]
        ids = store.put_many(iter(contents))
        assert ids == [digest_blob(content) for content in contents]
        assert all(type(id) is cas.BlobId for id in ids)
        assert list(store.get_many(ids)) == contents
    with cas.open(tmp_path / "s") as store:
        assert store.put_many(contents) == ids
        assert list(store.get_many(ids)) == contents


def test_more_than_fits_into_a_row_goes_into_a_file(tmp_path: Path) -> None:
    """Small contents that together outgrow an inline pack all come back, each stored once."""
    rng = random.Random(5)
    contents = [rng.randbytes(1_000) for _ in range(3 * INLINE_TRANSACTION_BYTES_MAX // 1_000)]
    with cas.open(tmp_path / "s", create=True) as store:
        with store.objects.batch() as batch:
            ids = batch.put_blobs(contents[:500]) + batch.put_blobs(contents)
            assert batch.written_count == len(contents)
            assert batch.written_bytes == 1_000 * len(contents)
        assert ids == [digest_blob(content) for content in contents[:500] + contents]
        assert [store.get(cas.BlobId(id)) for id in ids[500:]] == contents


def test_streams_and_paths_stand_among_bytes(tmp_path: Path) -> None:
    """Ids follow the order given whatever each content is; a bad one leaves nothing behind."""
    (tmp_path / "file").write_bytes(b"of a file")
    with cas.open(tmp_path / "s", create=True) as store:
        given: list[Any] = [
            b"one",
            tmp_path / "file",
            b"two",
            io.BytesIO(b"of a stream"),
            bytearray(b"three"),
        ]
        ids = store.put_many(given)
        wanted = [b"one", b"of a file", b"two", b"of a stream", b"three"]
        assert list(store.get_many(ids)) == wanted
        with pytest.raises(Invalid):
            store.put_many([b"new", "text"])  # type: ignore[list-item]
        assert not store.has(cas.BlobId(digest_blob(b"new")))
