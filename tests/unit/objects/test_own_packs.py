"""What a handle has just put, it finds: also when its index is merged by that very put."""

from __future__ import annotations

import os

from cas.history.store import Store
from cas.storage.merging import MERGE_FACTOR


def test_each_pack_file_put_by_a_handle_is_found_by_it(store: Store) -> None:
    """Every blob of three rounds of merges is read back by the handle that put it."""
    ids = []
    for _ in range(3 * MERGE_FACTOR):
        ids.append(store.put(os.urandom(100_000)))
        assert [len(store.get(id)) for id in ids] == [100_000] * len(ids)
