"""What a handle has just put, it finds: also when its index is merged by that very put."""

from __future__ import annotations

import os
from pathlib import Path

import cas
from cas.history.store import Store


def test_each_pack_file_put_by_a_handle_is_found_by_it(store: Store) -> None:
    """Every blob of three rounds of merges is read back by the handle that put it."""
    ids = []
    for _ in range(12):
        ids.append(store.put(os.urandom(100_000)))
        assert [len(store.get(id)) for id in ids] == [100_000] * len(ids)


def test_a_reader_that_may_not_write_leaves_the_index_in_its_files(tmp_path: Path) -> None:
    """What came since is indexed in memory beside what lies in files, and not with it: an index of
    any length is not taken into memory to be merged.
    """
    ids = []
    for count in (4, 3):
        with cas.open(tmp_path / "s", create=True) as store:
            ids += [store.put(os.urandom(100_000)) for _ in range(count)]
        if count == 4:
            with cas.open(tmp_path / "s") as store:
                assert all(map(store.has, ids))
    with cas.open(tmp_path / "s", read_only=True) as store:
        assert all(map(store.has, ids))
        _state, runs = store.objects.lookup.view()
        assert [(run.count, run.path is None) for run in runs] == [(4, False), (3, True)]
    with cas.open(tmp_path / "s") as store:
        assert all(map(store.has, ids))
        assert [run.count for run in store.objects.lookup.view()[1]] == [7]
