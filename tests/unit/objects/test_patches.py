"""Patches in a store: what small commits write, how it is read back, and what it rests on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import cas
from cas.errors import Condemned
from cas.history.store import Store
from cas.limits import DELTA_DEPTH_MAX
from cas.maintenance.fsck.check import fsck
from cas.model.ids import Kind
from cas.objects.packs import Copy
from cas.storage.codec import DELTA, RAW, ZSTD


def fill(store: Store, entries: int = 300) -> None:
    """A folder of many files."""
    with store.begin(message="fill") as tx:
        branch = tx.branch("main")
        for number in range(entries):
            branch[f"item-{number:07d}"] = b"content %d" % number
        tx.commit()


def touch(store: Store, number: int, rng: random.Random) -> bytes:
    """One small commit; the root directory after it."""
    with store.begin(message=f"touch {number}") as tx:
        tx.branch("main")[f"item-{rng.randrange(300):07d}"] = b"changed %d" % number
        tx.commit()
    return bytes(store.commit("main").tree)


def copies(store: Store, kind: Kind = Kind.TREE) -> list[Copy]:
    """Every copy of an object of this kind."""
    lookup = store.objects.lookup
    return [
        Copy(pack, slot)
        for pack in lookup.refresh().packs.values()
        for slot in lookup.footer(pack).slots()
        if slot.kind == kind
    ]


def test_small_commits_write_patches_and_read_back(tmp_path: Path, rng: random.Random) -> None:
    """A chain of commits stores most nodes as patches, four deep at the most; a fresh handle reads
    every state, before a spill and after it, and nothing is wrong with the store.
    """
    place = tmp_path / "store"
    states = []
    with cas.open(place, create=True) as store:
        fill(store)
        for number in range(40):
            root = touch(store, number, rng)
            states.append((root, dict(store.snapshot("main").items())))
        kinds = copies(store)
        patched = [copy.slot for copy in kinds if copy.slot.codec == DELTA]
        assert len(patched) > len(kinds) // 2
        assert {slot.depth for slot in patched} == set(range(1, DELTA_DEPTH_MAX + 1))
        assert sum(slot.stored_bytes for slot in patched) * 3 < sum(s.raw_bytes for s in patched)
    for _ in range(2):
        with cas.open(place) as store:
            for age, (_root, files) in enumerate(reversed(states)):
                assert dict(store.snapshot(f"main~{age}").items()) == files
            assert fsck(store).findings == ()
            assert store._spill.finish() >= 0


def test_a_spill_compresses_whole_nodes(tmp_path: Path, rng: random.Random) -> None:
    """What a small commit left whole and raw is a frame after the spill; patches of it hold."""
    place = tmp_path / "store"
    states = []
    with cas.open(place, create=True) as store:
        fill(store)
        for number in range(30):
            touch(store, number, rng)
            states.append(dict(store.snapshot("main").items()))
        large = [c.slot for c in copies(store) if c.slot.raw_bytes > 1000 and not c.slot.depth]
        assert {slot.codec for slot in large} == {RAW}
        assert store.spill()
        found = {copy.slot.id: copy.slot for copy in copies(store)}
        assert {found[slot.id].codec for slot in large} == {ZSTD}
        assert all(found[slot.id].stored_bytes < slot.stored_bytes for slot in large)
    with cas.open(place) as store:
        for age, files in enumerate(reversed(states)):
            assert dict(store.snapshot(f"main~{age}").items()) == files
        assert fsck(store).findings == ()


def test_a_large_commit_writes_patches(store: Store, rng: random.Random) -> None:
    """A commit of many files into a large folder stores what it left of most nodes as patches."""
    fill(store, 3000)
    before = {copy.slot.id for copy in copies(store)}
    with store.begin(message="many") as tx:
        branch = tx.branch("main")
        for number in rng.sample(range(3000), 60):
            branch[f"item-{number:07d}"] = b"changed %d" % number
            branch[f"item-{number:07d}-new"] = b"new %d" % number
        tx.commit()
    written = [copy.slot for copy in copies(store) if copy.slot.id not in before]
    patched = [slot for slot in written if slot.codec == DELTA]
    assert len(patched) > len(written) // 2
    assert sum(s.stored_bytes for s in written) * 2 < sum(s.raw_bytes for s in written)
    assert fsck(store).findings == ()


def test_many_are_read_at_once(store: Store, rng: random.Random) -> None:
    """Patches, frames and whole nodes come out of one call for many."""
    fill(store)
    for number in range(20):
        touch(store, number, rng)
    ids = [copy.slot.id for copy in copies(store)]
    for id, kind, content in store.objects.get_many(ids):
        assert (kind, content) == store.objects.read(id)


def test_a_store_without_the_feature_writes_no_patch(tmp_path: Path, rng: random.Random) -> None:
    """An older reader would not know them."""
    with cas.open(tmp_path / "store", create=True, deltas=False) as store:
        fill(store)
        for number in range(5):
            touch(store, number, rng)
        assert {copy.slot.codec for copy in copies(store)} == {0}


def test_a_base_that_lost_its_copy_stops_the_commit(store: Store, rng: random.Random) -> None:
    """What a patch is made of is looked up again in the commit, if anything was condemned: a copy
    of it has to be there, with less depth (E6).
    """
    fill(store)
    touch(store, 0, rng)
    tx = store.begin(message="late")
    tx.branch("main")["item-0000001"] = b"late"
    batch = tx._batch
    tx.branch("main").finish()
    bases = set(batch._patches._bases.values())
    assert bases
    with store.objects.catalog.write() as writer:
        head = writer.head()
        for pack in store.objects.lookup.state.packs.values():
            footer = store.objects.lookup.footer(pack)
            bits = bytearray((footer.count + 7) // 8)
            for number, id in enumerate(footer.ids()):
                if id in bases:
                    bits[number >> 3] |= 1 << (number & 7)
            if any(bits):
                writer.set_vector(pack.number, head.version + 1, bytes(bits))
        writer.remove_packs([], head.version + 1, head.condemn_seq + 1)
    with pytest.raises(Condemned, match="was condemned"):
        tx.commit()


def test_a_patch_is_never_of_what_is_staged_beside_it(store: Store) -> None:
    """Two edits of one directory in one transaction: the second is no patch of the first, which
    nobody will have.
    """
    fill(store)
    before = {copy.slot.id for copy in copies(store)}
    with store.begin(message="twice") as tx:
        branch = tx.branch("main")
        for number in range(6):
            branch[f"item-{number:07d}"] = b"%d again" % number
            assert len(branch) == 300
        tx.commit()
    for copy in copies(store):
        if copy.slot.codec == DELTA:
            assert store.objects.payload(copy)[:32] in before
    assert fsck(store).findings == ()


def test_what_outgrows_memory_keeps_its_patches(store: Store, rng: random.Random) -> None:
    """A transaction that turns into pack files takes along what it had made so far."""
    fill(store)
    with store.begin(message="grows") as tx:
        branch = tx.branch("main")
        branch["item-0000007"] = b"patched"
        assert len(branch) == 300
        branch["large"] = rng.randbytes(1 << 20)
        tx.commit()
    assert store.snapshot("main")["item-0000007"] == b"patched"
    assert any(copy.slot.codec == DELTA and copy.pack.file for copy in copies(store))
    assert fsck(store).findings == ()
