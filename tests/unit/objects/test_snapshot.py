"""The snapshot of a look-up moves forward only, whatever state a reader shows."""

from __future__ import annotations

from cas.history.store import Store
from tests.unit.kit import reopened, write


def test_an_older_reader_takes_nothing_back(store: Store) -> None:
    """A refresh with a reader that began before a commit of this handle keeps what that brought,
    and no pack is taken in twice: a spill can then take the packs out.
    """
    write(store, "main", {"a": b"1"})
    lookup = store.objects.lookup
    with store.objects.catalog.read() as reader:
        reader.head()
        blob = store.put(b"since then")
        before = lookup.ensure().version
        lookup.refresh(reader)
    assert lookup.ensure().version == before
    assert lookup.has(blob)
    count = lookup.inline_count
    with reopened(store) as other:
        write(other, "main", {"b": b"2"})
    lookup.refresh()
    assert lookup.inline_count == count + 1
    assert len(list(lookup.copies(blob))) == 1
    store.spill()
    lookup.refresh()
    assert lookup.inline_count == 0
    assert store.get(blob) == b"since then"
