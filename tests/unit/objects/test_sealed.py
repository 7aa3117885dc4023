"""A footer that is read again says what the one in memory says."""

from __future__ import annotations

import random

import pytest

from cas.history.store import Store
from cas.model.ids import Kind
from cas.objects import writer
from cas.objects.packs import PackInfo
from cas.objects.sealed import StoredFooter


def test_it_answers_as_the_one_in_memory(store: Store, rng: random.Random) -> None:
    """Every slot, id and search, what is not there, and the tables made of it."""
    store.put_many([rng.randbytes(rng.randrange(100, 3000)) for _ in range(1500)])
    store.spill()
    packs = [pack for pack in store.objects.lookup.state.packs.values() if pack.file is not None]
    assert packs
    for pack in packs:
        footer, again = _both(store, pack)
        assert [again.slot(at) for at in range(again.count)] == list(footer.slots())
        assert [again.id_at(at) for at in range(again.count)] == again.ids() == footer.ids()
        assert all(again.find(id) == at for at, id in enumerate(footer.ids()))
        assert again.find(b"\0" * 32) == -1
        assert again.table == footer.table
        assert (list(again.rows()), again.edges()) == (list(footer.rows()), footer.edges())
        assert again.by_offset() == footer.by_offset()
        assert again.memory_bytes < 1000


def _both(store: Store, pack: PackInfo) -> tuple[StoredFooter, StoredFooter]:
    footer = store.objects.lookup.footer(pack)
    assert pack.file is not None
    file = pack.file
    return footer, StoredFooter(footer, lambda at, n: store.objects.bucket.read(file, at, n))  # type: ignore[return-value]


def test_a_batch_of_many_packs_holds_few_footers(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stored twice, staged objects are read, and all of it is there at the end."""
    monkeypatch.setattr(writer, "_SLOTS_MAX", 200)
    monkeypatch.setattr(writer, "FOOTER_CACHE_BYTES", 20_000)
    contents = [rng.randbytes(rng.randrange(1, 2000)) for _ in range(4000)]
    with store.objects.batch() as batch:
        batch.put(Kind.BLOB, rng.randbytes(200_000))
        ids = [batch.put(Kind.BLOB, content) for content in contents]
        written = batch.written_count
        assert [batch.put(Kind.BLOB, content) for content in contents] == ids
        assert batch.written_count == written
        found = batch.read(ids[0])
        assert found is not None
        assert found[3] == len(contents[0])
    assert store.objects.lookup.known(ids) == set(ids)
    assert [store.objects.get(id, Kind.BLOB) for id in ids] == contents
