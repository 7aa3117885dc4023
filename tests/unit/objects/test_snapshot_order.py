"""The snapshot of what is installed moves forward only."""

from __future__ import annotations

from cas.history.store import Store


def test_an_older_reader_does_not_take_the_snapshot_back(store: Store) -> None:
    """Who began to read before another thread committed refreshes nothing away, and what was
    installed since is not taken in a second time.
    """
    lookup = store.objects.lookup
    store.put(b"first")
    with store.objects.catalog.read() as reader:
        reader.head()
        id = store.put(b"second")
        newest = lookup.state.version
        assert lookup.refresh(reader).version == newest
    count = lookup.inline_count
    store.put(b"third")
    assert lookup.refresh().version > newest
    assert lookup.inline_count == count + 1
    assert [copy.pack.number for copy in lookup.copies(id)] == [newest]
