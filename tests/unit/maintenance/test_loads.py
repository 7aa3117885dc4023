"""What packs hold is learnt once: a run that finds nothing to do does not read them again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import cas
from cas.history.retain import stage_raise
from cas.history.store import Store
from cas.maintenance.fsck.check import fsck
from cas.maintenance.gc.compact import worth_moving
from cas.maintenance.gc.loads import loads_of
from cas.objects.packs import bit_is_set
from cas.storage.header import PACK_HEADER_BYTES
from cas.storage.local import LocalBucket
from cas.storage.pack import SLOT_BYTES
from cas.storage.record import RECORD_HEADER_BYTES
from tests.unit.kit import reopened, write


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a folder."""
    with cas.open(tmp_path / "store", create=True) as opened:
        yield opened


def put_pack(store: Store, rng: Random, name: str, count: int = 20, gone: int = 1) -> None:
    """A pack file of so many contents, of which some are in no branch."""
    contents = [rng.randbytes(20_000) for _ in range(count)]
    store.put_many(contents)
    write(store, "main", {f"{name}/{at}": content for at, content in enumerate(contents[gone:])})


def reckoned(store: Store) -> dict[str, tuple[int, int, int]]:
    """Live bytes, all bytes and slots of each pack file with a vector, slot by slot."""
    state = store.objects.lookup.refresh()
    found = {}
    for number, bits in state.vectors.items():
        pack = state.packs[number]
        footer = store.objects.lookup.footer(pack)
        live = footer.body_bytes - PACK_HEADER_BYTES + SLOT_BYTES * footer.count
        everything = live
        for at, slot in enumerate(footer.slots()):
            if bit_is_set(bits, at):
                live -= slot.stored_bytes + RECORD_HEADER_BYTES + SLOT_BYTES
        found[pack.label] = live, everything, footer.count
    return found


def told(store: Store) -> dict[str, tuple[int, int, int]]:
    """The same, as it was learnt."""
    state = store.objects.lookup.refresh()
    return {
        load.pack.label: (load.live_bytes, load.all_bytes, load.slot_count)
        for load in loads_of(store.objects, state)
        if load.pack.number in state.vectors
    }


def test_nothing_is_read_again(store: Store, rng: Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle that was opened later and finds nothing to collect reads no footer of any pack."""
    for at in range(3):
        put_pack(store, rng, f"d{at}", count=60)
    assert store.gc(grace_us=0).object_count == 3
    store.gc()
    assert store.objects.lookup.refresh().vectors
    read_bytes: list[int] = []
    read = LocalBucket.read

    def counted(bucket: LocalBucket, name: str, offset: int, length: int) -> bytes:
        read_bytes.append(length)
        return read(bucket, name, offset, length)

    with reopened(store) as other:
        monkeypatch.setattr(LocalBucket, "read", counted)
        assert other.gc().object_count == 0
    assert sum(read_bytes) <= PACK_HEADER_BYTES  # the newest file's, for when it was born


def test_what_changes_is_learnt_anew(store: Store, rng: Random) -> None:
    """A vector that changed counts with its new bits, in this handle and in the next."""
    contents = [rng.randbytes(20_000) for _ in range(60)]
    store.put_many(contents)
    write(store, "main", {f"a/{at}": content for at, content in enumerate(contents[2:])})
    write(store, "draft", {"a": contents[1]})
    assert store.gc(grace_us=0).object_count == 1
    first = told(store)
    assert first == reckoned(store) != {}
    with store.begin() as tx:
        tx.delete("heads/draft")
        tx.commit()
    with store.begin() as tx:
        stage_raise(store.core, tx, store.view().seq, {})
        tx.commit()
    assert store.gc(grace_us=0).object_count > 0
    assert told(store) == reckoned(store) != first
    with reopened(store) as other:
        assert told(other) == reckoned(other)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": ["x", 1, 2]}'])
def test_a_damaged_cache_is_no_harm(store: Store, rng: Random, text: str) -> None:
    """What was learnt is a cache: without it packs are looked at again."""
    put_pack(store, rng, "a", count=60)
    store.gc(grace_us=0)
    path = Path(store.objects.cache or "") / "pack-loads.json"
    assert path.exists()
    path.write_text(text)
    with reopened(store) as other:
        assert told(other) == reckoned(other) != {}
        assert fsck(other).findings == ()


def test_what_cannot_be_read_stays(store: Store, rng: Random) -> None:
    """Small packs are merged without the one whose footer is damaged, and that one stays."""
    for at in range(9):
        put_pack(store, rng, f"d{at}", gone=0)
    state = store.objects.lookup.refresh()
    packs = [pack for pack in state.packs.values() if pack.file is not None]
    broken = packs[0].label
    path = Path(store.location) / "packs" / broken
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    with reopened(store) as other:
        found = worth_moving(
            other.objects, other.objects.lookup.refresh(), waste_min=0.5, bytes_max=1 << 30
        )
        assert {pack.label for pack in found} == {pack.label for pack in packs[1:]}
